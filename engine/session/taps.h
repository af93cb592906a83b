/* Taps: how states leave the engine.
 *
 * A feed's events come in this order. First the actions that are due before its first row, of all
 * layers: by layer, then in the order of the feeds, then by KV head. Then layer by layer: keys,
 * values, queries, rotated keys, each in the order of the feeds; then the actions of heads that
 * filled up within the block, round by round, in the order of the feeds, then by KV head. One
 * (layer, sequence, KV head) thus acts in the order of its tokens; how the rounds of several
 * interleave depends on the block. */
#ifndef FKV_ENGINE_SESSION_TAPS_H
#define FKV_ENGINE_SESSION_TAPS_H

#include "engine/session/session.h"

enum fkv_site {
    FKV_SITE_KEY,         /* [rows, kv_heads, head_dim] before RoPE */
    FKV_SITE_VALUE,       /* [rows, kv_heads, head_dim] */
    FKV_SITE_QUERY,       /* [rows, heads, head_dim] before RoPE */
    FKV_SITE_KEY_ROTATED, /* [rows, kv_heads, head_dim], at the token's index in the timeline */
    FKV_SITE_ACTION,      /* one event per action: head and energy are set, no data */
    FKV_SITES
};

struct fkv_tap_event {
    enum fkv_site site;
    int32_t layer;
    int32_t sequence;
    int64_t token; /* index of row 0 in the timeline (FKV_SITE_ACTION: of the token that triggered
                      it) */
    int32_t rows, heads, head_dim;
    /* Float32, contiguous, from byte `offset` of `states` on: what is issued on the backend during
     * the call sees them. */
    const struct fkv_buffer *states;
    size_t offset;
    const void
        *data; /* the same as an address, to be read during the call where space is FKV_HOST */
    enum fkv_space space;        /* of data */
    const struct fkv_head *head; /* after the action */
    const struct fkv_energy *energy;
};
/* Returning FKV_FAILED stops the feed with the tap's message. */
typedef int fkv_tap_function(void *context, const struct fkv_tap_event *event,
                             struct fkv_error *err);

/* One tap per site; NULL removes it. */
void fkv_session_tap(struct fkv_session *s, enum fkv_site site, fkv_tap_function *tap,
                     void *context);

#endif
