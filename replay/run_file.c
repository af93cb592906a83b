/* RUN.h5, written whole once an experiment is done.
 *
 *   /                      attrs: format "freqkv-run", format_version 1, software_version, command, model (name, sha256, shape), policy, protocol, results
 *   /retained              int32 [layers, kv_heads]: L per head, where the policy has one
 *   /documents/NNNNNN/     attrs: name, text_sha256, n_tokens, offset (of its first token in the joined corpus)
 *       tokens             int32 [T]
 *       nll                float32 [T]     nll[t] = -log p(token t | before), NaN where it is not scored
 *       round, slots_used, since_compression   float32 [T], of the query that predicts token t: compressions before it, slots it could
 *                          attend to, tokens since the last compression (its own included); means over layers and heads
 *       baseline_nll, kl, top1_agree           float32 [T], with a baseline (top1_agree: 0 or 1)
 *   /windows/              stride only, instead of the columns of documents, because there a token is scored once per window that covers it:
 *       start              int64 [W]       in the joined corpus
 *       nll, round, ...    float32 [W, window length], column t is the window's token t
 *   /compressions/         window (index of the pass), token (its place there), layer, head int32; state (0 key, 1 value) uint8; energy_before,
 *                          energy_kept float64: one row per compression, layer, head and state
 *
 * Columns aligned with tokens rather than a list of scored ones: they plot against their index, and documents of one text line up across runs. */
#include "replay/experiment.h"

#include <stdio.h>
#include <stdlib.h>

#include "capture/store/h5.h"

enum { RUN_FORMAT_VERSION = 1 };

struct text_attribute {
    const char *name, *value;
};

struct number_attribute {
    const char *name;
    double value;
};

static int put_texts(struct fkv_h5_writer *w, const struct fkv_experiment *e, struct fkv_error *err) {
    fkv_sha256_hex model_sha256;
    if (fkv_safetensors_sha256(e->model->files, model_sha256, err)) return FKV_FAILED;
    const struct text_attribute attributes[] = {
        {"format", "freqkv-run"},
        {"software_version", FKV_VERSION},
        {"command", e->command},
        {"backend", e->backend},
        {"cache_dtype", fkv_dtype_name(e->cache_dtype)},
        {"model_name", e->model->name},
        {"model_sha256", model_sha256},
        {"model_type", e->model->config.model_type},
        {"rope_scaling", e->model->config.rope_scaling},
        {"policy", e->setup->policy->name},
        {"protocol", e->plan->name},
        {"baseline", e->baseline ? "full" : ""},
        {"baseline_invalid", e->baseline && fkv_experiment_invalid(e) ? fkv_experiment_invalid(e) : ""},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (fkv_h5_put_string(w, "/", attributes[i].name, attributes[i].value, err)) return FKV_FAILED;
    return FKV_OK;
}

static int put_integers(struct fkv_h5_writer *w, const struct fkv_experiment *e, struct fkv_error *err) {
    const struct fkv_config *c = &e->model->config;
    const struct {
        const char *name;
        int64_t value;
    } attributes[] = {
        {"format_version", RUN_FORMAT_VERSION},
        {"n_layers", c->layers},
        {"n_heads", c->heads},
        {"n_kv_heads", c->kv_heads},
        {"head_dim", c->head_dim},
        {"trained_context", c->trained_context},
        {"window", e->setup->policy->has_window ? e->setup->window : 0},
        {"sinks", e->setup->policy->has_window ? e->setup->sinks : 0},
        {"recent", e->setup->recent},
        {"rescale", e->setup->rescale},
        {"tokens_limit", e->tokens},
        {"score_from", e->score_from},
        {"tokens_scored", e->result->total.count},
        {"cache_bytes_peak", e->result->statistics.cache_bytes_peak},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (fkv_h5_put_int(w, "/", attributes[i].name, attributes[i].value, err)) return FKV_FAILED;
    return FKV_OK;
}

static int put_results(struct fkv_h5_writer *w, const struct fkv_experiment *e, struct fkv_error *err) {
    const struct fkv_sums *total = &e->result->total;
    const struct number_attribute attributes[] = {
        {"gamma", e->setup->gamma},
        {"mean_nll", fkv_mean(total->nll, total->count)},
        {"mean_nll_se", e->result->nll_se},
        {"compressions", e->result->compressions},
        {"cache_slots_mean", fkv_mean(e->result->statistics.slots_sum, e->result->statistics.tokens)},
        {"baseline_mean_nll", fkv_mean(total->baseline_nll, total->count)},
        {"delta_nll", fkv_experiment_delta_nll(e)},
        {"delta_nll_se", e->result->delta_nll_se},
        {"kl", fkv_mean(total->kl, total->count)},
        {"top1_agreement", fkv_mean((double)total->agree, total->count)},
    };
    size_t count = sizeof attributes / sizeof *attributes;
    if (!e->baseline) count -= 5;
    for (size_t i = 0; i < count; i++)
        if (fkv_h5_put_double(w, "/", attributes[i].name, attributes[i].value, err)) return FKV_FAILED;
    return FKV_OK;
}

/* The columns under `group`, elements [offset, ...) of each, in shape dims [rank]. */
static int put_columns(struct fkv_h5_writer *w, const struct fkv_recorded *r, const char *group, int64_t offset,
                       int rank, const int64_t *dims, struct fkv_error *err) {
    const struct {
        const char *name;
        const float *values;
    } columns[] = {
        {"nll", r->nll},
        {"round", r->round},
        {"slots_used", r->slots_used},
        {"since_compression", r->since},
        {"baseline_nll", r->baseline_nll},
        {"kl", r->kl},
        {"top1_agree", r->agree},
    };
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        char path[128];
        if (!columns[i].values) continue;
        snprintf(path, sizeof path, "%s/%s", group, columns[i].name);
        if (fkv_h5_put(w, path, FKV_H5_F32, rank, dims, columns[i].values + offset, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int put_documents(struct fkv_h5_writer *w, const struct fkv_experiment *e, struct fkv_error *err) {
    for (int64_t d = 0; d < e->corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &e->corpus->documents[d];
        char group[64], path[80];
        snprintf(group, sizeof group, "/documents/%06lld", (long long)d);
        snprintf(path, sizeof path, "%s/tokens", group);
        if (fkv_h5_put(w, path, FKV_H5_I32, 1, &document->count, e->corpus->tokens + document->offset, err) ||
            fkv_h5_put_string(w, group, "name", document->name, err) ||
            fkv_h5_put_string(w, group, "text_sha256", document->text_sha256, err) ||
            fkv_h5_put_int(w, group, "n_tokens", document->count, err) ||
            fkv_h5_put_int(w, group, "offset", document->offset, err))
            return FKV_FAILED;
        if (!e->plan->protocol->joined &&
            put_columns(w, e->recorded, group, document->offset, 1, &document->count, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int put_windows(struct fkv_h5_writer *w, const struct fkv_experiment *e, struct fkv_error *err) {
    const int64_t dims[] = {e->plan->count, e->plan->longest};
    int64_t *starts = malloc((size_t)e->plan->count * sizeof *starts);
    if (!starts) return fkv_fail(err, "out of memory for %lld windows", (long long)e->plan->count);
    for (int64_t i = 0; i < e->plan->count; i++) starts[i] = e->plan->passes[i].start;
    int status = fkv_h5_put(w, "/windows/start", FKV_H5_I64, 1, dims, starts, err);
    free(starts);
    return status ? status : put_columns(w, e->recorded, "/windows", 0, 2, dims, err);
}

/* Two rows per compression: key, then value. */
static int put_compressions(struct fkv_h5_writer *w, const struct fkv_recorded *r, struct fkv_error *err) {
    const int64_t rows = 2 * r->compression_count;
    size_t room = rows ? (size_t)rows : 1;
    int32_t *integers = malloc(4 * room * sizeof *integers);
    double *energies = malloc(2 * room * sizeof *energies);
    uint8_t *state = malloc(room);
    int status = FKV_FAILED;
    if (!integers || !energies || !state) {
        fkv_fail(err, "out of memory for %lld compressions", (long long)r->compression_count);
        goto done;
    }
    int32_t *window = integers, *token = window + room, *layer = token + room, *head = layer + room;
    double *before = energies, *kept = energies + room;
    for (int64_t i = 0; i < rows; i++) {
        const struct fkv_compression *c = &r->compressions[i / 2];
        window[i] = (int32_t)c->pass, token[i] = (int32_t)c->token, layer[i] = c->layer, head[i] = c->kv_head;
        state[i] = i % 2;
        before[i] = i % 2 ? c->energy.value_before : c->energy.key_before;
        kept[i] = i % 2 ? c->energy.value_kept : c->energy.key_kept;
    }
    if (fkv_h5_put(w, "/compressions/window", FKV_H5_I32, 1, &rows, window, err) ||
        fkv_h5_put(w, "/compressions/token", FKV_H5_I32, 1, &rows, token, err) ||
        fkv_h5_put(w, "/compressions/layer", FKV_H5_I32, 1, &rows, layer, err) ||
        fkv_h5_put(w, "/compressions/head", FKV_H5_I32, 1, &rows, head, err) ||
        fkv_h5_put(w, "/compressions/state", FKV_H5_U8, 1, &rows, state, err) ||
        fkv_h5_put(w, "/compressions/energy_before", FKV_H5_F64, 1, &rows, before, err) ||
        fkv_h5_put(w, "/compressions/energy_kept", FKV_H5_F64, 1, &rows, kept, err) ||
        fkv_h5_put_string(w, "/compressions", "states", "key,value", err))
        goto done;
    status = FKV_OK;
done:
    free(integers);
    free(energies);
    free(state);
    return status;
}

int fkv_run_file_write(const char *path, const struct fkv_experiment *e, struct fkv_error *err) {
    const int64_t heads[] = {e->setup->layers, e->setup->kv_heads};
    struct fkv_h5_writer *w;
    if (fkv_h5_create(path, &w, err)) return FKV_FAILED;
    if (put_texts(w, e, err) || put_integers(w, e, err) || put_results(w, e, err) ||
        (e->setup->retained && fkv_h5_put(w, "/retained", FKV_H5_I32, 2, heads, e->setup->retained, err)) ||
        put_documents(w, e, err) || (e->plan->protocol->joined && put_windows(w, e, err)) ||
        put_compressions(w, e->recorded, err)) {
        fkv_h5_abandon(w);
        return FKV_FAILED;
    }
    return fkv_h5_commit(w, err);
}
