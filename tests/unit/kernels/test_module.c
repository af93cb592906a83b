/* How a backend is found: by its name, and the CUDA module where it is said to be; every way in
 * which that can fail says what to do. The stand-ins for the module (backend_module.c) lie beside
 * this program. */
#include <limits.h>

#include "kernels/kernels.h"
#include "tests/unit/support.h"

static const struct fkv_backend_ops *ops;

/* A file in this program's folder. */
static char *beside(char path[PATH_MAX], const char *name) {
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 100);
    assert_true(length > 0);
    while (path[length - 1] != '/') length--;
    strcpy(path + length, name);
    return path;
}

static void use_module(const char *path) {
    assert_int_equal(setenv("FKV_CUDA_MODULE", path, 1), 0);
}

TEST(backends_are_found_by_name) {
    assert_ok(fkv_backend_find("cpu", &ops, NULL, &err));
    assert_ptr_equal(ops, &fkv_cpu_backend);
    assert_ok(fkv_backend_find("reference", &ops, NULL, &err));
    assert_ptr_equal(ops, &fkv_reference_backend);
    assert_refused(fkv_backend_find("tpu", &ops, NULL, &err),
                   "expected one of auto, cpu, cuda, reference, found \"tpu\"");
}

TEST(without_a_module_the_message_says_how_to_get_one) {
    char path[PATH_MAX];
    unsetenv("FKV_CUDA_MODULE");
    beside(path, "freqkv-cuda.so: no CUDA module here; ");
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), path);
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), "nvcc");
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), "./run build");
    use_module("/no/such/module.so");
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err),
                   "/no/such/module.so: no CUDA module here");
    use_module(
        "no-such-module.so"); /* a bare name is a file, not something to look for among libraries */
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err),
                   "./no-such-module.so: no CUDA module here");
    use_module("libm.so.6");
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), "./libm.so.6: no CUDA module here");
}

TEST(what_is_no_module_of_this_version_is_refused) {
    char folder[256], path[PATH_MAX], expected[100];
    snprintf(path, sizeof path, "%s/text.so", test_make_folder(folder));
    test_write_text(path, "not a library\n");
    use_module(path);
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), "/text.so: cannot be loaded: ");
    test_remove_folder(folder);
    use_module(beside(path, "module_nothing.so"));
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), "it has no fkv_cuda_backend");
    use_module(beside(path, "module_other_version.so"));
    snprintf(expected, sizeof expected,
             "built for version %d of the kernel contract, expected %d: build the toolkit",
             FKV_BACKEND_ABI + 1, FKV_BACKEND_ABI);
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), expected);
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), path);
}

TEST(a_module_is_taken_where_it_can_run) {
    char path[PATH_MAX];
    use_module(beside(path, "module_unfit.so"));
    assert_refused(fkv_backend_find("cuda", &ops, NULL, &err), "no device of this kind");
    use_module(beside(path, "module_fit.so"));
    assert_ok(fkv_backend_find("cuda", &ops, NULL, &err));
    assert_string_equal(ops->name, "cuda");
}

TEST(auto_takes_the_cpu_unless_a_module_can_run_and_says_why) {
    char path[PATH_MAX];
    struct fkv_error why;
    static const struct {
        const char *module, *why; /* "": it is taken */
    } cases[] = {{"module_unfit.so", "no device of this kind"},
                 {"module_other_version.so", "build the toolkit again"},
                 {"absent.so", "no CUDA module here"},
                 {"module_fit.so", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        use_module(beside(path, cases[i].module));
        assert_ok(fkv_backend_find("auto", &ops, &why, &err));
        assert_string_equal(ops->name, cases[i].why[0] ? "cpu" : "cuda");
        assert_true(cases[i].why[0] ? strstr(why.message, cases[i].why) != NULL : !why.message[0]);
        assert_ok(fkv_backend_find("auto", &ops, NULL, &err));
        assert_ok(fkv_backend_find("cpu", &ops, &why, &err));
        assert_string_equal(why.message, "");
    }
}

/* There is no module beside this program, and nothing to say about it where there is no driver that
 * could use one. */
TEST(auto_looks_for_a_module_only_where_there_is_a_driver) {
    bool driver =
        access("/dev/nvidiactl", F_OK) == 0 || access("/proc/driver/nvidia/version", F_OK) == 0;
    struct fkv_error why;
    unsetenv("FKV_CUDA_MODULE");
    assert_ok(fkv_backend_find("auto", &ops, &why, &err));
    assert_string_equal(ops->name, "cpu");
    assert_true(driver ? strstr(why.message, "freqkv-cuda.so: no CUDA module here") != NULL
                       : !why.message[0]);
}
