/* Owns the format of OP.h5 and what a capture gives for klt.
 *
 * OP.h5: a dataset `operator`, or `key` and `value` of one shape: [L, n], one for all heads, or
 * [layers, kv_heads, L, n]. Any type of number; finite.
 *
 * A capture's autocovariance, of keys and of values: recordings are cut into segments of as many
 * tokens as the longest has, MOST_LAGS at most, what is shorter is left out; of each segment, layer
 * and head, the mean over tokens is taken out and
 *
 *     r(tau) = sum_j x_j . x_(j+tau) / sum_j |x_j|^2,
 *
 * and r is their mean, so that all heads count alike. Sums over pairs of tokens are those along the
 * diagonals of the segment's Gram matrix. */
#include "replay/operators/operator_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/capture_reader.h"
#include "capture/store/h5.h"
#include "kernels/blas.h"
#include "kernels/matrix.h"

enum { MOST_LAGS = 4096 };

static const char klt[] = "klt:";

/* ---- matrices ---- */

/* The dataset's shape -> dims [4], layers, KV heads, L, n. *found false where there is none. */
static int read_shape(struct fkv_h5_reader *r, const char *path, const char *dataset,
                      int64_t dims[4], bool *found, struct fkv_error *err) {
    int rank;
    int64_t all[8];
    if (fkv_h5_shape(r, dataset, &rank, all, found, err) || !*found)
        return *found ? FKV_FAILED : FKV_OK;
    if (rank != 2 && rank != 4)
        return fkv_fail(err,
                        "%s: %s: expected [L, n] or [layers, kv_heads, L, n], found %d "
                        "dimensions",
                        path, dataset, rank);
    dims[0] = dims[1] = 1;
    memcpy(dims + 4 - rank, all, (size_t)rank * sizeof *all);
    for (int i = 0; i < 4; i++)
        if (dims[i] < 1 || dims[i] > INT32_MAX)
            return fkv_fail(err, "%s: %s: expected dimensions of 1 to %d, found %lld", path,
                            dataset, INT32_MAX, (long long)dims[i]);
    return FKV_OK;
}

static int read_numbers(struct fkv_h5_reader *r, const char *path, const char *dataset,
                        const int64_t dims[4], float **out, struct fkv_error *err) {
    const int64_t count = dims[0] * dims[1] * dims[2] * dims[3];
    *out = malloc((size_t)count * sizeof **out);
    if (!*out) return fkv_fail(err, "%s: %s: out of memory", path, dataset);
    if (fkv_h5_get(r, dataset, FKV_H5_F32, count, *out, err)) return FKV_FAILED;
    for (int64_t i = 0; i < count; i++)
        if (!isfinite((*out)[i]))
            return fkv_fail(err, "%s: %s: expected finite numbers, found %g in row %lld", path,
                            dataset, (double)(*out)[i], (long long)(i / dims[3]));
    return FKV_OK;
}

static int read_matrices(struct fkv_h5_reader *r, const char *path, struct fkv_operator_data *data,
                         struct fkv_error *err) {
    int64_t dims[4], others[4];
    bool found, has_key, has_value;
    if (read_shape(r, path, "operator", dims, &found, err) ||
        read_shape(r, path, "key", found ? others : dims, &has_key, err) ||
        read_shape(r, path, "value", others, &has_value, err))
        return FKV_FAILED;
    if (found ? has_key || has_value : !has_key || !has_value)
        return fkv_fail(err, "%s: expected a dataset operator, or key and value, found %s%s%s",
                        path, found ? "operator " : "", has_key ? "key " : "",
                        has_value ? "value" : "");
    if (!found && memcmp(dims, others, sizeof dims))
        return fkv_fail(err,
                        "%s: value: expected the shape of key, [%lld, %lld, %lld, %lld], found "
                        "[%lld, %lld, %lld, %lld]",
                        path, (long long)dims[0], (long long)dims[1], (long long)dims[2],
                        (long long)dims[3], (long long)others[0], (long long)others[1],
                        (long long)others[2], (long long)others[3]);
    data->layers = (int32_t)dims[0], data->kv_heads = (int32_t)dims[1];
    data->retained = (int32_t)dims[2], data->n = (int32_t)dims[3];
    if (read_numbers(r, path, found ? "operator" : "key", dims, &data->key, err)) return FKV_FAILED;
    if (!found) return read_numbers(r, path, "value", dims, &data->value, err);
    data->value = data->key;
    return FKV_OK;
}

/* ---- a capture ---- */

#ifdef FKV_PLAIN
static int read_covariances(struct fkv_capture *c, struct fkv_operator_data *data,
                            struct fkv_error *err) {
    (void)data;
    return fkv_fail(err, "%s: klt needs OpenBLAS, which this build is without",
                    fkv_capture_path(c));
}
#else
/* One segment of one head, x [lags, d] -> r [lags] +=; 1 where it was not constant, else 0. */
static int32_t add_segment(const float *x, int32_t lags, int32_t d, double *centered, double *gram,
                           double *r) {
    for (int32_t c = 0; c < d; c++) {
        double mean = 0;
        for (int32_t j = 0; j < lags; j++) mean += x[(size_t)j * (size_t)d + (size_t)c] / lags;
        for (int32_t j = 0; j < lags; j++) {
            const size_t at = (size_t)j * (size_t)d + (size_t)c;
            centered[at] = x[at] - mean;
        }
    }
    fkv_matrix_gram(centered, d, lags, false, gram);
    double energy = 0;
    for (size_t j = 0; j < (size_t)lags; j++) energy += gram[j + j * (size_t)lags];
    for (size_t j = 0; j < (size_t)lags && energy > 0; j++)
        for (size_t i = 0; i <= j; i++) r[j - i] += gram[i + j * (size_t)lags] / energy;
    return energy > 0;
}

static int read_covariance(struct fkv_capture *c, enum fkv_state state, int32_t lags, double *r,
                           struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    const size_t numbers = (size_t)lags * (size_t)info->head_dim;
    float *x = malloc(numbers * sizeof *x);
    double *centered = malloc((numbers + (size_t)lags * (size_t)lags) * sizeof *centered);
    int status = x && centered ? FKV_OK : fkv_fail(err, "out of memory for an autocovariance");
    int64_t counted = 0;
    for (int32_t i = 0; i < fkv_capture_count(c); i++)
        for (int64_t t = 0; t + lags <= fkv_capture_recording(c, i)->n_tokens; t += lags)
            for (int32_t l = 0; l < info->layer_count; l++)
                for (int32_t h = 0; h < fkv_capture_heads(c, state) && !status; h++) {
                    status = fkv_capture_read_state(c, i, state, l, h, 1, t, lags, x, err);
                    if (!status)
                        counted +=
                            add_segment(x, lags, info->head_dim, centered, centered + numbers, r);
                }
    for (int32_t k = 0; k < lags && counted; k++) r[k] /= (double)counted;
    free(x);
    free(centered);
    if (!status && !counted)
        status = fkv_fail(err, "%s: %s: expected states that change, found constants only",
                          fkv_capture_path(c), fkv_state_names[state]);
    return status;
}

static int read_covariances(struct fkv_capture *c, struct fkv_operator_data *data,
                            struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    const uint32_t wanted = 1u << FKV_STATE_KEY | 1u << FKV_STATE_VALUE;
    if (info->spectra_only || (info->states & wanted) != wanted)
        return fkv_fail(err, "%s: klt needs stored states, key and value", fkv_capture_path(c));
    int64_t lags = 1;
    for (int32_t i = 0; i < fkv_capture_count(c); i++)
        if (fkv_capture_recording(c, i)->n_tokens > lags)
            lags = fkv_capture_recording(c, i)->n_tokens;
    data->lags = lags < MOST_LAGS ? (int32_t)lags : MOST_LAGS;
    data->key_covariance = calloc((size_t)lags, sizeof(double));
    data->value_covariance = calloc((size_t)lags, sizeof(double));
    if (!data->key_covariance || !data->value_covariance)
        return fkv_fail(err, "out of memory for an autocovariance");
    if (fkv_blas_open(1, err)) return FKV_FAILED;
    int status = read_covariance(c, FKV_STATE_KEY, data->lags, data->key_covariance, err) ||
                 read_covariance(c, FKV_STATE_VALUE, data->lags, data->value_covariance, err);
    fkv_blas_close(1);
    return status ? FKV_FAILED : FKV_OK;
}
#endif

/* ---- both ---- */

/* Basename and hash: local paths are not published. */
static void name_data(struct fkv_operator_data *data, const char *path) {
    const char *slash = strrchr(path, '/');
    snprintf(data->text, sizeof data->text, "%s%.64s@%.16s", data->key ? "" : klt,
             slash ? slash + 1 : path, data->sha256);
}

static int read_operator_file(const char *path, struct fkv_operator_data *data,
                              struct fkv_error *err) {
    struct fkv_h5_reader *r;
    if (fkv_h5_open(path, &r, err)) return FKV_FAILED;
    int status = read_matrices(r, path, data, err);
    fkv_h5_close(r);
    if (!status) status = fkv_sha256_files(&path, 1, data->sha256, err);
    return status;
}

static int read_capture(const char *path, struct fkv_operator_data *data, struct fkv_error *err) {
    struct fkv_capture *c;
    if (fkv_capture_open(path, &c, err)) return FKV_FAILED;
    int status = read_covariances(c, data, err);
    snprintf(data->sha256, sizeof data->sha256, "%s", fkv_capture_sha256(c));
    fkv_capture_close(c);
    return status;
}

int fkv_operator_data_read(struct fkv_policy_options *policy, struct fkv_operator_data *data,
                           struct fkv_error *err) {
    int i = 0;
    while (i < FKV_OWN_OPTIONS && policy->own[i].name && strcmp(policy->own[i].name, "operator"))
        i++;
    const char *text = i < FKV_OWN_OPTIONS && policy->own[i].name ? policy->own[i].text : NULL;
    if (!text) return FKV_OK;
    const size_t length = strlen(text);
    const bool fits = !strncmp(text, klt, strlen(klt)),
               file = !fits && length > 3 && !strcmp(text + length - 3, ".h5");
    if (!fits && !file) return FKV_OK;
    char *path = strdup(fits ? text + strlen(klt) : text);
    if (!path) return fkv_fail(err, "out of memory");
    for (size_t at = strlen(path); at > 1 && path[at - 1] == '/'; at--) path[at - 1] = 0;
    int status = fits ? read_capture(path, data, err) : read_operator_file(path, data, err);
    name_data(data, path);
    free(path);
    if (status) return fkv_error_prefix(err, "--operator");
    policy->own[i].text = data->text;
    policy->operator_data = data;
    return FKV_OK;
}

void fkv_operator_data_free(struct fkv_operator_data *data) {
    if (data->value != data->key) free(data->value);
    free(data->key);
    free(data->key_covariance);
    free(data->value_covariance);
    *data = (struct fkv_operator_data){0};
}
