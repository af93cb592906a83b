/* freqkv-replay compare: policies at equal memory over one set of texts. Reads the command line,
 * gives every policy its slots, runs full attention once and every policy against it, and reports.
 *
 * DIR holds a run file and a table of recall per row. What is there is not run again: the same
 * command goes on where it was interrupted, and one with more policies or budgets adds their rows.
 * A file that another model, text or option made is refused by name. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "replay/commands/commands.h"
#include "replay/compare/memory.h"
#include "replay/compare/recall.h"
#include "replay/compare/table.h"
#include "replay/perplexity/points.h"
#include "replay/policy_list.h"

enum {
    OPT_POLICIES = FKV_NO_LETTER,
    OPT_BUDGET,
    OPT_EQUAL,
    OPT_PROTOCOL,
    OPT_TOKENS,
    OPT_SCORE_FROM,
    OPT_RECALL,
    OPT_PASSAGE,
    OPT_SEED
};

struct settings {
    struct fkv_replay replay; /* its policy: sinks and ratio of policies that give none */
    const char *policies, *protocol;
    double *budgets; /* [budget_count]; owned */
    int budget_count;
    int64_t tokens, score_from, recall, passage, seed;
    bool equal_mean;
};

static const char doc[] =
    "Compares cache policies at equal memory: perplexity, KL, recall, bytes and speed.\n\n"
    "Example:\n"
    "  freqkv-replay compare --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
    "      --policies freqkv,freqkv:gamma=0.25,local,streaming,snapkv:observe=16 \\\n"
    "      --budget 128,256 --tokens 1024 --out rivals\n"
    "  freqkv-analyze plot rivals/compare.csv rivals/*.h5 --out figures\n"
    "\v"
    "A policy is its name, then its options after colons: gamma, sinks and its own. Full attention "
    "runs once, is the first row, and every difference is paired with it. DIR holds compare.csv, "
    "pairs.csv, a run file per row and its recall; started again, the command goes on where it was "
    "interrupted, and with more policies or budgets it adds their rows.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Policies:", 4},
    {"policies", OPT_POLICIES, "NAME[:option=value...],...", 0, "beside full attention", 4},
    {"budget", OPT_BUDGET, "SLOTS,...|a:b:c", 0,
     "slots per head: a window's most, or what a selecting policy keeps after a block", 4},
    {"equal", OPT_EQUAL, "peak|mean", 0,
     "what the budget is: peak (default), or the mean of what queries see, for which windows are "
     "chosen",
     4},
    {"sinks", FKV_LETTER_SINKS, "S", 0, "of windows (default 4)", 4},
    {"gamma", FKV_LETTER_GAMMA, "G", 0, "ratio where there is one (default 0.5)", 4},
    {0, 0, 0, 0, "Evaluation:", 5},
    {"protocol", OPT_PROTOCOL, "NAME", 0,
     "as of ppl (default blocks:b, b a quarter of the least budget)", 5},
    {"tokens", OPT_TOKENS, "T", 0,
     "at most T tokens per document (default: the trained context); stride: the window", 5},
    {"score-from", OPT_SCORE_FROM, "t", 0, "score targets from position t of a pass on", 5},
    {"recall", OPT_RECALL, "K", 0, "prompts in which a passage returns (default 4; 0: none)", 5},
    {"passage", OPT_PASSAGE, "M", 0, "tokens of such a passage (default 64)", 5},
    {"seed", OPT_SEED, "s", 0, "of where their texts start (default 0)", 5},
    {"out", FKV_LETTER_OUT, "DIR", 0, "a folder, new or of the same comparison", 5},
    FKV_DRY_RUN_ROW(5),
    {0},
};

static void parse_budgets(struct settings *s, const char *arg, struct argp_state *state) {
    struct fkv_error err = {0};
    free(s->budgets);
    s->budgets = NULL;
    if (fkv_parse_range(arg, "--budget", &s->budgets, &s->budget_count, &err))
        argp_error(state, "%s", err.message);
    for (int i = 0; i < s->budget_count; i++)
        if (!(s->budgets[i] >= 1 && s->budgets[i] <= 1 << 28) ||
            s->budgets[i] != floor(s->budgets[i]) || (i && s->budgets[i] <= s->budgets[i - 1]))
            argp_error(state, "--budget: expected whole numbers from 1, ascending, found %g",
                       s->budgets[i]);
}

static void check_options(const struct settings *s, struct argp_state *state) {
    if (!s->replay.options.text_count && !s->replay.options.token_ids_count)
        argp_error(state, "--text or --token-ids is missing");
    if (!s->policies) argp_error(state, "--policies is missing");
    if (!s->budget_count) argp_error(state, "--budget is missing");
    if (!s->replay.out) argp_error(state, "--out is missing");
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &s->replay.options; return 0;
    case OPT_POLICIES: s->policies = arg; return 0;
    case OPT_BUDGET: parse_budgets(s, arg, state); return 0;
    case OPT_EQUAL:
        if (strcmp(arg, "peak") && strcmp(arg, "mean"))
            argp_error(state, "--equal: expected peak or mean, found \"%s\"", arg);
        s->equal_mean = !strcmp(arg, "mean");
        return 0;
    case FKV_LETTER_SINKS:
        s->replay.policy.sinks = (int32_t)fkv_integer_option(state, arg, "--sinks", 0, 1 << 28);
        return 0;
    case FKV_LETTER_GAMMA: s->replay.policy.gamma = arg; return 0;
    case OPT_PROTOCOL: s->protocol = arg; return 0;
    case OPT_TOKENS: s->tokens = fkv_integer_option(state, arg, "--tokens", 2, 1 << 30); return 0;
    case OPT_SCORE_FROM:
        s->score_from = fkv_integer_option(state, arg, "--score-from", 0, 1 << 30);
        return 0;
    case OPT_RECALL: s->recall = fkv_integer_option(state, arg, "--recall", 0, 1 << 16); return 0;
    case OPT_PASSAGE:
        s->passage = fkv_integer_option(state, arg, "--passage", 2, 1 << 20);
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
    const struct settings *s;
    struct fkv_policy_list list;
    struct fkv_plan plan;
    struct fkv_corpus corpus;
    struct fkv_points points;      /* point i is row i; points.points is owned */
    struct fkv_rivals found;       /* owned */
    struct fkv_recall recall;      /* owned */
    double *change;                /* [count, prompts] of recall; owned */
    char (*recall_path)[FKV_PATH]; /* [count]; owned */
};

/* A file's name of a row: what is no letter, digit or one of .=- becomes an underscore. */
static int name_files(struct job *job, int i, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_compare_row *row = &job->found.rows[i];
    char name[200], budget[32] = "";
    if (row->budget)
        snprintf(budget, sizeof budget, "_%s%d", s->equal_mean ? "mean" : "", row->budget);
    snprintf(name, sizeof name, "%.160s%s", row->policy, budget);
    for (char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr(".=-", *c)) *c = '_';
    if (fkv_path_print(job->points.points[i].path, err, "%s/%s.h5", s->replay.out, name) ||
        fkv_path_print(job->recall_path[i], err, "%s/%s.recall.csv", s->replay.out, name))
        return FKV_FAILED;
    for (int k = 0; k < i; k++)
        if (!strcmp(job->points.points[k].path, job->points.points[i].path))
            return fkv_fail_option(err,
                                   "--policies: %s and %s: expected entries whose files have "
                                   "names of their own, found %s for both",
                                   job->found.rows[k].policy, row->policy,
                                   job->points.points[i].path);
    return FKV_OK;
}

static int add_row(struct job *job, const char *name, const struct fkv_policy_options *policy,
                   double budget, struct fkv_error *err) {
    const int i = job->found.count++;
    struct fkv_compare_row *row = &job->found.rows[i];
    struct fkv_point *point = &job->points.points[i];
    *row = (struct fkv_compare_row){.policy = name,
                                    .file = point->path,
                                    .budget = (int32_t)budget,
                                    .slots = (int32_t)budget,
                                    .results = point->results,
                                    .recall = NAN,
                                    .recall_delta = NAN,
                                    .recall_delta_se = NAN};
    point->policy = *policy;
    point->policy.prefill_block = job->plan.block;
    if (budget > 0) {
        if (job->s->equal_mean &&
            fkv_memory_for_mean(&point->policy, &job->s->replay.engine.model->config, &job->plan,
                                budget, &row->slots, err))
            return FKV_FAILED;
        fkv_memory_set(&point->policy, row->slots);
        snprintf(point->name, sizeof point->name, "%.60s, %d slots", name, row->slots);
    } else {
        snprintf(point->name, sizeof point->name, "%.60s", name);
    }
    job->points.count = job->found.count;
    return name_files(job, i, err);
}

/* An entry's memory is what --budget says. */
static int check_entry(const struct job *job, int i, struct fkv_error *err) {
    const struct fkv_policy_options *o = &job->list.options[i];
    const struct fkv_policy *policy = fkv_policy_find(o->name, NULL);
    if (fkv_memory_given(o))
        return fkv_fail_option(err,
                               "--policies: %s: expected no slots of its own, which --budget "
                               "says",
                               job->list.names[i]);
    return fkv_points_check_blocks(&job->plan, policy, err);
}

/* The first row has it already. */
static bool is_plain_full(const struct job *job, int i) {
    const struct fkv_policy_options *o = &job->list.options[i];
    return fkv_policy_find(o->name, NULL) == fkv_policy_find(NULL, NULL) && !o->own[0].name;
}

/* Full attention, then every policy with every budget. */
static int make_rows(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const size_t most = 1 + (size_t)job->list.count * (size_t)s->budget_count;
    job->found = (struct fkv_rivals){.corpus = &job->corpus,
                                     .plan = &job->plan,
                                     .equal_mean = s->equal_mean,
                                     .rows = calloc(most, sizeof *job->found.rows)};
    job->points.points = calloc(most, sizeof *job->points.points);
    job->recall_path = calloc(most, sizeof *job->recall_path);
    job->change = calloc(most * (size_t)(s->recall + 1), sizeof *job->change);
    if (!job->found.rows || !job->points.points || !job->recall_path || !job->change)
        return fkv_fail(err, "out of memory for %zu rows", most);
    if (add_row(job, fkv_full_attention.name, &fkv_full_attention, 0, err)) return FKV_FAILED;
    for (int i = 0; i < job->list.count; i++) {
        const struct fkv_policy *policy = fkv_policy_find(job->list.options[i].name, NULL);
        const bool chosen = fkv_memory_chosen(policy);
        if (is_plain_full(job, i)) continue;
        if (check_entry(job, i, err)) return FKV_FAILED;
        for (int b = 0; b < (chosen ? s->budget_count : 1); b++)
            if (add_row(job, job->list.names[i], &job->list.options[i], chosen ? s->budgets[b] : 0,
                        err))
                return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- running ---- */

static int recall_row(struct job *job, int i, struct fkv_error *err) {
    const int64_t repeats = job->recall.repeats;
    struct fkv_compare_row *row = &job->found.rows[i];
    double *change = job->change + i * repeats;
    struct fkv_recall_mean mean;
    if (!repeats) return FKV_OK;
    if (fkv_recall_run(&job->recall, &job->points.points[i].policy, job->recall_path[i], change,
                       err) ||
        fkv_recall_mean(change, repeats, &mean, err))
        return fkv_error_prefix(err, "%s", job->points.points[i].name);
    row->recall = mean.mean;
    if (!i) return FKV_OK;
    double *delta = malloc((size_t)repeats * sizeof *delta);
    if (!delta) return fkv_fail(err, "out of memory for recall");
    for (int64_t k = 0; k < repeats; k++) delta[k] = change[k] - job->change[k];
    int status = fkv_recall_mean(delta, repeats, &mean, err);
    row->recall_delta = mean.mean;
    row->recall_delta_se = mean.se;
    free(delta);
    return status;
}

/* Reads what the run's file holds beside the results, and writes the table so far. */
static int take_row(struct job *job, int i, struct fkv_error *err) {
    struct fkv_compare_row *row = &job->found.rows[i];
    char path[FKV_PATH];
    if (fkv_pair_read(row->file, &job->corpus, &job->plan, &row->nll, &row->ms_per_token, err) ||
        fkv_pair_compare(&job->corpus, &job->plan, job->found.rows[0].nll, row->nll, &row->to_full,
                         err))
        return FKV_FAILED;
    row->known = true;
    return fkv_path_print(path, err, "%s/compare.csv", job->s->replay.out) ||
                   fkv_rivals_write(&job->found, path, err)
               ? FKV_FAILED
               : FKV_OK;
}

static int run_row(struct job *job, int i, struct fkv_error *err) {
    if (fkv_points_run(&job->points, i, false, err)) return FKV_FAILED;
    if (job->s->replay.dry_run) return FKV_OK;
    return recall_row(job, i, err) || take_row(job, i, err) ? FKV_FAILED : FKV_OK;
}

/* Full attention first; then what an earlier run left, so that an interruption leaves a table with
 * all of it; then the others. */
static int run_rows(struct job *job, struct fkv_error *err) {
    int status = run_row(job, 0, err);
    for (int pending = 0; pending < 2; pending++)
        for (int i = 1; i < job->found.count && !status; i++)
            if (job->points.points[i].done == !pending) status = run_row(job, i, err);
    return status;
}

static int report(struct job *job, struct fkv_error *err) {
    char path[FKV_PATH];
    if (fkv_rivals_pair(&job->found, err) ||
        fkv_path_print(path, err, "%s/pairs.csv", job->s->replay.out) ||
        fkv_rivals_write_pairs(&job->found, path, err))
        return FKV_FAILED;
    if (job->s->replay.options.json) return fkv_json_print(fkv_rivals_json(&job->found), err);
    fkv_rivals_print(&job->found);
    return FKV_OK;
}

/* Why full attention is no reference of a row, the first such reason; NULL: it is one of all. */
static int find_invalid(struct job *job, struct fkv_error *err) {
    for (int i = 0; i < job->found.count && !job->found.invalid; i++) {
        struct fkv_policy_setup setup;
        if (fkv_points_setup(&job->points, i, &setup, err)) return FKV_FAILED;
        const struct fkv_experiment e = fkv_points_experiment(&job->points, i, &setup);
        job->found.invalid = fkv_experiment_invalid(&e);
        fkv_policy_setup_free(&setup);
    }
    return FKV_OK;
}

/* What recall feeds on top; rows that are there are counted too. */
static struct fkv_needs needs_of_recall(const struct job *job) {
    const int64_t prompts = job->recall.repeats * job->found.count;
    return (struct fkv_needs){.fed = prompts * (int64_t)job->recall.length,
                              .host = job->recall.corpus.token_count * 12,
                              .disk = prompts * 160 + (1 << 16)};
}

static int run_job(struct job *job, struct fkv_error *err) {
    const struct fkv_replay *r = &job->s->replay;
    bool made = false;
    if (make_rows(job, err) || fkv_points_open(&job->points, err)) return FKV_FAILED;
    job->recall.length = job->plan.longest;
    job->recall.block = job->plan.block;
    if (find_invalid(job, err) || fkv_recall_open(&job->recall, err)) return FKV_FAILED;
    const struct fkv_needs recall = needs_of_recall(job);
    if (fkv_points_check(&job->points, &recall, err)) return FKV_FAILED;
    if (!r->dry_run && fkv_make_folder(r->out, &made, err)) return FKV_FAILED;
    if (run_rows(job, err)) {
        if (made) rmdir(r->out); /* where nothing was written */
        return FKV_FAILED;
    }
    if (!r->dry_run) return report(job, err);
    return r->options.json ? fkv_json_print(fkv_needs_json(&job->points.needs), err) : FKV_OK;
}

/* ---- the command ---- */

static int make_plan(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    char blocks[32];
    const int block = s->budgets[0] < 4 ? 1 : (int)(s->budgets[0] / 4);
    snprintf(blocks, sizeof blocks, "blocks:%d", block);
    if (fkv_protocol_parse(s->protocol ? s->protocol : blocks, &job->plan, err) ||
        fkv_points_read(&job->points, &job->corpus, err))
        return FKV_FAILED;
    return fkv_corpus_classify(&job->corpus, &s->replay.engine, err);
}

static int run(const struct settings *s, struct fkv_error *err) {
    const struct fkv_replay *r = &s->replay;
    struct job *job = calloc(1, sizeof *job);
    if (!job) return fkv_fail(err, "out of memory");
    *job = (struct job){
        .s = s,
        .points = {.replay = r,
                   .plan = &job->plan,
                   .tokens = s->tokens ? s->tokens : r->engine.model->config.trained_context,
                   .score_from = s->score_from,
                   .prefix = "",
                   .option = "--policies: ",
                   .from = FKV_BASELINE_FIRST,
                   .resume = true},
        .recall = {.replay = r,
                   .repeats = r->engine.tokenizer ? s->recall : 0,
                   .passage = (int32_t)s->passage,
                   .seed = s->seed}};
    if (!r->engine.tokenizer && s->recall && !r->options.quiet)
        fprintf(stderr, "note: recall is left out: it needs a tokenizer\n");
    int status = fkv_policy_list_parse(s->policies, &r->policy, &job->list, err);
    if (!status) status = fkv_policy_list_read(&job->list, err);
    if (!status) status = make_plan(job, err);
    if (!status) status = run_job(job, err);
    fkv_recall_close(&job->recall);
    fkv_rivals_free(&job->found);
    fkv_points_close(&job->points);
    free(job->points.points);
    free(job->recall_path);
    free(job->change);
    fkv_plan_free(&job->plan);
    fkv_corpus_free(&job->corpus);
    fkv_policy_list_free(&job->list);
    free(job);
    return status;
}

int fkv_command_compare(int argc, char **argv) {
    static struct settings s = {.recall = 4, .passage = 64}; /* too much for a stack */
    struct fkv_error err = {0};
    fkv_replay_default(&s.replay, argc, argv);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = fkv_check_folder(s.replay.out, &err);
    if (!status) status = fkv_replay_open(&s.replay, &err);
    if (!status) status = run(&s, &err);
    free(s.budgets);
    return fkv_replay_close(&s.replay, "freqkv-replay compare", status, &err);
}
