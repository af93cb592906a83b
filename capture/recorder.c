/* The loop of a capture: documents, their recordings, blocks of tokens; see recorder.h. Every block is scored as soon as it is fed (the target of its last row is the
 * first token of the next block, which is known), so a recording carries its nll at the price of the logits. */
#include "capture/recorder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "capture/collector.h"
#include "kernels/base/progress.h"

/* One run: what the loop needs beside the recorder. */
struct run {
    struct fkv_recorder *r;
    struct fkv_session *session;
    struct fkv_collector *collector;
    struct fkv_capture_writer *writer;
    struct fkv_recorder_summary *summary;
    struct fkv_progress progress;
    float *nll;    /* [max_tokens] */
    double *score; /* [block] */
    int64_t index; /* of the next recording */
};

/* ---- life ---- */

int fkv_recorder_open(const struct fkv_engine *engine, const struct fkv_engine_options *engine_options,
                      const struct fkv_recorder_options *options, struct fkv_recorder **out, struct fkv_error *err) {
    *out = NULL;
    const int32_t trained = engine->model->config.trained_context;
    struct fkv_recorder *r = calloc(1, sizeof *r);
    if (!r) return fkv_fail(err, "out of memory");
    *r = (struct fkv_recorder){.engine = engine, .engine_options = engine_options, .options = *options};
    if (!r->options.max_tokens) r->options.max_tokens = trained;
    if (!r->options.length) r->options.length = trained - r->options.skip_sinks;
    int status = FKV_OK;
    if (r->options.spectra_only && r->options.max_tokens < (int64_t)r->options.skip_sinks + r->options.length)
        status = fkv_fail(err, "no segment: --length %d after the first %d tokens, but recordings have %lld tokens",
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

const struct fkv_capture_info *fkv_recorder_info(const struct fkv_recorder *r) { return &r->info; }

int fkv_recorder_session(const struct fkv_recorder *r, int64_t n_tokens, struct fkv_session **out,
                         struct fkv_error *err) {
    const struct fkv_policy_options policy = {.name = "full", .sinks = -1, .rescale = true};
    const struct fkv_session_options options = {.block = FKV_RECORDER_BLOCK,
                                                .max_tokens = n_tokens,
                                                .cache_dtype = fkv_engine_cache_dtype(r->engine_options, r->engine)};
    return fkv_session_open(r->engine->model, &policy, &options, out, err);
}

/* ---- one recording ---- */

static bool stopped(const struct run *run) { return run->r->options.stop && *run->r->options.stop; }

/* Feeds tokens [n], which makes the taps record, and fills run->nll [n]. */
static int feed_and_score(struct run *run, const int32_t *tokens, int64_t n, struct fkv_error *err) {
    run->nll[0] = NAN;
    for (int64_t t = 0; t < n; t += FKV_RECORDER_BLOCK) {
        int32_t rows = n - t < FKV_RECORDER_BLOCK ? (int32_t)(n - t) : FKV_RECORDER_BLOCK;
        int32_t scored = t + rows < n ? rows : rows - 1;
        if (stopped(run)) return fkv_fail(err, "interrupted");
        if (fkv_session_feed(run->session, tokens + t, rows, err)) return FKV_FAILED;
        if (scored && fkv_session_score(run->session, NULL, 0, scored, tokens + t + 1, run->score, NULL, NULL, err))
            return FKV_FAILED;
        for (int32_t i = 0; i < scored; i++) {
            run->nll[t + 1 + i] = (float)run->score[i];
            run->summary->nll_sum += run->score[i];
        }
        run->summary->tokens_scored += scored;
        fkv_progress_update(&run->progress, run->summary->tokens + t + rows, NULL);
    }
    return FKV_OK;
}

static int record(struct run *run, const struct fkv_document *document, int64_t offset, int64_t n,
                  struct fkv_error *err) {
    const struct fkv_recorder_options *o = &run->r->options;
    const int32_t trained = run->r->info.trained_context;
    const int32_t *tokens = document->tokens + offset;
    struct fkv_recording recording = {.n_tokens = n, .offset = offset, .beyond_trained_context = n > trained};
    strncpy(recording.name, document->name, sizeof recording.name - 1);
    memcpy(recording.text_sha256, document->text_sha256, sizeof recording.text_sha256);
    if (fkv_capture_has(run->writer, run->index)) {
        run->summary->recordings_there++;
        return fkv_capture_check(run->writer, run->index, &recording, err);
    }
    fkv_session_reset(run->session, 0);
    if (fkv_capture_begin(run->writer, run->index, &recording, tokens, err)) return FKV_FAILED;
    fkv_collector_begin(run->collector, run->writer);
    if (feed_and_score(run, tokens, n, err) || fkv_capture_write_nll(run->writer, run->nll, err) ||
        fkv_collector_end(run->collector, err) || fkv_capture_commit(run->writer, err))
        return FKV_FAILED;
    run->summary->recordings++;
    run->summary->beyond_trained_context += recording.beyond_trained_context;
    int64_t segments = n > o->skip_sinks ? (n - o->skip_sinks) / o->length : 0;
    run->summary->segments += segments;
    run->summary->segment_tokens_left_out += n > o->skip_sinks ? n - o->skip_sinks - segments * o->length : 0;
    return FKV_OK;
}

static int record_document(struct run *run, const struct fkv_document *document, struct fkv_error *err) {
    const int64_t most = run->r->options.max_tokens, count = (int64_t)document->count;
    run->summary->documents++;
    for (int64_t offset = 0; offset < count; offset += most) {
        int64_t n = count - offset < most ? count - offset : most;
        if (n < 2) { /* nothing to predict */
            run->summary->tokens_left_out += n;
            break;
        }
        if (stopped(run)) return fkv_fail(err, "interrupted");
        if (record(run, document, offset, n, err)) return fkv_error_prefix(err, "%s", document->name);
        run->summary->tokens += n;
        run->index++;
        fkv_progress_update(&run->progress, run->summary->tokens, document->name);
    }
    return FKV_OK;
}

/* ---- all of them ---- */

static int record_all(struct run *run, struct fkv_error *err) {
    const struct fkv_recorder_options *o = &run->r->options;
    struct fkv_documents *documents;
    if (fkv_engine_documents(run->r->engine_options, run->r->engine, &documents, err)) return FKV_FAILED;
    int status = FKV_OK;
    for (int64_t seen = 0; status == FKV_OK; seen++) {
        struct fkv_document document;
        bool more;
        status = fkv_documents_next(documents, &document, &more, err);
        if (status || !more) break;
        if (seen % o->shards == o->shard) status = record_document(run, &document, err);
        fkv_document_free(&document);
    }
    fkv_documents_close(documents);
    if (status == FKV_OK && fkv_capture_has(run->writer, run->index))
        status =
            fkv_fail(err, "%s: expected %lld recordings of these texts, found more", o->out, (long long)run->index);
    return status;
}

static int run_open(struct run *run, int64_t longest, struct fkv_error *err) {
    struct fkv_recorder *r = run->r;
    run->nll = malloc((size_t)r->options.max_tokens * sizeof *run->nll);
    run->score = malloc(FKV_RECORDER_BLOCK * sizeof *run->score);
    if (!run->nll || !run->score) return fkv_fail(err, "out of memory");
    if (fkv_capture_create(r->options.out, &r->info, r->options.resume, &run->writer, err) ||
        fkv_recorder_session(r, longest, &run->session, err) ||
        fkv_collector_open(&r->info, r->engine->model, r->options.length, r->options.skip_sinks, FKV_RECORDER_BLOCK,
                           &run->collector, err))
        return FKV_FAILED;
    fkv_collector_attach(run->collector, run->session);
    return FKV_OK;
}

int fkv_recorder_run(struct fkv_recorder *r, const struct fkv_recorder_needs *needs,
                     struct fkv_recorder_summary *summary, struct fkv_error *err) {
    *summary = (struct fkv_recorder_summary){0};
    struct run run = {.r = r, .summary = summary};
    const double started = fkv_seconds();
    int status = run_open(&run, needs->longest, err);
    if (status == FKV_OK) {
        fkv_progress_start(&run.progress, "tokens", needs->tokens, r->engine_options->quiet);
        status = record_all(&run, err);
        fkv_progress_finish(&run.progress);
        if (status == FKV_OK) status = fkv_capture_finish(run.writer, err);
        if (status && run.index > 0 && err) {
            const struct fkv_error why = *err;
            fkv_fail(err, "%.800s (%lld recordings are whole; the same command with --resume goes on)", why.message,
                     (long long)run.index);
        }
    }
    summary->seconds = fkv_seconds() - started;
    fkv_session_close(run.session);
    fkv_collector_close(run.collector);
    fkv_capture_abandon(run.writer);
    free(run.nll);
    free(run.score);
    return status;
}
