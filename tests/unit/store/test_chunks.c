/* The checksum of chunks against the definition, word by word as HDF5 folds it. */
#include <stdlib.h>
#include <string.h>

#include "capture/store/chunks.h"
#include "tests/unit/support.h"

static uint32_t folded(uint32_t sum) { return (sum & 0xffff) + (sum >> 16); }

static uint32_t word_by_word(const uint8_t *bytes, size_t words) {
    uint32_t sum = 0, sums = 0;
    for (size_t i = 0; i < words; i++) {
        sum = folded(sum + ((uint32_t)bytes[2 * i] << 8 | bytes[2 * i + 1]));
        sums = folded(sums + sum);
    }
    return folded(sums) << 16 | folded(sum);
}

TEST(the_checksum_is_fletchers_at_every_length) {
    enum { MOST = 20000 };
    uint8_t *bytes = malloc(2 * MOST);
    assert_non_null(bytes);
    for (int i = 0; i < 300; i++) {
        size_t words = (size_t)(i < 100 ? i : test_between(100, MOST));
        for (size_t k = 0; k < 2 * words; k++) bytes[k] = (uint8_t)test_between(0, 255);
        assert_int_equal(fkv_fletcher32(bytes, words), word_by_word(bytes, words));
    }
    static const int constant[] = {0, 1, 128, 255};
    for (int i = 0; i < 4; i++) {
        memset(bytes, constant[i], 2 * MOST);
        for (size_t words = MOST - 9000; words <= MOST; words += 1000)
            assert_int_equal(fkv_fletcher32(bytes, words), word_by_word(bytes, words));
    }
    free(bytes);
}
