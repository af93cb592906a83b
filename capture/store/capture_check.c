/* What a capture of ours says of itself against what is there: its list of states, its dtype, the
 * columns of a recording, and capture.h5 against the recordings. A copy that was cut short, or
 * mixed with another, then says so instead of giving other numbers. Files of users list nothing. */
#include <string.h>
#include <unistd.h>

#include "capture/store/folder.h"
#include "capture/store/reader.h"
#include "kernels/base/json.h"

/* The states that the options list, as bits; 0: they list none. */
static uint32_t listed_states(const json_t *options) {
    const json_t *states = json_object_get(options, "states");
    uint32_t listed = 0;
    for (size_t i = 0; i < json_array_size(states); i++)
        for (int s = 0; s < FKV_STATES; s++) {
            const char *name = json_string_value(json_array_get(states, i));
            if (name && !strcmp(name, fkv_state_names[s])) listed |= 1u << s;
        }
    return listed;
}

static int check_options(const struct fkv_capture_info *info, struct fkv_error *err) {
    json_t *options = info->options ? json_loads(info->options, 0, NULL) : NULL;
    const uint32_t listed = listed_states(options);
    const json_t *spectra = json_object_get(options, "spectra_only");
    const bool only = json_is_boolean(spectra) ? json_is_true(spectra) : info->spectra_only;
    json_decref(options);
    if (only != info->spectra_only)
        return fkv_fail(err, "attribute options: lists %s, found %s",
                        only ? "sums of spectra" : "states",
                        info->spectra_only ? "sums of spectra" : "states");
    for (int s = 0; listed && s < FKV_STATES; s++) {
        const bool expected = (listed >> s) & 1, found = (info->states >> s) & 1;
        if (expected != found)
            return fkv_fail(err, "attribute options: lists %s%s, found %s",
                            expected ? "the state " : "no state ", fkv_state_names[s],
                            found ? "a dataset of it" : "no dataset of it");
    }
    return FKV_OK;
}

static int check_dtype(hid_t group, enum fkv_dtype listed, struct fkv_error *err) {
    for (int s = 0; s < FKV_STATES; s++) {
        hid_t dataset;
        hsize_t dims[8];
        int rank;
        enum fkv_dtype found = listed;
        if (fkv_hdf_find(group, fkv_state_names[s], &dataset, &rank, dims, err)) return FKV_FAILED;
        if (dataset < 0) continue;
        const int status = fkv_reader_dtype(dataset, fkv_state_names[s], &found, err);
        H5Dclose(dataset);
        if (status) return FKV_FAILED;
        if (found != listed)
            return fkv_fail(err, "%s: the attribute dtype lists %s, found %s", fkv_state_names[s],
                            fkv_dtype_name(listed), fkv_dtype_name(found));
    }
    return FKV_OK;
}

static int check_columns(hid_t group, int64_t n_tokens, struct fkv_error *err) {
    static const char *const columns[] = {"tokens", "nll", "token_class"};
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        hid_t dataset;
        hsize_t dims[8];
        int rank;
        if (fkv_hdf_find(group, columns[i], &dataset, &rank, dims, err)) return FKV_FAILED;
        if (dataset < 0) continue;
        H5Dclose(dataset);
        if (rank != 1)
            return fkv_fail(err, "%s: expected 1 axis [tokens], found %d", columns[i], rank);
        if (fkv_reader_check_dim(columns[i], "tokens (n_tokens)", n_tokens, dims[0], err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_reader_check_listed(hid_t file, const char *group, const struct fkv_capture_info *info,
                            int64_t n_tokens, struct fkv_error *err) {
    struct fkv_capture_info listed;
    hid_t document = H5Gopen2(file, group, H5P_DEFAULT);
    if (document < 0) return fkv_hdf_fail(err, "%s: cannot open the group", group);
    int status = fkv_schema_read_info(file, &listed, err);
    if (status == FKV_OK) status = check_dtype(document, listed.dtype, err);
    if (status == FKV_OK) status = check_columns(document, n_tokens, err);
    if (status == FKV_OK) status = check_options(info, err);
    H5Gclose(document);
    fkv_capture_info_free(&listed);
    return status;
}

int fkv_reader_check_links(const char *folder, const struct fkv_capture_info *info,
                           struct fkv_error *err) {
    struct fkv_capture_info links;
    char path[FKV_PATH];
    if (fkv_path_print(path, err, "%s/" FKV_CAPTURE_LINKS, folder)) return FKV_FAILED;
    if (access(path, F_OK)) return FKV_OK; /* the recordings are enough */
    hid_t file = fkv_hdf_open(path, err);
    if (file < 0) return FKV_FAILED;
    int status =
        fkv_schema_read_info(file, &links, err) ? fkv_error_prefix(err, "%s", path) : FKV_OK;
    H5Fclose(file);
    if (status) return FKV_FAILED;
    links.states = info->states; /* no attribute of them */
    links.spectra_only = info->spectra_only;
    status = fkv_capture_info_compare(&links, info, path, err);
    fkv_capture_info_free(&links);
    return status ? fkv_error_prefix(err, "%s: the recordings beside it", folder) : FKV_OK;
}
