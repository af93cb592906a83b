/* The capture reader over files of any structure.
 *
 * Raw bytes are of no use here: libhdf5 1.10 itself crashes, loops and loses memory on hostile ones (its own fuzzers' findings fill CVE lists), and all of that
 * would hide ours. So the bytes drive the shape of a well-formed HDF5 file, level by level: which groups, attributes and datasets there are, of which types, ranks, sizes,
 * layouts and contents. Most choices are the right ones, so that the reader gets deep; every one can be wrong. Damaged bytes are tested in
 * tests/unit/store/test_capture_refusals.c (truncation, flipped bits). Includes hdf5.h because it must write what the store would not. */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/store/capture.h"
#include "capture/store/h5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

enum { MOST_ELEMENTS = 4096, MOST_TOKENS = 4096 };
static char path[64];
static double contents[MOST_ELEMENTS];

/* ---- choices ---- */

struct choices {
    const uint8_t *at;
    size_t left;
};

/* 0 when the input has run out, so that the rest of the file is as it should be. */
static unsigned choose(struct choices *c) {
    if (!c->left) return 0;
    c->left--;
    return *c->at++;
}

/* One choice in 16 is a wrong one; *which then says which. */
static bool wrong(struct choices *c, unsigned *which) {
    unsigned byte = choose(c);
    if ((byte & 15) != 15) return false;
    *which = byte >> 4;
    return true;
}

/* ---- attributes ---- */

enum kind { NUMBER, NUMBERS, TEXT };
struct attribute {
    const char *name;
    enum kind kind;
    double value;
    int count;
    const char *text;
};

static void put(hid_t object, const char *name, hid_t type, hid_t memory, hid_t space, const void *data) {
    hid_t a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (a >= 0) {
        H5Awrite(a, memory, data);
        H5Aclose(a);
    }
    H5Sclose(space);
}

static void put_text(hid_t object, const char *name, const char *text, bool variable) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, variable ? H5T_VARIABLE : strlen(text) + 1);
    if (variable) H5Tset_cset(type, H5T_CSET_UTF8);
    put(object, name, type, type, H5Screate(H5S_SCALAR), variable ? (const void *)&text : text);
    H5Tclose(type);
}

static void put_numbers(hid_t object, const char *name, hid_t type, double value, int count) {
    double values[16];
    hsize_t n = (hsize_t)(count > 16 ? 16 : count);
    for (int i = 0; i < 16; i++) values[i] = value + i;
    put(object, name, type, H5T_NATIVE_DOUBLE, count < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, NULL),
        values);
}

static void put_attribute(struct choices *c, hid_t object, const struct attribute *a) {
    static const double odd[] = {0, -1, 1e9, 3, 65536, 2147483647, -9e18, 0.5};
    unsigned which = 0;
    const int count = a->kind == NUMBERS ? a->count : -1;
    if (!wrong(c, &which)) {
        if (a->kind == TEXT)
            put_text(object, a->name, a->text, true);
        else
            put_numbers(object, a->name, H5T_STD_I64LE, a->value, count);
        return;
    }
    switch (which) {
    case 0: return; /* left out */
    case 1: put_text(object, a->name, "f16", true); return;
    case 2: put_text(object, a->name, "\xff\xfe", false); return;
    case 3: put_numbers(object, a->name, H5T_IEEE_F32BE, NAN, count); return;
    case 4: put_numbers(object, a->name, H5T_STD_U8LE, a->value, 3); return;
    case 5: put_numbers(object, a->name, H5T_STD_I32BE, a->value, 1); return;
    case 6: put(object, a->name, H5T_STD_I32LE, H5T_NATIVE_INT, H5Screate(H5S_NULL), NULL); return;
    case 7: put_text(object, a->name, "", false); return;
    default: put_numbers(object, a->name, H5T_STD_I64LE, odd[which - 8], count); return;
    }
}

/* ---- datasets ---- */

static hid_t half(void) {
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

static void put_dataset(struct choices *c, hid_t group, const char *name, hid_t usual, int rank, const hsize_t *right) {
    hsize_t dims[8] = {1, 1, 1, 1, 1, 1, 1, 1}, elements = 1;
    unsigned which = 0;
    memcpy(dims, right, (size_t)rank * sizeof *dims);
    if (wrong(c, &which)) rank = (int)(which % 7);
    for (int i = 0; i < rank; i++) {
        if (wrong(c, &which)) dims[i] = which;
        elements *= dims[i];
    }
    if (elements > MOST_ELEMENTS) return;
    const hid_t types[] = {H5T_IEEE_F32LE, H5T_IEEE_F64LE, H5T_IEEE_F32BE, H5T_STD_U16LE,
                           H5T_STD_I32LE,  H5T_STD_I64BE,  H5T_STD_U16BE,  H5T_STD_I8LE};
    hid_t halves = half(), type = usual < 0 ? halves : usual;
    if (wrong(c, &which)) type = which < 8 ? types[which] : which < 12 ? halves : H5T_C_S1;
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    unsigned layout = choose(c) & 7;
    if (layout > 3 && elements && rank) {
        hsize_t chunk[8];
        for (int i = 0; i < rank; i++) chunk[i] = 1 + choose(c) % dims[i];
        H5Pset_chunk(list, rank, chunk);
        if (layout > 5) H5Pset_deflate(list, 1);
        if (layout > 4) H5Pset_fletcher32(list);
    }
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (dataset >= 0) {
        unsigned marked = choose(c);
        if (type == H5T_STD_U16LE && marked != 15) put_text(dataset, "dtype", "bf16", marked & 1);
        if (type != H5T_C_S1) {
            contents[0] = wrong(c, &which) ? (which & 1 ? NAN : 1e300) : 1;
            H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, contents);
        }
        H5Dclose(dataset);
    }
    H5Sclose(space);
    H5Pclose(list);
    H5Tclose(halves);
}

/* ---- the file ---- */

static const hsize_t layers = 2, heads = 2, tokens = 12, head_dim = 4, group_size = 2, segment = 5;

static void put_spectra(struct choices *c, hid_t document) {
    hid_t spectra = H5Gcreate2(document, "spectra", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int s = 0; s < FKV_STATES; s++) {
        if (choose(c) & 1) continue;
        const hsize_t h = s == FKV_STATE_QUERY ? heads * group_size : heads;
        const hsize_t dims[3] = {layers, h, segment}, means[3] = {layers, h, head_dim};
        const struct attribute attributes[] = {{"segment_length", NUMBER, (double)segment, 0, NULL},
                                               {"skip_sinks", NUMBER, 4, 0, NULL},
                                               {"segments", NUMBER, 1, 0, NULL}};
        hid_t group = H5Gcreate2(spectra, fkv_state_names[s], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        for (int i = 0; i < 3; i++) put_attribute(c, group, &attributes[i]);
        put_dataset(c, group, "power_sum", H5T_IEEE_F64LE, 3, dims);
        put_dataset(c, group, "power_sum_of_squares", H5T_IEEE_F64LE, 3, dims);
        put_dataset(c, group, "normalised_sum", H5T_IEEE_F64LE, 3, dims);
        put_dataset(c, group, "channel_mean_sum", H5T_IEEE_F64LE, 3, means);
        put_dataset(c, group, "energy_sum", H5T_IEEE_F64LE, 2, dims);
        H5Gclose(group);
    }
    H5Gclose(spectra);
}

static void put_document(struct choices *c, hid_t file, const char *place) {
    static const char hash[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const struct attribute attributes[] = {{"name", TEXT, 0, 0, "a text"},
                                           {"text_sha256", TEXT, 0, 0, hash},
                                           {"n_tokens", NUMBER, (double)tokens, 0, NULL},
                                           {"offset", NUMBER, 0, 0, NULL},
                                           {"beyond_trained_context", NUMBER, 0, 0, NULL}};
    hid_t group = strcmp(place, "/") ? H5Gcreate2(file, place, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)
                                     : H5Gopen2(file, "/", H5P_DEFAULT);
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) put_attribute(c, group, &attributes[i]);
    const unsigned what = choose(c);
    put_dataset(c, group, "tokens", H5T_STD_I32LE, 1, &tokens);
    put_dataset(c, group, "nll", H5T_IEEE_F32LE, 1, &tokens);
    if (what & 128) put_spectra(c, group);
    for (int s = 0; s < FKV_STATES; s++) {
        if (what & 128 ? !(what & 64) : (what >> s) & 1) continue;
        const hsize_t dims[4] = {layers, s == FKV_STATE_QUERY ? heads * group_size : heads, tokens, head_dim};
        put_dataset(c, group, fkv_state_names[s],
                    (what & 48) == 48   ? H5T_STD_U16LE
                    : (what & 48) == 32 ? H5T_IEEE_F64LE
                    : (what & 48) == 16 ? H5T_IEEE_F32LE
                                        : -1,
                    4, dims);
    }
    H5Gclose(group);
}

static void write_file(struct choices *c) {
    static const char hash[] = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const struct attribute attributes[] = {{"format", TEXT, 0, 0, "freqkv-capture"},
                                           {"format_version", NUMBER, 1, 0, NULL},
                                           {"n_layers", NUMBER, (double)layers, 0, NULL},
                                           {"n_kv_heads", NUMBER, (double)heads, 0, NULL},
                                           {"head_dim", NUMBER, (double)head_dim, 0, NULL},
                                           {"n_heads", NUMBER, (double)(heads * group_size), 0, NULL},
                                           {"layer_index", NUMBERS, 0, (int)layers, NULL},
                                           {"head_index", NUMBERS, 0, (int)heads, NULL},
                                           {"model_name", TEXT, 0, 0, "a model"},
                                           {"model_sha256", TEXT, 0, 0, hash},
                                           {"tokenizer_sha256", TEXT, 0, 0, ""},
                                           {"rope_theta", NUMBER, 10000, 0, NULL},
                                           {"rope_scaling", TEXT, 0, 0, "null"},
                                           {"inv_freq", NUMBERS, 1, (int)head_dim / 2, NULL},
                                           {"attention_scale", NUMBER, 1, 0, NULL},
                                           {"trained_context", NUMBER, 1024, 0, NULL},
                                           {"adds_bos", NUMBER, 1, 0, NULL},
                                           {"dtype", TEXT, 0, 0, "f16"},
                                           {"backend", TEXT, 0, 0, "cpu"},
                                           {"options", TEXT, 0, 0, "{}"}};
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    if (choose(c) & 1) H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    if (file < 0) abort();
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) put_attribute(c, file, &attributes[i]);
    switch (choose(c) & 3) {
    case 0: put_document(c, file, "/document"); break;
    case 1: put_document(c, file, "/"); break;
    case 2: {
        hid_t group = H5Gcreate2(file, "documents", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        H5Gclose(group);
        put_document(c, file, "/documents/000000");
        if (choose(c) & 1) put_document(c, file, "/documents/second");
        break;
    }
    default: { /* a link that leads nowhere or to itself, or a dataset where a group should be */
        const char *name = choose(c) & 1 ? "document" : "documents";
        if (choose(c) & 1)
            H5Lcreate_soft(name, file, name, H5P_DEFAULT, H5P_DEFAULT);
        else
            put_dataset(c, file, name, H5T_STD_I32LE, 1, &tokens);
    }
    }
    H5Fclose(file);
}

/* ---- reading ---- */

static void read_states(struct fkv_capture *c, int32_t index) {
    struct fkv_error err;
    const struct fkv_capture_info *info = fkv_capture_info(c);
    const int64_t n = fkv_capture_recording(c, index)->n_tokens;
    for (int s = 0; s < FKV_STATES; s++) {
        const int32_t h = fkv_capture_heads(c, s);
        struct fkv_spectra_sums sums;
        if (fkv_capture_read_sums(c, index, s, &sums, &err) == FKV_OK) fkv_spectra_sums_free(&sums);
        if (h < 1 || (int64_t)h * info->head_dim > MOST_ELEMENTS || n > MOST_TOKENS) continue;
        float *x = malloc((size_t)h * (size_t)n * (size_t)info->head_dim * sizeof *x);
        if (!x) abort();
        for (int32_t layer = 0; layer < info->layer_count && layer < 4; layer++) {
            if (fkv_capture_read_state(c, index, s, layer, 0, h, 0, n, x, &err)) continue;
            for (size_t i = 0; i < (size_t)h * (size_t)n * (size_t)info->head_dim; i++)
                if (!isfinite(x[i])) abort();
            if (fkv_capture_read_state(c, index, s, layer, h - 1, 1, n / 2, n - n / 2, x, &err)) abort();
        }
        free(x);
    }
}

static void read_all(void) {
    struct fkv_error err;
    struct fkv_capture *c;
    err.message[0] = 0;
    if (fkv_capture_open(path, &c, &err)) {
        if (!err.message[0]) abort(); /* a failure without words */
        return;
    }
    for (int32_t i = 0; i < fkv_capture_count(c); i++) {
        const int64_t n = fkv_capture_recording(c, i)->n_tokens;
        bool found;
        void *row = n <= MOST_TOKENS ? malloc((size_t)n * 4) : NULL;
        if (row) {
            fkv_capture_read_tokens(c, i, row, &found, &err);
            fkv_capture_read_nll(c, i, row, &found, &err);
        }
        free(row);
        read_states(c, i);
    }
    if (fkv_capture_info_compare(fkv_capture_info(c), fkv_capture_info(c), path, &err)) abort();
    fkv_capture_close(c);
}

static void read_as_results(void) {
    struct fkv_error err;
    struct fkv_h5_reader *r;
    int64_t dims[8];
    char text[16];
    int rank;
    bool found;
    double value;
    if (fkv_h5_open(path, &r, &err)) return;
    fkv_h5_shape(r, "/document/tokens", &rank, dims, &found, &err);
    fkv_h5_get(r, "/document/key", FKV_H5_F32, MOST_ELEMENTS, contents, &err);
    fkv_h5_get_string(r, "/", "format", text, sizeof text, &found, &err);
    fkv_h5_get_double(r, "/document", "offset", &value, &found, &err);
    fkv_h5_close(r);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    snprintf(path, sizeof path, "%s/fkv-fuzz-%ld.h5", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (long)getpid());
    return 0;
}

/* A file takes a few hundred choices, and an empty input is a whole, correct one: short inputs are drawn out to that length, so that there is something to mutate. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed) {
    const size_t full = most < 200 ? most : 200;
    srand(seed);
    for (; size < full; size++) data[size] = (uint8_t)(rand() & (rand() & 1 ? 0xf0 : 0xff));
    return LLVMFuzzerMutate(data, size, most);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct choices c = {data, size};
    for (int i = 0; i < MOST_ELEMENTS; i++) contents[i] = i % 100;
    write_file(&c);
    read_all();
    read_as_results();
    unlink(path);
    return 0;
}
