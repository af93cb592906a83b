/* GGUF files: metadata by key, tensors as the file has them, and a refusal by name for every way a
 * header can be wrong. */
#include "engine/checkpoint/gguf.h"
#include "tests/unit/engine/gguf_file.h"

static struct gguf_file file;

static struct fkv_gguf *parsed(unsigned char **memory) {
    size_t bytes;
    struct fkv_gguf *g;
    *memory = gguf_assemble(&file, &bytes);
    assert_ok(fkv_gguf_parse(*memory, bytes, "m.gguf", &g, &err));
    return g;
}

/* What `file` says is refused with this text. */
static void refused(const char *text) {
    size_t bytes;
    struct fkv_gguf *g;
    unsigned char *memory = gguf_assemble(&file, &bytes);
    assert_refused(fkv_gguf_parse(memory, bytes, "m.gguf", &g, &err), text);
    if (strncmp(err.message, "m.gguf: ", 8)) fail_msg("message \"%s\" names no file", err.message);
    assert_null(g);
    free(memory);
}

/* ---- what is read ---- */

TEST(metadata_are_found_by_key) {
    struct fkv_gguf_string s = {0};
    struct fkv_gguf_array array;
    int64_t i = 0;
    double x = 0;
    bool b = false;
    gguf_begin(&file);
    gguf_key(&file, "i8", 1, &(int8_t){-5}, 1);
    gguf_key(&file, "u64", 10, &(uint64_t){UINT64_MAX}, 8);
    gguf_key(&file, "i32", 5, &(int32_t){-70000}, 4);
    gguf_key(&file, "f64", 12, &(double){0.125}, 8);
    gguf_key(&file, "yes", 7, &(uint8_t){1}, 1);
    gguf_key_string(&file, "name", "a name");
    gguf_key(&file, "words", 9, &(uint32_t){8}, 4);
    gguf_put_u64(&file.keys, 2);
    gguf_put_string(&file.keys, "one"), gguf_put_string(&file.keys, "");
    gguf_key(&file, "scores", 9, &(uint32_t){6}, 4);
    gguf_put_u64(&file.keys, 2);
    gguf_put(&file.keys, (float[]){0.5f, -2}, 8);
    unsigned char *memory;
    struct fkv_gguf *g = parsed(&memory);
    assert_ok(fkv_gguf_get_int(g, "i8", true, -9, 9, &i, &err));
    assert_int_equal(i, -5);
    assert_ok(fkv_gguf_get_int(g, "i32", true, INT32_MIN, 0, &i, &err));
    assert_int_equal(i, -70000);
    assert_ok(fkv_gguf_get_int(g, "u64", true, 0, INT64_MAX, &i, &err));
    assert_true(i == INT64_MAX);
    assert_ok(fkv_gguf_get_double(g, "f64", true, 0, 1, &x, &err));
    assert_close(x, 0.125, 0, 0);
    assert_ok(fkv_gguf_get_bool(g, "yes", true, &b, &err));
    assert_true(b);
    assert_ok(fkv_gguf_get_string(g, "name", true, &s, &err));
    assert_true(s.bytes == 6 && !memcmp(s.text, "a name", 6));
    assert_ok(fkv_gguf_get_array(g, "words", true, FKV_GGUF_STRING, &array, &err));
    s = fkv_gguf_next_string(&array);
    assert_true(s.bytes == 3 && !memcmp(s.text, "one", 3) && array.count == 1);
    s = fkv_gguf_next_string(&array);
    assert_true(s.bytes == 0 && array.count == 0);
    assert_ok(fkv_gguf_get_array(g, "scores", true, FKV_GGUF_FLOAT32, &array, &err));
    assert_true(array.count == 2 && fkv_gguf_item(&array, 1) == -2);

    i = 42;
    assert_ok(fkv_gguf_get_int(g, "none", false, 0, 9, &i, &err));
    assert_int_equal(i, 42);
    assert_refused(fkv_gguf_get_int(g, "none", true, 0, 9, &i, &err),
                   "m.gguf: key none: expected it, found nothing");
    assert_refused(fkv_gguf_get_int(g, "i8", true, 0, 9, &i, &err),
                   "m.gguf: key i8: expected an integer in [0, 9], found -5");
    assert_refused(fkv_gguf_get_int(g, "name", true, 0, 9, &i, &err),
                   "m.gguf: key name: expected an integer, found string");
    assert_refused(fkv_gguf_get_array(g, "scores", true, FKV_GGUF_STRING, &array, &err),
                   "m.gguf: key scores: expected an array of string, found one of float32");
    fkv_gguf_close(g);
    free(memory);
}

TEST(tensors_have_their_shapes_the_other_way_round) {
    unsigned char blocks[2 * 34], *memory;
    float x[3] = {1, 2, 3};
    for (size_t i = 0; i < sizeof blocks; i++) blocks[i] = (unsigned char)i;
    for (uint32_t version = 2; version <= 3; version++) {
        gguf_begin(&file);
        file.version = version;
        file.alignment = 64;
        gguf_key_u32(&file, "general.alignment", 64);
        gguf_tensor(&file, "b", 2, 32, 8, blocks, sizeof blocks);
        gguf_tensor(&file, "a", 0, 3, 0, x, sizeof x);
        struct fkv_gguf *g = parsed(&memory);
        assert_int_equal(fkv_gguf_tensors(g)->count, 2);
        assert_string_equal(fkv_gguf_tensors(g)->tensors[0].name, "a");
        const struct fkv_tensor *t = fkv_tensor_find(fkv_gguf_tensors(g), "b");
        assert_int_equal(t->dims, 2);
        assert_int_equal(t->shape[0], 2);
        assert_int_equal(t->shape[1], 32);
        assert_int_equal(t->format, FKV_WEIGHT_Q8_0);
        assert_int_equal(t->bytes, fkv_weight_bytes(t->format, 64));
        assert_memory_equal(t->data, blocks, sizeof blocks);
        assert_memory_equal(fkv_tensor_find(fkv_gguf_tensors(g), "a")->data, x, sizeof x);
        assert_null(fkv_tensor_find(fkv_gguf_tensors(g), "c"));
        fkv_gguf_close(g);
        free(memory);
    }
}

/* ---- refusals ---- */

TEST(versions_and_counts_are_checked) {
    struct fkv_gguf *g;
    assert_refused(fkv_gguf_parse("GGUX\3\0\0\0", 8, "m.gguf", &g, &err), "expected GGUF");
    gguf_begin(&file);
    file.version = 1;
    refused("header: version: expected 2 or 3, found 1");
    file.version = 3u << 24;
    refused("header: version: expected 2 or 3, found big-endian 3");
    file.version = 4;
    refused("header: version: expected 2 or 3, found 4");
    gguf_begin(&file);
    file.key_count = UINT64_MAX;
    refused("header: number of keys: expected at most");
    gguf_begin(&file);
    file.tensor_count = 1ull << 60;
    refused("header: number of tensors: expected at most");
}

TEST(keys_are_checked) {
    gguf_begin(&file);
    gguf_key(&file, "odd", 13, "12345678", 8);
    refused("key odd: type: expected 0 to 12, found 13");
    gguf_begin(&file);
    gguf_key(&file, "text", 8, &(uint64_t){1 << 20}, 8);
    refused("key text: string: expected at most");
    gguf_begin(&file);
    gguf_key(&file, "list", 9, &(uint32_t){4}, 4);
    gguf_put_u64(&file.keys, UINT64_MAX / 4 + 2);
    refused("key list: number of items: expected at most");
    gguf_begin(&file);
    gguf_key(&file, "lists", 9, &(uint32_t){9}, 4);
    gguf_put_u64(&file.keys, 0);
    refused("key lists: expected an array of numbers or strings, found arrays");
    gguf_begin(&file);
    gguf_key_u32(&file, "twice", 1), gguf_key_u32(&file, "twice", 2);
    refused("key twice: expected it once, found it twice");
    gguf_begin(&file);
    gguf_key_u32(&file, "", 1);
    refused("name of a key: expected 1 to 1024 bytes");
    gguf_begin(&file);
    gguf_put_u64(&file.keys, 1ull << 40);
    gguf_put(&file.keys, "0123456789", 10);
    file.key_count = 1;
    refused("name of a key: expected at most");
}

TEST(tensors_are_checked) {
    static const struct {
        uint32_t dims;
        uint64_t sizes[5];
        uint32_t type;
        uint64_t offset;
        const char *text;
    } cases[] = {
        {0, {0}, 0, 0, "tensor t: number of sizes: expected 1 to 4, found 0"},
        {5, {1, 1, 1, 1, 1}, 0, 0, "tensor t: number of sizes: expected 1 to 4, found 5"},
        {2, {4, 0}, 0, 0, "tensor t: size 1: expected 1 to 2147483647, found 0"},
        {1, {1ull << 40}, 0, 0, "tensor t: size 0: expected 1 to 2147483647"},
        {4,
         {1u << 30, 1u << 30, 1u << 30, 1},
         0,
         0,
         "tensor t: sizes: expected a tensor that fits in memory"},
        {1, {4}, 4, 0, "tensor t: type: expected one of ggml's"},
        {1, {4}, 1000, 0, "tensor t: type: expected one of ggml's"},
        {1, {33}, 8, 0, "tensor t: row: expected a multiple of 32 values (a block of Q8_0), found"},
        {1, {4}, 0, 8, "tensor t: offset: expected a multiple of 32, found 8"},
        {1, {4}, 0, 1 << 20, "tensor t: offset: expected its 16 bytes within the 64 of data"},
        {1, {4}, 0, UINT64_MAX - 31, "tensor t: offset: expected its 16 bytes within"},
        {1, {17}, 0, 0, "tensor t: offset: expected its 68 bytes within the 64 of data"},
        {1, {4}, 0, 32, "tensor t: offset: expected at least 64 (the end of first), found 32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const float x[16] = {0};
        gguf_begin(&file);
        gguf_tensor(&file, "first", 0, 16, 0, x, sizeof x);
        gguf_info(&file, "t", cases[i].dims, cases[i].sizes, cases[i].type, cases[i].offset);
        refused(cases[i].text);
    }
    gguf_begin(&file);
    gguf_tensor(&file, "t", 0, 4, 0, "0123456789abcdef", 16);
    gguf_tensor(&file, "t", 0, 4, 0, "0123456789abcdef", 16);
    refused("tensor t: expected it once, found it twice");
    gguf_begin(&file);
    gguf_key_u32(&file, "general.alignment", 24);
    refused("key general.alignment: expected a power of two, found 24");
    gguf_begin(&file);
    gguf_key_u32(&file, "general.alignment", 0);
    refused("key general.alignment: expected an integer in [1, ");
}

static void small_model(void) {
    gguf_begin(&file);
    gguf_key_string(&file, "general.architecture", "llama");
    gguf_key_u32(&file, "general.alignment", 32);
    gguf_key(&file, "words", 9, &(uint32_t){8}, 4);
    gguf_put_u64(&file.keys, 2);
    gguf_put_string(&file.keys, "one"), gguf_put_string(&file.keys, "two");
    gguf_tensor(&file, "a", 2, 32, 8, (unsigned char[68]){0}, 68);
    gguf_tensor(&file, "b", 0, 3, 0, (float[3]){1, 2, 3}, 12);
}

TEST(a_file_that_is_cut_short_is_refused) {
    size_t bytes;
    struct fkv_gguf *g;
    small_model();
    unsigned char *memory = gguf_assemble(&file, &bytes);
    for (size_t n = 0; n < bytes; n++) {
        unsigned char *cut = malloc(n + 1); /* its end is the allocation's */
        assert_non_null(cut);
        memcpy(cut, memory, n);
        assert_int_equal(fkv_gguf_parse(cut, n, "m.gguf", &g, &err), FKV_FAILED);
        free(cut);
    }
    free(memory);
}

TEST(changed_bytes_give_a_verdict) {
    size_t bytes;
    struct fkv_gguf *g;
    small_model();
    unsigned char *memory = gguf_assemble(&file, &bytes);
    for (int round = 0; round < 20000; round++) {
        const size_t at = (size_t)test_between(0, (int)bytes - 1);
        const unsigned char was = memory[at];
        memory[at] = (unsigned char)test_random();
        if (fkv_gguf_parse(memory, bytes, "m.gguf", &g, &err) == FKV_OK) fkv_gguf_close(g);
        memory[at] = was;
    }
    free(memory);
    fkv_gguf_close(NULL);
}
