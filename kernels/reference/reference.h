/* What the reference's files share: host memory as buffers, and elements of any dtype as doubles. */
#ifndef FKV_KERNELS_REFERENCE_REFERENCE_H
#define FKV_KERNELS_REFERENCE_REFERENCE_H

#include "kernels/host_buffer.h"

struct fkv_backend {
    struct fkv_host_stopwatch stopwatch;
    double *scratch;
    size_t scratch_count;
};

/* `count` doubles, valid until the next call; grown on demand, which is the one liberty the reference takes with the contract. */
double *fkv_reference_scratch(struct fkv_backend *b, size_t count, struct fkv_error *err);

/* Element i of type t at `data`. Storing rounds once, from double to the element's own precision. */
double fkv_reference_load(const void *data, enum fkv_dtype t, size_t i);
void fkv_reference_store(void *data, enum fkv_dtype t, size_t i, double x);

/* x [head_dim] turned by `position` * inv_freq, in place; a negative position turns back. */
void fkv_reference_turn(const struct fkv_attention_shape *shape, double position, double *x);

/* First element of a head's slot in the key or value buffer of a cache layer. */
static inline size_t fkv_reference_slot(const struct fkv_attention_shape *shape, const struct fkv_cache *cache,
                                        int32_t cache_head, int32_t slot) {
    return ((size_t)cache_head * (size_t)cache->capacity + (size_t)slot) * (size_t)shape->head_dim;
}

/* The operations by file: layer.c, score.c, spectrum.c. Their contracts stand in kernels.h. */
int fkv_reference_embed(struct fkv_backend *b, const struct fkv_weight *table, const int32_t *tokens, int32_t rows,
                        struct fkv_buffer *x, struct fkv_error *err);
int fkv_reference_norm_qkv(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                           const struct fkv_qkv_weights *w, const struct fkv_buffer *x, int32_t rows,
                           struct fkv_buffer *q, struct fkv_buffer *k, struct fkv_buffer *v, struct fkv_error *err);
int fkv_reference_append(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *k,
                         const struct fkv_buffer *v, const struct fkv_cache *cache, const struct fkv_append_item *items,
                         int32_t count, struct fkv_error *err);
int fkv_reference_rotate(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *x,
                         int32_t row, int32_t rows, int32_t heads, double position, struct fkv_buffer *out,
                         struct fkv_error *err);
int fkv_reference_attend(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *q,
                         const struct fkv_cache *cache, const struct fkv_span *spans,
                         const struct fkv_attend_item *items, int32_t count, struct fkv_buffer *out,
                         struct fkv_error *err);
int fkv_reference_project_residual(struct fkv_backend *b, const struct fkv_weight *w, const struct fkv_buffer *in,
                                   int32_t rows, struct fkv_buffer *x, struct fkv_error *err);
int fkv_reference_norm_gate_up(struct fkv_backend *b, const struct fkv_weight *norm, float eps,
                               const struct fkv_weight *gate, const struct fkv_weight *up, const struct fkv_buffer *x,
                               int32_t rows, struct fkv_buffer *out, struct fkv_error *err);
int fkv_reference_norm_logits(struct fkv_backend *b, const struct fkv_weight *norm, float eps,
                              const struct fkv_weight *w, const struct fkv_buffer *x, int32_t row, int32_t rows,
                              struct fkv_buffer *logits, struct fkv_error *err);

int fkv_reference_score(struct fkv_backend *b, const struct fkv_buffer *logits, const int32_t *targets, int32_t rows,
                        int32_t vocab, double *nll, int32_t *top1, struct fkv_error *err);
int fkv_reference_divergence(struct fkv_backend *b, const struct fkv_buffer *p, const struct fkv_buffer *q,
                             int32_t rows, int32_t vocab, double *kl, struct fkv_error *err);

int fkv_reference_map_dct(struct fkv_backend *b, int32_t n, int32_t retained, double gain, struct fkv_map **out,
                          struct fkv_error *err);
void fkv_reference_map_release(struct fkv_backend *b, struct fkv_map *map);
int fkv_reference_compress(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_map *map,
                           const struct fkv_cache *cache, const struct fkv_compress_item *items, int32_t count,
                           struct fkv_energy *energy, struct fkv_error *err);
int fkv_reference_gather(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_cache *cache,
                         const struct fkv_gather_item *items, int32_t count, struct fkv_energy *energy,
                         struct fkv_error *err);
int fkv_reference_power(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset, size_t stride, int32_t n,
                        int32_t heads, int32_t head_dim, double *power, double *normalised, struct fkv_error *err);
int fkv_reference_spectra_add(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset, size_t stride,
                              int32_t n, int32_t heads, int32_t head_dim, struct fkv_buffer *sums, size_t at,
                              struct fkv_error *err);

#endif
