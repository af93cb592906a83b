/* What device code sees: vector types with the alignment a GPU demands, indices, barriers,
 * shuffles, atomics, and the arithmetic that C++ lacks. Every collective is one meeting (shim_meet,
 * block.cc): each lane leaves the address of its part, and the lane that comes last serves all of
 * them. */
#ifndef FKV_SHIM_DEVICE_H
#define FKV_SHIM_DEVICE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
/* Thread-local so that block.cc finds all of it in one place and can fill it with NaN before each
 * block. */
#define __shared__ static thread_local

#define SHIM_VECTOR2(name, type, alignment)                                                        \
    struct __align__(alignment) name {                                                             \
        type x, y;                                                                                 \
    };                                                                                             \
    static inline name make_##name(type x, type y) { return {x, y}; }
#define SHIM_VECTOR3(name, type)                                                                   \
    struct name {                                                                                  \
        type x, y, z;                                                                              \
    };                                                                                             \
    static inline name make_##name(type x, type y, type z) { return {x, y, z}; }
#define SHIM_VECTOR4(name, type, alignment)                                                        \
    struct __align__(alignment) name {                                                             \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

SHIM_VECTOR2(char2, signed char, 2)
SHIM_VECTOR4(char4, signed char, 4)
SHIM_VECTOR2(uchar2, unsigned char, 2)
SHIM_VECTOR4(uchar4, unsigned char, 4)
SHIM_VECTOR2(short2, short, 4)
SHIM_VECTOR4(short4, short, 8)
SHIM_VECTOR2(ushort2, unsigned short, 4)
SHIM_VECTOR4(ushort4, unsigned short, 8)
SHIM_VECTOR2(int2, int, 8)
SHIM_VECTOR3(int3, int)
SHIM_VECTOR4(int4, int, 16)
SHIM_VECTOR2(uint2, unsigned, 8)
SHIM_VECTOR3(uint3, unsigned)
SHIM_VECTOR4(uint4, unsigned, 16)
SHIM_VECTOR2(float2, float, 8)
SHIM_VECTOR3(float3, float)
SHIM_VECTOR4(float4, float, 16)
SHIM_VECTOR2(double2, double, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

/* ---- where a thread stands; set by block.cc whenever it lets a thread run ---- */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

/* ---- meetings (block.cc) ---- */
enum { SHIM_LANES = 32 };
/* Meets the other lanes of the warp. `mine` [i] of lanes that do not exist (the tail of a block
 * that is no multiple of 32) is NULL. */
typedef void (*shim_serve)(void *const mine[SHIM_LANES]);
void shim_meet(shim_serve serve, void *mine);
/* Ends the launch with a message, as a fault on the device would. */
[[noreturn]] void shim_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool shim_is_shared(const void *address, size_t bytes);
unsigned shim_lane();
void shim_copy_async(void *shared, const void *global, bool valid);
void shim_copy_commit();
void shim_copy_wait(int pending);
char *shim_dynamic_shared();

void __syncthreads();

static inline void shim_require_all(unsigned mask) {
    if (mask != 0xffffffffu)
        shim_fault("a collective with mask %08x; only whole warps are supported", mask);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    shim_require_all(mask);
    shim_meet([](void *const *) {}, &mask);
}

/* Lane i takes the value of lane source[i]; a lane outside its segment of `width` lanes takes its
 * own, as the hardware does. */
template <typename T> struct shim_shuffle {
    T value, result;
    unsigned source;
    static void serve(void *const mine[SHIM_LANES]) {
        for (int lane = 0; lane < SHIM_LANES; lane++) {
            shim_shuffle *to = (shim_shuffle *)mine[lane];
            if (!to) continue;
            const shim_shuffle *from = (const shim_shuffle *)mine[to->source];
            if (!from)
                shim_fault("lane %d shuffles from lane %u, which does not exist", lane, to->source);
            to->result = from->value;
        }
    }
};

template <typename T> static inline T shim_shuffle_from(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2,
                  "shuffles move 2, 4 or 8 bytes");
    shim_require_all(mask);
    shim_shuffle<T> mine = {value, value, source};
    shim_meet(shim_shuffle<T>::serve, &mine);
    return mine.result;
}

template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    unsigned first = shim_lane() & ~(unsigned)(width - 1);
    return shim_shuffle_from(mask, value, first + ((unsigned)source & (unsigned)(width - 1)));
}

template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    unsigned lane = shim_lane(), source = lane ^ (unsigned)lanes,
             end = (lane & ~(unsigned)(width - 1)) + (unsigned)width;
    return shim_shuffle_from(mask, value, source < end ? source : lane);
}

template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned lane = shim_lane(), end = (lane & ~(unsigned)(width - 1)) + (unsigned)width;
    return shim_shuffle_from(mask, value, lane + by < end ? lane + by : lane);
}

template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned lane = shim_lane(), first = lane & ~(unsigned)(width - 1);
    return shim_shuffle_from(mask, value, lane >= first + by ? lane - by : lane);
}

struct shim_vote {
    bool mine;
    unsigned all;
    static void serve(void *const mine[SHIM_LANES]) {
        unsigned all = 0;
        for (int lane = 0; lane < SHIM_LANES; lane++)
            if (mine[lane] && ((const shim_vote *)mine[lane])->mine) all |= 1u << lane;
        for (int lane = 0; lane < SHIM_LANES; lane++)
            if (mine[lane]) ((shim_vote *)mine[lane])->all = all;
    }
};

static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    shim_require_all(mask);
    shim_vote mine = {predicate != 0, 0};
    shim_meet(shim_vote::serve, &mine);
    return mine.all;
}
static inline int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, !predicate) == 0;
}

/* ---- atomics: threads run one at a time, so plain arithmetic is atomic here ---- */
template <typename T> static inline T shim_exchange(T *at, T value) {
    T old = *at;
    *at = value;
    return old;
}
template <typename T> static inline T atomicAdd(T *at, std::common_type_t<T> value) {
    return shim_exchange(at, (T)(*at + value));
}
template <typename T> static inline T atomicMax(T *at, std::common_type_t<T> value) {
    return shim_exchange(at, *at < value ? value : *at);
}
template <typename T> static inline T atomicMin(T *at, std::common_type_t<T> value) {
    return shim_exchange(at, value < *at ? value : *at);
}
template <typename T> static inline T atomicOr(T *at, std::common_type_t<T> value) {
    return shim_exchange(at, (T)(*at | value));
}
template <typename T> static inline T atomicExch(T *at, std::common_type_t<T> value) {
    return shim_exchange(at, value);
}
template <typename T>
static inline T atomicCAS(T *at, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return shim_exchange(at, *at == expected ? value : *at);
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

/* ---- arithmetic ---- */
template <typename T> static inline T __ldg(const T *at) { return *at; }
template <typename T> static inline T __ldcg(const T *at) { return *at; }
template <typename A, typename B> static inline constexpr std::common_type_t<A, B> min(A a, B b) {
    return (std::common_type_t<A, B>)b < (std::common_type_t<A, B>)a ? b : a;
}
template <typename A, typename B> static inline constexpr std::common_type_t<A, B> max(A a, B b) {
    return (std::common_type_t<A, B>)a < (std::common_type_t<A, B>)b ? b : a;
}

/* Macros where the C library knows the name too, as it does or will. */
#define __expf expf
#define __logf logf
#define rsqrtf shim_rsqrtf
#define rsqrt shim_rsqrt
#define sinpi shim_sinpi
#define cospi shim_cospi
static inline float shim_rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double shim_rsqrt(double x) { return 1 / sqrt(x); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline float __double2float_rn(double x) { return (float)x; }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

/* Exact reduction first, as the hardware's functions do: x may be large. */
static inline void sincospi(double x, double *s, double *c) {
    x = remainder(x, 2);
    sincos(x * 3.14159265358979323846, s, c);
}
static inline void sincospif(float x, float *s, float *c) {
    double sine, cosine;
    sincospi(x, &sine, &cosine);
    *s = (float)sine, *c = (float)cosine;
}
static inline double shim_sinpi(double x) { return sin(remainder(x, 2) * 3.14159265358979323846); }
static inline double shim_cospi(double x) { return cos(remainder(x, 2) * 3.14159265358979323846); }

template <typename To, typename From> static inline To shim_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
static inline float __int_as_float(int x) { return shim_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return shim_bits<int>(x); }
static inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }

#endif
