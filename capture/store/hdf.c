/* HDF5 wrapped once. Its automatic error printing is off; the innermost entry of its error stack
 * goes into our messages, cut down to the operating system's words where it holds them. Times are
 * never stored, so that the same data gives the same bytes. Advisory locks are off: they fail on
 * many cluster file systems, and files here never change once they have their name. */
#include "capture/store/hdf.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/path.h"

/* So many attributes of a file stay in its header: HDF5's 8, and a tree beyond that, take a tenth
 * more of the time in which a recording begins. */
enum { CHUNK_BYTES = 1 << 20, MOST_ATTRIBUTES = 64 };

static herr_t take_innermost(unsigned n, const H5E_error2_t *entry, void *text) {
    const char *words = entry->desc ? entry->desc : "",
               *system = strstr(words, "error message = '");
    if (system) {
        words = system + strlen("error message = '");
        snprintf(text, 256, "%.*s", (int)strcspn(words, "'"), words);
    } else {
        snprintf(text, 256, "%s", words);
    }
    return n == 0 ? 1 : 0;
}

int fkv_hdf_fail(struct fkv_error *err, const char *format, ...) {
    char text[FKV_PATH + 256], inner[256] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, inner);
    return fkv_fail(err, "%s%s%s", text, *inner ? ": " : "", inner);
}

/* ---- files ---- */

static hid_t access_list(bool image) {
    /* After a write that failed, HDF5 1.10's own clean-up at exit follows pointers into what
     * H5Fclose has freed already. There is nothing for it to do: whoever opens a file here closes
     * it. */
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
    /* An image is taken of an open file. Newer superblocks mark it as open, and H5Fget_file_image
     * takes the mark out without renewing the checksum over it; the first version has neither. */
    if (image) {
        H5Pset_libver_bounds(list, H5F_LIBVER_EARLIEST, H5F_LIBVER_V18);
        H5Pset_fapl_core(list, 16 << 20, false);
    } else {
        H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110);
        H5Pset_file_locking(list, false, true);
    }
    return list;
}

hid_t fkv_hdf_create(const char *path, bool image, struct fkv_error *err) {
    hid_t access = access_list(image), creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(creation, false);
    H5Pset_attr_phase_change(creation, MOST_ATTRIBUTES, 0);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    if (file < 0) fkv_hdf_fail(err, "%s: cannot create", path);
    H5Pclose(creation);
    H5Pclose(access);
    return file;
}

/* Strings lie in "global heaps", the one structure of HDF5 without a checksum, and 1.10 copies as
 * many bytes as a damaged object there claims to have. So the chain of objects in every heap near
 * the start, where files with string attributes have theirs, must fill its heap exactly: index (2
 * bytes), references (2), 4 reserved, size (8), data to a multiple of 8; index 0 is the free rest,
 * whose size counts its header. */
static bool heap_is_sound(FILE *f, size_t start) {
    enum { MOST = 16 << 20 }; /* several times what Linux takes as a command line */
    uint64_t size = 0;
    if (fseek(f, (long)start + 8, SEEK_SET) || fread(&size, sizeof size, 1, f) != 1 || size > MOST)
        return false;
    uint8_t *heap = malloc(size + 1);
    bool sound = heap && !fseek(f, (long)start, SEEK_SET) && fread(heap, 1, size, f) == size;
    for (uint64_t at = 16, object; sound && at + 16 <= size;) {
        const bool rest = !heap[at] && !heap[at + 1];
        memcpy(&object, heap + at + 8, sizeof object);
        sound = object <= size - at;
        if (!sound) break;
        at += rest ? object : 16 + (object + 7) / 8 * 8;
        sound = at <= size && (!rest || (object >= 16 && at == size));
    }
    free(heap);
    return sound;
}

static int check_heaps(const char *path, struct fkv_error *err) {
    enum { LOOK = 64 << 10 };
    uint8_t *head = malloc(LOOK);
    FILE *f = head ? fopen(path, "rb") : NULL;
    const size_t bytes = f ? fread(head, 1, LOOK, f) : 0;
    int status = FKV_OK;
    for (const uint8_t *at = head;
         bytes && !status && (at = memmem(at, bytes - (size_t)(at - head), "GCOL\1\0\0\0", 8));
         at++)
        if (!heap_is_sound(f, (size_t)(at - head)))
            status = fkv_fail(
                err, "%s: cannot open as HDF5: the heap of its strings at byte %zu is damaged",
                path, (size_t)(at - head));
    if (f) fclose(f);
    free(head);
    return status;
}

hid_t fkv_hdf_open(const char *path, struct fkv_error *err) {
    if (check_heaps(path, err)) return H5I_INVALID_HID;
    hid_t access = access_list(false);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (file < 0) fkv_hdf_fail(err, "%s: cannot open as HDF5", path);
    H5Pclose(access);
    return file;
}

int fkv_hdf_close(hid_t file, const char *path, struct fkv_error *err) {
    int status =
        H5Fflush(file, H5F_SCOPE_LOCAL) < 0 ? fkv_hdf_fail(err, "%s: cannot write", path) : FKV_OK;
    if (H5Fclose(file) < 0 && status == FKV_OK)
        status = fkv_hdf_fail(err, "%s: cannot close", path);
    return status;
}

/* ---- types ---- */

hid_t fkv_hdf_f16(void) {
    static hid_t type = H5I_INVALID_HID;
    if (type >= 0) return type;
    type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

/* UTF-8 of any length: h5py reads a str. */
static hid_t string_type(void) {
    static hid_t type = H5I_INVALID_HID;
    if (type >= 0) return type;
    type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

static hid_t bool_type(void) {
    static hid_t type = H5I_INVALID_HID;
    if (type >= 0) return type;
    const int8_t no = 0, yes = 1;
    type = H5Tenum_create(H5T_STD_I8LE);
    H5Tenum_insert(type, "FALSE", &no);
    H5Tenum_insert(type, "TRUE", &yes);
    return type;
}

/* ---- groups and datasets ---- */

static hid_t make_group(hid_t parent, const char *path) {
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(creation, false);
    hid_t group = H5Gcreate2(parent, path, H5P_DEFAULT, creation, H5P_DEFAULT);
    H5Pclose(creation);
    return group;
}

/* The groups above `path`. HDF5 would make them, too, but with the time at which it does so, and
 * what has the same contents should have the same bytes. A failure shows in what follows. */
static void make_groups_above(hid_t parent, const char *path) {
    char above[256];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
        if (slash > path && H5Lexists(parent, above, H5P_DEFAULT) == 0)
            H5Gclose(make_group(parent, above));
    }
}

hid_t fkv_hdf_group(hid_t parent, const char *path, struct fkv_error *err) {
    make_groups_above(parent, path);
    hid_t group = make_group(parent, path);
    if (group < 0) fkv_hdf_fail(err, "%s: cannot make the group", path);
    return group;
}

hid_t fkv_hdf_dataset(hid_t parent, const char *name, hid_t type, int rank, const hsize_t *dims,
                      const hsize_t *chunk, struct fkv_error *err) {
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    make_groups_above(parent, name);
    H5Pset_obj_track_times(creation, false);
    if (rank > 0 && chunk) {
        H5Pset_chunk(creation, rank, chunk);
        H5Pset_fletcher32(creation);
    }
    H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
    hid_t space = rank > 0 ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t dataset = H5Dcreate2(parent, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (dataset < 0) fkv_hdf_fail(err, "%s: cannot make the dataset", name);
    H5Sclose(space);
    H5Pclose(creation);
    return dataset;
}

/* Whole trailing axes as far as they fit in CHUNK_BYTES, then a part of the next one, then ones. An
 * empty array has no chunks. */
static bool chunk_for(hid_t type, int rank, const hsize_t *dims, hsize_t chunk[8]) {
    hsize_t bytes = H5Tget_size(type);
    for (int i = rank - 1; i >= 0; i--) {
        if (dims[i] == 0) return false;
        hsize_t fit = CHUNK_BYTES / bytes;
        chunk[i] = dims[i] < fit ? dims[i] : fit ? fit : 1;
        bytes *= chunk[i];
    }
    return true;
}

int fkv_hdf_put(hid_t parent, const char *name, hid_t file_type, hid_t memory_type, int rank,
                const hsize_t *dims, const void *data, struct fkv_error *err) {
    hsize_t chunk[8];
    bool filled = chunk_for(file_type, rank, dims, chunk);
    hid_t dataset =
        fkv_hdf_dataset(parent, name, file_type, rank, dims, filled ? chunk : NULL, err);
    if (dataset < 0) return FKV_FAILED;
    int status = FKV_OK;
    if (filled && H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        status = fkv_hdf_fail(err, "%s: cannot write", name);
    if (H5Dclose(dataset) < 0 && status == FKV_OK)
        status = fkv_hdf_fail(err, "%s: cannot write", name);
    return status;
}

int fkv_hdf_find(hid_t parent, const char *name, hid_t *dataset, int *rank, hsize_t dims[8],
                 struct fkv_error *err) {
    *dataset = H5I_INVALID_HID;
    if (H5Lexists(parent, name, H5P_DEFAULT) <= 0) return FKV_OK;
    hid_t object = H5Oopen(parent, name, H5P_DEFAULT);
    if (object < 0) return fkv_hdf_fail(err, "%s: cannot open", name);
    hid_t space = H5Iget_type(object) == H5I_DATASET ? H5Dget_space(object) : H5I_INVALID_HID;
    int found = space >= 0 && H5Sget_simple_extent_type(space) != H5S_NULL
                    ? H5Sget_simple_extent_ndims(space)
                    : -1;
    int status = FKV_OK;
    if (found < 0 || found > 8)
        status =
            fkv_fail(err, "%s: expected a dataset of up to 8 axes, found something else", name);
    else if (H5Sget_simple_extent_dims(space, dims, NULL) < 0)
        status = fkv_hdf_fail(err, "%s: cannot read its shape", name);
    if (space >= 0) H5Sclose(space);
    if (status) {
        H5Oclose(object);
        return status;
    }
    *rank = found;
    *dataset = object;
    return FKV_OK;
}

static void print_dims(char out[128], int rank, const hsize_t *dims) {
    size_t at = (size_t)snprintf(out, 128, "[");
    for (int i = 0; i < rank && at < 100; i++)
        at += (size_t)snprintf(out + at, 128 - at, i ? ", %llu" : "%llu",
                               (unsigned long long)dims[i]);
    snprintf(out + at, 128 - at, "]");
}

int fkv_hdf_get(hid_t parent, const char *name, hid_t memory_type, int rank,
                const hsize_t *expected, void *data, bool *found, struct fkv_error *err) {
    hid_t dataset;
    int axes = 0;
    hsize_t dims[8];
    if (fkv_hdf_find(parent, name, &dataset, &axes, dims, err)) return FKV_FAILED;
    *found = dataset >= 0;
    if (!*found) return FKV_OK;
    int status = FKV_OK;
    if (axes != rank || memcmp(dims, expected, (size_t)rank * sizeof *dims)) {
        char expected_dims[128], found_dims[128];
        print_dims(expected_dims, rank, expected);
        print_dims(found_dims, axes, dims);
        status =
            fkv_fail(err, "%s: expected the shape %s, found %s", name, expected_dims, found_dims);
    } else if (H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
        status = fkv_hdf_fail(err, "%s: cannot read", name);
    }
    H5Dclose(dataset);
    return status;
}

/* ---- attributes ---- */

int fkv_hdf_put_array(hid_t object, const char *name, hid_t file_type, hid_t memory_type, int rank,
                      const hsize_t *dims, const void *values, struct fkv_error *err) {
    if (H5Aexists(object, name) > 0) H5Adelete(object, name);
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    int status = attribute < 0 || H5Awrite(attribute, memory_type, values) < 0
                     ? fkv_hdf_fail(err, "attribute %s: cannot write", name)
                     : FKV_OK;
    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(space);
    return status;
}

int fkv_hdf_put_string(hid_t object, const char *name, const char *value, struct fkv_error *err) {
    return fkv_hdf_put_array(object, name, string_type(), string_type(), 0, NULL, &value, err);
}

int fkv_hdf_put_int(hid_t object, const char *name, int64_t value, struct fkv_error *err) {
    return fkv_hdf_put_array(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, 0, NULL, &value, err);
}

int fkv_hdf_put_double(hid_t object, const char *name, double value, struct fkv_error *err) {
    return fkv_hdf_put_array(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &value, err);
}

int fkv_hdf_put_bool(hid_t object, const char *name, bool value, struct fkv_error *err) {
    int8_t byte = value;
    return fkv_hdf_put_array(object, name, bool_type(), bool_type(), 0, NULL, &byte, err);
}

/* Opens an attribute with its type's class and its number of elements; H5I_INVALID_HID when it is
 * not there. */
static hid_t find_attribute(hid_t object, const char *name, H5T_class_t *class, int64_t *count) {
    if (H5Aexists(object, name) <= 0) return H5I_INVALID_HID;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0) return attribute;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    *class = H5Tget_class(type);
    *count = (int64_t)H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    H5Tclose(type);
    return attribute;
}

int fkv_hdf_get_string(hid_t object, const char *name, char **value, struct fkv_error *err) {
    H5T_class_t class = H5T_NO_CLASS;
    int64_t count = 0;
    hid_t attribute = find_attribute(object, name, &class, &count);
    if (attribute < 0) return FKV_OK;
    if (class != H5T_STRING || count != 1) {
        H5Aclose(attribute);
        return fkv_fail(err, "attribute %s: expected one string", name);
    }
    hid_t type = H5Aget_type(attribute);
    char *text = NULL;
    int status = FKV_OK;
    if (H5Tis_variable_str(type) >
        0) { /* read in the file's character set: HDF5 refuses to convert between them */
        char *theirs = NULL;
        if (H5Aread(attribute, type, &theirs) < 0)
            status = fkv_hdf_fail(err, "attribute %s: cannot read", name);
        text = strdup(theirs ? theirs : "");
        H5free_memory(theirs);
    } else {
        size_t bytes = H5Tget_size(type);
        text = bytes < 1 << 20 ? calloc(bytes + 1, 1) : NULL;
        if (text && H5Aread(attribute, type, text) < 0)
            status = fkv_hdf_fail(err, "attribute %s: cannot read", name);
    }
    H5Tclose(type);
    H5Aclose(attribute);
    if (!text && status == FKV_OK) status = fkv_fail(err, "attribute %s: out of memory", name);
    if (status) {
        free(text);
        return status;
    }
    *value = text;
    return FKV_OK;
}

int fkv_hdf_get_numbers(hid_t object, const char *name, hid_t memory_type, int64_t limit,
                        void **values, int64_t *count, int64_t *rows, struct fkv_error *err) {
    H5T_class_t class = H5T_NO_CLASS;
    int64_t n = 0;
    hid_t attribute = find_attribute(object, name, &class, &n);
    if (attribute < 0) return FKV_OK;
    hsize_t dims[H5S_MAX_RANK] = {0};
    hid_t space = H5Aget_space(attribute);
    const int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space);
    int status = FKV_OK;
    void *data = NULL;
    bool integer = class == H5T_INTEGER || class == H5T_ENUM;
    bool of_type =
        H5Tget_class(memory_type) == H5T_INTEGER ? integer : integer || class == H5T_FLOAT;
    if (!of_type || n < 1 || n > limit)
        status = fkv_fail(err, "attribute %s: expected 1 to %lld numbers, found %lld %s", name,
                          (long long)limit, (long long)n,
                          of_type ? "of them" : "values of another type");
    else if (rows && rank > 2)
        status = fkv_fail(err, "attribute %s: expected 1 or 2 axes, found %d", name, rank);
    else if (!(data = calloc((size_t)n, 8)))
        status = fkv_fail(err, "attribute %s: out of memory", name);
    else if (H5Aread(attribute, memory_type, data) < 0)
        status = fkv_hdf_fail(err, "attribute %s: cannot read", name);
    H5Aclose(attribute);
    if (status) {
        free(data);
        return status;
    }
    *values = data;
    *count = n;
    if (rows) *rows = rank == 2 ? (int64_t)dims[0] : 0;
    return FKV_OK;
}

/* MATLAB and others write every number as a double. */
static int get_whole_double(hid_t object, const char *name, int64_t *value, struct fkv_error *err) {
    double number = 0;
    if (fkv_hdf_get_double(object, name, &number, NULL, err)) return FKV_FAILED;
    if (!(fabs(number) <= 0x1p53) || number != floor(number))
        return fkv_fail(err, "attribute %s: expected an integer, found %g", name, number);
    *value = (int64_t)number;
    return FKV_OK;
}

int fkv_hdf_get_int(hid_t object, const char *name, int64_t low, int64_t high, int64_t *value,
                    struct fkv_error *err) {
    void *numbers = NULL;
    int64_t count = 0, number = 0;
    H5T_class_t class = H5T_NO_CLASS;
    hid_t attribute = find_attribute(object, name, &class, &count);
    if (attribute < 0) return FKV_OK;
    H5Aclose(attribute);
    if (class == H5T_FLOAT) {
        if (get_whole_double(object, name, &number, err)) return FKV_FAILED;
    } else {
        if (fkv_hdf_get_numbers(object, name, H5T_NATIVE_INT64, 1, &numbers, &count, NULL, err))
            return FKV_FAILED;
        number = *(int64_t *)numbers;
        free(numbers);
    }
    if (number < low || number > high)
        return fkv_fail(err, "attribute %s: expected %lld to %lld, found %lld", name,
                        (long long)low, (long long)high, (long long)number);
    *value = number;
    return FKV_OK;
}

int fkv_hdf_get_double(hid_t object, const char *name, double *value, bool *found,
                       struct fkv_error *err) {
    void *numbers = NULL;
    int64_t count = 0;
    if (fkv_hdf_get_numbers(object, name, H5T_NATIVE_DOUBLE, 1, &numbers, &count, NULL, err))
        return FKV_FAILED;
    if (found) *found = numbers;
    if (numbers) *value = *(double *)numbers;
    free(numbers);
    return FKV_OK;
}
