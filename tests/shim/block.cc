/* Runs the kernels of kernels/cuda on the CPU, for tests on machines without a GPU: the same .cu
 * files, compiled by g++ against the headers of this folder.
 *
 * Blocks run one after the other. The threads of a block are fibers: each runs until it waits for
 * others (__syncthreads, or a collective of its warp: shuffle, vote, mma.sync, ldmatrix) or ends,
 * and which one runs next is drawn from a seed (FKV_SHIM_SEED). Shared memory is all NaN when a
 * block starts, cp.async arrives at the wait that covers it, and guard zones lie around dynamic
 * shared memory.
 *
 * What a pass shows: indices and addresses, logic, tails, alignment of vector accesses; that all
 * threads of a block reach every barrier and all lanes of a warp every collective (else the launch
 * fails, saying who waits); that fragments follow the documented layouts; that staged memory,
 * streams, events and graphs are used in an order that CUDA defines (runtime.cc). What it does not
 * show: races as such (a missing barrier gives other results for some seeds, not for all: threads
 * here interleave only where they wait), the memory model, registers, occupancy, speed, what nvcc
 * and ptxas make of the code, the accuracy of the hardware's fast functions, and the real cuBLAS
 * and cuFFT. */
#include "shim.h"

#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
enum {
    STACK_BYTES = 512 << 10,
    GUARD_BYTES = 0
}; /* ASan's own red zones lie around every allocation */
#else
enum { STACK_BYTES = 128 << 10, GUARD_BYTES = 256 };
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* ---- switching stacks ---- */
#if defined(__x86_64__)
/* Saves the callee-saved registers on the stack that is left, takes them from the stack that is
 * entered. swapcontext would cost a system call each time. */
extern "C" void shim_switch(void **left, void *entered);
asm(R"(
    .text
    .hidden shim_switch
    .globl shim_switch
    .type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size shim_switch, . - shim_switch
)");
typedef void *context;
static void context_make(context *c, char *stack, void (*entry)()) {
    void **top = (void **)(stack + STACK_BYTES) - 2;
    top[1] = NULL; /* where `entry` would return to */
    top[0] = (void *)
        entry; /* at a multiple of 16: when `ret` has taken it, the stack stands as after a call */
    top -= 6;
    *c = top;
}
static void context_switch(context *left, context *entered) { shim_switch(left, *entered); }
#else
#include <ucontext.h>
typedef ucontext_t context;
static void context_make(context *c, char *stack, void (*entry)()) {
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = STACK_BYTES;
    c->uc_link = NULL;
    makecontext(c, entry, 0);
}
static void context_switch(context *left, context *entered) { swapcontext(left, entered); }
#endif

/* ---- the block that runs ---- */
enum wait { READY, AT_BARRIER, AT_COLLECTIVE, GONE };

struct async_copy {
    void *shared;
    const void *global;
    bool valid;
    int group;
};

struct fiber {
    context registers;
    char *stack;
    void *fake_stack; /* ASan's */
    uint3 index;
    unsigned number; /* within the block */
    wait state;
    int groups; /* of asynchronous copies, committed */
    std::vector<async_copy> copies;
};

struct warp {
    unsigned first, lanes, waiting;
    shim_serve serve;
    void *mine[SHIM_LANES];
};

static struct {
    std::vector<fiber> fibers; /* grown to the largest block so far */
    std::vector<warp> warps;
    unsigned threads, at_barrier, gone;
    fiber *current;
    context scheduler;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    void *scheduler_fake_stack;
    const std::function<void()> *thread;
    char *dynamic;
    size_t dynamic_bytes;
    char *fixed; /* the __shared__ arrays of all kernels */
    size_t fixed_bytes;
    char *message; /* [512], "" while nothing failed */
} running;

static __attribute__((noinline)) void enter(fiber *f) {
    running.current = f;
    threadIdx = f->index;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&running.scheduler_fake_stack, f->stack, STACK_BYTES);
#endif
    context_switch(&running.scheduler, &f->registers);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(running.scheduler_fake_stack, NULL, NULL);
#endif
}

static __attribute__((noinline)) void arrived(fiber *f) {
    (void)f;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f->fake_stack, &running.scheduler_stack,
                                    &running.scheduler_stack_bytes);
#endif
}

static __attribute__((noinline)) void leave(fiber *f) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(f->state == GONE ? NULL : &f->fake_stack,
                                   running.scheduler_stack, running.scheduler_stack_bytes);
#endif
    context_switch(&f->registers, &running.scheduler);
    arrived(f);
}

static void fiber_main() {
    fiber *f = running.current;
    arrived(f);
    (*running.thread)();
    f->state = GONE;
    running.gone++;
    leave(f);
    abort();
}

void shim_fault(const char *format, ...) {
    fiber *f = running.current;
    int used =
        snprintf(running.message, 512, "block (%u, %u, %u), thread (%u, %u, %u): ", blockIdx.x,
                 blockIdx.y, blockIdx.z, f->index.x, f->index.y, f->index.z);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(running.message + used, 512 - (size_t)used, format, arguments);
    va_end(arguments);
    f->state = GONE;
    leave(f);
    abort();
}

/* ---- waiting for others ---- */
void __syncthreads() {
    fiber *f = running.current;
    f->state = AT_BARRIER;
    running.at_barrier++;
    leave(f);
}

unsigned shim_lane() { return running.current->number % SHIM_LANES; }

void shim_meet(shim_serve serve, void *mine) {
    fiber *f = running.current;
    warp *w = &running.warps[f->number / SHIM_LANES];
    if (w->waiting && w->serve != serve) shim_fault("lanes of its warp wait in another collective");
    w->serve = serve;
    w->mine[f->number - w->first] = mine;
    if (++w->waiting < w->lanes) {
        f->state = AT_COLLECTIVE;
        leave(f);
        return;
    }
    serve(w->mine);
    w->waiting = 0;
    for (unsigned i = 0; i < w->lanes; i++)
        if (running.fibers[w->first + i].state == AT_COLLECTIVE)
            running.fibers[w->first + i].state = READY;
}

/* ---- shared memory ---- */
static thread_local char tls_marker; /* lies among the __shared__ arrays */

/* The module's thread-local block, which holds nothing but __shared__ arrays. */
static int find_fixed(struct dl_phdr_info *info, size_t, void *marker) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto *header = &info->dlpi_phdr[i];
        char *start = (char *)info->dlpi_tls_data;
        if (header->p_type != PT_TLS || !start) continue;
        if ((char *)marker < start || (char *)marker >= start + header->p_memsz) continue;
        running.fixed = start;
        running.fixed_bytes = header->p_memsz;
        return 1;
    }
    return 0;
}

char *shim_dynamic_shared() { return running.dynamic; }

bool shim_is_shared(const void *address, size_t bytes) {
    const char *at = (const char *)address;
    return (at >= running.dynamic && at + bytes <= running.dynamic + running.dynamic_bytes) ||
           (at >= running.fixed && at + bytes <= running.fixed + running.fixed_bytes);
}

void shim_copy_async(void *shared, const void *global, bool valid) {
    if ((uintptr_t)shared % 16 || (valid && (uintptr_t)global % 16))
        shim_fault("cp.async from %p to %p: not 16-byte aligned", global, shared);
    if (!shim_is_shared(shared, 16))
        shim_fault("cp.async to %p, which is not shared memory", shared);
    memset(shared, 0xff, 16);
    fiber *f = running.current;
    f->copies.push_back({shared, global, valid, f->groups});
}

void shim_copy_commit() { running.current->groups++; }

void shim_copy_wait(int pending) {
    fiber *f = running.current;
    size_t kept = 0;
    for (const async_copy &c : f->copies)
        if (c.group >= f->groups - pending)
            f->copies[kept++] = c;
        else if (c.valid)
            memcpy(c.shared, c.global, 16);
        else
            memset(c.shared, 0, 16);
    f->copies.resize(kept);
}

/* ---- a block ---- */
static void start_block(dim3 size) {
    unsigned count = running.threads;
    while (running.fibers.size() < count) {
        fiber f = {};
        void *memory = mmap(NULL, STACK_BYTES + 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, 4096, PROT_NONE))
            abort(); /* a test cannot go on */
        f.stack = (char *)memory + 4096;
        running.fibers.push_back(f);
    }
    running.warps.resize((count + SHIM_LANES - 1) / SHIM_LANES);
    for (unsigned i = 0; i < running.warps.size(); i++) {
        unsigned lanes = min(count - i * SHIM_LANES, (unsigned)SHIM_LANES);
        running.warps[i] = {i * SHIM_LANES, lanes, 0, NULL, {}};
    }
    for (unsigned i = 0; i < count; i++) {
        fiber *f = &running.fibers[i];
        context_make(&f->registers, f->stack, fiber_main);
        f->fake_stack = NULL;
        f->index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        f->number = i;
        f->state = READY;
        f->groups = 0;
        f->copies.clear();
    }
    running.at_barrier = running.gone = 0;
    memset(running.fixed, 0xff, running.fixed_bytes);
    memset(running.dynamic, 0xff, running.dynamic_bytes);
}

/* Lets the lanes of a warp run, in an order that changes each time round, until none can go on by
 * itself. */
static void run_warp(warp *w) {
    for (bool ran = true; ran && !running.message[0];) {
        ran = false;
        unsigned order = shim_random(), step = 2 * (order >> 5) + 1;
        for (unsigned i = 0; i < SHIM_LANES && !running.message[0]; i++) {
            unsigned lane = (i * step + order) % SHIM_LANES;
            if (lane >= w->lanes || running.fibers[w->first + lane].state != READY) continue;
            enter(&running.fibers[w->first + lane]);
            ran = true;
        }
    }
}

/* "2 threads (3, 4) wait at a barrier" */
static std::string list_threads(wait which, const char *what) {
    std::string numbers;
    unsigned count = 0;
    for (unsigned i = 0; i < running.threads; i++)
        if (running.fibers[i].state == which && ++count <= 8)
            numbers += (count > 1 ? ", " : "") + std::to_string(i);
    if (!count) return "";
    return "; " + std::to_string(count) + " threads (" + numbers + (count > 8 ? ", ..." : "") +
           ") " + what;
}

static void report_deadlock() {
    std::string who = list_threads(AT_BARRIER, "wait at a barrier") +
                      list_threads(AT_COLLECTIVE, "wait in a collective of their warp") +
                      list_threads(GONE, "have left");
    snprintf(running.message, 512, "block (%u, %u, %u) cannot go on%s", blockIdx.x, blockIdx.y,
             blockIdx.z, who.c_str());
}

static void check_guards() {
    for (size_t i = 0; i < GUARD_BYTES && !running.message[0]; i++)
        if (running.dynamic[running.dynamic_bytes + i] != 0x5a)
            snprintf(running.message, 512,
                     "block (%u, %u, %u) wrote %zu bytes beyond its %zu of dynamic shared memory",
                     blockIdx.x, blockIdx.y, blockIdx.z, i, running.dynamic_bytes);
}

static void run_block(dim3 size) {
    start_block(size);
    while (!running.message[0]) {
        size_t warps = running.warps.size(), start = shim_random() % warps;
        bool backwards = shim_random() & 1;
        for (size_t i = 0; i < warps && !running.message[0]; i++)
            run_warp(&running.warps[(start + (backwards ? warps - i : i)) % warps]);
        if (running.gone == running.threads || running.message[0]) break;
        if (running.at_barrier != running.threads) return report_deadlock();
        running.at_barrier = 0;
        for (unsigned i = 0; i < running.threads; i++) running.fibers[i].state = READY;
    }
    check_guards();
}

bool shim_run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &thread,
                   char message[512]) {
    gridDim = grid;
    blockDim = block;
    running.threads = block.x * block.y * block.z;
    running.thread = &thread;
    running.message = message;
    running.message[0] = 0;
    running.dynamic_bytes = shared;
    void *memory;
    if (posix_memalign(&memory, 128, shared + GUARD_BYTES)) abort();
    running.dynamic = (char *)memory;
    memset(running.dynamic + shared, 0x5a, GUARD_BYTES);
    dl_iterate_phdr(find_fixed, &tls_marker);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x && !message[0]; x++) {
                blockIdx = {x, y, z};
                run_block(block);
            }
#if defined(__SANITIZE_ADDRESS__)
    if (message[0]) /* frames that never returned */
        for (const fiber &f : running.fibers) __asan_unpoison_memory_region(f.stack, STACK_BYTES);
#endif
    free(running.dynamic);
    running.dynamic = NULL;
    return !message[0];
}
