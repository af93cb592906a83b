/* The reference backend: every operation of kernels.h as its equation, in double precision, rounded
 * once to the output. It is what the fast backends are tested against, so nothing here is clever;
 * one thread, no blocking, no vector code. This file owns its scratch and its table. */
#include "kernels/reference/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/host.h"

double *fkv_reference_scratch(struct fkv_backend *b, size_t count, struct fkv_error *err) {
    if (count > b->scratch_count) {
        free(b->scratch);
        b->scratch = malloc(count * sizeof *b->scratch);
        b->scratch_count = b->scratch ? count : 0;
    }
    if (!b->scratch) fkv_fail(err, "reference backend: no memory for %zu doubles", count);
    return b->scratch;
}

double fkv_reference_load(const void *data, enum fkv_dtype t, size_t i) {
    float x;
    fkv_to_f32((const char *)data + i * fkv_dtype_bytes(t), t, 1, &x);
    return x;
}

/* Going to 16 bits through a float32 rounded to nearest would round twice; rounded to odd (inexact:
 * the neighbour whose last bit is 1) it rounds once, since float32 carries more than two bits
 * beyond either format (Boldo and Melquiond 2008). */
void fkv_reference_store(void *data, enum fkv_dtype t, size_t i, double x) {
    float y = (float)x;
    uint32_t bits;
    memcpy(&bits, &y, 4);
    if (t != FKV_F32 && y != x && !isnan(x) && !(bits & 1))
        y = nextafterf(y, y < x ? INFINITY : -INFINITY);
    fkv_from_f32(&y, t, 1, (char *)data + i * fkv_dtype_bytes(t));
}

/* The grid is defined in float32 (quant.h), which states are rounded to first. */
void fkv_reference_round(enum fkv_quant quant, size_t count, double *x) {
    float group[FKV_QUANT_GROUP];
    for (size_t at = 0; quant && at < count; at += FKV_QUANT_GROUP) {
        const size_t n = count - at < FKV_QUANT_GROUP ? count - at : FKV_QUANT_GROUP;
        for (size_t i = 0; i < n; i++) group[i] = (float)x[at + i];
        fkv_quant_round(quant, group, n, group);
        for (size_t i = 0; i < n; i++) x[at + i] = group[i];
    }
}

static int reference_open(const struct fkv_backend_options *options, struct fkv_backend **out,
                          struct fkv_error *err) {
    if (fkv_host_check_options(options, "reference", err)) return FKV_FAILED;
    *out = calloc(1, sizeof **out);
    return *out ? FKV_OK : fkv_fail(err, "reference backend: out of memory");
}

static void reference_close(struct fkv_backend *b) {
    if (!b) return;
    free(b->scratch);
    free(b);
}

static int reference_info(struct fkv_backend *b, struct fkv_device_info *out,
                          struct fkv_error *err) {
    (void)b, (void)err;
    *out = (struct fkv_device_info){
        .space = FKV_HOST, .threads = 1, .memory_free = fkv_host_memory_available()};
    out->memory_total = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    snprintf(out->name, sizeof out->name, "reference (double precision)");
    snprintf(out->kernels, sizeof out->kernels, "double precision");
    return FKV_OK;
}

static int reference_reserve(struct fkv_backend *b, const struct fkv_limits *limits,
                             struct fkv_error *err) {
    (void)b, (void)limits, (void)err; /* scratch grows on demand */
    return FKV_OK;
}

/* Nothing: its scratch is a few rows and columns at a time. */
static int reference_add_needs(struct fkv_backend *b, const struct fkv_demand *demand,
                               struct fkv_backend_needs *own, struct fkv_error *err) {
    (void)b, (void)demand, (void)own, (void)err;
    return FKV_OK;
}

const struct fkv_backend_ops fkv_reference_backend = {
    .abi = FKV_BACKEND_ABI,
    .name = "reference",
    FKV_HOST_OPERATIONS,
    .open = reference_open,
    .close = reference_close,
    .info = reference_info,
    .reserve = reference_reserve,
    .add_needs = reference_add_needs,
    .embed = fkv_reference_embed,
    .norm_qkv = fkv_reference_norm_qkv,
    .append = fkv_reference_append,
    .rotate = fkv_reference_rotate,
    .attend = fkv_reference_attend,
    .attention_paid = fkv_reference_attention_paid,
    .project_residual = fkv_reference_project_residual,
    .norm_gate_up = fkv_reference_norm_gate_up,
    .norm_logits = fkv_reference_norm_logits,
    .score = fkv_reference_score,
    .compare = fkv_reference_compare,
    .map_dct = fkv_reference_map_dct,
    .map_matrix = fkv_reference_map_matrix,
    .map_release = fkv_reference_map_release,
    .compress = fkv_reference_compress,
    .gather = fkv_reference_gather,
    .power = fkv_reference_power,
    .spectra_add = fkv_reference_spectra_add,
};
