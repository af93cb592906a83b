/* See points.h. Points run one after the other, so that what an interruption leaves is whole runs.
 */
#include "replay/perplexity/points.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cache/ratios.h"

static bool is_baseline(const struct fkv_points *p, int i) {
    return p->from == FKV_BASELINE_FIRST && i == 0;
}

static bool has_baseline(const struct fkv_points *p, int i) {
    return p->from != FKV_NO_BASELINE && !is_baseline(p, i);
}

/* Puts the name of a point before a message. */
static int name_point(const struct fkv_points *p, int i, const char *prefix,
                      struct fkv_error *err) {
    return p->points[i].name[0] ? fkv_error_prefix(err, "%s%s", prefix, p->points[i].name)
                                : FKV_FAILED;
}

struct fkv_experiment fkv_points_experiment(const struct fkv_points *p, int i,
                                            const struct fkv_policy_setup *setup) {
    const char *missing = fkv_baseline_run_missing(&p->baseline);
    const bool from_run = has_baseline(p, i) && p->baseline.nll;
    return (struct fkv_experiment){
        .model = p->replay->engine.model,
        .setup = setup,
        .corpus = p->corpus,
        .plan = p->plan,
        .baseline = has_baseline(p, i),
        .baseline_missing = from_run && *missing ? missing : NULL,
        .tokens = p->tokens,
        .score_from = p->score_from,
        .backend = p->replay->engine.ops->name,
        .command = p->replay->command,
        .compute = fkv_engine_compute_name(&p->replay->options, &p->replay->engine),
        .kernels = p->replay->engine.device.kernels,
        .tokenizer_sha256 = fkv_engine_tokenizer_sha256(&p->replay->engine),
        .cache_dtype = p->session.cache_dtype,
        .model_sha256 = p->model_sha256,
        .corpus_sha256 = p->corpus_sha256};
}

int fkv_points_setup(const struct fkv_points *p, int i, struct fkv_policy_setup *setup,
                     struct fkv_error *err) {
    if (!fkv_policy_setup(&p->points[i].policy, &p->replay->engine.model->config,
                          p->session.max_tokens, setup, err))
        return FKV_OK;
    return name_point(p, i, p->option, err);
}

/* ---- opening ---- */

int fkv_points_read(struct fkv_points *p, struct fkv_corpus *corpus, struct fkv_error *err) {
    const struct fkv_engine *engine = &p->replay->engine;
    const struct fkv_config *config = &engine->model->config;
    const struct fkv_protocol *protocol = p->plan->protocol;
    const struct fkv_protocol_setting setting = {.tokens = p->tokens,
                                                 .score_from = p->score_from,
                                                 .trained_context = config->trained_context,
                                                 .tokenizer_bos = fkv_engine_added_bos(engine),
                                                 .bos = config->bos,
                                                 .eos = config->eos};
    p->corpus = corpus;
    if (fkv_corpus_read(&p->replay->options, engine, protocol->special,
                        protocol->joined ? 0 : p->tokens, corpus, err))
        return FKV_FAILED;
    return fkv_protocol_plan(corpus, &setting, p->plan, err);
}

int fkv_points_check_blocks(const struct fkv_plan *plan, const struct fkv_policy *policy,
                            struct fkv_error *err) {
    if (!policy->select || plan->block) return FKV_OK;
    return fkv_fail_option(err,
                           "--protocol: expected blocks:b, at whose ends policy %s acts, found %s",
                           policy->name, plan->name);
}

/* A baseline is of full attention in this very setting. */
static int read_baseline(struct fkv_points *p, const char *path, struct fkv_error *err) {
    struct fkv_policy_setup setup;
    if (fkv_policy_setup(&fkv_full_attention, &p->replay->engine.model->config,
                         p->session.max_tokens, &setup, err))
        return FKV_FAILED;
    const struct fkv_experiment e = fkv_points_experiment(p, 0, &setup);
    int status = fkv_run_file_read_baseline(path, &e, &p->baseline, err);
    fkv_policy_setup_free(&setup);
    return status;
}

/* A block for every lane, as for the first point. */
static int choose_block(struct fkv_points *p, struct fkv_error *err) {
    const bool beside = p->from == FKV_BASELINE_BESIDE;
    return fkv_engine_block(&p->replay->engine, &p->points[0].policy, beside, p->lanes, 0,
                            &p->session, err);
}

int fkv_points_open(struct fkv_points *p, struct fkv_error *err) {
    p->lanes = fkv_perplexity_lanes(p->plan, p->replay->options.batch);
    p->session = fkv_perplexity_session(p->plan, p->lanes);
    p->session.cache_dtype = fkv_engine_cache_dtype(&p->replay->options, &p->replay->engine);
    for (int i = 0; i < p->count; i++) p->points[i].policy.prefill_block = p->plan->block;
    if (choose_block(p, err)) return FKV_FAILED;
    if ((p->replay->out || p->from == FKV_BASELINE_RUN) &&
        (fkv_model_sha256(p->replay->engine.model, p->model_sha256, err) ||
         fkv_corpus_sha256(p->corpus, p->corpus_sha256, err)))
        return FKV_FAILED;
    return p->from == FKV_BASELINE_RUN ? read_baseline(p, p->baseline_path, err) : FKV_OK;
}

void fkv_points_close(struct fkv_points *p) { fkv_baseline_run_free(&p->baseline); }

/* ---- needs ---- */

/* Compressions or evictions that all heads together will make: ceil((T - N) / C) per head and pass
 * longer than N. */
static int64_t expected_actions(const struct fkv_policy_setup *setup, const struct fkv_plan *plan) {
    int64_t count = 0;
    for (int64_t i = 0; i < plan->count; i++)
        for (int32_t h = 0; h < setup->layers * setup->kv_heads; h++) {
            const struct fkv_policy *policy = fkv_policy_of_head(setup, h);
            int32_t period = policy->takes_ratio ? fkv_policy_period(setup, h) : 0,
                    beyond = plan->passes[i].rows - setup->window;
            if (period && beyond > 0) count += (beyond + period - 1) / period;
        }
    return count;
}

/* Takes over what an earlier run left at a point. */
static int look_up(struct fkv_points *p, int i, const struct fkv_policy_setup *setup,
                   struct fkv_error *err) {
    struct fkv_point *point = &p->points[i];
    const struct fkv_experiment experiment = fkv_points_experiment(p, i, setup);
    if (!p->resume || !point->path[0] || access(point->path, F_OK)) return FKV_OK;
    if (fkv_run_file_read(point->path, &experiment, point->results, err)) return FKV_FAILED;
    point->done = true;
    if (!p->replay->options.quiet) fprintf(stderr, "%s: there already, skipped\n", point->path);
    return FKV_OK;
}

static int32_t state_dim(const struct fkv_points *p, int i) {
    const bool keeps = p->final_states || is_baseline(p, i);
    return keeps ? p->replay->engine.model->config.dim : 0;
}

/* Checks each point's setting, and adds what the pending ones need. */
static int check_points(struct fkv_points *p, struct fkv_error *err) {
    const int64_t tokens = p->corpus->token_count * (int64_t)sizeof(int32_t);
    const int row = 37; /* bytes of a row of /compressions, two per action */
    int64_t most = 0;
    for (int i = 0; i < p->count; i++) {
        struct fkv_policy_setup setup;
        if (fkv_points_setup(p, i, &setup, err)) return FKV_FAILED;
        const struct fkv_recorded_options kept = {setup.policy, has_baseline(p, i),
                                                  state_dim(p, i)};
        const int64_t actions = p->replay->out ? expected_actions(&setup, p->plan) : 0,
                      columns = p->replay->out ? fkv_recorded_bytes(p->corpus, p->plan, &kept) : 0;
        int status = look_up(p, i, &setup, err);
        fkv_policy_setup_free(&setup);
        if (status) return FKV_FAILED;
        if (p->points[i].done) continue;
        p->pending++;
        const int64_t bytes =
            columns + actions * (int64_t)(sizeof(struct fkv_recorded_action) + 2 * (size_t)row);
        if (bytes > most) most = bytes;
        if (p->replay->out) p->needs.disk += columns + tokens + actions * 2 * row + (1 << 16);
    }
    p->needs.host += most;
    return FKV_OK;
}

/* What a user should know of positions before the run; of a policy with a window they end at it. */
static void note_context(const struct fkv_points *p, FILE *to) {
    const int64_t context = p->replay->engine.model->config.trained_context,
                  longest = p->plan->longest;
    int64_t furthest = 0;
    for (int i = 0; i < p->count; i++) {
        const struct fkv_policy_options *policy = &p->points[i].policy;
        const struct fkv_policy *found = fkv_policy_find(policy->name, NULL);
        struct fkv_policy_setup setup;
        if (fkv_points_setup(p, i, &setup, NULL)) continue; /* checked before */
        const int64_t window = setup.window,
                      reach = found->takes_window && window < longest ? window : longest;
        fkv_policy_setup_free(&setup);
        if (reach > furthest) furthest = reach;
        if (i && policy->name == p->points[0].policy.name) continue; /* a sweep: said once */
        fkv_policy_note_unused(policy, to);
        if (found->takes_window && longest <= window)
            fprintf(to,
                    "note: no pass is longer than the window of %" PRId64
                    " slots: policy %s will do nothing\n",
                    window, found->name);
    }
    if (furthest > context)
        fprintf(to, "note: positions reach %" PRId64 ", past the trained context of %" PRId64 "\n",
                furthest, context);
}

/* The file of a policy's table of ratios or policies; NULL: it has none. */
static const char *table_of(const struct fkv_policy_options *options) {
    const struct fkv_policy *policy = fkv_policy_find(options->name, NULL);
    for (int i = 0; policy->takes_table && options->own[i].name; i++)
        if (!strcmp(options->own[i].name, policy->options[FKV_TABLE].name))
            return options->own[i].text;
    return options->gamma && options->gamma[0] == '@' ? options->gamma + 1 : NULL;
}

/* A table says on which texts it was chosen. */
static void warn_about_chosen_texts(const struct fkv_points *p, const char *table) {
    const struct fkv_config *config = &p->replay->engine.model->config;
    const struct fkv_corpus *corpus = p->corpus;
    struct fkv_ratios ratios;
    if (!table || fkv_ratios_read_table(table, config->layers, config->kv_heads, &ratios, NULL))
        return;
    for (int64_t d = 0; d < corpus->document_count; d++)
        for (int32_t i = 0; i < ratios.text_count; i++)
            if (!strcmp(corpus->documents[d].text_sha256, ratios.texts[i]))
                fprintf(stderr,
                        "warning: %s was chosen on %s: its perplexity there says little about "
                        "other texts\n",
                        table, corpus->documents[d].name);
    fkv_ratios_free(&ratios);
}

/* The session of the point that needs most, into `most`, which was zero. */
static int find_most_needed(const struct fkv_points *p, struct fkv_session_needs *most,
                            struct fkv_error *err) {
    for (int i = 0; i < p->count; i++) {
        struct fkv_session_needs one = {0};
        if (p->points[i].done) continue;
        if (fkv_session_add_needs(p->replay->engine.model, &p->points[i].policy, &p->session, &one,
                                  err))
            return FKV_FAILED;
        if (one.cache + one.scratch > most->cache + most->scratch)
            most->cache = one.cache, most->scratch = one.scratch;
        if (one.own.shared > most->own.shared) most->own.shared = one.own.shared;
        if (one.own.kept > most->own.kept) most->own.kept = one.own.kept;
    }
    return FKV_OK;
}

/* What full attention takes beside a point: a session, or what is held of its run. */
static int add_baseline(struct fkv_points *p, struct fkv_error *err) {
    const struct fkv_config *config = &p->replay->engine.model->config;
    const int64_t columns = fkv_recorded_length(p->corpus, p->plan) * (int64_t)sizeof(float);
    if (p->from == FKV_BASELINE_BESIDE)
        return fkv_session_add_needs(p->replay->engine.model, &fkv_full_attention, &p->session,
                                     &p->needs.sessions, err);
    if (p->from == FKV_BASELINE_FIRST || p->baseline.final_states) {
        p->needs.host += columns * (2 + config->dim);
        p->needs.sessions.scratch += fkv_perplexity_kept_bytes(config, &p->session);
    } else if (p->from == FKV_BASELINE_RUN) {
        p->needs.host += columns * 2;
    }
    return FKV_OK;
}

int fkv_points_check(struct fkv_points *p, const struct fkv_needs *other, struct fkv_error *err) {
    const struct fkv_corpus *corpus = p->corpus;
    const struct fkv_plan *plan = p->plan;
    struct fkv_needs *needs = &p->needs;
    *needs = (struct fkv_needs){.documents = corpus->document_count,
                                .tokens = corpus->token_count,
                                .weights = p->replay->engine.model->weight_bytes,
                                .output = p->replay->out};
    needs->host = corpus->token_count * (int64_t)sizeof(int32_t) +
                  plan->count * (int64_t)sizeof(struct fkv_pass);
    if (check_points(p, err)) return FKV_FAILED;
    needs->fed = plan->rows * p->pending * (p->from == FKV_BASELINE_BESIDE ? 2 : 1);
    p->other_fed = other ? other->fed : 0;
    if (other) needs->fed += other->fed, needs->host += other->host, needs->disk += other->disk;
    if (p->pending && (find_most_needed(p, &needs->sessions, err) || add_baseline(p, err)))
        return FKV_FAILED;
    FILE *to = fkv_replay_announce(p->replay);
    if (to)
        fprintf(to,
                "%" PRId64 " document%s, %" PRId64 " tokens; %" PRId64 " pass%s %" PRId64
                " and score%s %" PRId64 "\n",
                corpus->document_count, corpus->document_count == 1 ? "" : "s", corpus->token_count,
                plan->count, plan->count == 1 ? " feeds" : "es feed", plan->rows,
                plan->count == 1 ? "s" : "", plan->scored);
    if (to) note_context(p, to);
    if (fkv_needs_check(needs, &p->replay->engine, to, err)) return FKV_FAILED;
    for (int i = 0; i < p->count && !p->replay->dry_run; i++)
        warn_about_chosen_texts(p, table_of(&p->points[i].policy));
    return FKV_OK;
}

/* ---- running ---- */

/* Times a block of every lane, and says what all pending points will take. */
static int estimate_time(struct fkv_points *p, int i, struct fkv_session *session,
                         struct fkv_error *err) {
    struct fkv_plan *plan = p->plan;
    const bool beside = p->from == FKV_BASELINE_BESIDE;
    if (fkv_session_rehearse(session, p->lanes, fkv_session_block(session) / p->lanes,
                             plan->longest, has_baseline(p, i) ? FKV_SCORED_WITH_KL : FKV_SCORED,
                             &plan->cost, err))
        return FKV_FAILED;
    for (int k = 0; k < p->count; k++) {
        struct fkv_policy_setup setup;
        if (p->points[k].done) continue;
        if (fkv_points_setup(p, k, &setup, err)) return FKV_FAILED;
        p->needs.seconds += fkv_perplexity_seconds(plan, &setup, beside);
        fkv_policy_setup_free(&setup);
    }
    /* What is fed besides takes as long per token. */
    p->needs.seconds *= 1 + (double)p->other_fed / ((double)plan->rows * p->pending);
    fkv_needs_print_time(&p->needs, fkv_needs_stream(&p->replay->options, p->replay->dry_run));
    return FKV_OK;
}

/* Once, with the first session: notes, and how long it will all take. */
static int announce(struct fkv_points *p, int i, struct fkv_session *session,
                    struct fkv_error *err) {
    const struct fkv_config *config = &p->replay->engine.model->config;
    if (p->estimated) return FKV_OK;
    p->estimated = true;
    fkv_note_rotation(&p->replay->options, config, fkv_session_rotation_positions(session));
    fkv_policy_note_left_alone(fkv_session_setup(session), config,
                               p->replay->options.quiet ? NULL : stderr);
    return fkv_replay_tells_time(p->replay) ? estimate_time(p, i, session, err) : FKV_OK;
}

static int run_session(struct fkv_points *p, int i, struct fkv_session *session, bool report,
                       struct fkv_error *err) {
    struct fkv_point *point = &p->points[i];
    const struct fkv_policy_setup *setup = fkv_session_setup(session);
    const struct fkv_recorded_options kept = {setup->policy, has_baseline(p, i), state_dim(p, i)};
    const bool files = point->path[0];
    struct fkv_session *beside = NULL;
    struct fkv_recorded recorded = {0};
    struct fkv_perplexity result = {0};
    int status = FKV_OK;
    if (p->from == FKV_BASELINE_BESIDE)
        status = fkv_session_open(p->replay->engine.model, &fkv_full_attention, &p->session,
                                  &beside, err);
    if (!status && files) status = fkv_recorded_open(p->corpus, p->plan, &kept, &recorded, err);
    const struct fkv_baseline baseline = {
        beside, has_baseline(p, i) && p->baseline.nll ? &p->baseline : NULL};
    if (!status)
        status =
            fkv_perplexity_run(p->corpus, p->plan, session, &baseline, p->lanes,
                               files ? &recorded : NULL, p->replay->options.quiet, &result, err);
    if (!status) {
        struct fkv_experiment experiment = fkv_points_experiment(p, i, setup);
        experiment.result = &result;
        experiment.rope_positions = fkv_session_rotation_positions(session);
        experiment.recorded = &recorded;
        if (files) status = fkv_run_file_write(point->path, &experiment, err);
        fkv_experiment_results(&experiment, point->results);
        if (!status && report && p->replay->options.json)
            status = fkv_json_print(fkv_experiment_json(&experiment), err);
        else if (!status && report)
            fkv_experiment_print(&experiment);
    }
    fkv_perplexity_free(&result);
    fkv_recorded_free(&recorded);
    fkv_session_close(beside);
    return status;
}

int fkv_points_run(struct fkv_points *p, int i, bool report, struct fkv_error *err) {
    struct fkv_point *point = &p->points[i];
    struct fkv_session_options options = p->session;
    struct fkv_session *session;
    if (p->from == FKV_BASELINE_FIRST && i && !point->done && !p->baseline.nll &&
        !p->replay->dry_run && read_baseline(p, p->points[0].path, err))
        return FKV_FAILED;
    if (point->done) return FKV_OK;
    options.measure_energy = point->path[0];
    if (fkv_session_open(p->replay->engine.model, &point->policy, &options, &session, err))
        return name_point(p, i, p->prefix, err);
    int status = announce(p, i, session, err);
    if (!status && !p->replay->dry_run) {
        if (point->name[0] && !p->replay->options.quiet)
            fprintf(stderr, "%s%s (%d of %d)\n", p->prefix, point->name, i + 1, p->count);
        status = run_session(p, i, session, report, err);
    }
    fkv_session_close(session);
    return status ? name_point(p, i, p->prefix, err) : FKV_OK;
}
