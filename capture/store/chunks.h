/* Chunks of states as they are on disk. Through H5Dread a checksum is taken one word at a time and
 * states are copied through a chunk cache; here a whole chunk comes in one call, and its checksum
 * is vectorised. */
#ifndef FKV_STORE_CHUNKS_H
#define FKV_STORE_CHUNKS_H

#include "capture/store/hdf.h"
#include "kernels/dtype.h"

/* A dataset of states [layers, heads, tokens, head_dim], opened for reading. */
struct fkv_state_input {
    hid_t dataset; /* owned by who opened it; below 0: closed */
    enum fkv_dtype dtype;
    hsize_t chunk[4]; /* of the dataset, where it is chunked */
    bool whole;       /* chunks hold one layer and whole rows of numbers in dtype's own format, with
                         no filter but the checksum */
    bool checksum;    /* four bytes follow the numbers of a chunk: Fletcher-32 */
};

/* Fills in all but `dataset` and `dtype`, which are set. */
void fkv_chunks_describe(struct fkv_state_input *in);

/* Bytes of a chunk on disk. */
size_t fkv_chunk_bytes(const struct fkv_state_input *in);

/* x [count[1], count[2], count[3]] <- the selection [from, from + count) of one layer, chunk by
 * chunk, in part through buffer [fkv_chunk_bytes]. False where a chunk is missing, damaged or
 * otherwise not as expected: then H5Dread says what it is. *finite: these chunks hold nothing but
 * finite numbers, those outside the selection included; they are looked at while in a cache. */
bool fkv_chunks_read(const struct fkv_state_input *in, const hsize_t from[4],
                     const hsize_t count[4], void *buffer, void *x, bool *finite);

/* HDF5's Fletcher-32 of n little-endian words of 16 bits. */
uint32_t fkv_fletcher32(const void *words, size_t n);

#endif
