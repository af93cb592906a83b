/* Tensor-core products and the loads that feed them, one warp at a time (PTX ISA, "Warp Level
 * Matrix Instructions"). A test-only twin of this header computes the same without the hardware, so
 * what a kernel does with its fragments can be checked anywhere.
 *
 * Fragments of m16n8k16, lane = 4 g + t (g = 0..7, t = 0..3): a [16 x 16] row-major: a0 = (g,
 * 2t..2t+1), a1 = (g+8, 2t..), a2 = (g, 2t+8..), a3 = (g+8, 2t+8..); b [16 x 8]: b0 = rows 2t..2t+1
 * of column g, b1 = rows 2t+8..2t+9; d [16 x 8] float32: d0, d1 = (g, 2t..2t+1), d2, d3 = (g+8,
 * 2t..). */
#ifndef FKV_KERNELS_CUDA_PTX_TENSOR_CORE_CUH
#define FKV_KERNELS_CUDA_PTX_TENSOR_CORE_CUH

#include <cuda_runtime.h>
#include <stdint.h>

/* d += a b */
__device__ inline void ptx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void ptx_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices of 16-bit elements from shared memory: lane i gives the address (16-byte
 * aligned) of row i % 8 of matrix i / 8; r[m] then holds elements 2t, 2t+1 of row g of matrix m.
 * `transposed`: of column g. */
__device__ inline void ptx_ldmatrix(uint32_t r[4], const void *row) {
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ inline void ptx_ldmatrix_transposed(uint32_t r[4], const void *row) {
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

#endif
