/* The CUDA module's ways to compress, for the test and the benchmark that name them
 * (kernels/cuda/methods.h). */
#ifndef FKV_TESTS_CUDA_METHODS_H
#define FKV_TESTS_CUDA_METHODS_H

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/cuda/methods.h"

static const char *const cuda_method_names[FKV_CUDA_METHODS] = {"fused", "product", "fft"};

struct cuda_methods {
    fkv_cuda_map_dct_by_function *map_dct_by;
    fkv_cuda_map_method_function *map_method;
};

/* The module that a table came from is loaded already and stays so; false where the table is not
 * CUDA's. */
static inline bool cuda_methods_of(const struct fkv_backend_ops *ops, struct cuda_methods *out) {
    Dl_info where;
    *out = (struct cuda_methods){0};
    if (strcmp(ops->name, "cuda") != 0 || !dladdr((const void *)ops, &where)) return false;
    void *module = dlopen(where.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    if (!module) return false;
    *(void **)&out->map_dct_by = dlsym(module, "fkv_cuda_map_dct_by");
    *(void **)&out->map_method = dlsym(module, "fkv_cuda_map_method");
    dlclose(module);
    return out->map_dct_by && out->map_method;
}

#endif
