/* freqkv-replay needle: reads the command line, works out the needs of a grid of prompts
 * (tasks/needle_grid.h), runs it, reports. OUT.csv grows by a row per prompt; the same command goes
 * on after the last whole row. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "replay/commands/commands.h"
#include "replay/tasks/needle_grid.h"
#include "replay/tasks/needle_report.h"

enum {
    OPT_TASK = FKV_NO_LETTER,
    OPT_LENGTHS,
    OPT_DEPTHS,
    OPT_REPEATS,
    OPT_NEEDLE,
    OPT_QUESTION,
    OPT_ANSWER,
    OPT_DIGITS,
    OPT_PASSAGE,
    OPT_SEED
};
enum { MOST_CELLS = 1000000 };

struct settings {
    struct fkv_replay replay;
    struct fkv_needle_task task;
    double *lengths, *depths; /* [length_count], [depth_count]; owned */
    int length_count, depth_count;
    int64_t repeats;
};

static const char doc[] =
    "Hides a fact, the needle, in a text and asks for it, over lengths and depths, under a cache "
    "policy.\n\n"
    "Examples:\n"
    "  freqkv-replay needle --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
    "      --lengths 256,512,1024 --depths 0:1:0.25 --policy freqkv --window 256 \\\n"
    "      --out freqkv.csv\n"
    "  freqkv-analyze plot freqkv.csv --out figures\n"
    "\v"
    "{key} in needle, question and answer stands for random digits. A prompt has exactly the given "
    "number of tokens. OUT.csv grows by a row per prompt; the same command, started again, goes on "
    "after the last whole one.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Task:", 5},
    {"task", OPT_TASK, "NAME", 0, "needle (default), or recall: a passage of the text returns", 5},
    {"lengths", OPT_LENGTHS, "T,...|a:b:c", 0, "tokens of a prompt", 5},
    {"depths", OPT_DEPTHS, "d,...|a:b:c", 0, "0: start of the text, 1: its end (default 0:1:0.25)",
     5},
    {"repeats", OPT_REPEATS, "K", 0, "prompts per length and depth (default 1)", 5},
    {"needle", OPT_NEEDLE, "TEXT", 0, "default \" The pass key is {key}. Remember it. {key} ...\"",
     5},
    {"question", OPT_QUESTION, "TEXT", 0, "default \" What is the pass key? The pass key is\"", 5},
    {"answer", OPT_ANSWER, "TEXT", 0, "default \" {key}\"", 5},
    {"digits", OPT_DIGITS, "D", 0, "of a key (default 5)", 5},
    {"passage", OPT_PASSAGE, "M", 0, "recall: tokens of the passage (default 64)", 5},
    {"seed", OPT_SEED, "s", 0, "of digits and of where the text starts (default 0)", 5},
    {"out", FKV_LETTER_OUT, "OUT.csv", 0, "one row per prompt; goes on where it stopped", 5},
    FKV_DRY_RUN_ROW(5),
    {0},
};

static void parse_numbers(struct argp_state *state, const char *text, const char *what, double low,
                          double high, bool whole, double **values, int *count) {
    struct fkv_error err = {0};
    free(*values);
    *values = NULL;
    if (fkv_parse_range(text, what, values, count, &err)) argp_error(state, "%s", err.message);
    for (int i = 0; i < *count; i++)
        if (!((*values)[i] >= low && (*values)[i] <= high) ||
            (whole && (*values)[i] != floor((*values)[i])))
            argp_error(state, "%s: expected %snumbers from %g to %g, found %g", what,
                       whole ? "whole " : "", low, high, (*values)[i]);
}

/* A cell that stands twice in the grid would be two rows of one prompt. */
static void check_once(const double *values, int count, const char *what,
                       struct argp_state *state) {
    for (int i = 1; i < count; i++)
        for (int k = 0; k < i; k++)
            if (values[i] == values[k])
                argp_error(state, "%s: expected each once, found %g twice", what, values[i]);
}

static void check_options(struct settings *s, struct argp_state *state) {
    const struct fkv_needle_task *t = &s->task;
    if (!s->depth_count)
        parse_numbers(state, "0:1:0.25", "--depths", 0, 1, false, &s->depths, &s->depth_count);
    if (!s->replay.options.text_count && !s->replay.options.token_ids_count)
        argp_error(state, "--text or --token-ids is missing");
    if (!s->length_count) argp_error(state, "--lengths is missing");
    if (s->replay.options.batch > 1) argp_error(state, "--batch: needle runs one prompt at a time");
    if (s->repeats * s->length_count * s->depth_count > MOST_CELLS)
        argp_error(state, "expected at most %d prompts, found %" PRId64, MOST_CELLS,
                   s->repeats * s->length_count * s->depth_count);
    check_once(s->lengths, s->length_count, "--lengths", state);
    check_once(s->depths, s->depth_count, "--depths", state);
    if (t->kind == FKV_NEEDLE && strstr(t->answer, FKV_NEEDLE_KEY) &&
        !strstr(t->needle, FKV_NEEDLE_KEY))
        argp_error(state, "--needle: expected %s in it, which --answer asks for", FKV_NEEDLE_KEY);
}

static int find_task(const char *name, struct argp_state *state) {
    for (int i = 0; fkv_needle_kinds[i]; i++)
        if (!strcmp(name, fkv_needle_kinds[i])) return i;
    argp_error(state, "--task: expected needle or recall, found \"%s\"", name);
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_needle_task *t = &s->task;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->replay.options;
        state->child_inputs[1] = &s->replay.policy;
        return 0;
    case OPT_TASK: t->kind = (enum fkv_needle_kind)find_task(arg, state); return 0;
    case OPT_LENGTHS:
        parse_numbers(state, arg, "--lengths", 2, 1 << 30, true, &s->lengths, &s->length_count);
        return 0;
    case OPT_DEPTHS:
        parse_numbers(state, arg, "--depths", 0, 1, false, &s->depths, &s->depth_count);
        return 0;
    case OPT_REPEATS:
        s->repeats = fkv_integer_option(state, arg, "--repeats", 1, MOST_CELLS);
        return 0;
    case OPT_NEEDLE: t->needle = arg; return 0;
    case OPT_QUESTION: t->question = arg; return 0;
    case OPT_ANSWER: t->answer = arg; return 0;
    case OPT_DIGITS:
        t->digits = (int32_t)fkv_integer_option(state, arg, "--digits", 1, FKV_NEEDLE_MOST_DIGITS);
        return 0;
    case OPT_PASSAGE:
        t->passage = (int32_t)fkv_integer_option(state, arg, "--passage", 2, 1 << 20);
        return 0;
    case OPT_SEED: t->seed = fkv_integer_option(state, arg, "--seed", 0, INT32_MAX); return 0;
    case FKV_LETTER_OUT: s->replay.out = arg; return 0;
    case FKV_LETTER_DRY_RUN: s->replay.dry_run = true; return 0;
    case ARGP_KEY_END: check_options(s, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&fkv_engine_argp, 0, NULL, 0}, {&fkv_policy_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

/* ---- the grid ---- */

struct job {
    const struct settings *s;
    const struct fkv_corpus *corpus;
    struct fkv_session_options session;
    struct fkv_policy_setup setup; /* owned */
    struct fkv_needle_grid grid;   /* owned */
    struct fkv_cost cost;
};

/* ---- needs ---- */

/* What a user should know of positions; with a window they end at it. */
static void note_context(const struct job *job, FILE *to) {
    const struct settings *s = job->s;
    const int64_t context = job->s->replay.engine.model->config.trained_context;
    const bool window = job->setup.policy->takes_window;
    if (window && job->grid.longest <= job->setup.window)
        fprintf(to,
                "note: no prompt is longer than the window of %d slots: policy %s will do "
                "nothing\n",
                job->setup.window, job->setup.policy->name);
    for (int i = 0; i < s->length_count; i++)
        if (s->lengths[i] > (double)context)
            fprintf(to, "note: length %.0f is past the trained context of %" PRId64 "%s\n",
                    s->lengths[i], context,
                    window && job->setup.window <= context ? "; positions end at the window" : "");
    fkv_policy_note_unused(&s->replay.policy, to);
}

static int check_needs(const struct job *job, struct fkv_needs *needs, struct fkv_error *err) {
    const struct settings *s = job->s;
    const int row = 160; /* bytes of a row, about */
    const struct fkv_needle_grid *grid = &job->grid;
    const int64_t left = grid->count - grid->first;
    *needs = (struct fkv_needs){
        .documents = job->corpus->document_count,
        .tokens = job->corpus->token_count,
        .weights = job->s->replay.engine.model->weight_bytes,
        .host = job->corpus->token_count * (int64_t)(sizeof(int32_t) + sizeof(int64_t)) +
                grid->count * (int64_t)(sizeof *grid->cells + sizeof *grid->results),
        .disk = s->replay.out ? left * row : 0,
        .output = s->replay.out};
    for (int64_t i = grid->first; i < grid->count; i++) needs->fed += grid->cells[i].length;
    if (fkv_session_add_needs(job->s->replay.engine.model, &s->replay.policy, &job->session,
                              &needs->sessions, err))
        return FKV_FAILED;
    if (s->task.kind == FKV_NEEDLE) needs->sessions.cache *= 2; /* the snapshot of a prompt */
    FILE *to = fkv_replay_announce(&s->replay);
    if (to) {
        fprintf(to, "%" PRId64 " prompt%s%s, %" PRId64 " tokens to feed\n", left,
                left == 1 ? "" : "s", grid->first ? " left" : "", needs->fed);
        note_context(job, to);
    }
    return fkv_needs_check(needs, &s->replay.engine, to, err);
}

static int estimate_time(struct job *job, struct fkv_session *session, struct fkv_needs *needs,
                         struct fkv_error *err) {
    const struct settings *s = job->s;
    if (!fkv_replay_tells_time(&s->replay)) return FKV_OK;
    if (fkv_session_rehearse(session, 1, fkv_session_block(session), job->grid.longest,
                             FKV_NOT_SCORED, &job->cost, err))
        return FKV_FAILED;
    needs->seconds = fkv_needle_grid_seconds(&job->grid, &job->cost);
    return fkv_replay_tell_time(&s->replay, needs, err);
}

/* ---- running ---- */

static int with_session(struct job *job, const json_t *identity, struct fkv_error *err) {
    const struct fkv_replay *r = &job->s->replay;
    struct fkv_session *session;
    struct fkv_needs needs;
    if (check_needs(job, &needs, err) ||
        fkv_replay_session(r, &r->policy, &job->session, &session, err))
        return FKV_FAILED;
    int status = estimate_time(job, session, &needs, err);
    if (!status && !r->dry_run)
        status = fkv_needle_grid_run(&job->grid, session, r->out, identity, &job->cost,
                                     r->options.quiet, err);
    fkv_session_close(session);
    return status;
}

/* ---- the command ---- */

static int report(const struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_replay *r = &s->replay;
    const struct fkv_needle_sheet sheet = fkv_needle_grid_sheet(&job->grid);
    if (!r->options.json) {
        fkv_needle_report_print(&sheet);
        return FKV_OK;
    }
    json_t *o = fkv_needle_report_json(&sheet);
    json_object_set_new(o, "out", r->out ? fkv_json_string(r->out) : json_null());
    json_object_set_new(o, "trained_context",
                        json_integer(r->engine.model->config.trained_context));
    json_object_set_new(o, "repeats", json_integer(s->repeats));
    json_object_set_new(o, "seed", json_integer(s->task.seed));
    json_object_set_new(o, "prompts_there", json_integer(job->grid.first));
    return fkv_json_print(o, err);
}

static int run_job(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_replay *r = &s->replay;
    const struct fkv_config *config = &r->engine.model->config;
    job->grid = (struct fkv_needle_grid){.task = &s->task,
                                         .lengths = s->lengths,
                                         .depths = s->depths,
                                         .length_count = s->length_count,
                                         .depth_count = s->depth_count,
                                         .repeats = s->repeats,
                                         .setup = &job->setup};
    if (fkv_needle_grid_open(&job->grid, err)) return FKV_FAILED;
    if (fkv_policy_setup(&r->policy, config, job->grid.longest, &job->setup, err) ||
        fkv_replay_session_options(r, &r->policy, 1, job->grid.longest, &job->session, err))
        return FKV_FAILED;
    json_t *identity = r->out ? fkv_needle_grid_identity(&job->grid, r, job->corpus, err) : NULL;
    int status = r->out && !identity ? FKV_FAILED : FKV_OK;
    if (!status && r->out)
        status = fkv_needle_grid_look_up(&job->grid, r->out, identity, r->options.quiet, err);
    if (!status && (job->grid.first < job->grid.count || r->dry_run))
        status = with_session(job, identity, err);
    json_decref(identity);
    if (status || r->dry_run) return status;
    return report(job, err);
}

static int run(struct settings *s, struct fkv_error *err) {
    const struct fkv_engine *engine = &s->replay.engine;
    struct fkv_corpus corpus = {0};
    struct fkv_haystack haystack = {0};
    struct job job = {.s = s, .corpus = &corpus};
    if (!engine->tokenizer)
        return fkv_fail(err, "%s: needle needs a tokenizer, found none", s->replay.options.model);
    int status = fkv_corpus_read(&s->replay.options, engine, false, 0, &corpus, err);
    if (!status) status = fkv_haystack_open(&corpus, engine->tokenizer, &haystack, err);
    if (!status) {
        s->task.haystack = &haystack;
        s->task.tokenizer = engine->tokenizer;
        s->task.vocab = engine->model->config.vocab;
        s->task.bos = fkv_engine_added_bos(engine);
        status = run_job(&job, err);
    }
    fkv_needle_grid_close(&job.grid);
    fkv_policy_setup_free(&job.setup);
    fkv_haystack_close(&haystack);
    fkv_corpus_free(&corpus);
    return status;
}

int fkv_command_needle(int argc, char **argv) {
    static struct settings s = {/* thousands of paths: too much for a stack */
                                .task = {.needle = " The pass key is {key}. Remember it. {key} is "
                                                   "the pass key.",
                                         .question = " What is the pass key? The pass key is",
                                         .answer = " {key}",
                                         .digits = 5,
                                         .passage = 64},
                                .repeats = 1};
    struct fkv_error err = {0};
    fkv_replay_default(&s.replay, argc, argv);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = fkv_replay_open(&s.replay, &err);
    if (!status) status = run(&s, &err);
    free(s.lengths);
    free(s.depths);
    return fkv_replay_close(&s.replay, "freqkv-replay needle", status, &err);
}
