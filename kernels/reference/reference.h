/* What the reference's files share: host memory as buffers, and elements of any dtype as doubles.
 */
#ifndef FKV_KERNELS_REFERENCE_REFERENCE_H
#define FKV_KERNELS_REFERENCE_REFERENCE_H

#include "kernels/host_buffer.h"
#include "kernels/quant.h"

struct fkv_backend {
    struct fkv_host_stopwatch stopwatch;
    double *scratch;
    size_t scratch_count;
};

/* `count` doubles, valid until the next call; grown on demand, which is the one liberty the
 * reference takes with the contract. */
double *fkv_reference_scratch(struct fkv_backend *b, size_t count, struct fkv_error *err);

/* Element i of type t at `data`. Storing rounds once, from double to the element's own precision.
 */
double fkv_reference_load(const void *data, enum fkv_dtype t, size_t i);
void fkv_reference_store(void *data, enum fkv_dtype t, size_t i, double x);

/* x [count] rounded to the grid of `quant`, in place; nothing for FKV_NO_QUANT. */
void fkv_reference_round(enum fkv_quant quant, size_t count, double *x);

/* x [head_dim] turned by `position` * inv_freq, in place; a negative position turns back. */
void fkv_reference_turn(const struct fkv_attention_shape *shape, double position, double *x);

/* First element of a head's slot in the key or value buffer of a cache layer. */
static inline size_t fkv_reference_slot(const struct fkv_attention_shape *shape,
                                        const struct fkv_cache *cache, int32_t cache_head,
                                        int32_t slot) {
    return ((size_t)cache_head * (size_t)cache->capacity + (size_t)slot) * (size_t)shape->head_dim;
}

/* The operations by file: layer.c, score.c, spectrum.c. Their contracts stand in kernels.h. */
fkv_op_embed fkv_reference_embed;
fkv_op_norm_qkv fkv_reference_norm_qkv;
fkv_op_append fkv_reference_append;
fkv_op_rotate fkv_reference_rotate;
fkv_op_attend fkv_reference_attend;
fkv_op_attention_paid fkv_reference_attention_paid;
fkv_op_project_residual fkv_reference_project_residual;
fkv_op_norm_gate_up fkv_reference_norm_gate_up;
fkv_op_norm_logits fkv_reference_norm_logits;

fkv_op_score fkv_reference_score;
fkv_op_compare fkv_reference_compare;

fkv_op_map_dct fkv_reference_map_dct;
fkv_op_map_matrix fkv_reference_map_matrix;
fkv_op_map_release fkv_reference_map_release;
fkv_op_compress fkv_reference_compress;
fkv_op_gather fkv_reference_gather;
fkv_op_power fkv_reference_power;
fkv_op_spectra_add fkv_reference_spectra_add;

#endif
