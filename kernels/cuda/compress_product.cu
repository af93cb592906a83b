/* Compression by matrix products: y = M x, with any M, or M = gain IDCT_L [I_L 0] DCT_n for sizes
 * whose transforms are awkward and short.
 *
 * The DCT's M is centrosymmetric, M[L-1-j][n-1-i] = M[j][i]. So sums and differences of slots i and
 * n-1-i go through half-size matrices apart, which is half the arithmetic:
 *
 *   E = P_e (x_i + x_(n-1-i)),  O = P_o (x_i - x_(n-1-i)),  y_j = E_j + O_j,  y_(L-1-j) = E_j -
 * O_j, P_e, P_o [j][i] = (M[j][i] +- M[j][n-1-i]) / 2,  j < ceil(L/2), i < ceil(n/2)
 *
 * Any other M goes the same way without the mirrored results: j < L, y_j = E_j + O_j.
 *
 * A middle slot (n odd) is in the sums only, once; for a middle result (L odd) O is 0. The
 * DCT's M comes from Dirichlet's kernel in double (kernels/reference/spectrum.c has the
 * derivation).
 *
 * Three steps per slab of units: `fold` un-rotates keys and writes sums and differences as panels
 * [2][K][width], width = units times head_dim, in the operands' precision; cuBLAS forms E and O
 * [2][J][width]; `unfold` joins, rotates and rounds. Rows are padded with zeros to K, a multiple of
 * 8, as tensor cores need.
 *
 * Precision. A 16-bit cache may be 1.2 times as far from the exact result as rounding is. With both
 * operands in one format, worst of white noise, low-pass states with a mean of 30 deviations, and
 * white noise on such a mean, n = 1022, L/n = 1/2, 3/4 and near 1 (numpy, float64 otherwise):
 *
 *                bf16   TF32   bf16, x in 2 parts   bf16, M in 2 parts   both in 2 parts, 3
 * products bf16 cache   1.73   1.02   1.41                 1.42                 1.000 f16 cache 11
 * 1.73   8.0                  8.1                  1.000
 *
 * So a bf16 cache takes TF32 (operands rounded to nearest here, since the hardware cuts them off),
 * an f16 cache three bf16 products, and a float32 cache true float32.
 * Below MIDDLE slots bf16 in two parts is bound by memory as TF32 is, below SHORT slots float32 is
 * too, and the dearer precision costs nothing: a TF32 product is 2e-4 off per number (a mean, in
 * all rows alike where n is a multiple of L), bf16 in two parts 1e-5, which energies would show.
 *
 * FLOPs: n L per channel and product. Bytes per channel: 2 to 4 n in, 4 n (TF32) or 4 n (two bf16)
 * written and read, 4 L written and read, 2 to 4 L out. Panels are slabs of SLAB_BYTES at most, so
 * that scratch does not grow with the model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/compress.cuh"

enum {
    THREADS = 256,
    PER_THREAD = 8,
    SHORT = 256,
    MIDDLE = 1024,
    MOST_UNITS = 65535 /* of a grid's second dimension */
};
static const size_t SLAB_BYTES = (size_t)256 << 20;

enum precision { TRUE_F32, TF32, SPLIT_BF16, PRECISIONS };

struct fkv_cuda_product {
    int32_t n, retained;
    bool mirrored;       /* result L-1-j is E_j - O_j: M is centrosymmetric */
    int32_t rows, depth; /* J = ceil(L/2), or L where not mirrored; K = ceil(n/2) rounded up to 8 */
    char *row_weights;   /* [L] float64: 1 / |row of M|^2; NULL where mirrored */
    enum precision by_dtype[3];
    char *operators[PRECISIONS]; /* [2][J][K] float32, or [2][2: high, low][J][K] bf16; NULL where
                                    no dtype needs it */
};

static size_t whole(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* ---- the operator ---- */

/* D(theta) = 1/2 + sum_(t=1)^(L-1) cos(t theta), theta = pi numerator / (2 n L). */
static double dirichlet(int64_t numerator, int32_t n, int32_t retained) {
    double theta = acos(-1) * (double)numerator / (2.0 * n * retained);
    return numerator ? sin((retained - 0.5) * theta) / (2 * sin(theta / 2)) : retained - 0.5;
}

static double element(int32_t j, int32_t i, int32_t n, int32_t retained) {
    int64_t alpha = (2 * (int64_t)j + 1) * n, beta = (2 * (int64_t)i + 1) * retained;
    return (dirichlet(alpha - beta, n, retained) + dirichlet(alpha + beta, n, retained)) /
           sqrt((double)n * retained);
}

/* P_e and P_o in double, [2][J][K]; zeros where rows or columns are padding. `matrix` [L, n], or
 * NULL: the DCT's, times gain. */
static double *folded(const struct fkv_cuda_product *p, double gain, const float *matrix) {
    size_t half = (size_t)p->rows * (size_t)p->depth;
    double *m = (double *)calloc(2 * half, sizeof *m);
    for (int32_t j = 0; m && j < p->rows; j++)
        for (int32_t i = 0; i < (p->n + 1) / 2; i++) {
            const int32_t mirror = p->n - 1 - i;
            const float *row = matrix ? matrix + (size_t)j * (size_t)p->n : NULL;
            double a = (row ? row[i] : gain * element(j, i, p->n, p->retained)) / 2;
            double b = (row ? row[mirror] : gain * element(j, mirror, p->n, p->retained)) / 2;
            double *at = m + (size_t)j * (size_t)p->depth + (size_t)i;
            at[0] = a + b;
            at[half] = a - b;
        }
    return m;
}

__host__ __device__ static inline float to_tf32(float x) { /* to nearest, ties away, 10 bits */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & 0xffffe000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void convert(const double *m, size_t half, enum precision precision, void *to) {
    for (size_t i = 0; i < 2 * half; i++) {
        float x = (float)m[i];
        if (precision == SPLIT_BF16) {
            uint16_t high = fkv_f32_to_bf16(x),
                     *at = (uint16_t *)to + i / half * 2 * half + i % half;
            at[0] = high;
            at[half] = fkv_f32_to_bf16((float)(m[i] - (double)fkv_bf16_to_f32(high)));
        } else {
            ((float *)to)[i] = precision == TF32 ? to_tf32(x) : x;
        }
    }
}

static int upload_row_weights(struct fkv_backend *b, struct fkv_cuda_product *p,
                              const float *matrix, struct fkv_error *err) {
    const size_t bytes = (size_t)p->retained * sizeof(double);
    double *weights = (double *)malloc(bytes);
    if (!weights) return fkv_fail(err, "out of memory");
    for (int32_t j = 0; j < p->retained; j++) {
        double sum = 0;
        for (int32_t i = 0; i < p->n; i++) {
            const double m = matrix[(size_t)j * (size_t)p->n + (size_t)i];
            sum += m * m;
        }
        weights[j] = sum > 0 ? 1 / sum : 0;
    }
    int status = fkv_cuda_upload(b, weights, bytes, "the operator of a map", &p->row_weights, err);
    free(weights);
    return status;
}

static int upload_operators(struct fkv_backend *b, struct fkv_cuda_product *p, double gain,
                            const float *matrix, unsigned dtypes, struct fkv_error *err) {
    size_t half = (size_t)p->rows * (size_t)p->depth, bytes = 2 * half * sizeof(float);
    double *m = folded(p, gain, matrix);
    void *packed = malloc(bytes);
    int status = m && packed ? FKV_OK : fkv_fail(err, "out of memory");
    for (int t = FKV_F32; !status && t <= FKV_BF16; t++) {
        enum precision precision = p->by_dtype[t];
        if (!(dtypes >> t & 1) || p->operators[precision]) continue;
        convert(m, half, precision, packed);
        status = fkv_cuda_upload(b, packed, bytes, "the operator of a map",
                                 &p->operators[precision], err);
    }
    free(m);
    free(packed);
    return status;
}

static int create(struct fkv_backend *b, int32_t n, int32_t retained, bool mirrored, double gain,
                  const float *matrix, unsigned dtypes, struct fkv_cuda_product **out,
                  struct fkv_error *err) {
    struct fkv_cuda_product *p = (struct fkv_cuda_product *)calloc(1, sizeof *p);
    if (!p) return fkv_fail(err, "out of memory");
    p->n = n;
    p->retained = retained;
    p->mirrored = mirrored;
    p->rows = mirrored ? (retained + 1) / 2 : retained;
    p->depth = ((n + 1) / 2 + 7) / 8 * 8;
    p->by_dtype[FKV_F32] = TRUE_F32;
    p->by_dtype[FKV_F16] = n < SHORT ? TRUE_F32 : SPLIT_BF16;
    p->by_dtype[FKV_BF16] = n < SHORT ? TRUE_F32 : n < MIDDLE ? SPLIT_BF16 : TF32;
    if (dtypes && (upload_operators(b, p, gain, matrix, dtypes, err) ||
                   (matrix && upload_row_weights(b, p, matrix, err)))) {
        fkv_cuda_product_release(p);
        return FKV_FAILED;
    }
    *out = p;
    return FKV_OK;
}

int fkv_cuda_product_create(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                            unsigned dtypes, struct fkv_cuda_product **out, struct fkv_error *err) {
    return create(b, n, retained, true, gain, NULL, dtypes, out, err);
}

int fkv_cuda_product_create_matrix(struct fkv_backend *b, int32_t n, int32_t retained,
                                   const float *matrix, unsigned dtypes,
                                   struct fkv_cuda_product **out, struct fkv_error *err) {
    return create(b, n, retained, false, 1, matrix, dtypes, out, err);
}

size_t fkv_cuda_product_operator_bytes(const struct fkv_cuda_product *p) {
    return PRECISIONS * 2 * (size_t)p->rows * (size_t)p->depth * sizeof(float) +
           (p->mirrored ? 0 : (size_t)p->retained * sizeof(double));
}

void fkv_cuda_product_release(struct fkv_cuda_product *p) {
    if (!p) return;
    for (char *o : p->operators) cudaFree(o);
    cudaFree(p->row_weights);
    free(p);
}

/* ---- scratch ---- */

static int32_t tiles(int32_t rows, int32_t head_dim) {
    return (int32_t)(((int64_t)rows * (head_dim / 2) + THREADS * PER_THREAD - 1) /
                     (THREADS * PER_THREAD));
}

/* One part per tile of `fold` or of `unfold`, which has more where nothing is mirrored. */
int32_t fkv_cuda_product_parts(const struct fkv_cuda_product *p, int32_t head_dim) {
    return tiles(p->depth > p->rows ? p->depth : p->rows, head_dim);
}

/* Panels of sums and differences are 4 bytes per number in every precision. */
static size_t panel_bytes(const struct fkv_cuda_product *p, int32_t head_dim, int32_t units) {
    return whole((size_t)units * (size_t)head_dim * 2 * (size_t)p->depth * sizeof(float));
}
static size_t result_bytes(const struct fkv_cuda_product *p, int32_t head_dim, int32_t units) {
    return whole((size_t)units * (size_t)head_dim * 2 * (size_t)p->rows * sizeof(float));
}

static int32_t slab_units(const struct fkv_cuda_product *p, int32_t head_dim, int32_t units) {
    size_t one = panel_bytes(p, head_dim, 1) + result_bytes(p, head_dim, 1),
           most = SLAB_BYTES / one;
    if (most > MOST_UNITS) most = MOST_UNITS;
    return most < 1 ? 1 : most < (size_t)units ? (int32_t)most : units;
}

size_t fkv_cuda_product_scratch(const struct fkv_cuda_product *p, int32_t head_dim, int32_t units) {
    int32_t slab = slab_units(p, head_dim, units);
    return panel_bytes(p, head_dim, slab) + result_bytes(p, head_dim, slab);
}

/* ---- kernels ---- */

/* Number `at` of the panel whose K rows of `width` begin at `row` 0 of sums (which = 0) or
 * differences; `half` numbers per panel. */
template <enum precision precision>
static __device__ inline void put(void *panels, int which, size_t half, size_t at, float x) {
    if (precision == SPLIT_BF16) { /* [2][low, high][K][width] */
        __nv_bfloat16 *to = (__nv_bfloat16 *)panels + 2 * half * (size_t)which + at,
                      high = __float2bfloat16_rn(x);
        to[0] = __float2bfloat16_rn(x - __bfloat162float(high));
        to[half] = high;
    } else {
        ((float *)panels)[half * (size_t)which + at] = precision == TF32 ? to_tf32(x) : x;
    }
}

/* One slot's channels c and c + head_dim/2, un-rotated if keys. */
template <typename T>
static __device__ inline float2 slot_of(const struct fkv_cuda_compression &c, const T *states,
                                        int32_t unit, int32_t slot, int32_t channel) {
    const T *at = states + (size_t)slot * (size_t)c.head_dim + channel;
    float2 z = make_float2(fkv_cuda_to_float(at[0]), fkv_cuda_to_float(at[c.head_dim / 2]));
    if (unit % 2) return z;
    return fkv_cuda_times_conjugate(
        z, fkv_cuda_angle(c.items[unit / 2].position + slot, c.frequencies[channel]));
}

/* grid: tiles of K x head_dim/2, units of the slab: first, first + step, ... */
template <typename T, enum precision precision>
static __global__ void __launch_bounds__(THREADS)
    fold_kernel(struct fkv_cuda_compression c, int32_t first, int32_t step, int32_t depth,
                void *panels) {
    int32_t unit = first + step * (int32_t)blockIdx.y, pairs = c.head_dim / 2;
    size_t width = (size_t)gridDim.y * (size_t)c.head_dim, half = width * (size_t)depth;
    const T *states = fkv_cuda_unit_states<T>(c, unit);
    double before = 0;
    for (int32_t round = 0; round < PER_THREAD; round++) {
        int64_t index = ((int64_t)blockIdx.x * PER_THREAD + round) * THREADS + threadIdx.x;
        int32_t i = (int32_t)(index / pairs), channel = (int32_t)(index % pairs),
                mirror = c.n - 1 - i;
        if (i >= depth) break;
        float2 a = make_float2(0, 0), b = a;
        if (i <= mirror) a = slot_of(c, states, unit, i, channel);
        if (i < mirror) b = slot_of(c, states, unit, mirror, channel);
        if (c.energy) before += fkv_cuda_square(a) + fkv_cuda_square(b);
        bool middle = i == mirror; /* alone in the sums; differences of a middle slot are none */
        size_t at = (size_t)i * width + (size_t)blockIdx.y * (size_t)c.head_dim + (size_t)channel;
        put<precision>(panels, 0, half, at, a.x + b.x);
        put<precision>(panels, 0, half, at + (size_t)pairs, a.y + b.y);
        put<precision>(panels, 1, half, at, middle ? 0 : a.x - b.x);
        put<precision>(panels, 1, half, at + (size_t)pairs, middle ? 0 : a.y - b.y);
    }
    if (!c.energy) return;
    before = fkv_cuda_block_sum(before);
    if (threadIdx.x == 0) c.energy[2 * ((size_t)unit * (size_t)c.parts + blockIdx.x)] = before;
}

template <typename T>
static __device__ inline void put_slot(const struct fkv_cuda_compression &c, T *states,
                                       int32_t unit, int32_t slot, int32_t channel, float2 z) {
    if (unit % 2 == 0)
        z = fkv_cuda_times(
            z, fkv_cuda_angle(c.items[unit / 2].position + slot, c.frequencies[channel]));
    T *at = states + (size_t)slot * (size_t)c.head_dim + channel;
    at[0] = fkv_cuda_from_float<T>(z.x);
    at[c.head_dim / 2] = fkv_cuda_from_float<T>(z.y);
}

/* results [2][J][width]; weights [L], or NULL: results are mirrored, and each counts once; grid:
 * tiles of J x head_dim/2, units of the slab: first, first + step, ... */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    unfold_kernel(struct fkv_cuda_compression c, int32_t first, int32_t step, int32_t rows,
                  const double *weights, const float *results) {
    int32_t unit = first + step * (int32_t)blockIdx.y, pairs = c.head_dim / 2;
    size_t width = (size_t)gridDim.y * (size_t)c.head_dim, half = width * (size_t)rows;
    T *states = fkv_cuda_unit_states<T>(c, unit);
    double kept = 0;
    for (int32_t round = 0; round < PER_THREAD; round++) {
        int64_t index = ((int64_t)blockIdx.x * PER_THREAD + round) * THREADS + threadIdx.x;
        int32_t j = (int32_t)(index / pairs), channel = (int32_t)(index % pairs),
                mirror = weights ? j : c.retained - 1 - j;
        if (j >= rows) break;
        const float *at =
            results + (size_t)j * width + (size_t)blockIdx.y * (size_t)c.head_dim + (size_t)channel;
        float2 e = make_float2(at[0], at[pairs]),
               o = make_float2(at[half], at[half + (size_t)pairs]);
        float2 y = make_float2(e.x + o.x, e.y + o.y), z = make_float2(e.x - o.x, e.y - o.y);
        put_slot(c, states, unit, j, channel, y);
        if (mirror != j) put_slot(c, states, unit, mirror, channel, z);
        if (c.energy)
            kept += (weights ? weights[j] : 1) * fkv_cuda_square(y) +
                    (mirror != j ? fkv_cuda_square(z) : 0);
    }
    if (!c.energy) return;
    kept = fkv_cuda_block_sum(kept);
    if (threadIdx.x == 0) c.energy[2 * ((size_t)unit * (size_t)c.parts + blockIdx.x) + 1] = kept;
}

/* ---- a call ---- */

/* result [J][width] (+)= P [J][depth] panel [depth][width], all row-major; rows of P are `depth`
 * apart in memory too. */
static int multiply(struct fkv_backend *b, cudaDataType_t type, cublasComputeType_t compute,
                    const void *operator_, const void *panel, float *result, int32_t rows,
                    int32_t depth, int32_t width, bool add, struct fkv_error *err) {
    const float one = 1, beta = add ? 1 : 0;
    return fkv_cuda_check_blas(cublasGemmEx(b->blas, CUBLAS_OP_N, CUBLAS_OP_N, width, rows, depth,
                                            &one, panel, type, width, operator_, type, depth, &beta,
                                            result, CUDA_R_32F, width, compute,
                                            CUBLAS_GEMM_DEFAULT),
                               "compress", err);
}

/* Sums (which = 0) or differences. In two parts: M_high (x_low + x_high) + M_low x_high, small
 * terms first. */
static int multiply_half(struct fkv_backend *b, const struct fkv_cuda_product *p,
                         enum precision precision, int which, const char *panels, float *results,
                         int32_t width, struct fkv_error *err) {
    size_t half = (size_t)p->rows * (size_t)p->depth, panel = (size_t)p->depth * (size_t)width;
    float *result = results + (size_t)which * (size_t)p->rows * (size_t)width;
    const char *m = p->operators[precision] + 4 * half * (size_t)which,
               *x = panels + 4 * panel * (size_t)which;
    if (precision != SPLIT_BF16)
        return multiply(b, CUDA_R_32F,
                        precision == TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                          : CUBLAS_COMPUTE_32F_PEDANTIC,
                        m, x, result, p->rows, p->depth, width, false, err);
    const char *low = m + 2 * half, *high = x + 2 * panel;
    return multiply(b, CUDA_R_16BF, CUBLAS_COMPUTE_32F, m, x, result, p->rows, p->depth, width,
                    false, err) ||
                   multiply(b, CUDA_R_16BF, CUBLAS_COMPUTE_32F, low, high, result, p->rows,
                            p->depth, width, true, err) ||
                   multiply(b, CUDA_R_16BF, CUBLAS_COMPUTE_32F, m, high, result, p->rows, p->depth,
                            width, true, err)
               ? FKV_FAILED
               : FKV_OK;
}

typedef void fold_function(struct fkv_cuda_compression, int32_t, int32_t, int32_t, void *);
typedef void unfold_function(struct fkv_cuda_compression, int32_t, int32_t, int32_t, const double *,
                             const float *);

static fold_function *pick_fold(enum fkv_dtype t, enum precision precision) {
    if (t == FKV_F32) return fold_kernel<float, TRUE_F32>;
    if (t == FKV_F16)
        return precision == TRUE_F32 ? fold_kernel<__half, TRUE_F32>
                                     : fold_kernel<__half, SPLIT_BF16>;
    return precision == TRUE_F32 ? fold_kernel<__nv_bfloat16, TRUE_F32>
           : precision == TF32   ? fold_kernel<__nv_bfloat16, TF32>
                                 : fold_kernel<__nv_bfloat16, SPLIT_BF16>;
}

static int run_slab(struct fkv_backend *b, const struct fkv_cuda_product *p,
                    const struct fkv_cuda_compression *c, int32_t first, int32_t step,
                    int32_t units, struct fkv_error *err) {
    enum fkv_dtype t = c->cache.dtype;
    enum precision precision = p->by_dtype[t];
    int32_t width = units * c->head_dim;
    char *panels = c->scratch;
    float *results = (float *)(panels + panel_bytes(p, c->head_dim, units));
    unfold_function *unfold = fkv_cuda_pick<unfold_function>(
        t, unfold_kernel<float>, unfold_kernel<__half>, unfold_kernel<__nv_bfloat16>);
    if (fkv_cuda_launch(b, "compress", pick_fold(t, precision),
                        dim3((unsigned)tiles(p->depth, c->head_dim), (unsigned)units),
                        dim3(THREADS), 0, err, *c, first, step, p->depth, panels))
        return FKV_FAILED;
    for (int which = 0; which < 2; which++)
        if (multiply_half(b, p, precision, which, panels, results, width, err)) return FKV_FAILED;
    return fkv_cuda_launch(
        b, "compress", unfold, dim3((unsigned)tiles(p->rows, c->head_dim), (unsigned)units),
        dim3(THREADS), 0, err, *c, first, step, p->rows, (const double *)p->row_weights, results);
}

int fkv_cuda_product_run(struct fkv_backend *b, const struct fkv_cuda_product *p,
                         const struct fkv_cuda_compression *c, int32_t first, int32_t step,
                         struct fkv_error *err) {
    const int32_t count = c->units / step, slab = slab_units(p, c->head_dim, count);
    for (int32_t done = 0; done < count; done += slab) {
        int32_t units = count - done < slab ? count - done : slab;
        if (run_slab(b, p, c, first + step * done, step, units, err)) return FKV_FAILED;
    }
    return FKV_OK;
}
