/* A recording being written, as capture_writer.c (its life) and capture_rows.c (its states) share
 * it. Inside the store only. */
#ifndef FKV_STORE_WRITER_H
#define FKV_STORE_WRITER_H

#include "capture/store/capture_writer.h"
#include "capture/store/schema.h"

/* Tokens [first, first+rows) of one layer, not yet in the file, within one row of chunks.
 */
struct staging {
    uint8_t *data; /* [heads, tokens per chunk, head_dim] of the capture's dtype; NULL until it is
                      needed */
    int64_t first, rows;
    int64_t received;
};

struct state_output {
    hid_t dataset, space;
    int32_t heads, chunk_heads; /* in all, and of a chunk, which divides it */
    int64_t chunk;              /* tokens of a chunk */
    struct staging *layers;     /* [layer_count] */
    uint8_t *whole;             /* one row of chunks on its way through */
    size_t buffer_bytes;        /* of `whole` and of each `data`; kept for the next recording */
    bool sums;                  /* written, where only sums are */
};

struct fkv_capture_writer {
    char *folder;
    const struct fkv_capture_info *info;
    int64_t end; /* of the recordings that existed when the folder was opened */
    bool shared; /* the lock and the folder belong to another writer */
    int lock;

    char temporary[FKV_PATH], path[FKV_PATH]; /* of the recording being written */
    hid_t file, group;
    int64_t n_tokens;
    struct state_output states[FKV_STATES];
};

/* Takes `bytes` of disk for a file that is written under a temporary name. */
int fkv_writer_reserve(const char *path, int64_t bytes, struct fkv_error *err);
/* Ends a file that was written under a temporary name. Where `status` is FKV_OK, gives back what
 * was reserved beyond its end and gives it its name; else, or where that fails, removes it. */
int fkv_writer_end(hid_t file, int status, const char *temporary, const char *path,
                   struct fkv_error *err);

/* Creates the datasets of the recording's states. */
int fkv_writer_open_states(struct fkv_capture_writer *w, struct fkv_error *err);
/* Writes what is staged; FKV_FAILED when rows are missing. */
int fkv_writer_finish_states(struct fkv_capture_writer *w, struct fkv_error *err);
/* Ends what open_states began; the buffers stay, for fkv_writer_free_states. */
void fkv_writer_close_states(struct fkv_capture_writer *w);
void fkv_writer_free_states(struct fkv_capture_writer *w);

#endif
