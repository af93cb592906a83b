/* HDF5 for the rest of the store: its error messages inside ours, number formats that h5py and
 * numpy know, files that are the same to the byte on every run and whose metadata and data both
 * carry checksums (the 1.10 file format: superblock, object headers and chunk indices are
 * checksummed, so a flipped bit is an error and not a wild pointer).
 *
 * Every handle lives inside one file opened here, and closing that file closes them all
 * (H5F_CLOSE_STRONG). */
#ifndef FKV_STORE_HDF_H
#define FKV_STORE_HDF_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"

/* The message, then ": " and the innermost of HDF5's own. */
int fkv_hdf_fail(struct fkv_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Creates a file. `image`: built in memory and never written by HDF5 itself. H5I_INVALID_HID and a
 * message on failure. */
hid_t fkv_hdf_create(const char *path, bool image, struct fkv_error *err);
/* Opens a file to read. H5I_INVALID_HID and a message on failure. */
hid_t fkv_hdf_open(const char *path, struct fkv_error *err);
/* Flushes first, since H5Fclose hides failed writes. */
int fkv_hdf_close(hid_t file, const char *path, struct fkv_error *err);

/* Types, made once and never closed. */
hid_t fkv_hdf_f16(void); /* IEEE half, as numpy's float16 */

/* Groups without times. Missing groups on the path are made. */
hid_t fkv_hdf_group(hid_t parent, const char *path, struct fkv_error *err);

/* A dataset dims [rank], in chunks of `chunk` [rank] with a Fletcher-32 checksum, never filled. */
hid_t fkv_hdf_dataset(hid_t parent, const char *name, hid_t type, int rank, const hsize_t *dims,
                      const hsize_t *chunk, struct fkv_error *err);
/* The same, written at once, in chunks of about 1 MiB. */
int fkv_hdf_put(hid_t parent, const char *name, hid_t file_type, hid_t memory_type, int rank,
                const hsize_t *dims, const void *data, struct fkv_error *err);
/* Opens `name` where it is a dataset; *dataset is H5I_INVALID_HID when there is nothing of that
 * name. dims [8]. */
int fkv_hdf_find(hid_t parent, const char *name, hid_t *dataset, int *rank, hsize_t dims[8],
                 struct fkv_error *err);
/* All of a dataset whose dims are expected [rank]; *found false when there is nothing of that name.
 */
int fkv_hdf_get(hid_t parent, const char *name, hid_t memory_type, int rank,
                const hsize_t *expected, void *data, bool *found, struct fkv_error *err);

/* Attributes; an existing one is replaced. */
int fkv_hdf_put_string(hid_t object, const char *name, const char *value, struct fkv_error *err);
int fkv_hdf_put_int(hid_t object, const char *name, int64_t value, struct fkv_error *err);
int fkv_hdf_put_double(hid_t object, const char *name, double value, struct fkv_error *err);
/* As h5py does. */
int fkv_hdf_put_bool(hid_t object, const char *name, bool value, struct fkv_error *err);
/* values, dims [rank]; rank 0: one. */
int fkv_hdf_put_array(hid_t object, const char *name, hid_t file_type, hid_t memory_type, int rank,
                      const hsize_t *dims, const void *values, struct fkv_error *err);

/* A missing attribute leaves *value alone and is not an error. */
int fkv_hdf_get_string(hid_t object, const char *name, char **value,
                       struct fkv_error *err); /* malloc'd */
int fkv_hdf_get_int(hid_t object, const char *name, int64_t low, int64_t high, int64_t *value,
                    struct fkv_error *err);
/* *found (may be NULL): is it there? */
int fkv_hdf_get_double(hid_t object, const char *name, double *value, bool *found,
                       struct fkv_error *err);
/* 1 to `limit` numbers into *values (malloc'd, of memory_type, at most 8 bytes each). *rows: of two
 * axes, the first; 0 of one axis, and more are refused. NULL: whatever its axes. */
int fkv_hdf_get_numbers(hid_t object, const char *name, hid_t memory_type, int64_t limit,
                        void **values, int64_t *count, int64_t *rows, struct fkv_error *err);

#endif
