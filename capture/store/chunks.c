/* Owns reading of whole chunks (chunks.h) and their checksum.
 *
 * Fletcher-32 is two sums modulo 65535 over big-endian words w_0 .. w_(n-1): of the words, and of
 * n - i times word i. Swapping the bytes of a word multiplies it by 256 modulo 65535, so both sums
 * are taken over little-endian words and multiplied at the end. HDF5 folds carries back in instead
 * of dividing, which leaves 65535 where the remainder is 0, and 0 only where every word is 0.
 *
 * Words are summed in LANES columns: a column holds its sum and the sum of its sums after each row,
 * which is a sum weighted by rows. A block of ROWS rows keeps both below 2^32. */
#include "capture/store/chunks.h"

#include <string.h>

enum { LANES = 8, ROWS = 256, MODULUS = 65535 };

typedef uint16_t word __attribute__((may_alias, aligned(1)));
typedef uint16_t word_row __attribute__((vector_size(2 * LANES), may_alias, aligned(1)));
typedef uint32_t sum_row __attribute__((vector_size(4 * LANES)));

/* sum, weighted: of rows * LANES words before `after` more; weights count from the end, from 1 */
static inline __attribute__((always_inline)) void add_rows(const word *words, size_t rows,
                                                           uint64_t *sum, uint64_t *weighted) {
    sum_row column = {0}, columns = {0};
    for (size_t r = 0; r < rows; r++) {
        column += __builtin_convertvector(((const word_row *)words)[r], sum_row);
        columns += column;
    }
    *weighted += *sum * (rows * LANES);
    for (size_t l = 0; l < LANES; l++) {
        *weighted += (uint64_t)columns[l] * LANES - (uint64_t)column[l] * l;
        *sum += column[l];
    }
    *weighted %= MODULUS;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void add_rows_avx2(const word *words, size_t rows,
                                                          uint64_t *sum, uint64_t *weighted) {
    add_rows(words, rows, sum, weighted);
}
#endif

/* The same sums at any width of registers. */
static void add_rows_best(const word *words, size_t rows, uint64_t *sum, uint64_t *weighted) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        add_rows_avx2(words, rows, sum, weighted);
        return;
    }
#endif
    add_rows(words, rows, sum, weighted);
}

static uint32_t fold(uint64_t sum, bool any) {
    uint64_t rest = sum % MODULUS * 256 % MODULUS;
    return (uint32_t)(rest || !any ? rest : MODULUS);
}

uint32_t fkv_fletcher32(const void *words, size_t n) {
    uint64_t sum = 0, weighted = 0; /* sum stays exact: below 2^64 for 2^48 words */
    const word *at = words;
    while (n) {
        size_t rows = n / LANES < ROWS ? n / LANES : ROWS, count = rows ? rows * LANES : n;
        if (rows) add_rows_best(at, rows, &sum, &weighted);
        for (size_t i = 0; !rows && i < count; i++) {
            sum += at[i];
            weighted += sum;
        }
        at += count;
        n -= count;
    }
    return fold(weighted, sum) << 16 | fold(sum % MODULUS, sum);
}

static hid_t native_type(enum fkv_dtype dtype) {
    return dtype == FKV_F32   ? H5T_NATIVE_FLOAT
           : dtype == FKV_F16 ? fkv_hdf_f16()
                              : H5T_NATIVE_UINT16;
}

void fkv_chunks_describe(struct fkv_state_input *in) {
    hid_t creation = H5Dget_create_plist(in->dataset), type = H5Dget_type(in->dataset),
          space = H5Dget_space(in->dataset);
    hsize_t dims[4] = {0};
    H5Sget_simple_extent_dims(space, dims, NULL);
    int filters = H5Pget_nfilters(creation);
    unsigned flags, config;
    size_t none = 0;
    memset(in->chunk, 0, sizeof in->chunk);
    bool chunked =
        H5Pget_layout(creation) == H5D_CHUNKED && H5Pget_chunk(creation, 4, in->chunk) == 4;
    in->checksum = filters == 1 && H5Pget_filter2(creation, 0, &flags, &none, NULL, 0, NULL,
                                                  &config) == H5Z_FILTER_FLETCHER32;
    in->whole = chunked && (!filters || in->checksum) && in->chunk[0] == 1 &&
                in->chunk[3] == dims[3] && H5Tequal(type, native_type(in->dtype)) > 0;
    H5Sclose(space);
    H5Tclose(type);
    H5Pclose(creation);
}

static size_t numbers_of(const struct fkv_state_input *in) {
    return (size_t)(in->chunk[1] * in->chunk[2] * in->chunk[3]);
}

static size_t numbers_bytes(const struct fkv_state_input *in) {
    return numbers_of(in) * fkv_dtype_bytes(in->dtype);
}

size_t fkv_chunk_bytes(const struct fkv_state_input *in) {
    return numbers_bytes(in) + (in->checksum ? 4 : 0);
}

static bool is_sound(const struct fkv_state_input *in, const char *chunk) {
    size_t bytes = numbers_bytes(in);
    const uint8_t *found = (const uint8_t *)chunk + bytes;
    return !in->checksum || fkv_fletcher32(chunk, bytes / 2) ==
                                ((uint32_t)found[3] << 24 | (uint32_t)found[2] << 16 |
                                 (uint32_t)found[1] << 8 | (uint32_t)found[0]);
}

static hsize_t smaller(hsize_t a, hsize_t b) { return a < b ? a : b; }
static hsize_t larger(hsize_t a, hsize_t b) { return a > b ? a : b; }

/* The part of the selection that the chunk at `corner` holds -> x */
static void copy_part(const struct fkv_state_input *in, const hsize_t corner[4],
                      const hsize_t from[4], const hsize_t count[4], const char *chunk, char *x) {
    size_t row = (size_t)count[3] * fkv_dtype_bytes(in->dtype);
    hsize_t first = larger(corner[2], from[2]),
            rows = smaller(corner[2] + in->chunk[2], from[2] + count[2]) - first,
            end = smaller(corner[1] + in->chunk[1], from[1] + count[1]);
    for (hsize_t h = larger(corner[1], from[1]); h < end; h++)
        memcpy(x + ((h - from[1]) * count[2] + (first - from[2])) * row,
               chunk + ((h - corner[1]) * in->chunk[2] + (first - corner[2])) * row, rows * row);
}

/* Where in x the chunk's numbers belong, if all of them do, one after the other, and the checksum
 * behind them falls inside x as well: on rows that a later chunk brings. Else NULL. */
static char *place_of(const struct fkv_state_input *in, const hsize_t corner[4],
                      const hsize_t from[4], const hsize_t count[4], char *x) {
    const size_t row = (size_t)count[3] * fkv_dtype_bytes(in->dtype);
    if (in->chunk[1] != 1 || corner[2] < from[2]) return NULL;
    const size_t at = ((corner[1] - from[1]) * count[2] + corner[2] - from[2]) * row;
    return corner[2] + in->chunk[2] <= from[2] + count[2] &&
                   at + fkv_chunk_bytes(in) <= count[1] * count[2] * row
               ? x + at
               : NULL;
}

bool fkv_chunks_read(const struct fkv_state_input *in, const hsize_t from[4],
                     const hsize_t count[4], void *buffer, void *x, bool *finite) {
    hsize_t corner[4] = {from[0], 0, 0, 0};
    bool all_finite = true;
    *finite = false;
    for (corner[1] = from[1] / in->chunk[1] * in->chunk[1]; corner[1] < from[1] + count[1];
         corner[1] += in->chunk[1])
        for (corner[2] = from[2] / in->chunk[2] * in->chunk[2]; corner[2] < from[2] + count[2];
             corner[2] += in->chunk[2]) {
            hsize_t stored = 0;
            uint32_t skipped = 0;
            char *place = place_of(in, corner, from, count, x), *chunk = place ? place : buffer;
            if (H5Dget_chunk_storage_size(in->dataset, corner, &stored) < 0 ||
                stored != fkv_chunk_bytes(in) ||
                H5Dread_chunk(in->dataset, H5P_DEFAULT, corner, &skipped, chunk) < 0 || skipped ||
                !is_sound(in, chunk))
                return false;
            all_finite = all_finite && fkv_all_finite(chunk, in->dtype, numbers_of(in));
            if (!place) copy_part(in, corner, from, count, chunk, x);
        }
    *finite = all_finite;
    return true;
}
