/* Errors, hashes and what the machine has. */
#include <errno.h>

#include "kernels/base/hash.h"
#include "kernels/base/host.h"
#include "kernels/base/path.h"
#include "kernels/base/progress.h"
#include "tests/unit/support.h"

TEST(messages_are_built_from_the_inside_out) {
    errno = ENOENT;
    assert_int_equal(fkv_fail_errno(&err, "%s: cannot open", "x"), FKV_FAILED);
    assert_int_equal(fkv_error_prefix(&err, "document %d", 3), FKV_FAILED);
    assert_string_equal(err.message, "document 3: x: cannot open: No such file or directory");
    assert_int_equal(fkv_fail(&err, "again: %s", err.message),
                     FKV_FAILED); /* may quote what it replaces */
    assert_string_equal(err.message,
                        "again: document 3: x: cannot open: No such file or directory");
    assert_int_equal(fkv_fail(NULL, "nobody listens"), FKV_FAILED);
    assert_int_equal(fkv_error_prefix(NULL, "nobody listens"), FKV_FAILED);
    char text[5000];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 0;
    fkv_fail(&err, "%s", text);
    fkv_error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

/* A path as deep as the system takes, of characters of one to four bytes, cut anywhere. */
TEST(a_long_message_keeps_the_files_name_and_the_reason_and_whole_characters) {
    static const char *const characters[] = {"a", "\u00e9", "\u4e16", "\U0001d11e"};
    for (int round = 0; round < 200; round++) {
        char path[FKV_PATH] = "/the/begin";
        size_t used = strlen(path), most = (size_t)test_between(1100, FKV_PATH - 20);
        while (used < most)
            used += (size_t)sprintf(path + used, "%s", characters[test_between(0, 3)]);
        strcpy(path + used, "/gamma.json");
        errno = EACCES;
        if (round % 2)
            fkv_fail(&err, "%s: field \"gamma\": expected a table, found nothing", path);
        else
            fkv_fail_errno(&err, "%s: cannot open", path);
        assert_true(strlen(err.message) < sizeof err.message &&
                    strlen(err.message) > sizeof err.message - 10);
        assert_true(!strncmp(err.message, "/the/begin", 10));
        assert_non_null(strstr(err.message, " ... "));
        assert_non_null(strstr(
            err.message, round % 2 ? "/gamma.json: field \"gamma\": expected a table, found nothing"
                                   : "/gamma.json: cannot open: Permission denied"));
        for (const unsigned char *c = (const unsigned char *)err.message; *c;) {
            int bytes = *c < 0x80 ? 1 : *c >= 0xf0 ? 4 : *c >= 0xe0 ? 3 : *c >= 0xc0 ? 2 : 0;
            if (!bytes) fail_msg("half a character in \"%s\"", err.message);
            for (int i = 1; i < bytes; i++)
                if ((c[i] & 0xc0) != 0x80) fail_msg("half a character in \"%s\"", err.message);
            c += bytes;
        }
    }
}

TEST(a_path_that_does_not_fit_is_refused) {
    char folder[FKV_PATH], path[FKV_PATH];
    memset(folder, 'a', sizeof folder);
    folder[FKV_PATH - 1 - 5] = 0;
    assert_ok(fkv_path_print(path, &err, "%s/1234", folder));
    assert_int_equal(strlen(path), FKV_PATH - 1);
    assert_refused(fkv_path_print(path, &err, "%s/12345", folder),
                   "at most 4095 bytes, found 4096");
    assert_int_equal(fkv_path_print(path, NULL, "%s/12345", folder), FKV_FAILED);
}

TEST(sha256_gives_the_published_digests) {
    fkv_sha256_hex hex;
    assert_ok(fkv_sha256_memory("", 0, hex, &err));
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_ok(fkv_sha256_memory("abc", 3, hex, &err));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    assert_ok(fkv_sha256_memory(million, 1000000, hex, &err));
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

TEST(files_hash_as_their_contents_one_after_the_other) {
    char folder[256], a[300], b[300];
    fkv_sha256_hex whole, parts;
    test_make_folder(folder);
    snprintf(a, sizeof a, "%s/a", folder);
    snprintf(b, sizeof b, "%s/b", folder);
    size_t bytes = (size_t)test_between(1 << 20, 3 << 20), cut = (size_t)test_between(0, 1 << 20);
    char *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) data[i] = (char)test_random();
    test_write_file(a, data, cut);
    test_write_file(b, data + cut, bytes - cut);
    assert_ok(fkv_sha256_memory(data, bytes, whole, &err));
    assert_ok(fkv_sha256_files((const char *[]){a, b}, 2, parts, &err));
    assert_string_equal(parts, whole);
    test_remove_folder(folder);
    assert_refused(fkv_sha256_files((const char *[]){a}, 1, parts, &err), "/a: cannot open");
    free(data);
}

TEST(bytes_read_well) {
    char text[16];
    static const struct {
        int64_t bytes;
        const char *text;
    } cases[] = {{0, "0 B"},      {1023, "1023 B"},      {1536, "1.5 KiB"}, {3LL << 29, "1.5 GiB"},
                 {-1, "unknown"}, {INT64_MAX, "8.0 EiB"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fkv_format_bytes(text, cases[i].bytes);
        assert_string_equal(text, cases[i].text);
    }
}

TEST(seconds_read_well) {
    char text[16];
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0.1 s"},   {3.14, "3.1 s"}, {42.3, "42 s"},
                 {150, "2 min"}, {9000, "2.5 h"}, {NAN, "unknown"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fkv_format_seconds(text, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

TEST(the_machine_is_asked_before_a_run) {
    int64_t here, there;
    assert_true(fkv_host_memory_available() > 1 << 20);
    assert_ok(fkv_host_disk_free("/tmp", &here, &err));
    assert_ok(fkv_host_disk_free("/tmp/not/made/yet", &there, &err));
    assert_close((double)there, (double)here, 1e9, 0.01); /* others write meanwhile */
    assert_ok(fkv_host_disk_free("not-made-yet", &there, &err));
    assert_ok(fkv_host_disk_free("/", &there, &err));
}

TEST_IN_FOLDER(folders_are_made_with_their_parents) {
    char path[300];
    snprintf(path, sizeof path, "%s/a/b//c/", folder);
    assert_ok(fkv_make_directories(path, &err));
    assert_ok(fkv_make_directories(path, &err));
    assert_int_equal(access(path, X_OK), 0);
    snprintf(path, sizeof path, "%s/a/file", folder);
    test_write_text(path, "");
    assert_refused(fkv_make_directories(path, &err), "expected a folder, found a file");
    strcat(path, "/below");
    assert_refused(fkv_make_directories(path, &err), "/file/below");
    assert_refused(fkv_make_directories("", &err), "cannot make the folder");
}

TEST(the_time_left_follows_the_recent_rate) {
    struct fkv_progress p = {.total = 1000, .total_work = 1000};
    assert_true(isnan(fkv_progress_left(&p)));
    double now = 0;
    for (int i = 1; i <= 100; i++) fkv_progress_note(&p, now += 1, 5 * i, 5 * i); /* 5 a second */
    assert_close(fkv_progress_left(&p), 100, 0, 1e-9);
    for (int i = 1; i <= 10; i++)
        fkv_progress_note(&p, now += 1, 500 + i, 500 + i); /* slower by five */
    /* Weights exp(-t / 11) at the end: 10 s of the new rate count 6.6 times as much as they would
     * in the mean. */
    assert_true(fkv_progress_left(&p) > 150 && fkv_progress_left(&p) < 490);
    for (int i = 11; i <= 60; i++) fkv_progress_note(&p, now += 1, 500 + i, 500 + i);
    assert_close(fkv_progress_left(&p), 440, 0, 0.05); /* the mean of the whole run would say 126 */
    fkv_progress_note(&p, now += 1, 1000, 1000);
    assert_close(fkv_progress_left(&p), 0, 0, 0);
}

TEST(the_time_left_counts_work_and_not_what_was_there) {
    /* 100 tokens whose cost grows along the way: token t takes t seconds, and was expected to take
     * t / 3. */
    struct fkv_progress p = {.total = 100, .total_work = 5050 / 3.0};
    double now = 0, work = 0;
    for (int t = 1; t <= 50; t++) fkv_progress_note(&p, now += t, t, work += t / 3.0);
    assert_close(fkv_progress_left(&p), 5050 - 1275, 0,
                 1e-9); /* by tokens it would be 2455 at most */
    /* What was there before came in no time, and says nothing of what is to come. */
    p = (struct fkv_progress){.total = 100, .total_work = 100};
    fkv_progress_skip(&p, 80, 80);
    fkv_progress_note(&p, 10, 85, 85);
    assert_close(fkv_progress_left(&p), 30, 0, 1e-9);
}

TEST(progress_is_silent_without_a_terminal_and_the_clock_runs_forward) {
    struct fkv_progress p;
    fkv_progress_start(&p, "tokens", 10, true);
    assert_false(p.visible);
    fkv_progress_update(&p, 5, "half");
    fkv_progress_finish(&p);
    double before = fkv_seconds();
    assert_true(fkv_seconds() >= before);
}
