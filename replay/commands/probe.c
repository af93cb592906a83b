/* freqkv-replay probe: reads the command line, lists the changes, checks everything that can be
 * checked before the first token, runs, reports. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/session/kept_logits.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "kernels/base/path.h"
#include "replay/commands/commands.h"
#include "replay/probe/changes.h"
#include "replay/probe/probe.h"
#include "replay/probe/report.h"
#include "replay/replay.h"

enum {
    OPT_PREFIX = FKV_NO_LETTER,
    OPT_SCORE,
    OPT_BLOCKS,
    OPT_SEED,
    OPT_FILTER,
    OPT_COMPLEMENT,
    OPT_BANDS,
    OPT_OCTAVES,
    OPT_NOISE,
    OPT_FREQKV,
    OPT_LOCAL,
    OPT_DECOMPOSE,
    OPT_STATES,
    OPT_PER_LAYER,
    OPT_PER_HEAD
};

struct settings {
    struct fkv_replay replay;
    struct fkv_probe_requests requests;
    int64_t prefix, score, blocks, sinks, seed; /* prefix and score 0: the default */
    const char *states;
};

static const char doc[] =
    "What parts of the cache carry: reads P tokens with full attention, changes the cache "
    "once, scores the M tokens after it, restores the cache, and makes the next change.\n\n"
    "Example:\n"
    "  freqkv-replay probe --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
    "      --prefix 512 --score 256 --bands 8 --states key,value --decompose 0.5\n"
    "\v"
    "Bands are fractions of the n = P - S coefficients of the DCT along tokens: 0:0.25 is the "
    "lowest quarter, DC included. Beside every result stands the noise floor: the untouched run "
    "repeated with another block size. The same command goes on where it was "
    "interrupted.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Experiment:", 4},
    {"prefix", OPT_PREFIX, "P", 0, "tokens before the change (default: context / 2)", 4},
    {"score", OPT_SCORE, "M", 0, "tokens scored after it (default: context / 4)", 4},
    {"blocks", OPT_BLOCKS, "B", 0, "at most B windows of each text (default 1)", 4},
    {"sinks", FKV_LETTER_SINKS, "S", 0, "first tokens, never changed (default 4)", 4},
    {"states", OPT_STATES, "LIST", 0, "of filters, noise: key, value, both (the default)", 4},
    {"per-layer", OPT_PER_LAYER, 0, 0, "each change on each layer alone, too", 4},
    {"per-head", OPT_PER_HEAD, 0, 0, "each change on each (layer, KV head) alone, too", 4},
    {"seed", OPT_SEED, "K", 0, "of the noise (default 0)", 4},
    {"out", FKV_LETTER_OUT, "PROBE.h5", 0, "a new file: results per token", 4},
    FKV_DRY_RUN_ROW(4),
    {0, 0, 0, 0, "Changes (each may be repeated):", 5},
    {"filter", OPT_FILTER, "a:b[,c:d...]", 0, "keep these bands only", 5},
    {"complement", OPT_COMPLEMENT, 0, 0, "--filter takes the bands out and keeps the rest", 5},
    {"bands", OPT_BANDS, "K", 0, "take out DC, then each of K equal bands", 5},
    {"octaves", OPT_OCTAVES, "K", 0, "take out DC, then each of K bands of double width", 5},
    {"noise", OPT_NOISE, "a:b:eps", 0, "add noise of eps times the energy without DC", 5},
    {"freqkv", OPT_FREQKV, "G[,G...]", 0, "compress to a share G of the slots as FreqKV does", 5},
    {"local", OPT_LOCAL, "G[,G...]", 0, "drop all but the latest share G of the slots", 5},
    {"decompose", OPT_DECOMPOSE, "G[,G...]", 0, "FreqKV in parts, alone and together", 5},
    {0},
};

static const struct {
    int key;
    enum fkv_probe_option option;
} change_options[] = {
    {OPT_FILTER, FKV_PROBE_OPTION_FILTER},       {OPT_NOISE, FKV_PROBE_OPTION_NOISE},
    {OPT_FREQKV, FKV_PROBE_OPTION_FREQKV},       {OPT_LOCAL, FKV_PROBE_OPTION_LOCAL},
    {OPT_DECOMPOSE, FKV_PROBE_OPTION_DECOMPOSE}, {OPT_BANDS, FKV_PROBE_OPTION_BANDS},
    {OPT_OCTAVES, FKV_PROBE_OPTION_OCTAVES},
};

static const struct {
    int key;
    const char *name;
    int64_t low, high;
    size_t offset;
} numbers[] = {
    {OPT_PREFIX, "--prefix", 2, 1 << 28, offsetof(struct settings, prefix)},
    {OPT_SCORE, "--score", 1, 1 << 28, offsetof(struct settings, score)},
    {OPT_BLOCKS, "--blocks", 1, 1 << 28, offsetof(struct settings, blocks)},
    {FKV_LETTER_SINKS, "--sinks", 0, 1 << 28, offsetof(struct settings, sinks)},
    {OPT_SEED, "--seed", 0, (int64_t)1 << 53, offsetof(struct settings, seed)},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_error err = {0};
    int status = FKV_OK;
    for (size_t i = 0; i < sizeof change_options / sizeof *change_options; i++) {
        if (key != change_options[i].key) continue;
        if (fkv_probe_request(&s->requests, change_options[i].option, arg, &err))
            argp_error(state, "%s", err.message);
        return 0;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t *value = (int64_t *)(void *)((char *)s + numbers[i].offset);
        if (key != numbers[i].key) continue;
        if (fkv_parse_int(arg, numbers[i].name, numbers[i].low, numbers[i].high, value, &err))
            argp_error(state, "%s", err.message);
        return 0;
    }
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &s->replay.options; return 0;
    case OPT_STATES:
        s->states = arg;
        status = fkv_probe_parse_states(&s->requests, arg, &err);
        break;
    case OPT_COMPLEMENT: s->requests.complement = true; break;
    case OPT_PER_LAYER: s->requests.per_layer = true; break;
    case OPT_PER_HEAD: s->requests.per_head = true; break;
    case FKV_LETTER_OUT: s->replay.out = arg; break;
    case FKV_LETTER_DRY_RUN: s->replay.dry_run = true; break;
    case ARGP_KEY_END:
        if (!s->replay.options.text_count && !s->replay.options.token_ids_count)
            argp_error(state, "--text or --token-ids is missing");
        if (s->replay.options.batch > 1)
            argp_error(state, "--batch: a probe runs one text at a time");
        if (!s->requests.count)
            argp_error(state, "no change is asked for: --filter, --bands, --octaves, --noise, "
                              "--freqkv, --local or "
                              "--decompose");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (status) argp_error(state, "%s", err.message);
    return 0;
}

static const struct argp_child children[] = {{&fkv_engine_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

/* ---- before the first token ---- */

static int check_sizes(struct settings *s, const struct fkv_config *config, struct fkv_error *err) {
    if (!s->prefix) s->prefix = config->trained_context / 2;
    if (!s->score) s->score = config->trained_context / 4 ? config->trained_context / 4 : 1;
    if (s->prefix + s->score > config->trained_context)
        return fkv_fail_option(
            err,
            "--prefix %lld and --score %lld: expected at most the trained context of %d together",
            (long long)s->prefix, (long long)s->score, config->trained_context);
    if (s->prefix < s->sinks + 2)
        return fkv_fail_option(
            err, "--prefix: expected at least two tokens more than the %lld sinks, found %lld",
            (long long)s->sinks, (long long)s->prefix);
    return FKV_OK;
}

static int describe(const struct settings *s, struct fkv_probe *p, struct fkv_error *err) {
    const struct fkv_engine *engine = &s->replay.engine;
    const struct fkv_config *c = &engine->model->config;
    *p = (struct fkv_probe){.layers = c->layers,
                            .kv_heads = c->kv_heads,
                            .head_dim = c->head_dim,
                            .trained_context = c->trained_context,
                            .prefix = (int32_t)s->prefix,
                            .score = (int32_t)s->score,
                            .sinks = (int32_t)s->sinks,
                            .seed = s->seed,
                            .noise_floor_nll = NAN,
                            .noise_floor_kl = NAN};
    snprintf(p->model_name, sizeof p->model_name, "%s", engine->model->name);
    snprintf(p->states, sizeof p->states, "%s", s->states);
    snprintf(p->backend, sizeof p->backend, "%s", engine->ops->name);
    snprintf(p->compute, sizeof p->compute, "%s",
             fkv_engine_compute_name(&s->replay.options, engine));
    snprintf(p->kernels, sizeof p->kernels, "%s", engine->device.kernels);
    strcpy(p->config_sha256, c->sha256);
    snprintf(p->adapter, sizeof p->adapter, "%s", engine->model->adapter_name);
    strcpy(p->adapter_sha256, fkv_model_adapter_sha256(engine->model));
    snprintf(p->tokenizer_sha256, sizeof p->tokenizer_sha256, "%s",
             fkv_engine_tokenizer_sha256(engine));
    snprintf(p->cache_dtype, sizeof p->cache_dtype, "%s",
             fkv_dtype_name(fkv_engine_cache_dtype(&s->replay.options, engine)));
    if (!(p->command = strdup(s->replay.command))) return fkv_fail(err, "out of memory");
    return fkv_model_sha256(engine->model, p->model_sha256, err);
}

static int choose_block(const struct fkv_engine *engine, const struct fkv_probe *p,
                        struct fkv_session_options *options, struct fkv_error *err) {
    struct fkv_session_needs needs = {0};
    if (fkv_session_add_needs(engine->model, &fkv_full_attention, options, &needs, err))
        return FKV_FAILED;
    const int64_t snapshot = needs.cache;
    const int64_t kept = fkv_kept_logits_bytes(&engine->model->config, options, p->score);
    return fkv_engine_block(engine, &fkv_full_attention, false, 1, snapshot + kept, options, err);
}

static int check_needs(const struct settings *s, const struct fkv_prober *prober,
                       const struct fkv_probe *p, const struct fkv_session_options *options,
                       struct fkv_needs *needs, struct fkv_error *err) {
    const struct fkv_engine *engine = &s->replay.engine;
    const int64_t windows = prober->window_count;
    int64_t results =
        windows * (2 * (int64_t)p->change_count + 3) * p->score * (int64_t)sizeof(float);
    *needs = (struct fkv_needs){.documents = prober->corpus->document_count,
                                .tokens = prober->corpus->token_count,
                                .fed = windows * fkv_probe_fed(p),
                                .weights = engine->model->weight_bytes,
                                .host = results,
                                .output = s->replay.out};
    if (s->replay.out)
        needs->host += results,
            needs->disk = 2 * results + (1 << 16); /* the file's image; parts and the whole */
    if (fkv_session_add_needs(engine->model, &fkv_full_attention, options, &needs->sessions, err))
        return FKV_FAILED;
    needs->sessions.cache *= 2; /* the snapshot */
    needs->sessions.scratch += fkv_kept_logits_bytes(&engine->model->config, options, p->score);
    FILE *to = fkv_replay_announce(&s->replay);
    if (to)
        fprintf(to, "%" PRId64 " windows, %d changes, %" PRId64 " tokens to feed\n", windows,
                p->change_count, needs->fed);
    return fkv_needs_check(needs, engine, to, err);
}

static int estimate_time(const struct settings *s, struct fkv_prober *prober,
                         const struct fkv_probe *probe, struct fkv_needs *needs,
                         struct fkv_error *err) {
    struct fkv_session *session = prober->session;
    const int32_t block = fkv_session_block(session),
                  rows = s->score < block ? (int32_t)s->score : block;
    if (!fkv_replay_tells_time(&s->replay)) return FKV_OK;
    if (fkv_session_rehearse(session, 1, rows, s->prefix + s->score, FKV_SCORED_WITH_KL,
                             &prober->cost, err))
        return FKV_FAILED;
    needs->seconds = fkv_probe_seconds(probe, &prober->cost) * (double)prober->window_count;
    return fkv_replay_tell_time(&s->replay, needs, err);
}

/* ---- running ---- */

/* The folder of parts goes once the whole is written. */
static void remove_parts(const char *folder, int64_t count) {
    char path[FKV_PATH];
    for (int64_t i = 0; i < count; i++)
        if (!fkv_path_print(path, NULL, "%s/%06lld.h5", folder, (long long)i)) unlink(path);
    rmdir(folder);
}

static int report(const struct settings *s, const struct fkv_probe *probe, struct fkv_error *err) {
    struct fkv_damage damage;
    if (fkv_damage_make(probe, &damage, err)) return FKV_FAILED;
    int status = FKV_OK;
    if (s->replay.options.json)
        status = fkv_json_print(fkv_probe_json(&damage), err);
    else
        fkv_probe_print(&damage);
    fkv_damage_free(&damage);
    return status;
}

static int run(struct settings *s, struct fkv_prober *prober, struct fkv_probe *probe,
               struct fkv_error *err) {
    const struct fkv_replay *r = &s->replay;
    const struct fkv_config *config = &r->engine.model->config;
    struct fkv_session_options options = {.max_tokens = s->prefix + s->score,
                                          .cache_dtype =
                                              fkv_engine_cache_dtype(&r->options, &r->engine),
                                          .biases = true};
    struct fkv_needs needs;
    char parts[FKV_PATH];
    if (choose_block(&r->engine, probe, &options, err) ||
        check_needs(s, prober, probe, &options, &needs, err) ||
        fkv_path_print(parts, err, "%s.parts", r->out ? r->out : ""))
        return FKV_FAILED;
    prober->parts = r->out ? parts : NULL;
    prober->quiet = r->options.quiet;
    if (fkv_replay_session(r, &fkv_full_attention, &options, &prober->session, err))
        return FKV_FAILED;
    fkv_note_changed_beyond(config, probe->prefix, r->options.quiet ? NULL : stderr);
    int status = estimate_time(s, prober, probe, &needs, err);
    if (!status && !r->dry_run) status = fkv_probe_run(prober, probe, err);
    fkv_session_close(prober->session);
    if (r->dry_run) return status;
    if (!status && r->out)
        status = fkv_probe_write(r->out, probe, probe->windows, probe->window_count, err);
    if (!status && r->out) remove_parts(parts, probe->window_count);
    return status ? status : report(s, probe, err);
}

static int prepare_and_run(struct settings *s, struct fkv_error *err) {
    const struct fkv_engine *engine = &s->replay.engine;
    struct fkv_corpus corpus = {0};
    struct fkv_probe probe = {0};
    struct fkv_probe_start *starts = NULL;
    struct fkv_prober prober = {.corpus = &corpus, .bos = fkv_engine_added_bos(engine)};
    int status = FKV_FAILED;
    if (check_sizes(s, &engine->model->config, err) || describe(s, &probe, err) ||
        fkv_probe_list_changes(&s->requests, probe.layers, probe.kv_heads,
                               probe.prefix - probe.sinks, &probe.changes, &probe.change_count,
                               err) ||
        fkv_corpus_read(&s->replay.options, engine, true, 0, &corpus, err) ||
        fkv_probe_find_windows(&corpus, probe.prefix, probe.score, (int32_t)s->blocks, &starts,
                               &prober.window_count, err) ||
        fkv_corpus_classify(&corpus, engine, err))
        goto done;
    prober.starts = starts, prober.token_class = corpus.classes;
    status = run(s, &prober, &probe, err);
done:
    free(starts);
    fkv_probe_free(&probe);
    fkv_corpus_free(&corpus);
    return status;
}

int fkv_command_probe(int argc, char **argv) {
    static struct settings s; /* thousands of paths: too much for a stack */
    struct fkv_error err = {0};
    fkv_replay_default(&s.replay, argc, argv);
    s.blocks = 1, s.sinks = 4, s.states = "both";
    fkv_probe_parse_states(&s.requests, s.states, &err);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = s.replay.out ? fkv_check_new_file(s.replay.out, &err) : FKV_OK;
    if (!status) status = fkv_replay_open(&s.replay, &err);
    if (!status) status = prepare_and_run(&s, &err);
    return fkv_replay_close(&s.replay, "freqkv-replay probe", status, &err);
}
