/* The loop of a capture: documents, their recordings, blocks of tokens; see recorder.h. As many
 * recordings as --batch says are open side by side, each in a sequence of the session and a place
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
struct place {
    bool open;
    struct fkv_recording recording;
    int32_t *tokens; /* [n_tokens] */
    float *nll;      /* [n_tokens] */
    int64_t fed;
};

/* One run: what the loop needs beside the recorder. */
struct run {
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

    int32_t count;          /* of places */
    struct place *places;   /* [count] */
    struct fkv_feed *feeds; /* [count] */
    int32_t *targets;       /* [count, options.block], as scores */
    double *scores;
    int64_t fed;    /* tokens of this run, and those that are there */
    double skipped; /* seconds that those which are there would have taken */
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

const struct fkv_capture_info *fkv_recorder_info(const struct fkv_recorder *r) { return &r->info; }

struct fkv_session_options fkv_recorder_session_options(const struct fkv_recorder *r,
                                                        int32_t sequences, int64_t n_tokens) {
    return (struct fkv_session_options){.block = sequences * r->options.block,
                                        .sequences = sequences,
                                        .max_tokens = n_tokens,
                                        .cache_dtype =
                                            fkv_engine_cache_dtype(r->engine_options, r->engine)};
}

/* ---- what comes next ---- */

static bool stopped(const struct run *run) { return run->r->options.stop && *run->r->options.stop; }

static void leave_document(struct run *run) {
    fkv_document_free(&run->document);
    run->document = (struct fkv_document){0};
    free(run->classes);
    run->classes = NULL;
    run->offset = 0;
}

/* The next document of this shard becomes run->document; *more false after the last one. */
static int next_document(struct run *run, bool *more, struct fkv_error *err) {
    const struct fkv_recorder_options *o = &run->r->options;
    for (;;) {
        if (fkv_documents_next(run->documents, &run->document, more, err)) return FKV_FAILED;
        if (!*more) return FKV_OK;
        if (run->seen++ % o->shards == o->shard) break;
        leave_document(run);
    }
    run->summary->documents++;
    if (!run->classifier) return FKV_OK;
    const size_t count = run->document.count;
    if (!(run->classes = malloc(count)))
        return fkv_fail(err, "%s: out of memory", run->document.name);
    return fkv_token_class_text(run->classifier, run->document.tokens, count, run->classes, err) ||
                   fkv_token_class_context(run->document.tokens, count, run->classes, err)
               ? fkv_error_prefix(err, "%s", run->document.name)
               : FKV_OK;
}

/* The next recording, tokens [recording->offset, + n_tokens) of run->document; *more false after
 * the last one. */
static int next_recording(struct run *run, struct fkv_recording *recording, bool *more,
                          struct fkv_error *err) {
    *more = true;
    for (;;) {
        const int64_t left = (int64_t)run->document.count - run->offset,
                      most = run->r->options.max_tokens;
        if (left < 2) { /* nothing to predict */
            run->summary->tokens_left_out += left;
            leave_document(run);
            if (next_document(run, more, err)) return FKV_FAILED;
            if (!*more) return FKV_OK;
            continue;
        }
        *recording =
            (struct fkv_recording){.n_tokens = left < most ? left : most, .offset = run->offset};
        recording->beyond_trained_context = recording->n_tokens > run->r->info.trained_context;
        strncpy(recording->name, run->document.name, sizeof recording->name - 1);
        memcpy(recording->text_sha256, run->document.text_sha256, sizeof recording->text_sha256);
        run->offset += recording->n_tokens;
        run->summary->tokens += recording->n_tokens;
        return FKV_OK;
    }
}

/* ---- places ---- */

static void count_recording(struct run *run, const struct fkv_recording *recording) {
    const struct fkv_recorder_options *o = &run->r->options;
    const int64_t left = recording->n_tokens - o->skip_sinks,
                  segments = left > 0 ? left / o->length : 0;
    run->summary->recordings++;
    run->summary->beyond_trained_context += recording->beyond_trained_context;
    run->summary->segments += segments;
    run->summary->segment_tokens_left_out += left > 0 ? left - segments * o->length : 0;
}

static int begin(struct run *run, int32_t at, const struct fkv_recording *recording,
                 struct fkv_error *err) {
    struct place *place = &run->places[at];
    const size_t n = (size_t)recording->n_tokens;
    *place = (struct place){.open = true, .recording = *recording};
    place->tokens = malloc(n * sizeof *place->tokens);
    place->nll = malloc(n * sizeof *place->nll);
    if (!place->tokens || !place->nll) return fkv_fail(err, "out of memory");
    memcpy(place->tokens, run->document.tokens + recording->offset, n * sizeof *place->tokens);
    place->nll[0] = NAN;
    fkv_session_reset(run->session, at);
    if (fkv_pipeline_begin(run->pipeline, at, run->index, recording, place->tokens,
                           run->classes ? run->classes + recording->offset : NULL, err))
        return FKV_FAILED;
    return fkv_collector_begin(run->collector, at, err);
}

static void leave(struct place *place) {
    free(place->tokens);
    free(place->nll);
    *place = (struct place){0};
}

static int end(struct run *run, int32_t at, struct fkv_error *err) {
    struct place *place = &run->places[at];
    const int64_t n = place->recording.n_tokens;
    if (fkv_collector_end(run->collector, at, n, err))
        return fkv_error_prefix(err, "%s", place->recording.name);
    if (fkv_pipeline_end(run->pipeline, at, n, place->nll, err)) return FKV_FAILED;
    count_recording(run, &place->recording);
    leave(place);
    return FKV_OK;
}

static void skip_recording(struct run *run, int64_t n) {
    const double tokens = (double)n,
                 seconds = fkv_cost_seconds(&run->needs->cost, tokens, tokens * (tokens + 1) / 2);
    run->fed += n;
    run->skipped += seconds;
    fkv_progress_skip(&run->progress, n, seconds);
}

/* Seconds that what is done was to take; see fkv_recorder_needs. */
static double expected_so_far(const struct run *run) {
    struct fkv_session_statistics fed;
    fkv_session_statistics(run->session, &fed);
    return run->skipped + fkv_cost_seconds(&run->needs->cost, (double)fed.tokens, fed.slots_sum);
}

/* Starts recordings in all places that are free, as long as there are any; what is there already is
 * compared and passed over. */
static int fill_places(struct run *run, struct fkv_error *err) {
    struct fkv_recording recording;
    bool more = true;
    for (int32_t i = 0; i < run->count && more; i++) {
        while (!run->places[i].open && more) {
            if (stopped(run)) return fkv_fail(err, "interrupted");
            if (next_recording(run, &recording, &more, err)) return FKV_FAILED;
            if (!more) break;
            const bool there = fkv_capture_has(run->writer, run->index);
            if (there ? fkv_pipeline_check(run->pipeline, run->index, &recording, err)
                      : begin(run, i, &recording, err))
                return FKV_FAILED;
            run->summary->recordings_there += there;
            if (there) skip_recording(run, recording.n_tokens);
            run->index++;
        }
    }
    return FKV_OK;
}

/* ---- passes ---- */

/* The next block of every open recording: run->feeds [*count], `rows` in all. */
static void choose_blocks(struct run *run, int32_t *count, int32_t *rows) {
    *count = *rows = 0;
    for (int32_t i = 0; i < run->count; i++) {
        struct place *place = &run->places[i];
        if (!place->open) continue;
        const int64_t n = place->recording.n_tokens, left = n - place->fed;
        const int64_t most = run->r->options.block, blocks = (n + most - 1) / most,
                      block = (n + blocks - 1) / blocks;
        const int32_t take = (int32_t)(left < block ? left : block);
        run->feeds[(*count)++] = (struct fkv_feed){i, place->tokens + place->fed, take};
        for (int32_t k = 0; k < take;
             k++) /* the last token has no target, and its score is not used */
            run->targets[*rows + k] =
                place->fed + k + 1 < n ? place->tokens[place->fed + k + 1] : 0;
        *rows += take;
    }
}

/* Scores of the rows of one feed, from `scores` on, go to its recording. */
static void take_scores(struct run *run, const struct fkv_feed *feed, const double *scores) {
    struct place *place = &run->places[feed->sequence];
    for (int32_t k = 0; k < feed->count && place->fed + k + 1 < place->recording.n_tokens; k++) {
        place->nll[place->fed + k + 1] = (float)scores[k];
        run->summary->nll_sum += scores[k];
        run->summary->tokens_scored++;
    }
    place->fed += feed->count;
    run->fed += feed->count;
}

static int pass(struct run *run, bool *done, struct fkv_error *err) {
    int32_t count, rows;
    choose_blocks(run, &count, &rows);
    *done = count == 0;
    if (*done) return FKV_OK;
    if (stopped(run)) return fkv_fail(err, "interrupted");
    const char *name = run->places[run->feeds[0].sequence].recording.name;
    if (fkv_session_feed_batch(run->session, run->feeds, count, err) ||
        fkv_session_score(run->session, NULL, 0, rows, run->targets, run->scores, NULL, NULL, err))
        return FKV_FAILED;
    const double *scores = run->scores;
    for (int32_t i = 0; i < count; i++) {
        take_scores(run, &run->feeds[i], scores);
        scores += run->feeds[i].count;
    }
    fkv_progress_update_work(&run->progress, run->fed, expected_so_far(run), name);
    for (int32_t i = 0; i < count; i++) {
        const struct place *place = &run->places[run->feeds[i].sequence];
        if (place->fed == place->recording.n_tokens && end(run, run->feeds[i].sequence, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int record_all(struct run *run, struct fkv_error *err) {
    bool done = false;
    while (!done)
        if (fill_places(run, err) || pass(run, &done, err)) return FKV_FAILED;
    if (fkv_capture_end(run->writer) > run->index)
        return fkv_fail(err, "%s: expected %lld recordings of these texts, found more",
                        run->r->options.out, (long long)run->index);
    return FKV_OK;
}

/* ---- the run ---- */

static int run_open(struct run *run, const struct fkv_recorder_needs *needs,
                    struct fkv_error *err) {
    struct fkv_recorder *r = run->r;
    const struct fkv_model *model = r->engine->model;
    run->count = fkv_recorder_places(r, needs);
    const struct fkv_session_options session =
        fkv_recorder_session_options(r, run->count, needs->longest);
    const struct fkv_collector_options collector = fkv_recorder_collector_options(r, run->count);
    const struct fkv_pipeline_options pipeline = {run->count,
                                                  fkv_recorder_ring(r, run->count, needs->longest)};
    const size_t rows = (size_t)run->count * (size_t)r->options.block;
    run->places = calloc((size_t)run->count, sizeof *run->places);
    run->feeds = malloc((size_t)run->count * sizeof *run->feeds);
    run->targets = malloc(rows * sizeof *run->targets);
    run->scores = malloc(rows * sizeof *run->scores);
    if (!run->places || !run->feeds || !run->targets || !run->scores)
        return fkv_fail(err, "out of memory");
    if (r->engine->tokenizer &&
        fkv_token_classifier_open(r->engine->tokenizer, &run->classifier, err))
        return FKV_FAILED;
    if (fkv_capture_create(r->options.out, &r->info, r->options.resume, &run->writer, err) ||
        fkv_recorder_write_gram(r, run->writer, err) ||
        fkv_session_open(model, &fkv_full_attention, &session, &run->session, err) ||
        fkv_pipeline_open(run->writer, &r->info, model, &pipeline, &run->pipeline, err) ||
        fkv_collector_open(&r->info, model, run->pipeline, &collector, &run->collector, err))
        return FKV_FAILED;
    fkv_collector_attach(run->collector, run->session);
    return fkv_engine_documents(r->engine_options, r->engine, &run->documents, err);
}

static void run_close(struct run *run) {
    leave_document(run);
    fkv_documents_close(run->documents);
    fkv_session_close(run->session);
    fkv_collector_close(run->collector);
    fkv_capture_abandon(run->writer);
    fkv_token_classifier_close(run->classifier);
    for (int32_t i = 0; run->places && i < run->count; i++) leave(&run->places[i]);
    free(run->places);
    free(run->feeds);
    free(run->targets);
    free(run->scores);
}

int fkv_recorder_run(struct fkv_recorder *r, const struct fkv_recorder_needs *needs,
                     struct fkv_recorder_summary *summary, struct fkv_error *err) {
    *summary = (struct fkv_recorder_summary){0};
    struct run run = {.r = r, .summary = summary, .needs = needs};
    const double started = fkv_seconds();
    int64_t whole = 0;
    int status = run_open(&run, needs, err);
    if (status == FKV_OK) {
        fkv_progress_start(&run.progress, "tokens", needs->tokens, r->engine_options->quiet);
        fkv_progress_weigh(&run.progress,
                           fkv_cost_seconds(&needs->cost, (double)needs->tokens, needs->slots));
        status = record_all(&run, err);
        fkv_progress_finish(&run.progress);
    }
    if (fkv_pipeline_close(run.pipeline, &whole, status ? NULL : err)) status = FKV_FAILED;
    if (status == FKV_OK) status = fkv_capture_finish(run.writer, err);
    whole += summary->recordings_there;
    if (status && whole > 0 && err) {
        const struct fkv_error why = *err;
        fkv_fail(err, "%.800s (%lld recordings are whole; the same command with --resume goes on)",
                 why.message, (long long)whole);
    }
    summary->seconds = fkv_seconds() - started;
    run_close(&run);
    return status;
}
