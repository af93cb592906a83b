/* Reading documents: what is in the files comes out, in order, and what cannot be read is named.
 * The tokenizer is a golden one. */
#include "engine/text/documents.h"
#include "kernels/base/atomic_file.h"

#include <sys/stat.h>

#include "tests/unit/support.h"

enum { VOCAB = 2000 };

static struct fkv_tokenizer *tokenizer(void) {
    static const char path[] = "tests/golden/tokenizer/llama2.json";
    struct fkv_tokenizer *t;
    char *data;
    size_t bytes;
    assert_ok(fkv_read_file(path, 1 << 18, &data, &bytes, &err));
    assert_ok(fkv_tokenizer_parse(data, bytes, path, &t, &err));
    free(data);
    return t;
}

/* FOLDER/NAME with these bytes; the path is one of test_path's. */
static const char *put(const char *folder, const char *name, const void *data, size_t bytes) {
    const char *path = test_path(folder, name);
    test_write_file(path, data, bytes);
    return path;
}

static const char *put_text(const char *folder, const char *name, const char *text) {
    return put(folder, name, text, strlen(text));
}

static struct fkv_documents_options texts(const char *const *paths, int count) {
    return (struct fkv_documents_options){
        .texts = paths, .text_count = count, .vocab = VOCAB, .special = true};
}

static struct fkv_documents_options ids(const char *const *paths, int count) {
    return (struct fkv_documents_options){
        .token_ids = paths, .token_ids_count = count, .vocab = VOCAB};
}

/* Checks a document against name and text (NULL: not looked at) and frees it. */
static void expect(struct fkv_documents *d, const struct fkv_tokenizer *t, const char *name,
                   const char *text) {
    struct fkv_document document;
    bool more;
    assert_ok(fkv_documents_next(d, &document, &more, &err));
    assert_true(more);
    assert_string_equal(document.name, name);
    if (text) {
        fkv_sha256_hex hash;
        assert_ok(fkv_sha256_memory(text, strlen(text), hash, &err));
        assert_string_equal(document.text_sha256, hash);
        int32_t *expected;
        size_t count;
        assert_ok(fkv_tokenizer_encode(t, text, strlen(text), true, &expected, &count, &err));
        assert_int_equal(document.count, count);
        assert_memory_equal(document.tokens, expected, count * sizeof *expected);
        assert_int_equal(document.tokens[0], fkv_tokenizer_bos(t));
        free(expected);
    }
    fkv_document_free(&document);
}

static void expect_end(struct fkv_documents *d) {
    struct fkv_document document;
    bool more = true;
    assert_ok(fkv_documents_next(d, &document, &more, &err));
    assert_false(more);
    assert_int_equal(fkv_documents_bytes_read(d), fkv_documents_bytes(d));
    fkv_documents_close(d);
}

TEST_IN_FOLDER(texts_come_whole_and_in_order) {
    char inner[300], note[FKV_DOCUMENTS_NOTE];
    snprintf(inner, sizeof inner, "%s/books", folder);
    assert_int_equal(mkdir(inner, 0777), 0);
    put_text(inner, "b.txt", "second\r\n");
    put_text(inner, "a.txt", "  first book\n\n");
    put_text(inner, "B.txt", "capitals sort first");
    put_text(inner, "notes.md", "not a text");
    struct fkv_tokenizer *t = tokenizer();
    const char *paths[] = {
        put_text(folder, "z.txt", "one line, no newline"), inner,
        put_text(folder, "c.jsonl",
                 "{\"text\": \"line one\\n\"}\n\n   \r\n{\"article\": \"h\\u00e9 \\ud83d\\ude00\", "
                 "\"id\": 7}\r\n{\"text\": \"t\", \"article\": \"a\"}")};
    struct fkv_documents_options o = texts(paths, 3);
    struct fkv_documents *d;
    assert_ok(fkv_documents_open(&o, t, &d, &err));
    assert_true(fkv_documents_bytes(d) > 100);
    assert_int_equal(fkv_documents_bytes_read(d), 0);
    fkv_documents_note(d, note);
    assert_string_equal(note, "of a folder, 1 entry is left out: only its .txt files are read");
    expect(d, t, "z.txt", "one line, no newline");
    expect(d, t, "B.txt", "capitals sort first");
    expect(d, t, "a.txt", "  first book\n\n");
    expect(d, t, "b.txt", "second\r\n");
    expect(d, t, "c.jsonl:1", "line one\n");
    expect(d, t, "c.jsonl:4", "h\xc3\xa9 \xf0\x9f\x98\x80");
    expect(d, t, "c.jsonl:5", "t");
    expect_end(d);

    o.max_documents = 5;
    assert_ok(fkv_documents_open(&o, t, &d, &err));
    int count = 0;
    for (bool more = true; more; count += more) {
        struct fkv_document document;
        assert_ok(fkv_documents_next(d, &document, &more, &err));
        fkv_document_free(&document);
    }
    assert_int_equal(count, 5);
    fkv_documents_close(d);
    fkv_documents_close(NULL);
    fkv_tokenizer_close(t);
}

TEST_IN_FOLDER(rows_that_are_empty_are_left_out_and_counted) {
    char note[FKV_DOCUMENTS_NOTE];
    struct fkv_tokenizer *t = tokenizer();
    const char *path = put_text(folder, "rows.JSONL",
                                "\xef\xbb\xbf{\"text\": \"first row\"}\r\n{\"text\": \"\"}\n"
                                "{\"text\": null}\r\n{\"text\": \"fourth\"}\n");
    struct fkv_documents_options o = texts(&path, 1);
    struct fkv_documents *d;
    assert_ok(fkv_documents_open(&o, t, &d, &err));
    fkv_documents_note(d, note);
    assert_string_equal(note, "");
    expect(d, t, "rows.JSONL:1", "first row");
    expect(d, t, "rows.JSONL:4", "fourth");
    struct fkv_document document;
    bool more = true;
    assert_ok(fkv_documents_next(d, &document, &more, &err));
    assert_false(more);
    fkv_documents_note(d, note);
    assert_string_equal(note, "2 rows are left out: empty or of one token");
    fkv_documents_close(d);
    fkv_tokenizer_close(t);
}

TEST_IN_FOLDER(files_of_any_name_are_read_by_their_format) {
    struct fkv_tokenizer *t = tokenizer();
    const struct {
        const char *name, *format, *data, *document;
    } cases[] = {
        {"wiki.test.raw", NULL, "a text", "wiki.test.raw"},
        {"README.md", NULL,
         "\xef\xbb\xbf"
         "a text",
         "README.md"},
        {"STORY.TXT", NULL, "a text", "STORY.TXT"},
        {"rows.json", NULL, "{\"text\": \"a text\"}", "rows.json:1"},
        {"rows.log", "jsonl", "{\"text\": \"a text\"}", "rows.log:1"},
        {"no_ending", "text", "a text", "no_ending"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = put_text(folder, cases[i].name, cases[i].data);
        struct fkv_documents_options o = texts(&path, 1);
        struct fkv_documents *d;
        o.text_format = cases[i].format;
        assert_ok(fkv_documents_open(&o, t, &d, &err));
        expect(d, t, cases[i].document, "a text");
        expect_end(d);
    }
    fkv_tokenizer_close(t);
}

TEST(only_the_field_of_a_row_is_read) {
    const struct {
        const char *row, *field, *text; /* text NULL: refused */
    } cases[] = {
        {"{\"score\": NaN, \"text\": \"x\"}", NULL, "x"},
        {"{\"p\": 1e400, \"n\": -1.5e-3 , \"text\": \"x\"}", NULL, "x"},
        {"{\"title\": \"\\udcb2\", \"text\": \"x\"}", NULL, "x"},
        {"{\"a\": {\"text\": \"no\", \"b\": [1, \"]}\", {}]}, \"text\": \"x\"}  ", NULL, "x"},
        {"{\"text\": \"\\ud83d\\ude00 \\u00e9\\n\\/\"}", NULL, "\xf0\x9f\x98\x80 \xc3\xa9\n/"},
        {"{\"article\": \"a\", \"text\": \"t\"}", NULL, "t"},
        {"{\"text\": \"t\", \"article\": 7}", NULL, "t"},
        {"{\"t\\u0065xt\": \"x\"}", NULL, "x"},
        {"{\"text\": \"t\", \"body\": \"b\"}", "body", "b"},
        {"{\"text\": \"t\"}", "body", NULL},
        {"{\"text\": null}", NULL, ""},
        {"{}", NULL, NULL},
        {"{\"text\": \"x\"} {}", NULL, NULL},
        {"{\"text\": \"x\",}", NULL, NULL},
        {"{\"text\": \"x\"", NULL, NULL},
        {"{\"text\": \"\\ud83d\"}", NULL, NULL},
        {"{\"text\": \"\\ud83d\\u0041\"}", NULL, NULL},
        {"{\"text\": \"\\u00g0\"}", NULL, NULL},
        {"{\"text\": \"a\tb\"}", NULL, NULL},
        {"{\"text\": , \"a\": 1}", NULL, NULL},
        {"{\"a\": [1, \"text\": \"x\"", NULL, NULL},
        {"\"text\"", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text;
        size_t bytes;
        int status = fkv_jsonl_text(cases[i].row, strlen(cases[i].row), cases[i].field, "r.jsonl:1",
                                    &text, &bytes, &err);
        if (!cases[i].text) {
            if (!status) fail_msg("%s was accepted", cases[i].row);
            if (!strstr(err.message, "r.jsonl:1")) fail_msg("%s", err.message);
            continue;
        }
        if (status) fail_msg("%s: %s", cases[i].row, err.message);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(bytes, strlen(text));
        free(text);
    }
    static const char nul[] = "{\"text\": \"a\\u0000b\"}";
    char *text;
    size_t bytes;
    assert_ok(fkv_jsonl_text(nul, strlen(nul), NULL, "r.jsonl:1", &text, &bytes, &err));
    assert_int_equal(bytes, 3);
    assert_memory_equal(text, "a\0b", 4);
    free(text);
}

/* A .npy file as NumPy writes it: header padded to a multiple of 64, integers of `width` bytes. */
static size_t write_npy(uint8_t *out, int version, const char *descr, const int32_t *values,
                        size_t n) {
    char dict[128];
    size_t prefix = version == 1 ? 10 : 12;
    size_t length = (size_t)snprintf(
        dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': (%zu,), }", descr, n);
    size_t padded = (prefix + length + 1 + 63) / 64 * 64 - prefix, width = (size_t)(descr[2] - '0');
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (uint8_t)version;
    out[7] = 0;
    for (size_t i = 0; i < prefix - 8; i++) out[8 + i] = (uint8_t)(padded >> 8 * i);
    memset(out + prefix, ' ', padded);
    memcpy(out + prefix, dict, length);
    out[prefix + padded - 1] = '\n';
    uint8_t *data = out + prefix + padded;
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < width; b++) {
            size_t place = descr[0] == '>' ? width - 1 - b : b;
            data[i * width + place] = (uint8_t)((uint64_t)values[i] >> 8 * b);
        }
    return prefix + padded + n * width;
}

TEST(npy_of_every_integer_type_gives_the_ids) {
    static const char *const types[] = {"|u1", "|i1", "<u2", "<i2", ">u2", ">i2", "<u4",
                                        "<i4", ">u4", ">i4", "<u8", "<i8", ">u8", ">i8"};
    static uint8_t file[1 << 14];
    int32_t values[500];
    for (size_t k = 0; k < sizeof types / sizeof *types; k++)
        for (int version = 1; version <= 3; version++) {
            size_t n = (size_t)test_between(0, 500), count;
            int high = types[k][2] == '1' ? 127 : types[k][2] == '2' ? 32767 : INT32_MAX;
            for (size_t i = 0; i < n; i++)
                values[i] = (int32_t)(test_random() % ((uint64_t)high + 1));
            int32_t *found;
            assert_ok(fkv_npy_parse(file, write_npy(file, version, types[k], values, n), "x.npy",
                                    &found, &count, &err));
            assert_int_equal(count, n);
            if (n) assert_memory_equal(found, values, n * sizeof *values);
            free(found);
        }
}

TEST_IN_FOLDER(raw_ids_are_little_endian) {
    static const uint8_t data[] = {1, 0, 2, 0, 0xff, 4, 0, 0};
    const char *paths[] = {put(folder, "ids.bin", data, sizeof data)};
    struct fkv_documents_options o = ids(paths, 1);
    static const int32_t expected[2][4] = {{1, 2, 0x4ff, 0}, {0x20001, 0x4ff}};
    static const char *const dtypes[] = {"uint16", "uint32"};
    for (int k = 0; k < 2; k++) {
        o.token_dtype = dtypes[k];
        o.vocab = 0x30000;
        struct fkv_documents *d;
        struct fkv_document document;
        bool more;
        assert_ok(fkv_documents_open(&o, NULL, &d, &err));
        assert_ok(fkv_documents_next(d, &document, &more, &err));
        assert_string_equal(document.name, "ids.bin");
        assert_int_equal(document.count, k ? 2 : 4);
        assert_memory_equal(document.tokens, expected[k], document.count * 4);
        fkv_sha256_hex hash;
        assert_ok(fkv_sha256_memory(expected[k], document.count * 4, hash, &err));
        assert_string_equal(document.text_sha256, hash);
        fkv_document_free(&document);
        expect_end(d);
    }
}

TEST_IN_FOLDER(the_first_ids_are_shown_as_text) {
    char note[FKV_DOCUMENTS_NOTE];
    struct fkv_tokenizer *t = tokenizer();
    int32_t *tokens;
    size_t count;
    assert_ok(fkv_tokenizer_encode(t, "hello", 5, true, &tokens, &count, &err));
    uint16_t words[32];
    for (size_t i = 0; i < count; i++) words[i] = (uint16_t)tokens[i];
    const char *path = put(folder, "ids.bin", words, 2 * count);
    struct fkv_documents_options o = ids(&path, 1);
    struct fkv_documents *d;
    assert_ok(fkv_documents_open(&o, t, &d, &err));
    expect(d, t, "ids.bin", NULL);
    fkv_documents_note(d, note);
    if (strncmp(note, "ids.bin begins with 1 ", 22) || !strstr(note, ": \"hello\""))
        fail_msg("note: %s", note);
    expect_end(d);
    free(tokens);
    fkv_tokenizer_close(t);
}

/* Opening or reading the first document fails with a message that has the file's name and `text`.
 */
static void refused(struct fkv_documents_options o, const struct fkv_tokenizer *t, const char *name,
                    const char *text) {
    struct fkv_documents *d;
    struct fkv_document document;
    bool more = false;
    int status = fkv_documents_open(&o, t, &d, &err);
    if (!status) {
        status = fkv_documents_next(d, &document, &more, &err);
        fkv_documents_close(d);
    }
    if (!status) fail_msg("%s was accepted", name);
    if (!strstr(err.message, text) || !strstr(err.message, name))
        fail_msg("message \"%s\" lacks \"%s\" or \"%s\"", err.message, name, text);
}

TEST_IN_FOLDER(what_cannot_be_read_is_named) {
    char empty[300];
    snprintf(empty, sizeof empty, "%s/empty", folder);
    assert_int_equal(mkdir(empty, 0777), 0);
    struct fkv_tokenizer *t = tokenizer();
    const struct {
        const char *name, *data, *message;
    } cases[] = {
        {"e.txt", "", "empty"},
        {"u.txt", "ab\xff", "byte 2"},
        {"a.doc", "text", "expected .txt"},
        {"v.txt",
         "\xff\xfe"
         "a",
         "UTF-16"},
        {"b.jsonl", "\n{\"text\": \"x\"", "b.jsonl:2: "},
        {"c.jsonl", "{\"txt\": \"x\"}\n", "c.jsonl:1: "},
        {"d.jsonl", "{\"text\": 7}\n", "d.jsonl:1: "},
        {"e.jsonl", "[1]\n", "a list of them"},
        {"g.jsonl", "1\n", "\"article\""},
        {"f.jsonl", "{\"text\": \"\"}\n", "of 1 rows none has a text"},
        {"h.jsonl", "\n \n", "no rows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = put_text(folder, cases[i].name, cases[i].data);
        refused(texts(&path, 1), t, cases[i].name, cases[i].message);
    }
    const char *missing = "/nonexistent/x.txt", *none = empty,
               *one = put_text(folder, "ok.txt", "x");
    refused(texts(&missing, 1), t, missing, "No such file");
    refused(texts(&none, 1), t, "empty", "without .txt");
    refused(texts(&one, 1), NULL, "ok.txt", "tokenizer");
    struct fkv_documents_options small = texts(&one, 1);
    small.vocab = 3;
    refused(small, t, "ok.txt", "vocabulary of 3");
    refused(ids(&none, 1), NULL, "empty", "folder");
    const char *odd = put(folder, "odd.bin", "abc", 3),
               *short_ids = put(folder, "short.bin", "ab", 2),
               *large = put(folder, "large.bin", "\1\0\xff\xff", 4);
    refused(ids(&odd, 1), NULL, "odd.bin", "multiple of 2");
    refused(ids(&short_ids, 1), NULL, "short.bin", "at least 2 tokens");
    refused(ids(&large, 1), NULL, "large.bin", "token 1: id 65535");
    struct fkv_documents_options dtype = ids(&large, 1);
    dtype.token_dtype = "int8";
    refused(dtype, NULL, "--token-dtype", "int8");
    fkv_tokenizer_close(t);
}

TEST(absurd_npy_headers_are_refused) {
    const struct {
        const char *dict, *message;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "<f4"},
        {"{'descr': '<i3', 'fortran_order': False, 'shape': (2,), }", "<i3"},
        {"{'descr': '', 'fortran_order': False, 'shape': (2,), }", "descr"},
        {"{'descr': '<i4', 'fortran_order': True, 'shape': (2,), }", "fortran_order"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2), }", "one dimension"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (), }", "one dimension"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }", "8 bytes for them"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (4611686018427387906,), }",
         "8 bytes for them"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
         "not a dict"},
        {"{'descr': '<i4', 'fortran_order': False}", "not a dict"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), 'shape': (2,)}", "not a dict"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), } x", "not a dict"},
        {"", "not a dict"},
    };
    int32_t *found;
    size_t count;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char file[256] = "\x93NUMPY\1";
        size_t n = strlen(cases[i].dict);
        file[8] = (char)n;
        memcpy(file + 10, cases[i].dict, n + 1);
        assert_refused(fkv_npy_parse(file, 10 + n + 8, "x.npy", &found, &count, &err),
                       cases[i].message);
    }
    static uint8_t file[1 << 12];
    int32_t values[] = {1, 2, 3};
    size_t bytes = write_npy(file, 1, "<i8", values, 3);
    for (size_t cut = 0; cut < bytes; cut++)
        assert_refused(fkv_npy_parse(file, cut, "x.npy", &found, &count, &err), "x.npy");
    file[bytes - 9] = 0x80;
    assert_refused(fkv_npy_parse(file, bytes, "x.npy", &found, &count, &err), "token 1: -");
    file[6] = 4;
    assert_refused(fkv_npy_parse(file, bytes, "x.npy", &found, &count, &err), "version");
}
