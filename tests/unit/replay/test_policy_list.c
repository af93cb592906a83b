/* Lists of policies: what is read from them, what they share, and what is refused. */
#include "tests/unit/support.h"

#include "replay/policy_list.h"

static const struct fkv_policy_options shared = {
    .window = 96, .sinks = 2, .gamma = "0.75", .prefill_block = 33};

static void entries_share_what_they_do_not_give(void **state) {
    (void)state;
    struct fkv_policy_list list = {0};
    struct fkv_error err = {0};
    assert_ok(fkv_policy_list_parse("full,freqkv:recent=8:mass-bias,local:window=64:gamma=0.5,0.25,"
                                    "linear:operator=random:7:sinks=0,snapkv:pool=max:budget=32",
                                    &shared, &list, &err),
              err);
    assert_ok(fkv_policy_list_read(&list, &err), err);
    assert_int_equal(list.count, 5);
    static const char *const names[] = {"full", "freqkv", "local", "linear", "snapkv"};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(list.options[i].name, names[i]);
        assert_int_equal(list.options[i].window, i == 2 ? 64 : 96);
        assert_int_equal(list.options[i].sinks, i == 3 ? 0 : 2);
        assert_string_equal(list.options[i].gamma, i == 2 ? "0.5,0.25" : "0.75");
        assert_int_equal(list.options[i].prefill_block, 33);
    }
    assert_null(list.options[0].own[0].name);
    assert_string_equal(list.names[2], "local:window=64:gamma=0.5,0.25");
    const struct fkv_own_value *own = list.options[1].own;
    assert_true(!strcmp(own[0].name, "recent") && own[0].value == 8);
    assert_true(!strcmp(own[1].name, "mass-bias") && own[1].value == 1 && !own[2].name);
    assert_string_equal(list.options[3].own[0].text, "random:7");
    assert_int_equal(list.options[4].own[0].value, 1); /* pool: avg, max */
    assert_int_equal(list.options[4].own[1].value, 32);
    fkv_policy_list_free(&list);
    fkv_policy_list_free(&list); /* twice is harmless */
}

static void what_no_policy_takes_is_refused_by_name(void **state) {
    (void)state;
    const struct {
        const char *text, *words;
    } cases[] = {
        {"", "--policies"},
        {"full,best", "streaming"},
        {"full,local,full", "\"full\" twice"},
        {"full:gamma=0.5", "full: gamma: the policy does not take it"},
        {"local:recent=4", "it takes window, sinks, gamma"},
        {"freqkv:recent", "freqkv: recent: expected a value"},
        {"freqkv:recent=", "freqkv: recent: expected a value"},
        {"freqkv:recent=x", "expected an integer"},
        {"freqkv:recent=-1", "recent: expected an integer in"},
        {"freqkv:rescale=maybe", "expected on or off"},
        {"freqkv:mass-bias=1", "expected no value"},
        {"freqkv:gamma=half", "gamma"},
        {"freqkv:window=0", "window"},
        {"snapkv:pool=min", "expected avg|max"},
        {"freqkv:gamma=0.5:", "gamma"},
        {"full,,local", "--policies"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_policy_list list = {0};
        struct fkv_error err = {0};
        assert_refused(fkv_policy_list_parse(cases[i].text, &shared, &list, &err), err,
                       cases[i].words);
        assert_true(err.of_option);
        fkv_policy_list_free(&list);
    }
}

static void a_file_that_is_not_there_is_refused_with_its_entry(void **state) {
    (void)state;
    struct fkv_policy_list list = {0};
    struct fkv_error err = {0};
    assert_ok(fkv_policy_list_parse("full,linear:operator=none.h5", &shared, &list, &err), err);
    assert_refused(fkv_policy_list_read(&list, &err), err, "linear:operator=none.h5");
    fkv_policy_list_free(&list);
}

/* Whatever the text, it is read or refused. */
static void random_texts_are_read_or_refused(void **state) {
    (void)state;
    static const char *const parts[] = {"full",   "freqkv", "linear",    ":",       ":", ",",
                                        "=",      "0.5",    "gamma",     "recent",  "7", "random",
                                        "window", "@",      "mass-bias", "operator"};
    for (int round = 0; round < 20000; round++) {
        char text[256] = "";
        for (int i = test_between(0, 12); i > 0; i--)
            strcat(text, parts[test_between(0, sizeof parts / sizeof *parts - 1)]);
        struct fkv_policy_list list = {0};
        struct fkv_error err = {0};
        if (fkv_policy_list_parse(text, &shared, &list, &err)) assert_true(err.of_option);
        fkv_policy_list_free(&list);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_share_what_they_do_not_give),
        cmocka_unit_test(what_no_policy_takes_is_refused_by_name),
        cmocka_unit_test(a_file_that_is_not_there_is_refused_with_its_entry),
        cmocka_unit_test(random_texts_are_read_or_refused),
    };
    return test_run(tests, NULL, NULL);
}
