/* The loop of a capture: documents, their recordings, blocks of tokens; see recorder.h. As many
 * recordings as --batch says are open side by side, each in a sequence of the session and a lane
 * of the pipeline; every pass takes the next block of each. A block is scored as soon as it is fed
 * (the target of its last row is the first token of the next block, which is known), so a recording
 * carries its nll at the price of the logits.
 *
 * A recording is cut into equal blocks, which are the store's rows of chunks where models are
 * large: what comes out of a pass then goes to the file whole. */
#include "capture/recorder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "capture/collector.h"
#include "capture/store/capture_writer.h"
#include "engine/text/token_class.h"
#include "kernels/base/progress.h"

/* A recording that is open. */
struct lane {
    bool open;
    struct fkv_recording recording;
    int32_t *tokens; /* [n_tokens] */
    float *nll;      /* [n_tokens] */
    int64_t fed;
};

/* What the loop needs in addition to the recorder. */
struct loop {
    struct fkv_recorder *r;
    struct fkv_session *session;
    struct fkv_collector *collector;
    struct fkv_pipeline *pipeline;
    struct fkv_capture_writer *writer;
    struct fkv_token_classifier *classifier; /* NULL without a tokenizer */
    struct fkv_recorder_summary *summary;
    struct fkv_progress progress;

    struct fkv_documents *documents;
    struct fkv_document document; /* the one that is being cut; count 0: none */
    uint8_t *classes;             /* [document.count], or NULL */
    int64_t seen, offset;         /* documents; tokens of this one that are in recordings */
    int64_t index;                /* of the next recording */

    int32_t count;          /* of lanes */
    struct lane *lanes;     /* [count] */
    struct fkv_feed *feeds; /* [count] */
    int32_t *targets;       /* [count, options.block] */
    double *scores;         /* [count, options.block] */
    int64_t fed;            /* tokens, with those of recordings that exist already */
    double skipped;         /* seconds that recordings that exist would have taken */
    const struct fkv_recorder_needs *needs;
};

/* ---- life ---- */

int fkv_recorder_open(const struct fkv_engine *engine,
                      const struct fkv_engine_options *engine_options,
                      const struct fkv_recorder_options *options, struct fkv_recorder **out,
                      struct fkv_error *err) {
    *out = NULL;
    const int32_t trained = engine->model->config.trained_context;
    struct fkv_recorder *r = calloc(1, sizeof *r);
    if (!r) return fkv_fail(err, "out of memory");
    *r = (struct fkv_recorder){
        .engine = engine, .engine_options = engine_options, .options = *options};
    if (!r->options.max_tokens) r->options.max_tokens = trained;
    if (!r->options.length) r->options.length = trained - r->options.skip_sinks;
    int status = FKV_OK;
    if (r->options.spectra_only &&
        r->options.max_tokens < (int64_t)r->options.skip_sinks + r->options.length)
        status = fkv_fail_option(
            err,
            "no segment: --length %d after the first %d tokens, but recordings have %lld tokens",
            r->options.length, r->options.skip_sinks, (long long)r->options.max_tokens);
    if (status || fkv_recorder_make_info(r, err)) {
        fkv_recorder_close(r);
        return FKV_FAILED;
    }
    *out = r;
    return FKV_OK;
}

void fkv_recorder_close(struct fkv_recorder *r) {
    if (!r) return;
    fkv_capture_info_free(&r->info);
    free(r);
}

struct fkv_session_options fkv_recorder_session_options(const struct fkv_recorder *r,
                                                        int32_t sequences, int64_t n_tokens) {
    return (struct fkv_session_options){.block = sequences * r->options.block,
                                        .sequences = sequences,
                                        .max_tokens = n_tokens,
                                        .positions = r->options.max_tokens,
                                        .cache_dtype =
                                            fkv_engine_cache_dtype(r->engine_options, r->engine)};
}

/* ---- documents and recordings ---- */

static bool stopped(const struct loop *loop) {
    return loop->r->options.stop && *loop->r->options.stop;
}

static void leave_document(struct loop *loop) {
    fkv_document_free(&loop->document);
    loop->document = (struct fkv_document){0};
    free(loop->classes);
    loop->classes = NULL;
    loop->offset = 0;
}

/* The next document of this shard becomes loop->document; *more false after the last one. */
static int next_document(struct loop *loop, bool *more, struct fkv_error *err) {
    const struct fkv_recorder_options *o = &loop->r->options;
    for (;;) {
        if (fkv_documents_next(loop->documents, &loop->document, more, err)) return FKV_FAILED;
        if (!*more) return FKV_OK;
        if (loop->seen++ % o->shards == o->shard) break;
        leave_document(loop);
    }
    loop->summary->documents++;
    if (!loop->classifier) return FKV_OK;
    const size_t count = loop->document.count;
    if (!(loop->classes = malloc(count)))
        return fkv_fail(err, "%s: out of memory", loop->document.name);
    return fkv_token_class_text(loop->classifier, loop->document.tokens, count, loop->classes,
                                err) ||
                   fkv_token_class_context(loop->document.tokens, count, loop->classes, err)
               ? fkv_error_prefix(err, "%s", loop->document.name)
               : FKV_OK;
}

/* The next recording, tokens [recording->offset, + n_tokens) of loop->document; *more false after
 * the last one. */
static int next_recording(struct loop *loop, struct fkv_recording *recording, bool *more,
                          struct fkv_error *err) {
    *more = true;
    for (;;) {
        const int64_t left = (int64_t)loop->document.count - loop->offset,
                      most = loop->r->options.max_tokens;
        if (left < 2) { /* nothing to predict */
            loop->summary->tokens_left_out += left;
            leave_document(loop);
            if (next_document(loop, more, err)) return FKV_FAILED;
            if (!*more) return FKV_OK;
            continue;
        }
        *recording =
            (struct fkv_recording){.n_tokens = left < most ? left : most, .offset = loop->offset};
        recording->beyond_trained_context = recording->n_tokens > loop->r->info.trained_context;
        strncpy(recording->name, loop->document.name, sizeof recording->name - 1);
        memcpy(recording->text_sha256, loop->document.text_sha256, sizeof recording->text_sha256);
        loop->offset += recording->n_tokens;
        loop->summary->tokens += recording->n_tokens;
        return FKV_OK;
    }
}

/* ---- lanes ---- */

static void count_recording(struct loop *loop, const struct fkv_recording *recording) {
    const struct fkv_recorder_options *o = &loop->r->options;
    const int64_t left = recording->n_tokens - o->skip_sinks,
                  segments = left > 0 ? left / o->length : 0;
    loop->summary->recordings++;
    loop->summary->beyond_trained_context += recording->beyond_trained_context;
    loop->summary->segments += segments;
    loop->summary->segment_tokens_left_out += left > 0 ? left - segments * o->length : 0;
}

static int begin(struct loop *loop, int32_t at, const struct fkv_recording *recording,
                 struct fkv_error *err) {
    struct lane *lane = &loop->lanes[at];
    const size_t n = (size_t)recording->n_tokens;
    *lane = (struct lane){.open = true, .recording = *recording};
    lane->tokens = malloc(n * sizeof *lane->tokens);
    lane->nll = malloc(n * sizeof *lane->nll);
    if (!lane->tokens || !lane->nll) return fkv_fail(err, "out of memory");
    memcpy(lane->tokens, loop->document.tokens + recording->offset, n * sizeof *lane->tokens);
    lane->nll[0] = NAN;
    fkv_session_reset(loop->session, at);
    if (fkv_pipeline_begin(loop->pipeline, at, loop->index, recording, lane->tokens,
                           loop->classes ? loop->classes + recording->offset : NULL, err))
        return FKV_FAILED;
    return fkv_collector_begin(loop->collector, at, err);
}

static void leave(struct lane *lane) {
    free(lane->tokens);
    free(lane->nll);
    *lane = (struct lane){0};
}

static int end(struct loop *loop, int32_t at, struct fkv_error *err) {
    struct lane *lane = &loop->lanes[at];
    const int64_t n = lane->recording.n_tokens;
    if (fkv_collector_end(loop->collector, at, n, err))
        return fkv_error_prefix(err, "%s", lane->recording.name);
    if (fkv_pipeline_end(loop->pipeline, at, n, lane->nll, err)) return FKV_FAILED;
    count_recording(loop, &lane->recording);
    leave(lane);
    return FKV_OK;
}

static void skip_recording(struct loop *loop, int64_t n) {
    const double tokens = (double)n,
                 seconds = fkv_cost_seconds(&loop->needs->cost, tokens, tokens * (tokens + 1) / 2);
    loop->fed += n;
    loop->skipped += seconds;
    fkv_progress_skip(&loop->progress, n, seconds);
}

/* Seconds that the tokens fed so far were to take; see fkv_recorder_needs. */
static double expected_so_far(const struct loop *loop) {
    struct fkv_session_statistics fed;
    fkv_session_statistics(loop->session, &fed);
    return loop->skipped + fkv_cost_seconds(&loop->needs->cost, (double)fed.tokens, fed.slots_sum);
}

/* Starts a recording in every free lane, as long as there are any; those that exist are checked and
 * skipped. */
static int fill_lanes(struct loop *loop, struct fkv_error *err) {
    struct fkv_recording recording;
    bool more = true;
    for (int32_t i = 0; i < loop->count && more; i++) {
        while (!loop->lanes[i].open && more) {
            if (stopped(loop)) return fkv_fail(err, "interrupted");
            if (next_recording(loop, &recording, &more, err)) return FKV_FAILED;
            if (!more) break;
            const bool exists = fkv_capture_has(loop->writer, loop->index);
            if (exists ? fkv_pipeline_check(loop->pipeline, loop->index, &recording, err)
                       : begin(loop, i, &recording, err))
                return FKV_FAILED;
            loop->summary->recordings_there += exists;
            if (exists) skip_recording(loop, recording.n_tokens);
            loop->index++;
        }
    }
    return FKV_OK;
}

/* ---- passes ---- */

/* The next block of every open recording: loop->feeds [*count], `rows` in all. */
static void choose_blocks(struct loop *loop, int32_t *count, int32_t *rows) {
    *count = *rows = 0;
    for (int32_t i = 0; i < loop->count; i++) {
        struct lane *lane = &loop->lanes[i];
        if (!lane->open) continue;
        const int64_t n = lane->recording.n_tokens, left = n - lane->fed;
        const int64_t most = loop->r->options.block, blocks = (n + most - 1) / most,
                      block = (n + blocks - 1) / blocks;
        const int32_t take = (int32_t)(left < block ? left : block);
        loop->feeds[(*count)++] = (struct fkv_feed){i, lane->tokens + lane->fed, take};
        for (int32_t k = 0; k < take;
             k++) /* the last token has no target, and its score is not used */
            loop->targets[*rows + k] = lane->fed + k + 1 < n ? lane->tokens[lane->fed + k + 1] : 0;
        *rows += take;
    }
}

/* Scores of the rows of one feed, from `scores` on, go to its recording. */
static void take_scores(struct loop *loop, const struct fkv_feed *feed, const double *scores) {
    struct lane *lane = &loop->lanes[feed->sequence];
    for (int32_t k = 0; k < feed->count && lane->fed + k + 1 < lane->recording.n_tokens; k++) {
        lane->nll[lane->fed + k + 1] = (float)scores[k];
        loop->summary->nll_sum += scores[k];
        loop->summary->tokens_scored++;
    }
    lane->fed += feed->count;
    loop->fed += feed->count;
}

static int pass(struct loop *loop, bool *done, struct fkv_error *err) {
    int32_t count, rows;
    choose_blocks(loop, &count, &rows);
    *done = count == 0;
    if (*done) return FKV_OK;
    if (stopped(loop)) return fkv_fail(err, "interrupted");
    const char *name = loop->lanes[loop->feeds[0].sequence].recording.name;
    if (fkv_session_feed_batch(loop->session, loop->feeds, count, err) ||
        fkv_session_score(loop->session, 0, rows, loop->targets, loop->scores, NULL, err))
        return FKV_FAILED;
    const double *scores = loop->scores;
    for (int32_t i = 0; i < count; i++) {
        take_scores(loop, &loop->feeds[i], scores);
        scores += loop->feeds[i].count;
    }
    fkv_progress_update_work(&loop->progress, loop->fed, expected_so_far(loop), name);
    for (int32_t i = 0; i < count; i++) {
        const struct lane *lane = &loop->lanes[loop->feeds[i].sequence];
        if (lane->fed == lane->recording.n_tokens && end(loop, loop->feeds[i].sequence, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int record_all(struct loop *loop, struct fkv_error *err) {
    bool done = false;
    while (!done)
        if (fill_lanes(loop, err) || pass(loop, &done, err)) return FKV_FAILED;
    if (fkv_capture_end(loop->writer) > loop->index)
        return fkv_fail(err, "%s: expected %lld recordings of these texts, found more",
                        loop->r->options.out, (long long)loop->index);
    return FKV_OK;
}

/* ---- recording ---- */

static int open_loop(struct loop *loop, const struct fkv_recorder_needs *needs,
                     struct fkv_error *err) {
    struct fkv_recorder *r = loop->r;
    const struct fkv_model *model = r->engine->model;
    loop->count = fkv_recorder_lanes(r, needs);
    const struct fkv_session_options session =
        fkv_recorder_session_options(r, loop->count, needs->longest);
    const struct fkv_collector_options collector = fkv_recorder_collector_options(r, loop->count);
    const size_t ring = fkv_recorder_ring(r, loop->count, needs->longest);
    const size_t rows = (size_t)loop->count * (size_t)r->options.block;
    loop->lanes = calloc((size_t)loop->count, sizeof *loop->lanes);
    loop->feeds = malloc((size_t)loop->count * sizeof *loop->feeds);
    loop->targets = malloc(rows * sizeof *loop->targets);
    loop->scores = malloc(rows * sizeof *loop->scores);
    if (!loop->lanes || !loop->feeds || !loop->targets || !loop->scores)
        return fkv_fail(err, "out of memory");
    if (r->engine->tokenizer &&
        fkv_token_classifier_open(r->engine->tokenizer, &loop->classifier, err))
        return FKV_FAILED;
    if (fkv_capture_create(r->options.out, &r->info, r->options.resume, &loop->writer, err) ||
        fkv_recorder_write_gram(r, loop->writer, err) ||
        fkv_session_open(model, &fkv_full_attention, &session, &loop->session, err) ||
        fkv_pipeline_open(loop->writer, &r->info, model, loop->count, ring, &loop->pipeline, err) ||
        fkv_collector_open(&r->info, model, loop->pipeline, &collector, &loop->collector, err))
        return FKV_FAILED;
    fkv_collector_attach(loop->collector, loop->session);
    return fkv_engine_documents(r->engine_options, r->engine->tokenizer,
                                r->engine->model->config.vocab, true, &loop->documents, err);
}

static void close_loop(struct loop *loop) {
    leave_document(loop);
    fkv_documents_close(loop->documents);
    fkv_session_close(loop->session);
    fkv_collector_close(loop->collector);
    fkv_capture_abandon(loop->writer);
    fkv_token_classifier_close(loop->classifier);
    for (int32_t i = 0; loop->lanes && i < loop->count; i++) leave(&loop->lanes[i]);
    free(loop->lanes);
    free(loop->feeds);
    free(loop->targets);
    free(loop->scores);
}

int fkv_recorder_run(struct fkv_recorder *r, const struct fkv_recorder_needs *needs,
                     struct fkv_recorder_summary *summary, struct fkv_error *err) {
    *summary = (struct fkv_recorder_summary){0};
    struct loop loop = {.r = r, .summary = summary, .needs = needs};
    const double started = fkv_seconds();
    int64_t whole = 0;
    int status = open_loop(&loop, needs, err);
    if (status == FKV_OK) {
        fkv_progress_start(&loop.progress, "tokens", needs->tokens, r->engine_options->quiet);
        fkv_progress_weigh(&loop.progress,
                           fkv_cost_seconds(&needs->cost, (double)needs->tokens, needs->slots));
        status = record_all(&loop, err);
        fkv_progress_finish(&loop.progress);
    }
    if (fkv_pipeline_close(loop.pipeline, &whole, status ? NULL : err)) status = FKV_FAILED;
    if (status == FKV_OK) status = fkv_capture_finish(loop.writer, err);
    whole += summary->recordings_there;
    if (status && whole > 0 && err) {
        const struct fkv_error why = *err;
        fkv_fail(err, "%.800s (%lld recordings are whole; the same command with --resume goes on)",
                 why.message, (long long)whole);
    }
    summary->seconds = fkv_seconds() - started;
    close_loop(&loop);
    return status;
}
