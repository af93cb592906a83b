/* Raw token ids: integers of two or four bytes, little-endian, with nothing around them. Nothing
 * in such a file says what it is, and every file can be read as one. So a file that looks like
 * another type, or like another width, is refused. */
#include <stdlib.h>

#include "engine/text/documents.h"
#include "engine/text/file_type.h"

enum {
    LEAST_WORDS = 16, /* of 16 bits, for a width */
    SMALL = 16        /* what the upper halves of ids stay below */
};

/* An integer of at most eight bytes. */
static uint64_t integer(const uint8_t *data, size_t width, bool big) {
    uint64_t value = 0;
    for (size_t b = 0; b < width; b++) value = value << 8 | data[big ? b : width - 1 - b];
    return value;
}

int fkv_read_ids(const uint8_t *data, size_t n, size_t width, bool big, bool negative_possible,
                 const char *where, int32_t **ids, size_t *count, struct fkv_error *err) {
    int32_t *out = malloc((n ? n : 1) * sizeof *out);
    if (!out) return fkv_fail(err, "%s: out of memory for %zu token ids", where, n);
    for (size_t i = 0; i < n; i++) {
        const uint64_t value = integer(data + i * width, width, big);
        const bool negative = negative_possible && value >> (8 * width - 1);
        out[i] = (int32_t)value;
        if (!negative && value <= INT32_MAX) continue;
        free(out);
        const uint64_t extended = negative && width < 8 ? value | ~(uint64_t)0 << 8 * width : value;
        return fkv_fail(err,
                        negative ? "%s: token %zu: %lld is no token id"
                                 : "%s: token %zu: %llu is no token id",
                        where, i, (long long)extended);
    }
    *ids = out;
    *count = n;
    return FKV_OK;
}

/* What is wrong with reading integers of this width, or NULL. In two ids of four bytes every
 * second word of two is small; in one of eight bytes every second integer of four is 0. */
static const char *other_width(const uint8_t *data, size_t bytes, size_t width, int32_t vocab) {
    bool upper_small = true, lower_small = true, every_second_zero = true, all_zero = true,
         halves_known = true, known = true, swapped_known = true, swapped_halves_known = true;
    uint64_t sum = 0, swapped_sum = 0; /* frequent ids are small */
    if (bytes < 2 * LEAST_WORDS) return NULL;
    for (size_t i = 0; i + 2 <= bytes; i += 2) {
        const uint32_t word = (uint32_t)integer(data + i, 2, false);
        if (i % 4)
            upper_small &= word < SMALL;
        else
            lower_small &= word < SMALL;
        halves_known &= word < (uint32_t)vocab;
        const uint16_t swapped_word = __builtin_bswap16((uint16_t)word);
        swapped_halves_known &= swapped_word < (uint32_t)vocab;
        sum += word, swapped_sum += swapped_word;
    }
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        const uint32_t value = (uint32_t)integer(data + i, 4, false);
        if (i % 8)
            every_second_zero &= !value;
        else
            all_zero &= !value;
        known &= value < (uint32_t)vocab;
        swapped_known &= __builtin_bswap32(value) < (uint32_t)vocab;
    }
    if (every_second_zero && !all_zero && upper_small && !lower_small && bytes % 8 == 0)
        return "integers of 8 bytes: save them as .npy";
    if (width == 2 && upper_small && !lower_small) return "uint32: give --token-dtype uint32";
    const bool swapped = width == 4 ? !known && swapped_known
                                    : (!halves_known && swapped_halves_known) ||
                                          (vocab > UINT16_MAX && sum > 2 * swapped_sum);
    if (swapped) return "integers with the highest byte first: save them as .npy";
    return width == 4 && !known && halves_known ? "uint16: give --token-dtype uint16" : NULL;
}

int fkv_raw_parse(const void *file, size_t bytes, size_t width, int32_t vocab, const char *where,
                  int32_t **ids, size_t *count, struct fkv_error *err) {
    const uint8_t *data = file;
    *ids = NULL;
    *count = 0;
    const char *type = fkv_file_type(data, bytes);
    if (!type && fkv_file_is_text(data, bytes)) type = "text: --text reads it";
    if (type) return fkv_fail(err, "%s: expected raw token ids, found %s", where, type);
    if (!width && vocab > UINT16_MAX + 1 && vocab < INT32_MAX)
        return fkv_fail_option(err,
                               "%s: --token-dtype is missing: uint32, or uint16 where no id of the "
                               "vocabulary of %d is above 65535",
                               where, (int)vocab);
    if (!width) width = 2;
    if (bytes % width)
        return fkv_fail(err, "%s: expected a multiple of %zu bytes, found %zu", where, width,
                        bytes);
    const char *wanted = other_width(data, bytes, width, vocab);
    if (wanted)
        return fkv_fail(err, "%s: expected ids of %zu bytes, found what looks like %s", where,
                        width, wanted);
    return fkv_read_ids(data, bytes / width, width, false, false, where, ids, count, err);
}
