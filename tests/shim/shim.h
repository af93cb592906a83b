/* What the files of the shim share, and what its test looks at. */
#ifndef FKV_SHIM_SHIM_H
#define FKV_SHIM_SHIM_H

#include <stdarg.h>
#include <stdint.h>

#include <functional>

#include "cuda_runtime.h"

/* Runs a grid on the calling thread. false: a fault; `message` says which. */
bool shim_run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &thread,
                   char message[512]);

/* The order of everything that CUDA leaves open comes from this generator: FKV_SHIM_SEED, or the
 * clock, and then printed. */
uint32_t shim_random();
void shim_seed(uint64_t seed);

/* Issues work to a stream: runs some time before the next synchronisation, in order within its
 * stream. Inside a capture it is recorded instead. */
cudaError_t shim_enqueue(cudaStream_t stream, std::function<void()> work);
/* Called by work that runs: makes the device unusable until cudaDeviceReset, as a fault does. */
void shim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether there is device memory left for what asks for it by the way: a library's handle, a plan,
 * a graph, the code of a kernel that is launched for the first time. */
bool shim_memory_left();
/* Whether all of it lies in one allocation of device memory; what names it in the failure where
 * not. */
bool shim_device_range(const void *start, size_t bytes, const char *what);

#endif
