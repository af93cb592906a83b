/* The cache: appending to it, attending over it, compressing it. Conventions: kernels.h.
 *
 * Positions. Keys are stored *rotated* (RoPE applied) at the position they were appended with;
 * attention rotates the query to the position that its span gives. Scores depend only on the
 * difference, so any rule that moves a whole run of slots relative to the query (slot-index
 * positions after an eviction, StreamingLLM's and LM-Infinite's clamped distance) is a choice of
 * query position and no key is touched. `compress` un-rotates, maps, and rotates to the new
 * positions; `gather` re-rotates by a shift. Angles are formed in double, so large positions stay
 * exact. The shape's gain is not on the stored keys: attention puts both factors, gain^2, on the
 * turned channels of the query, which gives the same scores and leaves a key as long as it was.
 *
 * Rounding. A cache with a `quant` holds states that were rounded to its grid (quant.h) before they
 * were converted to `dtype`: append rounds what it writes, compress its results, and gather the
 * keys that it turns. Keys are rounded after their rotation, or before it where `quant_before`
 * (and then a gather rounds nothing). An accelerator may convert the results of compress and gather
 * to `dtype` once more before it rounds them. Energies are measured before rounding. */
#ifndef FKV_KERNELS_CACHE_H
#define FKV_KERNELS_CACHE_H

#include "kernels/backend.h"
#include "kernels/quant.h"

/* Cache heads. append and attend get the heads of one layer, [sequences, kv_heads]; compress and
 * gather get all, [layers, sequences, kv_heads]. */
struct fkv_cache {
    struct fkv_buffer *key;   /* [heads, capacity, head_dim] of `dtype`, from byte `offset` on */
    struct fkv_buffer *value; /* the same shape, dtype and offset */
    size_t offset;
    enum fkv_dtype dtype;
    int32_t capacity;        /* slots per head */
    struct fkv_buffer *bias; /* [heads, capacity] float32, from byte `bias_offset` on: attend adds
                                it to every slot's scaled score, and no other operation uses it;
                                NULL: none */
    size_t bias_offset;
    enum fkv_quant quant; /* FKV_NO_QUANT: states are converted to `dtype` and no more */
    bool quant_before;    /* keys are rounded before their rotation, not after it */
};

/* Rows [row, row+rows) of KV head `kv_head` of k and v go to slots [slot, slot+rows) of a cache
 * head; row i is rotated to `position` + i. */
struct fkv_append_item {
    int32_t cache_head, kv_head, row, rows, slot;
    double position;
};

/* Slots [first, end), of which query row i of an item (i = 0, 1, ...) sees those with from + i <=
 * slot < until + i. The query is rotated to position + i, or to position alone where `fixed`.
 * FKV_NO_LIMIT_BELOW and FKV_NO_LIMIT_ABOVE switch a limit off. Slots of all spans of a row share
 * one softmax; the spans of an item must not overlap and every row must see at least one slot; a
 * span may be empty (first == end). */
struct fkv_span {
    int32_t first, end;
    int32_t from, until;
    double position;
    bool fixed;
};
#define FKV_NO_LIMIT_BELOW (-(1 << 30))
#define FKV_NO_LIMIT_ABOVE (1 << 30)

/* Query rows [row, row+rows) of query heads [head, head+heads), which all read one cache head,
 * attend over spans [span, span+spans) of the call's span array. */
struct fkv_attend_item {
    int32_t cache_head, head, heads;
    int32_t row, rows;
    int32_t span, spans;
};

/* n slots from `slot` on become map.retained slots from `slot` on, keys and values alike. Keys are
 * rotated to position + i before and to position + j after. The map acts on un-rotated keys.
 * Slots beyond slot + retained are then free. */
struct fkv_compress_item {
    int32_t cache_head, slot;
    double position;
};

/* Slots from[0 .. count) (ascending, from[j] >= slot + j) move to slot + j, in place; moved keys
 * are rotated further by `shift` positions. */
struct fkv_gather_item {
    int32_t cache_head, slot, count;
    const int32_t *from; /* host */
    double shift;
};

/* What a compress or gather kept of one head: sums of squares of un-rotated keys (rotation does not
 * change them) and of values. compress: `before` over its n slots, `kept` the sum over the results
 * j of |y_j|^2 / |row j of the map|^2 (0 for a row of zeros): where the rows are orthogonal, the
 * energy in their span; of a DCT map that of the L lowest coefficients. gather: `before` over slots
 * [slot, from[count-1]], `kept` over the slots moved. */
struct fkv_energy {
    double key_before;
    double key_kept;
    double value_before;
    double value_kept;
};

/* k, v [.., kv_heads, head_dim] -> cache slots */
typedef int fkv_op_append(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                          const struct fkv_buffer *k, const struct fkv_buffer *v,
                          const struct fkv_cache *cache, const struct fkv_append_item *items,
                          int32_t count, struct fkv_error *err);
/* q [.., heads, head_dim], cache -> out [.., heads, head_dim]: softmax(cap(scale q.k) + bias) v
 * over the item's spans, cap by the shape's softcap */
typedef int fkv_op_attend(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                          const struct fkv_buffer *q, const struct fkv_cache *cache,
                          const struct fkv_span *spans, const struct fkv_attend_item *items,
                          int32_t count, struct fkv_buffer *out, struct fkv_error *err);
/* paid [heads, capacity] float32 of the cache's heads, from byte `paid_offset` on, += the attention
 * that rows pay to slots: of every item, the weights that attend gives the slots of its cache head,
 * summed over its rows and averaged over its query heads. Slots that no row sees stay as they are.
 * The cache heads of a call differ. */
typedef int fkv_op_attention_paid(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                                  const struct fkv_buffer *q, const struct fkv_cache *cache,
                                  const struct fkv_span *spans, const struct fkv_attend_item *items,
                                  int32_t count, struct fkv_buffer *paid, size_t paid_offset,
                                  struct fkv_error *err);
/* FreqKV's operator: orthonormal DCT-II of n, coefficients 0..L-1, orthonormal inverse of length
 * L, times `gain` (sqrt(L/n), or 1 for the ablation). 1 <= L <= n. */
typedef int fkv_op_map_dct(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                           struct fkv_map **out, struct fkv_error *err);
/* Any linear operator: result j is sum_i m[j][i] x_i, with m = `key` [retained, n] for keys and
 * `value` [retained, n] for values, on the host, read during the call only; the same pointer where
 * both have one. 1 <= L <= n. */
typedef int fkv_op_map_matrix(struct fkv_backend *b, int32_t n, int32_t retained, const float *key,
                              const float *value, struct fkv_map **out, struct fkv_error *err);
/* NULL is fine */
typedef void fkv_op_map_release(struct fkv_backend *b, struct fkv_map *map);
/* Applies the map to every item; energy [count] on the host, or NULL. */
typedef int fkv_op_compress(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_map *map, const struct fkv_cache *cache,
                            const struct fkv_compress_item *items, int32_t count,
                            struct fkv_energy *energy, struct fkv_error *err);
/* Moves the slots of every item; energy [count] on the host, or NULL. */
typedef int fkv_op_gather(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                          const struct fkv_cache *cache, const struct fkv_gather_item *items,
                          int32_t count, struct fkv_energy *energy, struct fkv_error *err);

#endif
