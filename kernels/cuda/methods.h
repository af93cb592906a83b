/* The three ways in which the CUDA backend compresses (compress.cu has the rule that chooses), for
 * benchmarks and tests that compare them. No CUDA header is needed here. */
#ifndef FKV_KERNELS_CUDA_METHODS_H
#define FKV_KERNELS_CUDA_METHODS_H

#include "kernels/kernels.h"

enum fkv_cuda_method {
    FKV_CUDA_FUSED,   /* one kernel, states read and written once; n and L of small prime factors */
    FKV_CUDA_PRODUCT, /* matrix products with the folded operator */
    FKV_CUDA_FFT,     /* cuFFT; any size */
    FKV_CUDA_METHODS
};

/* map_dct with the method given instead of chosen; FKV_FAILED where it does not apply. The module
 * exports it by this name. */
typedef int fkv_cuda_map_dct_by_function(struct fkv_backend *b, int32_t n, int32_t retained,
                                         double gain, enum fkv_cuda_method method,
                                         struct fkv_map **out, struct fkv_error *err);

/* The method that a map made by map_dct uses on a cache of this dtype; exported by this name. */
typedef enum fkv_cuda_method fkv_cuda_map_method_function(const struct fkv_map *map,
                                                          enum fkv_dtype dtype);

#endif
