/* The runner of every protocol. It knows passes, not protocols. Passes run in lanes, one per
 * sequence of the session; a lane that is through its pass takes the next one. In a round every
 * lane feeds a block of its pass, all of the pass's tokens, so that the number of compressions is
 * that after T tokens even though the last one predicts nothing that is scored; the baseline is fed
 * the same before either is scored, so that only one round's hidden states of each are alive. Rows
 * are scored in the order of the feed, across lanes, so that one product serves the short blocks of
 * many lanes.
 *
 * How many lanes there are changes nothing but the order in which float64 sums are formed: a
 * token's document and its bootstrap block follow from the plan and not from when it was scored.
 * Per-token values are float32 and kept only for a run file. A baseline that is taken from such a
 * file is compared with by its final hidden states, whose logits are computed again. */
#include "replay/perplexity/perplexity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session/kept_logits.h"
#include "engine/session/taps.h"
#include "kernels/base/progress.h"

enum { IDLE = -1, SCORED_ROWS = 512 /* at a time, most */ };

struct lane {
    int64_t pass;     /* or IDLE */
    int64_t document; /* of the target counted last, at first of the first token fed */
    int64_t scored;   /* targets of that document that come before this one in the plan */
    int32_t fed;      /* rows of the pass */
    int32_t *tokens;  /* [block] */
};

/* One row of a feed. */
struct row {
    int32_t lane;
    int32_t position; /* of its target in the lane's pass; 0: not scored */
};

struct run {
    const struct fkv_corpus *corpus;
    const struct fkv_plan *plan;
    struct fkv_session *session, *baseline;      /* baseline NULL: none is computed beside */
    const struct fkv_baseline_run *baseline_run; /* NULL: none is taken from a run */
    struct fkv_kept_logits *kept;                /* SCORED_ROWS of it; NULL: it has no states */
    float *states; /* [SCORED_ROWS, dim] of the rows being scored; NULL: none are kept or read */
    struct fkv_recorded *recorded;
    struct fkv_perplexity *result;

    struct lane *lanes; /* [lane_count] */
    int32_t lane_count;
    int32_t block;   /* most rows of a lane's feed */
    int32_t *tokens; /* [lane_count, block], the lanes' */
    int64_t next_pass;
    double seconds; /* of the session's feeds */

    struct fkv_targets targets;

    struct fkv_feed *feeds; /* [lane_count] */
    struct row *rows;       /* [lane_count, block] of the last feed */
    /* of the rows being scored */
    int32_t target_ids[SCORED_ROWS], top1[SCORED_ROWS], baseline_top1[SCORED_ROWS];
    double nll[SCORED_ROWS], baseline_nll[SCORED_ROWS], kl[SCORED_ROWS];
    struct fkv_row_state state[SCORED_ROWS];

    int64_t *head_actions; /* [layers, kv_heads] that count */
    int32_t *head_slots;   /* [layers, kv_heads] scratch */
};

int32_t fkv_perplexity_lanes(const struct fkv_plan *plan, int32_t batch) {
    return plan->count < batch ? (int32_t)plan->count : batch;
}

struct fkv_session_options fkv_perplexity_session(const struct fkv_plan *plan, int32_t lanes) {
    return (struct fkv_session_options){.sequences = lanes, .max_tokens = plan->longest};
}

int64_t fkv_perplexity_kept_bytes(const struct fkv_config *config,
                                  const struct fkv_session_options *options) {
    return fkv_kept_logits_bytes(config, options, SCORED_ROWS);
}

static bool has_baseline(const struct run *run) { return run->baseline || run->baseline_run; }

/* ---- scoring ---- */

static int take_action(void *context, const struct fkv_tap_event *event, struct fkv_error *err) {
    struct run *run = context;
    const struct fkv_policy_setup *setup = fkv_session_setup(run->session);
    const int32_t h = event->layer * setup->kv_heads + event->head->kv_head;
    const struct fkv_policy *policy = fkv_policy_of_head(setup, h);
    if (!policy->counts_compressions && !policy->counts_evictions) return FKV_OK;
    run->result->slots_kept[h] += event->head->slots;
    run->head_actions[h]++;
    if (!run->recorded) return FKV_OK;
    return fkv_recorded_add_action(
        run->recorded,
        &(struct fkv_recorded_action){.pass = run->lanes[event->sequence].pass,
                                      .token = event->token,
                                      .layer = event->layer,
                                      .kv_head = event->head->kv_head,
                                      .round = event->head->rounds,
                                      .slots = event->head->slots,
                                      .eviction = policy->counts_evictions,
                                      .energy = *event->energy},
        err);
}

static void record_row(struct run *run, int32_t i, int64_t pass, int32_t position,
                       const struct fkv_sums *one) {
    struct fkv_recorded *r = run->recorded;
    const int64_t at = fkv_recorded_index(run->plan, pass, position);
    r->nll[at] = (float)run->nll[i];
    r->top1[at] = (float)run->top1[i];
    r->round[at] = (float)run->state[i].compressions;
    r->slots_used[at] = (float)run->state[i].slots;
    r->since[at] = (float)run->state[i].since_compression;
    if (r->evictions) {
        r->evictions[at] = (float)run->state[i].evictions;
        r->since_eviction[at] = (float)run->state[i].since_eviction;
    }
    if (r->final_states)
        memcpy(r->final_states + at * r->dim, run->states + (int64_t)i * r->dim,
               (size_t)r->dim * sizeof *r->final_states);
    if (!has_baseline(run)) return;
    r->baseline_nll[at] = (float)run->baseline_nll[i];
    r->kl[at] = (float)one->kl;
    r->agree[at] = (float)one->agree;
}

/* What row i adds. Of a baseline that is taken from a run, KL and agreement may not be known. */
static struct fkv_sums sums_of_row(const struct run *run, int32_t i) {
    struct fkv_sums one = {.count = 1, .nll = run->nll[i]};
    if (!has_baseline(run)) return one;
    const bool known = run->baseline || run->kept;
    one.baseline_nll = run->baseline_nll[i];
    one.kl = known ? run->kl[i] : NAN;
    one.agree = known || run->baseline_run->top1 ? run->top1[i] == run->baseline_top1[i] : NAN;
    return one;
}

/* Adds scored row i. */
static int count_row(struct run *run, int32_t i, const struct row *row, struct fkv_error *err) {
    struct lane *lane = &run->lanes[row->lane];
    int64_t target = run->plan->passes[lane->pass].start + row->position;
    int64_t d = fkv_document_of(run->corpus, lane->document, target);
    if (d > lane->document) lane->scored = 0;
    lane->document = d;
    const struct fkv_sums one = sums_of_row(run, i);
    if (!isfinite(one.nll) || !isfinite(one.baseline_nll) ||
        ((run->baseline || run->kept) && !isfinite(one.kl)))
        return fkv_fail(err, "%s: token %lld: nll is %g%s: the model's logits are not finite there",
                        run->corpus->documents[d].name,
                        (long long)(target - run->corpus->documents[d].offset), one.nll,
                        has_baseline(run) ? " (or the baseline's)" : "");
    fkv_targets_add(&run->targets, d, lane->scored++, &one);
    fkv_sums_add(&run->result->total, &one);
    if (run->recorded) record_row(run, i, lane->pass, row->position, &one);
    return FKV_OK;
}

/* Scores rows [at, at+count) beside what a run of full attention found at their targets. */
static int score_beside_run(struct run *run, int32_t at, int32_t count,
                            const struct fkv_row_scores *scores,
                            const struct fkv_row_scores *baseline, struct fkv_error *err) {
    const struct fkv_baseline_run *full = run->baseline_run;
    for (int32_t i = 0; i < count; i++) {
        const struct row *row = &run->rows[at + i];
        const int64_t index =
            fkv_recorded_index(run->plan, run->lanes[row->lane].pass, row->position);
        run->baseline_nll[i] = full->nll[index];
        run->baseline_top1[i] = full->top1 ? (int32_t)full->top1[index] : -1;
        if (run->kept)
            memcpy(run->states + (int64_t)i * full->dim, full->final_states + index * full->dim,
                   (size_t)full->dim * sizeof *run->states);
    }
    if (!run->kept)
        return fkv_session_score(run->session, at, count, run->target_ids, scores->nll,
                                 scores->top1, err);
    if (fkv_kept_logits_write(run->kept, 0, count, run->states, err)) return FKV_FAILED;
    return fkv_session_compare_kept(run->session, at, count, run->target_ids, run->kept, 0, scores,
                                    baseline, run->kl, err);
}

/* Scores rows [at, at+count) of the last feed, all of which have a target. */
static int score_rows(struct run *run, int32_t at, int32_t count, struct fkv_error *err) {
    for (int32_t i = 0; i < count; i++) {
        const struct row *row = &run->rows[at + i];
        run->target_ids[i] =
            run->corpus
                ->tokens[run->plan->passes[run->lanes[row->lane].pass].start + row->position];
    }
    const struct fkv_row_scores scores = {run->nll, run->top1},
                                baseline = {run->baseline_nll, run->baseline_top1};
    int status =
        run->baseline ? fkv_session_compare(run->session, run->baseline, at, count, run->target_ids,
                                            &scores, &baseline, run->kl, err)
        : run->baseline_run
            ? score_beside_run(run, at, count, &scores, &baseline, err)
            : fkv_session_score(run->session, at, count, run->target_ids, run->nll, run->top1, err);
    if (!status && run->recorded && run->recorded->final_states)
        status = fkv_session_final_states(run->session, at, count, run->states, err);
    if (status) return FKV_FAILED;
    fkv_session_row_state(run->session, at, count, run->state);
    for (int32_t i = 0; i < count; i++)
        if (count_row(run, i, &run->rows[at + i], err)) return FKV_FAILED;
    return FKV_OK;
}

/* Scores what has a target among `rows` rows. */
static int score_feed(struct run *run, int32_t rows, struct fkv_error *err) {
    for (int32_t at = 0, count; at < rows; at += count) {
        for (count = 0; count < SCORED_ROWS && at + count < rows && run->rows[at + count].position;)
            count++;
        if (count && score_rows(run, at, count, err)) return FKV_FAILED;
        if (!count) count = 1;
    }
    return FKV_OK;
}

/* ---- running ---- */

/* Gives an idle lane the next pass, if there is one. */
static void take_pass(struct run *run, int32_t l) {
    struct lane *lane = &run->lanes[l];
    if (lane->pass != IDLE || run->next_pass == run->plan->count) return;
    lane->pass = run->next_pass++;
    const struct fkv_pass *pass = &run->plan->passes[lane->pass];
    lane->document = pass->document;
    if (pass->until > pass->from)
        lane->document = fkv_document_of(run->corpus, lane->document, pass->start + pass->from + 1);
    lane->scored = run->targets.scored_before[lane->pass];
    lane->fed = 0;
    fkv_session_reset(run->session, l);
    if (run->plan->block) fkv_session_set_prefill(run->session, l, run->plan->block, pass->rows);
    if (run->baseline) fkv_session_reset(run->baseline, l);
}

/* The next tokens of a lane's pass, at most to the end of the protocol's block; they become rows
 * `at` and on of the feed. */
static int32_t next_tokens(struct run *run, int32_t l, int32_t at) {
    const struct lane *lane = &run->lanes[l];
    const struct fkv_pass *pass = &run->plan->passes[lane->pass];
    int32_t count = pass->rows - lane->fed;
    if (run->plan->block && count > run->plan->block - lane->fed % run->plan->block)
        count = run->plan->block - lane->fed % run->plan->block;
    if (count > run->block) count = run->block;
    for (int32_t i = 0; i < count; i++) {
        int32_t row = lane->fed + i;
        lane->tokens[i] =
            row == 0 && pass->first >= 0 ? pass->first : run->corpus->tokens[pass->start + row];
        run->rows[at + i] = (struct row){l, row >= pass->from && row < pass->until ? row + 1 : 0};
    }
    return count;
}

/* Feeds both sessions; the clock runs for the policy's session only. */
static int feed_sessions(struct run *run, int32_t feeds, struct fkv_error *err) {
    const struct fkv_model *model = fkv_session_model(run->session);
    if (model->ops->synchronize(model->backend, err)) return FKV_FAILED;
    double started = fkv_seconds();
    if (fkv_session_feed_batch(run->session, run->feeds, feeds, err) ||
        model->ops->synchronize(model->backend, err))
        return FKV_FAILED;
    run->seconds += fkv_seconds() - started;
    if (run->baseline && fkv_session_feed_batch(run->baseline, run->feeds, feeds, err))
        return fkv_error_prefix(err, "baseline");
    return FKV_OK;
}

/* Whole numbers below 2^53: their sums do not depend on the order of the passes. */
static void count_slots(struct run *run, int32_t sequence) {
    const struct fkv_policy_setup *setup = fkv_session_setup(run->session);
    fkv_session_slots(run->session, sequence, run->head_slots, NULL);
    for (int32_t h = 0; h < setup->layers * setup->kv_heads; h++)
        run->result->slots_end[h] += run->head_slots[h];
}

/* After a round: frees the lanes that are through. */
static void advance_lanes(struct run *run, int32_t feeds) {
    for (int32_t f = 0; f < feeds; f++) {
        struct lane *lane = &run->lanes[run->feeds[f].sequence];
        lane->fed += run->feeds[f].count;
        if (lane->fed < run->plan->passes[lane->pass].rows) continue;
        count_slots(run, run->feeds[f].sequence);
        lane->pass = IDLE;
    }
}

/* Feeds and scores a block of every lane; *rows 0 when nothing is left. */
static int run_round(struct run *run, int32_t *rows, struct fkv_error *err) {
    int32_t feeds = 0;
    *rows = 0;
    for (int32_t l = 0; l < run->lane_count; l++) {
        take_pass(run, l);
        if (run->lanes[l].pass == IDLE) continue;
        int32_t count = next_tokens(run, l, *rows);
        run->feeds[feeds++] = (struct fkv_feed){l, run->lanes[l].tokens, count};
        *rows += count;
    }
    if (!feeds) return FKV_OK;
    if (feed_sessions(run, feeds, err) || score_feed(run, *rows, err)) return FKV_FAILED;
    advance_lanes(run, feeds);
    return FKV_OK;
}

double fkv_perplexity_seconds(const struct fkv_plan *plan, const struct fkv_policy_setup *setup,
                              bool baseline) {
    double tokens = 0, slots = 0;
    for (int64_t i = 0; i < plan->count; i++) {
        const double rows = plan->passes[i].rows;
        tokens += baseline ? 2 * rows : rows;
        slots +=
            fkv_policy_slots(setup, plan->passes[i].rows) + (baseline ? rows * (rows + 1) / 2 : 0);
    }
    return fkv_cost_seconds(&plan->cost, tokens, slots);
}

/* Seconds that the tokens fed so far were to take. */
static double expected_so_far(const struct run *run) {
    struct fkv_session_statistics fed, baseline = {0};
    fkv_session_statistics(run->session, &fed);
    if (run->baseline) fkv_session_statistics(run->baseline, &baseline);
    return fkv_cost_seconds(&run->plan->cost, (double)(fed.tokens + baseline.tokens),
                            fed.slots_sum + baseline.slots_sum);
}

static int run_all(struct run *run, bool quiet, struct fkv_error *err) {
    struct fkv_progress progress;
    int64_t done = 0;
    int32_t rows = 0;
    int status;
    fkv_progress_start(&progress, "tokens", run->plan->rows, quiet);
    const double seconds =
        fkv_perplexity_seconds(run->plan, fkv_session_setup(run->session), run->baseline != NULL);
    fkv_progress_weigh(&progress, seconds);
    do {
        status = run_round(run, &rows, err);
        done += rows;
        fkv_progress_update_work(&progress, done, seconds > 0 ? expected_so_far(run) : (double)done,
                                 run->corpus->documents[run->lanes[0].document].name);
    } while (!status && rows);
    fkv_progress_finish(&progress);
    return status;
}

/* Time spent in actions so far; only the policy's session has any, for a baseline never acts. */
static int read_stopwatch(const struct run *run, double *seconds, struct fkv_error *err) {
    const struct fkv_model *model = fkv_session_model(run->session);
    return model->ops->time_read(model->backend, seconds, err);
}

/* What the session spent in this run, with the run's own clock. */
static int take_statistics(struct run *run, const struct fkv_session_statistics *before,
                           double acted_before, struct fkv_error *err) {
    struct fkv_session_statistics *spent = &run->result->statistics;
    const struct fkv_policy_setup *setup = fkv_session_setup(run->session);
    double acted;
    if (read_stopwatch(run, &acted, err)) return FKV_FAILED;
    fkv_session_statistics(run->session, spent);
    spent->tokens -= before->tokens;
    spent->compressions -= before->compressions;
    spent->evictions -= before->evictions;
    spent->selections -= before->selections;
    spent->slots_kept -= before->slots_kept;
    spent->slots_sum -= before->slots_sum;
    run->result->seconds = run->seconds;
    run->result->seconds_compressing =
        setup->policy->counts_compressions ? acted - acted_before : 0;
    const int32_t heads = setup->layers * setup->kv_heads;
    for (int32_t h = 0; h < heads; h++) {
        run->result->slots_end[h] /= (double)run->plan->count;
        run->result->slots_kept[h] /= (double)run->head_actions[h];
    }
    for (int32_t l = 0; l < run->lane_count; l++) {
        fkv_session_slots(run->session, l, NULL, run->head_slots);
        for (int32_t h = 0; h < heads; h++)
            if (run->head_slots[h] > run->result->slots_most[h])
                run->result->slots_most[h] = run->head_slots[h];
    }
    run->result->cache_bytes_allocated = fkv_session_allocated(run->session);
    double runs = (double)heads * (double)run->plan->count;
    run->result->compressions = (double)spent->compressions / runs;
    run->result->evictions = (double)spent->evictions / runs;
    return FKV_OK;
}

static void close_run(struct run *run) {
    free(run->tokens);
    free(run->lanes);
    fkv_targets_close(&run->targets);
    free(run->feeds);
    free(run->rows);
    free(run->states);
    fkv_kept_logits_free(run->kept);
    free(run->head_actions);
    free(run->head_slots);
    free(run);
}

/* Memory for the final hidden states that the run keeps, or compares with. */
static int open_states(struct run *run, struct fkv_error *err) {
    const struct fkv_baseline_run *full = run->baseline_run;
    const bool compares = full && full->final_states,
               keeps = run->recorded && run->recorded->final_states;
    if (!compares && !keeps) return FKV_OK;
    const int32_t dim = fkv_session_model(run->session)->config.dim;
    run->states = malloc((size_t)SCORED_ROWS * (size_t)dim * sizeof *run->states);
    if (!run->states) return fkv_fail(err, "out of memory for final states");
    return compares ? fkv_kept_logits_open(run->session, SCORED_ROWS, &run->kept, err) : FKV_OK;
}

/* Memory of the run and of its result. */
static int open_run(struct run *run, struct fkv_error *err) {
    const struct fkv_policy_setup *setup = fkv_session_setup(run->session);
    struct fkv_perplexity *result = run->result;
    const size_t lanes = (size_t)run->lane_count, rows = lanes * (size_t)run->block,
                 heads = (size_t)setup->layers * (size_t)setup->kv_heads;
    *result = (struct fkv_perplexity){
        .documents = calloc((size_t)run->corpus->document_count, sizeof *result->documents),
        .slots_end = calloc(heads, sizeof *result->slots_end),
        .slots_kept = calloc(heads, sizeof *result->slots_kept),
        .slots_most = calloc(heads, sizeof *result->slots_most)};
    run->lanes = calloc(lanes, sizeof *run->lanes);
    run->tokens = malloc(rows * sizeof *run->tokens);
    run->feeds = calloc(lanes, sizeof *run->feeds);
    run->rows = calloc(rows, sizeof *run->rows);
    run->head_actions = calloc(heads, sizeof *run->head_actions);
    run->head_slots = calloc(heads, sizeof *run->head_slots);
    if (!result->documents || !result->slots_end || !result->slots_kept || !result->slots_most ||
        !run->lanes || !run->tokens || !run->feeds || !run->rows || !run->head_actions ||
        !run->head_slots)
        return fkv_fail(err, "out of memory for %d lanes", run->lane_count);
    for (int32_t l = 0; l < run->lane_count; l++)
        run->lanes[l] = (struct lane){.pass = IDLE, .tokens = run->tokens + l * run->block};
    return fkv_targets_open(run->corpus, run->plan, result->documents, &run->targets, err);
}

int fkv_perplexity_run(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                       struct fkv_session *session, const struct fkv_baseline *baseline,
                       int32_t lanes, struct fkv_recorded *recorded, bool quiet,
                       struct fkv_perplexity *result, struct fkv_error *err) {
    const struct fkv_policy *policy = fkv_session_setup(session)->policy;
    struct fkv_session_statistics before;
    double acted_before;
    struct run *run = calloc(1, sizeof *run);
    if (!run) return fkv_fail(err, "out of memory for %d lanes", lanes);
    *run = (struct run){.corpus = corpus,
                        .plan = plan,
                        .session = session,
                        .baseline = baseline->session,
                        .baseline_run = baseline->run,
                        .recorded = recorded,
                        .result = result,
                        .lane_count = lanes,
                        .block = fkv_session_block(session) / lanes};
    fkv_session_statistics(session, &before);
    int status =
        open_run(run, err) || read_stopwatch(run, &acted_before, err) || open_states(run, err);
    if (policy->counts_compressions || policy->counts_evictions)
        fkv_session_tap(session, FKV_SITE_ACTION, take_action, run);
    if (!status) status = run_all(run, quiet, err);
    fkv_session_tap(session, FKV_SITE_ACTION, NULL, NULL);
    if (recorded) fkv_recorded_sort(recorded);
    if (!status) status = take_statistics(run, &before, acted_before, err);
    if (!status) status = fkv_targets_errors(&run->targets, &result->errors, err);
    if (!has_baseline(run)) result->errors.delta_nll_se = result->errors.kl_se = NAN;
    close_run(run);
    if (status) fkv_perplexity_free(result);
    return status ? FKV_FAILED : FKV_OK;
}

void fkv_perplexity_free(struct fkv_perplexity *result) {
    free(result->documents);
    free(result->slots_end);
    free(result->slots_kept);
    free(result->slots_most);
    *result = (struct fkv_perplexity){0};
}
