/* The kernel contract: what a processor does for this project.
 *
 * A backend is one const table of operations (struct fkv_backend_ops). Three answer to it and pass the same tests: `reference` (double
 * arithmetic, the equations written down, no speed), `cpu`, and `cuda` (a module found at run time). The operations are the fused steps of
 * a transformer layer, not scalar arithmetic, because that is the size at which two processors can both be fast.
 *
 * Conventions
 *  - Arrays are row-major, slowest index first; a shape stands in brackets: x [rows, dim]. W (out, in): y = W x.
 *  - Buffers are opaque and belong to the backend that made them; offsets are in bytes. Activations are float32.
 *  - Operations enqueue on the backend's one stream, in order; `read`, `score`, `divergence`, `power`, `fetch_wait`, `synchronize`, `time_read`, and `compress` and
 *    `gather` where energies are asked for, wait. The CPU runs at once.
 *  - Inputs and outputs do not overlap unless an operation says "in place". Nothing is scaled unless an operation says so.
 *  - Item arrays (struct fkv_*_item) live on the host and may be reused as soon as the call returns. Items of one call touch disjoint
 *    rows and slots, so they run in any order.
 *  - No operation allocates: `reserve` is called once, before the first step, with the largest sizes that will occur.
 *  - Every call returns FKV_OK, or FKV_FAILED with a message.
 *
 * Positions. Keys lie in the cache *rotated* (RoPE applied) at the position they were appended with; attention rotates the query to the position its
 * span asks for. Scores depend only on the difference, so any rule that moves a whole run of slots relative to the query (slot-index positions
 * after an eviction, StreamingLLM's and LM-Infinite's clamped distance) is a choice of query position and no key is touched. `compress`
 * un-rotates, maps, and rotates to the new positions; `gather` re-rotates by a shift. Angles are formed in double, so large positions stay exact.
 */
#ifndef FKV_KERNELS_KERNELS_H
#define FKV_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/dtype.h"

enum { FKV_BACKEND_ABI = 6 };

struct fkv_backend; /* one processor and its stream; not shared between threads */
struct fkv_buffer;  /* memory of a backend */
struct fkv_map;     /* a linear map along tokens, n slots -> L slots, prepared by a backend */
struct fkv_step;    /* a sequence of operations that is issued again and again */

enum fkv_space { FKV_HOST, FKV_DEVICE };

/* What the matrix products and attention compute in; sums are float32 always. */
enum fkv_compute {
    FKV_COMPUTE_NATIVE, /* the CPU: float32; an accelerator: the dtype that each weight is stored in */
    FKV_COMPUTE_F32,    /* true float32 everywhere (no TF32), to compare processors */
    FKV_COMPUTE_BF16,   /* bfloat16 products; refused by a processor without them */
};

enum { FKV_ANY_DEVICE = -1 };

struct fkv_backend_options {
    int device; /* index of the accelerator, or FKV_ANY_DEVICE: the first that the backend supports; the CPU ignores it */
    int threads; /* of this backend alone; 0: as many as OpenMP gives the caller, all cores by default */
    enum fkv_compute compute;
};

/* A matrix or vector of the checkpoint, in its own dtype. Absent (no bias, no QK norm): data == NULL. */
struct fkv_weight {
    struct fkv_buffer *data;
    size_t offset; /* bytes */
    enum fkv_dtype dtype;
    int32_t rows, cols; /* (out, in); vectors: rows = 1 */
};

struct fkv_attention_shape {
    int32_t dim, heads, kv_heads, head_dim; /* heads is a multiple of kv_heads; head_dim is even */
    float scale;                            /* on the scores, 1/sqrt(head_dim) as a rule */
    const double *
        inv_freq; /* [head_dim/2] rotation per position, radians; rotate-half convention: channel i turns with i + head_dim/2 */
};

/* x [rows, dim] -> n = rmsnorm(x) * norm; q = Wq n + bq, k = Wk n + bk, v = Wv n + bv; then, where q_norm/k_norm are present (Qwen3),
 * each head of q and k is RMS-normalised over head_dim and multiplied by that weight [head_dim]. No rotation. rmsnorm divides by sqrt(mean(x^2) + eps). */
struct fkv_qkv_weights {
    struct fkv_weight norm, wq, wk, wv, bq, bk, bv, q_norm, k_norm;
    float eps;
};

/* Cache heads: key and value [heads, capacity, head_dim] from byte `offset` of each buffer on, in `dtype`. How heads map to layers, sequences and KV heads is the
 * session's affair ([layers, sequences, kv_heads]); it gives a layer's operations that layer's part, and compress and gather whatever is due at once.
 * `bias`, where there is one: float32 [heads, capacity] from byte `bias_offset` on, which attend adds to every slot's scaled score (the log of how many tokens the
 * slot stands for, say). Nothing else reads or writes it. */
struct fkv_cache {
    struct fkv_buffer *key, *value;
    size_t offset;
    enum fkv_dtype dtype;
    int32_t capacity;        /* slots per head */
    struct fkv_buffer *bias; /* NULL: none */
    size_t bias_offset;
};

/* Rows [row, row+rows) of KV head `kv_head` of k and v go to slots [slot, slot+rows) of a cache head; row i is rotated to `position` + i. */
struct fkv_append_item {
    int32_t cache_head, kv_head, row, rows, slot;
    double position;
};

/* A run of slots [first, end) that query row i of an item (i = 0, 1, ...) sees where from + i <= slot < until + i, with the query
 * rotated to position + i (position alone where `fixed`). FKV_NO_LIMIT switches a limit off. Slots of all spans of a row share one softmax;
 * the spans of an item must not overlap and every row must see at least one slot; a span may be empty (first == end). */
struct fkv_span {
    int32_t first, end;
    int32_t from, until;
    double position;
    bool fixed;
};
#define FKV_NO_LIMIT_BELOW (-(1 << 30))
#define FKV_NO_LIMIT_ABOVE (1 << 30)

/* Query rows [row, row+rows) of query heads [head, head+heads), which all read one cache head, attend over spans [span, span+spans) of the call's span array. */
struct fkv_attend_item {
    int32_t cache_head, head, heads;
    int32_t row, rows;
    int32_t span, spans;
};

/* n slots from `slot` on become map.retained slots from `slot` on, keys and values alike. Keys lie at position + i before and are rotated to position + j
 * after. The map acts on un-rotated keys. Slots beyond slot + retained are then free. */
struct fkv_compress_item {
    int32_t cache_head, slot;
    double position;
};

/* Slots from[0 .. count) (ascending, from[j] >= slot + j) move to slot + j, in place; moved keys are rotated further by `shift` positions. */
struct fkv_gather_item {
    int32_t cache_head, slot, count;
    const int32_t *from; /* host */
    double shift;
};

/* What a compress or gather kept of one head: sums of squares of un-rotated keys (rotation does not change them) and of values. For compress,
 * `before` is over its n slots and `kept` is what lies in the map's range at unit gain (the L lowest coefficients of the orthonormal DCT-II);
 * for gather, over slots [slot, from[count-1]] and over the slots moved. */
struct fkv_energy {
    double key_before, key_kept, value_before, value_kept;
};

struct fkv_limits {
    int32_t rows;        /* most rows of a block */
    int32_t dim, hidden; /* model and MLP width */
    int32_t vocab;
    int32_t slots; /* most slots of a head */
    int32_t items; /* most items or spans of a call */
    struct fkv_attention_shape attention;
};

/* What a run will ask of a backend beside buffers. What is 0 is not asked for. */
struct fkv_demand {
    struct fkv_limits limits;                           /* reserve */
    int32_t map_n, map_retained;                        /* map_dct, and compress within `limits` */
    int32_t segment_n, segment_heads, segment_head_dim; /* power and spectra_add */
    int64_t step_items;                                 /* items and spans of a decode step, all layers */
    bool fetches;                                       /* host_create and fetch */
};

/* Bytes that a backend takes for itself, on top of what it holds: `shared` is what operations use one after the other, so of several demands the largest counts; `kept` adds up. */
struct fkv_own {
    int64_t shared, kept;
};

struct fkv_device_info {
    char name[128];
    int64_t memory_total, memory_free; /* bytes */
    enum fkv_space space;
    int threads; /* processor threads that the backend computes with; 0 on a device */
};

struct fkv_backend_ops {
    uint32_t abi; /* FKV_BACKEND_ABI */
    const char *name;

    /* ---- life ---- */
    /* FKV_OK when this machine has what the backend needs (a supported device, a driver that is new enough). */
    int (*probe)(struct fkv_error *err);
    int (*open)(const struct fkv_backend_options *options, struct fkv_backend **out, struct fkv_error *err);
    void (*close)(struct fkv_backend *b); /* NULL is fine */
    int (*info)(struct fkv_backend *b, struct fkv_device_info *out, struct fkv_error *err);
    /* Scratch for everything up to `limits`; a second call grows it. */
    int (*reserve)(struct fkv_backend *b, const struct fkv_limits *limits, struct fkv_error *err);
    /* Adds to `own` what this demand will make the backend take where buffers lie, so that a run can be refused before it starts. It may prepare what the demand needs, and
     * fails where there is no memory even for that. */
    int (*own_bytes)(struct fkv_backend *b, const struct fkv_demand *demand, struct fkv_own *own,
                     struct fkv_error *err);
    int (*synchronize)(struct fkv_backend *b, struct fkv_error *err);

    /* ---- time ---- */
    /* A stopwatch that runs where the operations do: from when those issued before `begin` have ended until those issued before `end` have. Neither waits, neither stands
     * within a step; a begin without its end (an operation failed) counts nothing. */
    int (*time_begin)(struct fkv_backend *b, struct fkv_error *err);
    int (*time_end)(struct fkv_backend *b, struct fkv_error *err);
    /* Seconds that it has run since the backend was opened. */
    int (*time_read)(struct fkv_backend *b, double *seconds, struct fkv_error *err);

    /* ---- memory ---- */
    int (*buffer_create)(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out,
                         struct fkv_error *err); /* contents undefined; 64-byte aligned */
    /* Makes host memory readable by operations. The CPU wraps it (the caller keeps it alive and unchanged); a device copies it. */
    int (*buffer_adopt)(struct fkv_backend *b, const void *host, size_t bytes, struct fkv_buffer **out,
                        struct fkv_error *err);
    void (*buffer_release)(struct fkv_backend *b, struct fkv_buffer *buffer); /* NULL is fine */
    int (*write)(struct fkv_backend *b, struct fkv_buffer *to, size_t offset, const void *from, size_t bytes,
                 struct fkv_error *err);
    int (*read)(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset, void *to, size_t bytes,
                struct fkv_error *err);
    int (*copy)(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset, const struct fkv_buffer *from,
                size_t from_offset, size_t bytes, struct fkv_error *err);
    /* Rows of `width` float32: from [rows, from_stride] -> to [rows, to_stride]; strides in floats, offsets in bytes. */
    int (*copy_rows)(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset, size_t to_stride,
                     const struct fkv_buffer *from, size_t from_offset, size_t from_stride, int32_t rows, int32_t width,
                     struct fkv_error *err);
    /* Where the contents lie: a host pointer on the CPU, a device pointer elsewhere (for taps, with `info`'s space). */
    const void *(*address)(const struct fkv_buffer *buffer);

    /* ---- states on their way out ---- */
    /* Host memory that `fetch` fills (pinned where that means something), 64-byte aligned. */
    int (*host_create)(struct fkv_backend *b, size_t bytes, void **out, struct fkv_error *err);
    void (*host_release)(struct fkv_backend *b, void *host); /* NULL is fine */
    /* Rows of `width` float32, `stride` floats apart, from byte `offset` on -> to [rows, width] in `dtype` (rounded to nearest even), memory of host_create. `to` is filled once
     * fetch_wait has returned for this ticket or a later one; the source may be overwritten by operations issued after this. */
    int (*fetch)(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset, size_t stride, int32_t rows,
                 int32_t width, enum fkv_dtype dtype, void *to, uint64_t *ticket, struct fkv_error *err);
    /* The one call that a second thread may make while the first goes on issuing operations. */
    int (*fetch_wait)(struct fkv_backend *b, uint64_t ticket, struct fkv_error *err);

    /* ---- decode steps ---- */
    /* What is issued between step_begin and step_end is, from the second time on, the same sequence of operations with the same buffers, weights, shapes
     * and counts; tokens and the contents of items and spans are what differs. A device records the sequence once and replays it (a CUDA graph); the CPU
     * runs operations as they come. Operations that wait, compress and gather do not stand within a step. */
    int (*step_create)(struct fkv_backend *b, struct fkv_step **out, struct fkv_error *err);
    void (*step_release)(struct fkv_backend *b, struct fkv_step *step); /* NULL is fine */
    int (*step_begin)(struct fkv_backend *b, struct fkv_step *step, struct fkv_error *err);
    int (*step_end)(struct fkv_backend *b, struct fkv_step *step, struct fkv_error *err);

    /* ---- the steps of a layer; float32 activations ---- */
    /* table (vocab, dim), tokens [rows] on the host -> x [rows, dim] */
    int (*embed)(struct fkv_backend *b, const struct fkv_weight *table, const int32_t *tokens, int32_t rows,
                 struct fkv_buffer *x, struct fkv_error *err);
    /* x [rows, dim] -> q [rows, heads, head_dim], k and v [rows, kv_heads, head_dim] */
    int (*norm_qkv)(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_qkv_weights *w,
                    const struct fkv_buffer *x, int32_t rows, struct fkv_buffer *q, struct fkv_buffer *k,
                    struct fkv_buffer *v, struct fkv_error *err);
    /* k, v [.., kv_heads, head_dim] -> cache slots */
    int (*append)(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *k,
                  const struct fkv_buffer *v, const struct fkv_cache *cache, const struct fkv_append_item *items,
                  int32_t count, struct fkv_error *err);
    /* rows [row, row+rows) of x [.., heads, head_dim] -> the same rows of out, rotated: row + i to position + i. May be in place. */
    int (*rotate)(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *x,
                  int32_t row, int32_t rows, int32_t heads, double position, struct fkv_buffer *out,
                  struct fkv_error *err);
    /* q [.., heads, head_dim], cache -> out [.., heads, head_dim]: softmax(scale q.k + bias) v over the item's spans */
    int (*attend)(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *q,
                  const struct fkv_cache *cache, const struct fkv_span *spans, const struct fkv_attend_item *items,
                  int32_t count, struct fkv_buffer *out, struct fkv_error *err);
    /* x += W in, where in [rows, W.cols] and x [rows, W.rows], in place: the output projection and the down projection */
    int (*project_residual)(struct fkv_backend *b, const struct fkv_weight *w, const struct fkv_buffer *in,
                            int32_t rows, struct fkv_buffer *x, struct fkv_error *err);
    /* x [rows, dim] -> out [rows, hidden] = silu(Wg n) * (Wu n), n = rmsnorm(x) * norm, silu(z) = z / (1 + exp(-z)) */
    int (*norm_gate_up)(struct fkv_backend *b, const struct fkv_weight *norm, float eps, const struct fkv_weight *gate,
                        const struct fkv_weight *up, const struct fkv_buffer *x, int32_t rows, struct fkv_buffer *out,
                        struct fkv_error *err);
    /* rows [row, row+rows) of x [.., dim] -> logits [rows, vocab] = W (rmsnorm(x) * norm) */
    int (*norm_logits)(struct fkv_backend *b, const struct fkv_weight *norm, float eps, const struct fkv_weight *w,
                       const struct fkv_buffer *x, int32_t row, int32_t rows, struct fkv_buffer *logits,
                       struct fkv_error *err);

    /* ---- what experiments read ---- */
    /* logits [rows, vocab], targets [rows] -> nll[i] = logsumexp(logits_i) - logits_i[targets_i] in nats, accumulated in float64; top1[i] = the first argmax (top1 may be NULL). Host outputs.
     * A logit that is NaN, or a row without a finite one, gives NaN. */
    int (*score)(struct fkv_backend *b, const struct fkv_buffer *logits, const int32_t *targets, int32_t rows,
                 int32_t vocab, double *nll, int32_t *top1, struct fkv_error *err);
    /* p, q [rows, vocab] logits -> kl[i] = KL(softmax(p_i) || softmax(q_i)) in nats, float64 throughout. Host output. */
    int (*divergence)(struct fkv_backend *b, const struct fkv_buffer *p, const struct fkv_buffer *q, int32_t rows,
                      int32_t vocab, double *kl, struct fkv_error *err);

    /* ---- compression ---- */
    /* FreqKV's operator: orthonormal DCT-II of n, coefficients 0..L-1, orthonormal inverse of length L, times `gain` (sqrt(L/n), or 1 for the ablation). 1 <= L <= n. */
    int (*map_dct)(struct fkv_backend *b, int32_t n, int32_t retained, double gain, struct fkv_map **out,
                   struct fkv_error *err);
    void (*map_release)(struct fkv_backend *b, struct fkv_map *map); /* NULL is fine */
    /* energy [count] on the host, or NULL */
    int (*compress)(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_map *map,
                    const struct fkv_cache *cache, const struct fkv_compress_item *items, int32_t count,
                    struct fkv_energy *energy, struct fkv_error *err);
    int (*gather)(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_cache *cache,
                  const struct fkv_gather_item *items, int32_t count, struct fkv_energy *energy, struct fkv_error *err);

    /* ---- spectra ---- */
    /* x: n rows of [heads, head_dim] float32, rows `stride` floats apart, from byte `offset` on -> power [heads, n] float64: the square of the orthonormal
     * DCT-II coefficient along rows, mean over head_dim. `normalised` (same shape, or NULL): each channel's power divided by its variance over the n rows before the mean over channels
     * (about its mean, divided by n; a constant channel adds 0). Outputs on the host. */
    int (*power)(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset, size_t stride, int32_t n,
                 int32_t heads, int32_t head_dim, double *power, double *normalised, struct fkv_error *err);
    /* Adds one segment, x as above, to sums that stay with the backend: float64 from byte `at` of `sums` on, laid out as fkv_spectra_layout says. */
    int (*spectra_add)(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset, size_t stride, int32_t n,
                       int32_t heads, int32_t head_dim, struct fkv_buffer *sums, size_t at, struct fkv_error *err);
};

/* Where the sums of spectra_add lie, in doubles: power [heads, n], its square [heads, n], normalised power [heads, n], channel means [heads, head_dim], energy (sum
 * of squares over rows and channels) [heads]. A number in x that is not finite makes its head's energy not finite. */
struct fkv_spectra_layout {
    size_t power, squares, normalised, means, energy, count;
};
static inline struct fkv_spectra_layout fkv_spectra_layout(int32_t heads, int32_t n, int32_t head_dim) {
    size_t spectrum = (size_t)heads * (size_t)n, means = (size_t)heads * (size_t)head_dim;
    struct fkv_spectra_layout layout = {
        0, spectrum, 2 * spectrum, 3 * spectrum, 3 * spectrum + means, 3 * spectrum + means + (size_t)heads};
    return layout;
}

/* "auto" (an accelerator if there is one, else the CPU), "cpu", "cuda" or "reference". The CUDA backend is a module, freqkv-cuda.so, loaded when it is asked for: from
 * the folder of the running program, or from where FKV_CUDA_MODULE points. It exports one table, `fkv_cuda_backend`. Where "auto" takes the CPU although there is an
 * NVIDIA driver, or although FKV_CUDA_MODULE points somewhere, `why` says what is missing; else it is "". It may be NULL. */
int fkv_backend_find(const char *name, const struct fkv_backend_ops **ops, struct fkv_error *why,
                     struct fkv_error *err);

extern const struct fkv_backend_ops fkv_cpu_backend;
extern const struct fkv_backend_ops fkv_reference_backend;

#endif
