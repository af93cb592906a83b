/* Owns the formulas of RoPE scaling: a function and a row per kind.
 *
 * Unscaled, channel pair (i, i + d/2) of the d channels that turn goes by f_i = theta^(-2i/d) per
 * position (Su et al. 2021, arXiv 2104.09864). C: the context before it was stretched; s: factor.
 *
 *   linear    f / s, position interpolation (Chen et al. 2023, arXiv 2306.15595)
 *   dynamic   f with theta times (s n / C - (s - 1))^(d / (d - 2)) for n > C positions, where C is
 *             max_position_embeddings ("NTK-aware", after u/bloc97 and u/emozilla)
 *   yarn      f / s for slow pairs, f for fast ones, between them a ramp over i (Peng et al. 2023,
 *             arXiv 2309.00071): from the pair that turns beta_fast times within C to the one that
 *             turns beta_slow times, whole pairs unless `truncate` is false. cos and sin times
 *             0.1 ln s + 1, or m(mscale) / m(mscale_all_dim) with m(x) = 0.1 x ln s + 1, or
 *             attention_factor
 *   llama3    by wavelength w = 2 pi / f (Grattafiori et al. 2024, arXiv 2407.21783):
 *               w < C / high_freq_factor: f
 *               w > C / low_freq_factor: f / s
 *               between: (1 - t) f / s + t f,
 *                 t = (C / w - low_freq_factor) / (high_freq_factor - low_freq_factor)
 *   longrope  f_i / short_factor_i up to C positions, f_i / long_factor_i beyond (Ding et al. 2024,
 *             arXiv 2402.13753). cos and sin times sqrt(1 + ln s / ln C), or attention_factor
 *
 * transformers forms these in float32; double differs from it by rounding only and stays exact at
 * large positions. */
#include "engine/checkpoint/rope_kinds.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

static int get_factor(const struct fkv_rope_fields *f, bool required, struct fkv_rope *r,
                      struct fkv_error *err) {
    return fkv_json_get_double(f->rope, f->scope, "factor", required, 1, 1e6, &r->factor, err);
}

/* The config's own field comes before the rotation's, as in transformers. */
static int get_original(const struct fkv_rope_fields *f, struct fkv_rope *r,
                        struct fkv_error *err) {
    static const char field[] = "original_max_position_embeddings";
    int64_t original = f->context;
    if (fkv_json_get_int(f->rope, f->scope, field, false, 1, FKV_MAX_CONTEXT, &original, err) ||
        (f->outer &&
         fkv_json_get_int(f->outer, f->where, field, false, 1, FKV_MAX_CONTEXT, &original, err)))
        return FKV_FAILED;
    r->original = (int32_t)original;
    return FKV_OK;
}

static int read_linear(const struct fkv_rope_fields *f, struct fkv_rope *r, struct fkv_error *err) {
    if (get_factor(f, true, r, err)) return FKV_FAILED;
    for (int i = 0; i < r->channels / 2; i++) r->inv_freq[i] /= r->factor;
    return FKV_OK;
}

static int read_dynamic(const struct fkv_rope_fields *f, struct fkv_rope *r,
                        struct fkv_error *err) {
    if (get_factor(f, true, r, err)) return FKV_FAILED;
    if (r->channels < 4)
        return fkv_fail(
            err,
            "%s: field \"rope_type\": dynamic: expected 4 or more channels that turn, found %d",
            f->scope, r->channels);
    r->original = f->context;
    return FKV_OK;
}

static void dynamic_beyond(const struct fkv_rope *r, int64_t positions, double *inv_freq) {
    const double d = r->channels, stretch = r->factor * (double)positions / r->original,
                 theta = r->theta * pow(stretch - (r->factor - 1), d / (d - 2));
    for (int i = 0; i < r->channels / 2; i++) inv_freq[i] = pow(theta, -2.0 * i / d);
}

/* The pair, as a fraction, that turns so many times within the original context. */
static double pair_of_turns(const struct fkv_rope *r, double turns) {
    return r->channels * log(r->original / (turns * 2 * pi)) / (2 * log(r->theta));
}

static double yarn_scale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static int get_yarn_attention(const struct fkv_rope_fields *f, struct fkv_rope *r,
                              struct fkv_error *err) {
    double mscale = 0, all = 0;
    if (fkv_json_get_double(f->rope, f->scope, "mscale", false, 0, 1e6, &mscale, err) ||
        fkv_json_get_double(f->rope, f->scope, "mscale_all_dim", false, 0, 1e6, &all, err))
        return FKV_FAILED;
    r->attention_factor = mscale > 0 && all > 0
                              ? yarn_scale(r->factor, mscale) / yarn_scale(r->factor, all)
                              : yarn_scale(r->factor, 1);
    return fkv_json_get_double(f->rope, f->scope, "attention_factor", false, 1e-6, 1e6,
                               &r->attention_factor, err);
}

static int read_yarn(const struct fkv_rope_fields *f, struct fkv_rope *r, struct fkv_error *err) {
    double fast = 0, slow = 0;
    bool truncate = true;
    if (get_original(f, r, err)) return FKV_FAILED;
    r->factor = fmax(1, (double)f->context / r->original);
    if (get_factor(f, false, r, err) || get_yarn_attention(f, r, err) ||
        fkv_json_get_double(f->rope, f->scope, "beta_fast", false, 0, 1e6, &fast, err) ||
        fkv_json_get_double(f->rope, f->scope, "beta_slow", false, 0, 1e6, &slow, err) ||
        fkv_json_get_bool(f->rope, f->scope, "truncate", false, &truncate, err))
        return FKV_FAILED;
    if (r->theta <= 1)
        return fkv_fail(err, "%s: field \"rope_theta\": yarn: expected more than 1, found %g",
                        f->scope, r->theta);
    double low = pair_of_turns(r, fast > 0 ? fast : 32), /* 0 counts as silent, as there */
        high = pair_of_turns(r, slow > 0 ? slow : 1);
    if (truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, r->channels - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < r->channels / 2; i++) {
        const double slowed = fmin(fmax((i - low) / (high - low), 0), 1);
        r->inv_freq[i] = r->inv_freq[i] / r->factor * slowed + r->inv_freq[i] * (1 - slowed);
    }
    return FKV_OK;
}

static int read_llama3(const struct fkv_rope_fields *f, struct fkv_rope *r, struct fkv_error *err) {
    double low = 0, high = 0;
    if (get_factor(f, true, r, err) ||
        fkv_json_get_double(f->rope, f->scope, "low_freq_factor", true, 1e-6, 1e6, &low, err) ||
        fkv_json_get_double(f->rope, f->scope, "high_freq_factor", true, 1e-6, 1e6, &high, err) ||
        get_original(f, r, err))
        return FKV_FAILED;
    if (high <= low)
        return fkv_fail(
            err, "%s: field \"high_freq_factor\": expected more than low_freq_factor %g, found %g",
            f->scope, low, high);
    for (int i = 0; i < r->channels / 2; i++) {
        double plain = r->inv_freq[i], wavelength = 2 * pi / plain;
        double smooth = ((double)r->original / wavelength - low) / (high - low);
        if (smooth < 0) smooth = 0; /* wavelength > original / low */
        if (smooth > 1) smooth = 1; /* wavelength < original / high */
        r->inv_freq[i] = (1 - smooth) * plain / r->factor + smooth * plain;
    }
    return FKV_OK;
}

/* plain [channels/2] divided by the list of a field -> out; may be in place. */
static int divide_by_list(const struct fkv_rope_fields *f, const char *field, const double *plain,
                          int32_t channels, double *out, struct fkv_error *err) {
    const json_t *list = json_object_get(f->rope, field);
    if (json_array_size(list) != (size_t)channels / 2)
        return fkv_fail(err, "%s: field \"%s\": expected a list of %d numbers, found %zu", f->scope,
                        field, channels / 2, json_array_size(list));
    for (int i = 0; i < channels / 2; i++) {
        const double divisor = json_number_value(json_array_get(list, (size_t)i));
        if (!(divisor > 0 && isfinite(divisor)))
            return fkv_fail(err, "%s: field \"%s\": expected numbers above 0, found %g at [%d]",
                            f->scope, field, divisor, i);
        out[i] = plain[i] / divisor;
    }
    return FKV_OK;
}

static int read_longrope(const struct fkv_rope_fields *f, struct fkv_rope *r,
                         struct fkv_error *err) {
    if (get_original(f, r, err)) return FKV_FAILED;
    r->factor = fmax(1, (double)f->context / r->original);
    if (get_factor(f, false, r, err)) return FKV_FAILED;
    if (r->factor > 1 && r->original > 1)
        r->attention_factor = sqrt(1 + log(r->factor) / log(r->original));
    if (fkv_json_get_double(f->rope, f->scope, "attention_factor", false, 1e-6, 1e6,
                            &r->attention_factor, err) ||
        divide_by_list(f, "long_factor", r->inv_freq, r->channels, r->beyond, err))
        return FKV_FAILED;
    return divide_by_list(f, "short_factor", r->inv_freq, r->channels, r->inv_freq, err);
}

static void longrope_beyond(const struct fkv_rope *r, int64_t positions, double *inv_freq) {
    (void)positions;
    memcpy(inv_freq, r->beyond, (size_t)r->channels / 2 * sizeof *inv_freq);
}

static const struct fkv_rope_kind kinds[] = {
    {"default", NULL, NULL, false, false},
    {"linear", read_linear, NULL, true, true},
    {"dynamic", read_dynamic, dynamic_beyond, true, false},
    {"yarn", read_yarn, NULL, true, true},
    {"llama3", read_llama3, NULL, false, false},
    {"longrope", read_longrope, longrope_beyond, false, false},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

const struct fkv_rope_kind *fkv_rope_kind_find(const char *name) {
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(name, kinds[i].name)) return &kinds[i];
    return NULL;
}

const char *fkv_rope_kind_names(void) {
    return "default, linear, dynamic, yarn, llama3 or longrope";
}
