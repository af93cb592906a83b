/* The runner of every protocol. It knows passes, not protocols. A pass is fed in blocks, all of its tokens, so that the number of compressions is that
 * after T tokens even though the last one predicts nothing that is scored; the baseline is fed the same block before either is scored, so
 * that only one block of logits of each is alive. Sums are float64; per-token values are float32 and kept only for a run file. */
#include "replay/perplexity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/progress.h"

enum { BLOCK = 512 };

struct run {
    const struct fkv_corpus *corpus;
    const struct fkv_plan *plan;
    struct fkv_session *session, *baseline;
    struct fkv_recorded *recorded;
    struct fkv_perplexity *result;
    bool compresses;         /* else actions are no compressions (an eviction is not) */
    struct fkv_sums *blocks; /* of 256 scored tokens within a document */
    int64_t block_count;
    int64_t pass, document; /* where the run stands */
    /* of the rows being scored: [BLOCK] each */
    int32_t tokens[BLOCK], targets[BLOCK], top1[BLOCK], baseline_top1[BLOCK];
    double nll[BLOCK], baseline_nll[BLOCK], kl[BLOCK], slots[BLOCK], round[BLOCK], since[BLOCK];
};

/* ---- what a run file keeps ---- */

static int64_t column_length(const struct fkv_corpus *corpus, const struct fkv_plan *plan) {
    return plan->protocol->joined ? plan->count * plan->longest : corpus->token_count;
}

static int column_count(bool baseline) { return baseline ? 7 : 4; }

int64_t fkv_recorded_bytes(const struct fkv_corpus *corpus, const struct fkv_plan *plan, bool baseline) {
    return column_length(corpus, plan) * column_count(baseline) * (int64_t)sizeof(float);
}

int fkv_recorded_open(const struct fkv_corpus *corpus, const struct fkv_plan *plan, bool baseline,
                      struct fkv_recorded *recorded, struct fkv_error *err) {
    *recorded = (struct fkv_recorded){.count = column_length(corpus, plan)};
    size_t count = (size_t)recorded->count, all = count * (size_t)column_count(baseline);
    float *columns = malloc(all * sizeof *columns);
    if (!columns) return fkv_fail(err, "out of memory for what %lld tokens leave in the run file", (long long)count);
    for (size_t i = 0; i < all; i++) columns[i] = NAN;
    recorded->nll = columns; /* owns them all */
    recorded->round = columns + count;
    recorded->slots_used = columns + 2 * count;
    recorded->since = columns + 3 * count;
    if (baseline) {
        recorded->baseline_nll = columns + 4 * count;
        recorded->kl = columns + 5 * count;
        recorded->agree = columns + 6 * count;
    }
    return FKV_OK;
}

void fkv_recorded_free(struct fkv_recorded *recorded) {
    free(recorded->nll);
    free(recorded->compressions);
    *recorded = (struct fkv_recorded){0};
}

static int record_compression(void *context, const struct fkv_tap_event *event, struct fkv_error *err) {
    struct run *run = context;
    struct fkv_recorded *r = run->recorded;
    if (r->compression_count == r->compression_room) {
        int64_t room = r->compression_room ? 2 * r->compression_room : 1024;
        struct fkv_compression *larger = realloc(r->compressions, (size_t)room * sizeof *larger);
        if (!larger) return fkv_fail(err, "out of memory for %lld compressions", (long long)room);
        r->compressions = larger;
        r->compression_room = room;
    }
    r->compressions[r->compression_count++] = (struct fkv_compression){.pass = run->pass,
                                                                       .token = event->token,
                                                                       .layer = event->layer,
                                                                       .kv_head = event->head->kv_head,
                                                                       .energy = *event->energy};
    return FKV_OK;
}

static void record_row(struct run *run, int32_t i, int64_t target, int32_t place) {
    struct fkv_recorded *r = run->recorded;
    int64_t at = run->plan->protocol->joined ? run->pass * run->plan->longest + place : target;
    r->nll[at] = (float)run->nll[i];
    r->round[at] = (float)run->round[i];
    r->slots_used[at] = (float)run->slots[i];
    r->since[at] = (float)run->since[i];
    if (!run->baseline) return;
    r->baseline_nll[at] = (float)run->baseline_nll[i];
    r->kl[at] = (float)run->kl[i];
    r->agree[at] = run->top1[i] == run->baseline_top1[i];
}

/* ---- running ---- */

/* Adds scored row i, whose target is `target` in the stream and `place` in its pass. */
static int count_row(struct run *run, int32_t i, int64_t target, int32_t place, struct fkv_error *err) {
    const struct fkv_corpus_document *document = &run->corpus->documents[run->document];
    while (target >= document->offset + document->count) document = &run->corpus->documents[++run->document];
    struct fkv_sums one = {.count = 1, .nll = run->nll[i]};
    if (run->baseline) {
        one.baseline_nll = run->baseline_nll[i];
        one.kl = run->kl[i];
        one.agree = run->top1[i] == run->baseline_top1[i];
    }
    if (!isfinite(one.nll) || !isfinite(one.baseline_nll) || !isfinite(one.kl))
        return fkv_fail(err, "%s: token %lld: nll is %g%s: the model's logits are not finite there", document->name,
                        (long long)(target - document->offset), one.nll, run->baseline ? " (or the baseline's)" : "");
    struct fkv_sums *sums = &run->result->documents[run->document];
    if (sums->count % FKV_BOOTSTRAP_BLOCK == 0) run->block_count++;
    fkv_sums_add(sums, &one);
    fkv_sums_add(&run->blocks[run->block_count - 1], &one);
    fkv_sums_add(&run->result->total, &one);
    if (run->recorded) record_row(run, i, target, place);
    return FKV_OK;
}

/* Scores rows [row, row+rows) of the last feed, which began at row `fed` of the pass. */
static int score_rows(struct run *run, const struct fkv_pass *pass, int32_t fed, int32_t row, int32_t rows,
                      struct fkv_error *err) {
    int64_t target = pass->start + fed + row + 1;
    memcpy(run->targets, run->corpus->tokens + target, (size_t)rows * sizeof *run->targets);
    if (fkv_session_score(run->session, run->baseline, row, rows, run->targets, run->nll, run->top1,
                          run->baseline ? run->kl : NULL, err))
        return FKV_FAILED;
    if (run->baseline && fkv_session_score(run->baseline, NULL, row, rows, run->targets, run->baseline_nll,
                                           run->baseline_top1, NULL, err))
        return FKV_FAILED;
    fkv_session_row_state(run->session, row, rows, run->slots, run->round, run->since);
    for (int32_t i = 0; i < rows; i++) {
        int32_t place = fed + row + i + 1;
        if (!run->compresses) run->round[i] = 0, run->since[i] = place;
        if (count_row(run, i, target + i, place, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* The next tokens of a pass from row `fed` on, at most to the end of the protocol's block. */
static int32_t next_tokens(struct run *run, const struct fkv_pass *pass, int32_t fed) {
    int32_t count = pass->rows - fed;
    if (run->plan->block && count > run->plan->block - fed % run->plan->block)
        count = run->plan->block - fed % run->plan->block;
    if (count > BLOCK) count = BLOCK;
    for (int32_t i = 0; i < count; i++)
        run->tokens[i] = fed + i == 0 && pass->first >= 0 ? pass->first : run->corpus->tokens[pass->start + fed + i];
    return count;
}

static int run_pass(struct run *run, const struct fkv_pass *pass, struct fkv_progress *progress, int64_t *done,
                    struct fkv_error *err) {
    run->document = pass->document;
    fkv_session_reset(run->session, 0);
    if (run->baseline) fkv_session_reset(run->baseline, 0);
    int32_t step = run->baseline ? fkv_session_logit_rows(run->baseline) : BLOCK; /* a range's logits are made once */
    for (int32_t fed = 0, count; fed < pass->rows; fed += count) {
        count = next_tokens(run, pass, fed);
        if (fkv_session_feed(run->session, run->tokens, count, err)) return FKV_FAILED;
        if (run->baseline && fkv_session_feed(run->baseline, run->tokens, count, err))
            return fkv_error_prefix(err, "baseline");
        int32_t row = pass->from > fed ? pass->from - fed : 0;
        int32_t end = pass->until < fed + count ? pass->until - fed : count;
        for (; row < end; row += step)
            if (score_rows(run, pass, fed, row, end - row < step ? end - row : step, err)) return FKV_FAILED;
        if (run->plan->block && (fed + count) % run->plan->block == 0 && fkv_session_end_block(run->session, 0, err))
            return FKV_FAILED;
        *done += count;
        fkv_progress_update(progress, *done, run->corpus->documents[run->document].name);
    }
    return FKV_OK;
}

/* Documents are the unit of resampling; where they are fewer than 20, blocks of tokens, unless windows share tokens. */
static void estimate_errors(struct run *run) {
    struct fkv_perplexity *result = run->result;
    struct fkv_sums *units = run->blocks;
    int64_t count = 0;
    for (int64_t d = 0; d < run->corpus->document_count; d++) count += result->documents[d].count > 0;
    if (count < FKV_BOOTSTRAP_DOCUMENTS && !fkv_plan_overlaps(run->plan)) {
        count = run->block_count;
    } else {
        count = 0;
        for (int64_t d = 0; d < run->corpus->document_count; d++)
            if (result->documents[d].count) units[count++] = result->documents[d];
    }
    result->nll_se = fkv_bootstrap_se(units, count, FKV_MEAN_NLL);
    result->delta_nll_se = run->baseline ? fkv_bootstrap_se(units, count, FKV_DELTA_NLL) : NAN;
}

static int run_all(struct run *run, bool quiet, struct fkv_error *err) {
    struct fkv_progress progress;
    int64_t done = 0;
    fkv_progress_start(&progress, "tokens", run->plan->rows, quiet);
    int status = FKV_OK;
    for (run->pass = 0; run->pass < run->plan->count && !status; run->pass++)
        status = run_pass(run, &run->plan->passes[run->pass], &progress, &done, err);
    fkv_progress_finish(&progress);
    return status;
}

int fkv_perplexity_run(const struct fkv_corpus *corpus, const struct fkv_plan *plan, struct fkv_session *session,
                       struct fkv_session *baseline, struct fkv_recorded *recorded, bool quiet,
                       struct fkv_perplexity *result, struct fkv_error *err) {
    *result = (struct fkv_perplexity){0};
    const struct fkv_policy_setup *setup = fkv_session_setup(session);
    size_t documents = (size_t)corpus->document_count;
    size_t blocks = documents + (size_t)(plan->scored / FKV_BOOTSTRAP_BLOCK);
    struct run *run = calloc(1, sizeof *run);
    struct fkv_sums *sums = calloc(documents, sizeof *sums), *block_sums = calloc(blocks, sizeof *block_sums);
    if (!run || !sums || !block_sums) {
        free(run), free(sums), free(block_sums);
        return fkv_fail(err, "out of memory for the sums of %zu documents", documents);
    }
    result->documents = sums;
    *run = (struct run){.corpus = corpus,
                        .plan = plan,
                        .session = session,
                        .baseline = baseline,
                        .recorded = recorded,
                        .result = result,
                        .compresses = setup->policy->has_gamma,
                        .blocks = block_sums};
    struct fkv_session_statistics before, *spent = &result->statistics;
    fkv_session_statistics(session, &before);
    if (recorded && run->compresses) fkv_session_tap(session, FKV_SITE_ACTION, record_compression, run);
    int status = run_all(run, quiet, err);
    fkv_session_tap(session, FKV_SITE_ACTION, NULL, NULL);
    fkv_session_statistics(session, spent);
    spent->tokens -= before.tokens;
    spent->actions -= before.actions;
    spent->slots_sum -= before.slots_sum;
    spent->seconds -= before.seconds;
    spent->seconds_acting -= before.seconds_acting;
    double heads = (double)setup->layers * setup->kv_heads;
    result->compressions = run->compresses ? (double)spent->actions / heads / (double)plan->count : 0;
    if (!status) estimate_errors(run);
    free(run);
    free(block_sums);
    if (status) fkv_perplexity_free(result);
    return status;
}

void fkv_perplexity_free(struct fkv_perplexity *result) {
    free(result->documents);
    result->documents = NULL;
}
