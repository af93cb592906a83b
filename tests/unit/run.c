/* The tests of a program: each adds itself before main runs (TEST in support.h). */
#include "tests/unit/support.h"

enum { MOST_TESTS = 64 };

static struct {
    struct CMUnitTest tests[MOST_TESTS]; /* by their lines */
    int lines[MOST_TESTS];
    int count;
    CMFixtureFunction setup, teardown; /* of the group */
    void *state;                       /* what the group's setup left */
} program;

uint64_t test_state;

void test_seed(void) {
    static uint64_t seed;
    static bool known;
    const char *text = getenv("FKV_TEST_SEED");
    if (!known) {
        known = true;
        seed =
            text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
        printf("FKV_TEST_SEED=%llu\n", (unsigned long long)seed);
        fflush(stdout); /* a test that is killed leaves it as well */
    }
    test_state = seed;
}

void test_add(const struct CMUnitTest *test, int line) {
    int at = program.count++;
    if (at == MOST_TESTS) {
        fprintf(stderr, "more than %d tests in a program\n", MOST_TESTS);
        abort();
    }
    for (; at > 0 && program.lines[at - 1] > line; at--) {
        program.tests[at] = program.tests[at - 1];
        program.lines[at] = program.lines[at - 1];
    }
    program.tests[at] = *test;
    program.lines[at] = line;
}

void test_group(CMFixtureFunction setup, CMFixtureFunction teardown) {
    program.setup = setup;
    program.teardown = teardown;
}

static int set_up_group(void **state) {
    (void)state;
    test_seed();
    program.state = NULL;
    return program.setup ? program.setup(&program.state) : 0;
}

static int tear_down_group(void **state) {
    (void)state;
    return program.teardown ? program.teardown(&program.state) : 0;
}

/* The initial state is the test itself: the only thing that cmocka hands to a setup. */
static int set_up_test(void **state) {
    const struct CMUnitTest *test = *(const struct CMUnitTest **)state;
    *state = test->initial_state ? test->initial_state : program.state;
    test_seed();
    return test->setup_func ? test->setup_func(state) : 0;
}

int test_run(const char *name) {
    struct CMUnitTest tests[MOST_TESTS];
    const char *only = getenv("FKV_TEST_ONLY");
    for (int i = 0; i < program.count; i++) {
        tests[i] = program.tests[i];
        tests[i].setup_func = set_up_test;
        tests[i].initial_state = &program.tests[i];
    }
    if (only) cmocka_set_test_filter(only);
    return _cmocka_run_group_tests(name, tests, (size_t)program.count, set_up_group,
                                   tear_down_group);
}

__attribute__((weak)) int main(void) { return test_run("tests"); }
