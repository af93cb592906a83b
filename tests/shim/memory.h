/* Between memory.cc and runtime.cc. */
#ifndef FKV_SHIM_MEMORY_H
#define FKV_SHIM_MEMORY_H

#include <mutex>

#include "shim.h"

/* One call into the runtime at a time, whichever host thread it comes from. */
extern std::recursive_mutex shim_mutex;
struct shim_lock {
    std::lock_guard<std::recursive_mutex> guard{shim_mutex};
};

/* What a call returns: `status`, or the failure of work that ran before; remembered for
 * cudaGetLastError. */
cudaError_t shim_status(cudaError_t status);
void shim_drain_all();

cudaError_t shim_allocate(void **out, size_t bytes);
int shim_device(); /* the calling thread's */
cudaError_t shim_release(void *start);
void shim_check_memory();  /* the guard zones of all allocations */
size_t shim_shared_most(); /* shared memory that a block may have, static and dynamic */
bool shim_is_device(const void *address);
bool shim_is_pinned(const void *address);

#endif
