/* Reading a run of full attention as a baseline; layout: run_file.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/columns.h"
#include "replay/perplexity/run_file.h"

static const char final_states[] = "final_states";

void fkv_baseline_run_free(struct fkv_baseline_run *run) {
    free(run->nll);
    free(run->top1);
    free(run->final_states);
    *run = (struct fkv_baseline_run){0};
}

const char *fkv_baseline_run_missing(const struct fkv_baseline_run *run) {
    if (run->final_states) return "";
    return run->top1 ? "KL is not known: the baseline was run without --final-states"
                     : "KL and the same top token are not known: the baseline's file holds neither "
                       "final states nor top tokens";
}

/* Reads GROUP/NAME, `wide` numbers for each of `count` tokens, into column [.., wide] from token
 * `offset` on. A dataset that is missing takes the column away, where it is not `required`. */
static int read_part(struct fkv_h5_reader *r, const char *group, const char *name, bool required,
                     int64_t offset, int64_t count, int32_t wide, float **column,
                     struct fkv_error *err) {
    char path[96];
    float *part = NULL;
    if (!*column) return FKV_OK;
    snprintf(path, sizeof path, "%s/%s", group, name);
    if (fkv_column_expect(r, path, FKV_H5_F32, count * wide, required, &part, err))
        return FKV_FAILED;
    if (part) {
        memcpy(*column + offset * wide, part, (size_t)(count * wide) * sizeof *part);
    } else {
        free(*column);
        *column = NULL;
    }
    free(part);
    return FKV_OK;
}

static int read_group(struct fkv_h5_reader *r, const char *group, int64_t offset, int64_t count,
                      struct fkv_baseline_run *run, struct fkv_error *err) {
    return read_part(r, group, "nll", true, offset, count, 1, &run->nll, err) ||
           read_part(r, group, "top1", false, offset, count, 1, &run->top1, err) ||
           read_part(r, group, final_states, false, offset, count, run->dim, &run->final_states,
                     err);
}

static int read_columns(struct fkv_h5_reader *r, const struct fkv_experiment *e,
                        struct fkv_baseline_run *run, struct fkv_error *err) {
    if (e->plan->protocol->joined) return read_group(r, "/windows", 0, run->count, run, err);
    for (int64_t d = 0; d < e->corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &e->corpus->documents[d];
        char group[64];
        snprintf(group, sizeof group, "/documents/%06lld", (long long)d);
        if (read_group(r, group, document->offset, document->count, run, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* Every token that the plan scores has to be there. */
static int check_scored(const struct fkv_plan *plan, const struct fkv_baseline_run *run,
                        const char *path, struct fkv_error *err) {
    for (int64_t p = 0; p < plan->count; p++)
        for (int32_t row = plan->passes[p].from; row < plan->passes[p].until; row++) {
            const float nll = run->nll[fkv_recorded_index(plan, p, row + 1)];
            if (!isfinite(nll))
                return fkv_fail(err,
                                "%s: nll: pass %lld, token %d: expected a finite number, found %g",
                                path, (long long)p, row + 1, nll);
        }
    return FKV_OK;
}

int fkv_run_file_read_baseline(const char *path, const struct fkv_experiment *e,
                               struct fkv_baseline_run *run, struct fkv_error *err) {
    struct fkv_h5_reader *r;
    *run = (struct fkv_baseline_run){.count = fkv_recorded_length(e->corpus, e->plan),
                                     .dim = e->model->config.dim};
    if (fkv_h5_open(path, &r, err)) return FKV_FAILED;
    int rank;
    int64_t dims[8];
    bool states = false;
    int status = fkv_run_file_check(r, path, e, "baseline", err);
    const char *first = e->plan->protocol->joined ? "/windows" : "/documents/000000";
    char dataset[96];
    snprintf(dataset, sizeof dataset, "%s/%s", first, final_states);
    if (!status) status = fkv_h5_shape(r, dataset, &rank, dims, &states, err);
    if (!status) {
        const size_t count = (size_t)run->count;
        run->nll = malloc(count * sizeof(float));
        run->top1 = malloc(count * sizeof(float));
        run->final_states = states ? malloc(count * (size_t)run->dim * sizeof(float)) : NULL;
        if (!run->nll || !run->top1 || (states && !run->final_states))
            status = fkv_fail(err, "out of memory for %zu tokens", count);
        if (!status) status = read_columns(r, e, run, err);
        status = status ? fkv_error_prefix(err, "%s", path) : check_scored(e->plan, run, path, err);
    }
    fkv_h5_close(r);
    if (!status) return FKV_OK;
    fkv_baseline_run_free(run);
    return FKV_FAILED;
}
