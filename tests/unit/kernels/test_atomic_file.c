/* A file is there whole or not at all: after commit, after abandon, after a full disk. */
#include "kernels/base/atomic_file.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "tests/unit/support.h"

static int entries(const char *folder) {
    DIR *d = opendir(folder);
    assert_non_null(d);
    int count = 0;
    for (struct dirent *e; (e = readdir(d));)
        count += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return count;
}

TEST_IN_FOLDER(a_committed_file_has_its_name_and_its_contents) {
    struct fkv_atomic_file f;
    char path[300], *data;
    snprintf(path, sizeof path, "%s/x.json", folder);
    for (int round = 0; round < 2; round++) { /* the second replaces the first */
        assert_ok(fkv_atomic_open(&f, path, &err));
        fprintf(f.stream, "round %d", round);
        assert_int_equal(access(path, F_OK), round ? 0 : -1);
        assert_ok(fkv_atomic_commit(&f, &err));
        fkv_atomic_abandon(&f); /* harmless after commit */
        assert_int_equal(entries(folder), 1);
    }
    size_t bytes;
    assert_ok(fkv_read_file(path, 100, &data, &bytes, &err));
    assert_int_equal(bytes, 7);
    assert_string_equal(data, "round 1");
    free(data);
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(found.st_mode & 0777, 0666 & ~mask);
}

TEST_IN_FOLDER(an_abandoned_file_leaves_nothing) {
    struct fkv_atomic_file f, zero = {0};
    char path[300];
    snprintf(path, sizeof path, "%s/x", folder);
    assert_ok(fkv_atomic_open(&f, path, &err));
    fputs("half", f.stream);
    fkv_atomic_abandon(&f);
    fkv_atomic_abandon(&f);
    fkv_atomic_abandon(&zero);
    assert_int_equal(entries(folder), 0);
}

TEST_IN_FOLDER(two_writers_of_one_file_do_not_mix) {
    struct fkv_atomic_file a, b;
    char path[300], *data;
    size_t bytes;
    snprintf(path, sizeof path, "%s/x", folder);
    assert_ok(fkv_atomic_open(&a, path, &err));
    assert_ok(fkv_atomic_open(&b, path, &err));
    fputs("first", a.stream);
    fputs("second", b.stream);
    assert_ok(fkv_atomic_commit(&b, &err));
    assert_ok(fkv_atomic_commit(&a, &err));
    assert_ok(fkv_read_file(path, 100, &data, &bytes, &err));
    assert_string_equal(data, "first");
    free(data);
}

TEST(a_folder_that_is_missing_is_named) {
    struct fkv_atomic_file f;
    assert_refused(fkv_atomic_open(&f, "/no/such/folder/x.json", &err),
                   "/no/such/folder/x.json: cannot write: No such file");
    assert_refused(fkv_atomic_open(&f, "folder/", &err), "does not name a file");
    fkv_atomic_abandon(&f);
}

/* A tmpfs of 64 KiB in a mount namespace of our own, so that nothing outlives the test. */
TEST_IN_FOLDER(a_full_disk_is_an_error_and_leaves_nothing) {
    struct fkv_atomic_file f;
    char path[300];
    snprintf(path, sizeof path, "%s/x", folder);
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", folder, "tmpfs", 0, "size=64k")) {
        printf("skipped: mounting a small tmpfs is not permitted here\n");
        skip();
    }
    static char block[1 << 17];
    for (size_t piece = 1000; piece <= sizeof block;
         piece *= 131) { /* through stdio's buffer, and past it */
        assert_ok(fkv_atomic_open(&f, path, &err));
        for (size_t done = 0; done < sizeof block; done += piece) fwrite(block, 1, piece, f.stream);
        assert_refused(fkv_atomic_commit(&f, &err), "/x: cannot write: No space left on device");
        assert_int_equal(entries(folder), 0);
    }
    assert_int_equal(umount(folder), 0);
}

TEST_IN_FOLDER(files_another_library_wrote_are_renamed_whole) {
    char from[300], to[300];
    snprintf(from, sizeof from, "%s/.x.tmp", folder);
    snprintf(to, sizeof to, "%s/x", folder);
    assert_refused(fkv_atomic_rename(from, to, &err), ".x.tmp: cannot open");
    test_write_text(from, "data");
    assert_ok(fkv_atomic_rename(from, to, &err));
    assert_int_equal(access(to, F_OK), 0);
    assert_int_equal(access(from, F_OK), -1);
}

TEST_IN_FOLDER(reading_stops_at_its_limit) {
    char path[300], *data = NULL;
    size_t bytes;
    snprintf(path, sizeof path, "%s/x", folder);
    test_write_file(path, "a\0bc", 4);
    assert_ok(fkv_read_file(path, 4, &data, &bytes, &err));
    assert_int_equal(bytes, 4);
    assert_memory_equal(data, "a\0bc", 5);
    free(data);
    assert_refused(fkv_read_file(path, 3, &data, &bytes, &err), "at most 3 bytes");
    assert_null(data);
    assert_refused(fkv_read_file(folder, 100, &data, &bytes, &err), "Is a directory");
    assert_ok(fkv_read_file("/proc/self/status", 1 << 20, &data, &bytes,
                            &err)); /* a file without a size */
    assert_true(bytes > 100);
    free(data);
}
