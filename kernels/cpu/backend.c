/* The CPU backend's table and its scratch (its buffers are host_buffer.h's).
 *
 * Everything an operation needs is allocated here, in `reserve` (and in map_dct, which may come
 * before or after it); an operation on more rows than were reserved is refused.
 * Threads: every region names its own number, at most `threads`, and OpenMP's number for the
 * process is left alone: other backends and the caller's own loops use it too. Loops over rows are
 * guided: a thread that slept comes 50 us late, and then the others have taken more of them
 * (prefill, two cores of a Xeon: 1.02 times as fast). Results do not depend on which thread did
 * what. */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_amx.h"
#include "kernels/dct.h"
#include "kernels/isa.h"
#include "kernels/limits.h"

#define LARGER(a, b) ((a) > (b) ? (a) : (b))

static int check_options(const struct fkv_backend_options *options, struct fkv_error *err) {
    struct fkv_backend_options other = *options;
    if (fkv_isa_check(err)) return FKV_FAILED;
    if (options->compute == FKV_COMPUTE_BF16) {
        if (fkv_isa() < FKV_ISA_AMX && !fkv_gemm_has_bf16())
            return fkv_fail(
                err,
                "compute: bfloat16 products are oneDNN's, which this build is without; use f32 "
                "(or install libdnnl-dev and build again)");
        if (fkv_isa() < FKV_ISA_AVX512_BF16)
            return fkv_fail(
                err,
                "compute: bfloat16 products take a processor with avx512_bf16 or amx, this one "
                "has %s%s; use f32",
                fkv_isa_name(fkv_isa()), getenv("FKV_MAX_ISA") ? " (FKV_MAX_ISA)" : "");
        other.compute = FKV_COMPUTE_F32; /* the rest is checked as for it */
    }
    return fkv_host_check_options(&other, "cpu", err);
}

/* Not where threads share processors, or the user wants them to sleep. */
static bool may_wait_awake(int threads) {
    const char *policy = getenv("OMP_WAIT_POLICY");
    return threads <= omp_get_num_procs() && (!policy || strcasecmp(policy, "passive"));
}

static int cpu_open(const struct fkv_backend_options *options, struct fkv_backend **out,
                    struct fkv_error *err) {
    if (check_options(options, err)) return FKV_FAILED;
    struct fkv_backend *b = calloc(1, sizeof *b);
    if (!b) return fkv_fail(err, "out of memory");
    b->processors = omp_get_max_threads();
    b->threads = b->team = options->threads ? options->threads : b->processors;
    b->awake = may_wait_awake(b->threads);
    b->compute = options->compute == FKV_COMPUTE_NATIVE ? FKV_COMPUTE_F32 : options->compute;
    b->simd = fkv_simd_choose();
    b->panel = b->compute == FKV_COMPUTE_BF16 ? fkv_simd_bf16_panel() : b->simd->panel;
    if (b->compute == FKV_COMPUTE_BF16) {
        b->dot_bf16 = fkv_dot_bf16_avx512, b->round_bf16 = fkv_round_bf16_avx512;
        b->tiles = fkv_isa() >= FKV_ISA_AMX;
        b->widens = !b->tiles && fkv_isa_slow_bf16();
        b->round_wide = fkv_round_wide_avx512;
    }
    if (fkv_gemm_open(b->threads, &b->gemm, err)) {
        free(b);
        return FKV_FAILED;
    }
    *out = b;
    return FKV_OK;
}

static void cpu_close(struct fkv_backend *b) {
    if (!b) return;
    fkv_gemm_close(b->gemm);
    free(b->rounded);
    free(b->normed);
    free(b->norm);
    free(b->scratch);
    free(b->partial);
    fkv_cpu_rotations_free(b);
    fkv_dct_destroy(b->power_plan);
    free(b);
}

static int cpu_info(struct fkv_backend *b, struct fkv_device_info *out, struct fkv_error *err) {
    (void)err;
    *out = (struct fkv_device_info){.memory_total =
                                        (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE),
                                    .memory_free = fkv_host_memory_available(),
                                    .space = FKV_HOST,
                                    .threads = b->threads};
    const bool bf16 = b->compute == FKV_COMPUTE_BF16;
    const char *isa = bf16 ? fkv_isa_name(fkv_isa()) : b->simd->name, *library = fkv_gemm_name();
    snprintf(out->kernels, sizeof out->kernels, "%s%s, %s", isa, b->widens ? " as f32" : "",
             b->tiles  ? "own products"
             : library ? library
                       : "no library");
    snprintf(out->name, sizeof out->name, "CPU, %d threads, %s", b->threads, out->kernels);
    /* A processor with AMX multiplies bfloat16 eight times as fast as it does float32; one with
     * AVX512-BF16 alone at most twice. */
    const char *note = fkv_gemm_note();
    if (!note && !bf16 && fkv_isa() == FKV_ISA_AMX)
        note =
            "this processor's AMX makes bfloat16 products at least twice as fast: --compute bf16";
    if (!note && b->widens)
        note = "this processor, without AMX, gains nothing from bfloat16 in products of many rows";
    if (note) snprintf(out->note, sizeof out->note, "%s", note);
    return FKV_OK;
}

/* 64-byte aligned, at least one line. */
static void *allocate(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

static int grow(float **p, size_t floats, struct fkv_error *err) {
    float *larger = allocate(floats * sizeof **p);
    if (!larger) return fkv_fail(err, "out of memory: %zu bytes of scratch", floats * sizeof **p);
    free(*p);
    *p = larger;
    return FKV_OK;
}

static size_t rounded_bytes(const struct fkv_backend *b, const struct fkv_limits *l) {
    if (b->tiles) return fkv_amx_packed_bytes(l->rows, fkv_cpu_widest(l));
    return fkv_dtype_bytes(b->widens ? FKV_F32 : FKV_BF16) * (size_t)l->rows *
           (size_t)fkv_cpu_widest(l);
}

static int grow_rounded(struct fkv_backend *b, const struct fkv_limits *l, struct fkv_error *err) {
    void *larger = allocate(rounded_bytes(b, l));
    if (!larger) return fkv_fail(err, "out of memory: %zu bytes of scratch", rounded_bytes(b, l));
    free(b->rounded);
    b->rounded = larger;
    return FKV_OK;
}

int fkv_cpu_grow_scratch(struct fkv_backend *b, size_t floats, struct fkv_error *err) {
    floats = (floats + 31) / 16 * 16; /* neighbours share no cache line */
    if (floats <= b->scratch_each) return FKV_OK;
    if (grow(&b->scratch, (size_t)b->threads * floats, err)) return FKV_FAILED;
    b->scratch_each = floats;
    return FKV_OK;
}

/* Floats per thread. */
static size_t scratch_of(const struct fkv_backend *b, const struct fkv_limits *l) {
    size_t floats = fkv_cpu_multiply_scratch(l);
    floats = LARGER(floats, fkv_cpu_attend_scratch(b, l));
    floats = LARGER(floats, fkv_cpu_attention_paid_scratch(l));
    floats = LARGER(floats, fkv_cpu_cache_scratch(l));
    return LARGER(floats, fkv_cpu_compress_scratch(b, l));
}

static int cpu_reserve(struct fkv_backend *b, const struct fkv_limits *limits,
                       struct fkv_error *err) {
    struct fkv_limits l = fkv_limits_join(&b->limits, limits);
    size_t rows = (size_t)l.rows, dim = (size_t)l.dim, head_dim = (size_t)l.attention.head_dim,
           heads = (size_t)l.attention.heads;
    if (grow(&b->normed, rows * dim, err) ||
        grow(&b->norm, LARGER(dim + 2 * head_dim, heads * head_dim), err) ||
        grow(&b->partial, fkv_cpu_attend_partial(&l), err) ||
        fkv_cpu_rotation_reserve(b, limits, err) || fkv_cpu_grow_scratch(b, scratch_of(b, &l), err))
        return FKV_FAILED;
    if (b->compute == FKV_COMPUTE_BF16 && grow_rounded(b, &l, err)) return FKV_FAILED;
    b->partial_floats = fkv_cpu_attend_partial(&l);
    b->limits = l;
    return FKV_OK;
}

/* Raises *floats to what a thread's scratch holds during a transform of n: `rows` floats of states
 * and the scratch of the transform. */
static int add_transform(int32_t n, size_t rows, size_t *floats, struct fkv_error *err) {
    struct fkv_dct *plan;
    if (fkv_dct_create(n, &plan, err)) return FKV_FAILED;
    *floats = LARGER(*floats, rows + fkv_dct_scratch(plan));
    fkv_dct_destroy(plan);
    return FKV_OK;
}

static int cpu_add_needs(struct fkv_backend *b, const struct fkv_demand *d,
                         struct fkv_backend_needs *own, struct fkv_error *err) {
    const struct fkv_limits l = fkv_limits_join(&b->limits, &d->limits);
    const size_t head_dim = (size_t)l.attention.head_dim,
                 segment = (size_t)d->segment_n + (size_t)d->segment_head_dim;
    size_t scratch = scratch_of(b, &l), rows = (size_t)l.rows * (size_t)l.dim,
           partial = fkv_cpu_attend_partial(&l);
    if (d->map_n && !d->map_matrices &&
        (add_transform(d->map_n, ((size_t)d->map_n + 2) * head_dim, &scratch, err) ||
         add_transform(d->map_retained, ((size_t)d->map_n + 2) * head_dim, &scratch, err)))
        return FKV_FAILED;
    if (d->map_matrices) {
        const size_t states = ((size_t)d->map_n + (size_t)d->map_retained + 2) * head_dim;
        scratch = LARGER(scratch, states);
        own->kept += (int64_t)sizeof(float) * d->map_matrices * d->map_n * d->map_retained;
    }
    if (d->segment_n && add_transform(d->segment_n, 4 * segment, &scratch, err)) return FKV_FAILED;
    const int64_t all =
        (int64_t)sizeof(float) * (int64_t)(rows + partial + (size_t)b->threads * scratch);
    const int64_t rounded = b->compute == FKV_COMPUTE_BF16 ? (int64_t)rounded_bytes(b, &l) : 0;
    own->shared = LARGER(own->shared, all + rounded + fkv_cpu_rotation_bytes(&d->limits));
    return FKV_OK;
}

const struct fkv_backend_ops fkv_cpu_backend = {
    .abi = FKV_BACKEND_ABI,
    .name = "cpu",
    FKV_HOST_OPERATIONS,
    .open = cpu_open,
    .close = cpu_close,
    .info = cpu_info,
    .reserve = cpu_reserve,
    .add_needs = cpu_add_needs,
    .embed = fkv_cpu_embed,
    .norm_qkv = fkv_cpu_norm_qkv,
    .append = fkv_cpu_append,
    .rotate = fkv_cpu_rotate,
    .attend = fkv_cpu_attend,
    .attention_paid = fkv_cpu_attention_paid,
    .project_residual = fkv_cpu_project_residual,
    .norm_gate_up = fkv_cpu_norm_gate_up,
    .norm_logits = fkv_cpu_norm_logits,
    .score = fkv_cpu_score,
    .compare = fkv_cpu_compare,
    .map_dct = fkv_cpu_map_dct,
    .map_matrix = fkv_cpu_map_matrix,
    .map_release = fkv_cpu_map_release,
    .compress = fkv_cpu_compress,
    .gather = fkv_cpu_gather,
    .power = fkv_cpu_power,
    .spectra_add = fkv_cpu_spectra_add,
};
