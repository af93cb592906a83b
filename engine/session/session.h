/* A session: one or more mutable timelines (sequences: independent documents side by side) over an
 * immutable model. It owns the KV cache, the per-head schedule and all scratch; everything is
 * allocated when it opens, nothing in a step. Tokens are fed in blocks of any size up to
 * options.block; the block size serves the matrix products and never changes a result beyond
 * rounding, and a block of one token per sequence is a decode step. What one sequence sees never
 * depends on the others. */
#ifndef FKV_ENGINE_SESSION_SESSION_H
#define FKV_ENGINE_SESSION_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/checkpoint/model.h"
#include "engine/cache/setup.h"

struct fkv_session;
struct fkv_snapshot;

struct fkv_session_options {
    int32_t block;      /* most tokens per feed, all sequences together; 0: 512 */
    int32_t sequences;  /* 0: 1 */
    int64_t max_tokens; /* most tokens in one timeline (sizes the cache of `full`); 0: the trained
                           context */
    int64_t positions;  /* for which rotations that depend on the length are chosen (rope.h); 0:
                           those  that the session can reach, its window or max_tokens */
    enum fkv_dtype cache_dtype;
    bool measure_energy; /* fill the energies of compression events */
    bool biases; /* keep a bias per slot, for surgery; a policy with mass_bias does so anyway */
};

/* *out: a session with an empty cache; the caller closes it before the model. */
int fkv_session_open(const struct fkv_model *model, const struct fkv_policy_options *policy,
                     const struct fkv_session_options *options, struct fkv_session **out,
                     struct fkv_error *err);
void fkv_session_close(struct fkv_session *s); /* NULL is fine */
enum { FKV_ALL_SEQUENCES = -1 };
/* An empty cache, token 0, for one sequence or (FKV_ALL_SEQUENCES) all; statistics are kept, and
 * what the last feed predicts. */
void fkv_session_reset(struct fkv_session *s, int32_t sequence);

/* Says how a sequence's timeline is prefilled from its first token on: in blocks of `block` tokens,
 * as many as end within the first `tokens`. A selecting policy acts at the end of each, when
 * another token arrives; the others take no notice. A reset ends it. */
void fkv_session_set_prefill(struct fkv_session *s, int32_t sequence, int32_t block,
                             int64_t tokens);

/* Positions for which the model's rotations were chosen; 0 where none depends on the length. */
int64_t fkv_session_rotation_positions(const struct fkv_session *s);
/* Positions that a session under `setup` reaches with `max_tokens`: a window keeps them below it.
 */
int64_t fkv_session_reach(const struct fkv_policy_setup *setup, int64_t max_tokens);

/* Bytes of memory where the backend computes. */
struct fkv_session_needs {
    int64_t cache;                /* keys and values */
    int64_t scratch;              /* the session's other buffers */
    struct fkv_backend_needs own; /* what the backend takes for itself, once for all its sessions */
};

/* All of it. */
static inline int64_t fkv_session_needs_bytes(const struct fkv_session_needs *needs) {
    return needs->cache + needs->scratch + needs->own.shared + needs->own.kept;
}

/* Adds what such a session takes to `needs`, without opening one. */
int fkv_session_add_needs(const struct fkv_model *model, const struct fkv_policy_options *policy,
                          const struct fkv_session_options *options,
                          struct fkv_session_needs *needs, struct fkv_error *err);

/* Runs `count` tokens (1 .. block) of sequence 0 through all layers. Their final hidden states stay
 * until the next feed. */
int fkv_session_feed(struct fkv_session *s, const int32_t *tokens, int32_t count,
                     struct fkv_error *err);
/* The same for several sequences at once, each at most once: the rows of feeds[0], feeds[1], ...
 * follow one another, together at most `block`. */
struct fkv_feed {
    int32_t sequence;
    const int32_t *tokens;
    int32_t count;
};
int fkv_session_feed_batch(struct fkv_session *s, const struct fkv_feed *feeds, int32_t count,
                           struct fkv_error *err);

/* What rows [row, row+rows) of the last feed predict. logits [rows, vocab] float32 on the host. */
int fkv_session_logits(struct fkv_session *s, int32_t row, int32_t rows, float *logits,
                       struct fkv_error *err);
/* Final hidden states of rows [row, row+rows) of the last feed, before the last norm. states [rows,
 * dim] float32 on the host. */
int fkv_session_final_states(struct fkv_session *s, int32_t row, int32_t rows, float *states,
                             struct fkv_error *err);
/* nll[i] = -log p(targets[i]) in nats, float64 from float32 logits; top1[i] (may be NULL) = the
 * argmax. */
int fkv_session_score(struct fkv_session *s, int32_t row, int32_t rows, const int32_t *targets,
                      double *nll, int32_t *top1, struct fkv_error *err);
/* What fkv_session_score fills; either may be NULL. */
struct fkv_row_scores {
    double *nll;
    int32_t *top1;
};
/* The same of this session and of `reference`, another one over the same model that was fed the
 * same tokens, and kl[i] = KL(reference || this session). */
int fkv_session_compare(struct fkv_session *s, struct fkv_session *reference, int32_t row,
                        int32_t rows, const int32_t *targets, const struct fkv_row_scores *scores,
                        const struct fkv_row_scores *reference_scores, double *kl,
                        struct fkv_error *err);

/* Snapshots (not under a selecting policy) hold the cache and the schedule of all sequences, not
 * the last feed's hidden states: feed before asking for logits again. */
int fkv_session_snapshot(struct fkv_session *s, struct fkv_snapshot **out, struct fkv_error *err);
/* Back to the snapshot, which must be of this session. */
int fkv_session_restore(struct fkv_session *s, const struct fkv_snapshot *snapshot,
                        struct fkv_error *err);
void fkv_snapshot_free(struct fkv_snapshot *snapshot); /* NULL is fine; before its session closes */

/* The policy's setup; owned by the session. */
const struct fkv_policy_setup *fkv_session_setup(const struct fkv_session *s);
const struct fkv_model *fkv_session_model(const struct fkv_session *s);
/* Most rows of a feed. */
int32_t fkv_session_block(const struct fkv_session *s);
/* Tokens fed in the sequence's current timeline. */
int64_t fkv_session_tokens(const struct fkv_session *s, int32_t sequence);
/* Where a row of a feed stood; means over (layer, KV head). */
struct fkv_row_state {
    double slots;             /* that it could attend to */
    double compressions;      /* before it */
    double since_compression; /* tokens since the last one, or the first, its own included */
    double evictions;         /* before it */
    double since_eviction;    /* as since_compression */
};
/* Rows [row, row+rows) of the last feed -> state [rows]. */
void fkv_session_row_state(const struct fkv_session *s, int32_t row, int32_t rows,
                           struct fkv_row_state *state);
/* Slots that the heads of a sequence hold, [layers, kv_heads] each: now, and at most so far, in all
 * its timelines. Slots that no query sees any more do not count. Either may be NULL. */
void fkv_session_slots(const struct fkv_session *s, int32_t sequence, int32_t *now, int32_t *most);
/* Bytes that were allocated for the keys and values of one sequence. */
int64_t fkv_session_allocated(const struct fkv_session *s);

/* Action time: see ops->time_read (cumulative over all sessions of the backend). */
struct fkv_session_statistics {
    int64_t tokens;           /* fed, all timelines */
    int64_t compressions;     /* linear maps applied, all heads */
    int64_t evictions;        /* times that slots were dropped from view, all heads */
    int64_t selections;       /* times that a head's slots were selected */
    int64_t slots_kept;       /* by them, all heads; / selections = the mean budget used */
    int64_t cache_bytes_peak; /* most that keys and values in use of one sequence held, summed over
                                 heads; of a cache with a grid, in the grid's format */
    double slots_sum;         /* over queries of the mean slots they could attend to; / tokens =
                                 cache_slots_mean */
};
void fkv_session_statistics(const struct fkv_session *s, struct fkv_session_statistics *out);

/* ---- how long it will take (rehearse.c) ---- */
/* Seconds per token fed, and per slot that a token sees on top: attention's part, which grows along
 * a timeline. */
struct fkv_cost {
    double token;
    double slot;
};
enum fkv_scoring { FKV_NOT_SCORED, FKV_SCORED, FKV_SCORED_WITH_KL };

/* Measures that: times feeds of `rows` rows (fewer where that would take seconds) to each of the
 * first `sequences` sequences, scored as said, at the start of a timeline and at the end of one of
 * `tokens` tokens, and lays a line through the two. For a session that has fed nothing; afterwards
 * it is as new. */
int fkv_session_rehearse(struct fkv_session *s, int32_t sequences, int32_t rows, int64_t tokens,
                         enum fkv_scoring scoring, struct fkv_cost *cost, struct fkv_error *err);
static inline double fkv_cost_seconds(const struct fkv_cost *cost, double tokens, double slots) {
    return cost->token * tokens + cost->slot * slots;
}

#endif
