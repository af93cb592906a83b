/* Greedy and temperature sampling over full distributions; no top-k or top-p: what is studied here
 * is the cache.
 *
 * Prompts run in lanes, one per sequence; a lane that is through takes the next prompt. Prompts are
 * fed apart from the tokens that are decoded: a feed with one token of every lane is a decode step,
 * which a device replays, and mixing a prompt's block into it would make it another one. */
#include "replay/generate/generate.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/progress.h"

/* The index of the first of the largest, or -1 where one is NaN. In loops that compilers turn into
 * vectors or side by side: one by one, 49,152 logits take 0.2 ms, half a layer of SmolLM2-135M. */
static int32_t first_largest(const float *logits, int32_t vocab) {
    enum { LANES = 16 };
    float largest[LANES];
    int32_t not_numbers = 0, i = 0;
    for (int l = 0; l < LANES; l++) largest[l] = logits[0];
    for (; i + LANES <= vocab; i += LANES)
        for (int l = 0; l < LANES; l++)
            largest[l] = logits[i + l] > largest[l] ? logits[i + l] : largest[l];
    for (; i < vocab; i++) largest[0] = logits[i] > largest[0] ? logits[i] : largest[0];
    for (int l = 1; l < LANES; l++) largest[0] = largest[l] > largest[0] ? largest[l] : largest[0];
    for (i = 0; i < vocab; i++) not_numbers |= logits[i] != logits[i];
    if (not_numbers) return -1;
    for (i = 0; logits[i] != largest[0]; i++) continue;
    return i;
}

int32_t fkv_sample(const float *logits, int32_t vocab, double temperature,
                   struct fkv_random *random) {
    const int32_t top = first_largest(logits, vocab);
    if (top < 0 || !isfinite(logits[top])) return -1;
    if (temperature == 0) return top;
    double sum = 0, passed = 0;
    for (int32_t i = 0; i < vocab; i++) sum += exp(((double)logits[i] - logits[top]) / temperature);
    double u = fkv_random_uniform(random) * sum;
    int32_t last =
        top; /* rounding may leave u beyond the end: then the last id that has any mass */
    for (int32_t i = 0; i < vocab; i++) {
        double mass = exp(((double)logits[i] - logits[top]) / temperature);
        passed += mass;
        if (mass > 0) last = i;
        if (passed > u) return i;
    }
    return last;
}

void fkv_generation_free(struct fkv_generation *g) {
    free(g->ids);
    *g = (struct fkv_generation){0};
}

struct lane {
    struct fkv_generation *generation; /* NULL: idle */
    struct fkv_random random;
    const int32_t
        *next; /* [waiting] tokens to be fed: what is left of the prompt, then the last id */
    int64_t waiting;
    bool decoding, drawn;         /* drawn: in this step, and nobody has been told */
    struct fkv_stopped_text text; /* where there are stop strings */
};

struct run {
    struct fkv_session *session;
    const struct fkv_generation_options *options;
    struct fkv_generation *generations; /* [count] */
    int64_t count, taken, finished;
    struct lane *lanes;     /* [options->lanes] */
    struct fkv_feed *feeds; /* [options->lanes] */
    float *logits;          /* [options->lanes, vocab] */
};

static int append(struct fkv_generation *g, int32_t id, struct fkv_error *err) {
    if (g->count == g->capacity) {
        int64_t capacity = g->capacity ? 2 * g->capacity : 256;
        int32_t *larger = realloc(g->ids, (size_t)capacity * sizeof *larger);
        if (!larger)
            return fkv_fail(err, "out of memory for %lld generated tokens", (long long)capacity);
        g->ids = larger;
        g->capacity = capacity;
    }
    g->ids[g->count++] = id;
    return FKV_OK;
}

static bool has_strings(const struct fkv_generation *g) { return g->stops && g->stops->count; }

static int take_prompts(struct run *run, struct fkv_error *err) {
    for (int32_t l = 0; l < run->options->lanes; l++) {
        if (run->lanes[l].generation || run->taken == run->count) continue;
        struct fkv_generation *g = &run->generations[run->taken++];
        run->lanes[l] = (struct lane){.generation = g,
                                      .random = {run->options->seed},
                                      .next = g->prompt,
                                      .waiting = g->prompt_count};
        fkv_session_reset(run->session, l);
        if (g->prompt_count <= INT32_MAX) /* the prompt is one prefill block */
            fkv_session_set_prefill(run->session, l, (int32_t)g->prompt_count, g->prompt_count);
        if (has_strings(g) &&
            fkv_stopped_text_open(&run->lanes[l].text, run->options->tokenizer, g->prompt,
                                  (size_t)g->prompt_count, g->stops, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* The feeds of a step: blocks of prompts while there are any, else one token of every lane. Returns
 * how many. */
static int32_t next_feeds(struct run *run, bool *decoding) {
    int32_t feeds = 0, left = run->options->block;
    *decoding = true;
    for (int32_t l = 0; l < run->options->lanes; l++)
        if (run->lanes[l].generation && !run->lanes[l].decoding) *decoding = false;
    for (int32_t l = 0; l < run->options->lanes && left; l++) {
        const struct lane *lane = &run->lanes[l];
        if (!lane->generation || lane->decoding != *decoding) continue;
        int32_t rows = lane->waiting < left ? (int32_t)lane->waiting : left;
        run->feeds[feeds++] = (struct fkv_feed){l, lane->next, rows};
        left -= rows;
    }
    return feeds;
}

static bool ends_text(const struct fkv_config *config, int32_t id) {
    for (int32_t i = 0; i < config->end_count; i++)
        if (config->ends[i] == id) return true;
    return false;
}

/* Draws a lane's next id from its logits. */
static int sample_lane(struct run *run, struct lane *lane, const float *logits,
                       struct fkv_error *err) {
    const struct fkv_config *config = &fkv_session_model(run->session)->config;
    const struct fkv_generation_options *o = run->options;
    struct fkv_generation *g = lane->generation;
    int32_t id = fkv_sample(logits, config->vocab, o->temperature, &lane->random);
    if (id < 0)
        return fkv_fail(err, "prompt %lld: token %lld: logits are not finite", (long long)g->number,
                        (long long)(g->prompt_count + g->count));
    g->ended = ends_text(config, id);
    g->stopped = !g->ended && g->stops && fkv_stops_has_id(g->stops, id);
    const bool kept = !g->ended && !g->stopped;
    if (kept && append(g, id, err)) return FKV_FAILED;
    g->complete = !kept || g->count == (g->most ? g->most : o->tokens);
    lane->drawn = true;
    if (g->complete) return FKV_OK;
    lane->next = &g->ids[g->count - 1];
    lane->waiting = 1;
    lane->decoding = true;
    return FKV_OK;
}

/* Samples for every lane whose tokens are all fed. Rows that lie side by side, as in a decode step,
 * are one product. */
static int sample_feeds(struct run *run, int32_t feeds, struct fkv_error *err) {
    const size_t vocab = (size_t)fkv_session_model(run->session)->config.vocab;
    int32_t end = 0; /* of the feed's rows in the session */
    for (int32_t f = 0, count; f < feeds; f += count) {
        end += run->feeds[f].count;
        count = 1;
        if (run->lanes[run->feeds[f].sequence].waiting) continue;
        while (f + count < feeds && run->feeds[f + count].count == 1 &&
               !run->lanes[run->feeds[f + count].sequence].waiting)
            count++;
        if (fkv_session_logits(run->session, end - 1, count, run->logits, err)) return FKV_FAILED;
        for (int32_t i = 0; i < count; i++)
            if (sample_lane(run, &run->lanes[run->feeds[f + i].sequence],
                            run->logits + (size_t)i * vocab, err))
                return FKV_FAILED;
        end += count - 1;
    }
    return FKV_OK;
}

/* Looks for stop strings in the text with what was drawn. */
static int find_stop(struct lane *lane, struct fkv_error *err) {
    struct fkv_generation *g = lane->generation;
    const bool kept = !g->ended && !g->stopped;
    if (!has_strings(g)) return FKV_OK;
    if ((kept && fkv_stopped_text_push(&lane->text, g->ids[g->count - 1], err)) ||
        (g->complete && fkv_stopped_text_finish(&lane->text, err)))
        return FKV_FAILED;
    g->stopped |= lane->text.stopped;
    g->complete |= lane->text.stopped;
    if (g->complete) fkv_stopped_text_close(&lane->text);
    return FKV_OK;
}

/* Tells the watcher what was drawn; a lane is idle afterwards when its continuation is complete. */
static int tell(struct run *run, struct fkv_error *err) {
    const struct fkv_generation_options *o = run->options;
    for (int32_t l = 0; l < o->lanes; l++) {
        struct lane *lane = &run->lanes[l];
        if (!lane->drawn) continue;
        lane->drawn = false;
        if (find_stop(lane, err)) return FKV_FAILED;
        if (o->watch && o->watch(o->context, lane->generation, err)) return FKV_FAILED;
        if (!lane->generation->complete) continue;
        lane->generation = NULL;
        run->finished++;
    }
    return FKV_OK;
}

/* Feeds, logits and sampling are what the times are of; who watches may decode text and write
 * files meanwhile. */
static int step(struct run *run, struct fkv_generation_times *times, struct fkv_error *err) {
    const struct fkv_model *model = fkv_session_model(run->session);
    bool decoding;
    int32_t feeds = next_feeds(run, &decoding);
    double started = fkv_seconds();
    if (fkv_session_feed_batch(run->session, run->feeds, feeds, err) ||
        (!decoding && model->ops->synchronize(model->backend, err)))
        return FKV_FAILED;
    double fed = fkv_seconds();
    for (int32_t f = 0; f < feeds; f++) {
        struct lane *lane = &run->lanes[run->feeds[f].sequence];
        lane->next += run->feeds[f].count;
        lane->waiting -= run->feeds[f].count;
    }
    int status = sample_feeds(run, feeds, err);
    *(decoding ? &times->decode_seconds : &times->prefill_seconds) += fed - started;
    times->decode_seconds += fkv_seconds() - fed;
    return status ? status : tell(run, err);
}

int fkv_generate(struct fkv_session *s, struct fkv_generation *generations, int64_t count,
                 const struct fkv_generation_options *options, struct fkv_generation_times *times,
                 struct fkv_error *err) {
    const size_t lanes = (size_t)options->lanes, vocab = (size_t)fkv_session_model(s)->config.vocab;
    struct run run = {.session = s,
                      .options = options,
                      .generations = generations,
                      .count = count,
                      .lanes = calloc(lanes, sizeof *run.lanes),
                      .feeds = calloc(lanes, sizeof *run.feeds),
                      .logits = malloc(lanes * vocab * sizeof *run.logits)};
    int status =
        run.lanes && run.feeds && run.logits ? FKV_OK : fkv_fail(err, "out of memory for logits");
    while (!status && run.finished < count) {
        status = take_prompts(&run, err);
        if (!status) status = step(&run, times, err);
    }
    for (size_t l = 0; run.lanes && l < lanes; l++) fkv_stopped_text_close(&run.lanes[l].text);
    free(run.lanes);
    free(run.feeds);
    free(run.logits);
    return status;
}
