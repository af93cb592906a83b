/* freqkv-replay needle: prompts of a grid of lengths and depths, each repeated with other digits
 * and another piece of the texts, fed one after the other. All prompts are built before anything
 * runs, so that what cannot be built is refused at once; their ids are made again when each is fed.
 *
 * OUT.csv grows by a row per prompt (tasks/needle_rows.h). The same command goes on after the last
 * whole row. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "kernels/base/progress.h"
#include "replay/commands/commands.h"
#include "replay/identity.h"
#include "replay/lines_file.h"
#include "replay/needs.h"
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
    struct fkv_engine_options engine;
    struct fkv_policy_options policy;
    struct fkv_needle_task task;
    double *lengths, *depths; /* [length_count], [depth_count]; owned */
    int length_count, depth_count;
    int64_t repeats;
    bool dry_run;
    const char *out;
    char *command; /* owned */
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

static void check_options(const struct settings *s, struct argp_state *state) {
    const struct fkv_needle_task *t = &s->task;
    if (!s->engine.text_count && !s->engine.token_ids_count)
        argp_error(state, "--text or --token-ids is missing");
    if (!s->length_count) argp_error(state, "--lengths is missing");
    if (s->engine.batch > 1) argp_error(state, "--batch: needle runs one prompt at a time");
    if (s->repeats * s->length_count * s->depth_count > MOST_CELLS)
        argp_error(state, "expected at most %d prompts, found %" PRId64, MOST_CELLS,
                   s->repeats * s->length_count * s->depth_count);
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
        state->child_inputs[0] = &s->engine;
        state->child_inputs[1] = &s->policy;
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
    case FKV_LETTER_OUT: s->out = arg; return 0;
    case FKV_LETTER_DRY_RUN: s->dry_run = true; return 0;
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
    const struct fkv_engine *engine;
    const struct fkv_corpus *corpus;
    struct fkv_session_options session;
    struct fkv_policy_setup setup;     /* owned */
    struct fkv_needle_cell *cells;     /* [count]; owned */
    struct fkv_needle_result *results; /* [count]; owned, the texts too */
    int64_t count, longest;            /* longest: tokens fed of a prompt and its answer */
    struct fkv_needle_rows found;      /* of OUT.csv */
    int64_t first;                     /* cell that is not there yet */
    struct fkv_cost cost;
};

static struct fkv_needle_sheet sheet_of(const struct job *job) {
    return (struct fkv_needle_sheet){job->s->task.kind, &job->setup, job->cells, job->count};
}

/* Cells by length, then repeat, then depth; builds each prompt once. */
static int make_cells(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    job->count = s->length_count * s->repeats * s->depth_count;
    job->cells = calloc((size_t)job->count, sizeof *job->cells);
    job->results = calloc((size_t)job->count, sizeof *job->results);
    if (!job->cells || !job->results)
        return fkv_fail(err, "out of memory for %" PRId64 " prompts", job->count);
    for (int64_t i = 0; i < job->count; i++) {
        struct fkv_needle_cell *cell = &job->cells[i];
        cell->depth = s->depths[i % s->depth_count];
        cell->repeat = i / s->depth_count % s->repeats;
        cell->length = (int64_t)s->lengths[i / s->depth_count / s->repeats];
        if (fkv_needle_build(&s->task, cell, NULL, err)) return FKV_FAILED;
        const int64_t fed = cell->length + (s->task.kind == FKV_RECALL ? 0 : (int64_t)cell->answer);
        if (fed > job->longest) job->longest = fed;
    }
    return FKV_OK;
}

static json_t *numbers_json(const double *values, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(list, fkv_json_number(values[i]));
    return list;
}

/* What made the rows, a new reference. Texts count as their tokens. */
static json_t *identity_of(const struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_needle_task *t = &s->task;
    const bool by_length = fkv_config_rotates_by_length(&job->engine->model->config);
    const struct fkv_identity identity = {
        .format = "freqkv-needle",
        .model = job->engine->model,
        .tokenizer = job->engine->tokenizer,
        .setup = &job->setup,
        .backend = job->engine->ops->name,
        .compute = fkv_engine_compute_name(&s->engine, job->engine),
        .kernels = job->engine->device.kernels,
        .command = s->command,
        .cache_dtype = job->session.cache_dtype,
        .batch = 1,
        .rope_positions = by_length ? fkv_session_reach(&job->setup, job->longest) : 0};
    fkv_sha256_hex corpus;
    if (fkv_corpus_sha256(job->corpus, corpus, err)) return NULL;
    json_t *o = fkv_identity_json(&identity, err);
    if (!o) return NULL;
    json_object_set_new(o, "corpus_sha256", json_string(corpus));
    json_object_set_new(o, "task", json_string(fkv_needle_kinds[t->kind]));
    json_object_set_new(o, "lengths", numbers_json(s->lengths, s->length_count));
    json_object_set_new(o, "depths", numbers_json(s->depths, s->depth_count));
    json_object_set_new(o, "repeats", json_integer(s->repeats));
    json_object_set_new(o, "seed", json_integer(t->seed));
    json_object_set_new(o, "digits", json_integer(t->digits));
    if (t->kind == FKV_RECALL) {
        json_object_set_new(o, "passage", json_integer(t->passage));
        return o;
    }
    json_object_set_new(o, "needle", fkv_json_string(t->needle));
    json_object_set_new(o, "question", fkv_json_string(t->question));
    json_object_set_new(o, "answer", fkv_json_string(t->answer));
    return o;
}

/* Takes over what an earlier run left of OUT.csv. */
static int look_up(struct job *job, const json_t *identity, struct fkv_error *err) {
    const struct fkv_needle_sheet sheet = sheet_of(job);
    const char *path = job->s->out;
    FILE *f;
    if (fkv_lines_find(path, identity, &f, err)) return FKV_FAILED;
    if (!f) return FKV_OK;
    int status = fkv_needle_rows_read(f, path, &sheet, job->results, &job->found, err);
    fclose(f);
    job->first = job->found.lines ? job->found.lines - 1 : 0;
    if (!status && !job->s->engine.quiet && job->found.bytes)
        fprintf(stderr, "%s: %" PRId64 " of %" PRId64 " prompts are done%s\n", path, job->first,
                job->count, job->found.torn ? "; a row that is not whole is dropped" : "");
    return status;
}

/* ---- needs ---- */

/* What a user should know of positions; with a window they end at it. */
static void note_context(const struct job *job, FILE *to) {
    const struct settings *s = job->s;
    const int64_t context = job->engine->model->config.trained_context;
    const bool window = job->setup.policy->takes_window;
    if (window && job->longest <= job->setup.window)
        fprintf(to,
                "note: no prompt is longer than the window of %d slots: policy %s will do "
                "nothing\n",
                job->setup.window, job->setup.policy->name);
    for (int i = 0; i < s->length_count; i++)
        if (s->lengths[i] > (double)context)
            fprintf(to, "note: length %.0f is past the trained context of %" PRId64 "%s\n",
                    s->lengths[i], context,
                    window && job->setup.window <= context ? "; positions end at the window" : "");
    fkv_policy_note_unused(&s->policy, to);
}

static int check_needs(const struct job *job, struct fkv_needs *needs, struct fkv_error *err) {
    const struct settings *s = job->s;
    const int row = 160; /* bytes of a row, about */
    const int64_t left = job->count - job->first;
    *needs = (struct fkv_needs){
        .documents = job->corpus->document_count,
        .tokens = job->corpus->token_count,
        .weights = job->engine->model->weight_bytes,
        .host = job->corpus->token_count * (int64_t)(sizeof(int32_t) + sizeof(int64_t)) +
                job->count * (int64_t)(sizeof *job->cells + sizeof *job->results),
        .disk = s->out ? left * row : 0,
        .output = s->out};
    for (int64_t i = job->first; i < job->count; i++) needs->fed += job->cells[i].length;
    if (fkv_session_add_needs(job->engine->model, &s->policy, &job->session, &needs->sessions, err))
        return FKV_FAILED;
    if (s->task.kind == FKV_NEEDLE) needs->sessions.cache *= 2; /* the snapshot of a prompt */
    FILE *to = fkv_needs_stream(&s->engine, s->dry_run);
    fkv_engine_announce(&s->engine, job->engine, to);
    fkv_policy_note_quant(&s->policy, to);
    if (to) {
        fprintf(to, "%" PRId64 " prompt%s%s, %" PRId64 " tokens to feed\n", left,
                left == 1 ? "" : "s", job->first ? " left" : "", needs->fed);
        note_context(job, to);
    }
    return fkv_needs_check(needs, job->engine, to, err);
}

static double seconds_of(const struct job *job, const struct fkv_needle_cell *cell) {
    return fkv_cost_seconds(&job->cost, (double)cell->length,
                            fkv_policy_slots(&job->setup, cell->length));
}

static int estimate_time(struct job *job, struct fkv_session *session, struct fkv_needs *needs,
                         struct fkv_error *err) {
    const struct settings *s = job->s;
    if (s->engine.quiet && !s->dry_run) return FKV_OK;
    if (fkv_session_rehearse(session, 1, fkv_session_block(session), job->longest, FKV_NOT_SCORED,
                             &job->cost, err))
        return FKV_FAILED;
    for (int64_t i = job->first; i < job->count; i++)
        needs->seconds += seconds_of(job, &job->cells[i]);
    fkv_needs_print_time(needs, fkv_needs_stream(&s->engine, s->dry_run));
    return s->dry_run && s->engine.json ? fkv_json_print(fkv_needs_json(needs), err) : FKV_OK;
}

/* ---- running ---- */

static int append_line(struct fkv_lines_file *file, const struct fkv_needle_sheet *sheet, int64_t i,
                       const struct fkv_needle_result *result, struct fkv_error *err) {
    size_t bytes;
    char *line = fkv_needle_line(sheet, i, result, &bytes);
    if (!line) return fkv_fail(err, "out of memory for a row");
    int status = fkv_lines_append(file, line, bytes, err);
    free(line);
    return status;
}

static int run_cell(struct job *job, struct fkv_session *session, int64_t i,
                    struct fkv_error *err) {
    struct fkv_needle_cell *cell = &job->cells[i];
    int32_t *tokens;
    if (fkv_needle_build(&job->s->task, cell, &tokens, err)) return FKV_FAILED;
    int status = fkv_needle_score(session, &job->s->task, cell, tokens, &job->results[i], err);
    free(tokens);
    return status ? fkv_error_prefix(err, "length %" PRId64 ", depth %g, repeat %" PRId64,
                                     cell->length, cell->depth, cell->repeat)
                  : FKV_OK;
}

static int run_cells(struct job *job, struct fkv_session *session, struct fkv_lines_file *file,
                     const struct fkv_needs *needs, struct fkv_error *err) {
    const struct fkv_needle_sheet sheet = sheet_of(job);
    struct fkv_progress progress;
    double done = 0;
    int status = FKV_OK;
    if (file && !job->found.lines) status = append_line(file, &sheet, -1, NULL, err);
    fkv_progress_start(&progress, "prompts", job->count - job->first, job->s->engine.quiet);
    fkv_progress_weigh(&progress, needs->seconds);
    for (int64_t i = job->first; i < job->count && !status; i++) {
        status = run_cell(job, session, i, err);
        if (!status && file) status = append_line(file, &sheet, i, &job->results[i], err);
        done += seconds_of(job, &job->cells[i]);
        fkv_progress_update_work(&progress, i + 1 - job->first, done, "");
    }
    fkv_progress_finish(&progress);
    return status;
}

static int with_session(struct job *job, const json_t *identity, struct fkv_error *err) {
    const struct settings *s = job->s;
    struct fkv_session *session;
    struct fkv_needs needs;
    struct fkv_lines_file *file = NULL;
    if (check_needs(job, &needs, err) ||
        fkv_session_open(job->engine->model, &s->policy, &job->session, &session, err))
        return FKV_FAILED;
    fkv_note_rotation(&s->engine, &job->engine->model->config,
                      fkv_session_rotation_positions(session));
    int status = estimate_time(job, session, &needs, err);
    if (!status && !s->dry_run) {
        if (s->out)
            status =
                fkv_lines_open(s->out, identity, job->found.bytes, job->found.torn, &file, err);
        if (!status) status = run_cells(job, session, file, &needs, err);
        fkv_lines_close(file);
    }
    fkv_session_close(session);
    return status;
}

/* ---- the command ---- */

static int report(const struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_needle_sheet sheet = sheet_of(job);
    if (!s->engine.json) {
        fkv_needle_report_print(&sheet, job->results);
        return FKV_OK;
    }
    json_t *o = fkv_needle_report_json(&sheet, job->results);
    json_object_set_new(o, "out", s->out ? fkv_json_string(s->out) : json_null());
    json_object_set_new(o, "trained_context",
                        json_integer(job->engine->model->config.trained_context));
    json_object_set_new(o, "repeats", json_integer(s->repeats));
    json_object_set_new(o, "seed", json_integer(s->task.seed));
    json_object_set_new(o, "prompts_there", json_integer(job->first));
    return fkv_json_print(o, err);
}

static int run_job(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_config *config = &job->engine->model->config;
    if (make_cells(job, err)) return FKV_FAILED;
    job->session = (struct fkv_session_options){
        .sequences = 1,
        .max_tokens = job->longest,
        .cache_dtype = fkv_engine_cache_dtype(&s->engine, job->engine)};
    if (fkv_policy_setup(&s->policy, config, job->longest, &job->setup, err) ||
        fkv_engine_block(job->engine, &s->policy, false, 1, 0, &job->session, err))
        return FKV_FAILED;
    json_t *identity = s->out ? identity_of(job, err) : NULL;
    int status = s->out && !identity ? FKV_FAILED : FKV_OK;
    if (!status && s->out) status = look_up(job, identity, err);
    if (!status && (job->first < job->count || s->dry_run))
        status = with_session(job, identity, err);
    json_decref(identity);
    if (status || s->dry_run) return status;
    return report(job, err);
}

static int run(struct settings *s, const struct fkv_engine *engine, struct fkv_error *err) {
    struct fkv_corpus corpus = {0};
    struct fkv_haystack haystack = {0};
    struct job job = {.s = s, .engine = engine, .corpus = &corpus};
    if (!engine->tokenizer)
        return fkv_fail(err, "%s: needle needs a tokenizer, found none", s->engine.model);
    int status = fkv_corpus_read(&s->engine, engine, false, 0, &corpus, err);
    if (!status) status = fkv_haystack_open(&corpus, engine->tokenizer, &haystack, err);
    if (!status) {
        s->task.haystack = &haystack;
        s->task.tokenizer = engine->tokenizer;
        s->task.vocab = engine->model->config.vocab;
        s->task.bos = fkv_engine_added_bos(engine);
        status = run_job(&job, err);
    }
    for (int64_t i = 0; i < job.count && job.results; i++) fkv_needle_result_free(&job.results[i]);
    free(job.results);
    free(job.cells);
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
    struct fkv_engine engine = {0};
    fkv_engine_options_default(&s.engine);
    fkv_policy_options_default(&s.policy);
    s.command = fkv_join_arguments(argc, argv);
    int status = s.command
                     ? fkv_parse_range("0:1:0.25", "--depths", &s.depths, &s.depth_count, &err)
                     : fkv_fail(&err, "out of memory");
    if (!status) {
        argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
        status = fkv_engine_open(&s.engine, &engine, &err);
    }
    if (!status) status = run(&s, &engine, &err);
    fkv_engine_close(&engine);
    free(s.lengths);
    free(s.depths);
    free(s.command);
    return status ? fkv_tool_failed("freqkv-replay needle", &err) : FKV_EXIT_DONE;
}
