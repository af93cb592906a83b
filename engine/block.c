/* How many rows the tools feed at once. A device has thousands of threads to fill: 512 rows of a
 * small model leave most of it idle, and 4096 are what its products are measured with. A host
 * reaches its speed at some hundreds, and what more rows take would only leave its caches. */
#include "engine/command_line.h"
#include "engine/session/session.h"

enum { HOST_ROWS = 512, DEVICE_ROWS = 4096 };

int fkv_engine_block(const struct fkv_engine *engine, const struct fkv_policy_options *policy,
                     bool baseline, int32_t shares, int64_t other_bytes,
                     struct fkv_session_options *options, struct fkv_error *err) {
    struct fkv_device_info info;
    if (engine->ops->info(engine->backend, &info, err)) return FKV_FAILED;
    const int64_t least = (int64_t)HOST_ROWS * shares,
                  most = options->max_tokens * options->sequences;
    int64_t rows = info.space == FKV_DEVICE && least < DEVICE_ROWS ? DEVICE_ROWS : least;
    for (;; rows = rows / 2 > least ? rows / 2 : least) {
        struct fkv_session_needs one = {0}, other = {0};
        options->block = (int32_t)(rows < most ? rows : most);
        if (options->block < options->sequences) options->block = options->sequences;
        if (rows == least)
            return FKV_OK; /* whether that fits is for the caller to check, and to say */
        if (fkv_session_add_needs(engine->model, policy, options, &one, err) ||
            (baseline &&
             fkv_session_add_needs(engine->model, &fkv_full_attention, options, &other, err)))
            return FKV_FAILED;
        /* An eighth stays free: allocations are rounded up, and other processes may use the device.
         */
        const int64_t needs =
            fkv_session_needs_bytes(&one) + other.cache + other.scratch + other_bytes;
        if (needs <= info.memory_free - info.memory_free / 8) return FKV_OK;
    }
}
