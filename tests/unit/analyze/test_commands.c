/* The sub-commands as a user runs them: exit status, JSON on stdout, files in the folder. */
#include <dirent.h>

#include "tests/unit/analyze/command_output.h"

static char out[300];

static int setup(void **state) {
    made_folder(state);
    snprintf(out, sizeof out, "%s/out", folder);
    return 0;
}

/* Runs a command with its stdout and stderr in files of `folder`; returns its status. Arguments end
 * with NULL. */
static int run(int (*command)(int, char **), const char *first, ...) {
    char *argv[16] = {(char *)"freqkv-analyze test", (char *)first};
    int argc = 2;
    va_list arguments;
    va_start(arguments, first);
    while ((argv[argc] = va_arg(arguments, char *))) argc++;
    va_end(arguments);
    return run_command(command, argc, argv);
}

static int files_in(const char *folder) {
    int count = 0;
    DIR *d = opendir(folder);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

static struct made two_texts(void) {
    return (struct made){.layers = 2,
                         .heads = 1,
                         .query_group = 1,
                         .head_dim = 8,
                         .recordings = 2,
                         .tokens = {150, 70},
                         .document = {0, 1},
                         .dtype = FKV_F32,
                         .states = 3,
                         .trained_context = 64,
                         .value = made_drift};
}

static double number_at(const json_t *object, int state, int layer, const char *key, int index) {
    const json_t *row = json_array_get(
        json_object_get(json_array_get(json_object_get(object, "states"), (size_t)state), "layers"),
        (size_t)layer);
    const json_t *value = json_object_get(row, key);
    if (json_is_array(value)) value = json_array_get(value, (size_t)index);
    assert_true(json_is_real(value));
    return json_number_value(value);
}

TEST_WITH(spectrum_and_error_share_a_folder_and_agree, setup, remove_folder) {
    struct made m = two_texts();
    made_write(&m, path);
    assert_int_equal(run(fkv_command_spectrum, path, "--out", out, "--json", "--quiet", NULL), 0);
    assert_string_equal(text_of(2), "");
    json_t *spectrum = object_of_stdout();
    assert_int_equal(json_integer_value(json_object_get(spectrum, "segment_length")), 60);
    assert_int_equal(json_integer_value(json_object_get(spectrum, "segments")), 3);
    assert_int_equal(json_integer_value(json_object_get(spectrum, "documents")), 2);
    assert_string_equal(json_string_value(json_object_get(spectrum, "null")), "permute");
    assert_int_equal(files_in(out), 3 + 2 * 2 * 2);
    assert_int_equal(run(fkv_command_error, path, "--out", out, "--gamma", "0.25,0.5", "--json",
                         "--quiet", NULL),
                     0);
    json_t *error = object_of_stdout();
    assert_int_equal(files_in(out), 3 + 2 * 2 * 2 + 1 + 2 * 2 * 2);
    for (int s = 0; s < 2; s++)
        for (int layer = 0; layer < 2; layer++) {
            assert_close(number_at(error, s, layer, "retained_energy_no_dc", 1),
                         number_at(spectrum, s, layer, "low_half", 0), 1e-12, 0);
            assert_close(number_at(error, s, layer, "retained_energy_no_dc", 0),
                         number_at(spectrum, s, layer, "low_quarter", 0), 1e-12, 0);
        }
    json_decref(spectrum);
    json_decref(error);
    assert_int_equal(run(fkv_command_spectrum, path, "--out", out, "--null", "none", NULL),
                     0); /* again, and a table */
    assert_non_null(
        strstr(text_of(1), "key: 2 layers x 1 head, 3 segments of 60 tokens from 2 documents"));
    assert_non_null(strstr(text_of(2), "needs"));
}

TEST_WITH(a_dry_run_writes_nothing, setup, remove_folder) {
    struct made m = two_texts();
    made_write(&m, path);
    assert_int_equal(run(fkv_command_spectrum, path, "--out", out, "--dry-run", NULL), 0);
    assert_non_null(strstr(text_of(1), "3 segments of 60 tokens"));
    assert_string_equal(text_of(2), "");
    assert_int_equal(
        run(fkv_command_error, path, "--out", out, "--dry-run", "--json", "--quiet", NULL), 0);
    json_t *object = object_of_stdout();
    assert_int_equal(json_integer_value(json_object_get(object, "tokens")), 180);
    json_decref(object);
    assert_int_equal(files_in(out), -1);
}

TEST_WITH(what_cannot_be_done_has_a_status_and_a_reason_and_leaves_no_files, setup, remove_folder) {
    struct made m = two_texts();
    made_write(&m, path);
    assert_int_equal(run(fkv_command_spectrum, path, "--out", out, "--length", "147", NULL), 1);
    assert_non_null(strstr(text_of(2), "\"text 0\", has 150 tokens; --length 146"));
    assert_int_equal(run(fkv_command_error, path, "--out", out, "--gamma", "0.01", NULL), 2);
    assert_non_null(strstr(text_of(2), "--gamma 0.01 keeps no coefficient"));
    assert_int_equal(run(fkv_command_error, path, "--out", out, "--gamma", "1.5", NULL), 2);
    assert_int_equal(run(fkv_command_error, "/nonexistent/capture", "--out", out, NULL), 1);
    assert_non_null(strstr(text_of(2), "/nonexistent/capture"));
    assert_int_equal(files_in(out), -1);
    assert_int_equal(run(fkv_command_error, path, "--out", "/proc/nothing", NULL), 1);
    assert_non_null(strstr(text_of(2), "/proc/nothing"));
}

TEST_WITH(merged_captures_are_measured_as_one, setup, remove_folder) {
    char other[300], merged[300];
    struct made m = two_texts();
    made_write(&m, path);
    m.document[0] = 2, m.document[1] = 3;
    snprintf(other, sizeof other, "%s/other", folder);
    snprintf(merged, sizeof merged, "%s/merged", folder);
    made_write(&m, other);
    assert_int_equal(run(fkv_command_merge, path, other, "--out", merged, "--json", NULL), 0);
    json_t *object = object_of_stdout();
    assert_int_equal(json_integer_value(json_object_get(object, "recordings")), 4);
    assert_int_equal(json_integer_value(json_object_get(object, "tokens")), 440);
    json_decref(object);
    assert_int_equal(run(fkv_command_error, merged, "--out", out, "--json", "--quiet", NULL), 0);
    object = object_of_stdout();
    assert_int_equal(json_integer_value(json_object_get(object, "documents")), 4);
    assert_int_equal(json_array_size(json_object_get(object, "gamma")), 9);
    json_decref(object);
    assert_int_equal(run(fkv_command_merge, path, path, "--out", out, NULL), 1);
}
