/* Measuring what a run will take before it starts. A feed's time is that of its products, which is
 * the same for every token, and that of attention, which goes with the slots that a token sees. The
 * end of a long timeline costs most there, and need not be reached to be timed: what the slots hold
 * does not change how long they take to read, so heads are simply set to where they would stand.
 *
 * Tried and dropped: a few rows instead of a block (products of 64 rows run at a third of the speed
 * of 512 on a processor, and at a tenth on a device); the start of a timeline alone. */
#include <stdlib.h>
#include <string.h>

#include "engine/session/session_internal.h"
#include "kernels/base/progress.h"

/* A feed should take no longer than MOST_SECONDS; short ones are repeated until ENOUGH_SECONDS. */
#define MOST_SECONDS 0.5
#define ENOUGH_SECONDS 0.1
enum { FIRST_ROWS = 8, MOST_TURNS = 200 };

struct rehearsal {
    struct fkv_session *s;
    struct fkv_feed *feeds; /* [sequences] */
    int32_t sequences;
    enum fkv_scoring scoring;
    int32_t *ids; /* [block] zeros: tokens, and targets */
    double *scores, *kl;
};

/* What feeds at one position of a timeline took. */
struct sample {
    double seconds, tokens, slots;
};

/* Sets all heads to token `token` of a timeline. One that acts every C tokens gets `rows` mod C
 * free slots, so that it acts within the feed as often as on average, and never in a decode step.
 * One that selects at the end of blocks stands somewhere in one. */
static void set_heads(struct fkv_session *s, int64_t token, int32_t rows) {
    const struct fkv_policy_setup *setup = &s->setup;
    const bool windowed = !setup->policy->keeps_every_token && token > setup->most_seen;
    const int32_t block = setup->policy->select ? setup->prefill_block : 0;
    fkv_session_reset(s, FKV_ALL_SEQUENCES);
    for (int32_t i = 0; i < session_head_count(s); i++) {
        struct fkv_head *head = &s->heads[i];
        head->tokens = token;
        head->slots = windowed ? setup->most_seen : (int32_t)token;
        const int32_t period =
            fkv_policy_period(setup, head->layer * setup->kv_heads + head->kv_head);
        if (windowed && period) head->slots -= rows % period;
        if (!block) continue;
        head->block = block;
        head->prefill = INT64_MAX;
        const int64_t most = setup->capacity - block + token % block;
        if (setup->capacity < s->options.max_tokens && most < token) head->slots = (int32_t)most;
    }
}

static int feed_once(struct rehearsal *r, int32_t rows, int64_t at, struct sample *sample,
                     struct fkv_error *err) {
    struct fkv_session *s = r->s;
    const struct fkv_session_statistics before = s->statistics;
    const int32_t all = rows * r->sequences;
    for (int32_t i = 0; i < r->sequences; i++) r->feeds[i] = (struct fkv_feed){i, r->ids, rows};
    set_heads(s, at, rows);
    if (s->ops->synchronize(s->backend, err)) return FKV_FAILED;
    const double started = fkv_seconds();
    const struct fkv_row_scores scores = {r->scores, NULL}; /* with KL: to itself */
    if (fkv_session_feed_batch(s, r->feeds, r->sequences, err) ||
        (r->scoring == FKV_SCORED && fkv_session_score(s, 0, all, r->ids, r->scores, NULL, err)) ||
        (r->scoring == FKV_SCORED_WITH_KL &&
         fkv_session_compare(s, s, 0, all, r->ids, &scores, &scores, r->kl, err)) ||
        s->ops->synchronize(s->backend, err))
        return FKV_FAILED;
    sample->seconds += fkv_seconds() - started;
    sample->tokens += (double)(s->statistics.tokens - before.tokens);
    sample->slots += s->statistics.slots_sum - before.slots_sum;
    return FKV_OK;
}

/* As many rows as a feed can have in the time for one. */
static int choose_rows(struct rehearsal *r, int32_t *rows, struct fkv_error *err) {
    const int32_t first = *rows < FIRST_ROWS ? *rows : FIRST_ROWS;
    struct sample warm = {0}, sample = {0};
    if (feed_once(r, first, 0, &warm, err) || feed_once(r, first, 0, &sample, err))
        return FKV_FAILED;
    const double most = MOST_SECONDS / sample.seconds * first;
    if (most < *rows) *rows = most > first ? (int32_t)most : first;
    return FKV_OK;
}

/* Slots that no token has filled are read at the end of a timeline. Zeros make them numbers, and
 * pages of their own: fresh memory is the system's one page of zeros, which a processor's cache
 * holds, and reading it takes no time. */
static int fill_cache(struct fkv_session *s, struct fkv_error *err) {
    enum { CHUNK = 16 << 20 };
    struct fkv_buffer *const buffers[] = {s->key, s->value};
    const size_t chunk = s->cache_bytes < CHUNK ? s->cache_bytes : CHUNK;
    void *zeros = calloc(1, chunk);
    int status = zeros ? FKV_OK : fkv_fail(err, "out of memory for %zu bytes", chunk);
    for (int i = 0; i < 2; i++)
        for (size_t at = 0, left; (left = s->cache_bytes - at) > 0 && !status;
             at += left < chunk ? left : chunk)
            status =
                s->ops->write(s->backend, buffers[i], at, zeros, left < chunk ? left : chunk, err);
    free(zeros);
    return status;
}

static struct fkv_cost line_through(const struct sample *start, const struct sample *end) {
    const double t0 = start->seconds / start->tokens, x0 = start->slots / start->tokens;
    const double t1 = end->seconds / end->tokens, x1 = end->slots / end->tokens;
    const double slope = x1 > x0 && t1 > t0 ? (t1 - t0) / (x1 - x0) : 0;
    if (slope == 0) return (struct fkv_cost){(t0 + t1) / 2, 0};
    return slope * x0 < t0 ? (struct fkv_cost){t0 - slope * x0, slope}
                           : (struct fkv_cost){0, t1 / x1};
}

static int measure(struct rehearsal *r, int32_t rows, int64_t tokens, struct fkv_cost *cost,
                   struct fkv_error *err) {
    struct sample warm = {0}, start = {0}, end = {0};
    if (choose_rows(r, &rows, err) || feed_once(r, rows, 0, &warm, err)) return FKV_FAILED;
    for (int turn = 0; turn < MOST_TURNS && start.seconds + end.seconds < ENOUGH_SECONDS; turn++)
        if (feed_once(r, rows, 0, &start, err) || feed_once(r, rows, tokens - rows, &end, err))
            return FKV_FAILED;
    *cost = line_through(&start, &end);
    return FKV_OK;
}

int fkv_session_rehearse(struct fkv_session *s, int32_t sequences, int32_t rows, int64_t tokens,
                         enum fkv_scoring scoring, struct fkv_cost *cost, struct fkv_error *err) {
    const int32_t most = s->options.block / sequences;
    if (rows > most) rows = most;
    if (tokens > s->options.max_tokens) tokens = s->options.max_tokens;
    if (rows > tokens) rows = (int32_t)tokens;
    const size_t all = (size_t)rows * (size_t)sequences;
    struct rehearsal r = {.s = s,
                          .feeds = calloc((size_t)sequences, sizeof *r.feeds),
                          .sequences = sequences,
                          .scoring = scoring,
                          .ids = calloc(all, sizeof *r.ids),
                          .scores = calloc(2 * all, sizeof *r.scores)};
    r.kl = r.scores ? r.scores + all : NULL;
    int status =
        r.feeds && r.ids && r.scores ? FKV_OK : fkv_fail(err, "out of memory for %zu rows", all);
    if (!status) status = fill_cache(s, err);
    if (!status) status = measure(&r, rows, tokens, cost, err);
    fkv_session_reset(s, FKV_ALL_SEQUENCES);
    s->statistics = (struct fkv_session_statistics){0};
    memset(s->peak_slots, 0, (size_t)session_head_count(s) * sizeof *s->peak_slots);
    memset(s->peak_bytes, 0, (size_t)s->options.sequences * sizeof *s->peak_bytes);
    free(r.feeds);
    free(r.ids);
    free(r.scores);
    return status;
}
