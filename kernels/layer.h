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

/* rmsnorm(x) = x / sqrt(mean(x^2) + eps). Where a norm is absent, its input stays as it is. */

/* x [rows, dim] -> n = rmsnorm(x) * norm; q = Wq n + bq, k = Wk n + bk, v = Wv n + bv; then, where
 * q_norm/k_norm are present, each head of q and k is RMS-normalised over head_dim and multiplied by
 * that weight [head_dim] (Qwen3), or all heads together by one of [heads * head_dim] (OLMo 2). No
 * rotation. */
struct fkv_qkv_weights {
    struct fkv_weight norm, wq, wk, wv, bq, bk, bv, q_norm, k_norm;
    float eps;
};

/* x += multiplier * rmsnorm(W in) * norm: the output projection and the down projection. */
struct fkv_residual_weights {
    struct fkv_weight w, norm;
    float eps, multiplier;
};

/* silu(z) = z / (1 + exp(-z)); GELU by its approximation with tanh: z (1 + tanh(sqrt(2/pi) (z +
 * 0.044715 z^3))) / 2 */
enum fkv_activation { FKV_SILU, FKV_GELU_TANH };

/* n = rmsnorm(x) * norm, activation(Wg n) * (Wu n): the first half of the MLP. */
struct fkv_gate_up_weights {
    struct fkv_weight norm, gate, up;
    float eps;
    enum fkv_activation activation;
};

/* z = multiplier * W (rmsnorm(x) * norm), logits = softcap tanh(z / softcap); softcap 0: z. */
struct fkv_logits_weights {
    struct fkv_weight norm, w;
    float eps, multiplier, softcap;
};

/* table (vocab, dim), tokens [rows] on the host -> x [rows, dim], times `multiplier` */
typedef int fkv_op_embed(struct fkv_backend *b, const struct fkv_weight *table, float multiplier,
                         const int32_t *tokens, int32_t rows, struct fkv_buffer *x,
                         struct fkv_error *err);
/* x [rows, dim] -> q [rows, heads, head_dim], k and v [rows, kv_heads, head_dim] */
typedef int fkv_op_norm_qkv(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_qkv_weights *w, const struct fkv_buffer *x,
                            int32_t rows, struct fkv_buffer *q, struct fkv_buffer *k,
                            struct fkv_buffer *v, struct fkv_error *err);
/* rows [row, row+rows) of x [.., heads, head_dim] -> the same rows of out, rotated: row + i to
 * position + i, times the shape's gain where they turn. May be in place. */
typedef int fkv_op_rotate(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                          const struct fkv_buffer *x, int32_t row, int32_t rows, int32_t heads,
                          double position, struct fkv_buffer *out, struct fkv_error *err);
/* in [rows, W.cols], x [rows, W.rows], in place */
typedef int fkv_op_project_residual(struct fkv_backend *b, const struct fkv_residual_weights *w,
                                    const struct fkv_buffer *in, int32_t rows, struct fkv_buffer *x,
                                    struct fkv_error *err);
/* x [rows, dim] -> out [rows, hidden] */
typedef int fkv_op_norm_gate_up(struct fkv_backend *b, const struct fkv_gate_up_weights *w,
                                const struct fkv_buffer *x, int32_t rows, struct fkv_buffer *out,
                                struct fkv_error *err);
/* rows [row, row+rows) of x [.., dim] -> logits [rows, W.rows]; W is the head, or some of its rows
 */
typedef int fkv_op_norm_logits(struct fkv_backend *b, const struct fkv_logits_weights *w,
                               const struct fkv_buffer *x, int32_t row, int32_t rows,
                               struct fkv_buffer *logits, struct fkv_error *err);
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
