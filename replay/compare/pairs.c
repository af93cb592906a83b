/* See pairs.h. The units are those of a run's own standard errors (targets.h). */
#include "replay/compare/pairs.h"

#include <stdlib.h>
#include <string.h>

#include "capture/store/run.h"

static void add_pass(struct fkv_targets *targets, int64_t p, const float *a, const float *b,
                     struct fkv_sums *total) {
    const struct fkv_pass *pass = &targets->plan->passes[p];
    if (pass->until == pass->from) return;
    int64_t d = fkv_document_of(targets->corpus, pass->document, pass->start + pass->from + 1),
            scored = targets->scored_before[p];
    for (int32_t row = pass->from; row < pass->until; row++) {
        const int64_t next = fkv_document_of(targets->corpus, d, pass->start + row + 1),
                      at = fkv_recorded_index(targets->plan, p, row + 1);
        const struct fkv_sums one = {.count = 1, .nll = b[at], .baseline_nll = a[at]};
        if (next > d) scored = 0;
        d = next;
        fkv_targets_add(targets, d, scored++, &one);
        fkv_sums_add(total, &one);
    }
}

int fkv_pair_compare(const struct fkv_corpus *corpus, const struct fkv_plan *plan, const float *a,
                     const float *b, struct fkv_pair *pair, struct fkv_error *err) {
    struct fkv_sums *documents = calloc((size_t)corpus->document_count, sizeof *documents),
                    total = {0};
    struct fkv_targets targets = {0};
    struct fkv_target_errors errors;
    if (!documents)
        return fkv_fail(err, "out of memory for %lld documents", (long long)corpus->document_count);
    int status = fkv_targets_open(corpus, plan, documents, &targets, err);
    for (int64_t p = 0; p < plan->count && !status; p++) add_pass(&targets, p, a, b, &total);
    if (!status) status = fkv_targets_errors(&targets, &errors, err);
    if (!status)
        *pair =
            (struct fkv_pair){.tokens = total.count,
                              .delta_nll = fkv_mean(total.nll - total.baseline_nll, total.count),
                              .se = errors.delta_nll_se,
                              .interval = errors.delta_nll};
    fkv_targets_close(&targets);
    free(documents);
    return status;
}

int fkv_pair_read(const char *path, const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                  float **nll, double *ms_per_token, struct fkv_error *err) {
    const int64_t length = fkv_recorded_length(corpus, plan);
    struct fkv_run run;
    *nll = NULL;
    if (fkv_run_read(path, &run, err)) return FKV_FAILED;
    int64_t found = 0;
    for (int32_t i = 0; i < run.column_sets; i++) found += run.columns[i].count;
    *ms_per_token = run.ms_per_token;
    int status = found == length ? FKV_OK
                                 : fkv_fail(err, "%s: nll: expected %lld tokens, found %lld", path,
                                            (long long)length, (long long)found);
    if (!status && !(*nll = malloc((size_t)length * sizeof **nll)))
        status = fkv_fail(err, "out of memory for %lld tokens", (long long)length);
    float *to = *nll;
    for (int32_t i = 0; i < run.column_sets && !status; i++) {
        memcpy(to, run.columns[i].nll, (size_t)run.columns[i].count * sizeof *to);
        to += run.columns[i].count;
    }
    fkv_run_free(&run);
    return status;
}
