/* Safetensors files: what is right is handed out as it lies on disk, what is wrong is refused with
 * a message that says what and where. */
#include <sys/stat.h>

#include "engine/checkpoint/safetensors.h"
#include "kernels/base/hash.h"
#include "kernels/base/atomic_file.h"
#include "tests/unit/engine/weights_file.h"

/* ---- one file ---- */

static int check(const void *file, size_t bytes, const char *where, struct fkv_error *err) {
    struct fkv_tensor_table table = {0};
    int status = fkv_tensor_table_read(file, bytes, where, &table, err);
    fkv_tensor_table_free(&table);
    return status;
}

static void check_refused(const char *header, size_t data_bytes, const char *text) {
    size_t total;
    unsigned char *file = weights_assemble(header, NULL, data_bytes, &total);
    assert_refused(check(file, total, "w.safetensors", &err), text);
    if (!strstr(err.message, "w.safetensors"))
        fail_msg("message \"%s\" names no file", err.message);
    free(file);
}

static void check_accepted(const char *header, size_t data_bytes) {
    size_t total;
    unsigned char *file = weights_assemble(header, NULL, data_bytes, &total);
    assert_ok(check(file, total, "w.safetensors", &err));
    free(file);
}

TEST_IN_FOLDER(tensors_are_handed_out_as_they_lie_in_the_file) {
    static const struct {
        const char *name;
        size_t bytes;
        enum fkv_dtype dtype;
    } formats[] = {{"F32", 4, FKV_F32}, {"F16", 2, FKV_F16}, {"BF16", 2, FKV_BF16}};
    struct weights_file w = {0};
    int rows[20], columns[20], format[20];
    for (int i = 0; i < 20; i++) {
        char name[16], shape[32];
        rows[i] = test_between(0, 5), columns[i] = test_between(1, 9),
        format[i] = test_between(0, 2);
        size_t bytes = (size_t)(rows[i] * columns[i]) * formats[format[i]].bytes;
        unsigned char data[256];
        for (size_t j = 0; j < bytes; j++) data[j] = (unsigned char)(i + 7 * j);
        snprintf(name, sizeof name, "t%d", (i * 7) % 20);
        snprintf(shape, sizeof shape, "[%d,%d]", rows[i], columns[i]);
        weights_add(&w, name, formats[format[i]].name, shape, data, bytes);
    }
    weights_write(&w, folder, "model.safetensors");

    struct fkv_safetensors *files;
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    char *file;
    size_t file_bytes;
    assert_ok(fkv_read_file(files->paths[0], 1 << 20, &file, &file_bytes, &err));
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", (i * 7) % 20);
        const struct fkv_tensor *t = fkv_tensor_find(&files->tensors, name);
        assert_non_null(t);
        assert_int_equal(t->format, formats[format[i]].dtype);
        assert_string_equal(t->format_name, formats[format[i]].name);
        assert_int_equal(t->dims, 2);
        assert_int_equal(t->shape[0], rows[i]);
        assert_int_equal(t->shape[1], columns[i]);
        assert_int_equal(t->bytes, (size_t)(rows[i] * columns[i]) * formats[format[i]].bytes);
        uint64_t header;
        memcpy(&header, file, sizeof header);
        assert_true(8 + header + t->offset + t->bytes <= file_bytes);
        assert_memory_equal(t->data, file + 8 + header + t->offset, t->bytes);
        for (size_t j = 0; j < t->bytes; j++)
            assert_int_equal(((const unsigned char *)t->data)[j], (unsigned char)(i + 7 * j));
    }
    free(file);
    assert_null(fkv_tensor_find(&files->tensors, "t20"));
    fkv_safetensors_close(files);
}

TEST(a_file_cut_short_anywhere_is_refused) {
    size_t total;
    unsigned char *file = weights_assemble(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", NULL, 16, &total);
    assert_ok(check(file, total, "w", &err));
    for (size_t n = 0; n < total; n++) {
        unsigned char *cut = malloc(
            n + 1); /* its own block, so that reading past the end is seen by the sanitizer */
        memcpy(cut, file, n);
        assert_int_equal(check(cut, n, "w", &err), FKV_FAILED);
        free(cut);
    }
    assert_refused(check(file, 0, "w", &err),
                   "expected 8 bytes of header length, found a file of 0");
    assert_refused(check(file, 20, "w", &err), "found 12 (a truncated file)");
    free(file);
}

TEST(an_oversized_header_is_refused_before_it_is_parsed) {
    unsigned char file[64] = {0};
    uint64_t lengths[] = {100000001, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (int b = 0; b < 8; b++) file[b] = (unsigned char)(lengths[i] >> (8 * b));
        assert_refused(check(file, sizeof file, "w", &err), "expected at most 100000000 bytes");
    }
}

TEST(a_header_that_is_no_json_object_is_refused) {
    check_refused("", 0, "expected a JSON object, found nothing");
    check_refused("[1,2]", 0, "expected a JSON object");
    check_refused("{\"a\":", 0, "not valid JSON");
    check_refused("{\"a\":7}", 0, "tensor a: expected an object");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}} {}", 0,
                  "not valid JSON");
}

TEST(a_repeated_name_is_refused) {
    check_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                  "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                  2, "duplicate object key");
}

TEST(overlapping_tensors_are_refused) {
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                  12,
                  "tensor b: field \"data_offsets\": expected begin 8, found 4 (tensors overlap)");
}

TEST(a_hole_in_the_data_is_refused) {
    check_refused(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}",
        16, "tensor b: field \"data_offsets\": expected begin 8, found 12 (a hole in the data)");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
                  "a hole in the data");
}

TEST(offsets_outside_the_file_are_refused) {
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 12,
                  "end <= 12");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-16,0]}}", 16,
                  "found [-16, 0]");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}", 16,
                  "found [16, 0]");
    check_refused(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,9223372036854775807]}}", 16,
        "end <= 16");
    check_refused(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,18446744073709551616]}}", 16,
        "tensor a: field"); /* beyond 64 bits the parser reads every number as a real */
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}", 16,
                  "expected two integers");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", 16, "expected two integers");
}

TEST(bytes_after_the_last_tensor_are_refused) {
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 17,
                  "expected 16 bytes of data");
    check_refused("{}", 1, "expected 0 bytes of data");
}

TEST(a_shape_that_does_not_fit_its_bytes_is_refused) {
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,16]}}", 16,
                  "expected 20 bytes (shape times dtype F32), found 16");
    check_refused(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
        "field \"shape\": expected a tensor that fits in memory");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", 16,
                  "at place 0");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2.5],\"data_offsets\":[0,16]}}", 16,
                  "at place 1");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,16]}}", 16,
                  "expected a list of sizes");
    check_refused("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1,
                  "expected whole bytes of F4");
}

TEST(an_unknown_dtype_is_refused) {
    check_refused("{\"a\":{\"dtype\":\"Q4_K\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16,
                  "tensor a: field \"dtype\": expected a safetensors dtype (F32, F16, BF16, ...), "
                  "found Q4_K");
    check_refused("{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "field \"dtype\"");
}

TEST(metadata_other_than_strings_is_refused) {
    check_accepted("{\"__metadata__\":{\"format\":\"pt\"}}", 0);
    check_refused("{\"__metadata__\":{\"format\":{}}}", 0,
                  "field \"__metadata__\": expected strings");
    check_refused("{\"__metadata__\":\"pt\"}", 0, "field \"__metadata__\"");
}

TEST_IN_FOLDER(dtypes_nobody_computes_with_are_tolerated) {
    struct weights_file w = {0};
    weights_add(&w, "ids", "I64", "[2]", NULL, 16);
    weights_add(&w, "scale", "F8_E4M3", "[]", NULL, 1);
    weights_add(&w, "mask", "BOOL", "[1,1,1,1,3]", NULL, 3);
    weights_add(&w, "packed", "F4", "[6]", NULL, 3);
    weights_add(&w, "empty", "F32", "[0,7]", NULL, 0);
    weights_write(&w, folder, "model.safetensors");
    struct fkv_safetensors *files;
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    assert_false(fkv_tensor_find(&files->tensors, "ids")->computable);
    assert_string_equal(fkv_tensor_find(&files->tensors, "scale")->format_name, "F8_E4M3");
    assert_int_equal(fkv_tensor_find(&files->tensors, "mask")->dims, 5);
    assert_true(fkv_tensor_find(&files->tensors, "empty")->computable);
    fkv_safetensors_close(files);
}

TEST(a_changed_byte_never_makes_the_check_misbehave) {
    size_t total;
    unsigned char *file =
        weights_assemble("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[16,24]}}",
                         NULL, 24, &total);
    unsigned char *changed = malloc(total);
    for (int i = 0; i < 20000; i++) {
        memcpy(changed, file, total);
        for (int k = test_between(1, 3); k > 0; k--)
            changed[test_between(0, (int)total - 1)] = (unsigned char)test_random();
        check(changed, total, "w", &err);
    }
    free(changed);
    free(file);
}

/* ---- folders ---- */

static void open_refused(const char *text) {
    struct fkv_safetensors *files = (void *)1;
    assert_refused(fkv_safetensors_open(folder, &files, &err), text);
    assert_null(files);
}

static void write_shard(const char *name, const char *tensor, float value) {
    struct weights_file w = {0};
    weights_add(&w, tensor, "F32", "[1]", &value, 4);
    weights_write(&w, folder, name);
}

static void write_index(const char *weight_map) {
    char text[512];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":8},\"weight_map\":%s}", weight_map);
    test_write_text(test_path(folder, "model.safetensors.index.json"), text);
}

TEST_IN_FOLDER(shards_are_joined_and_hashed_in_name_order) {
    write_shard("b.safetensors", "x", 1);
    write_shard("a.safetensors", "y", 2);
    write_index("{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\"}");
    struct fkv_safetensors *files;
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    const struct fkv_tensor *x = fkv_tensor_find(&files->tensors, "x"),
                            *y = fkv_tensor_find(&files->tensors, "y");
    assert_string_equal(x->path, files->paths[1]);
    assert_string_equal(y->path, files->paths[0]);
    assert_true(*(const float *)x->data == 1 && *(const float *)y->data == 2);

    char first[300], second[300];
    snprintf(first, sizeof first, "%s/a.safetensors", folder);
    snprintf(second, sizeof second, "%s/b.safetensors", folder);
    assert_string_equal(files->paths[0], first);
    const char *paths[] = {first, second};
    fkv_sha256_hex expected, found;
    assert_ok(fkv_sha256_files(paths, 2, expected, &err));
    assert_ok(fkv_sha256_files(files->paths, files->count, found, &err));
    assert_string_equal(found, expected);
    fkv_safetensors_close(files);
}

TEST_IN_FOLDER(shards_may_stand_in_folders_of_the_folder) {
    char inner[300];
    snprintf(inner, sizeof inner, "%s/parts", folder);
    assert_int_equal(mkdir(inner, 0700), 0);
    write_shard("parts/a.safetensors", "x", 1);
    write_shard("a.safetensors", "y", 2);
    write_index("{\"x\":\"parts/a.safetensors\",\"y\":\"a.safetensors\"}");
    struct fkv_safetensors *files;
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    assert_true(*(const float *)fkv_tensor_find(&files->tensors, "x")->data == 1);
    assert_true(*(const float *)fkv_tensor_find(&files->tensors, "y")->data == 2);
    fkv_safetensors_close(files);
}

TEST_IN_FOLDER(a_missing_shard_is_named) {
    write_shard("a.safetensors", "y", 2);
    write_index("{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\"}");
    open_refused("b.safetensors: cannot open: No such file");
}

TEST_IN_FOLDER(a_tensor_missing_from_its_shard_is_named) {
    write_shard("a.safetensors", "y", 2);
    write_index("{\"x\":\"a.safetensors\",\"y\":\"a.safetensors\"}");
    open_refused("tensor x: expected in a.safetensors, found nowhere");
    write_shard("b.safetensors", "x", 1);
    write_index("{\"x\":\"b.safetensors\",\"y\":\"b.safetensors\"}");
    open_refused("tensor y: expected in b.safetensors, found nowhere");
    write_index("{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}");
    open_refused("found ");
}

TEST_IN_FOLDER(a_tensor_in_two_shards_is_refused) {
    write_shard("a.safetensors", "x", 1);
    write_shard("b.safetensors", "x", 1);
    write_index("{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}");
    open_refused("tensor x: expected it in one shard");
}

TEST_IN_FOLDER(a_damaged_shard_is_named) {
    write_shard("a.safetensors", "y", 2);
    test_write_text(test_path(folder, "b.safetensors"), "abc");
    write_index("{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\"}");
    open_refused("b.safetensors: expected 8 bytes of header length, found a file of 3");
    test_write_file(test_path(folder, "b.safetensors"), "", 0);
    open_refused("b.safetensors: expected 8 bytes of header length, found a file of 0");
}

TEST_IN_FOLDER(shard_names_that_leave_the_folder_are_refused) {
    static const char *const names[] = {
        "\"../a.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\"\"",  "7", "null",
        "\"a/../../b\"",        "\"a//b\"",        "\"a/\"", "\".a\""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char map[64];
        snprintf(map, sizeof map, "{\"x\":%s}", names[i]);
        write_index(map);
        open_refused("field \"weight_map\": tensor x: expected a file within the folder");
    }
    write_index("{}");
    open_refused("field \"weight_map\": expected an object of tensor names and files, found none");
}

TEST_IN_FOLDER(a_folder_without_weights_says_what_lies_there) {
    open_refused("expected model.safetensors or model.safetensors.index.json, found no weights");
    test_write_text(test_path(folder, "pytorch_model.bin"), "x");
    test_write_text(test_path(folder, "notes.txt"), "x");
    open_refused("found pytorch_model.bin (convert with transformers");
    struct fkv_safetensors *files;
    assert_refused(fkv_safetensors_open("/nonexistent/model", &files, &err),
                   "/nonexistent/model: cannot read the folder: No such file");
}

TEST_IN_FOLDER(links_are_followed_and_broken_ones_named) {
    char target[300], link[300];
    write_shard("blob", "x", 3);
    snprintf(target, sizeof target, "%s/blob", folder);
    snprintf(link, sizeof link, "%s/model.safetensors", folder);
    assert_int_equal(symlink(target, link), 0);
    struct fkv_safetensors *files;
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    assert_non_null(fkv_tensor_find(&files->tensors, "x"));
    fkv_safetensors_close(files);
    assert_int_equal(unlink(target), 0);
    open_refused("model.safetensors: cannot open: No such file");
    fkv_safetensors_close(NULL);
}
