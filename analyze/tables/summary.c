/* Owns what the commands print about findings (summary.h). */
#include "analyze/tables/summary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "analyze/measure/bounds.h"
#include "analyze/measure/depth.h"
#include "analyze/measure/error.h"
#include "kernels/base/json.h"

#define NOT_UTF8 "its path or model name is not UTF-8, which JSON needs"

/* What both objects open with; NULL when a string is not UTF-8. */
static json_t *head_of(const struct fkv_findings *f, const char *capture) {
    const struct fkv_spectrum *s = &f->spectra[0];
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:I}", "capture", capture,
                     "capture_sha256", f->provenance->capture_sha256, "model", f->provenance->model,
                     "segment_length", s->n, "skip_sinks", s->skip_sinks, "documents", s->documents,
                     "segments", (json_int_t)s->segments, "tokens_left_out",
                     (json_int_t)s->tokens_left_out);
}

static void print_head(const struct fkv_spectrum *s) {
    printf("%s: %d layer%s x %d head%s, %lld segment%s of %d tokens from %d document%s, %lld "
           "tokens left out\n",
           fkv_state_names[s->state], s->layers, s->layers == 1 ? "" : "s", s->heads,
           s->heads == 1 ? "" : "s", (long long)s->segments, s->segments == 1 ? "" : "s", s->n,
           s->documents, s->documents == 1 ? "" : "s", (long long)s->tokens_left_out);
}

/* ---- spectrum ---- */

static const char *const share_names[FKV_LOW_SHARES] = {"low_eighth", "low_quarter", "low_half"};
static const char *const null_names[FKV_LOW_SHARES] = {"null_low_eighth", "null_low_quarter",
                                                       "null_low_half"};

/* spectra [layers, heads, n], NULL for none; scratch [n] */
static struct fkv_energy_shares shares_of(const struct fkv_spectrum *s, const double *spectra,
                                          int32_t layer, double *scratch) {
    const size_t row = (size_t)s->heads * (size_t)s->n;
    return fkv_energy_shares_of(spectra ? spectra + (size_t)layer * row : NULL, s->heads, s->n,
                                scratch);
}

/* How the low half goes with depth -> share [layers], *depth; the state has FKV_COURSE_LAYERS or
 * more. */
static int depth_of(const struct fkv_spectrum *s, double *share, double *scratch,
                    struct fkv_course *depth, struct fkv_error *err) {
    for (int32_t l = 0; l < s->layers; l++)
        share[l] = shares_of(s, s->power, l, scratch).low[FKV_LOW_HALF];
    return fkv_course_of(share, s->layers, depth, err);
}

static void percent(double share, int width) {
    if (isfinite(share))
        printf(" %*.1f%%", width - 2, 100 * share);
    else
        printf(" %*s", width - 1, "-");
}

static json_t *spectrum_row(int32_t layer, const struct fkv_energy_shares *shares,
                            const struct fkv_energy_shares *null) {
    json_t *row = json_pack("{s:i, s:o}", "layer", layer, "dc_share", fkv_json_number(shares->dc));
    for (int i = 0; i < FKV_LOW_SHARES; i++) {
        json_object_set_new(row, share_names[i], fkv_json_number(shares->low[i]));
        json_object_set_new(row, null_names[i], fkv_json_number(null->low[i]));
    }
    return row;
}

/* A new reference; null where there is no course. */
static json_t *depth_object(const struct fkv_spectrum *s, double *share, double *scratch) {
    struct fkv_course d;
    if (s->layers < FKV_COURSE_LAYERS || depth_of(s, share, scratch, &d, NULL)) return json_null();
    return json_pack("{s:i, s:i, s:i, s:o}", "least", s->layer_index[d.least], "largest",
                     s->layer_index[d.largest], "step", s->layer_index[d.step + 1], "spearman",
                     fkv_json_number(d.spearman));
}

/* scratch: n and layers */
static json_t *spectrum_object(const struct fkv_findings *f, const char *capture, double *power,
                               double *share) {
    json_t *object = head_of(f, capture);
    if (!object) return NULL;
    json_t *states = json_array();
    for (int32_t i = 0; i < f->states; i++) {
        const struct fkv_spectrum *s = &f->spectra[i];
        json_t *layers = json_array();
        for (int32_t layer = 0; layer < s->layers; layer++) {
            struct fkv_energy_shares shares = shares_of(s, s->power, layer, power),
                                     null = shares_of(s, s->null, layer, power);
            json_array_append_new(layers, spectrum_row(s->layer_index[layer], &shares, &null));
        }
        json_array_append_new(states,
                              json_pack("{s:s, s:o, s:o}", "state", fkv_state_names[s->state],
                                        "layers", layers, "depth", depth_object(s, share, power)));
    }
    const char *se_unit = fkv_se_unit_name(f->spectra[0].se_unit);
    json_object_set_new(object, "standard_error", json_string(f->spectra[0].se_kind));
    json_object_set_new(object, "se_unit", se_unit ? json_string(se_unit) : json_null());
    json_object_set_new(object, "null", json_string(f->spectra[0].null_kind));
    json_object_set_new(object, "states", states);
    return object;
}

static void print_spectrum_table(const struct fkv_spectrum *s, double *power, double *share) {
    char words[FKV_SE_WORDS], course[FKV_COURSE_WORDS];
    struct fkv_course depth;
    print_head(s);
    printf("  standard errors: %s\n",
           fkv_se_unit_words(s->se_unit, s->documents, "segments", words));
    printf("                   energy without DC in the lowest      the same, tokens permuted\n"
           "  layer DC share       1/8     1/4     1/2             1/8     1/4     1/2\n");
    for (int32_t layer = 0; layer < s->layers; layer++) {
        struct fkv_energy_shares shares = shares_of(s, s->power, layer, power),
                                 null = shares_of(s, s->null, layer, power);
        printf("  %5d", s->layer_index[layer]);
        percent(shares.dc, 9);
        printf("  ");
        for (int i = 0; i < FKV_LOW_SHARES; i++) percent(shares.low[i], 8);
        printf("        ");
        for (int i = 0; i < FKV_LOW_SHARES; i++) percent(null.low[i], 8);
        putchar('\n');
    }
    if (s->layers >= FKV_COURSE_LAYERS && !depth_of(s, share, power, &depth, NULL))
        printf("  the lowest half over depth: %s\n",
               fkv_course_words(&depth, share, s->layer_index, course));
}

int fkv_summary_spectrum(const struct fkv_findings *f, const char *capture, bool json,
                         struct fkv_error *err) {
    const size_t n = (size_t)f->spectra[0].n, layers = (size_t)f->spectra[0].layers;
    double *power = malloc((n + layers) * sizeof *power), *share = power + n;
    if (!power) return fkv_fail(err, "out of memory for the summary");
    int status = FKV_OK;
    if (json) {
        json_t *object = spectrum_object(f, capture, power, share);
        status = object ? fkv_json_print(object, err) : fkv_fail(err, "%s: " NOT_UTF8, capture);
    }
    for (int32_t i = 0; !json && i < f->states; i++)
        print_spectrum_table(&f->spectra[i], power, share);
    free(power);
    return status;
}

/* ---- error ---- */

/* values [layers, heads, gammas] -> the mean over heads of one layer at one gamma */
static double mean_over_heads(const struct fkv_error_curves *e, const double *values, int32_t layer,
                              int32_t gamma) {
    double sum = 0;
    for (int32_t h = 0; h < e->heads; h++)
        sum += values[((size_t)layer * (size_t)e->heads + (size_t)h) * (size_t)e->gammas +
                      (size_t)gamma];
    return sum / e->heads;
}

static json_t *error_row(const struct fkv_error_curves *e, int32_t layer) {
    json_t *row = json_pack("{s:i}", "layer", e->layer_index[layer]);
    for (int position = 1; position <= fkv_measure_count; position++)
        for (int i = 0; i < 2 * fkv_measure_count; i++) {
            if (fkv_measures[i / 2].json != position || !e->curve[i]) continue;
            json_t *values = json_array();
            for (int32_t g = 0; g < e->gammas; g++)
                json_array_append_new(values,
                                      fkv_json_number(mean_over_heads(e, e->curve[i], layer, g)));
            json_object_set_new(row, fkv_measures[i / 2].name[i % 2], values);
        }
    return row;
}

/* A line holds ten ratios; of more, every k-th is shown (the CSV has all). */
static void print_error_table(const struct fkv_error_curves *e) {
    int32_t step = (e->gammas + 9) / 10;
    printf("  relative error without DC, mean over heads\n  layer");
    for (int32_t g = 0; g < e->gammas; g += step) printf("  %5.4g", e->gamma[g]);
    printf("  = gamma\n");
    for (int32_t layer = 0; layer < e->layers; layer++) {
        printf("  %5d", e->layer_index[layer]);
        for (int32_t g = 0; g < e->gammas; g += step) {
            double error =
                mean_over_heads(e, fkv_error_curve(e, FKV_RELATIVE_ERROR, true), layer, g);
            if (isfinite(error))
                printf("  %5.3f", error);
            else
                printf("  %5s", "-");
        }
        putchar('\n');
    }
}

/* The DCT between a basis fitted to other data and one of each segment's own, over all layers and
 * heads. */
static void print_bounds(const struct fkv_error_curves *e) {
    int32_t step = (e->gammas + 9) / 10;
    printf(
        "  relative error without DC at equal cost, mean over layers and heads; KLT fitted to %s\n",
        e->fitted_to);
    for (int i = 0; i < FKV_BASES; i++) {
        printf("  %5s", fkv_bases[i].label);
        for (int32_t g = 0; g < e->gammas; g += step) {
            double sum = 0;
            for (int32_t layer = 0; layer < e->layers; layer++)
                sum += mean_over_heads(e, fkv_error_curve(e, fkv_bases[i].measure, true), layer, g);
            printf("  %5.3f", sum / e->layers);
        }
        putchar('\n');
    }
}

static json_t *error_object(const struct fkv_findings *f, const char *capture) {
    json_t *object = head_of(f, capture);
    if (!object) return NULL;
    json_t *gammas = json_array(), *states = json_array();
    for (int32_t g = 0; g < f->curves[0].gammas; g++)
        json_array_append_new(gammas, json_real(f->curves[0].gamma[g]));
    for (int32_t i = 0; i < f->states; i++) {
        const struct fkv_error_curves *e = &f->curves[i];
        json_t *layers = json_array();
        for (int32_t layer = 0; layer < e->layers; layer++)
            json_array_append_new(layers, error_row(e, layer));
        json_array_append_new(
            states, json_pack("{s:s, s:o}", "state", fkv_state_names[e->state], "layers", layers));
    }
    json_object_set_new(object, "gamma", gammas);
    json_object_set_new(object, "states", states);
    return object;
}

int fkv_summary_error(const struct fkv_findings *f, const char *capture, bool json,
                      struct fkv_error *err) {
    if (json) {
        json_t *object = error_object(f, capture);
        return object ? fkv_json_print(object, err) : fkv_fail(err, "%s: " NOT_UTF8, capture);
    }
    for (int32_t i = 0; i < f->states; i++) {
        print_head(&f->spectra[i]);
        print_error_table(&f->curves[i]);
        if (fkv_error_curve(&f->curves[i], FKV_KLT_ERROR, true)) print_bounds(&f->curves[i]);
    }
    return FKV_OK;
}
