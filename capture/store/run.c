/* Owns the reading of run files (store/run.h). Reads what it needs and checks what it reads against
 * the file's own shape; whatever is missing is named with its file. */
#include "capture/store/run.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/columns.h"

enum { MOST_HEADS = 1 << 20, VERSION = 2 };

static int get_text(struct fkv_h5_reader *r, const char *object, const char *name, char *value,
                    size_t bytes, bool required, struct fkv_error *err) {
    bool found;
    if (fkv_h5_get_string(r, object, name, value, (int64_t)bytes, &found, err)) return FKV_FAILED;
    if (required && !found)
        return fkv_fail(err, "attribute %s of %s: expected a text, found none", name, object);
    return FKV_OK;
}

int fkv_run_format(const char *path, char format[64], struct fkv_error *err) {
    struct fkv_h5_reader *r;
    format[0] = 0;
    if (fkv_h5_open(path, &r, err)) return FKV_FAILED;
    int status = get_text(r, "/", "format", format, 64, false, err);
    fkv_h5_close(r);
    return status ? fkv_error_prefix(err, "%s", path) : FKV_OK;
}

static int read_attributes(struct fkv_h5_reader *r, struct fkv_run *run, struct fkv_error *err) {
    char format[64] = "";
    int32_t version = 0;
    if (get_text(r, "/", "format", format, sizeof format, false, err)) return FKV_FAILED;
    if (strcmp(format, "freqkv-run"))
        return fkv_fail(
            err,
            "attribute format: expected \"freqkv-run\" (freqkv-replay ppl --out), found \"%s\"",
            format);
    if (fkv_column_integer(r, "/", "format_version", true, &version, err)) return FKV_FAILED;
    if (version == 1)
        return fkv_fail(err,
                        "attribute format_version: expected %d, found 1, which counted evictions "
                        "as compressions "
                        "and did not hold all options: run it again",
                        VERSION);
    if (version != VERSION)
        return fkv_fail(err, "attribute format_version: expected %d, found %d", VERSION, version);
    struct {
        const char *name;
        char *value;
        size_t bytes;
        bool required;
    } const texts[] = {
        {"model_name", run->model_name, sizeof run->model_name, false},
        {"model_sha256", run->model_sha256, sizeof run->model_sha256, true},
        {"config_sha256", run->config_sha256, sizeof run->config_sha256, false},
        {"corpus_sha256", run->corpus_sha256, sizeof run->corpus_sha256, false},
        {"tokenizer_sha256", run->tokenizer_sha256, sizeof run->tokenizer_sha256, false},
        {"policy", run->policy, sizeof run->policy, true},
        {"policy_options", run->policy_options, sizeof run->policy_options, false},
        {"policy_label", run->policy_label, sizeof run->policy_label, true},
        {"backend", run->backend, sizeof run->backend, false},
        {"compute", run->compute, sizeof run->compute, false},
        {"cache_dtype", run->cache_dtype, sizeof run->cache_dtype, false},
        {"protocol", run->protocol, sizeof run->protocol, true},
        {"se_unit", run->se_unit, sizeof run->se_unit, false},
        {"baseline_invalid", run->baseline_invalid, sizeof run->baseline_invalid, false}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (get_text(r, "/", texts[i].name, texts[i].value, texts[i].bytes, texts[i].required, err))
            return FKV_FAILED;
    struct {
        const char *name;
        int32_t *value;
    } const integers[] = {{"n_layers", &run->layers},      {"n_kv_heads", &run->kv_heads},
                          {"head_dim", &run->head_dim},    {"window", &run->window},
                          {"sinks", &run->sinks},          {"compressible", &run->compressible},
                          {"low_pass", &run->low_pass},    {"tokens_limit", &run->tokens_limit},
                          {"score_from", &run->score_from}};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        if (fkv_column_integer(r, "/", integers[i].name, i < 3, integers[i].value, err))
            return FKV_FAILED;
    if (run->layers < 1 || run->kv_heads < 1 || (int64_t)run->layers * run->kv_heads > MOST_HEADS)
        return fkv_fail(
            err,
            "attributes n_layers and n_kv_heads: expected 1 to %d heads, found %d layers of %d",
            MOST_HEADS, run->layers, run->kv_heads);
    if (run->window < 0 || run->sinks < 0 || run->compressible < 0 ||
        run->compressible > run->window)
        return fkv_fail(err,
                        "attributes window, sinks and compressible: expected numbers from 0 on, "
                        "the last at most the "
                        "first, found %d, %d and %d",
                        run->window, run->sinks, run->compressible);
    struct {
        const char *name;
        double *value;
    } const numbers[] = {{"gamma", &run->gamma},
                         {"mean_nll", &run->mean_nll},
                         {"mean_nll_se", &run->mean_nll_se},
                         {"delta_nll", &run->delta_nll},
                         {"delta_nll_se", &run->delta_nll_se},
                         {"kl", &run->mean_kl},
                         {"cache_bytes_peak", &run->cache_bytes_peak},
                         {"ms_per_token", &run->ms_per_token},
                         {"compression_share", &run->compression_share}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        bool found;
        *numbers[i].value = NAN;
        if (fkv_h5_get_double(r, "/", numbers[i].name, numbers[i].value, &found, err))
            return FKV_FAILED;
    }
    if (!isfinite(run->mean_nll))
        return fkv_fail(err, "attribute mean_nll: expected a finite number, found none");
    return FKV_OK;
}

static int read_columns(struct fkv_h5_reader *r, const char *group, bool evictions,
                        struct fkv_run_columns *c, struct fkv_error *err) {
    char path[80];
    snprintf(path, sizeof path, "%s/nll", group);
    if (fkv_column_read(r, path, FKV_H5_F32, &c->count, &c->nll, err)) return FKV_FAILED;
    if (!c->nll) return fkv_fail(err, "%s: expected a dataset, found none", path);
    struct {
        const char *name;
        float **data;
    } const rest[] = {{evictions ? "evictions" : "round", &c->round},
                      {evictions ? "since_eviction" : "since_compression", &c->since},
                      {"baseline_nll", &c->baseline_nll},
                      {"kl", &c->kl},
                      {"top1_agree", &c->agree}};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        snprintf(path, sizeof path, "%s/%s", group, rest[i].name);
        if (fkv_column_expect(r, path, FKV_H5_F32, c->count, false, rest[i].data, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* d->tokens is NULL where the file has no such document. */
static int read_document(struct fkv_h5_reader *r, const char *group, struct fkv_run_document *d,
                         struct fkv_error *err) {
    char path[80];
    snprintf(path, sizeof path, "%s/tokens", group);
    if (fkv_column_read(r, path, FKV_H5_I32, &d->count, &d->tokens, err)) return FKV_FAILED;
    if (!d->tokens) return FKV_OK;
    if (get_text(r, group, "name", d->name, sizeof d->name, false, err) ||
        get_text(r, group, "text_sha256", d->text_sha256, sizeof d->text_sha256, true, err))
        return FKV_FAILED;
    snprintf(path, sizeof path, "%s/token_class", group);
    return fkv_column_expect(r, path, FKV_H5_U8, d->count, false, &d->token_class, err);
}

/* Makes the arrays of documents and of sets of columns one longer, the new ones empty. */
static int add_document(struct fkv_run *run, struct fkv_error *err) {
    size_t n = (size_t)run->documents + 1;
    struct fkv_run_document *document = realloc(run->document, n * sizeof *document);
    if (document) run->document = document;
    struct fkv_run_columns *columns = document ? realloc(run->columns, n * sizeof *columns) : NULL;
    if (!columns) return fkv_fail(err, "out of memory for %zu documents", n);
    run->columns = columns;
    run->document[n - 1] = (struct fkv_run_document){0};
    run->columns[n - 1] = (struct fkv_run_columns){0};
    run->documents++;
    return FKV_OK;
}

static int read_documents(struct fkv_h5_reader *r, struct fkv_run *run, struct fkv_error *err) {
    const bool evictions = run->actions.evictions;
    if (fkv_column_read(r, "/windows/start", FKV_H5_I64, &run->windows, &run->window_start, err))
        return FKV_FAILED;
    run->joined = run->window_start != NULL;
    for (int32_t d = 0;; d++) {
        char group[64];
        snprintf(group, sizeof group, "/documents/%06d", d);
        if (add_document(run, err) || read_document(r, group, &run->document[d], err))
            return FKV_FAILED;
        if (!run->document[d].tokens) break;
        if (run->joined) continue;
        run->column_sets++;
        if (read_columns(r, group, evictions, &run->columns[d], err)) return FKV_FAILED;
    }
    run->documents--; /* the one that is not there */
    if (!run->documents) return fkv_fail(err, "/documents: expected one or more, found none");
    if (!run->joined) return FKV_OK;
    run->column_sets = 1;
    if (read_columns(r, "/windows", evictions, run->columns, err)) return FKV_FAILED;
    run->window_tokens = run->windows ? run->columns->count / run->windows : 0;
    return FKV_OK;
}

/* Of one group; count 0 and no arrays where it is empty or not there. */
static int read_action_columns(struct fkv_h5_reader *r, const char *group,
                               struct fkv_run_actions *a, struct fkv_error *err) {
    const struct {
        const char *name;
        enum fkv_h5_type type;
        void *data;
    } columns[] = {
        {"head", FKV_H5_I32, &a->head},        {"round", FKV_H5_I32, &a->round},
        {"state", FKV_H5_U8, &a->state},       {"energy_before", FKV_H5_F64, &a->before},
        {"energy_kept", FKV_H5_F64, &a->kept},
    };
    char path[64];
    snprintf(path, sizeof path, "%s/layer", group);
    if (fkv_column_read(r, path, FKV_H5_I32, &a->count, &a->layer, err)) return FKV_FAILED;
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        snprintf(path, sizeof path, "%s/%s", group, columns[i].name);
        if (fkv_column_expect(r, path, columns[i].type, a->count, a->layer, columns[i].data, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int read_actions(struct fkv_h5_reader *r, struct fkv_run *run, struct fkv_error *err) {
    struct fkv_run_actions *a = &run->actions;
    int rank;
    int64_t dims[8];
    bool compresses;
    if (fkv_h5_shape(r, "/compressions/layer", &rank, dims, &compresses, err)) return FKV_FAILED;
    compresses = compresses && rank == 1 && dims[0] > 0;
    if (fkv_h5_shape(r, "/evictions/layer", &rank, dims, &a->evictions, err)) return FKV_FAILED;
    a->evictions = a->evictions && !compresses; /* a mixture may do both */
    const char *group = a->evictions ? "/evictions" : "/compressions";
    if (read_action_columns(r, group, a, err)) return FKV_FAILED;
    for (int64_t i = 0; i < a->count; i++)
        if (a->layer[i] < 0 || a->layer[i] >= run->layers || a->head[i] < 0 ||
            a->head[i] >= run->kv_heads || a->state[i] > 1 || a->round[i] < 1 ||
            a->round[i] > 1 << 24)
            return fkv_fail(err,
                            "%s: row %lld: expected layer < %d, head < %d, state 0 or 1, round >= "
                            "1, found %d, %d, %d, %d",
                            group, (long long)i, run->layers, run->kv_heads, a->layer[i],
                            a->head[i], a->state[i], a->round[i]);
    return FKV_OK;
}

int fkv_run_read(const char *path, struct fkv_run *run, struct fkv_error *err) {
    struct fkv_h5_reader *r;
    *run = (struct fkv_run){.path = strdup(path)};
    if (!run->path) return fkv_fail(err, "out of memory");
    if (fkv_h5_open(path, &r, err)) {
        fkv_run_free(run);
        return FKV_FAILED;
    }
    int status = read_attributes(r, run, err);
    if (!status) status = read_actions(r, run, err);
    if (!status) status = read_documents(r, run, err);
    if (!status)
        status = fkv_column_expect(r, "/retained", FKV_H5_I32, (int64_t)run->layers * run->kv_heads,
                                   false, &run->retained, err);
    for (int32_t i = 0; !status && run->retained && i < run->layers * run->kv_heads; i++)
        if (run->retained[i] < 1)
            status =
                fkv_fail(err, "/retained: layer %d, KV head %d: expected 1 slot or more, found %d",
                         i / run->kv_heads, i % run->kv_heads, run->retained[i]);
    fkv_h5_close(r);
    if (!status) return FKV_OK;
    fkv_run_free(run);
    return fkv_error_prefix(err, "%s", path);
}

void fkv_run_free(struct fkv_run *run) {
    for (int32_t i = 0; i < run->column_sets; i++) {
        struct fkv_run_columns *c = &run->columns[i];
        free(c->nll), free(c->round), free(c->since), free(c->baseline_nll), free(c->kl);
        free(c->agree);
    }
    for (int32_t i = 0; i < run->documents; i++)
        free(run->document[i].tokens), free(run->document[i].token_class);
    struct fkv_run_actions *c = &run->actions;
    free(c->layer), free(c->head), free(c->round), free(c->state), free(c->before), free(c->kept);
    free(run->path), free(run->retained), free(run->document), free(run->columns);
    free(run->window_start);
    memset(run, 0, sizeof *run);
}

int64_t fkv_run_scored(const struct fkv_run_columns *columns) {
    int64_t scored = 0;
    for (int64_t t = 0; t < columns->count; t++) scored += isfinite(columns->nll[t]);
    return scored;
}

int fkv_run_units(const struct fkv_run *run, struct fkv_units *units, struct fkv_error *err) {
    int64_t *blocks = malloc((size_t)run->column_sets * sizeof *blocks);
    *units = (struct fkv_units){0};
    if (!blocks) return fkv_fail(err, "out of memory for %d documents", run->column_sets);
    for (int32_t d = 0; d < run->column_sets; d++)
        blocks[d] =
            (fkv_run_scored(&run->columns[d]) + FKV_BOOTSTRAP_BLOCK - 1) / FKV_BOOTSTRAP_BLOCK;
    int status = fkv_units_make(blocks, run->column_sets, run->joined, units, err);
    free(blocks);
    return status;
}

static int64_t slots_kept(const struct fkv_run *run) {
    int64_t sum = 0;
    for (int32_t h = 0; h < run->layers * run->kv_heads; h++) sum += run->retained[h];
    return sum;
}

double fkv_run_gamma(const struct fkv_run *run) {
    const double n = run->compressible;
    if (!run->retained || !(n > 0)) return run->gamma;
    const double kept = (double)slots_kept(run) / n / ((double)run->layers * run->kv_heads);
    return fabs(run->gamma - kept) < 1 / n ? run->gamma : kept;
}

/* ---- what identifies a run ---- */

/* Beside its model, its policy and its ratio: a curve's points agree in all of them but the last,
 * and a figure names those in which its runs differ. */
enum { WINDOW, SINKS, WORD = 64, HASH = 8 };
static const struct fact {
    const char *name;
    size_t offset; /* in struct fkv_run */
    int most;      /* bytes of a text that count; 0: a number, int32_t */
} facts[] = {
    [WINDOW] = {"window", offsetof(struct fkv_run, window), 0},
    [SINKS] = {"sinks", offsetof(struct fkv_run, sinks), 0},
    {"protocol", offsetof(struct fkv_run, protocol), WORD},
    {"tokens", offsetof(struct fkv_run, tokens_limit), 0},
    {"scored from", offsetof(struct fkv_run, score_from), 0},
    {"compute", offsetof(struct fkv_run, compute), WORD},
    {"cache", offsetof(struct fkv_run, cache_dtype), WORD},
    {"backend", offsetof(struct fkv_run, backend), WORD},
    {"config", offsetof(struct fkv_run, config_sha256), HASH},
    {"tokenizer", offsetof(struct fkv_run, tokenizer_sha256), HASH},
    {"texts", offsetof(struct fkv_run, corpus_sha256), HASH},
};
enum { FACTS = sizeof facts / sizeof *facts, TEXTS = FACTS - 1, FACT_BYTES = 80 };

/* "window 512", "protocol whole", "texts 1a2b3c4d"; "" where the run has none (no window, no
 * limit). Returns `text`. */
static const char *fact_text(const struct fkv_run *run, int fact, char text[FACT_BYTES]) {
    const struct fact *f = &facts[fact];
    const void *value = (const char *)run + f->offset;
    const int32_t number = f->most ? 0 : *(const int32_t *)value;
    text[0] = 0;
    if (f->most && *(const char *)value)
        snprintf(text, FACT_BYTES, "%s %.*s", f->name, f->most, (const char *)value);
    else if (fact == SINKS ? run->window : number)
        snprintf(text, FACT_BYTES, "%s %d", f->name, number);
    return text;
}

static bool differ(const struct fkv_run *runs, int32_t count, int fact) {
    char first[FACT_BYTES], other[FACT_BYTES];
    fact_text(&runs[0], fact, first);
    for (int32_t i = 1; i < count; i++)
        if (strcmp(first, fact_text(&runs[i], fact, other))) return true;
    return false;
}

static bool has_ratios_per_head(const struct fkv_run *run) {
    bool uniform = true;
    for (int32_t h = 1; run->retained && h < run->layers * run->kv_heads; h++)
        uniform = uniform && run->retained[h] == run->retained[0];
    return !uniform;
}

/* Ratios of one mean that heads share differently. */
static bool shared_differently(const struct fkv_run *a, const struct fkv_run *b) {
    const size_t heads = (size_t)a->layers * (size_t)a->kv_heads;
    return a->layers == b->layers && a->kv_heads == b->kv_heads && has_ratios_per_head(b) &&
           slots_kept(a) == slots_kept(b) &&
           memcmp(a->retained, b->retained, heads * sizeof *a->retained) != 0;
}

/* ", ratios per head", with a name of the table where another one has the same mean. */
static void ratios_fact(const struct fkv_run *runs, int32_t count, int32_t i,
                        char text[FACT_BYTES]) {
    const struct fkv_run *run = &runs[i];
    const size_t heads = (size_t)run->layers * (size_t)run->kv_heads;
    fkv_sha256_hex name = "";
    bool twin = false;
    text[0] = 0;
    if (!has_ratios_per_head(run)) return;
    for (int32_t k = 0; k < count; k++) twin = twin || shared_differently(run, &runs[k]);
    if (twin) fkv_sha256_memory(run->retained, heads * sizeof *run->retained, name, NULL);
    snprintf(text, FACT_BYTES, ", ratios per head%s%.8s", twin ? " " : "", name);
}

void fkv_run_label(const struct fkv_run *runs, int32_t count, int32_t i,
                   char label[FKV_RUN_LABEL]) {
    char fact[FACT_BYTES];
    int used = snprintf(label, FKV_RUN_LABEL, "%s", runs[i].policy_label);
    for (int f = 0; f < FACTS; f++) {
        bool told = f == WINDOW || differ(runs, count, f);
        if (!told || !*fact_text(&runs[i], f, fact) || used >= FKV_RUN_LABEL) continue;
        used += snprintf(label + used, FKV_RUN_LABEL - (size_t)used, ", %s", fact);
    }
    ratios_fact(runs, count, i, fact);
    if (used < FKV_RUN_LABEL) snprintf(label + used, FKV_RUN_LABEL - (size_t)used, "%s", fact);
}

static int refuse_pair(const struct fkv_run *a, const struct fkv_run *b, const char *what,
                       const char *first, const char *second, struct fkv_error *err) {
    return fkv_fail(
        err,
        "%s and %s: expected runs that differ in their ratio only, found %s%s\"%s\" and \"%s\"",
        a->path, b->path, what, *what ? " " : "", first, second);
}

int fkv_runs_compare(const struct fkv_run *a, const struct fkv_run *b, struct fkv_error *err) {
    char first[FACT_BYTES], second[FACT_BYTES];
    if (strcmp(a->model_sha256, b->model_sha256))
        return fkv_fail(err, "%s and %s: expected runs of one model, found %.12s and %.12s",
                        a->path, b->path, a->model_sha256, b->model_sha256);
    if (strcmp(a->policy, b->policy)) return refuse_pair(a, b, "policy", a->policy, b->policy, err);
    if (strcmp(a->policy_options, b->policy_options))
        return refuse_pair(a, b, "its options", a->policy_options, b->policy_options, err);
    if (strcmp(a->policy_label, b->policy_label)) /* it names the grid of a rounded cache, too */
        return refuse_pair(a, b, "policy", a->policy_label, b->policy_label, err);
    for (int f = 0; f < TEXTS; f++)
        if (strcmp(fact_text(a, f, first), fact_text(b, f, second)))
            return refuse_pair(a, b, "", first, second, err);
    bool same = a->documents == b->documents && a->column_sets == b->column_sets;
    for (int32_t i = 0; same && i < a->documents; i++)
        same = !strcmp(a->document[i].text_sha256, b->document[i].text_sha256);
    for (int32_t i = 0; same && i < a->column_sets; i++)
        same = a->columns[i].count == b->columns[i].count;
    if (!same)
        return fkv_fail(err, "%s and %s: expected runs over the same texts, found others", a->path,
                        b->path);
    return FKV_OK;
}
