/* Products of bfloat16 on AMX, where fkv_isa() is FKV_ISA_AMX. One core of a Xeon (Emerald Rapids),
 * 512 rows, with packing and storing, GFLOP/s, beside oneDNN 2.6 on panels of 64 whose output is
 * then copied to its place: weights 3072 x 576 930, 770; 576 x 1536 960, 740; 1024 x 4096 850, 570.
 */
#ifndef FKV_KERNELS_CPU_GEMM_AMX_H
#define FKV_KERNELS_CPU_GEMM_AMX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weight rows that a call takes best, and input rows that are packed at once. */
enum { FKV_AMX_PANEL = 96, FKV_AMX_ROWS = 16 };

/* Bytes of packed input, rounded up to whole tiles, two of them for rows. */
size_t fkv_amx_packed_bytes(int32_t rows, int32_t cols);
/* in [rows, cols], at most FKV_AMX_ROWS rows that begin at `row` of all, a multiple of
 * FKV_AMX_ROWS: rounded to bfloat16, to their place in `packed`. */
void fkv_amx_pack_rows(const float *in, int32_t rows, int32_t cols, int32_t row, void *packed);
/* Bytes that a call needs as scratch, for n weight rows. */
size_t fkv_amx_scratch_bytes(int32_t n, int32_t cols);
/* y [rows, n] = in w^T or += that, w [n, cols] bfloat16; the rows of y are `stride` apart. */
void fkv_amx_multiply(const void *packed, int32_t rows, const uint16_t *w, int32_t n, int32_t cols,
                      bool add, float *y, size_t stride, void *scratch);

#endif
