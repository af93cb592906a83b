/* freqkv-replay generate: one prompt to the terminal as it comes, or a file of prompts to a file of continuations, which appears whole or not at all.
 * A prompt's text is decoded together with its continuation and only what comes after is shown, because sentencepiece tokenizers treat the first word of a
 * text differently. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/atomic_file.h"
#include "kernels/base/json.h"
#include "kernels/base/parse.h"
#include "replay/commands.h"
#include "replay/generate.h"
#include "replay/needs.h"

enum { OPT_PROMPT = 0x1000, OPT_PROMPTS, OPT_OUT, OPT_TOKENS, OPT_TEMPERATURE, OPT_SEED, OPT_DRY_RUN };
enum { BLOCK = 512 }; /* most tokens of a feed, all prompts together, where no more run side by side */

struct settings {
    struct fkv_engine_options engine;
    struct fkv_policy_options policy;
    const char *prompt, *prompts, *out;
    int64_t tokens, seed;
    double temperature;
    bool dry_run;
};

struct prompt {
    json_t *id; /* as the file has it; NULL without one */
    char *text;
    int32_t *tokens;
    size_t count;
};

struct prompts {
    struct prompt *all;
    size_t count;
    size_t longest; /* in tokens */
};

static const char doc[] = "Continues prompts under a cache policy."
                          "\v"
                          "Prompts are fed in blocks, then tokens are decoded one by one until --tokens\n"
                          "or EOS; --batch B decodes B prompts side by side. A seed gives a prompt the\n"
                          "same continuation every time, whatever other prompts stand in the file and\n"
                          "run beside it: the generator (splitmix64) starts anew for each. (The batch\n"
                          "changes logits by their rounding, as the block does.)\n"
                          "\n"
                          "Examples:\n"
                          "  freqkv-replay generate --model data/litbank-1m --prompt 'The captain' \\\n"
                          "      --policy freqkv --window 64 --tokens 100\n"
                          "  freqkv-replay generate --model data/litbank-1m --prompts in.jsonl \\\n"
                          "      --out out.jsonl --temperature 0.8 --seed 1\n"
                          "\n"
                          "IN.jsonl has a field \"prompt\" per line and may have an \"id\". Each line of\n"
                          "OUT.jsonl, and the object that --json prints without --out, has: id (where there\n"
                          "was one), prompt, text (the continuation), token_ids, prompt_tokens, tokens\n"
                          "(generated), stopped (\"eos\" or \"length\"), policy, window, gamma, seed,\n"
                          "temperature. With --out, --json prints out, prompts (how many), prompt_tokens,\n"
                          "tokens, prefill_tokens_per_s, decode_tokens_per_s; with --dry-run documents (the\n"
                          "prompts), tokens (theirs), tokens_fed, disk_bytes, disk_free, memory_bytes,\n"
                          "memory_available, device_bytes, device_free, weight_bytes, seconds.";

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Generation:", 5},
    {"prompt", OPT_PROMPT, "TEXT", 0, "continue this text and print what comes", 5},
    {"prompts", OPT_PROMPTS, "IN.jsonl", 0, "continue every line's field \"prompt\"", 5},
    {"out", OPT_OUT, "OUT.jsonl", 0, "write one line per prompt; must not exist", 5},
    {"tokens", OPT_TOKENS, "T", 0, "most tokens to generate per prompt (default 128)", 5},
    {"temperature", OPT_TEMPERATURE, "t", 0, "0 (default): always the most likely token", 5},
    {"seed", OPT_SEED, "s", 0, "of the sampling (default 0)", 5},
    {"dry-run", OPT_DRY_RUN, 0, 0, "only print what the run would need", 5},
    {0},
};

static void check_options(const struct settings *s, struct argp_state *state) {
    if (s->engine.text_count || s->engine.token_ids_count)
        argp_error(state, "generate reads --prompt or --prompts, not --text or --token-ids");
    if (!s->prompt == !s->prompts) argp_error(state, "give --prompt or --prompts");
    if (s->prompts && !s->out) argp_error(state, "--prompts needs --out");
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_error err = {0};
    int status = FKV_OK;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->engine;
        state->child_inputs[1] = &s->policy;
        return 0;
    case OPT_PROMPT: s->prompt = arg; return 0;
    case OPT_PROMPTS: s->prompts = arg; return 0;
    case OPT_OUT: s->out = arg; return 0;
    case OPT_DRY_RUN: s->dry_run = true; return 0;
    case OPT_TOKENS: status = fkv_parse_int(arg, "--tokens", 1, 1 << 30, &s->tokens, &err); break;
    case OPT_TEMPERATURE: status = fkv_parse_double(arg, "--temperature", 0, 1000, &s->temperature, &err); break;
    case OPT_SEED: status = fkv_parse_int(arg, "--seed", 0, INT64_MAX, &s->seed, &err); break;
    case ARGP_KEY_END: check_options(s, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (status) argp_error(state, "%s", err.message);
    return 0;
}

static const struct argp_child children[] = {
    {&fkv_engine_argp, 0, NULL, 0}, {&fkv_policy_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

/* ---- prompts ---- */

static void free_prompts(struct prompts *p) {
    for (size_t i = 0; i < p->count; i++) {
        json_decref(p->all[i].id);
        free(p->all[i].text);
        free(p->all[i].tokens);
    }
    free(p->all);
}

static int add_prompt(struct prompts *p, const struct fkv_engine *engine, const char *text, json_t *id,
                      const char *where, struct fkv_error *err) {
    struct prompt *larger = realloc(p->all, (p->count + 1) * sizeof *larger);
    if (!larger) return fkv_fail(err, "%s: out of memory", where);
    p->all = larger;
    struct prompt *prompt = &p->all[p->count++];
    *prompt = (struct prompt){.id = json_incref(id), .text = strdup(text)};
    if (!prompt->text) return fkv_fail(err, "%s: out of memory", where);
    if (fkv_tokenizer_encode(engine->tokenizer, text, strlen(text), true, &prompt->tokens, &prompt->count, err))
        return fkv_error_prefix(err, "%s", where);
    if (!prompt->count) return fkv_fail(err, "%s: the prompt has no tokens", where);
    for (size_t i = 0; i < prompt->count; i++)
        if (prompt->tokens[i] >= engine->model->config.vocab)
            return fkv_fail(err, "%s: token %zu: expected an id below the model's %d, found %d", where, i,
                            engine->model->config.vocab, prompt->tokens[i]);
    if (prompt->count > p->longest) p->longest = prompt->count;
    return FKV_OK;
}

static int add_line(struct prompts *p, const struct fkv_engine *engine, const char *line, size_t bytes,
                    const char *where, struct fkv_error *err) {
    const char *text;
    json_t *row = fkv_json_parse(line, bytes, where, err);
    if (!row) return FKV_FAILED;
    int status = json_is_object(row) ? fkv_json_get_string(row, where, "prompt", true, &text, err)
                                     : fkv_fail(err, "%s: expected an object with a field \"prompt\"", where);
    if (!status) status = add_prompt(p, engine, text, json_object_get(row, "id"), where, err);
    json_decref(row);
    return status;
}

static int read_prompts(const struct settings *s, const struct fkv_engine *engine, struct prompts *p,
                        struct fkv_error *err) {
    if (s->prompt) return add_prompt(p, engine, s->prompt, NULL, "--prompt", err);
    char *data, where[512];
    size_t bytes;
    if (fkv_read_file(s->prompts, (size_t)1 << 32, &data, &bytes, err)) return FKV_FAILED;
    int status = FKV_OK, line = 0;
    for (char *at = data, *end = data + bytes, *next; at < end && !status; at = next) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        next = newline ? newline + 1 : end;
        fkv_print_short(where, sizeof where, "%s:%d", s->prompts, ++line);
        if (strspn(at, " \t\r") < length) status = add_line(p, engine, at, length, where, err);
    }
    free(data);
    if (!status && !p->count) status = fkv_fail(err, "%s: no prompts", s->prompts);
    return status;
}

/* ---- what comes out ---- */

struct console {
    const struct fkv_tokenizer *tokenizer;
    const struct prompt *prompt;
    size_t shown; /* bytes of the continuation already printed */
};

/* Bytes of a UTF-8 text without a last character that is not complete yet. */
static size_t complete_bytes(const char *text, size_t bytes) {
    for (size_t back = 1; back <= 4 && back <= bytes; back++) {
        unsigned char c = (unsigned char)text[bytes - back];
        if ((c & 0xc0) == 0x80) continue;
        size_t length = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return length > back ? bytes - back : bytes;
    }
    return bytes;
}

/* The text that follows the prompt's, malloc'd. */
static int continuation(const struct fkv_tokenizer *tokenizer, const struct prompt *prompt,
                        const struct fkv_generation *g, char **text, size_t *bytes, struct fkv_error *err) {
    size_t count = prompt->count + (size_t)g->count, before;
    int32_t *ids = malloc(count * sizeof *ids);
    if (!ids) return fkv_fail(err, "out of memory for %zu tokens", count);
    memcpy(ids, prompt->tokens, prompt->count * sizeof *ids);
    if (g->count) memcpy(ids + prompt->count, g->ids, (size_t)g->count * sizeof *ids);
    int status = fkv_tokenizer_decode(tokenizer, ids, prompt->count, text, &before, err);
    if (!status) {
        free(*text);
        status = fkv_tokenizer_decode(tokenizer, ids, count, text, bytes, err);
    }
    free(ids);
    if (status) return FKV_FAILED;
    if (before > *bytes) before = *bytes;
    *bytes -= before;
    memmove(*text, *text + before, *bytes + 1);
    return FKV_OK;
}

static int show(void *context, const struct fkv_generation *g, struct fkv_error *err) {
    struct console *c = context;
    char *text;
    size_t bytes;
    if (continuation(c->tokenizer, c->prompt, g, &text, &bytes, err)) return FKV_FAILED;
    size_t complete = complete_bytes(text, bytes);
    if (complete > c->shown) {
        fwrite(text + c->shown, 1, complete - c->shown, stdout);
        fflush(stdout);
        c->shown = complete;
    }
    free(text);
    return ferror(stdout) ? fkv_fail_errno(err, "standard output") : FKV_OK;
}

/* A new reference; NULL and a message. */
static json_t *result_json(const struct settings *s, const struct fkv_engine *engine,
                           const struct fkv_policy_setup *setup, const struct prompt *prompt,
                           const struct fkv_generation *g, struct fkv_error *err) {
    char *text;
    size_t bytes;
    if (continuation(engine->tokenizer, prompt, g, &text, &bytes, err)) return NULL;
    bytes = complete_bytes(text, bytes);
    json_t *o = json_object(), *ids = json_array(), *string = json_stringn(text, bytes);
    free(text);
    for (int64_t i = 0; i < g->count; i++) json_array_append_new(ids, json_integer(g->ids[i]));
    if (prompt->id) json_object_set(o, "id", prompt->id);
    json_object_set_new(o, "prompt", json_string(prompt->text));
    json_object_set_new(o, "text", string ? string : json_null()); /* bytes that are no UTF-8: token_ids has them */
    json_object_set_new(o, "token_ids", ids);
    json_object_set_new(o, "prompt_tokens", json_integer((json_int_t)prompt->count));
    json_object_set_new(o, "tokens", json_integer(g->count));
    json_object_set_new(o, "stopped", json_string(g->ended ? "eos" : "length"));
    json_object_set_new(o, "policy", json_string(setup->policy->name));
    json_object_set_new(o, "window", setup->policy->has_window ? json_integer(setup->window) : json_null());
    json_object_set_new(o, "gamma", fkv_json_number(setup->gamma));
    json_object_set_new(o, "seed", json_integer(s->seed));
    json_object_set_new(o, "temperature", fkv_json_number(s->temperature));
    return o;
}

/* ---- running ---- */

static int write_line(const struct settings *s, json_t *line, FILE *out, struct fkv_error *err) {
    int status = FKV_OK;
    if (json_dumpf(line, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) || putc('\n', out) == EOF)
        status = fkv_fail_errno(err, "%s", s->out);
    json_decref(line);
    return status;
}

/* Every continuation, in the order of the prompts: to the file, or as the one object. */
static int write_results(const struct settings *s, const struct fkv_engine *engine,
                         const struct fkv_policy_setup *setup, const struct prompts *p,
                         const struct fkv_generation *generations, struct fkv_error *err) {
    struct fkv_atomic_file file = {0};
    int status = s->out ? fkv_atomic_open(&file, s->out, err) : FKV_OK;
    for (size_t i = 0; i < p->count && !status; i++) {
        json_t *line = result_json(s, engine, setup, &p->all[i], &generations[i], err);
        if (!line)
            status = FKV_FAILED;
        else
            status = s->out ? write_line(s, line, file.stream, err) : fkv_json_print(line, err);
    }
    if (!status && s->out) return fkv_atomic_commit(&file, err);
    if (s->out) fkv_atomic_abandon(&file);
    return status;
}

/* On stderr; and of a file, as the result. */
static int print_summary(const struct settings *s, const struct prompts *p, const struct fkv_generation *generations,
                         const struct fkv_generation_times *times, struct fkv_error *err) {
    int64_t fed = 0, generated = 0;
    for (size_t i = 0; i < p->count; i++) {
        fed += generations[i].prompt_count;
        generated += generations[i].count;
    }
    const double prefill = (double)fed / times->prefill_seconds, decode = (double)generated / times->decode_seconds;
    if (!s->engine.quiet)
        fprintf(stderr, "prefill %" PRId64 " tokens, %.1f tokens/s; generated %" PRId64 " tokens, %.1f tokens/s\n", fed,
                prefill, generated, decode);
    if (!s->out || !s->engine.json) {
        if (s->out) printf("%s: %zu prompts continued, %" PRId64 " tokens\n", s->out, p->count, generated);
        return FKV_OK;
    }
    return fkv_json_print(json_pack("{s:o, s:I, s:I, s:I, s:o, s:o}", "out", fkv_json_string(s->out), "prompts",
                                    (json_int_t)p->count, "prompt_tokens", (json_int_t)fed, "tokens",
                                    (json_int_t)generated, "prefill_tokens_per_s", fkv_json_number(prefill),
                                    "decode_tokens_per_s", fkv_json_number(decode)),
                          err);
}

static int run_prompts(const struct settings *s, const struct fkv_engine *engine, struct fkv_session *session,
                       const struct fkv_session_options *options, const struct prompts *p, struct fkv_error *err) {
    struct console console = {.tokenizer = engine->tokenizer, .prompt = &p->all[0]};
    const bool live = !s->out && !s->engine.json;
    const struct fkv_generation_options how = {.tokens = s->tokens,
                                               .temperature = s->temperature,
                                               .seed = (uint64_t)s->seed,
                                               .lanes = options->sequences,
                                               .block = options->block,
                                               .quiet = s->engine.quiet,
                                               .watch = live ? show : NULL,
                                               .context = &console};
    struct fkv_generation_times times;
    struct fkv_generation *generations = calloc(p->count, sizeof *generations);
    if (!generations) return fkv_fail(err, "out of memory for %zu prompts", p->count);
    for (size_t i = 0; i < p->count; i++)
        generations[i] = (struct fkv_generation){.prompt = p->all[i].tokens, .prompt_count = (int64_t)p->all[i].count};
    int status = fkv_generate(session, generations, (int64_t)p->count, &how, &times, err);
    if (status && s->prompts) fkv_error_prefix(err, "%s", s->prompts);
    if (live) putchar('\n');
    if (!status && !live) status = write_results(s, engine, fkv_session_setup(session), p, generations, err);
    if (!status) status = print_summary(s, p, generations, &times, err);
    for (size_t i = 0; i < p->count; i++) fkv_generation_free(&generations[i]);
    free(generations);
    return status;
}

static int check_needs(const struct settings *s, const struct fkv_engine *engine, const struct prompts *p,
                       const struct fkv_session_options *options, struct fkv_needs *needs, struct fkv_error *err) {
    const int64_t count = (int64_t)p->count, line = 512; /* bytes of a continuation's line, without its tokens */
    *needs = (struct fkv_needs){.documents = count,
                                .weights = engine->model->weight_bytes,
                                .host = options->sequences * (int64_t)sizeof(float) * engine->model->config.vocab,
                                .output = s->out};
    for (size_t i = 0; i < p->count; i++) needs->tokens += (int64_t)p->all[i].count;
    needs->fed = needs->tokens + count * (s->tokens - 1); /* the last one is not fed */
    if (s->out) needs->disk = count * (line + 16 * s->tokens) + 8 * needs->tokens;
    if (fkv_needs_session(needs, engine, &s->policy, options, err)) return FKV_FAILED;
    FILE *to = fkv_needs_stream(&s->engine, s->dry_run);
    if (to)
        fprintf(to, "%" PRId64 " prompts, %" PRId64 " tokens; at most %" PRId64 " tokens to generate\n", count,
                needs->tokens, count * s->tokens);
    return fkv_needs_check(needs, engine, to, err);
}

/* Prompts go in blocks, what is generated one by one. */
static int estimate_time(const struct settings *s, struct fkv_session *session,
                         const struct fkv_session_options *options, const struct prompts *p, struct fkv_needs *needs,
                         struct fkv_error *err) {
    int64_t rows = p->longest < 64 ? (int64_t)p->longest : 64,
            steps = options->max_tokens < 8 ? options->max_tokens : 8;
    if (s->engine.quiet && !s->dry_run) return FKV_OK;
    if (rows > options->block / options->sequences) rows = options->block / options->sequences;
    if (fkv_needs_time(needs, session, options->sequences, (int32_t)rows, 1, needs->tokens, err) ||
        fkv_needs_time(needs, session, options->sequences, 1, (int32_t)steps, (int64_t)p->count * s->tokens, err))
        return FKV_FAILED;
    fkv_needs_print_time(needs, fkv_needs_stream(&s->engine, s->dry_run));
    return s->dry_run && s->engine.json ? fkv_json_print(fkv_needs_json(needs), err) : FKV_OK;
}

static int run(const struct settings *s, const struct fkv_engine *engine, const struct prompts *p,
               struct fkv_error *err) {
    const int32_t lanes = (int64_t)p->count < s->engine.batch ? (int32_t)p->count : s->engine.batch;
    struct fkv_session_options options = {.block = lanes > BLOCK ? lanes : BLOCK,
                                          .sequences = lanes,
                                          .max_tokens = (int64_t)p->longest + s->tokens,
                                          .cache_dtype = fkv_engine_cache_dtype(&s->engine, engine)};
    struct fkv_session *session;
    struct fkv_needs needs;
    if (check_needs(s, engine, p, &options, &needs, err) ||
        fkv_session_open(engine->model, &s->policy, &options, &session, err))
        return FKV_FAILED;
    const struct fkv_policy_setup *setup = fkv_session_setup(session);
    int32_t context = engine->model->config.trained_context;
    if (!s->engine.quiet && (setup->policy->has_window ? setup->window > context : options.max_tokens > context))
        fprintf(stderr, "warning: positions may pass the trained context of %d\n", context);
    int status = estimate_time(s, session, &options, p, &needs, err);
    if (!status && !s->dry_run) status = run_prompts(s, engine, session, &options, p, err);
    fkv_session_close(session);
    return status;
}

int fkv_command_generate(int argc, char **argv) {
    static struct settings s = {.tokens = 128}; /* thousands of paths: too much for a stack */
    struct fkv_error err = {0};
    struct fkv_engine engine = {0};
    struct prompts p = {0};
    fkv_engine_options_default(&s.engine);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = s.out ? fkv_check_new_file(s.out, &err) : FKV_OK;
    if (!status) status = fkv_engine_open(&s.engine, &engine, &err);
    if (!status) status = read_prompts(&s, &engine, &p, &err);
    if (!status) status = run(&s, &engine, &p, &err);
    free_prompts(&p);
    fkv_engine_close(&engine);
    return status ? fkv_tool_failed("freqkv-replay generate", &err) : 0;
}
