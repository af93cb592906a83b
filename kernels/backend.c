/* Which backend a name stands for. "auto" is the CPU in a build without an accelerator module. */
#include "kernels/kernels.h"

#include <string.h>

static const struct fkv_backend_ops *const backends[] = {&fkv_cpu_backend, &fkv_reference_backend};

int fkv_backend_find(const char *name, const struct fkv_backend_ops **ops, struct fkv_error *err) {
    if (!strcmp(name, "auto")) name = "cpu";
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (!strcmp(name, backends[i]->name)) {
            *ops = backends[i];
            return FKV_OK;
        }
    if (!strcmp(name, "cuda")) return fkv_fail(err, "backend \"cuda\": this build has no CUDA module; use \"cpu\"");
    return fkv_fail(err, "backend: expected auto, cpu, cuda or reference, found \"%s\"", name);
}
