/* Owns the reading of datasets whose length the file decides (columns.h). Lengths are refused
 * before memory is asked for: a broken file must not decide how much. */
#include "capture/store/columns.h"

#include <math.h>
#include <stdlib.h>

int fkv_column_read(struct fkv_h5_reader *r, const char *dataset, enum fkv_h5_type type,
                    int64_t *count, void *data, struct fkv_error *err) {
    enum { MOST = 1 << 30 };
    void **out = data;
    int rank;
    int64_t dims[8], n = 1;
    bool found;
    *out = NULL, *count = 0;
    if (fkv_h5_shape(r, dataset, &rank, dims, &found, err)) return FKV_FAILED;
    if (!found) return FKV_OK;
    for (int i = 0; i < rank; i++) {
        if (dims[i] > MOST || n * dims[i] > MOST)
            return fkv_fail(err, "%s: expected at most %d elements, found more", dataset, MOST);
        n *= dims[i];
    }
    *out = malloc((size_t)n * fkv_h5_bytes(type) + 1);
    if (!*out) return fkv_fail(err, "out of memory for %s", dataset);
    if (fkv_h5_get(r, dataset, type, n, *out, err)) {
        free(*out);
        *out = NULL;
        return FKV_FAILED;
    }
    *count = n;
    return FKV_OK;
}

int fkv_column_expect(struct fkv_h5_reader *r, const char *dataset, enum fkv_h5_type type,
                      int64_t count, bool required, void *data, struct fkv_error *err) {
    void **out = data;
    int64_t found;
    if (fkv_column_read(r, dataset, type, &found, data, err)) return FKV_FAILED;
    if (!*out && !required) return FKV_OK;
    if (*out && found == count) return FKV_OK;
    bool missing = !*out;
    free(*out);
    *out = NULL;
    if (missing)
        return fkv_fail(err, "%s: expected a dataset of %lld elements, found none", dataset,
                        (long long)count);
    return fkv_fail(err, "%s: expected %lld elements, found %lld", dataset, (long long)count,
                    (long long)found);
}

int fkv_column_integer(struct fkv_h5_reader *r, const char *object, const char *name, bool required,
                       int32_t *value, struct fkv_error *err) {
    double number = 0;
    bool found;
    if (fkv_h5_get_double(r, object, name, &number, &found, err)) return FKV_FAILED;
    if (!found)
        return required ? fkv_fail(err, "attribute %s of %s: expected an integer, found none", name,
                                   object)
                        : FKV_OK;
    if (!(fabs(number) < 0x1p31 && number == floor(number)))
        return fkv_fail(err, "attribute %s of %s: expected an integer, found %g", name, object,
                        number);
    *value = (int32_t)number;
    return FKV_OK;
}
