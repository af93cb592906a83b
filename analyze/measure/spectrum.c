/* Owns the way from a capture to power spectra (definitions.md, "Power"): which segments there are
 * and what a spectrum holds. Stored states are measured in spectrum_states.c, captures of sums
 * (--spectra-only) in spectrum_sums.c. */
#include "analyze/measure/spectrum.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/measure/averages.h"
#include "capture/store/capture_reader.h"

/* ---- the cut ---- */

static int stored_cut(struct fkv_capture *c, int32_t *length, int32_t *skip_sinks,
                      struct fkv_error *err) {
    const char *path = fkv_capture_path(c);
    uint32_t states = fkv_capture_info(c)->states;
    enum fkv_state state = FKV_STATE_KEY;
    while (state < FKV_STATES - 1 && !(states >> state & 1)) state++;
    if (!fkv_capture_count(c)) return fkv_fail(err, "%s: holds no recording", path);
    struct fkv_spectra_sums sums = {0};
    if (fkv_capture_read_sums(c, 0, state, &sums, err)) return FKV_FAILED;
    int32_t n = sums.n, skip = sums.skip_sinks;
    fkv_spectra_sums_free(&sums);
    if (*length && *length != n)
        return fkv_fail(err,
                        "%s: holds sums over segments of %d tokens (--spectra-only); --length %d "
                        "needs stored states",
                        path, n, *length);
    if (*skip_sinks >= 0 && *skip_sinks != skip)
        return fkv_fail(
            err, "%s: holds sums made with %d sinks skipped; --skip-sinks %d needs stored states",
            path, skip, *skip_sinks);
    *length = n;
    *skip_sinks = skip;
    return FKV_OK;
}

int fkv_spectrum_plan(struct fkv_capture *c, int32_t length, int32_t skip_sinks,
                      struct fkv_segment_plan *plan, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    if (!info->states)
        return fkv_fail(err, "%s: holds none of key, value, key_rotated, query",
                        fkv_capture_path(c));
    if (info->spectra_only) {
        if (stored_cut(c, &length, &skip_sinks, err)) return FKV_FAILED;
    } else {
        if (skip_sinks < 0) skip_sinks = FKV_DEFAULT_SINKS;
        if (!length && info->trained_context <= 0)
            return fkv_fail(
                err,
                "%s: no attribute trained_context to take the segment length from; give --length",
                fkv_capture_path(c));
        if (!length) length = info->trained_context - skip_sinks;
        if (length < 2)
            return fkv_fail(err,
                            "%s: trained_context %d less %d sinks leaves no segment; expected a "
                            "length of 2 or more",
                            fkv_capture_path(c), info->trained_context, skip_sinks);
    }
    int32_t count = fkv_capture_count(c);
    const struct fkv_recording **recordings = malloc((size_t)(count + 1) * sizeof *recordings);
    if (!recordings) return fkv_fail(err, "out of memory for %d recordings", count);
    for (int32_t i = 0; i < count; i++) recordings[i] = fkv_capture_recording(c, i);
    int status = fkv_segment_plan_make(recordings, count, length, skip_sinks, plan, err);
    free(recordings);
    return status ? fkv_error_prefix(err, "%s", fkv_capture_path(c)) : FKV_OK;
}

/* ---- small pieces ---- */

/* Square of the power of two at or below |x|, at least that of the smallest normal number: below it
 * the spacing stays. */
static inline __attribute__((always_inline)) double squared_scale(float x, float smallest) {
    uint32_t bits;
    float scale;
    memcpy(&bits, &x, 4);
    bits &= 0x7f800000u;
    memcpy(&scale, &bits, 4);
    double larger = scale > smallest ? scale : smallest;
    return larger * larger;
}

/* Sum of the squared scales of x [n] */
static inline __attribute__((always_inline)) double add_scales(const void *x, int64_t n,
                                                               enum fkv_dtype dtype,
                                                               float smallest) {
    enum {
        SUMS = 8, /* side by side, so that additions do not wait for each other */
        BLOCK = 128 * SUMS
    };
    float wide[BLOCK];
    double part[SUMS] = {0}, sum = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t count = n - first < BLOCK ? n - first : BLOCK, i = 0;
        fkv_to_f32((const char *)x + (size_t)first * fkv_dtype_bytes(dtype), dtype, (size_t)count,
                   wide);
        for (; i + SUMS <= count; i += SUMS)
            for (int k = 0; k < SUMS; k++) part[k] += squared_scale(wide[i + k], smallest);
        for (; i < count; i++) sum += squared_scale(wide[i], smallest);
    }
    for (int k = 0; k < SUMS; k++) sum += part[k];
    return sum;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static double add_scales_avx2(const void *x, int64_t n,
                                                              enum fkv_dtype dtype,
                                                              float smallest) {
    return add_scales(x, n, dtype, smallest);
}
#endif

double fkv_rounding_energy(const void *x, int64_t n, enum fkv_dtype dtype) {
    /* per dtype: significand bits after the leading one, and the smallest normal number */
    static const struct {
        int bits;
        float smallest;
    } formats[] = {
        [FKV_F32] = {23, 0x1p-126f}, [FKV_F16] = {10, 0x1p-14f}, [FKV_BF16] = {7, 0x1p-126f}};
    const float smallest = formats[dtype].smallest;
    double sum;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        sum = add_scales_avx2(x, n, dtype, smallest);
    else
#endif
        sum = add_scales(x, n, dtype, smallest);
    return ldexp(sum / (double)n, -2 * formats[dtype].bits) / 12;
}

void fkv_spectrum_free(struct fkv_spectrum *s) {
    fkv_memory_free(&s->memory);
    *s = (struct fkv_spectrum){0};
}

static bool allocate(struct fkv_spectrum *s, bool null) {
    const size_t rows = (size_t)s->layers * (size_t)s->heads, n = (size_t)s->n;
    struct fkv_memory *m = &s->memory;
    s->layer_index = fkv_memory_take(m, (size_t)s->layers, sizeof(int32_t));
    s->head_index = fkv_memory_take(m, (size_t)s->heads, sizeof(int32_t));
    s->power = fkv_memory_take(m, rows * n, sizeof(double));
    s->power_se = fkv_memory_take(m, rows * n, sizeof(double));
    if (null) s->null = fkv_memory_take(m, rows * n, sizeof(double));
    s->normalised = fkv_memory_take(m, (size_t)s->layers * n, sizeof(double));
    s->rounding_floor = fkv_memory_take(m, rows, sizeof(double));
    s->band_edge = fkv_memory_take(m, FKV_BANDS + 1, sizeof(int32_t));
    s->band_se = fkv_memory_take(m, rows * FKV_BANDS, sizeof(double));
    return !m->failed;
}

/* Sizes, names of axes and counts; memory for the rest. */
static int prepare(const struct fkv_measurement *m, enum fkv_state state, struct fkv_spectrum *s,
                   struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    const struct fkv_segment_plan *plan = m->plan;
    *s = (struct fkv_spectrum){.state = state,
                               .layers = info->layer_count,
                               .heads = fkv_capture_heads(m->capture, state),
                               .n = plan->n,
                               .skip_sinks = plan->skip_sinks,
                               .documents = plan->documents,
                               .segments = plan->segments,
                               .tokens_left_out = plan->tokens_left_out,
                               .se_kind = plan->documents >= FKV_BOOTSTRAP_DOCUMENTS ? "documents"
                                                                                     : "bootstrap",
                               .se_unit = fkv_se_unit_of(plan->documents, plan->segments, false),
                               .null_kind = m->null ? "permute" : "none"};
    if (!allocate(s, m->null)) {
        fkv_spectrum_free(s);
        return fkv_fail(err, "out of memory for the spectra of state %s", fkv_state_names[state]);
    }
    for (int32_t i = 0; i < s->layers; i++) s->layer_index[i] = info->layer_index[i];
    int32_t group = s->heads / info->head_count; /* query heads per KV head, for query; else 1 */
    for (int32_t h = 0; h < s->heads; h++)
        s->head_index[h] = info->head_index[h / group] * group + h % group;
    s->bands = fkv_band_edges(s->n, s->band_edge);
    return FKV_OK;
}

/* ---- measuring ---- */

int fkv_spectrum_measure(struct fkv_measurement *m, enum fkv_state state, struct fkv_spectrum *out,
                         struct fkv_error *err) {
    if (prepare(m, state, out, err)) return FKV_FAILED;
    bool sums = fkv_capture_info(m->capture)->spectra_only;
    int status = sums ? fkv_spectrum_from_sums(m, out, err) : fkv_spectrum_from_states(m, out, err);
    if (status) fkv_spectrum_free(out);
    return status;
}

int fkv_spectrum_time(struct fkv_measurement *m, enum fkv_state state, double *seconds,
                      struct fkv_error *err) {
    struct fkv_spectrum s;
    *seconds = 0;
    if (fkv_capture_info(m->capture)->spectra_only) return FKV_OK; /* nothing but reading sums */
    if (prepare(m, state, &s, err)) return FKV_FAILED;
    int status = fkv_spectrum_states_time(m, &s, seconds, err);
    fkv_spectrum_free(&s);
    return status;
}

int64_t fkv_spectrum_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                           enum fkv_state state, bool null) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    int64_t heads = fkv_capture_heads(c, state),
            row = (int64_t)(plan->n + FKV_BANDS) * (int64_t)sizeof(double);
    int64_t findings = info->layer_count * heads * row * (null ? 3 : 2) + info->layer_count * row;
    if (info->spectra_only) return findings + info->layer_count * heads * row * 10;
    return findings + fkv_spectrum_states_bytes(info, heads, null, plan);
}

/* One segment of all heads at a time. Of a capture of spectra nothing is computed. */
int fkv_spectrum_device_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                              const struct fkv_workers *workers, enum fkv_state state,
                              int64_t *bytes, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    struct fkv_backend_needs own = {0};
    *bytes = 0;
    if (!workers->device || info->spectra_only) return FKV_OK;
    const struct fkv_demand demand = {.segment_n = plan->n,
                                      .segment_heads = fkv_capture_heads(c, state),
                                      .segment_head_dim = info->head_dim};
    if (workers->ops->add_needs(workers->backend[0], &demand, &own, err)) return FKV_FAILED;
    *bytes =
        own.shared + own.kept +
        (int64_t)sizeof(float) * demand.segment_heads * demand.segment_n * demand.segment_head_dim;
    return FKV_OK;
}
