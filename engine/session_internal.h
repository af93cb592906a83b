/* The session's insides, shared by session.c (life, feeding, scoring), schedule.c (one layer's rounds of append, attend, act) and
 * snapshot.c. Nobody else includes it. */
#ifndef FKV_ENGINE_SESSION_INTERNAL_H
#define FKV_ENGINE_SESSION_INTERNAL_H

#include "engine/session.h"

struct prepared_map {
    int32_t n, retained;
    double gain;
    struct fkv_map *map;
};

/* Items of one round, at most one per KV head (attention: per query head where the policy asks for it). */
struct round_items {
    struct fkv_append_item *append;       /* [kv_heads] */
    struct fkv_attend_item *attend;       /* [heads] */
    struct fkv_span *spans;               /* [heads, FKV_MAX_SPANS] */
    struct fkv_action *actions;           /* [kv_heads]; gather_from [capacity] each */
    struct fkv_head **acting;             /* [kv_heads] */
    struct fkv_compress_item *compress;   /* [kv_heads] */
    struct fkv_gather_item *gather;       /* [kv_heads] */
    struct fkv_energy *energy, *measured; /* [kv_heads]: per acting head; in the order of a call's items */
    int32_t *next_row;                    /* [kv_heads] */
    int32_t *of;                          /* [kv_heads]: which acting head an item came from */
};

struct tap {
    fkv_tap_function *function;
    void *context;
};

struct fkv_session {
    const struct fkv_model *model;
    const struct fkv_backend_ops *ops; /* the model's, for short */
    struct fkv_backend *backend;
    struct fkv_policy_setup setup;
    struct fkv_session_options options;

    struct fkv_buffer *key, *value; /* [layers, kv_heads, capacity, head_dim], options.cache_dtype */
    struct fkv_buffer *x, *q, *k, *v, *attended, *hidden; /* activations of a block */
    struct fkv_buffer *rotated;                           /* keys for FKV_SITE_KEY_ROTATED */
    struct fkv_buffer *logits;                            /* [logit_rows, vocab] */
    int32_t logit_rows;
    int32_t logits_row, logits_count; /* rows of the last feed that `logits` holds; count 0: none */

    int32_t *peak_slots;                       /* [layers, kv_heads], most slots each head held */
    struct fkv_head *heads;                    /* [layers, kv_heads] */
    int64_t tokens;                            /* in this timeline */
    int32_t last_rows;                         /* of the last feed */
    double *row_slots, *row_round, *row_since; /* [block], means over (layer, KV head) */

    struct prepared_map *maps;
    int32_t map_count;
    struct round_items items;
    struct tap taps[FKV_SITES];
    struct fkv_session_statistics statistics;
};

static inline struct fkv_head *session_head(const struct fkv_session *s, int32_t layer, int32_t kv_head) {
    return &s->heads[layer * s->setup.kv_heads + kv_head];
}

struct fkv_cache_layer session_cache_layer(const struct fkv_session *s, int32_t layer);

/* What a slot of one head's keys (or values) takes, in bytes. */
static inline size_t session_slot_bytes(const struct fkv_session *s) {
    return (size_t)s->model->config.head_dim * fkv_dtype_bytes(s->options.cache_dtype);
}

/* Appends rows [0, rows) of k and v to every head of a layer, attends, and acts where a head is full: q, k, v -> attended. */
int session_run_schedule(struct fkv_session *s, int32_t layer, int32_t rows, struct fkv_error *err);
/* Lets every head of a layer act now. */
int session_act_now(struct fkv_session *s, int32_t layer, struct fkv_error *err);

#endif
