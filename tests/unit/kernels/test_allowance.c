/* What a process may use, read from trees laid out as kernels and container runtimes lay them out.
 */
#include "kernels/base/cgroup.h"
#include "kernels/base/host.h"
#include "tests/unit/support.h"

#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { MIB = 1 << 20 };

/* Writes a file of the folder, with the folders above it. */
static void put(const char *name, const char *format, ...) {
    char path[1024];
    snprintf(path, sizeof path, "%s%s", folder, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_ok(fkv_make_directories(path, &err));
    *slash = '/';
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(f, format, arguments);
    va_end(arguments);
    fclose(f);
}

static void put_machine(int64_t available) {
    put("/proc/meminfo",
        "MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable:   %lld kB\nBuffers: 7 kB\n",
        (long long)(available / 1024));
}

static const char v2_mounts[] =
    "22 1 0:20 / /proc rw - proc proc rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate\n";

/* A level of version 2: what is used includes `files` pages of files, a third of them recently
 * used. */
static void put_v2(const char *level, const char *limit, int64_t used, int64_t files) {
    char name[512];
    snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.max", level);
    put(name, "%s\n", limit);
    snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.current", level);
    put(name, "%lld\n", (long long)used);
    snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.stat", level);
    put(name, "anon 1\nfile 999999999\nshmem 77\ninactive_file %lld\nactive_file %lld\nslab 5\n",
        (long long)(files - files / 3), (long long)(files / 3));
}

static void put_v1(const char *level, int64_t limit, int64_t used, int64_t files,
                   int64_t effective) {
    char name[512];
    snprintf(name, sizeof name, "/sys/fs/cgroup/memory%s/memory.limit_in_bytes", level);
    put(name, "%lld\n", (long long)limit);
    snprintf(name, sizeof name, "/sys/fs/cgroup/memory%s/memory.usage_in_bytes", level);
    put(name, "%lld\n", (long long)used);
    snprintf(name, sizeof name, "/sys/fs/cgroup/memory%s/memory.stat", level);
    put(name,
        "cache 1\ninactive_file 999999999\nhierarchical_memory_limit %lld\ntotal_inactive_file "
        "%lld\n"
        "total_active_file %lld\n",
        (long long)effective, (long long)(files / 2), (long long)(files - files / 2));
}

static const int64_t no_limit_v1 = 9223372036854771712;

static void expect(int64_t bytes) { assert_int_equal(fkv_host_memory_under(folder), bytes); }

TEST_IN_FOLDER(without_groups_the_machine_is_what_there_is) {
    expect(-1);
    put_machine(300 * MIB);
    expect(300 * MIB);
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", "%s", v2_mounts);
    expect(300 * MIB); /* the root group has no limits */
}

TEST_IN_FOLDER(a_limit_leaves_what_is_not_used_and_files_pages) {
    put_machine(8000ll * MIB);
    put("/proc/self/mountinfo", "%s", v2_mounts);
    put("/proc/self/cgroup", "0::/job\n");
    put_v2("/job", "524288000", 400 * MIB, 0);
    expect(100 * MIB);
    put_v2("/job", "524288000", 400 * MIB, 90 * MIB);
    expect(190 * MIB);
    put_v2("/job", "524288000", 600 * MIB, 0); /* lowered below what is used */
    expect(0);
    put_v2("/job", "524288000", 10 * MIB, 90 * MIB); /* read at two moments */
    expect(500 * MIB);
    put_v2("/job", "max", 400 * MIB, 0);
    expect(8000ll * MIB);
    put_machine(50 * MIB);
    put_v2("/job", "524288000", 400 * MIB, 0);
    expect(50 * MIB); /* the machine has less */
}

TEST_IN_FOLDER(limits_of_all_levels_count) {
    put_machine(8000ll * MIB);
    put("/proc/self/mountinfo", "%s", v2_mounts);
    put("/proc/self/cgroup", "0::/user.slice/a job/task_0\n");
    put_v2("/user.slice", "2097152000", 500 * MIB, 0);
    put_v2("/user.slice/a job", "1048576000", 700 * MIB, 0);
    put_v2("/user.slice/a job/task_0", "max", 1 * MIB, 0);
    expect(300 * MIB);
    put_v2("/user.slice", "2097152000", 1900ll * MIB, 0); /* neighbours use it up */
    expect(100 * MIB);
    put("/sys/fs/cgroup/user.slice/a job/memory.high", "734003200\n");
    expect(0); /* at which it would be slowed down */
    put("/sys/fs/cgroup/user.slice/a job/memory.high", "max\n");
    expect(100 * MIB);
}

TEST_IN_FOLDER(a_container_sees_its_own_group_at_the_mount) {
    put_machine(8000ll * MIB);
    put_v2("", "524288000", 400 * MIB, 0);
    put("/proc/self/mountinfo", "%s", v2_mounts);
    put("/proc/self/cgroup", "0::/\n"); /* with a namespace of its own */
    expect(100 * MIB);
    put("/proc/self/cgroup",
        "0::/docker/0123\n"); /* a path of the host's, whose levels are not here */
    expect(100 * MIB);
    /* Without one: the host's path, and the mount shows that folder alone. */
    put("/proc/self/mountinfo", "9 1 0:28 /docker/0123 /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    expect(100 * MIB);
    put("/proc/self/cgroup", "0::/docker/0123/inner\n");
    put_v2("/inner", "104857600", 30 * MIB, 0);
    expect(70 * MIB);
}

TEST_IN_FOLDER(a_group_that_cannot_be_seen_limits_nothing) {
    put_machine(8000ll * MIB);
    put_v2("", "524288000", 400 * MIB, 0);
    put("/proc/self/mountinfo", "%s", v2_mounts);
    put("/proc/self/cgroup", "0::/../other\n"); /* a process from outside the namespace */
    expect(8000ll * MIB);
    put("/proc/self/cgroup", "0::/..\n");
    expect(8000ll * MIB);
    put("/proc/self/cgroup", "0::/docker/45\n");
    put("/proc/self/mountinfo", "9 1 0:28 /docker/4 /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    expect(8000ll * MIB);
    put("/proc/self/cgroup", "0::/..job\n"); /* a name, not a way out */
    put("/proc/self/mountinfo", "%s", v2_mounts);
    put_v2("/..job", "104857600", 90 * MIB, 0);
    expect(10 * MIB);
}

TEST_IN_FOLDER(version_1_is_read_too) {
    put_machine(8000ll * MIB);
    put("/proc/self/cgroup", "12:cpu,cpuacct:/\n4:memory:/docker/0123:4\n1:name=systemd:/x\n");
    put("/proc/self/mountinfo",
        "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n");
    put_v1("", no_limit_v1, 5000ll * MIB, 10 * MIB, no_limit_v1);
    expect(8000ll * MIB);
    put_v1("/docker/0123:4", 500 * MIB, 400 * MIB, 50 * MIB, 500 * MIB);
    expect(150 * MIB);
    put_v1("/docker", 600 * MIB, 550 * MIB, 20 * MIB, 600 * MIB);
    expect(70 * MIB);
    put_v1("/docker", no_limit_v1, 550 * MIB, 20 * MIB, no_limit_v1);
    put_v1("/docker/0123:4", no_limit_v1, 400 * MIB, 50 * MIB,
           450 * MIB); /* of a level above what is mounted */
    expect(100 * MIB);
}

TEST_IN_FOLDER(on_a_hybrid_machine_both_versions_count) {
    put_machine(8000ll * MIB);
    put("/proc/self/cgroup", "4:memory:/one\n0::/two\n");
    put("/proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified\\040v2 rw - cgroup2 cgroup2 rw\n");
    put_v1("/one", 500 * MIB, 400 * MIB, 0, 500 * MIB);
    expect(100 * MIB);
    put("/sys/fs/cgroup/unified v2/two/memory.max", "%d\n", 60 * MIB);
    expect(60 * MIB); /* what is used is not known: no more than the limit */
}

TEST_IN_FOLDER(what_cannot_be_understood_limits_nothing) {
    static const char *const groups[] = {
        "", "\n", "0", "0:", "0::", "0::job\n", ":::::", "x\0y", "4:memory\n"};
    static const char *const mounts[] = {"",
                                         "\n\n",
                                         "31 23 0:28 / /sys/fs/cgroup rw,relatime",
                                         "31 23 0:28 / /sys/fs/cgroup rw -",
                                         "31 23 0:28 / /sys/fs/cgroup rw - cgroup2",
                                         "31 23 0:28 / /sys/fs/cgroup\\000 rw - cgroup2 a b",
                                         "- - - - - - - - - - - -"};
    static const char *const limits[] = {"", "lots", "-5", "12x", " 7", "\n", "0x10"};
    put_machine(300 * MIB);
    put_v2("", "1048576", 0, 0);
    put_v2("/job", "1048576", 0, 0);
    put("/proc/self/mountinfo", "%s", v2_mounts);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        put("/proc/self/cgroup", "%s", groups[i]);
        expect(300 * MIB);
    }
    put("/proc/self/cgroup", "0::/job\n");
    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        put("/proc/self/mountinfo", "%s", mounts[i]);
        expect(300 * MIB);
    }
    put("/proc/self/mountinfo", "%s", v2_mounts);
    put_v2("", "max", 0, 0);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        put_v2("/job", limits[i], 0, 0);
        expect(300 * MIB);
    }
    put_v2("/job", "1048576", 0, 0);
    put("/sys/fs/cgroup/job/memory.current", "?\n");
    put("/sys/fs/cgroup/job/memory.stat", "inactive_file\nactive_file x\n");
    expect(MIB);
    put("/proc/meminfo", "MemAvailable: plenty\n");
    expect(MIB); /* the group's limit is known all the same */
}

TEST(numbers_beyond_what_counts_are_no_limit) {
    assert_int_equal(fkv_cgroup_number("99999999999999999999\n"), INT64_MAX);
    assert_int_equal(fkv_cgroup_number("max\n"), INT64_MAX);
    assert_int_equal(fkv_cgroup_number("maximum\n"), -1);
    assert_int_equal(fkv_cgroup_number("0\n"), 0);
    assert_int_equal(fkv_cgroup_field("a 1\nab 2\nb 3\n", "b"), 3);
    assert_int_equal(fkv_cgroup_field("a 1\nab 2\n", "b"), -1);
    assert_int_equal(fkv_cgroup_field("", "b"), -1);
}

TEST_IN_FOLDER(a_quota_of_time_counts_as_processors) {
    put("/proc/self/mountinfo", "%s", v2_mounts);
    put("/proc/self/cgroup", "0::/job/task\n");
    assert_true(isinf(fkv_cgroup_processors(folder)));
    put("/sys/fs/cgroup/job/task/cpu.max", "max 100000\n");
    assert_true(isinf(fkv_cgroup_processors(folder)));
    put("/sys/fs/cgroup/job/cpu.max", "250000 100000\n");
    assert_close(fkv_cgroup_processors(folder), 2.5, 0, 0);
    put("/sys/fs/cgroup/job/task/cpu.max", "50000 100000\n");
    assert_close(fkv_cgroup_processors(folder), 0.5, 0, 0);
    static const char *const bad[] = {"",          "x",           "50000",   "50000 ",
                                      "50000 0\n", "-1 100000\n", "0 100000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put("/sys/fs/cgroup/job/task/cpu.max", "%s", bad[i]);
        assert_close(fkv_cgroup_processors(folder), 2.5, 0, 0);
    }
    put("/proc/self/cgroup", "1:cpu,cpuacct:/job\n");
    put("/proc/self/mountinfo",
        "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct,cpu\n");
    put("/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
    assert_true(isinf(fkv_cgroup_processors(folder)));
    put("/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "150000\n");
    assert_close(fkv_cgroup_processors(folder), 1.5, 0, 0);
}

/* In a child, because a limit cannot be raised again by everybody. */
static int left_under_limit(int limit, int64_t mapped) {
    const struct rlimit found = {200 * MIB, 200 * MIB};
    if (setrlimit(limit, &found)) return 1;
    const int64_t left = fkv_host_memory_beside(mapped);
    if (left <= mapped || left >= 200 * MIB + mapped) return 2;
    void *most = malloc((size_t)(left - mapped) + MIB);
    if (most) return 3;
    void *half = malloc((size_t)(left - mapped) / 2);
    return half ? 0 : 4;
}

TEST(limits_of_address_space_count_and_leave_out_what_is_mapped) {
    const int limits[] = {RLIMIT_AS, RLIMIT_DATA};
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its shadow takes terabytes of address space */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
    skip();
#endif
#endif
    for (int i = 0; i < 4; i++) {
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (!child) _exit(left_under_limit(limits[i / 2], i % 2 ? 3000ll * MIB : 0));
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}
