/* The bytes are a config.json. What is accepted must be fit to compute with: sizes in range,
 * frequencies finite and not negative. */
#include <math.h>
#include <stdlib.h>

#include "tests/unit/engine/parse_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err = {0};
    struct fkv_config c;
    if (parse_config((const char *)data, bytes, "config.json", 0, &c, &err)) {
        if (!err.message[0]) abort();
        return 0;
    }
    if (c.layers < 1 || c.dim < 1 || c.hidden < 1 || c.vocab < 1 || c.kv_heads < 1 ||
        c.heads % c.kv_heads)
        abort();
    if (c.head_dim < 2 || c.head_dim % 2 || c.head_dim > FKV_MAX_HEAD_DIM || c.trained_context < 1)
        abort();
    if (c.bos >= c.vocab || c.eos >= c.vocab) abort();
    for (int32_t r = 0; r < c.rotation_count; r++) {
        const struct fkv_rope *rope = &c.rotations[r];
        double beyond[FKV_MAX_HEAD_DIM / 2];
        if (rope->channels < 2 || rope->channels > c.head_dim) abort();
        fkv_rope_frequencies(rope, 1 << 30, beyond);
        for (int i = 0; i < rope->channels / 2; i++)
            if (!isfinite(rope->inv_freq[i]) || rope->inv_freq[i] < 0 || !isfinite(beyond[i]) ||
                beyond[i] < 0)
                abort();
    }
    return 0;
}
