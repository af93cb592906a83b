/* HDF5 files that appear whole or not at all, for schemas simple enough to be written dataset by
 * dataset: runs, probes, results. Groups on a path are made as needed; datasets are contiguous and
 * checksummed where chunked. The reader side is for tests and for the analyzer. */
#ifndef FKV_STORE_H5_H
#define FKV_STORE_H5_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"

struct fkv_h5_writer;

enum fkv_h5_type { FKV_H5_F64, FKV_H5_F32, FKV_H5_I32, FKV_H5_I64, FKV_H5_U8 };
/* Bytes of one number in memory. */
size_t fkv_h5_bytes(enum fkv_h5_type type);

/* Refuses a path that exists. */
int fkv_h5_create(const char *path, struct fkv_h5_writer **out, struct fkv_error *err);
/* dims [rank]; data row-major. A dimension of 0 is fine. */
int fkv_h5_put(struct fkv_h5_writer *w, const char *dataset, enum fkv_h5_type type, int rank,
               const int64_t *dims, const void *data, struct fkv_error *err);
/* Attributes of a group or dataset ("/" is the root), which is made as a group if missing. */
int fkv_h5_put_string(struct fkv_h5_writer *w, const char *object, const char *name,
                      const char *value, struct fkv_error *err);
int fkv_h5_put_double(struct fkv_h5_writer *w, const char *object, const char *name, double value,
                      struct fkv_error *err);
int fkv_h5_put_int(struct fkv_h5_writer *w, const char *object, const char *name, int64_t value,
                   struct fkv_error *err);
int fkv_h5_commit(struct fkv_h5_writer *w,
                  struct fkv_error *err);     /* sync, rename; frees w either way */
void fkv_h5_abandon(struct fkv_h5_writer *w); /* removes what was written; NULL is fine */

struct fkv_h5_reader;
int fkv_h5_open(const char *path, struct fkv_h5_reader **out, struct fkv_error *err);
void fkv_h5_close(struct fkv_h5_reader *r);
/* Dims into dims[8], rank into *rank; *found false when there is no such dataset. A shape that asks
 * for more than the file can hold is refused, so memory may be asked for by what comes back, whose
 * product fits an int64_t. */
int fkv_h5_shape(struct fkv_h5_reader *r, const char *dataset, int *rank, int64_t dims[8],
                 bool *found, struct fkv_error *err);
int fkv_h5_get(struct fkv_h5_reader *r, const char *dataset, enum fkv_h5_type type,
               int64_t elements, void *data, struct fkv_error *err);
/* A text attribute of any length -> *value, the caller's to free; NULL where there is none. */
int fkv_h5_get_text(struct fkv_h5_reader *r, const char *object, const char *name, char **value,
                    struct fkv_error *err);
int fkv_h5_get_string(struct fkv_h5_reader *r, const char *object, const char *name, char *value,
                      int64_t bytes, bool *found, struct fkv_error *err);
int fkv_h5_get_double(struct fkv_h5_reader *r, const char *object, const char *name, double *value,
                      bool *found, struct fkv_error *err);

/* Copies a group and all that it holds, attributes too, to the same path of another file. */
int fkv_h5_copy(struct fkv_h5_reader *from, struct fkv_h5_writer *to, const char *group,
                struct fkv_error *err);

#endif
