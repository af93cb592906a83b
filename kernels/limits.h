/* Reserving more than once: what a backend has reserved so far is the largest of each limit that
 * was asked for. */
#ifndef FKV_KERNELS_LIMITS_H
#define FKV_KERNELS_LIMITS_H

#include "kernels/kernels.h"

static inline int32_t fkv_larger(int32_t a, int32_t b) { return a > b ? a : b; }

static inline struct fkv_limits fkv_limits_join(const struct fkv_limits *a,
                                                const struct fkv_limits *b) {
    struct fkv_limits l = *b;
    l.rows = fkv_larger(a->rows, b->rows);
    l.dim = fkv_larger(a->dim, b->dim);
    l.hidden = fkv_larger(a->hidden, b->hidden);
    l.vocab = fkv_larger(a->vocab, b->vocab);
    l.slots = fkv_larger(a->slots, b->slots);
    l.items = fkv_larger(a->items, b->items);
    l.attention.dim = fkv_larger(a->attention.dim, b->attention.dim);
    l.attention.heads = fkv_larger(a->attention.heads, b->attention.heads);
    l.attention.kv_heads = fkv_larger(a->attention.kv_heads, b->attention.kv_heads);
    l.attention.head_dim = fkv_larger(a->attention.head_dim, b->attention.head_dim);
    l.attention.inv_freq =
        NULL; /* the caller's; a backend that needs the frequencies later keeps a copy */
    return l;
}

#endif
