/* What the files of a session share: open.c (life), feed.c (tokens through the layers), schedule.c
 * (a layer's rounds of append, attend, act), rotation.c, predict.c (logits and scores), select.c,
 * choose.c, biases.c, surgery.c and snapshot.c. Beside them only tests include it. */
#ifndef FKV_ENGINE_SESSION_SESSION_INTERNAL_H
#define FKV_ENGINE_SESSION_SESSION_INTERNAL_H

#include "engine/cache/policies/selecting.h"
#include "engine/session/session.h"
#include "engine/session/taps.h"
#include "kernels/base/memory.h"

struct prepared_map {
    int32_t n, retained;
    double gain;
    int32_t matrices, id;   /* as of struct fkv_action */
    int32_t layer, kv_head; /* of a head that has this map */
    struct fkv_map *map;
};

static inline bool session_map_is(const struct prepared_map *map, const struct fkv_action *a) {
    return map->n == a->map_n && map->retained == a->map_retained && map->gain == a->map_gain &&
           map->matrices == a->map_matrices && map->id == a->map_id;
}

/* Items of one call. append and attend take the heads of one layer; compress and gather take all
 * heads of the cache. */
struct round_items {
    struct fkv_append_item *append;     /* [sequences, kv_heads] */
    struct fkv_attend_item *attend;     /* [session_attend_items()] */
    struct fkv_span *spans;             /* [session_attend_items(), max_spans] */
    int32_t *next_row;                  /* [feeds, kv_heads], within the feed */
    struct fkv_action *actions;         /* [all heads]; gather_from [capacity] each */
    struct fkv_head **acting;           /* [all heads] */
    struct fkv_compress_item *compress; /* [all heads] */
    struct fkv_gather_item *gather;     /* [all heads] */
    struct fkv_energy *energy;          /* [all heads], by acting head */
    struct fkv_energy *measured;        /* [all heads], by item of a call */
    int32_t *item_head;                 /* [all heads], index into `acting` by item of a call */
};

/* A sequence's part of the rows being fed. */
struct fed {
    int32_t sequence;
    int32_t row; /* its first, of the rows fed */
    int32_t rows;
};

/* What is known of rows being scored: of a reference p and of q, by all panels so far and by the
 * latest. */
struct scores {
    struct fkv_likelihood *p, *q, *panel_p, *panel_q; /* [block] */
    double *gap, *panel_gap;                          /* [block] */
};

struct tap {
    fkv_tap_function *function;
    void *context;
};

/* Of a selecting policy; all NULL without one. */
struct selecting {
    struct fkv_buffer *paid; /* [layers, sequences, kv_heads, capacity] float32, on the backend:
                                attention paid so far; NULL where slots are scored by keys */
    int32_t *summed;         /* [layers, sequences, kv_heads] slots whose sums are valid */
    float *zeros;            /* [capacity] */
    float *numbers;          /* [capacity] of one head */
    double *score;           /* [capacity] of one head */
    struct fkv_scored_slot *scratch; /* [capacity] */
    char *keys;                      /* [capacity, head_dim] cache_dtype, of one head */
};

/* Where queries choose among chunks; all NULL where they do not. */
struct choosing {
    struct fkv_buffer *query, *mixed; /* [chunk, heads, head_dim] float32, on the backend */
    float *rows;                      /* [block, heads, head_dim] queries of the rows being fed */
    float *states;                    /* [chunk, heads, head_dim] of one chunk */
    float *kept;                      /* what lasts from feed to feed: queries and vectors */
    size_t kept_floats;
    float *queries; /* in `kept`, [layers, sequences, chunk, heads, head_dim] of chunks that are not
                       full yet */
    float *vectors; /* in `kept`, [layers, sequences, heads, head_dim, chunks] of those that are */
    double *score;  /* [chunks] of one query */
    struct fkv_scored_slot *scratch; /* [chunks] */
    int32_t *chosen;                 /* [chunks + 1] */
};

enum { SESSION_BUFFERS = 16 }; /* more than there are */

struct fkv_session {
    const struct fkv_model *model;
    const struct fkv_backend_ops *ops; /* the model's, for short */
    struct fkv_backend *backend;
    enum fkv_space space; /* of the memory of its buffers */
    struct fkv_policy_setup setup;
    struct fkv_session_options options;

    /* By rotation of the model; the last is without one. */
    struct fkv_attention_shape attention[FKV_MOST_ROTATIONS + 1];
    double inv_freq[FKV_MOST_ROTATIONS][FKV_MAX_HEAD_DIM / 2]; /* what they point to */

    struct fkv_buffer *key;   /* [layers, sequences, kv_heads, capacity, head_dim] cache_dtype */
    struct fkv_buffer *value; /* the same */
    size_t cache_bytes;       /* of either */

    /* Biases of slots; all NULL where the session has none. */
    struct fkv_buffer *biases; /* [layers, sequences, kv_heads, capacity] float32, on the backend */
    double *bias;              /* the same shape, on the host; `biases` follows it */
    bool *bias_stale;          /* [layers, sequences, kv_heads]: `biases` does not follow yet */
    double *bias_scratch;      /* [2, capacity] */
    float *bias_row;           /* [capacity] */

    /* Activations, float32. */
    struct fkv_buffer *x;        /* [block, dim] */
    struct fkv_buffer *q;        /* [block, heads, head_dim] */
    struct fkv_buffer *k;        /* [block, kv_heads, head_dim] */
    struct fkv_buffer *v;        /* [block, kv_heads, head_dim] */
    struct fkv_buffer *attended; /* [block, heads, head_dim] */
    struct fkv_buffer *hidden;   /* [block, hidden] */
    struct fkv_buffer *rotated;  /* [block, kv_heads, head_dim] keys for FKV_SITE_KEY_ROTATED */
    struct fkv_buffer *logits;   /* [session_logits()] a panel, or rows of logits */
    struct scores scores;

    struct fkv_head *heads; /* [layers, sequences, kv_heads] */
    int32_t *peak_slots;    /* [layers, sequences, kv_heads], most slots each head held */
    int64_t *peak_bytes;    /* [sequences] */

    struct fed *fed; /* [sequences] */
    int32_t fed_count;
    int32_t *tokens;                 /* [block] of all feeds */
    int32_t last_rows;               /* of the last feed */
    struct fkv_row_state *row_state; /* [block] of the rows of the last feed */

    struct fkv_step *step; /* the decode step of `step_feeds` sequences (0: none yet) */
    int32_t step_feeds;

    struct prepared_map *maps;
    int32_t map_count;
    struct selecting selecting;
    struct choosing choosing;
    struct round_items items;
    struct tap taps[FKV_SITES];

    /* All of the above that is memory, to be given back at once. */
    struct fkv_memory memory;
    struct fkv_buffer *buffers[SESSION_BUFFERS]; /* [buffer_count] */
    int buffer_count;

    struct fkv_session_statistics statistics;
};

/* Logits that are in memory at once: a panel of PANEL_IDS ids for every row of a block, and at
 * least one row of the whole vocabulary. A panel of 512 rows is then 8 MiB, which stays in a
 * processor's last cache until it has been scored, and its product is wide enough for full speed.
 */
enum { PANEL_IDS = 4096, PANEL_STEP = 64 /* ids that a panel's width is a multiple of */ };
static inline int64_t session_logits(const struct fkv_config *c, int32_t block) {
    const int64_t panel = (int64_t)block * (c->vocab < PANEL_IDS ? c->vocab : PANEL_IDS);
    return panel < c->vocab ? c->vocab : panel;
}

/* Most items of a layer's call to attend. Where queries choose, each query of each head may have
 * one of its own, and those of a call are of one chunk per sequence. */
static inline int32_t session_attend_items(const struct fkv_config *c,
                                           const struct fkv_session_options *o,
                                           const struct fkv_policy_setup *setup) {
    const int64_t chunks = (int64_t)o->sequences * setup->chunk;
    if (!setup->chunk) return o->sequences * c->heads;
    return (int32_t)(chunks < o->block ? chunks : o->block) * c->heads;
}

static inline int32_t session_layer_heads(const struct fkv_session *s) {
    return s->options.sequences * s->setup.kv_heads;
}

static inline int32_t session_head_count(const struct fkv_session *s) {
    return s->setup.layers * session_layer_heads(s);
}

static inline struct fkv_head *session_head(const struct fkv_session *s, int32_t layer,
                                            int32_t sequence, int32_t kv_head) {
    return &s->heads[layer * session_layer_heads(s) + sequence * s->setup.kv_heads + kv_head];
}

/* What a slot of one head's keys (or values) takes, in bytes. */
static inline size_t session_slot_bytes(const struct fkv_session *s) {
    return (size_t)s->model->config.head_dim * fkv_dtype_bytes(s->options.cache_dtype);
}

/* Fills s->attention; needs setup and options. */
void session_choose_rotations(struct fkv_session *s);
/* Index into s->attention of a layer. */
int32_t session_rotation(const struct fkv_session *s, int32_t layer);
/* The attention of a layer. */
const struct fkv_attention_shape *session_attention(const struct fkv_session *s, int32_t layer);

/* Of so many slots in use of a head, those that it holds: no query sees slots beyond the policy's
 * window or the layer's own, so they do not count. */
int32_t session_held_slots(const struct fkv_session *s, const struct fkv_head *head, int32_t slots);

/* The cache from the heads of `layer` on. */
struct fkv_cache session_cache(const struct fkv_session *s, int32_t layer);

/* What an action does to the head's biases; before its `slots` change. Needs s->bias. */
void session_move_biases(struct fkv_session *s, const struct fkv_head *head,
                         const struct fkv_action *action);
/* All biases of a head to 0. Needs s->bias. */
void session_clear_biases(struct fkv_session *s, int32_t head);
/* Writes the stale rows of `bias` to `biases`; nothing without biases. */
int session_write_biases(struct fkv_session *s, struct fkv_error *err);

/* Before a feed: runs the actions of all heads of the fed sequences that are full, all layers at
 * once; refuses where one is full afterwards too. */
int session_act_before(struct fkv_session *s, struct fkv_error *err);
/* Appends the fed rows of k and v to the heads of a layer, attends, and acts where a head is full
 * within its rows: q, k, v -> attended. */
int session_run_schedule(struct fkv_session *s, int32_t layer, struct fkv_error *err);

/* select.c: adds what the rows pay that counts, after the first `count` items of a layer's round
 * have attended; their items and spans are overwritten. */
int session_observe(struct fkv_session *s, int32_t layer, int32_t count, struct fkv_error *err);
/* select.c: does a feed add up attention? Then it is not the same sequence of operations always. */
bool session_observes(const struct fkv_session *s);
/* select.c: fills in the action of a head at the end of its prefill block; it comes zeroed, with
 * gather_from set. Waits for the device. */
int session_select(struct fkv_session *s, const struct fkv_head *head, struct fkv_action *action,
                   struct fkv_error *err);

/* choose.c: bytes of what a session holds where queries choose, host memory included; 0 where they
 * do not. */
int64_t session_choosing_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                               const struct fkv_policy_setup *setup);
/* choose.c: allocates what of that is host memory. */
void session_allocate_choosing(struct fkv_session *s);
/* choose.c: do the queries of the head's newest rows choose? */
bool session_chooses(const struct fkv_session *s, const struct fkv_head *head);
/* choose.c: reads the queries of a layer's rows, before its rounds. Waits for the device. */
int session_read_queries(struct fkv_session *s, int32_t layer, struct fkv_error *err);
/* choose.c: items of a call to attend, from `item` on, for a head's newest `rows` rows, from `row`
 * on of the block: one for every run of rows of a query head that choose alike. Returns how many.
 */
int32_t session_choose(struct fkv_session *s, const struct fkv_head *head, int32_t row,
                       int32_t rows, int32_t item);
/* choose.c: after the first `count` items of a layer's round were appended and have attended: keeps
 * their queries, and makes the vectors of chunks that are full now. Attend's items and spans are
 * overwritten. */
int session_end_chunks(struct fkv_session *s, int32_t layer, int32_t count, struct fkv_error *err);

#endif
