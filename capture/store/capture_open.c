/* Opening captures: a folder, its capture.h5, or any single .h5 with the same groups. Everything
 * that shapes are derived from is checked here: attributes, ranks, dims that agree with each other,
 * number formats. After that a read fails only on damaged data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "capture/store/capture_reader.h"
#include "capture/store/folder.h"
#include "capture/store/reader.h"

/* ---- number formats ---- */

int fkv_reader_dtype(hid_t dataset, const char *name, enum fkv_dtype *dtype,
                     struct fkv_error *err) {
    hid_t type = H5Dget_type(dataset);
    H5T_class_t class = H5Tget_class(type);
    size_t bytes = H5Tget_size(type);
    bool half = class == H5T_FLOAT && H5Tequal(type, fkv_hdf_f16()) > 0, brain = false;
    H5Tclose(type);
    if (class == H5T_INTEGER && bytes == 2) {
        char *text = NULL;
        if (fkv_hdf_get_string(dataset, "dtype", &text, err))
            return fkv_error_prefix(err, "%s", name);
        brain = text ? fkv_schema_names_bf16(text) : *dtype == FKV_BF16;
        free(text);
    }
    if (class != H5T_FLOAT && !brain)
        return fkv_fail(err,
                        "%s: expected float16, float32, float64, or uint16 with the attribute "
                        "dtype \"bf16\", found %s",
                        name, class == H5T_INTEGER ? "integers" : "another type");
    *dtype = half ? FKV_F16 : brain ? FKV_BF16 : FKV_F32;
    return FKV_OK;
}

/* h5py compresses in ways that only h5py reads (LZF), and plugins do; gzip is everywhere. Names
 * what is missing. */
static int check_filters(hid_t dataset, const char *name, struct fkv_error *err) {
    hid_t creation = H5Dget_create_plist(dataset);
    int status = FKV_OK, count = H5Pget_nfilters(creation);
    for (int i = 0; i < count && !status; i++) {
        char filter[64] = "";
        size_t none = 0;
        unsigned flags, config;
        H5Z_filter_t id = H5Pget_filter2(creation, (unsigned)i, &flags, &none, NULL, sizeof filter,
                                         filter, &config);
        if (H5Zfilter_avail(id) <= 0)
            status = fkv_fail(
                err,
                "%s: expected no compression or gzip, found %s (HDF5 filter %d), which is not here",
                name, *filter ? filter : "another", (int)id);
    }
    H5Pclose(creation);
    return status;
}

/* ---- opening ---- */

int fkv_reader_check_dim(const char *name, const char *axis, int64_t expected, hsize_t found,
                         struct fkv_error *err) {
    if ((hsize_t)expected == found) return FKV_OK;
    return fkv_fail(err, "%s: expected %lld %s, found %llu", name, (long long)expected, axis,
                    (unsigned long long)found);
}

/* Checks one state's dataset against info, sets its bit and T. T < 0: not known yet. */
static int check_state(hid_t group, enum fkv_state state, struct fkv_capture_info *info,
                       int64_t *n_tokens, struct fkv_error *err) {
    const char *name = fkv_state_names[state];
    hid_t dataset;
    hsize_t dims[8];
    int rank = 0;
    if (fkv_hdf_find(group, name, &dataset, &rank, dims, err)) return FKV_FAILED;
    if (dataset < 0) return FKV_OK;
    int status =
        fkv_reader_dtype(dataset, name, &info->dtype, err) || check_filters(dataset, name, err);
    H5Dclose(dataset);
    if (status) return status;
    if (rank != 4)
        return fkv_fail(err, "%s: expected 4 axes [layers, heads, tokens, head_dim], found %d",
                        name, rank);
    if (state == FKV_STATE_QUERY) fkv_schema_infer_heads(info, dims[1]);
    if (dims[2] < 1 || dims[2] > INT32_MAX)
        return fkv_fail(err, "%s: expected 1 to %d tokens, found %llu", name, INT32_MAX,
                        (unsigned long long)dims[2]);
    if (*n_tokens < 0) *n_tokens = (int64_t)dims[2];
    info->states |= 1u << state;
    return fkv_reader_check_dim(name, "layers (n_layers, or the length of layer_index)",
                                info->layer_count, dims[0], err) ||
                   fkv_reader_check_dim(name, "heads (n_kv_heads, or the length of head_index)",
                                        fkv_capture_state_heads(info, state), dims[1], err) ||
                   fkv_reader_check_dim(name, "tokens", *n_tokens, dims[2], err) ||
                   fkv_reader_check_dim(name, "channels (head_dim)", info->head_dim, dims[3], err)
               ? FKV_FAILED
               : FKV_OK;
}

static int check_spectra(hid_t group, struct fkv_capture_info *info, struct fkv_error *err) {
    if (H5Lexists(group, "spectra", H5P_DEFAULT) <= 0) return FKV_OK;
    hid_t spectra = H5Gopen2(group, "spectra", H5P_DEFAULT);
    if (spectra < 0) return fkv_hdf_fail(err, "spectra: expected a group");
    for (int s = 0; s < FKV_STATES; s++)
        if (H5Lexists(spectra, fkv_state_names[s], H5P_DEFAULT) > 0) info->states |= 1u << s;
    H5Gclose(spectra);
    info->spectra_only = true;
    return FKV_OK;
}

/* A text attribute, `fallback` where there is none -> out [bytes]. */
static int get_text(hid_t group, const char *name, const char *fallback, char *out, size_t bytes,
                    struct fkv_error *err) {
    char *text = NULL;
    if (fkv_hdf_get_string(group, name, &text, err)) return FKV_FAILED;
    const int length = snprintf(out, bytes, "%s", text ? text : fallback);
    free(text);
    if (length < (int)bytes) return FKV_OK;
    return fkv_fail(err, "attribute %s: expected at most %zu bytes, found %d", name, bytes - 1,
                    length);
}

static int read_recording(hid_t group, const char *fallback_name, struct fkv_capture_info *info,
                          struct fkv_recording *r, struct fkv_error *err) {
    int64_t n_tokens = -1, beyond = 0;
    *r = (struct fkv_recording){0};
    if (get_text(group, "name", fallback_name, r->name, sizeof r->name, err) ||
        get_text(group, "text_sha256", "", r->text_sha256, sizeof r->text_sha256, err))
        return FKV_FAILED;
    if (fkv_hdf_get_int(group, "n_tokens", 1, INT32_MAX, &n_tokens, err) ||
        fkv_hdf_get_int(group, "offset", 0, INT64_MAX, &r->offset, err) ||
        fkv_hdf_get_int(group, "beyond_trained_context", 0, 1, &beyond, err))
        return FKV_FAILED;
    info->states = 0;
    info->spectra_only = false;
    for (enum fkv_state s = 0; s < FKV_STATES; s++)
        if (check_state(group, s, info, &n_tokens, err)) return FKV_FAILED;
    if (!info->states && check_spectra(group, info, err)) return FKV_FAILED;
    if (!info->states)
        return fkv_fail(
            err, "expected key, value, key_rotated or query, or spectra of them, found none");
    if (n_tokens < 0) return fkv_fail(err, "attribute n_tokens: expected a number, found none");
    r->n_tokens = n_tokens;
    r->beyond_trained_context =
        beyond || (info->trained_context > 0 && n_tokens > info->trained_context);
    return FKV_OK;
}

static int add_entry(struct fkv_capture *c, const char *file, const char *group, hid_t id,
                     bool whole_file, struct fkv_capture_info *info, struct fkv_error *err) {
    if (c->count == c->capacity) {
        int32_t capacity = 2 * c->capacity + 16;
        struct entry *larger = realloc(c->entries, (size_t)capacity * sizeof *larger);
        if (!larger) return fkv_fail(err, "%s: out of memory", file);
        c->entries = larger;
        c->capacity = capacity;
    }
    struct entry *e = &c->entries[c->count];
    *e = (struct entry){.file = strdup(file), .group = strdup(group), .whole_file = whole_file};
    c->count++;
    if (!e->file || !e->group) return fkv_fail(err, "%s: out of memory", file);
    hid_t opened = H5Gopen2(id, group, H5P_DEFAULT);
    if (opened < 0) return fkv_hdf_fail(err, "%s: %s: cannot open the group", file, group);
    const char *slash = strrchr(*group == '/' ? file : group, '/');
    uint32_t states = info->states;
    bool first = !states;
    int status = read_recording(opened, slash ? slash + 1 : group, info, &e->recording, err);
    H5Gclose(opened);
    if (status == FKV_OK && !first && states != info->states)
        status = fkv_fail(err, "expected the same states as in the recordings before");
    return status ? fkv_error_prefix(err, "%s: %s", file, group) : FKV_OK;
}

/* The recordings under /documents, in the order of their names. */
static int add_documents(struct fkv_capture *c, const char *file, hid_t id,
                         struct fkv_capture_info *info, struct fkv_error *err) {
    H5G_info_t found;
    if (H5Gget_info_by_name(id, FKV_CAPTURE_DOCUMENTS, &found, H5P_DEFAULT) < 0)
        return fkv_hdf_fail(err, "%s: " FKV_CAPTURE_DOCUMENTS ": expected a group", file);
    if (found.nlinks < 1)
        return fkv_fail(err, "%s: " FKV_CAPTURE_DOCUMENTS ": expected recordings, found none",
                        file);
    for (hsize_t i = 0; i < found.nlinks; i++) {
        char group[256] = FKV_CAPTURE_DOCUMENTS "/";
        const size_t at = strlen(group);
        ssize_t length = H5Lget_name_by_idx(id, FKV_CAPTURE_DOCUMENTS, H5_INDEX_NAME, H5_ITER_INC,
                                            i, group + at, sizeof group - at, H5P_DEFAULT);
        if (length < 0)
            return fkv_hdf_fail(err, "%s: " FKV_CAPTURE_DOCUMENTS ": cannot list it", file);
        if ((size_t)length >= sizeof group - at)
            return fkv_fail(err, "%s: %s...: expected a name of at most %zu bytes, found %zd", file,
                            group, sizeof group - at - 1, length);
        if (add_entry(c, file, group, id, false, info, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int hold_gram(struct fkv_capture *c, const char *file, struct fkv_error *err) {
    free(c->gram);
    c->gram = strdup(file);
    return c->gram ? FKV_OK : fkv_fail(err, "%s: out of memory", c->path);
}

/* The recording that was added last, in a file of ours. */
static int check_listed(struct fkv_capture *c, hid_t file, const struct fkv_capture_info *info,
                        struct fkv_error *err) {
    const struct entry *e = &c->entries[c->count - 1];
    if (!e->whole_file ||
        fkv_reader_check_listed(file, e->group, info, e->recording.n_tokens, err) == FKV_OK)
        return FKV_OK;
    return fkv_error_prefix(err, "%s", e->file);
}

static int add_file(struct fkv_capture *c, const char *file, struct fkv_error *err) {
    hid_t id = fkv_hdf_open(file, err);
    if (id < 0) return FKV_FAILED;
    struct fkv_capture_info info;
    int status = fkv_schema_read_info(id, &info, err) ? fkv_error_prefix(err, "%s", file) : FKV_OK;
    bool ours = H5Aexists(id, "format") > 0, first = c->count == 0;
    if (status == FKV_OK) {
        if (H5Lexists(id, "document", H5P_DEFAULT) > 0)
            status = add_entry(c, file, "document", id, ours, &info, err);
        else if (H5Lexists(id, FKV_CAPTURE_DOCUMENTS, H5P_DEFAULT) > 0)
            status = add_documents(c, file, id, &info, err);
        else
            status = add_entry(c, file, "/", id, false, &info, err);
    }
    if (status == FKV_OK && ours) status = check_listed(c, id, &info, err);
    bool gram = false;
    if (status == FKV_OK && fkv_output_gram_check(id, &info, &gram, err))
        status = fkv_error_prefix(err, "%s", file);
    if (status == FKV_OK && gram) status = hold_gram(c, file, err);
    if (status == FKV_OK && !first) status = fkv_capture_info_compare(&c->info, &info, file, err);
    if (status == FKV_OK && first) {
        c->info = info;
        info = (struct fkv_capture_info){0};
    }
    fkv_capture_info_free(&info);
    H5Fclose(id);
    return status;
}

static int add_folder(struct fkv_capture *c, const char *folder, bool whole,
                      struct fkv_error *err) {
    char file[FKV_PATH];
    int64_t *numbers, count;
    if (whole && fkv_folder_check_links(folder, err)) return FKV_FAILED;
    if (fkv_folder_list(folder, &numbers, &count, err)) return FKV_FAILED;
    int status =
        count
            ? FKV_OK
            : fkv_fail(err, "%s: expected recordings documents/000000.h5, ..., found none", folder);
    for (int64_t i = 0; i < count && status == FKV_OK; i++) {
        status = fkv_folder_document(file, folder, numbers[i], false, err) || add_file(c, file, err)
                     ? FKV_FAILED
                     : FKV_OK;
    }
    free(numbers);
    bool gram = false;
    if (status == FKV_OK) status = fkv_reader_check_links(folder, &c->info, err);
    if (status == FKV_OK) status = fkv_output_gram_check_folder(folder, &c->info, &gram, err);
    if (status || !gram) return status;
    return fkv_folder_output_gram(file, folder, false, err) ? FKV_FAILED : hold_gram(c, file, err);
}

/* capture.h5 means its folder, which is right even where it is older than the
 * recordings. */
static char *folder_of_links(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (strcmp(name, FKV_CAPTURE_LINKS)) return NULL;
    char *folder = slash ? strndup(path, (size_t)(slash - path) + (slash == path)) : strdup(".");
    int64_t *numbers, count = 0;
    if (folder && fkv_folder_list(folder, &numbers, &count, NULL) == FKV_OK) free(numbers);
    if (count) return folder;
    free(folder);
    return NULL;
}

static void describe_info(const struct fkv_capture_info *info, FILE *f) {
    fprintf(f, "%s %s %s states %x sums %d\nlayers", info->model_sha256,
            info->options ? info->options : "", fkv_dtype_name(info->dtype), info->states,
            info->spectra_only);
    for (int32_t i = 0; i < info->layer_count; i++) fprintf(f, " %d", info->layer_index[i]);
    fprintf(f, "\nheads");
    for (int32_t i = 0; i < info->head_count; i++) fprintf(f, " %d", info->head_index[i]);
    fprintf(f, "\n");
}

/* Model, options and texts decide what our captures hold. A user's own file says nothing of the
 * kind: its size and time of change stand in for its contents. */
static int identify(struct fkv_capture *c, struct fkv_error *err) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return fkv_fail(err, "%s: out of memory", c->path);
    describe_info(&c->info, f);
    for (int32_t i = 0; i < c->count; i++) {
        const struct entry *e = &c->entries[i];
        const struct fkv_recording *r = &e->recording;
        struct stat file;
        fprintf(f, "%s %lld %lld\n", *r->text_sha256 ? r->text_sha256 : r->name,
                (long long)r->offset, (long long)r->n_tokens);
        if (!*r->text_sha256 && !stat(e->file, &file))
            fprintf(f, "%lld %lld.%09ld\n", (long long)file.st_size, (long long)file.st_mtim.tv_sec,
                    file.st_mtim.tv_nsec);
    }
    int status = fclose(f) ? fkv_fail(err, "%s: out of memory", c->path)
                           : fkv_sha256_memory(text, bytes, c->sha256, err);
    free(text);
    return status;
}

static int open_capture(const char *path, bool whole, struct fkv_capture **out,
                        struct fkv_error *err) {
    *out = NULL;
    struct stat found;
    if (stat(path, &found)) return fkv_fail_errno(err, "%s: cannot open", path);
    struct fkv_capture *c = calloc(1, sizeof *c);
    if (!c || !(c->path = strdup(path))) {
        free(c);
        return fkv_fail(err, "%s: out of memory", path);
    }
    c->current = -1;
    c->file = c->group = H5I_INVALID_HID;
    for (int s = 0; s < FKV_STATES; s++) c->states[s].dataset = H5I_INVALID_HID;
    char *folder = S_ISDIR(found.st_mode) ? NULL : folder_of_links(path);
    int status = S_ISDIR(found.st_mode) ? add_folder(c, path, whole, err)
                 : folder               ? add_folder(c, folder, whole, err)
                                        : add_file(c, path, err);
    free(folder);
    if (status || identify(c, err)) {
        fkv_capture_close(c);
        return FKV_FAILED;
    }
    *out = c;
    return FKV_OK;
}

int fkv_capture_open(const char *path, struct fkv_capture **out, struct fkv_error *err) {
    return open_capture(path, true, out, err);
}

int fkv_capture_open_partial(const char *path, struct fkv_capture **out, struct fkv_error *err) {
    return open_capture(path, false, out, err);
}

void fkv_reader_close_recording(struct fkv_capture *c) {
    for (int s = 0; s < FKV_STATES; s++) {
        if (c->states[s].dataset >= 0) H5Dclose(c->states[s].dataset);
        c->states[s].dataset = H5I_INVALID_HID;
    }
    if (c->group >= 0) H5Gclose(c->group);
    c->group = H5I_INVALID_HID;
    c->current = -1;
}

void fkv_reader_close_file(struct fkv_capture *c) {
    fkv_reader_close_recording(c);
    if (c->file >= 0) H5Fclose(c->file);
    c->file = H5I_INVALID_HID;
    c->open_file = NULL;
}

void fkv_capture_close(struct fkv_capture *c) {
    if (!c) return;
    fkv_reader_close_file(c);
    for (int32_t i = 0; i < c->count; i++) {
        free(c->entries[i].file);
        free(c->entries[i].group);
    }
    free(c->entries);
    fkv_capture_info_free(&c->info);
    free(c->scratch);
    free(c->chunk);
    free(c->gram);
    free(c->path);
    free(c);
}

const struct fkv_capture_info *fkv_capture_info(const struct fkv_capture *c) { return &c->info; }
int32_t fkv_capture_count(const struct fkv_capture *c) { return c->count; }
const struct fkv_recording *fkv_capture_recording(const struct fkv_capture *c, int32_t index) {
    return &c->entries[index].recording;
}
int32_t fkv_capture_heads(const struct fkv_capture *c, enum fkv_state state) {
    return fkv_capture_state_heads(&c->info, state);
}
const char *fkv_capture_path(const struct fkv_capture *c) { return c->path; }
int64_t fkv_capture_file_bytes(const struct fkv_capture *c) {
    int64_t bytes = 0;
    struct stat file;
    for (int32_t i = 0; i < c->count; i++)
        if ((i == 0 || strcmp(c->entries[i].file, c->entries[i - 1].file)) &&
            !stat(c->entries[i].file, &file))
            bytes += file.st_size;
    return bytes;
}
const char *fkv_capture_sha256(const struct fkv_capture *c) { return c->sha256; }
const char *fkv_capture_own_file(const struct fkv_capture *c, int32_t index) {
    return c->entries[index].whole_file ? c->entries[index].file : NULL;
}
