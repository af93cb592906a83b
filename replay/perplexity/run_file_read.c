/* Reading RUN.h5 (layout: run_file.c): a run that is not made again, and one that is a baseline.
 * What another experiment made is refused, with the field, what was expected and what was found. */
#include "replay/perplexity/experiment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/columns.h"
#include "capture/store/h5.h"
#include "replay/perplexity/run_attributes.h"

/* `skipped`: an attribute that may differ; NULL: none. */
static int check_attributes(struct fkv_h5_reader *r, const char *path,
                            const struct fkv_experiment *e, const char *skipped,
                            struct fkv_error *err) {
    struct fkv_run_text texts[FKV_RUN_TEXTS];
    struct fkv_run_integer integers[FKV_RUN_INTEGERS];
    char value[4096] = "";
    double number = NAN;
    bool found = true;
    fkv_run_attributes(e, texts, integers);
    for (int i = 0; i < FKV_RUN_TEXTS; i++) {
        if (!texts[i].same || (skipped && !strcmp(texts[i].name, skipped))) continue;
        if (fkv_h5_get_string(r, "/", texts[i].name, value, sizeof value, &found, err))
            return FKV_FAILED;
        if (!found || strcmp(value, texts[i].value))
            return fkv_fail(err,
                            "%s: %s: expected \"%s\", found %s%s%s: made by another experiment",
                            path, texts[i].name, texts[i].value, found ? "\"" : "",
                            found ? value : "nothing", found ? "\"" : "");
    }
    for (int i = 0; i < FKV_RUN_INTEGERS; i++) {
        if (!integers[i].same) continue;
        if (fkv_h5_get_double(r, "/", integers[i].name, &number, &found, err)) return FKV_FAILED;
        if (!found || number != (double)integers[i].value)
            return fkv_fail(err, "%s: %s: expected %lld, found %.0f: made by another experiment",
                            path, integers[i].name, (long long)integers[i].value,
                            found ? number : NAN);
    }
    return FKV_OK;
}

/* A mean ratio is not all: the layers and heads share it as this experiment's do. */
static int check_retained(struct fkv_h5_reader *r, const char *path, const struct fkv_experiment *e,
                          struct fkv_error *err) {
    if (!e->setup->retained) return FKV_OK;
    const struct fkv_config *c = &e->model->config;
    int32_t *found = NULL;
    int status = fkv_column_expect(r, "/retained", FKV_H5_I32, (int64_t)c->layers * c->kv_heads,
                                   true, &found, err);
    if (status) return fkv_error_prefix(err, "%s", path);
    for (int32_t h = 0; h < c->layers * c->kv_heads && !status; h++)
        if (found[h] != e->setup->retained[h])
            status =
                fkv_fail(err,
                         "%s: /retained: layer %d, KV head %d: expected %d slots, found %d: "
                         "made by another experiment",
                         path, h / c->kv_heads, h % c->kv_heads, e->setup->retained[h], found[h]);
    free(found);
    return status;
}

/* Files of this format from before these results existed are as good. */
static bool is_newer(int result) {
    return result == FKV_RESULT_TOKENS_PER_S || result == FKV_RESULT_KL_SE;
}

int fkv_run_file_read(const char *path, const struct fkv_experiment *e, double results[FKV_RESULTS],
                      struct fkv_error *err) {
    struct fkv_h5_reader *r;
    bool found;
    if (fkv_h5_open(path, &r, err)) return FKV_FAILED;
    int status = check_attributes(r, path, e, NULL, err);
    for (int i = 0; i < FKV_RESULTS && !status; i++) {
        results[i] = NAN;
        status = fkv_h5_get_double(r, "/", fkv_result_names[i], &results[i], &found, err);
        if (!status && !found && !is_newer(i) && (e->baseline || i < FKV_RESULT_BASELINE_NLL))
            status = fkv_fail(err, "%s: %s: expected a number, found nothing", path,
                              fkv_result_names[i]);
    }
    double gamma = e->setup->gamma;
    if (!status && results[FKV_RESULT_GAMMA] != gamma &&
        !(isnan(gamma) && isnan(results[FKV_RESULT_GAMMA])))
        status = fkv_fail(err, "%s: gamma: expected %.17g, found %.17g: made by another experiment",
                          path, gamma, results[FKV_RESULT_GAMMA]);
    if (!status) status = check_retained(r, path, e, err);
    fkv_h5_close(r);
    return status;
}

/* ---- a baseline ---- */

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
           read_part(r, group, fkv_run_final_states, false, offset, count, run->dim,
                     &run->final_states, err);
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
    int status = check_attributes(r, path, e, "baseline", err);
    const char *first = e->plan->protocol->joined ? "/windows" : "/documents/000000";
    char dataset[96];
    snprintf(dataset, sizeof dataset, "%s/%s", first, fkv_run_final_states);
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
