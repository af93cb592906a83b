/* Well-formed HDF5 files of any structure, drawn from a fuzzer's bytes: what the fuzzers of our
 * readers share. One translation unit each, so that this header also holds what libFuzzer calls.
 *
 * Raw bytes are of no use here: libhdf5 1.10 itself crashes, loops and loses memory on hostile ones
 * (its own fuzzers' findings fill CVE lists), and all of that would hide ours. So the bytes drive
 * the shape of a well-formed file, level by level: which attributes and datasets there are, of
 * which types, ranks, sizes, layouts and contents. Most choices are the right ones, so that a
 * reader gets deep; every one can be wrong, and an input that has run out leaves the rest of the
 * file as it should be. Includes hdf5.h because it must write what the store would not. */
#ifndef FKV_FUZZ_HDF_FILE_H
#define FKV_FUZZ_HDF_FILE_H

#include <hdf5.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

enum { MOST_ELEMENTS = 4096 };
static char path[64]; /* of the file that is written and read again and again */

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    snprintf(path, sizeof path, "%s/fkv-fuzz-%ld.h5",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (long)getpid());
    return 0;
}

/* A file takes a few hundred choices, and an empty input is a whole, correct one: short inputs are
 * drawn out to that length, so that there is something to mutate. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed) {
    const size_t full = most < 200 ? most : 200;
    srand(seed);
    for (; size < full; size++) data[size] = (uint8_t)(rand() & (rand() & 1 ? 0xf0 : 0xff));
    return LLVMFuzzerMutate(data, size, most);
}

/* ---- choices ---- */

struct choices {
    const uint8_t *at;
    size_t left;
};

/* 0 when the input has run out. */
static inline unsigned choose(struct choices *c) {
    if (!c->left) return 0;
    c->left--;
    return *c->at++;
}

/* One choice in 16 is a wrong one; *which then says which. */
static inline bool wrong(struct choices *c, unsigned *which) {
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

static inline void put(hid_t object, const char *name, hid_t type, hid_t memory, hid_t space,
                       const void *data) {
    hid_t a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (a >= 0) {
        H5Awrite(a, memory, data);
        H5Aclose(a);
    }
    H5Sclose(space);
}

static inline void put_text(hid_t object, const char *name, const char *text, bool variable) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, variable ? H5T_VARIABLE : strlen(text) + 1);
    if (variable) H5Tset_cset(type, H5T_CSET_UTF8);
    put(object, name, type, type, H5Screate(H5S_SCALAR), variable ? (const void *)&text : text);
    H5Tclose(type);
}

static inline void put_numbers(hid_t object, const char *name, hid_t type, double value,
                               int count) {
    double values[16];
    hsize_t n = (hsize_t)(count > 16 ? 16 : count);
    for (int i = 0; i < 16; i++) values[i] = value + i;
    put(object, name, type, H5T_NATIVE_DOUBLE,
        count < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, NULL), values);
}

static inline void put_attribute(struct choices *c, hid_t object, const struct attribute *a) {
    static const double odd[] = {0, -1, 1e9, 3, 65536, 2147483647, -9e18, 0.5};
    unsigned which = 0;
    const int count = a->kind == NUMBERS ? a->count : -1;
    if (!wrong(c, &which)) {
        if (a->kind == TEXT)
            put_text(object, a->name, a->text, true);
        else
            put_numbers(object, a->name,
                        a->value == floor(a->value) ? H5T_STD_I64LE : H5T_IEEE_F64LE, a->value,
                        count);
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

static inline void put_attributes(struct choices *c, hid_t object, const struct attribute *all,
                                  size_t count) {
    for (size_t i = 0; i < count; i++) put_attribute(c, object, &all[i]);
}

/* ---- datasets ---- */

static inline hid_t half(void) {
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

/* A quarter of what is wrong about a length is that nobody could hold it. */
static inline hsize_t wrong_length(unsigned which) {
    static const hsize_t huge[] = {(hsize_t)1 << 22, (hsize_t)1 << 31, (hsize_t)1 << 45,
                                   (hsize_t)1 << 62};
    return which < 12 ? which : huge[which - 12];
}

/* Chunks of any size; of a dataset that is not written, one element each. */
static inline void choose_layout(struct choices *c, hid_t list, int rank, const hsize_t *dims,
                                 bool written) {
    hsize_t chunk[8];
    unsigned layout = written ? choose(c) & 7 : 4;
    if (layout < 4 || !rank) return;
    for (int i = 0; i < rank; i++) chunk[i] = written ? 1 + choose(c) % dims[i] : 1;
    H5Pset_chunk(list, rank, chunk);
    if (layout > 5) H5Pset_deflate(list, 1);
    if (layout > 4) H5Pset_fletcher32(list);
}

static inline void fill(struct choices *c, hid_t dataset, hid_t type, hsize_t elements,
                        double first, int cycle) {
    static const double odd[] = {NAN, 1e300, -1, 1e9};
    static double contents[MOST_ELEMENTS];
    unsigned which = 0, marked = choose(c);
    if (type == H5T_STD_U16LE && marked != 15) put_text(dataset, "dtype", "bf16", marked & 1);
    if (type == H5T_C_S1) return;
    for (hsize_t i = 0; i < elements; i++) contents[i] = first + (double)(i % (hsize_t)cycle);
    if (wrong(c, &which) && elements) contents[which % elements] = odd[which % 4];
    H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, contents);
}

/* Elements count up from `first` and start again after `cycle` of them; one may be wrong. A dataset
 * too large to be written is there all the same, and empty. usual < 0: float16. */
static inline void put_dataset(struct choices *c, hid_t group, const char *name, hid_t usual,
                               int rank, const hsize_t *right, double first, int cycle) {
    hsize_t dims[8] = {1, 1, 1, 1, 1, 1, 1, 1}, elements = 1;
    unsigned which = 0;
    bool written = true, empty = false;
    memcpy(dims, right, (size_t)rank * sizeof *dims);
    if (wrong(c, &which)) {
        if (which > 12) return; /* left out */
        rank = (int)(which % 7);
    }
    for (int i = 0; i < rank; i++) {
        if (wrong(c, &which)) dims[i] = wrong_length(which);
        empty = empty || !dims[i];
        written = written && dims[i] <= MOST_ELEMENTS && (elements *= dims[i]) <= MOST_ELEMENTS;
    }
    const hid_t types[] = {H5T_IEEE_F32LE, H5T_IEEE_F64LE, H5T_IEEE_F32BE, H5T_STD_U16LE,
                           H5T_STD_I32LE,  H5T_STD_I64BE,  H5T_STD_U16BE,  H5T_STD_I8LE};
    hid_t halves = half(), type = usual < 0 ? halves : usual;
    if (wrong(c, &which)) type = which < 8 ? types[which] : which < 12 ? halves : H5T_C_S1;
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (!empty) choose_layout(c, list, rank, dims, written);
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (dataset >= 0 && written) fill(c, dataset, type, elements, first, cycle);
    if (dataset >= 0) H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(list);
    H5Tclose(halves);
}

/* ---- files and groups ---- */

static inline hid_t put_group(hid_t parent, const char *name) {
    return H5Gcreate2(parent, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
}

/* Closing it closes whatever is open in it. */
static inline hid_t create_file(struct choices *c) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    if (choose(c) & 1) H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    if (file < 0) abort();
    return file;
}

#endif
