/* Raw token ids: a file that is something else is noticed. */
#include "engine/text/documents.h"
#include "tests/unit/support.h"

enum { VOCAB = 2000 };

TEST(raw_ids_that_look_like_something_else_are_refused) {
    static const struct {
        const char *start, *message;
    } types[] = {
        {"PK\x03\x04", "zip"},
        {"\x93NUMPY", ".npy"},
        {"PAR1", "parquet"},
        {"GGUF", "GGUF"},
        {"\x89HDF\r\n", "HDF5"},
        {"\x80\x04\x95", "pickle"},
        {"\x1f\x8b\x08", "gzip"},
        {"\x28\xb5\x2f\xfd", "zstd"},
        {"BZh91AY", "bzip2"},
        {"\xfd"
         "7zXZ",
         "xz"},
        {"SQLite format 3", "SQLite"},
        {"%PDF-1.7\n\x80", "PDF"},
        {"\x89PNG\r\n\x1a\n", "PNG"},
        {"\x88\xd8\x34\x01", "llm.c"},
        {"\x08\x01\0\0\0\0\0\0{\"a\"", "safetensors"},
        {"{\"text\": \"a row of JSON\"}\n", "--text"},
        {"1 22 333 4444 55555\n", "--text"},
        {"\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad\xe6\x96\x87", "--text"}};
    int32_t *found;
    size_t count;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char file[64] = {0};
        size_t n = types[i].start[2] ? strlen(types[i].start) : 13;
        memcpy(file, types[i].start, n);
        assert_refused(fkv_raw_parse(file, n, 2, VOCAB, "x.bin", &found, &count, &err),
                       types[i].message);
    }
    uint16_t as16[400];
    uint32_t as32[400];
    uint64_t as64[400];
    for (int i = 0; i < 400; i++) {
        as16[i] = (uint16_t)test_between(0, 30000);
        as64[i] = as32[i] = (uint32_t)test_between(0, 128255);
    }
    const int32_t vocab = 128256;
    assert_refused(fkv_raw_parse(as32, sizeof as32, 2, vocab, "x.bin", &found, &count, &err),
                   "give --token-dtype uint32");
    assert_refused(fkv_raw_parse(as64, sizeof as64, 2, vocab, "x.bin", &found, &count, &err),
                   "8 bytes");
    assert_refused(fkv_raw_parse(as64, sizeof as64, 4, vocab, "x.bin", &found, &count, &err),
                   "8 bytes");
    assert_refused(fkv_raw_parse(as16, sizeof as16, 4, vocab, "x.bin", &found, &count, &err),
                   "give --token-dtype uint16");
    assert_refused(fkv_raw_parse(as16, sizeof as16, 0, vocab, "x.bin", &found, &count, &err),
                   "--token-dtype is missing");
    uint16_t swapped[400]; /* frequent ids are small: their highest bytes are */
    for (int i = 0; i < 400; i++)
        swapped[i] = __builtin_bswap16((uint16_t)test_between(0, test_between(0, 3000)));
    assert_refused(fkv_raw_parse(swapped, sizeof swapped, 2, vocab, "x.bin", &found, &count, &err),
                   "highest byte first");
    assert_ok(fkv_raw_parse(as16, sizeof as16, 0, 32000, "x.bin", &found, &count, &err));
    assert_true(count == 400 && found[399] == as16[399]);
    free(found);
    assert_ok(fkv_raw_parse(as32, sizeof as32, 4, vocab, "x.bin", &found, &count, &err));
    assert_true(count == 400 && found[399] == (int32_t)as32[399]);
    free(found);
}
