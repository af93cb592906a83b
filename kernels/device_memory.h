/* Whether something fits a device's memory, asked before it is loaded. The
 * host's memory is not checked here: weights are mapped there, and the tools check the rest. */
#ifndef FKV_KERNELS_DEVICE_MEMORY_H
#define FKV_KERNELS_DEVICE_MEMORY_H

#include "kernels/kernels.h"

/* Refuses with "NEEDS, DEVICE has 9.8 GiB of 15.9 GiB freeREMEDY" where `info` is of a device that
 * has fewer than `bytes` free. */
int fkv_check_device_memory(const struct fkv_device_info *info, int64_t bytes, const char *needs,
                            const char *remedy, struct fkv_error *err);

#endif
