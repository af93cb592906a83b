/* Compression in one kernel: states are read once and written once, everything between happens in
 * shared memory, in float32.
 *
 * A block is a few complex columns (channels c and c + head_dim/2, compress.cuh) of one unit; a
 * column is in shared memory from its loading to its storing, in place, [slot][column]. Threads
 * are butterflies: neighbours take neighbouring columns, then neighbouring rows, so that a warp's
 * accesses are consecutive. The steps, a barrier between any two:
 *
 *   load      slots in Makhoul's order (kernels/dct/dct.c), keys un-rotated
 *   forward   passes of decimation in frequency, natural order to digit-reversed order
 *   truncate  spectrum rows t, n - t, L - t, n - L + t, at their digit-reversed rows, become rows t
 *             and L - t of the L-point spectrum; threads hold results in registers until all have
 *             read
 *   inverse   passes of decimation in time, digit-reversed order to natural order (the transposed
 *             forward transform)
 *   store     rotated and rounded
 *
 * In place, a pass needs no second copy and no registers beyond its own butterfly; that is why
 * orders are reversed rather than sorted (Stockham).
 *
 * Which lengths, how many columns and threads, and why rows are kept apart: compress_plan.cu. Some
 * 40 words spill around radix 31 and `truncate` (ptxas), which is less than those steps read from
 * shared memory by far. Angles: an angle at slot j is one of every 64th slot plus one of 64, both
 * tabulated per block from double; a product joins them.
 *
 * Arithmetic for n = 4092, L = 2046, 2048 units of 128 channels: 32,768 blocks, 248 per
 * multiprocessor. Shared memory moves 11 times 131 KB per block, 12,000 cycles at 128 bytes.
 * Instructions, as compiled for sm_90, per butterfly and warp: 1213 for radix 31, 297 for 11, 295
 * for 12, 160 for 6, half to five sixths of them arithmetic; 72,000 for the passes of a block and
 * some 27,000 for loading, `truncate` and storing are 25,000 cycles on four schedulers that never
 * stall, or 3.4 ms at 1.85 GHz. Loading takes 262 KB of 32-byte sectors per block from the
 * second-level cache, 8.6 GB in all or 1.5 ms; it goes past the first-level cache, where 85 KB of
 * tables (turns, frequency rows, last steps) then stay from block to block. A block fills a
 * multiprocessor, so between barriers little overlaps: 4 to 5 ms are likely against a floor of 0.75
 * for the bytes. Not measured. Radix 31 is a third of the instructions; what would shrink it is a
 * product with its cosines on tensor cores, in TF32 for a bf16 cache.
 *
 * Considered and not done: a persistent block that copies the next columns as they are (16 bits, 65
 * KB) while it computes, which would hide the loading; the first pass on the way in from memory,
 * which saves one trip through shared memory of eleven; 16-bit numbers in shared memory, which need
 * a common exponent. */
#include <string.h>

#include "kernels/cuda/compress_fused.cuh"
#include "kernels/cuda/dft.cuh"
#include <ptx/shared.cuh>

/* ---- passes ---- */

/* Which inputs or outputs of a pass are turned. */
enum turning { NOT_TURNED, OUTPUTS, INPUTS };

/* Element (row, column) of x in the transform's padded rows. */
static __device__ __forceinline__ int32_t at(int32_t row, int32_t column, int32_t padding,
                                             int32_t log_columns) {
    return ((row + (row >> padding)) << log_columns) + column;
}

/* Elements of a butterfly are `step` apart, which is the same for all: their addresses cost next to
 * nothing. */
template <int P, enum turning turning>
static __device__ __forceinline__ void butterflies(float2 *x, const struct fkv_cuda_transform &t,
                                                   const struct fkv_cuda_pass &pass,
                                                   int32_t log_columns) {
    int32_t m = turning == NOT_TURNED ? 1 : pass.m, count = t.length / P << log_columns;
    int32_t step = (turning == NOT_TURNED ? 1 : pass.stride) << log_columns;
    for (int32_t i = (int32_t)threadIdx.x; i < count; i += (int32_t)blockDim.x) {
        int32_t column = i & ((1 << log_columns) - 1), butterfly = i >> log_columns;
        int32_t run =
            turning == NOT_TURNED ? butterfly : (int32_t)((uint64_t)butterfly * pass.inverse >> 32);
        int32_t q = turning == NOT_TURNED ? 0 : butterfly - run * m, row = run * P * m + q;
        const float2 *turns = pass.turns + q;
        float2 v[P], *first = x + at(row, column, t.padding, log_columns);
#pragma unroll
        for (int k = 0; k < P; k++) {
            v[k] = first[k * step];
            if (turning == INPUTS && k) v[k] = fkv_cuda_times(v[k], __ldg(turns + (k - 1) * m));
        }
        fkv_cuda_dft<P>(v, [&](int k, float2 y) {
            if (turning == OUTPUTS && k) y = fkv_cuda_times(y, __ldg(turns + (k - 1) * m));
            first[k * step] = y;
        });
    }
}

template <int P>
static __device__ __forceinline__ void run_radix(float2 *x, const struct fkv_cuda_transform &t,
                                                 const struct fkv_cuda_pass &pass,
                                                 int32_t log_columns, bool inverse) {
    if (pass.m == 1)
        butterflies<P, NOT_TURNED>(x, t, pass, log_columns);
    else if (inverse)
        butterflies<P, INPUTS>(x, t, pass, log_columns);
    else
        butterflies<P, OUTPUTS>(x, t, pass, log_columns);
}

static __device__ __forceinline__ void run_pass(float2 *x, const struct fkv_cuda_transform &t,
                                                int32_t index, int32_t log_columns, bool inverse) {
    const struct fkv_cuda_pass &pass = t.pass[index];
    switch (pass.p) {
    case 2: return run_radix<2>(x, t, pass, log_columns, inverse);
    case 3: return run_radix<3>(x, t, pass, log_columns, inverse);
    case 4: return run_radix<4>(x, t, pass, log_columns, inverse);
    case 5: return run_radix<5>(x, t, pass, log_columns, inverse);
    case 6: return run_radix<6>(x, t, pass, log_columns, inverse);
    case 7: return run_radix<7>(x, t, pass, log_columns, inverse);
    case 8: return run_radix<8>(x, t, pass, log_columns, inverse);
    case 9: return run_radix<9>(x, t, pass, log_columns, inverse);
    case 10: return run_radix<10>(x, t, pass, log_columns, inverse);
    case 11: return run_radix<11>(x, t, pass, log_columns, inverse);
    case 12: return run_radix<12>(x, t, pass, log_columns, inverse);
    case 13: return run_radix<13>(x, t, pass, log_columns, inverse);
    case 15: return run_radix<15>(x, t, pass, log_columns, inverse);
    case 16: return run_radix<16>(x, t, pass, log_columns, inverse);
    case 17: return run_radix<17>(x, t, pass, log_columns, inverse);
    case 19: return run_radix<19>(x, t, pass, log_columns, inverse);
    case 23: return run_radix<23>(x, t, pass, log_columns, inverse);
    case 29: return butterflies<29, NOT_TURNED>(x, t, pass, log_columns);
    case 31: return butterflies<31, NOT_TURNED>(x, t, pass, log_columns);
    }
}

/* The columns of a block. */
struct columns {
    int32_t unit, first, count; /* of the unit's head_dim / 2 */
    bool turned;
    const float2 *far, *near; /* [..][columns] angles of every 64th slot from `position` on, and of
                                 slots 0 .. 63 */
};

template <int C>
static __device__ __forceinline__ float2 angle_of(const struct columns &g, int32_t slot, int c) {
    return fkv_cuda_times(g.far[slot / FKV_CUDA_NEAR * C + c],
                          g.near[slot % FKV_CUDA_NEAR * C + c]);
}

template <typename T, int C> struct alignas(sizeof(T) * C < 16 ? sizeof(T) * C : 16) several {
    T x[C];
};

/* What one load takes of several numbers. */
template <size_t bytes> struct word { typedef uint4 type; };
template <> struct word<4> { typedef uint32_t type; };
template <> struct word<8> { typedef uint2 type; };

/* Not through the first-level cache: the rest of a sector is for other blocks, and the tables would
 * be lost. */
template <typename T, int C>
static __device__ __forceinline__ void read_several(const T *from, bool whole, int32_t count,
                                                    struct several<T, C> *to) {
    if (whole) {
        typedef typename word<sizeof *to>::type word;
#pragma unroll
        for (size_t i = 0; i < sizeof *to / sizeof(word); i++) {
            word w = __ldcg((const word *)from + i);
            memcpy((char *)to + i * sizeof w, &w, sizeof w);
        }
        return;
    }
#pragma unroll
    for (int c = 0; c < C; c++) to->x[c] = c < count ? from[c] : fkv_cuda_from_float<T>(0.0f);
}

/* `whole`: the block's columns are C and their addresses multiples of their size. Returns the sum
 * of squares where it is asked for. */
template <typename T, int C>
static __device__ __forceinline__ double load(const struct fkv_cuda_compression &call,
                                              const struct columns &g, bool whole,
                                              const struct fkv_cuda_transform &t, float2 *x) {
    enum { AT_ONCE = 4 };
    int32_t half = call.head_dim / 2, n = t.length;
    const T *states = fkv_cuda_unit_states<T>(call, g.unit) + g.first;
    double sum = 0;
    for (int32_t first = (int32_t)threadIdx.x; first < n; first += AT_ONCE * (int32_t)blockDim.x) {
        struct several<T, C> a[AT_ONCE], b[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int32_t index = first + i * (int32_t)blockDim.x;
            if (index >= n) continue;
            const T *row = states + (size_t)fkv_cuda_token_at(index, n) * (size_t)call.head_dim;
            read_several(row, whole, g.count, &a[i]);
            read_several(row + half, whole, g.count, &b[i]);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int32_t index = first + i * (int32_t)blockDim.x;
            if (index >= n) continue;
#pragma unroll
            for (int c = 0; c < C; c++) {
                float2 z = make_float2(fkv_cuda_to_float(a[i].x[c]), fkv_cuda_to_float(b[i].x[c]));
                if (call.energy) sum += fkv_cuda_square(z);
                if (g.turned)
                    z = fkv_cuda_times_conjugate(z, angle_of<C>(g, fkv_cuda_token_at(index, n), c));
                x[(index + (index >> t.padding)) * C + c] = z;
            }
        }
    }
    return sum;
}

template <typename T, int C>
static __device__ __forceinline__ void store(const struct fkv_cuda_compression &call,
                                             const struct columns &g, bool whole,
                                             const struct fkv_cuda_transform &t, const float2 *x) {
    int32_t half = call.head_dim / 2, n = t.length;
    T *states = fkv_cuda_unit_states<T>(call, g.unit) + g.first;
    for (int32_t index = (int32_t)threadIdx.x; index < n; index += (int32_t)blockDim.x) {
        int32_t slot = fkv_cuda_token_at(index, n);
        struct several<T, C> a, b;
#pragma unroll
        for (int c = 0; c < C; c++) {
            float2 v = x[(index + (index >> t.padding)) * C + c], z = make_float2(v.y, v.x);
            if (g.turned) z = fkv_cuda_times(z, angle_of<C>(g, slot, c));
            a.x[c] = fkv_cuda_from_float<T>(z.x);
            b.x[c] = fkv_cuda_from_float<T>(z.y);
        }
        T *row = states + (size_t)slot * (size_t)call.head_dim;
        if (whole) {
            *(struct several<T, C> *)row = a;
            *(struct several<T, C> *)(row + half) = b;
            continue;
        }
#pragma unroll
        for (int c = 0; c < C; c++)
            if (c < g.count) row[c] = a.x[c], row[half + c] = b.x[c];
    }
}

/* Spectrum of n -> spectrum of L, in place; returns the energy of the coefficients where it is
 * asked for. */
static __device__ __forceinline__ double truncate(const struct fkv_cuda_plan &f, bool sum_up,
                                                  float2 *x) {
    int32_t n = f.forward.length, retained = f.inverse.length, log_columns = f.log_columns;
    int32_t count = (retained / 2 + 1) << log_columns;
    struct fkv_cuda_two held[FKV_CUDA_HELD];
    double sum = 0;
#pragma unroll
    for (int i = 0; i < FKV_CUDA_HELD; i++) {
        int32_t item = (int32_t)(threadIdx.x + (unsigned)i * blockDim.x);
        int32_t t = item >> log_columns, column = item & ((1 << log_columns) - 1), u = retained - t;
        if (item >= count) continue;
        auto row = [&](int32_t frequency) {
            return x[(f.forward.frequency_row[frequency] << log_columns) + column];
        };
        float2 y = fkv_cuda_coefficient(row(t), row(t ? n - t : 0), f.last_n[t]),
               mirror = make_float2(0, 0);
        if (t) mirror = fkv_cuda_coefficient(row(u), row(n - u), f.last_n[u]);
        if (sum_up) sum += fkv_cuda_square(y) + (t && u != t ? fkv_cuda_square(mirror) : 0);
        held[i] = fkv_cuda_pack(y, mirror, f.last_l[t]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < FKV_CUDA_HELD; i++) {
        int32_t item = (int32_t)(threadIdx.x + (unsigned)i * blockDim.x);
        int32_t t = item >> log_columns, column = item & ((1 << log_columns) - 1);
        if (item >= count) continue;
        x[(f.inverse.frequency_row[t] << log_columns) + column] = held[i].row;
        if (t) x[(f.inverse.frequency_row[retained - t] << log_columns) + column] = held[i].mirror;
    }
    return sum;
}

static __device__ void fill_angles(const struct fkv_cuda_compression &call, const struct columns &g,
                                   int32_t log_columns, float2 *far, float2 *near) {
    int32_t coarse = call.n / FKV_CUDA_NEAR + 1;
    double position = call.items[g.unit / 2].position;
    for (int32_t i = (int32_t)threadIdx.x; i < (coarse + FKV_CUDA_NEAR) << log_columns;
         i += (int32_t)blockDim.x) {
        int32_t row = i >> log_columns, column = i & ((1 << log_columns) - 1);
        double frequency = call.frequencies[g.first + (column < g.count ? column : 0)];
        if (row < coarse)
            far[i] = fkv_cuda_angle(position + row * FKV_CUDA_NEAR, frequency);
        else
            near[i - (coarse << log_columns)] = fkv_cuda_angle(row - coarse, frequency);
    }
}

/* load and store for the block's dtype and number of columns; everything between is the same for
 * all. */
template <int C>
static __device__ __forceinline__ double load_columns(const struct fkv_cuda_compression &call,
                                                      const struct columns &g,
                                                      const struct fkv_cuda_transform &t,
                                                      float2 *x) {
    bool whole = call.aligned && call.head_dim / 2 % C == 0;
    if (call.cache.dtype == FKV_F32) return load<float, C>(call, g, whole, t, x);
    if (call.cache.dtype == FKV_F16) return load<__half, C>(call, g, whole, t, x);
    return load<__nv_bfloat16, C>(call, g, whole, t, x);
}

template <int C>
static __device__ __forceinline__ void store_columns(const struct fkv_cuda_compression &call,
                                                     const struct columns &g,
                                                     const struct fkv_cuda_transform &t,
                                                     const float2 *x) {
    bool whole = call.aligned && call.head_dim / 2 % C == 0;
    if (call.cache.dtype == FKV_F32)
        store<float, C>(call, g, whole, t, x);
    else if (call.cache.dtype == FKV_F16)
        store<__half, C>(call, g, whole, t, x);
    else
        store<__nv_bfloat16, C>(call, g, whole, t, x);
}

/* grid: for each unit its groups of columns, call.parts of them */
static __global__ void __launch_bounds__(FKV_CUDA_FUSED_THREADS)
    fused_kernel(struct fkv_cuda_compression call, const struct fkv_cuda_plan *plan) {
    const struct fkv_cuda_plan &f = *plan;
    int32_t log_columns = f.log_columns, columns = 1 << log_columns,
            unit = (int32_t)blockIdx.x / call.parts;
    int32_t first = (int32_t)blockIdx.x % call.parts * columns;
    int32_t left = call.head_dim / 2 - first, passes = f.forward.passes,
            all = passes + f.inverse.passes;
    float2 *far = (float2 *)ptx_dynamic_shared(),
           *near = far + ((call.n / FKV_CUDA_NEAR + 1) << log_columns);
    float2 *x = near + (FKV_CUDA_NEAR << log_columns);
    struct columns g = {unit, first, left < columns ? left : columns, unit % 2 == 0, far, near};
    if (g.turned) fill_angles(call, g, log_columns, far, near);
    __syncthreads();
    double before = log_columns == 3   ? load_columns<8>(call, g, f.forward, x)
                    : log_columns == 2 ? load_columns<4>(call, g, f.forward, x)
                                       : load_columns<2>(call, g, f.forward, x);
    double kept = 0;
    for (int32_t i = 0; i <= all; i++) { /* one call site: the passes are long code when inlined */
        __syncthreads();
        if (i == passes)
            kept = truncate(f, call.energy, x);
        else
            run_pass(x, i < passes ? f.forward : f.inverse, i < passes ? i : all - i, log_columns,
                     i > passes);
    }
    __syncthreads();
    if (log_columns == 3)
        store_columns<8>(call, g, f.inverse, x);
    else if (log_columns == 2)
        store_columns<4>(call, g, f.inverse, x);
    else
        store_columns<2>(call, g, f.inverse, x);
    if (!call.energy) return;
    before = fkv_cuda_block_sum(before);
    kept = fkv_cuda_block_sum(kept);
    if (threadIdx.x == 0) {
        double *part = call.energy + 2 * (size_t)blockIdx.x;
        part[0] = before;
        part[1] = kept;
    }
}

int fkv_cuda_fused_run(struct fkv_backend *b, const struct fkv_cuda_fused *f,
                       const struct fkv_cuda_compression *c, struct fkv_error *err) {
    return fkv_cuda_launch(
        b, "compress", fused_kernel, dim3((unsigned)c->parts * (unsigned)c->units),
        dim3((unsigned)f->threads), f->shared, err, *c, (const struct fkv_cuda_plan *)f->tables);
}
