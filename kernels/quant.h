/* Rounding of cached states to a grid of 8 or 4 bits, to measure what a quantised cache costs a
 * model. The grids are ggml's Q8_0 and Q4_0 (quantize_row_q8_0_ref, quantize_row_q4_0_ref): a row
 * of channels in groups of 32, the last group with what is left; every group has a scale in
 * float16 and signed codes. With x the channel of largest magnitude,
 *
 *   q8   scale = |x| / 127, codes -127 .. 127, rounded half away from zero
 *   q4   scale = x / -8, codes -8 .. 7, rounded half up; what rounds to 8 becomes 7
 *
 * and a channel becomes scale * code. Codes are formed with the scale before it is rounded to
 * float16, as there. All arithmetic is float32 without fused operations, so that every backend
 * gives the same bits. A group whose scale rounds to 0 becomes 0. */
#ifndef FKV_KERNELS_QUANT_H
#define FKV_KERNELS_QUANT_H

#include <stddef.h>

enum fkv_quant { FKV_NO_QUANT, FKV_QUANT_Q8, FKV_QUANT_Q4 };
enum { FKV_QUANT_GROUP = 32 };

const char *fkv_quant_name(enum fkv_quant quant);             /* "none", "q8", "q4" */
int fkv_quant_parse(const char *name, enum fkv_quant *quant); /* FKV_OK or FKV_FAILED */

/* Bytes of a row of n channels in that format: 34 or 18 per whole group. Not for FKV_NO_QUANT. */
size_t fkv_quant_bytes(enum fkv_quant quant, size_t n);

/* The row x [n], rounded -> y [n], which may be x. Not for FKV_NO_QUANT. */
void fkv_quant_round(enum fkv_quant quant, const float *x, size_t n, float *y);

#endif
