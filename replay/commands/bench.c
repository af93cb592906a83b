/* freqkv-replay bench: what prefill and decoding take under several cache policies, over lengths.
 *
 * A length is measured with all policies in turns, `repeats` times, so that a machine that becomes
 * slow becomes so for all of them; then its rows are written. Each measurement has a session of its
 * own, one at a time: what is needed is what the largest needs. The same command goes on after the
 * last whole row of BENCH.csv. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "kernels/base/progress.h"
#include "kernels/statistics/random.h"
#include "replay/bench/rows.h"
#include "replay/commands/commands.h"
#include "replay/corpus.h"
#include "replay/identity.h"
#include "replay/policy_list.h"

enum { OPT_LENGTHS = FKV_NO_LETTER, OPT_POLICIES, OPT_DECODE, OPT_REPEATS, OPT_SEED };
enum { MOST_REPEATS = 1000 };

struct settings {
    struct fkv_replay replay;
    struct fkv_policy_list list;
    double *lengths; /* [length_count], ascending; owned */
    int length_count;
    int32_t decoded, repeats;
    int64_t seed;
    const char *policies;
};

static const char doc[] =
    "Times prefill and decoding under cache policies, over lengths, and counts their bytes.\n\n"
    "Examples:\n"
    "  freqkv-replay bench --model data/litbank-1m --lengths 256,512,1024 \\\n"
    "      --window 256 --policies full,local,freqkv:gamma=0.25 --out bench.csv\n"
    "  freqkv-analyze plot bench.csv --out figures\n"
    "\v"
    "Tokens are random ids unless --text or --token-ids is given. The last D tokens of a length "
    "are "
    "decoded one at a time; the others are the prefill. Numbers are medians over repeats, which "
    "take turns over policies. The same command, started again, goes on after the last whole "
    "row.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Measurement:", 5},
    {"lengths", OPT_LENGTHS, "T,...|a:b:c", 0, "tokens, decoded ones included", 5},
    {"policies", OPT_POLICIES, "LIST", 0,
     "as full,freqkv:gamma=0.25:recent=128,snapkv:budget=512 (default full,freqkv)", 5},
    {"window", FKV_LETTER_WINDOW, "N", 0, "cache slots with sinks (default: trained context)", 5},
    {"sinks", FKV_LETTER_SINKS, "S", 0, "first tokens, never compressed (default 4)", 5},
    {"gamma", FKV_LETTER_GAMMA, "G", 0, "ratio of those that take one (default 0.5)", 5},
    {"decode", OPT_DECODE, "D", 0, "tokens decoded at the end of a length (default 64)", 5},
    {"repeats", OPT_REPEATS, "K", 0, "measurements of each (default 3)", 5},
    {"seed", OPT_SEED, "s", 0, "of random ids (default 0)", 5},
    {"out", FKV_LETTER_OUT, "BENCH.csv", 0, "a row per length and policy; goes on where it stopped",
     5},
    FKV_DRY_RUN_ROW(5),
    {0},
};

static int by_size(const void *left, const void *right) {
    const double *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

static void check_options(struct settings *s, struct argp_state *state) {
    struct fkv_error err = {0};
    if (!s->length_count) argp_error(state, "--lengths is missing");
    if (s->replay.options.batch > 1)
        argp_error(state, "--batch: bench runs one sequence at a time");
    qsort(s->lengths, (size_t)s->length_count, sizeof *s->lengths, by_size);
    for (int i = 0; i < s->length_count; i++) {
        if (!(s->lengths[i] >= s->decoded + 2 && s->lengths[i] <= 1 << 30) ||
            s->lengths[i] != floor(s->lengths[i]))
            argp_error(state,
                       "--lengths: expected whole numbers from %d (two of prefill and --decode) to "
                       "%d, found %.10g",
                       s->decoded + 2, 1 << 30, s->lengths[i]);
        if (i && s->lengths[i] == s->lengths[i - 1])
            argp_error(state, "--lengths: expected each once, found %.0f twice", s->lengths[i]);
    }
    if (fkv_policy_list_parse(s->policies, &s->replay.policy, &s->list, &err))
        argp_error(state, "%s", err.message);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_error err;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &s->replay.options; return 0;
    case OPT_LENGTHS:
        free(s->lengths);
        if (fkv_parse_range(arg, "--lengths", &s->lengths, &s->length_count, &err))
            argp_error(state, "%s", err.message);
        return 0;
    case OPT_POLICIES: s->policies = arg; return 0;
    case FKV_LETTER_WINDOW:
        s->replay.policy.window = (int32_t)fkv_integer_option(state, arg, "--window", 1, 1 << 28);
        return 0;
    case FKV_LETTER_SINKS:
        s->replay.policy.sinks = (int32_t)fkv_integer_option(state, arg, "--sinks", 0, 1 << 28);
        return 0;
    case FKV_LETTER_GAMMA: s->replay.policy.gamma = arg; return 0;
    case OPT_DECODE:
        s->decoded = (int32_t)fkv_integer_option(state, arg, "--decode", 1, 1 << 24);
        return 0;
    case OPT_REPEATS:
        s->repeats = (int32_t)fkv_integer_option(state, arg, "--repeats", 1, MOST_REPEATS);
        return 0;
    case OPT_SEED: s->seed = fkv_integer_option(state, arg, "--seed", 0, INT32_MAX); return 0;
    case FKV_LETTER_OUT: s->replay.out = arg; return 0;
    case FKV_LETTER_DRY_RUN: s->replay.dry_run = true; return 0;
    case ARGP_KEY_END: check_options(s, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&fkv_engine_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

/* ---- rows ---- */

struct job {
    struct settings *s;
    const struct fkv_replay *replay; /* of the settings */
    char machine[FKV_BENCH_MACHINE]; /* as rows say it */
    struct fkv_corpus corpus;        /* of texts; owned */
    int32_t *tokens;                 /* [longest]; owned */
    int64_t longest;
    struct fkv_policy_setup *setups; /* [policies]; owned */
    struct fkv_bench_row *rows;      /* [count], by length, then policy; owned */
    int64_t count;
    struct fkv_bench_times *times; /* [policies, repeats] of a length; owned */
    struct fkv_lines_found found;  /* of BENCH.csv */
    int64_t first;                 /* row that is not there yet */
    struct fkv_cost prefill, step; /* what tokens take there */
};

/* The policy of a row, as it is measured. */
static struct fkv_policy_options policy_of(const struct job *job, int64_t row) {
    struct fkv_policy_options policy = job->s->list.options[row % job->s->list.count];
    policy.prefill_block = (int32_t)fkv_bench_block(job->rows[row].length, job->s->decoded);
    return policy;
}

/* Names the rows and checks the setting of each. */
static int make_rows(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const int policies = s->list.count;
    job->count = (int64_t)s->length_count * policies;
    job->setups = calloc((size_t)policies, sizeof *job->setups);
    job->rows = calloc((size_t)job->count, sizeof *job->rows);
    job->times = calloc((size_t)policies * (size_t)s->repeats, sizeof *job->times);
    if (!job->setups || !job->rows || !job->times)
        return fkv_fail(err, "out of memory for %" PRId64 " rows", job->count);
    for (int64_t i = 0; i < job->count; i++) {
        struct fkv_policy_setup *setup = &job->setups[i % policies];
        job->rows[i] = (struct fkv_bench_row){.setup = setup,
                                              .model = job->replay->engine.model->name,
                                              .machine = job->machine,
                                              .length = (int64_t)s->lengths[i / policies],
                                              .decoded = s->decoded,
                                              .repeats = s->repeats};
        const struct fkv_policy_options policy = policy_of(job, i);
        fkv_policy_setup_free(setup); /* that of the length before; the longest one's stays */
        if (fkv_policy_setup(&policy, &job->replay->engine.model->config, job->rows[i].length,
                             setup, err))
            return fkv_error_prefix(err, "--policies: %s, length %" PRId64,
                                    s->list.names[i % policies], job->rows[i].length);
    }
    return FKV_OK;
}

static int make_tokens(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const bool texts = s->replay.options.text_count || s->replay.options.token_ids_count;
    const int32_t vocab = job->replay->engine.model->config.vocab;
    struct fkv_random random = {(uint64_t)s->seed};
    job->longest = (int64_t)s->lengths[s->length_count - 1];
    job->tokens = malloc((size_t)job->longest * sizeof *job->tokens);
    if (!job->tokens) return fkv_fail(err, "out of memory for %" PRId64 " tokens", job->longest);
    for (int64_t i = 0; i < job->longest && !texts; i++)
        job->tokens[i] = (int32_t)fkv_random_below(&random, (uint64_t)vocab);
    if (!texts) return FKV_OK;
    if (fkv_corpus_read(&s->replay.options, &s->replay.engine, true, job->longest, &job->corpus,
                        err))
        return FKV_FAILED;
    if (job->corpus.token_count < job->longest)
        return fkv_fail(err,
                        "--lengths: expected texts of at least %" PRId64 " tokens, found %" PRId64,
                        job->longest, job->corpus.token_count);
    memcpy(job->tokens, job->corpus.tokens, (size_t)job->longest * sizeof *job->tokens);
    return FKV_OK;
}

/* ---- BENCH.csv ---- */

/* What made the rows, a new reference. Tokens count as their ids. */
static json_t *identity_of(const struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_identity identity = {
        .format = "freqkv-bench", .replay = job->replay, .batch = 1};
    fkv_sha256_hex tokens;
    if (fkv_sha256_memory(job->tokens, (size_t)job->longest * sizeof *job->tokens, tokens, err))
        return NULL;
    json_t *o = fkv_identity_json(&identity, err), *policies = json_array(),
           *lengths = json_array();
    for (int i = 0; i < s->list.count; i++)
        json_array_append_new(policies, fkv_identity_policy_json(&job->setups[i]));
    for (int i = 0; i < s->length_count; i++)
        json_array_append_new(lengths, json_integer((json_int_t)s->lengths[i]));
    json_object_set_new(o, "policies", policies);
    json_object_set_new(o, "lengths", lengths);
    json_object_set_new(o, "tokens_sha256", json_string(tokens));
    json_object_set_new(o, "decoded", json_integer(s->decoded));
    json_object_set_new(o, "repeats", json_integer(s->repeats));
    json_object_set_new(o, "machine", fkv_json_string(job->machine));
    return o;
}

/* Takes over what an earlier run left of BENCH.csv. */
static int look_up(struct job *job, const json_t *identity, struct fkv_error *err) {
    const char *path = job->replay->out;
    FILE *f;
    if (fkv_lines_find(path, identity, &f, err)) return FKV_FAILED;
    if (!f) return FKV_OK;
    int status = fkv_bench_rows_read(f, path, job->rows, job->count, &job->found, err);
    fclose(f);
    job->first = job->found.lines ? job->found.lines - 1 : 0;
    if (!status && !job->replay->options.quiet && job->found.bytes)
        fprintf(stderr, "%s: %" PRId64 " of %" PRId64 " rows are done%s\n", path, job->first,
                job->count, job->found.torn ? "; a row that is not whole is dropped" : "");
    return status;
}

/* ---- needs ---- */

/* What a user should know of windows and lengths. */
static void note_context(const struct job *job, FILE *to) {
    const struct settings *s = job->s;
    const struct fkv_config *config = &job->replay->engine.model->config;
    for (int i = 0; i < s->list.count; i++) {
        const struct fkv_policy_setup *setup = &job->setups[i];
        if (setup->policy->takes_window && job->longest <= setup->window)
            fprintf(to,
                    "note: no length is above the window of %d slots: policy %s will do nothing\n",
                    setup->window, s->list.names[i]);
        fkv_policy_note_left_alone(setup, config, to);
    }
    if (job->longest > config->trained_context)
        fprintf(to,
                "note: lengths reach past the trained context of %d tokens: times say nothing of "
                "what the model is worth there\n",
                config->trained_context);
}

/* The session that needs most, of the rows that are left. */
static int find_most_needed(const struct job *job, struct fkv_session_needs *most,
                            struct fkv_error *err) {
    for (int64_t i = job->first; i < job->count; i++) {
        struct fkv_session_needs one = {0};
        struct fkv_session_options options;
        const struct fkv_policy_options policy = policy_of(job, i);
        if (fkv_replay_session_options(job->replay, &policy, 1, job->rows[i].length, &options,
                                       err) ||
            fkv_session_add_needs(job->replay->engine.model, &policy, &options, &one, err))
            return FKV_FAILED;
        if (fkv_session_needs_bytes(&one) > fkv_session_needs_bytes(most)) *most = one;
    }
    return FKV_OK;
}

static int check_needs(const struct job *job, struct fkv_needs *needs, struct fkv_error *err) {
    const struct settings *s = job->s;
    const int row = 256; /* bytes of a row, about */
    const int64_t left = job->count - job->first;
    *needs = (struct fkv_needs){.documents = job->corpus.document_count,
                                .tokens = job->longest,
                                .weights = job->replay->engine.model->weight_bytes,
                                .host = job->longest * (int64_t)sizeof *job->tokens +
                                        job->corpus.token_count * (int64_t)sizeof *job->tokens,
                                .disk = s->replay.out ? left * row : 0,
                                .output = s->replay.out};
    for (int64_t i = job->first; i < job->count; i++)
        needs->fed += s->repeats * job->rows[i].length;
    if (find_most_needed(job, &needs->sessions, err)) return FKV_FAILED;
    FILE *to = fkv_replay_announce(job->replay);
    if (to) {
        fprintf(to, "%" PRId64 " row%s%s of %d measurement%s, %" PRId64 " tokens to feed\n", left,
                left == 1 ? "" : "s", job->first ? " left" : "", s->repeats,
                s->repeats == 1 ? "" : "s", needs->fed);
        note_context(job, to);
    }
    return fkv_needs_check(needs, &job->replay->engine, to, err);
}

/* Of one measurement of a row. */
static double seconds_of(const struct job *job, int64_t i) {
    const struct fkv_bench_row *row = &job->rows[i];
    const double prefill = (double)(row->length - row->decoded),
                 before = fkv_policy_slots(row->setup, row->length - row->decoded);
    return fkv_cost_seconds(&job->prefill, prefill, before) +
           fkv_cost_seconds(&job->step, row->decoded,
                            fkv_policy_slots(row->setup, row->length) - before);
}

/* Rehearses the last row, a block and a step; the others take as long by their tokens and slots. */
static int estimate_time(struct job *job, struct fkv_needs *needs, struct fkv_error *err) {
    const struct settings *s = job->s;
    const int64_t last = job->count - s->list.count; /* the longest with the first policy */
    const struct fkv_policy_options policy = policy_of(job, last);
    struct fkv_session_options options;
    struct fkv_session *session;
    if (!fkv_replay_tells_time(job->replay)) return FKV_OK;
    if (fkv_replay_session_options(job->replay, &policy, 1, job->longest, &options, err) ||
        fkv_replay_session(job->replay, &policy, &options, &session, err))
        return FKV_FAILED;
    int status = fkv_session_rehearse(session, 1, fkv_session_block(session), job->longest,
                                      FKV_NOT_SCORED, &job->prefill, err);
    if (!status)
        status = fkv_session_rehearse(session, 1, 1, job->longest, FKV_SCORED, &job->step, err);
    fkv_session_close(session);
    if (status) return FKV_FAILED;
    for (int64_t i = job->first; i < job->count; i++)
        needs->seconds += s->repeats * seconds_of(job, i);
    return fkv_replay_tell_time(job->replay, needs, err);
}

/* ---- running ---- */

static int measure(struct job *job, int64_t i, struct fkv_bench_times *times,
                   struct fkv_error *err) {
    const struct fkv_policy_options policy = policy_of(job, i);
    const struct fkv_bench_task task = {job->tokens, job->rows[i].length, job->s->decoded};
    struct fkv_session_options options;
    struct fkv_session *session;
    if (fkv_replay_session_options(job->replay, &policy, 1, job->rows[i].length, &options, err) ||
        fkv_session_open(job->replay->engine.model, &policy, &options, &session, err))
        return FKV_FAILED;
    int status = fkv_bench_measure(session, &task, times, err);
    fkv_session_close(session);
    return status ? fkv_error_prefix(err, "%s, length %" PRId64,
                                     job->s->list.names[i % job->s->list.count], task.length)
                  : FKV_OK;
}

/* Measures rows [from, to), of one length, in turns. */
static int measure_length(struct job *job, int64_t from, int64_t to, struct fkv_progress *progress,
                          double *done, struct fkv_error *err) {
    const int32_t repeats = job->s->repeats;
    for (int32_t k = 0; k < repeats; k++)
        for (int64_t i = from; i < to; i++) {
            if (measure(job, i, &job->times[(i - from) * repeats + k], err)) return FKV_FAILED;
            *done += seconds_of(job, i);
            fkv_progress_update_work(progress,
                                     (from - job->first) * repeats + k * (to - from) + i - from + 1,
                                     *done, job->s->list.names[i % job->s->list.count]);
        }
    for (int64_t i = from; i < to; i++)
        if (fkv_bench_row_fill(&job->rows[i], &job->times[(i - from) * repeats], err))
            return FKV_FAILED;
    return FKV_OK;
}

static int run_rows(struct job *job, const json_t *identity, const struct fkv_needs *needs,
                    struct fkv_error *err) {
    const struct settings *s = job->s;
    const int policies = s->list.count;
    struct fkv_lines_file *file = NULL;
    struct fkv_progress progress;
    double done = 0;
    int status = FKV_OK;
    if (job->replay->out)
        status = fkv_lines_open(job->replay->out, identity, job->found.bytes, job->found.torn,
                                &file, err);
    if (!status && file && !job->found.lines)
        status = fkv_lines_append_printed(file, fkv_bench_print_line, job->rows, -1, err);
    fkv_progress_start(&progress, "runs", (job->count - job->first) * s->repeats,
                       job->replay->options.quiet);
    fkv_progress_weigh(&progress, needs->seconds);
    for (int64_t from = job->first, to; from < job->count && !status; from = to) {
        to = (from / policies + 1) * policies;
        status = measure_length(job, from, to, &progress, &done, err);
        for (int64_t i = from; i < to && file && !status; i++)
            status = fkv_lines_append_printed(file, fkv_bench_print_line, job->rows, i, err);
    }
    fkv_progress_finish(&progress);
    fkv_lines_close(file);
    return status;
}

/* ---- the command ---- */

static int report(const struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    if (!job->replay->options.json) {
        fkv_bench_print(job->rows, job->count);
        return FKV_OK;
    }
    json_t *o = json_object(), *rows = json_array();
    for (int64_t i = 0; i < job->count; i++)
        json_array_append_new(rows, fkv_bench_row_json(&job->rows[i]));
    json_object_set_new(o, "out", s->replay.out ? fkv_json_string(s->replay.out) : json_null());
    json_object_set_new(o, "model", fkv_json_string(job->replay->engine.model->name));
    json_object_set_new(o, "machine", fkv_json_string(job->machine));
    json_object_set_new(o, "decoded", json_integer(s->decoded));
    json_object_set_new(o, "repeats", json_integer(s->repeats));
    json_object_set_new(o, "rows_there", json_integer(job->first));
    json_object_set_new(o, "rows", rows);
    return fkv_json_print(o, err);
}

static int run_job(struct job *job, struct fkv_error *err) {
    const struct fkv_replay *r = job->replay;
    struct fkv_needs needs;
    fkv_bench_machine(&r->engine.device, job->machine);
    if (make_tokens(job, err) || make_rows(job, err)) return FKV_FAILED;
    json_t *identity = r->out ? identity_of(job, err) : NULL;
    int status = r->out && !identity ? FKV_FAILED : FKV_OK;
    if (!status && r->out) status = look_up(job, identity, err);
    if (!status && (job->first < job->count || r->dry_run)) {
        status = check_needs(job, &needs, err);
        if (!status) status = estimate_time(job, &needs, err);
        if (!status && !r->dry_run) status = run_rows(job, identity, &needs, err);
    }
    json_decref(identity);
    if (status || r->dry_run) return status;
    return report(job, err);
}

static int run(struct settings *s, struct fkv_error *err) {
    struct job job = {.s = s, .replay = &s->replay};
    int status = run_job(&job, err);
    for (int i = 0; i < s->list.count && job.setups; i++) fkv_policy_setup_free(&job.setups[i]);
    free(job.setups);
    free(job.rows);
    free(job.times);
    free(job.tokens);
    fkv_corpus_free(&job.corpus);
    return status;
}

int fkv_command_bench(int argc, char **argv) {
    static struct settings s = {/* thousands of paths: too much for a stack */
                                .policies = "full,freqkv",
                                .decoded = 64,
                                .repeats = 3};
    struct fkv_error err = {0};
    fkv_replay_default(&s.replay, argc, argv);
    s.replay.options.without_tokenizer = true;
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = fkv_policy_list_read(&s.list, &err);
    s.replay.options.decodes = !s.replay.dry_run;
    if (!status) status = fkv_replay_open(&s.replay, &err);
    if (!status) status = run(&s, &err);
    fkv_policy_list_free(&s.list);
    free(s.lengths);
    return fkv_replay_close(&s.replay, "freqkv-replay bench", status, &err);
}
