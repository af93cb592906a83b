/* Tensors of weight files, and the table of them. */
#ifndef FKV_ENGINE_CHECKPOINT_TENSOR_H
#define FKV_ENGINE_CHECKPOINT_TENSOR_H

#include "kernels/base/error.h"
#include "kernels/weights/weights.h"

/* A tensor as its file has it; of a role (checkpoint.h, adapter.h) perhaps only the rows of one
 * that several roles share. */
struct fkv_tensor {
    const char *path;        /* the file; its owner's */
    const char *name;        /* as the file names it; the table's */
    const char *format_name; /* as the file names it: "F32", "Q4_K", "I64", ... */
    bool computable;         /* the format is one of ours; only then is `format` set */
    enum fkv_weight_format format;
    int32_t dims;
    int64_t shape[4]; /* the first four, slowest first */
    const void *data; /* in the mapping */
    size_t bytes;
    size_t offset;     /* from the start of the file's data */
    bool paired_heads; /* rotary channels i and i + head_dim/2 of a head are rows 2i and 2i + 1 */
    bool less_one;     /* a vector that is stored as w - 1 */
};

struct fkv_tensor_table {
    struct fkv_tensor *tensors; /* [count] */
    size_t count;
};

/* The order of offsets, for qsort: of equal ones the smaller tensor is first. */
int fkv_tensor_by_offset(const void *a, const void *b);
/* Sorts by name. Returns the second of two tensors of one name, which then stands behind the first;
 * NULL where all names differ. */
const struct fkv_tensor *fkv_tensor_table_sort(struct fkv_tensor_table *table);
/* The tensor of that name, or NULL. The table is sorted. */
const struct fkv_tensor *fkv_tensor_find(const struct fkv_tensor_table *table, const char *name);
/* An empty table is fine, and left. */
void fkv_tensor_table_free(struct fkv_tensor_table *table);

/* Refuses a tensor that is in none of the three dtypes. */
int fkv_tensor_check_dtype(const struct fkv_tensor *t, struct fkv_error *err);
/* Refuses a tensor that is not [rows, cols], or with rows 0 not [cols]. */
int fkv_tensor_check_shape(const struct fkv_tensor *t, int32_t rows, int32_t cols,
                           struct fkv_error *err);

#endif
