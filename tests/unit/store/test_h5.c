/* Runs and results: what is put comes back, whole or not at all. */
#include <hdf5.h>
#include <unistd.h>

#include "capture/store/h5.h"
#include "tests/unit/support.h"

TEST_IN_FOLDER(every_type_and_rank_comes_back) {
    struct fkv_h5_writer *w;
    struct fkv_h5_reader *r;
    char path[300];
    snprintf(path, sizeof path, "%s/run.h5", folder);
    assert_ok(fkv_h5_create(path, &w, &err));
    const size_t bytes[] = {8, 4, 4, 8, 1};
    int64_t dims[5][3], elements[5];
    void *data[5];
    for (int type = FKV_H5_F64; type <= FKV_H5_U8; type++) {
        char name[64];
        elements[type] = 1;
        for (int i = 0; i < 3; i++) elements[type] *= dims[type][i] = test_between(1, 60);
        data[type] = malloc((size_t)elements[type] * bytes[type]);
        for (size_t i = 0; i < (size_t)elements[type] * bytes[type]; i++)
            ((uint8_t *)data[type])[i] = (uint8_t)test_random();
        snprintf(name, sizeof name, "/group/%d/x", type);
        assert_ok(fkv_h5_put(w, name, type, 3, dims[type], data[type], &err));
    }
    const int64_t none[2] = {0, 7};
    double pi = 3.14159;
    assert_ok(fkv_h5_put(w, "empty", FKV_H5_F64, 2, none, NULL, &err));
    assert_ok(fkv_h5_put(w, "number", FKV_H5_F64, 0, NULL, &pi, &err));
    assert_ok(fkv_h5_put_string(w, "/", "policy", "freqkv \xce\xb3", &err));
    assert_ok(fkv_h5_put_string(w, "/group/1/x", "unit", "nats", &err));
    assert_ok(fkv_h5_put_double(w, "/new/group", "gamma", 0.5, &err));
    assert_ok(fkv_h5_put_double(w, "/new/group", "gamma", 0.25, &err));
    assert_ok(fkv_h5_put_int(w, "/", "window", 512, &err));
    assert_int_equal(access(path, F_OK), -1);
    assert_ok(fkv_h5_commit(w, &err));

    assert_ok(fkv_h5_open(path, &r, &err));
    for (int type = FKV_H5_F64; type <= FKV_H5_U8; type++) {
        char name[64];
        int rank;
        int64_t found_dims[8];
        bool found;
        snprintf(name, sizeof name, "/group/%d/x", type);
        assert_ok(fkv_h5_shape(r, name, &rank, found_dims, &found, &err));
        assert_true(found && rank == 3);
        assert_memory_equal(found_dims, dims[type], sizeof dims[type]);
        void *back = malloc((size_t)elements[type] * bytes[type]);
        assert_ok(fkv_h5_get(r, name, type, elements[type], back, &err));
        assert_memory_equal(back, data[type], (size_t)elements[type] * bytes[type]);
        assert_refused(fkv_h5_get(r, name, type, elements[type] + 1, back, &err), "elements");
        free(back);
        free(data[type]);
    }
    int rank;
    int64_t found_dims[8];
    bool found;
    double value;
    char text[32];
    assert_ok(fkv_h5_shape(r, "empty", &rank, found_dims, &found, &err));
    assert_true(found && rank == 2 && found_dims[0] == 0 && found_dims[1] == 7);
    assert_ok(fkv_h5_get(r, "number", FKV_H5_F64, 1, &value, &err));
    assert_close(value, pi, 0, 0);
    assert_ok(fkv_h5_shape(r, "/no/such/dataset", &rank, found_dims, &found, &err));
    assert_false(found);
    assert_refused(fkv_h5_get(r, "/no/such", FKV_H5_F64, 1, &value, &err),
                   "/no/such: expected a dataset");
    assert_refused(fkv_h5_shape(r, "/group", &rank, found_dims, &found, &err),
                   "expected a dataset");
    assert_ok(fkv_h5_get_string(r, "/", "policy", text, sizeof text, &found, &err));
    assert_string_equal(text, "freqkv \xce\xb3");
    assert_ok(fkv_h5_get_string(r, "/group/1/x", "unit", text, sizeof text, &found, &err));
    assert_string_equal(text, "nats");
    assert_refused(fkv_h5_get_string(r, "/", "policy", text, 4, &found, &err),
                   "fewer than 4 bytes");
    assert_ok(fkv_h5_get_double(r, "/new/group", "gamma", &value, &found, &err));
    assert_close(value, 0.25, 0, 0);
    assert_ok(fkv_h5_get_double(r, "/", "window", &value, &found, &err));
    assert_true(found && value == 512);
    assert_ok(fkv_h5_get_double(r, "/none", "window", &value, &found, &err));
    assert_false(found);
    fkv_h5_close(r);
    fkv_h5_close(NULL);
}

TEST_IN_FOLDER(files_appear_whole_or_not_at_all) {
    struct fkv_h5_writer *w;
    struct fkv_h5_reader *r;
    char path[300], command[400];
    const int64_t n = 3;
    const float x[3] = {1, 2, 3};
    snprintf(path, sizeof path, "%s/run.h5", folder);
    snprintf(command, sizeof command, "test -z \"$(ls -A '%s')\"", folder);
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put(w, "x", FKV_H5_F32, 1, &n, x, &err));
    fkv_h5_abandon(w);
    fkv_h5_abandon(NULL);
    assert_int_equal(system(command), 0);
    assert_ok(fkv_h5_create(path, &w, &err));
    test_write_text(path, "");
    assert_refused(fkv_h5_commit(w, &err), "exists already");
    assert_refused(fkv_h5_create(path, &w, &err), "exists already");
    assert_refused(fkv_h5_create("/proc/run.h5", &w, &err), "/proc/run.h5: cannot write");
    snprintf(command, sizeof command, "%s/none/run.h5", folder);
    assert_refused(fkv_h5_create(command, &w, &err), "No such file");
    assert_refused(fkv_h5_open(command, &r, &err), "No such file");
}

/* What a file declares and never wrote: whoever reads asks for memory by the shape, so the shape
 * alone must not decide how much. */
TEST_IN_FOLDER(a_shape_beyond_what_the_file_holds_is_refused) {
    static const hsize_t shapes[][2] = {
        {1 << 20, 1 << 10}, {(hsize_t)1 << 40, (hsize_t)1 << 40}, {(hsize_t)1 << 62, 0}};
    const hsize_t chunk[2] = {1, 1}, filled[2] = {1000, 1000};
    static double zeros[1000000];
    struct fkv_h5_reader *r;
    char path[300], name[16];
    snprintf(path, sizeof path, "%s/x.h5", folder);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
          list = H5Pcreate(H5P_DATASET_CREATE);
    for (int i = 0; i < 4; i++) { /* the last is as dense as it gets, and whole */
        snprintf(name, sizeof name, "%d", i);
        H5Pset_chunk(list, 2, i < 3 ? chunk : filled);
        if (i == 3) H5Pset_deflate(list, 9);
        hid_t space = H5Screate_simple(2, i < 3 ? shapes[i] : filled, NULL);
        hid_t dataset =
            H5Dcreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
        assert_true(dataset >= 0);
        if (i == 3)
            assert_true(
                H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0);
        H5Dclose(dataset), H5Sclose(space);
    }
    H5Pclose(list), H5Fclose(file);
    assert_ok(fkv_h5_open(path, &r, &err));
    for (int i = 0; i < 4; i++) {
        int rank;
        int64_t dims[8];
        bool found;
        snprintf(name, sizeof name, "%d", i);
        if (i < 3) {
            assert_refused(fkv_h5_shape(r, name, &rank, dims, &found, &err),
                           "asks for more than the file holds");
            assert_refused(fkv_h5_get(r, name, FKV_H5_F64, 1, zeros, &err),
                           "asks for more than the file holds");
        } else {
            assert_ok(fkv_h5_shape(r, name, &rank, dims, &found, &err));
            assert_ok(fkv_h5_get(r, name, FKV_H5_F64, 1000000, zeros, &err));
        }
    }
    fkv_h5_close(r);
}
