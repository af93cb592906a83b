/* The attributes that say how keys and queries turn:
 *
 *   inv_freq          float64 [head_dim/2] radians per position, or [layers, head_dim/2] where the
 *                     captured layers differ, 0 for a pair that does not turn. [n_layers,
 *                     head_dim/2] is read, too.
 *   rotary_dim        channels of a head that turn, its first ones: channel i with i and half of
 *                     them. Without it head_dim.
 *   attention_factor  on the turned channels of queries and keys alike (YaRN, LongRoPE), one number
 *                     or [layers]. Without it 1. key_rotated has it, key and query have not.
 *   rope_theta, rope_scaling, attention_scale    as the model has them
 *   rope_positions    where inv_freq depends on the length: the positions that it was chosen for
 *
 * A file of one vector and no more is what all captures were before layers could differ. */
#include "capture/store/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NUMBERS = 1 << 22 };

/* Files of another machine may have been computed with another pow. */
#define SAME_FREQUENCY 1e-12

struct fkv_capture_rotation fkv_capture_rotation(const struct fkv_capture_info *info,
                                                 int32_t layer) {
    const size_t row = info->rotation_per_layer ? (size_t)layer : 0,
                 half = (size_t)info->head_dim / 2;
    return (struct fkv_capture_rotation){
        .inv_freq = info->inv_freq ? info->inv_freq + row * half : NULL,
        .rotary_dim = info->rotary_dim ? info->rotary_dim : info->head_dim,
        .attention_factor = info->attention_factor ? info->attention_factor[row] : 1};
}

/* ---- writing ---- */

int fkv_schema_write_rotation(hid_t file, const struct fkv_capture_info *info,
                              struct fkv_error *err) {
    const int64_t rotary = info->rotary_dim, positions = info->rope_positions;
    const hsize_t dims[2] = {(hsize_t)info->layer_count, (hsize_t)info->head_dim / 2};
    const int layers = info->rotation_per_layer; /* an axis of them, or none */
    bool failed =
        fkv_hdf_put_double(file, "rope_theta", info->rope_theta, err) ||
        fkv_hdf_put_string(file, "rope_scaling", info->rope_scaling ? info->rope_scaling : "",
                           err) ||
        (info->inv_freq && dims[1] > 0 &&
         fkv_hdf_put_array(file, "inv_freq", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, layers + 1,
                           dims + 1 - layers, info->inv_freq, err)) ||
        (rotary && rotary != info->head_dim && fkv_hdf_put_int(file, "rotary_dim", rotary, err)) ||
        (info->attention_factor &&
         fkv_hdf_put_array(file, "attention_factor", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, layers,
                           dims, info->attention_factor, err)) ||
        (positions && fkv_hdf_put_int(file, "rope_positions", positions, err)) ||
        fkv_hdf_put_double(file, "attention_scale", info->attention_scale, err);
    return failed ? FKV_FAILED : FKV_OK;
}

/* ---- reading ---- */

/* Rows [n_layers, width] -> the captured ones [layer_count, width], in place. */
static void keep_captured(const struct fkv_capture_info *info, double *rows, size_t width) {
    for (int32_t i = 0; i < info->layer_count; i++)
        memmove(rows + (size_t)i * width, rows + (size_t)info->layer_index[i] * width,
                width * sizeof *rows);
}

/* Which layers the rows of an attribute are of: it has `rows` [rows, width], or 0 for one of them
 * all. */
static int check_rows(const struct fkv_capture_info *info, const char *name, int64_t rows,
                      double *numbers, size_t width, struct fkv_error *err) {
    if (!rows || rows == info->layer_count) return FKV_OK;
    if (rows != info->n_layers)
        return fkv_fail(err,
                        "attribute %s: expected one row for all layers, or one for each of the %d "
                        "captured layers, found %lld",
                        name, info->layer_count, (long long)rows);
    keep_captured(info, numbers, width);
    return FKV_OK;
}

static int check_frequencies(const struct fkv_capture_info *info, struct fkv_error *err) {
    const int64_t half = info->head_dim / 2,
                  count = half * (info->rotation_per_layer ? info->layer_count : 1);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(info->inv_freq[i]))
            return fkv_fail(err, "attribute inv_freq[%lld]: expected a finite number, found %g",
                            (long long)i, info->inv_freq[i]);
    return FKV_OK;
}

static int read_frequencies(hid_t file, struct fkv_capture_info *info, struct fkv_error *err) {
    const int64_t half = info->head_dim / 2;
    int64_t rows = 0, count = 0;
    void *numbers = NULL;
    if (fkv_hdf_get_numbers(file, "inv_freq", H5T_NATIVE_DOUBLE, MOST_NUMBERS, &numbers, &count,
                            &rows, err))
        return FKV_FAILED;
    info->inv_freq = numbers;
    if (!numbers) return FKV_OK;
    if (count != (rows ? rows * half : half))
        return fkv_fail(err, "attribute inv_freq: expected %lld numbers (head_dim/2), found %lld",
                        (long long)half, (long long)(rows ? count / rows : count));
    info->rotation_per_layer = rows > 0;
    return check_rows(info, "inv_freq", rows, info->inv_freq, (size_t)half, err) ||
                   check_frequencies(info, err)
               ? FKV_FAILED
               : FKV_OK;
}

/* One number, or one per layer where inv_freq has one row per layer. */
static int read_factor(hid_t file, struct fkv_capture_info *info, struct fkv_error *err) {
    void *numbers = NULL;
    int64_t count = 0;
    if (fkv_hdf_get_numbers(file, "attention_factor", H5T_NATIVE_DOUBLE, MOST_NUMBERS, &numbers,
                            &count, NULL, err))
        return FKV_FAILED;
    info->attention_factor = numbers;
    for (int64_t i = 0; i < count; i++)
        if (!(info->attention_factor[i] > 0 && isfinite(info->attention_factor[i])))
            return fkv_fail(err, "attribute attention_factor: expected numbers above 0, found %g",
                            info->attention_factor[i]);
    if (!numbers || (count == 1 && !info->rotation_per_layer)) return FKV_OK;
    if (count != 1 && !info->rotation_per_layer)
        return fkv_fail(err,
                        "attribute attention_factor: expected 1 number (inv_freq has one row), "
                        "found %lld",
                        (long long)count);
    if (count != 1)
        return check_rows(info, "attention_factor", count, info->attention_factor, 1, err);
    double *all = malloc((size_t)info->layer_count * sizeof *all);
    if (!all) return fkv_fail(err, "attribute attention_factor: out of memory");
    for (int32_t i = 0; i < info->layer_count; i++) all[i] = info->attention_factor[0];
    free(info->attention_factor);
    info->attention_factor = all;
    return FKV_OK;
}

int fkv_schema_read_rotation(hid_t file, struct fkv_capture_info *info, struct fkv_error *err) {
    int64_t rotary = 0;
    if (fkv_hdf_get_double(file, "rope_theta", &info->rope_theta, NULL, err) ||
        fkv_hdf_get_double(file, "attention_scale", &info->attention_scale, NULL, err) ||
        fkv_hdf_get_string(file, "rope_scaling", &info->rope_scaling, err) ||
        fkv_hdf_get_int(file, "rotary_dim", 2, info->head_dim, &rotary, err) ||
        fkv_hdf_get_int(file, "rope_positions", 0, INT64_MAX, &info->rope_positions, err))
        return FKV_FAILED;
    if (rotary % 2)
        return fkv_fail(err, "attribute rotary_dim: expected an even number, found %lld",
                        (long long)rotary);
    info->rotary_dim = rotary == info->head_dim ? 0 : (int32_t)rotary;
    if (!isfinite(info->rope_theta) || !isfinite(info->attention_scale))
        return fkv_fail(
            err,
            "attributes rope_theta and attention_scale: expected finite numbers, found %g and %g",
            info->rope_theta, info->attention_scale);
    return read_frequencies(file, info, err) || read_factor(file, info, err) ? FKV_FAILED : FKV_OK;
}

/* ---- comparing ---- */

static bool close_to(double a, double b) { return fabs(a - b) <= SAME_FREQUENCY * fabs(a); }

int fkv_schema_compare_rotation(const struct fkv_capture_info *a, const struct fkv_capture_info *b,
                                struct fkv_error *err) {
    if (!a->inv_freq != !b->inv_freq)
        return fkv_fail(err, "inv_freq: expected %s, found %s", a->inv_freq ? "it" : "none",
                        b->inv_freq ? "it" : "none");
    for (int32_t layer = 0; a->inv_freq && layer < a->layer_count; layer++) {
        const struct fkv_capture_rotation x = fkv_capture_rotation(a, layer),
                                          y = fkv_capture_rotation(b, layer);
        if (x.rotary_dim != y.rotary_dim)
            return fkv_fail(err, "rotary_dim: expected %d, found %d", x.rotary_dim, y.rotary_dim);
        if (!close_to(x.attention_factor, y.attention_factor))
            return fkv_fail(err, "attention_factor of layer %d: expected %.17g, found %.17g",
                            a->layer_index[layer], x.attention_factor, y.attention_factor);
        for (int32_t i = 0; i < a->head_dim / 2; i++)
            if (!close_to(x.inv_freq[i], y.inv_freq[i]))
                return fkv_fail(err,
                                "inv_freq of layer %d: expected %.17g at %d, found %.17g (chosen "
                                "for %lld positions, and for %lld)",
                                a->layer_index[layer], x.inv_freq[i], i, y.inv_freq[i],
                                (long long)a->rope_positions, (long long)b->rope_positions);
    }
    return FKV_OK;
}
