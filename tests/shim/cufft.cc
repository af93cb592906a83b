/* Discrete Fourier transforms with cuFFT's conventions: forward exp(-2 pi i jk / n), no scaling in
 * either direction, R2C gives n / 2 + 1 numbers, C2R takes as many and ignores the imaginary parts
 * of the first and, for even n, of the last. Arithmetic is double, by decimation in time over the
 * prime factors of n (Cooley and Tukey 1965): a pass of radix p costs n p, which serves the lengths
 * of the tests, primes included. The work area is demanded and filled with NaN, never needed. */
#include <cufft.h>

#include <complex>
#include <map>
#include <memory>
#include <vector>

#include "shim.h"

typedef std::complex<double> number;

struct layout {
    bool dense; /* strides not given: one transform after the other */
    long long stride, distance;
};

struct fft_plan {
    long long n = 0, batch = 0;
    layout in, out;
    cufftType type;
    cudaStream_t stream = NULL;
    bool allocates = true;
    char *work = NULL;
    std::vector<number> roots; /* exp(-2 pi i j / n) */
};

static std::map<cufftHandle, std::shared_ptr<fft_plan>> plans;

static fft_plan *find(cufftHandle handle) {
    auto found = plans.find(handle);
    return found == plans.end() ? NULL : found->second.get();
}

static size_t work_bytes(const fft_plan &p) {
    return (size_t)(p.n * p.batch) * sizeof(cufftComplex);
}

cufftResult cufftCreate(cufftHandle *out) {
    static cufftHandle next;
    *out = ++next;
    plans[*out] = std::make_shared<fft_plan>();
    return CUFFT_SUCCESS;
}

cufftResult cufftDestroy(cufftHandle handle) {
    return plans.erase(handle) ? CUFFT_SUCCESS : CUFFT_INVALID_PLAN;
}

cufftResult cufftSetStream(cufftHandle handle, cudaStream_t stream) {
    fft_plan *p = find(handle);
    if (p) p->stream = stream;
    return p ? CUFFT_SUCCESS : CUFFT_INVALID_PLAN;
}

cufftResult cufftSetAutoAllocation(cufftHandle handle, int on) {
    fft_plan *p = find(handle);
    if (p) p->allocates = on;
    return p ? CUFFT_SUCCESS : CUFFT_INVALID_PLAN;
}

cufftResult cufftSetWorkArea(cufftHandle handle, void *work) {
    fft_plan *p = find(handle);
    if (p) p->work = (char *)work;
    return p ? CUFFT_SUCCESS : CUFFT_INVALID_PLAN;
}

cufftResult cufftGetSize(cufftHandle handle, size_t *bytes) {
    fft_plan *p = find(handle);
    if (p) *bytes = work_bytes(*p);
    return p ? CUFFT_SUCCESS : CUFFT_INVALID_PLAN;
}

cufftResult cufftMakePlanMany64(cufftHandle handle, int rank, long long *n, long long *in_embed,
                                long long in_stride, long long in_distance, long long *out_embed,
                                long long out_stride, long long out_distance, cufftType type,
                                long long batch, size_t *bytes) {
    fft_plan *p = find(handle);
    if (!p) return CUFFT_INVALID_PLAN;
    if (rank != 1) return CUFFT_NOT_SUPPORTED;
    if (*n < 1 || batch < 1) return CUFFT_INVALID_SIZE;
    if (!shim_memory_left()) return CUFFT_ALLOC_FAILED;
    p->n = *n;
    p->batch = batch;
    p->type = type;
    p->in = {!in_embed, in_stride, in_distance};
    p->out = {!out_embed, out_stride, out_distance};
    p->roots.resize((size_t)*n);
    for (long long j = 0; j < *n; j++)
        p->roots[(size_t)j] = std::polar(1.0, -2 * M_PI * (double)j / (double)*n);
    *bytes = work_bytes(*p);
    return CUFFT_SUCCESS;
}

cufftResult cufftMakePlanMany(cufftHandle handle, int rank, int *n, int *in_embed, int in_stride,
                              int in_distance, int *out_embed, int out_stride, int out_distance,
                              cufftType type, int batch, size_t *bytes) {
    long long length = *n, in = in_embed ? *in_embed : 0, out = out_embed ? *out_embed : 0;
    return cufftMakePlanMany64(handle, rank, &length, in_embed ? &in : NULL, in_stride, in_distance,
                               out_embed ? &out : NULL, out_stride, out_distance, type, batch,
                               bytes);
}

cufftResult cufftPlanMany(cufftHandle *out, int rank, int *n, int *in_embed, int in_stride,
                          int in_distance, int *out_embed, int out_stride, int out_distance,
                          cufftType type, int batch) {
    size_t bytes;
    cufftResult status = cufftCreate(out);
    return status ? status
                  : cufftMakePlanMany(*out, rank, n, in_embed, in_stride, in_distance, out_embed,
                                      out_stride, out_distance, type, batch, &bytes);
}

cufftResult cufftMakePlan1d(cufftHandle handle, int n, cufftType type, int batch, size_t *bytes) {
    return cufftMakePlanMany(handle, 1, &n, NULL, 1, 0, NULL, 1, 0, type, batch, bytes);
}

cufftResult cufftPlan1d(cufftHandle *out, int n, cufftType type, int batch) {
    return cufftPlanMany(out, 1, &n, NULL, 1, 0, NULL, 1, 0, type, batch);
}

/* ---- the transform ---- */
/* Without the search for infinities that C++ demands of its operator. */
static number times(number a, number b) {
    return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

static size_t smallest_factor(size_t n) {
    for (size_t p = 2; p * p <= n; p++)
        if (n % p == 0) return p;
    return n;
}

/* x [n], `stride` apart -> y [n]; roots of the whole transform, of which this part uses every
 * `root_stride`-th. */
static void transform(const number *x, size_t n, size_t stride, number *y,
                      const std::vector<number> &roots, size_t root_stride) {
    if (n == 1) {
        *y = *x;
        return;
    }
    size_t radix = smallest_factor(n), m = n / radix;
    for (size_t r = 0; r < radix; r++)
        transform(x + r * stride, m, stride * radix, y + r * m, roots, root_stride * radix);
    std::vector<number> part(radix);
    for (size_t k = 0; k < m; k++) {
        for (size_t r = 0; r < radix; r++)
            part[r] = times(y[r * m + k], roots[r * k * root_stride]);
        for (size_t q = 0; q < radix; q++) {
            number sum = part[0];
            for (size_t r = 1; r < radix; r++)
                sum += times(part[r], roots[r * q % radix * m * root_stride]);
            y[q * m + k] = sum;
        }
    }
}

/* Numbers of one side of a transform, real or complex, T its component type. */
template <typename T> struct side {
    T *data;
    bool real;
    long long count, stride, distance; /* per transform; in elements */
    size_t at(long long batch, long long j) const {
        return (size_t)(batch * distance + j * stride) * (real ? 1 : 2);
    }
    bool on_device(long long batches, const char *what) const {
        size_t last = at(batches - 1, count - 1) + (real ? 1 : 2);
        if ((uintptr_t)data % (sizeof(T) * (real ? 1 : 2))) {
            shim_fail("%s is not aligned to its elements", what);
            return false;
        }
        return shim_device_range(data, last * sizeof(T), what);
    }
};

template <typename T>
static side<T> make_side(void *data, bool real, const layout &l, long long n, bool other_is_real,
                         bool in_place) {
    long long count = other_is_real ? n / 2 + 1 : n;
    long long dense = real && in_place ? 2 * (n / 2 + 1) : count;
    return {(T *)data, real, count, l.dense ? 1 : l.stride, l.dense ? dense : l.distance};
}

template <typename T>
static void execute(const fft_plan &p, void *in, void *out, bool in_real, bool out_real,
                    int direction) {
    side<T> x = make_side<T>(in, in_real, p.in, p.n, out_real, in == out);
    side<T> y = make_side<T>(out, out_real, p.out, p.n, in_real, in == out);
    if (!x.on_device(p.batch, "cuFFT: input") || !y.on_device(p.batch, "cuFFT: output")) return;
    size_t n = (size_t)p.n;
    std::vector<number> a(n * (size_t)p.batch), b(n);
    for (long long batch = 0; batch < p.batch; batch++)
        for (long long j = 0; j < x.count; j++) {
            const T *from = x.data + x.at(batch, j);
            a[(size_t)batch * n + (size_t)j] = {(double)from[0], in_real ? 0.0 : (double)from[1]};
        }
    for (long long batch = 0; batch < p.batch; batch++) {
        number *row = &a[(size_t)batch * n];
        if (out_real) {
            row[0] = row[0].real();
            if (n % 2 == 0) row[n / 2] = row[n / 2].real();
            for (size_t j = n / 2 + 1; j < n; j++) row[j] = std::conj(row[n - j]);
        }
        if (direction ==
            CUFFT_INVERSE) /* the conjugate of the forward transform of the conjugate */
            for (size_t j = 0; j < n; j++) row[j] = std::conj(row[j]);
        transform(row, n, 1, b.data(), p.roots, 1);
        for (long long j = 0; j < y.count; j++) {
            T *to = y.data + y.at(batch, j);
            to[0] = (T)b[(size_t)j].real();
            if (!out_real)
                to[1] =
                    (T)(direction == CUFFT_INVERSE ? -b[(size_t)j].imag() : b[(size_t)j].imag());
        }
    }
}

template <typename T>
static cufftResult issue(cufftHandle handle, cufftType type, void *in, void *out, bool in_real,
                         bool out_real, int direction) {
    auto found = plans.find(handle);
    if (found == plans.end() || found->second->type != type) return CUFFT_INVALID_PLAN;
    std::shared_ptr<fft_plan> p = found->second;
    if (!p->allocates && !p->work) return CUFFT_EXEC_FAILED;
    char *work = p->allocates ? NULL : p->work; /* as set when this is issued */
    cudaError_t status = shim_enqueue(p->stream, [=] {
        if (work && shim_device_range(work, work_bytes(*p), "cuFFT: work area"))
            memset(work, 0xff, work_bytes(*p));
        execute<T>(*p, in, out, in_real, out_real, direction);
    });
    return status ? CUFFT_EXEC_FAILED : CUFFT_SUCCESS;
}

cufftResult cufftExecC2C(cufftHandle plan, cufftComplex *in, cufftComplex *out, int direction) {
    return issue<float>(plan, CUFFT_C2C, in, out, false, false, direction);
}
cufftResult cufftExecR2C(cufftHandle plan, cufftReal *in, cufftComplex *out) {
    return issue<float>(plan, CUFFT_R2C, in, out, true, false, CUFFT_FORWARD);
}
cufftResult cufftExecC2R(cufftHandle plan, cufftComplex *in, cufftReal *out) {
    return issue<float>(plan, CUFFT_C2R, in, out, false, true, CUFFT_INVERSE);
}
cufftResult cufftExecZ2Z(cufftHandle plan, cufftDoubleComplex *in, cufftDoubleComplex *out,
                         int direction) {
    return issue<double>(plan, CUFFT_Z2Z, in, out, false, false, direction);
}
cufftResult cufftExecD2Z(cufftHandle plan, cufftDoubleReal *in, cufftDoubleComplex *out) {
    return issue<double>(plan, CUFFT_D2Z, in, out, true, false, CUFFT_FORWARD);
}
cufftResult cufftExecZ2D(cufftHandle plan, cufftDoubleComplex *in, cufftDoubleReal *out) {
    return issue<double>(plan, CUFFT_Z2D, in, out, false, true, CUFFT_INVERSE);
}
