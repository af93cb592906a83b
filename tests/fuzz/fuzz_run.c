/* The readers of RUN.h5 over files of any structure (hdf_file.h): the analyzer's, of which what
 * comes back must hold together; that of a sweep that goes on, which must take over nothing but a
 * file of its own experiment; and that of a baseline, all of whose columns must be there. */
#include "capture/store/run.h"
#include "replay/perplexity/experiment.h"
#include "tests/fuzz/hdf_file.h"

enum { LAYERS = 2, HEADS = 3, WINDOW = 24, SINKS = 4, TOKENS = 20, DIM = 3 };
static const hsize_t tokens = TOKENS, windows[] = {3, 16}, heads[] = {LAYERS, HEADS};
static const char model_hash[] = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
                  corpus_hash[] =
                      "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static void put_columns(struct choices *c, hid_t group, int rank, const hsize_t *dims) {
    static const char *const names[] = {"nll",          "round", "slots_used", "since_compression",
                                        "baseline_nll", "kl",    "top1_agree", "top1"};
    const hsize_t wide[] = {dims[0], DIM};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        put_dataset(c, group, names[i], H5T_IEEE_F32LE, rank, dims, 0, 30);
    if (rank == 1) put_dataset(c, group, "final_states", H5T_IEEE_F32LE, 2, wide, 0, 30);
}

static void put_documents(struct choices *c, hid_t file, bool joined) {
    static const struct attribute attributes[] = {{"name", TEXT, 0, 0, "a text"},
                                                  {"text_sha256", TEXT, 0, 0, corpus_hash},
                                                  {"n_tokens", NUMBER, 20, 0, NULL},
                                                  {"offset", NUMBER, 0, 0, NULL}};
    hid_t documents = put_group(file, "documents");
    for (int i = (int)(choose(c) & 3); i >= 0; i--) {
        char name[16];
        snprintf(name, sizeof name, "%06d", i);
        hid_t group = put_group(documents, name);
        put_attributes(c, group, attributes, sizeof attributes / sizeof *attributes);
        put_dataset(c, group, "tokens", H5T_STD_I32LE, 1, &tokens, 0, 100);
        if (!joined) put_columns(c, group, 1, &tokens);
        H5Gclose(group);
    }
    if (!joined) return;
    hid_t group = put_group(file, "windows");
    put_dataset(c, group, "start", H5T_STD_I64LE, 1, windows, 0, 3);
    put_columns(c, group, 2, windows);
}

static void put_actions(struct choices *c, hid_t file, const char *name) {
    static const struct {
        const char *name;
        double first;
        int cycle;
    } columns[] = {{"window", 0, 3},
                   {"token", 0, 16},
                   {"layer", 0, LAYERS},
                   {"head", 0, HEADS},
                   {"round", 1, 5}};
    const hsize_t rows = choose(c) & 1 ? 0 : 24;
    hid_t group = put_group(file, name);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        put_dataset(c, group, columns[i].name, H5T_STD_I32LE, 1, &rows, columns[i].first,
                    columns[i].cycle);
    put_dataset(c, group, "state", H5T_STD_U8LE, 1, &rows, 0, 2);
    put_dataset(c, group, "energy_before", H5T_IEEE_F64LE, 1, &rows, 1, 50);
    put_dataset(c, group, "energy_kept", H5T_IEEE_F64LE, 1, &rows, 0, 50);
}

static void write_file(struct choices *c) {
    static const struct attribute attributes[] = {{"format", TEXT, 0, 0, "freqkv-run"},
                                                  {"format_version", NUMBER, 2, 0, NULL},
                                                  {"backend", TEXT, 0, 0, "cpu"},
                                                  {"compute", TEXT, 0, 0, "f32"},
                                                  {"cache_dtype", TEXT, 0, 0, "f32"},
                                                  {"model_name", TEXT, 0, 0, "a model"},
                                                  {"model_sha256", TEXT, 0, 0, model_hash},
                                                  {"model_type", TEXT, 0, 0, "llama"},
                                                  {"rope_scaling", TEXT, 0, 0, "null"},
                                                  {"corpus_sha256", TEXT, 0, 0, corpus_hash},
                                                  {"policy", TEXT, 0, 0, "freqkv"},
                                                  {"protocol", TEXT, 0, 0, "whole"},
                                                  {"baseline", TEXT, 0, 0, "full"},
                                                  {"baseline_invalid", TEXT, 0, 0, ""},
                                                  {"n_layers", NUMBER, LAYERS, 0, NULL},
                                                  {"n_heads", NUMBER, HEADS, 0, NULL},
                                                  {"n_kv_heads", NUMBER, HEADS, 0, NULL},
                                                  {"head_dim", NUMBER, 4, 0, NULL},
                                                  {"trained_context", NUMBER, 64, 0, NULL},
                                                  {"window", NUMBER, WINDOW, 0, NULL},
                                                  {"sinks", NUMBER, SINKS, 0, NULL},
                                                  {"compressible", NUMBER, WINDOW - SINKS, 0, NULL},
                                                  {"se_unit", TEXT, 0, 0, ""},
                                                  {"policy_options", TEXT, 0, 0, "none"},
                                                  {"policy_label", TEXT, 0, 0, "freqkv"},
                                                  {"config_sha256", TEXT, 0, 0, ""},
                                                  {"tokenizer_sha256", TEXT, 0, 0, ""},
                                                  {"low_pass", NUMBER, 1, 0, NULL},
                                                  {"tokens_limit", NUMBER, 0, 0, NULL},
                                                  {"score_from", NUMBER, 0, 0, NULL}};
    hid_t file = create_file(c);
    put_attributes(c, file, attributes, sizeof attributes / sizeof *attributes);
    for (int i = 0; i < FKV_RESULTS; i++) {
        const struct attribute result = {fkv_result_names[i], NUMBER, 0.5, 0, NULL};
        put_attribute(c, file, &result);
    }
    put_documents(c, file, choose(c) & 1);
    put_actions(c, file, "compressions");
    if (choose(c) & 1) put_actions(c, file, "evictions");
    put_dataset(c, file, "retained", H5T_STD_I32LE, 2, heads, 1, 10);
    H5Fclose(file);
}

/* ---- the analyzer's ---- */

static void check_columns(const struct fkv_run_columns *c) {
    const float *const all[] = {c->nll, c->round, c->since, c->baseline_nll, c->kl};
    int64_t sum = 0;
    if (!c->nll || c->count < 0) abort();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int64_t t = 0; all[i] && t < c->count; t++) sum += isnan(all[i][t]);
    volatile int64_t used = sum; /* all of it was read, under the sanitizers' eyes */
    (void)used;
}

static void check_run(const struct fkv_run *run) {
    const struct fkv_run_actions *c = &run->actions;
    if (run->layers < 1 || run->kv_heads < 1 || (int64_t)run->layers * run->kv_heads > INT32_MAX ||
        run->window < 0 || run->sinks < 0 || run->documents < 1 ||
        run->column_sets != (run->joined ? 1 : run->documents) || !isfinite(run->mean_nll) ||
        strcmp(run->path, path))
        abort();
    for (int32_t i = 0; i < run->column_sets; i++) check_columns(&run->columns[i]);
    for (int32_t i = 0; run->retained && i < run->layers * run->kv_heads; i++)
        if (run->retained[i] < 1) abort();
    for (int64_t i = 0; i < c->count; i++)
        if (c->layer[i] < 0 || c->layer[i] >= run->layers || c->head[i] < 0 ||
            c->head[i] >= run->kv_heads || c->round[i] < 1 || c->state[i] > 1)
            abort();
}

static void read_run(bool whole) {
    char format[64];
    struct fkv_error err = {0};
    struct fkv_run run;
    if (fkv_run_format(path, format, &err) && !err.message[0]) abort();
    err.message[0] = 0;
    if (!fkv_run_read(path, &run, &err)) {
        check_run(&run);
        if (fkv_runs_compare(&run, &run, &err)) abort();
        fkv_run_free(&run);
    } else if (!err.message[0]) {
        abort(); /* a failure without words */
    } else if (whole) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
}

/* ---- that of a baseline ---- */

/* Of the same experiment: what is read has all its numbers. */
static void read_baseline(const struct fkv_experiment *e, bool whole) {
    struct fkv_baseline_run run;
    struct fkv_error err = {0};
    if (fkv_run_file_read_baseline(path, e, &run, &err)) {
        if (whole) fprintf(stderr, "%s\n", err.message);
        if (whole || !err.message[0]) abort();
        return;
    }
    double sum = 0;
    for (int64_t i = 0; i < run.count; i++) sum += run.nll[i];
    for (int64_t i = 0; run.top1 && i < run.count; i++) sum += run.top1[i];
    for (int64_t i = 0; run.final_states && i < run.count * run.dim; i++)
        sum += run.final_states[i];
    volatile double used = sum; /* all of it was read, under the sanitizers' eyes */
    (void)used;
    if ((whole && (!run.top1 || !run.final_states)) || run.count != TOKENS || run.dim != DIM ||
        !isfinite(run.nll[1]))
        abort();
    fkv_baseline_run_free(&run);
}

/* ---- that of a sweep ---- */

static void read_point(bool whole) {
    const struct fkv_model model = {.config = {.model_type = "llama",
                                               .rotations = {{.scaling = "null"}},
                                               .layers = LAYERS,
                                               .heads = HEADS,
                                               .kv_heads = HEADS,
                                               .head_dim = 4,
                                               .dim = DIM,
                                               .trained_context = 64}};
    static const struct fkv_protocol protocol = {.name = "whole"};
    struct fkv_pass pass = {.rows = TOKENS, .until = TOKENS - 1};
    const struct fkv_plan plan = {
        .protocol = &protocol, .name = "whole", .longest = TOKENS, .passes = &pass, .count = 1};
    struct fkv_corpus_document document = {.count = TOKENS};
    const struct fkv_corpus corpus = {
        .token_count = TOKENS, .documents = &document, .document_count = 1};
    struct fkv_policy_setup setup = {.layers = LAYERS,
                                     .kv_heads = HEADS,
                                     .window = WINDOW,
                                     .sinks = SINKS,
                                     .compressible = WINDOW - SINKS,
                                     .own_text = "none",
                                     .label = "freqkv",
                                     .gamma = 0.5};
    for (int i = 0; fkv_policies[i]; i++)
        if (!strcmp(fkv_policies[i]->name, "freqkv")) setup.policy = fkv_policies[i];
    const struct fkv_experiment e = {.model = &model,
                                     .setup = &setup,
                                     .corpus = &corpus,
                                     .plan = &plan,
                                     .baseline = true,
                                     .backend = "cpu",
                                     .command = "",
                                     .compute = "f32",
                                     .tokenizer_sha256 = "",
                                     .cache_dtype = FKV_F32,
                                     .model_sha256 = model_hash,
                                     .corpus_sha256 = corpus_hash};
    double results[FKV_RESULTS];
    struct fkv_error err = {0};
    if (!fkv_run_file_read(path, &e, results, &err)) {
        if (results[FKV_RESULT_GAMMA] != 0.5) abort();
    } else if (!err.message[0]) {
        abort();
    } else if (whole) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    read_baseline(&e, whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct choices c = {data, size};
    write_file(&c);
    read_run(!size); /* an empty input is a whole, correct file */
    read_point(!size);
    unlink(path);
    return 0;
}
