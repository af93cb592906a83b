/* JSON with our conventions: nulls for numbers that do not exist, messages that name file and
 * field. */
#include "kernels/base/json.h"

#include "tests/unit/support.h"

static json_t *parse(const char *text) {
    json_t *root = fkv_json_parse(text, strlen(text), "x.json", &err);
    if (!root) fail_msg("%s: %s", text, err.message);
    return root;
}

TEST(numbers_that_do_not_exist_are_null) {
    json_t *object = json_pack("{s:o, s:o, s:o}", "nan", fkv_json_number(NAN), "inf",
                               fkv_json_number(-INFINITY), "x", fkv_json_number(0.1));
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    assert_string_equal(text, "{\"nan\":null,\"inf\":null,\"x\":0.10000000000000001}");
    free(text);
    json_decref(object);
}

TEST(malformed_text_is_refused_with_its_place) {
    static const char *const bad[] = {"",
                                      "{",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"a\":NaN}",
                                      "{\"a\":1}x",
                                      "[1,]",
                                      "{a:1}",
                                      "\"\xff\xfe\"",
                                      "{\"a\":01}",
                                      "[1e400]",
                                      "{\"a\":Infinity}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (fkv_json_parse(bad[i], strlen(bad[i]), "some/file.json", &err))
            fail_msg("accepted %s", bad[i]);
        if (!strstr(err.message, "some/file.json") || !strstr(err.message, "line"))
            fail_msg("%s", err.message);
    }
}

TEST(integers_beyond_64_bits_do_not_spoil_a_file) {
    json_t *root = parse("{\"model_max_length\": 1000000000000000019884624838656, \"layers\": 5}");
    int64_t layers = 0;
    double length = 0;
    assert_ok(fkv_json_get_int(root, "x.json", "layers", true, 1, 100, &layers, &err));
    assert_int_equal(layers, 5);
    assert_ok(
        fkv_json_get_double(root, "x.json", "model_max_length", true, 0, 1e40, &length, &err));
    assert_close(length, 1e30, 0, 1e-15);
    assert_refused(
        fkv_json_get_int(root, "x.json", "model_max_length", true, 1, INT64_MAX, &layers, &err),
        "integer");
    json_decref(root);
}

TEST(fields_are_fetched_with_type_and_range) {
    json_t *root = parse(
        "{\"i\": 7, \"r\": 0.5, \"whole\": 3.0, \"b\": true, \"s\": \"text\", \"null\": null}");
    int64_t i = -1;
    double r = -1;
    bool b = false;
    const char *s = NULL;
    assert_ok(fkv_json_get_int(root, "f", "i", true, 0, 7, &i, &err));
    assert_int_equal(i, 7);
    assert_ok(fkv_json_get_int(root, "f", "whole", true, 0, 7, &i, &err));
    assert_int_equal(i, 3);
    assert_ok(fkv_json_get_double(root, "f", "r", true, 0, 1, &r, &err));
    assert_true(r == 0.5);
    assert_ok(fkv_json_get_double(root, "f", "i", true, 0, 10, &r, &err));
    assert_true(r == 7);
    assert_ok(fkv_json_get_bool(root, "f", "b", true, &b, &err));
    assert_true(b);
    assert_ok(fkv_json_get_string(root, "f", "s", true, &s, &err));
    assert_string_equal(s, "text");
    assert_refused(fkv_json_get_int(root, "config.json", "i", true, 8, 9, &i, &err),
                   "config.json: field \"i\": expected an integer in [8, 9], found 7");
    assert_refused(fkv_json_get_int(root, "f", "s", true, 0, 9, &i, &err), "found \"text\"");
    assert_refused(fkv_json_get_int(root, "f", "r", true, 0, 9, &i, &err), "found 0.5");
    assert_refused(fkv_json_get_double(root, "f", "b", true, 0, 9, &r, &err), "found true");
    assert_refused(fkv_json_get_bool(root, "f", "i", true, &b, &err), "expected true or false");
    assert_refused(fkv_json_get_string(root, "f", "i", true, &s, &err), "expected a string");
    assert_refused(fkv_json_get_string(root, "f", "absent", true, &s, &err), "found nothing");
    assert_refused(fkv_json_get_int(root, "f", "null", true, 0, 9, &i, &err), "found null");
    json_decref(root);
}

TEST(optional_fields_keep_what_was_there) {
    json_t *root = parse("{\"null\": null, \"wrong\": []}");
    int64_t i = 42;
    double r = 2.5;
    bool b = true;
    const char *s = "before";
    for (int round = 0; round < 2; round++) {
        const char *field = round ? "null" : "absent";
        assert_ok(fkv_json_get_int(root, "f", field, false, 0, 1, &i, &err));
        assert_ok(fkv_json_get_double(root, "f", field, false, 0, 1, &r, &err));
        assert_ok(fkv_json_get_bool(root, "f", field, false, &b, &err));
        assert_ok(fkv_json_get_string(root, "f", field, false, &s, &err));
    }
    assert_true(i == 42 && r == 2.5 && b && !strcmp(s, "before"));
    assert_refused(fkv_json_get_int(root, "f", "wrong", false, 0, 1, &i, &err), "found []");
    json_decref(root);
    json_t *list = parse("[1]");
    assert_refused(fkv_json_get_int(list, "f", "a", false, 0, 1, &i, &err),
                   "expected a JSON object");
    json_decref(list);
}

TEST_IN_FOLDER(a_file_is_loaded_within_its_limit) {
    char path[300];
    snprintf(path, sizeof path, "%s/x.json", folder);
    test_write_text(path, "{\"a\": 1}");
    json_t *root = fkv_json_load(path, 100, &err);
    assert_non_null(root);
    json_decref(root);
    assert_null(fkv_json_load(path, 4, &err));
    assert_non_null(strstr(err.message, "at most 4 bytes"));
}

TEST_IN_FOLDER(printing_gives_one_line_that_parses_back_exactly) {
    char path[300];
    double x = test_normal(), found = 0;
    snprintf(path, sizeof path, "%s/out", folder);
    fflush(stdout);
    int terminal = dup(STDOUT_FILENO);
    assert_non_null(freopen(path, "w", stdout));
    int status = fkv_json_print(
        json_pack("{s:o, s:o}", "x", fkv_json_number(x), "none", fkv_json_number(NAN)), &err);
    fflush(stdout);
    dup2(terminal, STDOUT_FILENO);
    close(terminal);
    assert_ok(status);
    json_t *root = fkv_json_load(path, 1000, &err);
    assert_non_null(root);
    assert_ok(fkv_json_get_double(root, path, "x", true, -100, 100, &found, &err));
    assert_true(found == x);
    assert_true(json_is_null(json_object_get(root, "none")));
    json_decref(root);
}
