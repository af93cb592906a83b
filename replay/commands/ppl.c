/* freqkv-replay ppl: reads the command line, works out plan and needs, runs, reports. Everything
 * that can be refused is refused before the first token is fed. A plain run is a sweep of one
 * point: what differs is where its ratio and its file's name come from, and what is printed. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cache/ratios.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "kernels/base/path.h"
#include "kernels/base/progress.h"
#include "replay/commands/commands.h"
#include "replay/operators/operator_file.h"
#include "replay/perplexity/experiment.h"
#include "replay/needs.h"
#include "replay/perplexity/sweep.h"

enum { OPT_TOKENS = FKV_NO_LETTER, OPT_PROTOCOL, OPT_SCORE_FROM, OPT_BASELINE, OPT_SWEEP };

struct settings {
    struct fkv_engine_options engine;
    struct fkv_policy_options policy;
    struct fkv_plan plan;
    struct fkv_sweep sweep;
    int64_t tokens, score_from;
    bool baseline, dry_run;
    const char *out;
    char *command; /* owned */
};

static const char doc[] =
    "Perplexity of texts under a cache policy.\n\n"
    "Example:\n"
    "  freqkv-replay ppl --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
    "      --policy freqkv --window 512 --gamma 0.5 --tokens 1024 --baseline full\n"
    "\v"
    "Differences to the baseline are paired per token. They are valid within the trained "
    "context only, and the output says so. --sweep writes OUT/gamma_0.10.h5 and so on; started "
    "again, it goes on where it was interrupted.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Evaluation:", 5},
    {"protocol", OPT_PROTOCOL, "NAME", 0, "whole (default), stride:s, chunks:c, rolling, blocks:b",
     5},
    {"tokens", OPT_TOKENS, "T", 0, "at most T tokens per document; stride: the window", 5},
    {"score-from", OPT_SCORE_FROM, "t", 0, "score targets from position t of a pass on", 5},
    {"baseline", OPT_BASELINE, "full", 0, "full attention as well: paired differences, KL", 5},
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
        state->child_inputs[0] = &s->engine;
        state->child_inputs[1] = &s->policy;
        return 0;
    case OPT_TOKENS: s->tokens = fkv_integer_option(state, arg, "--tokens", 2, 1 << 30); return 0;
    case OPT_SCORE_FROM:
        s->score_from = fkv_integer_option(state, arg, "--score-from", 0, 1 << 30);
        return 0;
    case OPT_PROTOCOL:
        if (fkv_protocol_parse(arg, &s->plan, &err)) argp_error(state, "%s", err.message);
        return 0;
    case OPT_BASELINE:
        if (strcmp(arg, fkv_full_attention.name))
            argp_error(state, "--baseline: expected %s, found \"%s\"", fkv_full_attention.name,
                       arg);
        s->baseline = true;
        return 0;
    case OPT_SWEEP:
        if (fkv_sweep_parse(arg, &s->sweep, &err)) argp_error(state, "%s", err.message);
        return 0;
    case FKV_LETTER_OUT: s->out = arg; return 0;
    case FKV_LETTER_DRY_RUN: s->dry_run = true; return 0;
    case ARGP_KEY_END:
        if (!s->engine.text_count && !s->engine.token_ids_count)
            argp_error(state, "--text or --token-ids is missing");
        if (s->sweep.count && s->policy.gamma)
            argp_error(state, "give --gamma or --sweep, not both");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&fkv_engine_argp, 0, NULL, 0}, {&fkv_policy_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

static void warn_about_chosen_texts(const struct settings *s, const struct fkv_model *model,
                                    const struct fkv_corpus *corpus) {
    struct fkv_ratios ratios;
    if (!s->policy.gamma || s->policy.gamma[0] != '@') return;
    if (fkv_ratios_read(s->policy.gamma, model->config.layers, model->config.kv_heads, &ratios,
                        NULL))
        return;
    for (int64_t d = 0; d < corpus->document_count; d++)
        for (int32_t i = 0; i < ratios.text_count; i++)
            if (!strcmp(corpus->documents[d].text_sha256, ratios.texts[i]))
                fprintf(stderr,
                        "warning: %s was chosen on %s: its perplexity there says little about "
                        "other texts\n",
                        s->policy.gamma + 1, corpus->documents[d].name);
    fkv_ratios_free(&ratios);
}

static int make_plan(struct settings *s, const struct fkv_engine *engine, struct fkv_corpus *corpus,
                     struct fkv_error *err) {
    const struct fkv_protocol *protocol = s->plan.protocol;
    const struct fkv_config *config = &engine->model->config;
    const struct fkv_protocol_setting setting = {.tokens = s->tokens,
                                                 .score_from = s->score_from,
                                                 .trained_context = config->trained_context,
                                                 .tokenizer_bos = fkv_engine_added_bos(engine),
                                                 .bos = config->bos,
                                                 .eos = config->eos};
    if (fkv_corpus_read(&s->engine, engine, protocol->special, protocol->joined ? 0 : s->tokens,
                        corpus, err))
        return FKV_FAILED;
    return fkv_protocol_plan(corpus, &setting, &s->plan, err);
}

/* Compressions or evictions that all heads together will make: ceil((T - N) / C) per head and pass
 * longer than N. */
static int64_t expected_actions(const struct fkv_policy_setup *setup, const struct fkv_plan *plan) {
    int64_t count = 0;
    for (int64_t i = 0; i < plan->count; i++)
        for (int32_t h = 0; h < setup->layers * setup->kv_heads; h++) {
            int32_t period = fkv_policy_period(setup, h),
                    beyond = plan->passes[i].rows - setup->window;
            if (period && beyond > 0) count += (beyond + period - 1) / period;
        }
    return count;
}

/* ---- the points ---- */

struct job {
    struct settings *s;
    const struct fkv_engine *engine;
    const struct fkv_corpus *corpus;
    struct fkv_session_options session;
    int32_t lanes;
    fkv_sha256_hex model_sha256, corpus_sha256; /* with --out */
    struct fkv_sweep_point *points;             /* [count] */
    int count, pending;
    bool estimated;
    struct fkv_needs needs;
};

static struct fkv_policy_options policy_at(const struct job *job, int i) {
    struct fkv_policy_options policy = job->s->policy;
    if (job->s->sweep.count) policy.gamma = job->points[i].gamma;
    return policy;
}

/* The experiment at a point, without what it found. */
static struct fkv_experiment experiment_at(const struct job *job,
                                           const struct fkv_policy_setup *setup) {
    return (struct fkv_experiment){.model = job->engine->model,
                                   .setup = setup,
                                   .corpus = job->corpus,
                                   .plan = &job->s->plan,
                                   .baseline = job->s->baseline,
                                   .tokens = job->s->tokens,
                                   .score_from = job->s->score_from,
                                   .backend = job->engine->ops->name,
                                   .command = job->s->command,
                                   .compute = fkv_engine_compute_name(&job->s->engine, job->engine),
                                   .kernels = job->engine->device.kernels,
                                   .tokenizer_sha256 = fkv_engine_tokenizer_sha256(job->engine),
                                   .cache_dtype = job->session.cache_dtype,
                                   .model_sha256 = job->model_sha256,
                                   .corpus_sha256 = job->corpus_sha256};
}

static int set_up_point(const struct job *job, int i, struct fkv_policy_setup *setup,
                        struct fkv_error *err) {
    struct fkv_policy_options policy = policy_at(job, i);
    if (fkv_policy_setup(&policy, &job->engine->model->config, job->session.max_tokens, setup, err))
        return job->s->sweep.count ? fkv_error_prefix(err, "--sweep gamma=%s", policy.gamma)
                                   : FKV_FAILED;
    if (!job->s->sweep.count || setup->policy->takes_ratio) return FKV_OK;
    fkv_policy_setup_free(setup);
    return fkv_fail_option(err, "--sweep gamma: the policy %s has no ratio", policy.name);
}

/* Takes over what an earlier run left at a point of a sweep. */
static int look_up_point(struct job *job, int i, const struct fkv_policy_setup *setup,
                         struct fkv_error *err) {
    struct fkv_sweep_point *point = &job->points[i];
    const struct fkv_experiment experiment = experiment_at(job, setup);
    if (!job->s->sweep.count || !point->path[0] || access(point->path, F_OK)) return FKV_OK;
    if (fkv_run_file_read(point->path, &experiment, point->results, err)) return FKV_FAILED;
    point->done = true;
    if (!job->s->engine.quiet) fprintf(stderr, "%s: there already, skipped\n", point->path);
    return FKV_OK;
}

/* Names the points, checks each one's setting, and adds what the pending ones need. */
static int plan_points(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    struct fkv_needs *needs = &job->needs;
    const struct fkv_policy *policy = fkv_policy_find(s->policy.name, NULL);
    const int64_t columns =
                      s->out ? fkv_recorded_bytes(job->corpus, &s->plan, policy, s->baseline) : 0,
                  tokens = job->corpus->token_count * (int64_t)sizeof(int32_t);
    const int row = 37; /* bytes of a row of /compressions, two per action */
    int64_t most = 0;
    for (int i = 0; i < job->count; i++) {
        struct fkv_policy_setup setup;
        if (s->sweep.count ? fkv_sweep_name(&s->sweep, s->out, i, &job->points[i], err) : FKV_OK)
            return FKV_FAILED;
        if (set_up_point(job, i, &setup, err)) return FKV_FAILED;
        int64_t actions = s->out ? expected_actions(&setup, &s->plan) : 0;
        int status = look_up_point(job, i, &setup, err);
        fkv_policy_setup_free(&setup);
        if (status) return FKV_FAILED;
        if (job->points[i].done) continue;
        job->pending++;
        if (actions > most) most = actions;
        if (s->out) needs->disk += columns + tokens + actions * 2 * row + (1 << 16);
    }
    needs->host += columns + most * (int64_t)(sizeof(struct fkv_recorded_action) + 2 * (size_t)row);
    return FKV_OK;
}

/* What a user should know before the run. Of a policy with a window, positions end at it. */
static void note_context(const struct job *job, const struct fkv_policy_options *policy, FILE *to) {
    const struct fkv_policy *found = fkv_policy_find(policy->name, NULL);
    int64_t context = job->engine->model->config.trained_context, reach = job->s->plan.longest;
    int64_t window = policy->window ? policy->window : context;
    if (found->takes_window && window < reach) reach = window;
    fkv_policy_note_unused(policy, to);
    if (found->takes_window && job->s->plan.longest <= window)
        fprintf(to,
                "note: no pass is longer than the window of %" PRId64
                " slots: policy %s will do nothing\n",
                window, found->name);
    if (reach > context)
        fprintf(to, "note: positions reach %" PRId64 ", past the trained context of %" PRId64 "\n",
                reach, context);
}

/* The session of the point that needs most, into `most`, which was zero: points run one after the
 * other, and only their ratios differ. */
static int find_most_needed(const struct job *job, struct fkv_session_needs *most,
                            struct fkv_error *err) {
    for (int i = 0; i < job->count; i++) {
        struct fkv_session_needs one = {0};
        struct fkv_policy_options policy = policy_at(job, i);
        if (job->points[i].done) continue;
        if (fkv_session_add_needs(job->engine->model, &policy, &job->session, &one, err))
            return FKV_FAILED;
        most->cache = one.cache, most->scratch = one.scratch;
        if (one.own.shared > most->own.shared) most->own.shared = one.own.shared;
        if (one.own.kept > most->own.kept) most->own.kept = one.own.kept;
    }
    return FKV_OK;
}

static int check_needs(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_corpus *corpus = job->corpus;
    struct fkv_needs *needs = &job->needs;
    *needs = (struct fkv_needs){.documents = corpus->document_count,
                                .tokens = corpus->token_count,
                                .weights = job->engine->model->weight_bytes,
                                .output = s->out};
    needs->host = corpus->token_count * (int64_t)sizeof(int32_t) +
                  s->plan.count * (int64_t)sizeof(struct fkv_pass);
    if (plan_points(job, err)) return FKV_FAILED;
    needs->fed = s->plan.rows * job->pending * (s->baseline ? 2 : 1);
    struct fkv_policy_options policy = policy_at(job, 0);
    if (job->pending &&
        (find_most_needed(job, &needs->sessions, err) ||
         (s->baseline && fkv_session_add_needs(job->engine->model, &fkv_full_attention,
                                               &job->session, &needs->sessions, err))))
        return FKV_FAILED;
    FILE *to = fkv_needs_stream(&s->engine, s->dry_run);
    fkv_engine_announce(&s->engine, job->engine, to);
    fkv_policy_note_quant(&s->policy, to);
    if (to)
        fprintf(to,
                "%" PRId64 " document%s, %" PRId64 " tokens; %" PRId64 " pass%s %" PRId64
                " and score%s %" PRId64 "\n",
                corpus->document_count, corpus->document_count == 1 ? "" : "s", corpus->token_count,
                s->plan.count, s->plan.count == 1 ? " feeds" : "es feed", s->plan.rows,
                s->plan.count == 1 ? "s" : "", s->plan.scored);
    if (to) note_context(job, &policy, to);
    return fkv_needs_check(needs, job->engine, to, err);
}

/* ---- running ---- */

/* Times a block of every lane, and says what all of them will take. */
static int estimate_time(struct job *job, struct fkv_session *session, struct fkv_error *err) {
    struct fkv_plan *plan = &job->s->plan;
    if (fkv_session_rehearse(session, job->lanes, fkv_session_block(session) / job->lanes,
                             plan->longest, job->s->baseline ? FKV_SCORED_WITH_KL : FKV_SCORED,
                             &plan->cost, err))
        return FKV_FAILED;
    job->needs.seconds =
        job->pending * fkv_perplexity_seconds(plan, fkv_session_setup(session), job->s->baseline);
    fkv_needs_print_time(&job->needs, fkv_needs_stream(&job->s->engine, job->s->dry_run));
    return FKV_OK;
}

static int report_point(const struct job *job, struct fkv_sweep_point *point,
                        const struct fkv_experiment *experiment, struct fkv_error *err) {
    if (point->path[0] && fkv_run_file_write(point->path, experiment, err)) return FKV_FAILED;
    fkv_experiment_results(experiment, point->results);
    if (job->s->sweep.count) return FKV_OK;
    if (job->s->engine.json) return fkv_json_print(fkv_experiment_json(experiment), err);
    fkv_experiment_print(experiment);
    return FKV_OK;
}

/* Opens the sessions of a point and runs it; on the way, once, says how long it will all take. */
static int run_point(struct job *job, int i, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_policy_options policy = policy_at(job, i);
    struct fkv_sweep_point *point = &job->points[i];
    struct fkv_session *session = NULL, *baseline = NULL;
    struct fkv_recorded recorded = {0};
    struct fkv_perplexity result = {0};
    struct fkv_session_options options = job->session;
    options.measure_energy = s->out != NULL;
    int status = fkv_session_open(job->engine->model, &policy, &options, &session, err);
    if (!status && !job->estimated) {
        const struct fkv_config *config = &job->engine->model->config;
        fkv_note_rotation(&s->engine, config, fkv_session_rotation_positions(session));
        fkv_policy_note_left_alone(fkv_session_setup(session), config,
                                   s->engine.quiet ? NULL : stderr);
    }
    if (!status && !job->estimated && (s->dry_run || !s->engine.quiet))
        status = estimate_time(job, session, err);
    job->estimated = true;
    if (status || s->dry_run) goto done;
    if (s->sweep.count && !s->engine.quiet)
        fprintf(stderr, "gamma %s (%d of %d)\n", point->gamma, i + 1, job->count);
    if (s->baseline)
        status = fkv_session_open(job->engine->model, &fkv_full_attention, &job->session, &baseline,
                                  err);
    if (!status && s->out)
        status = fkv_recorded_open(job->corpus, &s->plan, fkv_session_setup(session)->policy,
                                   s->baseline, &recorded, err);
    if (!status)
        status = fkv_perplexity_run(job->corpus, &s->plan, session, baseline, job->lanes,
                                    s->out ? &recorded : NULL, s->engine.quiet, &result, err);
    if (!status) {
        struct fkv_experiment experiment = experiment_at(job, fkv_session_setup(session));
        experiment.result = &result;
        experiment.rope_positions = fkv_session_rotation_positions(session);
        experiment.recorded = &recorded;
        status = report_point(job, point, &experiment, err);
    }
done:
    fkv_perplexity_free(&result);
    fkv_recorded_free(&recorded);
    fkv_session_close(baseline);
    fkv_session_close(session);
    return status;
}

static int report_sweep(const struct job *job, struct fkv_error *err) {
    struct fkv_policy_setup setup;
    if (set_up_point(job, 0, &setup, err)) return FKV_FAILED;
    const struct fkv_experiment experiment = experiment_at(job, &setup);
    int status = FKV_OK;
    if (job->s->engine.json)
        status = fkv_json_print(fkv_sweep_json(job->points, job->count, &experiment), err);
    else
        fkv_sweep_print(job->points, job->count, &experiment);
    fkv_policy_setup_free(&setup);
    return status;
}

static int run_points(struct job *job, struct fkv_error *err) {
    const struct settings *s = job->s;
    if (check_needs(job, err)) return FKV_FAILED;
    const bool folder = s->sweep.count && s->out && !s->dry_run,
               made = folder && !mkdir(s->out, 0777);
    if (folder && !made && errno != EEXIST)
        return fkv_fail_errno(err, "%s: cannot make the folder", s->out);
    if (!s->dry_run) warn_about_chosen_texts(s, job->engine->model, job->corpus);
    for (int i = 0; i < job->count; i++) {
        if (job->points[i].done) continue;
        if (run_point(job, i, err)) {
            if (made) rmdir(s->out); /* where no point was written */
            return s->sweep.count ? fkv_error_prefix(err, "gamma %s", job->points[i].gamma)
                                  : FKV_FAILED;
        }
        if (s->dry_run) break;
    }
    if (s->dry_run)
        return s->engine.json ? fkv_json_print(fkv_needs_json(&job->needs), err) : FKV_OK;
    return s->sweep.count ? report_sweep(job, err) : FKV_OK;
}

/* A block for every lane. Of a sweep's points all need the same. */
static int choose_block(struct job *job, struct fkv_error *err) {
    struct fkv_policy_options policy = job->s->policy;
    if (job->s->sweep.count) policy.gamma = NULL;
    return fkv_engine_block(job->engine, &policy, job->s->baseline, job->lanes, 0, &job->session,
                            err);
}

/* Elsewhere there is no end of a prefill, and nothing would ever be selected. */
static int check_protocol(const struct settings *s, struct fkv_error *err) {
    const struct fkv_policy *policy = fkv_policy_find(s->policy.name, err);
    if (!policy) return FKV_FAILED;
    if (!policy->select || s->plan.block) return FKV_OK;
    return fkv_fail_option(err,
                           "--protocol: expected blocks:b, at whose ends policy %s acts, found %s",
                           policy->name, s->plan.name);
}

static int run(struct settings *s, const struct fkv_engine *engine, struct fkv_corpus *corpus,
               struct fkv_error *err) {
    if (make_plan(s, engine, corpus, err) || check_protocol(s, err)) return FKV_FAILED;
    s->policy.prefill_block = s->plan.block;
    struct job job = {.s = s,
                      .engine = engine,
                      .corpus = corpus,
                      .lanes = fkv_perplexity_lanes(&s->plan, s->engine.batch),
                      .count = s->sweep.count ? s->sweep.count : 1};
    job.session = fkv_perplexity_session(&s->plan, job.lanes);
    job.session.cache_dtype = fkv_engine_cache_dtype(&s->engine, engine);
    if (choose_block(&job, err)) return FKV_FAILED;
    if (s->out && (fkv_model_sha256(engine->model, job.model_sha256, err) ||
                   fkv_corpus_sha256(corpus, job.corpus_sha256, err)))
        return FKV_FAILED;
    job.points = calloc((size_t)job.count, sizeof *job.points);
    if (!job.points) return fkv_fail(err, "out of memory for %d points", job.count);
    int status =
        s->out && !s->sweep.count ? fkv_path_print(job.points[0].path, err, "%s", s->out) : FKV_OK;
    if (!status) status = run_points(&job, err);
    free(job.points);
    return status;
}

/* Refuses an output that cannot be written before the model is loaded. */
static int check_output(const struct settings *s, struct fkv_error *err) {
    if (!s->out) return FKV_OK;
    return s->sweep.count ? fkv_sweep_check_folder(s->out, err) : fkv_check_new_file(s->out, err);
}

int fkv_command_ppl(int argc, char **argv) {
    static struct settings s; /* thousands of paths: too much for a stack */
    struct fkv_error err = {0};
    struct fkv_engine engine = {0};
    struct fkv_operator_data operator_data = {0};
    struct fkv_corpus corpus = {0};
    fkv_engine_options_default(&s.engine);
    fkv_policy_options_default(&s.policy);
    s.command = fkv_join_arguments(argc, argv);
    if (fkv_protocol_parse("whole", &s.plan, &err))
        return fkv_tool_failed("freqkv-replay ppl", &err);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = s.command ? check_output(&s, &err) : fkv_fail(&err, "out of memory");
    if (!status) status = fkv_operator_data_read(&s.policy, &operator_data, &err);
    if (!status) status = fkv_engine_open(&s.engine, &engine, &err);
    if (!status) status = run(&s, &engine, &corpus, &err);
    fkv_sweep_free(&s.sweep);
    fkv_plan_free(&s.plan);
    fkv_corpus_free(&corpus);
    fkv_engine_close(&engine);
    fkv_operator_data_free(&operator_data);
    free(s.command);
    return status ? fkv_tool_failed("freqkv-replay ppl", &err) : FKV_EXIT_DONE;
}
