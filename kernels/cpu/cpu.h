/* What the files of the CPU backend share. Nothing here is seen outside kernels/cpu.
 *
 * Operations run one at a time, each as one or two OpenMP regions, so all of them share one block
 * of scratch per thread. It is allocated in `reserve` and `map_dct`; an operation has a function of
 * the limits for the floats it needs, and takes the pointer. */
#ifndef FKV_KERNELS_CPU_CPU_H
#define FKV_KERNELS_CPU_CPU_H

#include <omp.h>
#include <stdatomic.h>

#include "kernels/base/host.h"
#include "kernels/cpu/crowd.h"
#include "kernels/cpu/simd.h"
#include "kernels/host_buffer.h"

struct fkv_dct;
struct fkv_gemm;
struct fkv_map {
    int32_t n, retained;
    double gain;                       /* the DCT's, which `inverse` has */
    struct fkv_dct *forward, *inverse; /* of n and of retained; NULL: the matrices below */
    float *key;                        /* [retained, n] */
    float *value;                      /* the same shape, or the same memory */
};

enum { FKV_CPU_ROTATIONS = 4 }; /* whose angles are kept at a time */

/* cos and sin of whole positions, computed once: [positions, cos: half, sin: half]. */
struct fkv_rotation {
    float *table;
    int32_t positions, half;
    double *
        inv_freq; /* [half] that the table was made for; owned in the backend, borrowed in a view */
};

enum { FKV_CPU_MOST_SPLIT = 64 }; /* items whose parts are computed side by side (attend.c) */

struct fkv_backend {
    struct fkv_host_stopwatch stopwatch;
    int threads;
    int processors; /* that loops have by default */
    bool awake;     /* threads may wait for each other awake (meet.h) */
    int team;       /* threads of a loop: all, or fewer of a decode step (crowd.h) */
    struct fkv_crowd crowd;
    enum fkv_compute compute; /* never FKV_COMPUTE_NATIVE: float32 or bfloat16 */
    const struct fkv_simd *simd;
    const struct fkv_panel *panel; /* attention in the format of `compute` */
    struct fkv_limits limits;      /* reserved so far: the largest of each field */
    float *normed;                 /* [rows, dim] the input of products, or their output */
    float *norm;           /* [max(dim, 2 head_dim, heads * head_dim)] norm weights as float32 */
    struct fkv_gemm *gemm; /* NULL in a plain build */
    fkv_dot_bf16_function *dot_bf16;     /* where the backend computes in bfloat16 */
    fkv_round_bf16_function *round_bf16; /* there too */
    bool tiles;                          /* there, with AMX: products are gemm_amx.h's */
    bool widens; /* there, on a processor whose products of bfloat16 are slow: numbers are rounded
                    to it, and those of many rows and of attention multiplied as float32 */
    fkv_round_wide_function *round_wide; /* there */
    void *rounded;  /* there: the input of a product [rows, widest], or as gemm_amx.h packs it */
    float *scratch; /* [threads, scratch_each] */
    size_t scratch_each;
    float *partial; /* [partial_floats] results of attention over parts of the slots */
    size_t partial_floats;
    atomic_int parts_done[FKV_CPU_MOST_SPLIT];        /* of an item; 0 between calls */
    struct fkv_rotation rotations[FKV_CPU_ROTATIONS]; /* without a table: unused */
    int32_t oldest_rotation; /* the next to be replaced, once all are used */
    int32_t map_rows; /* largest n of a map (n + L of matrices), and the largest scratch of its
                         transforms, so far */
    size_t map_scratch;
    struct fkv_dct *power_plan; /* of the segment length seen last */
    int32_t power_n;
};

/* Multiplications that take as long as reading a number, of weights or of a cache, from memory: 2
 * to 4 bytes of 10 GB/s, with AVX-512. A product of one row that one thread did alone left the
 * other asleep, once a layer: SmolLM2-135M on two cores of a Xeon (Emerald Rapids) decoded at 1.63
 * of one core's speed, and does at 1.87. Attention counts it, too: after 200 to 500 tokens decoding
 * took 1.1 to 1.2 times as long when only its multiplications made its loop long. */
enum { FKV_READING = 8 };

/* Threads for a region of so many multiplications, or operations of about that cost. One where the
 * region takes less than about 20 us: waking the others saves little there, and on a busy machine
 * waiting for a thread that has lost its core costs a thousand times more.
 *
 * For the same reason a region of less than about 2 ms has no thread on a processor that is lent:
 * its end would wait until what runs there, a millisecond or more at a time, is done. A 1M model's
 * capture on two cores of a Xeon (Emerald Rapids) took 1.12 of prefill's time, and takes 1.08. */
static inline int fkv_cpu_threads(const struct fkv_backend *b, int64_t operations) {
    if (operations < 1 << 19) return 1;
    const int lent = fkv_host_lent(), left = b->processors - lent;
    if (!lent || operations >= 1 << 27 || left >= b->team) return b->team;
    return left > 1 ? left : 1;
}

/* For regions with products: a library works on the calling thread inside a region of several, and
 * in a region of one it takes as many threads as OpenMP would give the caller. The number belongs
 * to the task: it ends with the region. */
static inline void fkv_cpu_products_alone(void) { omp_set_num_threads(1); }

static inline float *fkv_cpu_floats(const struct fkv_buffer *b) { return (float *)b->data; }
static inline float *fkv_cpu_scratch(const struct fkv_backend *b) {
    return b->scratch + (size_t)omp_get_thread_num() * b->scratch_each;
}
static inline const void *fkv_cpu_weight(const struct fkv_weight *w) {
    return w->data->data + w->offset;
}
static inline char *fkv_cpu_slot(const struct fkv_buffer *states, const struct fkv_cache *cache,
                                 int32_t head_dim, int32_t cache_head, int32_t slot) {
    return states->data + cache->offset +
           ((size_t)cache_head * (size_t)cache->capacity + (size_t)slot) * (size_t)head_dim *
               fkv_dtype_bytes(cache->dtype);
}

/* Scratch for this shape was reserved. */
static inline int fkv_cpu_check_shape(const struct fkv_backend *b,
                                      const struct fkv_attention_shape *shape,
                                      struct fkv_error *err) {
    const struct fkv_attention_shape *most = &b->limits.attention;
    if (shape->head_dim <= most->head_dim && shape->heads <= most->heads) return FKV_OK;
    return fkv_fail(err, "attention of %d heads of %d, but %d of %d were reserved", shape->heads,
                    shape->head_dim, most->heads, most->head_dim);
}

/* backend.c: makes every thread's scratch at least `floats` long. */
int fkv_cpu_grow_scratch(struct fkv_backend *b, size_t floats, struct fkv_error *err);

/* rotate.c: makes a table of cos and sin for the rotation and the positions that the limits name.
 */
int fkv_cpu_rotation_reserve(struct fkv_backend *b, const struct fkv_limits *limits,
                             struct fkv_error *err);
void fkv_cpu_rotations_free(struct fkv_backend *b);
/* Bytes of such a table. */
int64_t fkv_cpu_rotation_bytes(const struct fkv_limits *limits);
/* The backend's table that was made for this shape's frequencies; without one, no positions. */
struct fkv_rotation fkv_cpu_rotation(const struct fkv_backend *b,
                                     const struct fkv_attention_shape *shape);
/* [cos: half, sin: half] at a position: a row of the table, or computed into `scratch` [2 half]. */
const float *fkv_cpu_turn(const struct fkv_rotation *r, double position, float *scratch);

/* matmul.c: out [rows, w.rows] = in [rows, w.cols] W^T + bias, or out += that. `bias` may be NULL
 * or absent. With a gate, of w's shape: out = activate(in gate^T, in W^T), which is fkv_simd's. */
struct fkv_cpu_product {
    const struct fkv_weight *w, *bias;
    float *out;
    bool add;
    const struct fkv_weight *gate; /* or NULL */
    void (*activate)(float *gate, const float *up, size_t n);
};
enum { FKV_CPU_MOST_PRODUCTS = 3 };
/* What products are of: x [rows, cols], normalised before where there are factors. */
struct fkv_cpu_input {
    const float *x;
    const float *factors; /* [cols] of a norm, or NULL */
    float eps;
};
/* Products that share their input, in one parallel region. */
int fkv_cpu_multiply(struct fkv_backend *b, const struct fkv_cpu_product *products, int count,
                     const struct fkv_cpu_input *in, int32_t rows, struct fkv_error *err);

/* The most columns of a weight. */
int32_t fkv_cpu_widest(const struct fkv_limits *limits);

/* Floats of `partial`. */
size_t fkv_cpu_attend_partial(const struct fkv_limits *limits);

/* Floats of scratch per thread. */
size_t fkv_cpu_multiply_scratch(const struct fkv_limits *limits);
size_t fkv_cpu_attend_scratch(const struct fkv_backend *b, const struct fkv_limits *limits);
size_t fkv_cpu_attention_paid_scratch(const struct fkv_limits *limits);
size_t fkv_cpu_cache_scratch(const struct fkv_limits *limits);
size_t fkv_cpu_compress_scratch(const struct fkv_backend *b, const struct fkv_limits *limits);

/* The operations, in the order of struct fkv_backend_ops. norm.c: */
fkv_op_embed fkv_cpu_embed;
fkv_op_norm_qkv fkv_cpu_norm_qkv;
fkv_op_project_residual fkv_cpu_project_residual;
fkv_op_norm_gate_up fkv_cpu_norm_gate_up;
fkv_op_norm_logits fkv_cpu_norm_logits;
/* rotate.c: */
fkv_op_rotate fkv_cpu_rotate;
/* cache.c: */
fkv_op_append fkv_cpu_append;
fkv_op_gather fkv_cpu_gather;
/* attend.c: */
fkv_op_attend fkv_cpu_attend;
/* attention_paid.c: */
fkv_op_attention_paid fkv_cpu_attention_paid;
/* score.c: */
fkv_op_score fkv_cpu_score;
fkv_op_compare fkv_cpu_compare;
/* compress.c: */
fkv_op_map_dct fkv_cpu_map_dct;
fkv_op_map_matrix fkv_cpu_map_matrix;
fkv_op_map_release fkv_cpu_map_release;
fkv_op_compress fkv_cpu_compress;
/* power.c: */
fkv_op_power fkv_cpu_power;
fkv_op_spectra_add fkv_cpu_spectra_add;

#endif
