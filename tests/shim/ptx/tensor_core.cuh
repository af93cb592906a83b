/* Twin of kernels/cuda/ptx/tensor_core.cuh: fragments gathered into whole matrices by the layouts
 * of the PTX ISA, multiplied, and dealt out again. Products of 16-bit factors are exact in float32;
 * sums run over k in order, where the hardware leaves order and rounding open. */
#ifndef FKV_SHIM_PTX_TENSOR_CORE_CUH
#define FKV_SHIM_PTX_TENSOR_CORE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

struct shim_product {
    float *d;
    const uint32_t *a, *b;
};

template <typename T> static inline float shim_half_of(uint32_t pair, int which) {
    T x;
    uint16_t bits = (uint16_t)(pair >> 16 * which);
    memcpy(&x, &bits, 2);
    return (float)x;
}

template <typename T> static void shim_multiply(void *const mine[SHIM_LANES]) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < SHIM_LANES; lane++) {
        const shim_product *p = (const shim_product *)mine[lane];
        if (!p)
            shim_fault("mma.sync in a warp without all its lanes: lane %d does not exist", lane);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 2; i++) {
            for (int r = 0; r < 4; r++)
                a[g + 8 * (r & 1)][2 * t + 8 * (r >> 1) + i] = shim_half_of<T>(p->a[r], i);
            for (int r = 0; r < 2; r++) b[2 * t + 8 * r + i][g] = shim_half_of<T>(p->b[r], i);
            for (int r = 0; r < 2; r++) d[g + 8 * r][2 * t + i] = p->d[2 * r + i];
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < SHIM_LANES; lane++)
        for (int i = 0; i < 4; i++)
            ((const shim_product *)mine[lane])->d[i] =
                d[lane / 4 + 8 * (i >> 1)][lane % 4 * 2 + (i & 1)];
}

static inline void ptx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    shim_product mine = {d, a, b};
    shim_meet(shim_multiply<__nv_bfloat16>, &mine);
}

static inline void ptx_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    shim_product mine = {d, a, b};
    shim_meet(shim_multiply<__half>, &mine);
}

struct shim_rows {
    uint32_t *r;
    const void *row;
};

template <bool transposed> static void shim_load_matrices(void *const mine[SHIM_LANES]) {
    for (int lane = 0; lane < SHIM_LANES; lane++) {
        const shim_rows *to = (const shim_rows *)mine[lane];
        if (!to)
            shim_fault("ldmatrix in a warp without all its lanes: lane %d does not exist", lane);
        if ((uintptr_t)to->row % 16)
            shim_fault("ldmatrix: lane %d: row %p is not 16-byte aligned", lane, to->row);
        if (!shim_is_shared(to->row, 16))
            shim_fault("ldmatrix: lane %d: row %p is not shared memory", lane, to->row);
    }
    for (int lane = 0; lane < SHIM_LANES; lane++)
        for (int m = 0; m < 4; m++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                int row = transposed ? lane % 4 * 2 + i : lane / 4,
                    column = transposed ? lane / 4 : lane % 4 * 2 + i;
                memcpy(&pair[i],
                       (const char *)((const shim_rows *)mine[8 * m + row])->row + 2 * column, 2);
            }
            ((const shim_rows *)mine[lane])->r[m] = pair[0] | (uint32_t)pair[1] << 16;
        }
}

static inline void ptx_ldmatrix(uint32_t r[4], const void *row) {
    shim_rows mine = {r, row};
    shim_meet(shim_load_matrices<false>, &mine);
}

static inline void ptx_ldmatrix_transposed(uint32_t r[4], const void *row) {
    shim_rows mine = {r, row};
    shim_meet(shim_load_matrices<true>, &mine);
}

#endif
