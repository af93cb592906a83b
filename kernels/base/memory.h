/* Blocks of memory that are freed together: what a struct owns hangs on one of these, so that
 * asking for many blocks needs one check and giving them back one call. */
#ifndef FKV_BASE_MEMORY_H
#define FKV_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroed: no blocks. One thread at a time. */
struct fkv_memory {
    struct fkv_memory_block *last;
    bool failed; /* a block was asked for that there was no memory for */
};

/* count * size bytes, all zero, that begin on a cache line of 64 bytes; 0 is fine. NULL without
 * memory, and m->failed says so too. */
void *fkv_memory_take(struct fkv_memory *m, size_t count, size_t size);
/* Frees all blocks. Harmless on a zeroed struct and a second time. */
void fkv_memory_free(struct fkv_memory *m);

#endif
