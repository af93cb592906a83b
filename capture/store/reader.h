/* An opened capture, as opening (capture_open.c) leaves it to reading (capture_read.c). */
#ifndef FKV_STORE_READER_H
#define FKV_STORE_READER_H

#include "capture/store/capture_reader.h"
#include "capture/store/chunks.h"
#include "capture/store/schema.h"

struct entry {
    struct fkv_recording recording;
    char *file, *group;
    bool whole_file; /* of ours, with one recording */
};

struct fkv_capture {
    char *path, *gram; /* gram: the file that holds /output_gram, or NULL */
    struct fkv_capture_info info;
    fkv_sha256_hex sha256;
    struct entry *entries; /* [count] */
    int32_t count;
    int32_t capacity; /* of entries */

    int32_t current;       /* recording that is open; -1: none */
    const char *open_file; /* the path of `file`, of an entry; NULL: none */
    hid_t file, group;
    struct fkv_state_input states[FKV_STATES];
    uint16_t *scratch; /* [scratch_count] 16-bit numbers on their way to float32 */
    size_t scratch_count;
    void *chunk; /* [chunk_bytes] a chunk as it is on disk */
    size_t chunk_bytes;
};

/* The format of a dataset of states. Floats that are neither float32 nor little-endian float16
 * count as float32, which is what HDF5 reads them as. uint16 is bf16 where its attribute says so;
 * without one, where *dtype does on entry, which is what the file says of itself. */
int fkv_reader_dtype(hid_t dataset, const char *name, enum fkv_dtype *dtype, struct fkv_error *err);
int fkv_reader_check_dim(const char *name, const char *axis, int64_t expected, hsize_t found,
                         struct fkv_error *err);
/* Closes the recording that is open; its file stays open for others that it may hold. */
void fkv_reader_close_recording(struct fkv_capture *c);
void fkv_reader_close_file(struct fkv_capture *c); /* and the recording */

/* capture_check.c: whether a recording of ours, opened to `info`, holds what its attributes list:
 * states, dtype, columns of n_tokens. The message says what is listed and what is found. */
int fkv_reader_check_listed(hid_t file, const char *group, const struct fkv_capture_info *info,
                            int64_t n_tokens, struct fkv_error *err);
/* Whether FOLDER/capture.h5, where it exists, has the attributes of the recordings. */
int fkv_reader_check_links(const char *folder, const struct fkv_capture_info *info,
                           struct fkv_error *err);

#endif
