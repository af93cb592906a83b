/* Which backend a name stands for, and where the CUDA backend comes from.
 *
 * CUDA is a module in the folder of the program and not a library that it links, so that one build
 * runs with and without a GPU, and so that a machine without one loads none of CUDA's libraries:
 * "auto" looks for the module only where NVIDIA's driver is, or where FKV_CUDA_MODULE is set. A
 * module stays loaded until the program ends; one built from another version of kernels.h is
 * refused before any other entry of its table is read. */
#include "kernels/kernels.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* $FKV_CUDA_MODULE, or freqkv-cuda.so in the folder of the running program. */
static int module_path(char path[PATH_MAX], struct fkv_error *err) {
    const char *chosen = getenv("FKV_CUDA_MODULE");
    if (chosen && *chosen) {
        /* A bare name would send dlopen through the library path. */
        int length = snprintf(path, PATH_MAX, "%s%s", strchr(chosen, '/') ? "" : "./", chosen);
        return length < PATH_MAX ? FKV_OK
                                 : fkv_fail(err, "FKV_CUDA_MODULE: longer than %d bytes", PATH_MAX);
    }
    static const char name[] = "freqkv-cuda.so";
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - sizeof name);
    if (length <= 0 ||
        length == (ssize_t)(PATH_MAX - sizeof name)) /* it may be longer: readlink cuts */
        return fkv_fail(err, "/proc/self/exe: cannot be read, or too long; set FKV_CUDA_MODULE");
    while (length && path[length - 1] != '/') length--;
    memcpy(path + length, name, sizeof name);
    return FKV_OK;
}

static int load_module(const struct fkv_backend_ops **out, struct fkv_error *err) {
    char path[PATH_MAX];
    if (module_path(path, err)) return FKV_FAILED;
    if (access(path, R_OK))
        return fkv_fail(
            err,
            "%s: no CUDA module here; install the CUDA toolkit (nvcc) and run ./run build, or set "
            "FKV_CUDA_MODULE to the module",
            path);
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module) return fkv_fail(err, "%s: cannot be loaded: %s", path, dlerror());
    const struct fkv_backend_ops *ops = dlsym(module, "fkv_cuda_backend");
    int status = FKV_OK;
    if (!ops)
        status =
            fkv_fail(err, "%s: not a module of this toolkit: it has no fkv_cuda_backend", path);
    else if (ops->abi != FKV_BACKEND_ABI)
        status = fkv_fail(
            err,
            "%s: built for version %u of the kernel contract, expected %d: build the toolkit again",
            path, ops->abi, FKV_BACKEND_ABI);
    else if (ops->probe(err))
        status = FKV_FAILED;
    if (status)
        dlclose(module);
    else
        *out = ops;
    return status;
}

/* Whether "auto" has anything to look for. */
static bool module_expected(void) {
    const char *chosen = getenv("FKV_CUDA_MODULE");
    return (chosen && *chosen) || access("/dev/nvidiactl", F_OK) == 0 ||
           access("/proc/driver/nvidia/version", F_OK) == 0;
}

#define TABLE_LINKED(name) &fkv_##name##_backend
#define TABLE_MODULE(name) NULL
#define BACKEND(name, note, where) {#name, TABLE_##where(name)},
static const struct {
    const char *name;
    const struct fkv_backend_ops *linked; /* NULL: in the module */
} backends[] = {FKV_BACKEND_ROWS(BACKEND)};

int fkv_backend_find(const char *name, const struct fkv_backend_ops **ops, struct fkv_error *why,
                     struct fkv_error *err) {
    if (why) why->message[0] = 0;
    if (!strcmp(name, "auto")) {
        if (module_expected() && load_module(ops, why) == FKV_OK) return FKV_OK;
        name = fkv_cpu_backend.name;
    }
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (strcmp(name, backends[i].name)) continue;
        if (!backends[i].linked) return load_module(ops, err);
        *ops = backends[i].linked;
        return FKV_OK;
    }
    return fkv_fail(err, "backend: expected one of " FKV_BACKEND_NAMES ", found \"%s\"", name);
}
