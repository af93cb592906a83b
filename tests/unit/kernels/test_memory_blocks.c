/* Blocks that are freed together. */
#include "kernels/base/memory.h"
#include "tests/unit/support.h"

TEST(blocks_are_zero_aligned_and_apart) {
    enum { BLOCKS = 20 };
    struct fkv_memory m = {0};
    unsigned char *block[BLOCKS];
    size_t bytes[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        bytes[i] = (size_t)test_between(0, 300);
        block[i] = fkv_memory_take(&m, bytes[i], 1);
        assert_non_null(block[i]);
        assert_int_equal((size_t)block[i] % 64, 0);
        for (size_t k = 0; k < bytes[i]; k++) assert_int_equal(block[i][k], 0);
        memset(block[i], i + 1, bytes[i]);
    }
    for (int i = 0; i < BLOCKS; i++)
        for (size_t k = 0; k < bytes[i]; k++) assert_int_equal(block[i][k], i + 1);
    assert_false(m.failed);
    fkv_memory_free(&m);
    fkv_memory_free(&m);
}

TEST(a_size_beyond_all_memory_fails_and_the_others_stay) {
    struct fkv_memory m = {0};
    double *small = fkv_memory_take(&m, 3, sizeof *small);
    assert_null(fkv_memory_take(&m, SIZE_MAX / 4, 8));
    assert_null(fkv_memory_take(&m, SIZE_MAX - 100, 1));
    assert_true(m.failed);
    small[2] = 1;
    fkv_memory_free(&m);
    assert_false(m.failed);
}
