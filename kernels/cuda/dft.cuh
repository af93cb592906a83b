/* The DFT of a few complex numbers held by one thread, X_k = sum_r x_r exp(-2 pi i r k / p), p
 * known when compiled. Roots of unity become immediate operands.
 *
 * Factors 2 and 4 are written out. An odd prime pairs x_r with x_(p-r): sums meet only cosines and
 * differences only sines, (p-1)^2 multiply-adds instead of four times as many (kernels/dct/dct.c
 * has the same). Other numbers split in two, p = a b (Cooley and Tukey 1965). Outputs leave through
 * `emit(k, X_k)` as soon as they are there, so that a large prime needs registers for its inputs
 * alone. */
#ifndef FKV_KERNELS_CUDA_DFT_CUH
#define FKV_KERNELS_CUDA_DFT_CUH

#include <cuda_runtime.h>

template <int P> struct fkv_cuda_roots { float cosine[P], sine[P]; /* of 2 pi k / P */ };

__host__ __device__ constexpr double fkv_cuda_series(double x, bool sine) {
    double term = sine ? x : 1, sum = term;
    for (int i = sine ? 2 : 1; i < 40; i += 2) {
        term *= -x * x / (i * (i + 1));
        sum += term;
    }
    return sum;
}

template <int P> __host__ __device__ constexpr fkv_cuda_roots<P> fkv_cuda_make_roots() {
    fkv_cuda_roots<P> roots = {};
    for (int k = 0; k < P; k++) {
        double angle = 6.283185307179586476925 * (2 * k > P ? k - P : k) / P;
        roots.cosine[k] = (float)fkv_cuda_series(angle, false);
        roots.sine[k] = (float)fkv_cuda_series(angle, true);
    }
    return roots;
}

/* The first factor of a composite p; p itself where it is prime. */
__host__ __device__ constexpr int fkv_cuda_first_factor(int p) {
    if (p % 4 == 0) return 4;
    for (int a = 2; a * a <= p; a++)
        if (p % a == 0) return a;
    return p;
}

template <int P, typename Emit>
__device__ __forceinline__ void fkv_cuda_dft(float2 (&x)[P], Emit emit) {
    constexpr int A = fkv_cuda_first_factor(P);
    if constexpr (P == 2) {
        emit(0, make_float2(x[0].x + x[1].x, x[0].y + x[1].y));
        emit(1, make_float2(x[0].x - x[1].x, x[0].y - x[1].y));
    } else if constexpr (P == 4) {
        float2 a = make_float2(x[0].x + x[2].x, x[0].y + x[2].y),
               b = make_float2(x[1].x + x[3].x, x[1].y + x[3].y);
        float2 c = make_float2(x[0].x - x[2].x, x[0].y - x[2].y),
               d = make_float2(x[1].x - x[3].x, x[1].y - x[3].y);
        emit(0, make_float2(a.x + b.x, a.y + b.y));
        emit(1, make_float2(c.x + d.y, c.y - d.x));
        emit(2, make_float2(a.x - b.x, a.y - b.y));
        emit(3, make_float2(c.x - d.y, c.y + d.x));
    } else if constexpr (A == P) {
        constexpr fkv_cuda_roots<P> w = fkv_cuda_make_roots<P>();
        float2 sum = x[0];
#pragma unroll
        for (int r = 1; r <= P / 2; r++) { /* sums below, differences above */
            float2 a = x[r], b = x[P - r];
            x[r] = make_float2(a.x + b.x, a.y + b.y);
            x[P - r] = make_float2(a.x - b.x, a.y - b.y);
            sum = make_float2(sum.x + x[r].x, sum.y + x[r].y);
        }
        emit(0, sum);
#pragma unroll
        for (int k = 1; k <= P / 2; k++) {
            float2 c = x[0], s = make_float2(0, 0);
#pragma unroll
            for (int r = 1; r <= P / 2; r++) {
                c.x = fmaf(x[r].x, w.cosine[r * k % P], c.x);
                c.y = fmaf(x[r].y, w.cosine[r * k % P], c.y);
                s.x = fmaf(x[P - r].x, w.sine[r * k % P], s.x);
                s.y = fmaf(x[P - r].y, w.sine[r * k % P], s.y);
            }
            emit(k, make_float2(c.x + s.y, c.y - s.x));
            emit(P - k, make_float2(c.x - s.y, c.y + s.x));
        }
    } else { /* r = B a + b, k = ka + A kb */
        constexpr int B = P / A;
        constexpr fkv_cuda_roots<P> w = fkv_cuda_make_roots<P>();
        float2 inner[A][B];
#pragma unroll
        for (int b = 0; b < B; b++) {
            float2 part[A];
#pragma unroll
            for (int a = 0; a < A; a++) part[a] = x[B * a + b];
            fkv_cuda_dft<A>(part, [&](int ka, float2 y) {
                int turn = b * ka;
                inner[ka][b] = turn == 0 ? y
                                         : make_float2(y.x * w.cosine[turn] + y.y * w.sine[turn],
                                                       y.y * w.cosine[turn] - y.x * w.sine[turn]);
            });
        }
#pragma unroll
        for (int ka = 0; ka < A; ka++)
            fkv_cuda_dft<B>(inner[ka], [&](int kb, float2 y) { emit(ka + A * kb, y); });
    }
}

#endif
