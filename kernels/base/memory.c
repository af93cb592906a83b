/* See memory.h. A block stands behind a head that names the block before it. */
#include "kernels/base/memory.h"

#include <stdint.h>
#include <stdlib.h>

enum { LINE = 64 };

struct fkv_memory_block {
    _Alignas(LINE) struct fkv_memory_block *before;
    void *start; /* what calloc returned */
};

void *fkv_memory_take(struct fkv_memory *m, size_t count, size_t size) {
    const size_t head = sizeof(struct fkv_memory_block) + LINE;
    size_t bytes;
    char *start = NULL;
    if (!__builtin_mul_overflow(count, size, &bytes) && bytes <= SIZE_MAX - head)
        start = calloc(1, bytes + head);
    if (!start) {
        m->failed = true;
        return NULL;
    }
    struct fkv_memory_block *block = (void *)(start + LINE - (size_t)start % LINE);
    *block = (struct fkv_memory_block){m->last, start};
    m->last = block;
    return block + 1;
}

void fkv_memory_free(struct fkv_memory *m) {
    for (struct fkv_memory_block *block = m->last, *before; block; block = before) {
        before = block->before;
        free(block->start);
    }
    *m = (struct fkv_memory){0};
}
