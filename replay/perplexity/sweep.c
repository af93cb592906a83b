/* The grid of a sweep, its files, and the table over its points. Ratios come from one reading of
 * their decimals (fkv_parse_range) and are handed on as decimals, so that a file's name, the
 * policy's ratio and the one in the file are the same number.
 *
 * A point that an earlier run finished is known by its file: run files appear whole or not at all,
 * and say what made them. A baseline that is computed beside runs again with every point;
 * one that is taken from a run, with the final hidden states that KL needs, does not. Running all
 * points in lockstep with one baseline would leave nothing of a sweep that is interrupted. */
#include "replay/perplexity/sweep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/parse.h"

enum { MOST_DECIMALS = 15 };

/* Decimals that give `value` back. */
static int decimals_of(double value) {
    char text[32];
    for (int decimals = 2; decimals < MOST_DECIMALS; decimals++) {
        snprintf(text, sizeof text, "%.*f", decimals, value);
        if (strtod(text, NULL) == value) return decimals;
    }
    return MOST_DECIMALS;
}

int fkv_sweep_parse(const char *text, struct fkv_sweep *sweep, struct fkv_error *err) {
    const char *prefix = "gamma=";
    if (strncmp(text, prefix, strlen(prefix)))
        return fkv_fail_option(err, "--sweep: expected gamma=first:last:step, found \"%s\"", text);
    fkv_sweep_free(sweep);
    if (fkv_parse_range(text + strlen(prefix), "--sweep", &sweep->gammas, &sweep->count, err))
        return FKV_FAILED;
    for (int i = 0; i < sweep->count; i++) {
        double gamma = sweep->gammas[i];
        if (!(gamma > 0 && gamma <= 1))
            return fkv_fail_option(err, "--sweep: expected ratios in (0, 1], found %.10g", gamma);
        if (i && gamma <= sweep->gammas[i - 1])
            return fkv_fail_option(err,
                                   "--sweep: expected ascending ratios, found %.10g after %.10g",
                                   gamma, sweep->gammas[i - 1]);
        int decimals = decimals_of(gamma);
        if (decimals > sweep->decimals) sweep->decimals = decimals;
    }
    return FKV_OK;
}

void fkv_sweep_free(struct fkv_sweep *sweep) {
    free(sweep->gammas);
    *sweep = (struct fkv_sweep){0};
}

int fkv_sweep_name(const struct fkv_sweep *sweep, const char *folder, int i,
                   struct fkv_point *point, struct fkv_error *err) {
    snprintf(point->name, sizeof point->name, "%.*f", sweep->decimals, sweep->gammas[i]);
    point->policy.gamma = point->name;
    if (!folder) return FKV_OK;
    return fkv_path_print(point->path, err, "%s/gamma_%s.h5", folder, point->name);
}

json_t *fkv_sweep_json(const struct fkv_point *points, int count, const struct fkv_experiment *e) {
    json_t *rows = json_array(), *o = fkv_experiment_head_json(e, false);
    for (int i = 0; i < count; i++) {
        json_t *row = json_object(), *file = points[i].path[0] ? json_string(points[i].path) : NULL;
        json_object_set_new(row, "gamma", fkv_json_number(points[i].results[FKV_RESULT_GAMMA]));
        json_object_set_new(row, "file", file ? file : json_null());
        fkv_results_to_json(points[i].results, row);
        if (e->baseline)
            json_object_set_new(row, "baseline", fkv_baseline_json(points[i].results, e));
        json_array_append_new(rows, row);
    }
    fkv_se_unit_to_json(fkv_perplexity_se_unit(e->corpus, e->plan), o);
    json_object_set_new(o, "points", rows);
    return o;
}

void fkv_sweep_print(const struct fkv_point *points, int count, const struct fkv_experiment *e) {
    const bool evicts = e->setup->policy->counts_evictions;
    const char *counted = evicts ? "evictions" : "compressions";
    fkv_experiment_print_head(e, false);
    if (fkv_experiment_never_acts(e))
        printf("\nno text was longer than the window of %d slots: the policy did nothing, and this "
               "is full "
               "attention",
               e->setup->window);
    printf("\n\n%8s %12s %11s %13s %11s", "gamma", "perplexity", "+-", counted, "mean slots");
    if (e->baseline) printf(" %11s %10s %10s %10s", "delta nll", "+-", "KL", "same top-1");
    printf("\n");
    for (int i = 0; i < count; i++) {
        const double *r = points[i].results;
        char a[32], b[32], c[32];
        printf("%8s %12s %11s %13.4g %11.1f", points[i].name,
               fkv_format_result(a, "%.5f", exp(r[FKV_RESULT_NLL])),
               fkv_format_result(b, "%.5f", fkv_perplexity_se(r)),
               r[evicts ? FKV_RESULT_EVICTIONS : FKV_RESULT_COMPRESSIONS],
               r[FKV_RESULT_CACHE_SLOTS]);
        if (e->baseline)
            printf(" %+11.5f %10s %10s %10s", r[FKV_RESULT_DELTA_NLL],
                   fkv_format_result(a, "%.5f", r[FKV_RESULT_DELTA_NLL_SE]),
                   fkv_format_result(b, "%.5f", r[FKV_RESULT_KL]),
                   fkv_format_result(c, "%.4f", r[FKV_RESULT_TOP1]));
        printf("\n");
    }
    printf("\n");
    fkv_experiment_print_se_unit(e);
    if (!e->baseline) return;
    if (e->baseline_missing) printf("%s\n", e->baseline_missing);
    double nll = points[0].results[FKV_RESULT_BASELINE_NLL];
    const char *invalid = fkv_experiment_invalid(e);
    printf("baseline full%s%s: mean nll %.5f, perplexity %.5f; differences are paired per token "
           "(nats)\n",
           invalid ? ", no reference here, " : "", invalid ? invalid : "", nll, exp(nll));
}
