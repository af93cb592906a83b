/* Order, search and checks of tensors, whatever file they come from. */
#include "engine/checkpoint/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fkv_tensor_by_offset(const void *a, const void *b) {
    const struct fkv_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b) {
    const struct fkv_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

const struct fkv_tensor *fkv_tensor_table_sort(struct fkv_tensor_table *table) {
    if (table->count) qsort(table->tensors, table->count, sizeof *table->tensors, by_name);
    for (size_t i = 1; i < table->count; i++)
        if (!by_name(&table->tensors[i - 1], &table->tensors[i])) return &table->tensors[i];
    return NULL;
}

const struct fkv_tensor *fkv_tensor_find(const struct fkv_tensor_table *table, const char *name) {
    const struct fkv_tensor wanted = {.name = name};
    if (!table->count) return NULL;
    return bsearch(&wanted, table->tensors, table->count, sizeof wanted, by_name);
}

void fkv_tensor_table_free(struct fkv_tensor_table *table) {
    for (size_t i = 0; i < table->count; i++) free((char *)table->tensors[i].name);
    free(table->tensors);
    *table = (struct fkv_tensor_table){0};
}

int fkv_tensor_check_dtype(const struct fkv_tensor *t, struct fkv_error *err) {
    if (t->computable && fkv_weight_is_dtype(t->format)) return FKV_OK;
    return fkv_fail(err, "%s: tensor %.200s: dtype: expected F32, F16 or BF16, found %s", t->path,
                    t->name, t->format_name);
}

static void print_shape(char text[96], const int64_t *shape, int32_t dims) {
    int used = snprintf(text, 96, "[");
    for (int32_t i = 0; i < dims && i < 4; i++)
        used += snprintf(text + used, 96 - (size_t)used, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(text + used, 96 - (size_t)used, dims > 4 ? ", ...]" : "]");
}

int fkv_tensor_check_shape(const struct fkv_tensor *t, int32_t rows, int32_t cols,
                           struct fkv_error *err) {
    const int64_t expected[2] = {rows ? rows : cols, cols};
    const int32_t dims = rows ? 2 : 1;
    char wanted[96], found[96];
    if (t->dims == dims && !memcmp(t->shape, expected, (size_t)dims * sizeof *expected))
        return FKV_OK;
    print_shape(wanted, expected, dims);
    print_shape(found, t->shape, t->dims);
    return fkv_fail(err, "%s: tensor %.200s: shape: expected %s, found %s", t->path, t->name,
                    wanted, found);
}
