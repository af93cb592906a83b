/* freqkv-replay ppl: reads the command line, works out plan and needs, runs, reports. Everything
 * that can be refused is refused before the first token is fed. A plain run is a sweep of one
 * point: what differs is where its ratio and its file's name come from, and what is printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/letters.h"
#include "replay/commands/commands.h"
#include "replay/perplexity/sweep.h"

enum {
    OPT_TOKENS = FKV_NO_LETTER,
    OPT_PROTOCOL,
    OPT_SCORE_FROM,
    OPT_BASELINE,
    OPT_FINAL_STATES,
    OPT_SWEEP
};

struct settings {
    struct fkv_replay replay;
    struct fkv_plan plan;
    struct fkv_sweep sweep;
    int64_t tokens, score_from;
    enum fkv_baseline_from from;
    bool final_states;
    const char *baseline_path;
};

static const char doc[] =
    "Perplexity of texts under a cache policy.\n\n"
    "Example:\n"
    "  freqkv-replay ppl --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
    "      --policy freqkv --window 512 --gamma 0.5 --tokens 1024 --baseline full\n"
    "\v"
    "Differences to the baseline are paired per token. They are valid within the trained "
    "context only, and the output says so. --baseline RUN.h5 takes a run of full attention over "
    "the "
    "same tokens; KL needs that it was run with --final-states. --sweep writes OUT/gamma_0.10.h5 "
    "and so on; started "
    "again, it goes on where it was interrupted.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Evaluation:", 5},
    {"protocol", OPT_PROTOCOL, "NAME", 0, "whole (default), stride:s, chunks:c, rolling, blocks:b",
     5},
    {"tokens", OPT_TOKENS, "T", 0, "at most T tokens per document; stride: the window", 5},
    {"score-from", OPT_SCORE_FROM, "t", 0, "score targets from position t of a pass on", 5},
    {"baseline", OPT_BASELINE, "full|RUN.h5", 0,
     "differences to full attention: computed beside, or its run", 5},
    {"final-states", OPT_FINAL_STATES, 0, 0,
     "full: the run file keeps what KL needs as a --baseline (dim x 4 bytes per token)", 5},
    {"sweep", OPT_SWEEP, "gamma=a:b:c", 0, "every ratio from a to b in steps of c", 5},
    {"out", FKV_LETTER_OUT, "RUN.h5", 0, "a new run file; with --sweep a folder of them", 5},
    FKV_DRY_RUN_ROW(5),
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_error err = {0};
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->replay.options;
        state->child_inputs[1] = &s->replay.policy;
        return 0;
    case OPT_TOKENS: s->tokens = fkv_integer_option(state, arg, "--tokens", 2, 1 << 30); return 0;
    case OPT_SCORE_FROM:
        s->score_from = fkv_integer_option(state, arg, "--score-from", 0, 1 << 30);
        return 0;
    case OPT_PROTOCOL:
        if (fkv_protocol_parse(arg, &s->plan, &err)) argp_error(state, "%s", err.message);
        return 0;
    case OPT_BASELINE:
        s->from = strcmp(arg, fkv_full_attention.name) ? FKV_BASELINE_RUN : FKV_BASELINE_BESIDE;
        s->baseline_path = arg;
        if (s->from == FKV_BASELINE_RUN && access(arg, F_OK))
            argp_error(state, "--baseline: expected %s or a run file, found \"%s\"",
                       fkv_full_attention.name, arg);
        return 0;
    case OPT_FINAL_STATES: s->final_states = true; return 0;
    case OPT_SWEEP:
        if (fkv_sweep_parse(arg, &s->sweep, &err)) argp_error(state, "%s", err.message);
        return 0;
    case FKV_LETTER_OUT: s->replay.out = arg; return 0;
    case FKV_LETTER_DRY_RUN: s->replay.dry_run = true; return 0;
    case ARGP_KEY_END:
        if (!s->replay.options.text_count && !s->replay.options.token_ids_count)
            argp_error(state, "--text or --token-ids is missing");
        if (s->sweep.count && s->replay.policy.gamma)
            argp_error(state, "give --gamma or --sweep, not both");
        if (s->final_states && !s->replay.out)
            argp_error(state, "--final-states: --out is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&fkv_engine_argp, 0, NULL, 0}, {&fkv_policy_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

/* ---- the points ---- */

/* A plain run is a sweep of one point. */
static int name_points(const struct settings *s, struct fkv_points *p, struct fkv_error *err) {
    for (int i = 0; i < p->count; i++) {
        struct fkv_point *point = &p->points[i];
        const char *out = s->replay.out;
        point->policy = s->replay.policy;
        if (s->sweep.count ? fkv_sweep_name(&s->sweep, out, i, point, err)
                           : out && fkv_path_print(point->path, err, "%s", out))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* Refuses options that the policy has no use for. Only full attention is a baseline. */
static int check_policy(const struct settings *s, struct fkv_error *err) {
    const struct fkv_policy *policy = fkv_policy_find(s->replay.policy.name, err);
    if (!policy) return FKV_FAILED;
    if (s->sweep.count && !policy->takes_ratio)
        return fkv_fail_option(err, "--sweep gamma: the policy %s has no ratio", policy->name);
    if (s->final_states && policy != fkv_policy_find(NULL, NULL))
        return fkv_fail_option(err, "--final-states: expected --policy %s, found %s",
                               fkv_full_attention.name, policy->name);
    return FKV_OK;
}

/* ---- reporting ---- */

static int report_sweep(const struct settings *s, const struct fkv_points *p,
                        struct fkv_error *err) {
    struct fkv_policy_setup setup;
    if (fkv_points_setup(p, 0, &setup, err)) return FKV_FAILED;
    const struct fkv_experiment experiment = fkv_points_experiment(p, 0, &setup);
    int status = FKV_OK;
    if (s->replay.options.json)
        status = fkv_json_print(fkv_sweep_json(p->points, p->count, &experiment), err);
    else
        fkv_sweep_print(p->points, p->count, &experiment);
    fkv_policy_setup_free(&setup);
    return status;
}

/* ---- running ---- */

static int run_points(const struct settings *s, struct fkv_points *p, struct fkv_error *err) {
    const struct fkv_replay *r = &s->replay;
    bool made = false;
    if (fkv_points_check(p, NULL, err)) return FKV_FAILED;
    if (s->sweep.count && r->out && !r->dry_run && fkv_make_folder(r->out, &made, err))
        return FKV_FAILED;
    for (int i = 0; i < p->count; i++) {
        if (!fkv_points_run(p, i, !s->sweep.count, err)) continue;
        if (made) rmdir(r->out); /* where no point was written */
        return FKV_FAILED;
    }
    if (r->dry_run)
        return r->options.json ? fkv_json_print(fkv_needs_json(&p->needs), err) : FKV_OK;
    return s->sweep.count ? report_sweep(s, p, err) : FKV_OK;
}

static int run(struct settings *s, struct fkv_corpus *corpus, struct fkv_error *err) {
    struct fkv_points p = {.replay = &s->replay,
                           .plan = &s->plan,
                           .tokens = s->tokens,
                           .score_from = s->score_from,
                           .prefix = "gamma ",
                           .option = "--sweep gamma=",
                           .from = s->from,
                           .baseline_path = s->baseline_path,
                           .final_states = s->final_states,
                           .resume = s->sweep.count,
                           .count = s->sweep.count ? s->sweep.count : 1};
    if (check_policy(s, err) || fkv_points_read(&p, corpus, err) ||
        fkv_points_check_blocks(p.plan, fkv_policy_find(s->replay.policy.name, NULL), err) ||
        (s->replay.out && fkv_corpus_classify(corpus, &s->replay.engine, err)))
        return FKV_FAILED;
    p.points = calloc((size_t)p.count, sizeof *p.points);
    int status =
        p.points ? name_points(s, &p, err) : fkv_fail(err, "out of memory for %d points", p.count);
    if (!status) status = fkv_points_open(&p, err);
    if (!status) status = run_points(s, &p, err);
    fkv_points_close(&p);
    free(p.points);
    return status;
}

/* Refuses an output that cannot be written before the model is loaded. */
static int check_output(const struct settings *s, struct fkv_error *err) {
    const char *out = s->replay.out;
    if (!out) return FKV_OK;
    return s->sweep.count ? fkv_check_folder(out, err) : fkv_check_new_file(out, err);
}

int fkv_command_ppl(int argc, char **argv) {
    static struct settings s; /* thousands of paths: too much for a stack */
    struct fkv_error err = {0};
    struct fkv_corpus corpus = {0};
    fkv_replay_default(&s.replay, argc, argv);
    fkv_protocol_parse("whole", &s.plan, &err);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = check_output(&s, &err);
    if (!status) status = fkv_replay_open(&s.replay, &err);
    if (!status) status = run(&s, &corpus, &err);
    fkv_sweep_free(&s.sweep);
    fkv_plan_free(&s.plan);
    fkv_corpus_free(&corpus);
    return fkv_replay_close(&s.replay, "freqkv-replay ppl", status, &err);
}
