/* See device_memory.h. */
#include "kernels/device_memory.h"

#include "kernels/base/host.h"

int fkv_check_device_memory(const struct fkv_device_info *info, int64_t bytes, const char *needs,
                            const char *remedy, struct fkv_error *err) {
    char available[16], total[16];
    if (info->space != FKV_DEVICE || bytes <= info->memory_free) return FKV_OK;
    fkv_format_bytes(available, info->memory_free);
    fkv_format_bytes(total, info->memory_total);
    return fkv_fail(err, "%s, %s has %s of %s free%s", needs, info->name, available, total, remedy);
}
