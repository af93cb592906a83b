/* What this process may use of the machine: memory and processors. The rest of host.h is in host.c,
 * which a device's module takes without this. */
#include <math.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "kernels/base/cgroup.h"
#include "kernels/base/host.h"

/* The number of KiB in the line "NAME: number kB" of a file, in bytes; -1: none. */
static int64_t read_field(const char *root, const char *file, const char *name) {
    char path[4096], line[256];
    snprintf(path, sizeof path, "%s%s", root, file);
    FILE *f = fopen(path, "r");
    if (!f) return -1;
    const size_t bytes = strlen(name);
    long long kib = -1;
    while (kib < 0 && fgets(line, sizeof line, f))
        if (!strncmp(line, name, bytes) && line[bytes] == ':')
            sscanf(line + bytes + 1, "%lld", &kib);
    fclose(f);
    return kib < 0 || kib > INT64_MAX / 1024 ? -1 : (int64_t)kib * 1024;
}

int64_t fkv_host_memory_under(const char *root) {
    const int64_t machine = read_field(root, "/proc/meminfo", "MemAvailable"),
                  group = fkv_cgroup_memory(root);
    if (machine < 0) return group == INT64_MAX ? -1 : group;
    return group < machine ? group : machine;
}

/* Bytes of address space that `ulimit -v` and `ulimit -d` leave; INT64_MAX: no such limit. */
static int64_t address_space_left(void) {
    static const struct {
        int limit;
        const char *name;
    } limits[] = {{RLIMIT_AS, "VmSize"}, {RLIMIT_DATA, "VmData"}};
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit found;
        if (getrlimit(limits[i].limit, &found) || found.rlim_cur >= INT64_MAX)
            continue; /* RLIM_INFINITY is beyond */
        const int64_t limit = (int64_t)found.rlim_cur,
                      used = read_field("", "/proc/self/status", limits[i].name);
        const int64_t left = used < 0 ? limit : used < limit ? limit - used : 0;
        if (left < least) least = left;
    }
    return least;
}

int64_t fkv_host_memory_beside(int64_t mapped) {
    const int64_t memory = fkv_host_memory_under(""), space = address_space_left();
    if (space > INT64_MAX - mapped || (memory >= 0 && memory < space + mapped)) return memory;
    return space + mapped;
}

int64_t fkv_host_memory_available(void) { return fkv_host_memory_beside(0); }

bool fkv_host_can_map(size_t bytes) {
    void *space = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space == MAP_FAILED) return false;
    munmap(space, bytes);
    return true;
}

static atomic_int lent;

void fkv_host_lend(int processors) { atomic_fetch_add(&lent, processors); }

int fkv_host_lent(void) { return atomic_load(&lent); }

void fkv_host_limit_threads(void) {
    const double quota = fkv_cgroup_processors("");
    if (getenv("OMP_NUM_THREADS") || !(quota < omp_get_max_threads())) return;
    omp_set_num_threads(quota > 1 ? (int)ceil(quota) : 1);
}
