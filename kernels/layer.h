/* The steps of a transformer layer on float32 activations, and what is read of its predictions.
 * Conventions: kernels.h. */
#ifndef FKV_KERNELS_LAYER_H
#define FKV_KERNELS_LAYER_H

#include "kernels/backend.h"
#include "kernels/likelihood.h"
#include "kernels/weights/weights.h"

/* A matrix or vector of the checkpoint, as it is stored: row after row, each whole blocks of its
 * format. Vectors are stored in a dtype, and so is everything on a device. Absent (no bias, no QK
 * norm): data == NULL. */
struct fkv_weight {
    struct fkv_buffer *data;
    size_t offset; /* bytes */
    enum fkv_weight_format format;
    int32_t rows, cols; /* (out, in); vectors: rows = 1 */
};
/* The dtype of a weight that is stored in one. */
static inline enum fkv_dtype fkv_weight_dtype(const struct fkv_weight *w) {
    return (enum fkv_dtype)w->format;
}

/* x [rows, dim] -> n = rmsnorm(x) * norm; q = Wq n + bq, k = Wk n + bk, v = Wv n + bv; then, where
 * q_norm/k_norm are present (Qwen3), each head of q and k is RMS-normalised over head_dim and
 * multiplied by that weight [head_dim]. No rotation. rmsnorm divides by sqrt(mean(x^2) + eps). */
struct fkv_qkv_weights {
    struct fkv_weight norm, wq, wk, wv, bq, bk, bv, q_norm, k_norm;
    float eps;
};

/* table (vocab, dim), tokens [rows] on the host -> x [rows, dim] */
typedef int fkv_op_embed(struct fkv_backend *b, const struct fkv_weight *table,
                         const int32_t *tokens, int32_t rows, struct fkv_buffer *x,
                         struct fkv_error *err);
/* x [rows, dim] -> q [rows, heads, head_dim], k and v [rows, kv_heads, head_dim] */
typedef int fkv_op_norm_qkv(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_qkv_weights *w, const struct fkv_buffer *x,
                            int32_t rows, struct fkv_buffer *q, struct fkv_buffer *k,
                            struct fkv_buffer *v, struct fkv_error *err);
/* rows [row, row+rows) of x [.., heads, head_dim] -> the same rows of out, rotated: row + i to
 * position + i. May be in place. */
typedef int fkv_op_rotate(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                          const struct fkv_buffer *x, int32_t row, int32_t rows, int32_t heads,
                          double position, struct fkv_buffer *out, struct fkv_error *err);
/* x += W in, where in [rows, W.cols] and x [rows, W.rows], in place: the output projection and the
 * down projection */
typedef int fkv_op_project_residual(struct fkv_backend *b, const struct fkv_weight *w,
                                    const struct fkv_buffer *in, int32_t rows, struct fkv_buffer *x,
                                    struct fkv_error *err);
/* x [rows, dim] -> out [rows, hidden] = silu(Wg n) * (Wu n), n = rmsnorm(x) * norm, silu(z) = z /
 * (1 + exp(-z)) */
typedef int fkv_op_norm_gate_up(struct fkv_backend *b, const struct fkv_weight *norm, float eps,
                                const struct fkv_weight *gate, const struct fkv_weight *up,
                                const struct fkv_buffer *x, int32_t rows, struct fkv_buffer *out,
                                struct fkv_error *err);
/* rows [row, row+rows) of x [.., dim] -> logits [rows, W.rows] = W (rmsnorm(x) * norm); W is the
 * head, or some of its rows */
typedef int fkv_op_norm_logits(struct fkv_backend *b, const struct fkv_weight *norm, float eps,
                               const struct fkv_weight *w, const struct fkv_buffer *x, int32_t row,
                               int32_t rows, struct fkv_buffer *logits, struct fkv_error *err);
/* A panel: logits [rows, width] of the ids [first, first+width), targets [rows] on the host, ids
 * of the vocabulary -> what it says of each row, out [rows] on the host. */
typedef int fkv_op_score(struct fkv_backend *b, const struct fkv_buffer *logits, int32_t first,
                         int32_t width, const int32_t *targets, int32_t rows,
                         struct fkv_likelihood *out, struct fkv_error *err);
/* The same panel of two distributions: p, q [rows, width] logits -> the likelihoods of both [rows]
 * and gap [rows] = sum of e^(p - largest p) (p - q), on the host. */
typedef int fkv_op_compare(struct fkv_backend *b, const struct fkv_buffer *p,
                           const struct fkv_buffer *q, int32_t first, int32_t width,
                           const int32_t *targets, int32_t rows, struct fkv_likelihood *p_out,
                           struct fkv_likelihood *q_out, double *gap, struct fkv_error *err);

#endif
