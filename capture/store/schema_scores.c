/* The attributes that say what scores go through besides attention_scale. Captures of models that
 * have neither do not have them.
 *
 *   attention_softcap   float64 cap: scaled scores s become cap tanh(s / cap) (Gemma 2)
 *   layer_window        int64 [layers] tokens that a query of each captured layer sees, its own
 *                       included, 0 for all before it. [n_layers], and one number for all layers,
 *                       are read, too. */
#include <math.h>
#include <stdlib.h>

#include "capture/store/schema.h"

int32_t fkv_capture_window(const struct fkv_capture_info *info, int32_t layer) {
    return info->layer_window ? info->layer_window[layer] : 0;
}

/* ---- writing ---- */

static bool any_window(const struct fkv_capture_info *info) {
    for (int32_t i = 0; i < info->layer_count; i++)
        if (fkv_capture_window(info, i)) return true;
    return false;
}

int fkv_schema_write_scores(hid_t file, const struct fkv_capture_info *info,
                            struct fkv_error *err) {
    const hsize_t layers = (hsize_t)info->layer_count;
    bool failed = (info->attention_softcap > 0 &&
                   fkv_hdf_put_double(file, "attention_softcap", info->attention_softcap, err)) ||
                  (any_window(info) &&
                   fkv_hdf_put_array(file, "layer_window", H5T_STD_I64LE, H5T_NATIVE_INT32, 1,
                                     &layers, info->layer_window, err));
    return failed ? FKV_FAILED : FKV_OK;
}

/* ---- reading ---- */

/* windows [count], of all layers, the captured ones or all alike -> layer_window [layer_count] */
static int take_windows(const int64_t *windows, int64_t count, struct fkv_capture_info *info,
                        struct fkv_error *err) {
    const bool captured = count == info->layer_count;
    if (!captured && count != 1 && count != info->n_layers)
        return fkv_fail(err,
                        "attribute layer_window: expected one number, or one for each of the %d "
                        "captured layers, found %lld",
                        info->layer_count, (long long)count);
    for (int64_t i = 0; i < count; i++)
        if (windows[i] < 0 || windows[i] > INT32_MAX)
            return fkv_fail(err,
                            "attribute layer_window: expected numbers from 0 to %d, found %lld",
                            INT32_MAX, (long long)windows[i]);
    info->layer_window = malloc((size_t)info->layer_count * sizeof *info->layer_window);
    if (!info->layer_window) return fkv_fail(err, "attribute layer_window: out of memory");
    for (int32_t i = 0; i < info->layer_count; i++)
        info->layer_window[i] = (int32_t)windows[captured     ? i
                                                 : count == 1 ? 0
                                                              : info->layer_index[i]];
    return FKV_OK;
}

int fkv_schema_read_scores(hid_t file, struct fkv_capture_info *info, struct fkv_error *err) {
    void *windows = NULL;
    int64_t count = 0;
    if (fkv_hdf_get_double(file, "attention_softcap", &info->attention_softcap, NULL, err) ||
        fkv_hdf_get_numbers(file, "layer_window", H5T_NATIVE_INT64, info->n_layers, &windows,
                            &count, NULL, err))
        return FKV_FAILED;
    int status = windows ? take_windows(windows, count, info, err) : FKV_OK;
    free(windows);
    if (!status && !(info->attention_softcap >= 0 && isfinite(info->attention_softcap)))
        status = fkv_fail(err, "attribute attention_softcap: expected a number from 0, found %g",
                          info->attention_softcap);
    return status;
}

/* ---- comparing ---- */

int fkv_schema_compare_scores(const struct fkv_capture_info *a, const struct fkv_capture_info *b,
                              struct fkv_error *err) {
    if (a->attention_softcap != b->attention_softcap)
        return fkv_fail(err, "attention_softcap: expected %.17g, found %.17g", a->attention_softcap,
                        b->attention_softcap);
    for (int32_t layer = 0; layer < a->layer_count; layer++) {
        const int32_t expected = fkv_capture_window(a, layer), found = fkv_capture_window(b, layer);
        if (expected != found)
            return fkv_fail(err, "layer_window of layer %d: expected %d, found %d",
                            a->layer_index[layer], expected, found);
    }
    return FKV_OK;
}
