/* What the files of compression share: the map, one call as the methods see it, and states as
 * complex numbers.
 *
 * A unit is the keys, or the values, of one item: unit 2 i are the keys of item i, unit 2 i + 1 its
 * values. Channel c and channel c + head_dim/2 travel as one complex number z = x_c + i x_(c +
 * head_dim/2), a column over slots. That pairs real channels for the transforms, and it is RoPE's
 * pairing, so that rotating a key by an angle is multiplying z by exp(i angle). */
#ifndef FKV_KERNELS_CUDA_COMPRESS_CUH
#define FKV_KERNELS_CUDA_COMPRESS_CUH

#include "kernels/cuda/device.cuh"

extern "C" {
#include "kernels/cuda/methods.h"
}

struct fkv_cuda_fused;   /* compress_fused.cu */
struct fkv_cuda_product; /* compress_product.cu */
struct fkv_cuda_fft;     /* compress_fft.cu */

/* The map holds what its methods need and no more: where two dtypes go the same way, they share it.
 */
struct fkv_map {
    int32_t n, retained;
    double gain;
    enum fkv_cuda_method method[3]; /* by cache dtype */
    struct fkv_cuda_fused *fused;
    struct fkv_cuda_product *product;
    struct fkv_cuda_product *value_product; /* of the values; NULL: `product` is for both */
    struct fkv_cuda_fft *fft;
};

/* One call of compress. */
struct fkv_cuda_compression {
    int32_t n, retained, head_dim, units;
    struct fkv_cuda_cache cache;
    bool aligned; /* the cache's heads begin at multiples of 16 bytes where head_dim allows */
    const struct fkv_compress_item *items; /* [units / 2], device */
    const double *frequencies;             /* [head_dim / 2], device */
    /* NULL, or device [units][parts][2], zeroed: parts of the energies before and kept (the latter
     * with the gain squared) */
    double *energy;
    int32_t parts;
    char *scratch; /* what the method asked for */
};

/* Each method: what it prepares for a map, how many parts its energies come in, its scratch for so
 * many units, its launches. `prepare` gives *out = NULL and FKV_OK where the method does not apply
 * (fused only). */
int fkv_cuda_fused_create(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                          struct fkv_cuda_fused **out, struct fkv_error *err);
void fkv_cuda_fused_release(struct fkv_cuda_fused *f);
size_t fkv_cuda_fused_table_bytes(const struct fkv_cuda_fused *f);
int32_t fkv_cuda_fused_parts(const struct fkv_cuda_fused *f, int32_t head_dim);
int fkv_cuda_fused_run(struct fkv_backend *b, const struct fkv_cuda_fused *f,
                       const struct fkv_cuda_compression *c, struct fkv_error *err);

/* dtypes: bit t set where a cache of dtype t goes this way; none: sizes can be asked for, no more
 */
int fkv_cuda_product_create(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                            unsigned dtypes, struct fkv_cuda_product **out, struct fkv_error *err);
/* The same of a matrix [retained, n], on the host. */
int fkv_cuda_product_create_matrix(struct fkv_backend *b, int32_t n, int32_t retained,
                                   const float *matrix, unsigned dtypes,
                                   struct fkv_cuda_product **out, struct fkv_error *err);
void fkv_cuda_product_release(struct fkv_cuda_product *p);
size_t fkv_cuda_product_operator_bytes(const struct fkv_cuda_product *p); /* at most */
int32_t fkv_cuda_product_parts(const struct fkv_cuda_product *p, int32_t head_dim);
size_t fkv_cuda_product_scratch(const struct fkv_cuda_product *p, int32_t head_dim, int32_t units);
int fkv_cuda_product_run(struct fkv_backend *b, const struct fkv_cuda_product *p,
                         const struct fkv_cuda_compression *c, int32_t first, int32_t step,
                         struct fkv_error *err); /* of units first, first + step, ... */

int fkv_cuda_fft_create(struct fkv_backend *b, const struct fkv_limits *limits, int32_t n,
                        int32_t retained, double gain, struct fkv_cuda_fft **out,
                        struct fkv_error *err);
void fkv_cuda_fft_release(struct fkv_cuda_fft *f);
size_t fkv_cuda_fft_table_bytes(const struct fkv_cuda_fft *f);
int32_t fkv_cuda_fft_parts(int32_t head_dim);
size_t fkv_cuda_fft_scratch(const struct fkv_cuda_fft *f);
int fkv_cuda_fft_run(struct fkv_backend *b, const struct fkv_cuda_fft *f,
                     const struct fkv_cuda_compression *c, struct fkv_error *err);

/* A host table on the device, in memory of its own. */
int fkv_cuda_upload(struct fkv_backend *b, const void *host, size_t bytes, const char *what,
                    char **device, struct fkv_error *err);

/* sqrt(2/n)/2 times cos and sin of pi t / 2n, [count][2]; at t = 0 the factor is sqrt(1/n) `first`.
 * Times gain. Makhoul's last step (kernels/dct/loops.h). */
void fkv_cuda_last_turns(int32_t n, int32_t count, double gain, double first, float *table);

/* ---- device side ---- */
/* First element of a unit's states. */
template <typename T>
__device__ inline T *fkv_cuda_unit_states(const struct fkv_cuda_compression &c, int32_t unit) {
    const struct fkv_compress_item *item = &c.items[unit / 2];
    size_t at = ((size_t)item->cache_head * (size_t)c.cache.capacity + (size_t)item->slot) *
                (size_t)c.head_dim;
    return (T *)(unit % 2 ? c.cache.value : c.cache.key) + at;
}

__device__ inline float2 fkv_cuda_times(float2 a, float2 b) {
    return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}
/* a conj(b) */
__device__ inline float2 fkv_cuda_times_conjugate(float2 a, float2 b) {
    return make_float2(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
}
__device__ inline float2 fkv_cuda_angle(double position, double inv_freq) {
    float2 turn;
    fkv_cuda_turn(position, inv_freq, &turn.x, &turn.y);
    return turn;
}

/* Index of token j of n in Makhoul's order. */
__host__ __device__ inline int32_t fkv_cuda_makhoul_index(int32_t j, int32_t n) {
    return j % 2 ? n - 1 - j / 2 : j / 2;
}
/* Its inverse: the token at an index of Makhoul's order. */
__host__ __device__ inline int32_t fkv_cuda_token_at(int32_t index, int32_t n) {
    return index < (n + 1) / 2 ? 2 * index : 2 * (n - index) - 1;
}

/* Coefficient t of both channels, from the spectrum's rows t and n - t. */
__device__ inline float2 fkv_cuda_coefficient(float2 v, float2 mirror, float2 last) {
    return make_float2(last.x * (v.x + mirror.x) + last.y * (v.y - mirror.y),
                       last.x * (v.y + mirror.y) + last.y * (mirror.x - v.x));
}

/* Rows t and L - t of the spectrum whose forward transform is the inverse one with real and
 * imaginary parts exchanged; from coefficients t and L - t. */
struct fkv_cuda_two {
    float2 row, mirror;
};
__device__ inline struct fkv_cuda_two fkv_cuda_pack(float2 y, float2 mirror, float2 last) {
    float ar = last.x * y.x + last.y * mirror.x, ai = last.y * y.x - last.x * mirror.x;
    float br = last.x * y.y + last.y * mirror.y, bi = last.y * y.y - last.x * mirror.y;
    return {make_float2(ai + br, ar - bi), make_float2(br - ai, ar + bi)};
}

__device__ inline double fkv_cuda_square(float2 z) { return (double)z.x * z.x + (double)z.y * z.y; }

#endif
