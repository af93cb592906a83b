/* RUN.h5, written whole once an experiment is done.
 *
 *   /                      attrs: format "freqkv-run", format_version 2, software_version, command,
 *                          model (name, sha256, config_sha256, shape), adapter (its name, "" for
 *                          none) and adapter_sha256 (which the model's sha256 counts, too),
 *                          tokenizer_sha256, corpus_sha256, policy,
 *                          its own options (each by name, and all in policy_options), policy_label
 *                          (for figures), window, sinks, compressible (n), low_pass (1: it keeps
 *                          the L lowest of n coefficients), sees_queries (1: what it keeps, or
 *                          what a query sees of it, depends on queries), protocol,
 *                          tokens_limit, score_from,
 *                          cache_quant and cache_quant_keys (where the cache is rounded),
 *                          backend, compute, kernels (instruction set and library of the
 *                          products), rope_positions (for which the frequencies of the rotation
 *                          were chosen, where they depend on the length), cache_dtype, se_unit
 *                          (what standard errors rest on, "" for none), results (mean_nll,
 *                          mean_nll_se, compressions, evictions, cache_bytes_peak, delta_nll, kl,
 *                          ...), cache_bytes_allocated (storage of one sequence)
 *   /retained              int32 [layers, kv_heads]: L per head, where the policy has one
 *   /slots_end             float64 [layers, kv_heads]: slots held at the end of a pass (a document,
 *                          or a window of it), mean over passes
 *   /slots_most            int32 [layers, kv_heads]: slots held at most
 *   /slots_kept            float64 [layers, kv_heads]: slots in use after a compression or eviction
 *                          on a schedule, mean over those of the head, NaN without any
 *   /head_policy           uint8 [layers, kv_heads], attr policies: of a table of policies, the
 *                          head's as an index into the names
 *   /documents/NNNNNN/     attrs: name, text_sha256, n_tokens, offset (of its first token in the
 *                          joined corpus)
 *       tokens             int32 [T]
 *       token_class        uint8 [T], with a tokenizer: engine/text/token_class.h
 *       nll                float32 [T], nll[t] = -log p(token t | before), NaN where it is not
 *                          scored
 *       round, slots_used, since_compression
 *                          float32 [T], of the query that predicts token t: compressions before it,
 *                          slots it could attend to, tokens since the last compression (its own
 *                          included); means over layers and heads
 *       evictions, since_eviction
 *                          float32 [T], the same of evictions, where the policy evicts
 *       baseline_nll, kl, top1_agree
 *                          float32 [T], with a baseline (top1_agree: 0 or 1)
 *   /windows/              stride only, instead of the columns of documents, because there a token
 *                          is scored once per window that covers it
 *       start              int64 [W] in the joined corpus
 *       nll, round, ...    float32 [W, window length], column t is the window's token t
 *   /compressions/         window (index of the pass), token (its position in it), layer, head,
 *                          round (of that head in that pass, from 1), slots (in use afterwards)
 *                          int32; state (0 key, 1 value) uint8; energy_before, energy_kept float64:
 *                          one row per compression, layer, head and state, in the order of window,
 *                          token, layer, head, state
 *   /evictions/            the same of a policy that evicts on a schedule; not of one that evicts
 *                          at every token
 *
 * Attributes ms_per_token and compression_share say what the policy's feeds took.
 *
 * Beside nll stands top1, the most likely token; with --final-states, final_states [T, dim] or [W,
 * window length, dim], the final hidden states of the queries that predict the tokens: what KL to
 * this run is computed from.
 *
 * Columns aligned with tokens rather than a list of scored ones: they plot against their index, and
 * documents of one text line up across runs. Version 1 counted evictions as compressions and did
 * not hold all that identifies a run: its files are refused. */
#include "replay/perplexity/run_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/columns.h"

enum { RUN_FORMAT_VERSION = 2 };

/* Of an attribute. SAME: it has to agree in the file of a run that is not made again. OPTIONAL:
 * where it is "" or 0, the file has none. */
enum { SAME = 1, OPTIONAL = 2 };
enum { TEXTS = 26, INTEGERS = 14 };
struct attributes {
    struct {
        const char *name, *value;
        int flags;
    } texts[TEXTS];
    struct {
        const char *name;
        int64_t value;
        int flags;
    } integers[INTEGERS];
};

static struct attributes describe(const struct fkv_experiment *e) {
    const struct fkv_config *c = &e->model->config;
    const struct fkv_policy_setup *setup = e->setup;
    const struct fkv_policy *policy = setup->policy;
    const bool window = policy->takes_window;
    const char *se_unit = fkv_se_unit_name(fkv_perplexity_se_unit(e->corpus, e->plan)),
               *invalid = e->baseline ? fkv_experiment_invalid(e) : NULL;
    return (struct attributes){
        .texts = {{"format", "freqkv-run", SAME},
                  {"software_version", FKV_VERSION, 0},
                  {"command", e->command, 0},
                  {"backend", e->backend, SAME},
                  {"compute", e->compute, SAME},
                  {"kernels", e->kernels, 0},
                  {"cache_dtype", fkv_dtype_name(e->cache_dtype), SAME},
                  {"model_name", e->model->name, 0},
                  {"model_sha256", e->model_sha256, SAME},
                  {"config_sha256", c->sha256, SAME},
                  {"adapter", e->model->adapter_name, 0},
                  {"adapter_sha256", fkv_model_adapter_sha256(e->model), 0},
                  {"tokenizer_sha256", e->tokenizer_sha256, SAME},
                  {"model_type", c->model_type, SAME},
                  {"rope_scaling", c->rotations[0].scaling, SAME},
                  {"corpus_sha256", e->corpus_sha256, SAME},
                  {"policy", policy->name, SAME},
                  {"policy_options", setup->own_text, SAME},
                  {"policy_label", setup->label, 0},
                  {"protocol", e->plan->name, SAME},
                  {"baseline", e->baseline ? fkv_full_attention.name : "", SAME},
                  {"se_unit", se_unit ? se_unit : "", SAME}, /* of the errors of a whole sweep */
                  {"baseline_invalid", invalid ? invalid : "", 0},
                  {"cache_quant", setup->quant ? fkv_quant_name(setup->quant) : "",
                   SAME | OPTIONAL},
                  {"cache_quant_keys",
                   !setup->quant         ? ""
                   : setup->quant_before ? "before"
                                         : "after",
                   SAME | OPTIONAL},
                  {"operator_sha256", setup->operator_data ? setup->operator_data->sha256 : "",
                   OPTIONAL}},
        .integers = {{"format_version", RUN_FORMAT_VERSION, SAME},
                     {"n_layers", c->layers, 0},
                     {"n_heads", c->heads, 0},
                     {"n_kv_heads", c->kv_heads, 0},
                     {"head_dim", c->head_dim, 0},
                     {"trained_context", c->trained_context, SAME},
                     {"window", window ? setup->window : 0, SAME},
                     {"sinks", window ? setup->sinks : 0, SAME},
                     {"compressible", window ? setup->compressible : 0, SAME},
                     {"low_pass", policy->low_pass, 0},
                     {"sees_queries", fkv_policy_sees_queries(policy), 0},
                     {"tokens_limit", e->tokens, SAME},
                     {"score_from", e->score_from, SAME},
                     {"rope_positions", e->rope_positions, OPTIONAL}}};
}

/* ---- writing ---- */

static int put_attributes(struct fkv_h5_writer *w, const struct fkv_experiment *e,
                          struct fkv_error *err) {
    const struct attributes all = describe(e);
    const struct fkv_perplexity *result = e->result;
    double results[FKV_RESULTS];
    fkv_experiment_results(e, results);
    for (int i = 0; i < TEXTS; i++)
        if ((!(all.texts[i].flags & OPTIONAL) || *all.texts[i].value) &&
            fkv_h5_put_string(w, "/", all.texts[i].name, all.texts[i].value, err))
            return FKV_FAILED;
    for (int i = 0; i < INTEGERS; i++)
        if ((!(all.integers[i].flags & OPTIONAL) || all.integers[i].value) &&
            fkv_h5_put_int(w, "/", all.integers[i].name, all.integers[i].value, err))
            return FKV_FAILED;
    const struct fkv_policy_option *own = e->setup->policy->options;
    for (int i = 0; own && own[i].name; i++) {
        char key[FKV_OPTION_KEY];
        fkv_own_key(&own[i], key);
        if (own[i].kind == FKV_OPTION_TEXT
                ? fkv_h5_put_string(w, "/", key, e->setup->own_texts[i], err)
                : fkv_h5_put_int(w, "/", key, e->setup->own[i], err))
            return FKV_FAILED;
    }
    for (int i = 0; i < (e->baseline ? FKV_RESULTS : FKV_RESULT_BASELINE_NLL); i++) {
        bool count = i == FKV_RESULT_TOKENS_SCORED || i == FKV_RESULT_CACHE_BYTES_PEAK;
        if (count ? fkv_h5_put_int(w, "/", fkv_result_names[i], (int64_t)results[i], err)
                  : fkv_h5_put_double(w, "/", fkv_result_names[i], results[i], err))
            return FKV_FAILED;
    }
    return fkv_h5_put_int(w, "/", "cache_bytes_allocated", result->cache_bytes_allocated, err) ||
                   fkv_h5_put_double(w, "/", "ms_per_token",
                                     1e3 * result->seconds / (double)result->statistics.tokens,
                                     err) ||
                   fkv_h5_put_double(w, "/", "compression_share",
                                     result->seconds_compressing / result->seconds, err)
               ? FKV_FAILED
               : FKV_OK;
}

/* The columns under `group`, elements [offset, ...) of each, in shape dims [rank]. */
static int put_columns(struct fkv_h5_writer *w, const struct fkv_recorded *r, const char *group,
                       int64_t offset, int rank, const int64_t *dims, struct fkv_error *err) {
    const struct {
        const char *name;
        const float *values;
    } columns[] = {
        {"nll", r->nll},
        {"top1", r->top1},
        {"round", r->round},
        {"slots_used", r->slots_used},
        {"since_compression", r->since},
        {"evictions", r->evictions},
        {"since_eviction", r->since_eviction},
        {"baseline_nll", r->baseline_nll},
        {"kl", r->kl},
        {"top1_agree", r->agree},
    };
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        char path[128];
        if (!columns[i].values) continue;
        snprintf(path, sizeof path, "%s/%s", group, columns[i].name);
        if (fkv_h5_put(w, path, FKV_H5_F32, rank, dims, columns[i].values + offset, err))
            return FKV_FAILED;
    }
    if (!r->final_states) return FKV_OK;
    char path[128];
    int64_t wide[3] = {0};
    memcpy(wide, dims, (size_t)rank * sizeof *dims);
    wide[rank] = r->dim;
    snprintf(path, sizeof path, "%s/final_states", group);
    return fkv_h5_put(w, path, FKV_H5_F32, rank + 1, wide, r->final_states + offset * r->dim, err);
}

static int put_documents(struct fkv_h5_writer *w, const struct fkv_experiment *e,
                         struct fkv_error *err) {
    for (int64_t d = 0; d < e->corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &e->corpus->documents[d];
        char group[64], path[80];
        snprintf(group, sizeof group, "/documents/%06lld", (long long)d);
        snprintf(path, sizeof path, "%s/tokens", group);
        if (fkv_h5_put(w, path, FKV_H5_I32, 1, &document->count,
                       e->corpus->tokens + document->offset, err) ||
            fkv_h5_put_string(w, group, "name", document->name, err) ||
            fkv_h5_put_string(w, group, "text_sha256", document->text_sha256, err) ||
            fkv_h5_put_int(w, group, "n_tokens", document->count, err) ||
            fkv_h5_put_int(w, group, "offset", document->offset, err))
            return FKV_FAILED;
        snprintf(path, sizeof path, "%s/token_class", group);
        if (e->corpus->classes && fkv_h5_put(w, path, FKV_H5_U8, 1, &document->count,
                                             e->corpus->classes + document->offset, err))
            return FKV_FAILED;
        if (!e->plan->protocol->joined &&
            put_columns(w, e->recorded, group, document->offset, 1, &document->count, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int put_windows(struct fkv_h5_writer *w, const struct fkv_experiment *e,
                       struct fkv_error *err) {
    const int64_t dims[] = {e->plan->count, e->plan->longest};
    int64_t *starts = malloc((size_t)e->plan->count * sizeof *starts);
    if (!starts) return fkv_fail(err, "out of memory for %lld windows", (long long)e->plan->count);
    for (int64_t i = 0; i < e->plan->count; i++) starts[i] = e->plan->passes[i].start;
    int status = fkv_h5_put(w, "/windows/start", FKV_H5_I64, 1, dims, starts, err);
    free(starts);
    return status ? status : put_columns(w, e->recorded, "/windows", 0, 2, dims, err);
}

/* Two rows per action, key, then value, of those of `actions` that are evictions (or compressions);
 * GROUP is "/compressions" or "/evictions". */
static int put_actions(struct fkv_h5_writer *w, const char *group, const struct fkv_recorded *r,
                       bool evictions, struct fkv_error *err) {
    enum { INTEGER_COLUMNS = 6 };
    static const char *const names[] = {"window", "token",         "layer",       "head", "round",
                                        "slots",  "energy_before", "energy_kept", "state"};
    int64_t rows = 0, row = 0;
    for (int64_t i = 0; i < r->action_count; i++) rows += 2 * (r->actions[i].eviction == evictions);
    size_t length = rows ? (size_t)rows : 1; /* malloc of 0 bytes may be NULL */
    int32_t *integers = malloc(INTEGER_COLUMNS * length * sizeof *integers); /* [columns, rows] */
    double *energies = malloc(2 * length * sizeof *energies);                /* [2, rows] */
    uint8_t *state = malloc(length);
    int status =
        integers && energies && state
            ? FKV_OK
            : fkv_fail(err, "out of memory for %lld actions of the policy", (long long)rows / 2);
    for (int64_t i = 0; !status && i < 2 * r->action_count; i++) {
        const struct fkv_recorded_action *a = &r->actions[i / 2];
        const int32_t values[INTEGER_COLUMNS] = {(int32_t)a->pass, (int32_t)a->token, a->layer,
                                                 a->kv_head,       a->round,          a->slots};
        if (a->eviction != evictions) continue;
        for (int c = 0; c < INTEGER_COLUMNS; c++) integers[c * rows + row] = values[c];
        state[row] = i % 2;
        energies[row] = i % 2 ? a->energy.value_before : a->energy.key_before;
        energies[rows + row] = i % 2 ? a->energy.value_kept : a->energy.key_kept;
        row++;
    }
    for (int c = 0; !status && c < INTEGER_COLUMNS + 3; c++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", group, names[c]);
        if (c < INTEGER_COLUMNS)
            status = fkv_h5_put(w, path, FKV_H5_I32, 1, &rows, integers + c * rows, err);
        else if (c < INTEGER_COLUMNS + 2)
            status = fkv_h5_put(w, path, FKV_H5_F64, 1, &rows,
                                energies + (c - INTEGER_COLUMNS) * rows, err);
        else
            status = fkv_h5_put(w, path, FKV_H5_U8, 1, &rows, state, err);
    }
    if (!status) status = fkv_h5_put_string(w, group, "states", "key,value", err);
    free(integers);
    free(energies);
    free(state);
    return status;
}

/* /compressions exists always, empty where there were none; /evictions where the policy has a
 * schedule of them. */
static int put_compressions_and_evictions(struct fkv_h5_writer *w, const struct fkv_experiment *e,
                                          struct fkv_error *err) {
    if (put_actions(w, "/compressions", e->recorded, false, err)) return FKV_FAILED;
    return e->setup->policy->counts_evictions ? put_actions(w, "/evictions", e->recorded, true, err)
                                              : FKV_OK;
}

/* /head_policy: indices into its attribute `policies`, names with commas between them. */
static int put_head_policies(struct fkv_h5_writer *w, const struct fkv_policy_setup *setup,
                             struct fkv_error *err) {
    const int64_t heads[] = {setup->layers, setup->kv_heads};
    const size_t count = (size_t)(heads[0] * heads[1]);
    char names[256] = "";
    uint8_t *policy = calloc(count, sizeof *policy);
    if (!policy) return fkv_fail(err, "out of memory for %zu heads", count);
    for (int32_t i = 0; i < setup->part_count; i++) {
        const size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", i ? "," : "", setup->parts[i].policy->name);
        for (size_t h = 0; h < count; h++)
            if (setup->head_policies[h] == setup->parts[i].policy) policy[h] = (uint8_t)i;
    }
    int status = fkv_h5_put(w, "/head_policy", FKV_H5_U8, 2, heads, policy, err);
    free(policy);
    return status ? FKV_FAILED : fkv_h5_put_string(w, "/head_policy", "policies", names, err);
}

/* What each head held and kept, as counted, and the policy it followed where heads have their own.
 */
static int put_heads(struct fkv_h5_writer *w, const struct fkv_experiment *e,
                     struct fkv_error *err) {
    const struct fkv_policy_setup *setup = e->setup;
    const struct fkv_perplexity *found = e->result;
    const int64_t heads[] = {setup->layers, setup->kv_heads};
    if ((setup->retained &&
         fkv_h5_put(w, "/retained", FKV_H5_I32, 2, heads, setup->retained, err)) ||
        fkv_h5_put(w, "/slots_end", FKV_H5_F64, 2, heads, found->slots_end, err) ||
        fkv_h5_put(w, "/slots_most", FKV_H5_I32, 2, heads, found->slots_most, err) ||
        fkv_h5_put(w, "/slots_kept", FKV_H5_F64, 2, heads, found->slots_kept, err))
        return FKV_FAILED;
    return setup->head_policies ? put_head_policies(w, setup, err) : FKV_OK;
}

int fkv_run_file_write(const char *path, const struct fkv_experiment *e, struct fkv_error *err) {
    struct fkv_h5_writer *w;
    if (fkv_h5_create(path, &w, err)) return FKV_FAILED;
    if (put_attributes(w, e, err) || put_heads(w, e, err) || put_documents(w, e, err) ||
        (e->plan->protocol->joined && put_windows(w, e, err)) ||
        put_compressions_and_evictions(w, e, err)) {
        fkv_h5_abandon(w);
        return FKV_FAILED;
    }
    return fkv_h5_commit(w, err);
}

/* ---- reading ---- */

int fkv_run_file_check(struct fkv_h5_reader *r, const char *path, const struct fkv_experiment *e,
                       const char *skipped, struct fkv_error *err) {
    const struct attributes all = describe(e);
    double number = NAN;
    bool found = true;
    for (int i = 0; i < TEXTS; i++) {
        const char *name = all.texts[i].name, *expected = all.texts[i].value;
        char value[4096] = "";
        if (!(all.texts[i].flags & SAME) || (skipped && !strcmp(name, skipped))) continue;
        if (fkv_h5_get_string(r, "/", name, value, sizeof value, &found, err)) return FKV_FAILED;
        if (all.texts[i].flags & OPTIONAL) found = true; /* the empty text */
        if (!found || strcmp(value, expected))
            return fkv_fail(
                err, "%s: %s: expected \"%s\", found %s%s%s: made by another experiment", path,
                name, expected, found ? "\"" : "", found ? value : "nothing", found ? "\"" : "");
    }
    for (int i = 0; i < INTEGERS; i++) {
        if (!(all.integers[i].flags & SAME)) continue;
        if (fkv_h5_get_double(r, "/", all.integers[i].name, &number, &found, err))
            return FKV_FAILED;
        if (!found || number != (double)all.integers[i].value)
            return fkv_fail(err, "%s: %s: expected %lld, found %.0f: made by another experiment",
                            path, all.integers[i].name, (long long)all.integers[i].value,
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

int fkv_run_file_read(const char *path, const struct fkv_experiment *e, double results[FKV_RESULTS],
                      struct fkv_error *err) {
    struct fkv_h5_reader *r;
    bool found;
    if (fkv_h5_open(path, &r, err)) return FKV_FAILED;
    int status = fkv_run_file_check(r, path, e, NULL, err);
    for (int i = 0; i < FKV_RESULTS && !status; i++) {
        results[i] = NAN;
        status = fkv_h5_get_double(r, "/", fkv_result_names[i], &results[i], &found, err);
        if (!status && !found && i != FKV_RESULT_KL_SE && /* which older files have not */
            (e->baseline || i < FKV_RESULT_BASELINE_NLL))
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
