/* Datasets of unknown length, read whole. */
#ifndef FKV_CAPTURE_STORE_COLUMNS_H
#define FKV_CAPTURE_STORE_COLUMNS_H

#include <stdbool.h>

#include "capture/store/h5.h"

/* *data (malloc'd) <- all elements of a dataset, row by row, *count of them; NULL and 0 where there
 * is none. */
int fkv_column_read(struct fkv_h5_reader *r, const char *dataset, enum fkv_h5_type type,
                    int64_t *count, void *data, struct fkv_error *err);
/* The same, of a length that is known: another one, or none if `required`, is an error. */
int fkv_column_expect(struct fkv_h5_reader *r, const char *dataset, enum fkv_h5_type type,
                      int64_t count, bool required, void *data, struct fkv_error *err);
/* An integer attribute of `object`; missing: an error if `required`, else *value stays. */
int fkv_column_integer(struct fkv_h5_reader *r, const char *object, const char *name, bool required,
                       int32_t *value, struct fkv_error *err);

#endif
