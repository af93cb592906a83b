/* Working out a policy's options: every refusal by name, and what tables turn into. */
#include <sys/stat.h>

#include "tests/unit/support.h"

#include "engine/cache/setup.h"
#include "engine/cache/policies/selecting.h"
#include "engine/cache/ratios.h"
#include "kernels/base/ratio.h"

static const struct fkv_config config = {
    .layers = 2, .kv_heads = 3, .trained_context = 512, .head_dim = 8};

static int setup_of(const char *name, int32_t window, int32_t sinks, int32_t recent,
                    const char *gamma, struct fkv_policy_setup *setup) {
    struct fkv_policy_options o = {.name = name, .window = window, .sinks = sinks, .gamma = gamma};
    if (recent) o.own[0] = (struct fkv_own_value){.name = "recent", .value = recent};
    return fkv_policy_setup(&o, &config, 1000, setup, &err);
}

TEST(defaults_are_the_trained_context_four_sinks_and_one_half) {
    struct fkv_policy_setup s;
    assert_ok(setup_of("freqkv", 0, -1, 0, NULL, &s));
    assert_int_equal(s.window, 512);
    assert_int_equal(s.sinks, 4);
    assert_int_equal(s.compressible, 508);
    for (int i = 0; i < 6; i++) assert_int_equal(s.retained[i], 254);
    assert_close(s.gamma, 0.5, 1e-12, 0);
    fkv_policy_setup_free(&s);
    fkv_policy_setup_free(&s);
}

TEST(lm_infinite_shows_its_first_tokens_on_top_of_the_window) {
    struct fkv_policy_setup s;
    assert_ok(setup_of("lm-infinite", 0, -1, 0, NULL, &s));
    assert_int_equal(s.most_seen, 512 + 10);
    assert_int_equal(s.capacity, 522 + 256);
    assert_int_equal(s.sinks, 0);
    fkv_policy_setup_free(&s);
    assert_ok(setup_of("lm-infinite", 1 << 20, 4, 0, NULL, &s));
    assert_int_equal(s.capacity, (1 << 20) + 10 + 512);
    fkv_policy_setup_free(&s);
    assert_ok(setup_of("lm-infinite", 3, 4, 0, NULL, &s)); /* no sinks take it up */
    fkv_policy_setup_free(&s);
}

TEST(retained_slots_are_floored_with_a_hair_of_tolerance) {
    assert_int_equal(fkv_retained(0.5, 4092), 2046);
    assert_int_equal(fkv_retained(0.29, 100), 29); /* 0.29 * 100 is 28.999999999999996 */
    assert_int_equal(fkv_retained(0.1, 4092), 409);
    assert_int_equal(fkv_retained(0.999, 100), 99);
}

/* As deep as the system takes: 4095 bytes. */
TEST_IN_FOLDER(a_table_is_read_from_a_path_of_any_length) {
    const int lengths[] = {500, 511, 512, 700, 4000, 4095};
    char text[4200];
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct fkv_ratios ratios;
        size_t wanted = (size_t)lengths[i] - strlen("/gamma.json"),
               used = (size_t)sprintf(text, "@%s", folder) - 1;
        while (used < wanted) {
            size_t left = wanted - used, step = left > 300   ? 200
                                                : left > 200 ? left / 2
                                                             : left; /* no "/" alone */
            text[1 + used] = '/';
            memset(text + 2 + used, 'd', step - 1);
            text[1 + (used += step)] = 0;
            mkdir(text + 1, 0777);
        }
        strcat(text, "/gamma.json");
        assert_int_equal(strlen(text + 1), lengths[i]);
        test_write_text(text + 1, "{\"gamma\": [[0.5, 0.25, 0.5], [0.5, 0.5, 0.5]]}");
        assert_ok(fkv_ratios_read(text, 2, 3, &ratios, &err));
        assert_close(ratios.gamma[1], 0.25, 0, 0);
        assert_string_equal(ratios.where, text + 1);
        fkv_ratios_free(&ratios);
        assert_refused(fkv_ratios_read(text, 2, 4, &ratios, &err),
                       "gamma.json: gamma[0]: expected 4 KV heads");
    }
}

TEST(bad_options_are_refused_by_name) {
    struct fkv_policy_setup s;
    assert_refused(setup_of("best", 64, 4, 0, NULL, &s),
                   "expected one of full, freqkv, linear, local, streaming, lm-infinite, mixed, "
                   "snapkv, pyramidkv, h2o, keydiff, knorm, longheads, found \"best\"");
    assert_refused(setup_of("freqkv", 4, 4, 0, NULL, &s),
                   "--window: expected more than the 4 sinks, found 4");
    assert_refused(setup_of("streaming", 3, 4, 0, NULL, &s), "--window");
    assert_refused(setup_of("freqkv", 20, 4, 16, NULL, &s), "--recent slots together, found 20");
    assert_refused(setup_of("local", 64, 4, 8, NULL, &s),
                   "--recent: policy local does not take it");
    assert_refused(setup_of("freqkv", 64, 4, 0, "0", &s),
                   "--gamma: expected a ratio in (0, 1], found 0");
    assert_refused(setup_of("freqkv", 64, 4, 0, "1.5", &s), "found 1.5");
    assert_refused(setup_of("freqkv", 64, 4, 0, "1", &s),
                   "expected 1 to 59 retained slots of 60, found 60");
    assert_refused(setup_of("freqkv", 64, 4, 0, "0.01", &s), "found 0 (ratio 0.01)");
    assert_refused(setup_of("freqkv", 64, 4, 0, "abc", &s), "--gamma");
    assert_refused(setup_of("freqkv", 64, 4, 0, "0.1,0.2,0.3", &s), "one per layer (2), found 3");
    assert_refused(setup_of("freqkv", 64, 4, 0, "@/nowhere/gamma.json", &s), "/nowhere/gamma.json");
}

TEST_IN_FOLDER(every_policy_refuses_options_it_does_not_take) {
    int refused = 0, taken = 0;
    char table[300];
    snprintf(table, sizeof table, "%s/policies.json", folder);
    test_write_text(table, "{\"policy\": \"local\", \"gamma\": 0.5}");
    for (int of = 0; fkv_policies[of]; of++)
        for (const struct fkv_policy_option *o = fkv_policies[of]->options; o && o->name; o++)
            for (int by = 0; fkv_policies[by]; by++) {
                struct fkv_policy_options options = {.name = fkv_policies[by]->name,
                                                     .window = 64,
                                                     .sinks = 4,
                                                     .own = {{.name = o->name, .value = o->low}}};
                struct fkv_policy_setup s;
                if (fkv_policies[by]->takes_table)
                    options.own[strcmp(o->name, "table") != 0] =
                        (struct fkv_own_value){.name = "table", .text = table};
                char message[128];
                snprintf(message, sizeof message, "--%s: policy %s does not take it", o->name,
                         options.name);
                bool same = false;
                for (const struct fkv_policy_option *p = fkv_policies[by]->options; p && p->name;
                     p++)
                    same = same || !strcmp(p->name, o->name);
                if (same) {
                    assert_ok(fkv_policy_setup(&options, &config, 1000, &s, &err));
                    fkv_policy_setup_free(&s);
                    taken++;
                } else {
                    assert_refused(fkv_policy_setup(&options, &config, 1000, &s, &err), message);
                    assert_int_equal(fkv_exit_status(&err), FKV_EXIT_USAGE);
                    refused++;
                }
            }
    assert_true(taken > 0 && refused > 0);
}

TEST(a_budget_is_the_window_or_what_a_selecting_policy_keeps) {
    struct fkv_policy_options o = {.budget = 40, .sinks = 4};
    struct fkv_policy_setup s;
    for (int i = 0; fkv_policies[i]; i++) {
        const struct fkv_policy *policy = fkv_policies[i];
        o.name = policy->name, o.window = 0;
        if (policy->takes_table) continue; /* the test of tables */
        if (policy->keeps_every_token) {
            assert_refused(fkv_policy_setup(&o, &config, 1000, &s, &err), "--budget: policy");
            assert_int_equal(fkv_exit_status(&err), FKV_EXIT_USAGE);
            continue;
        }
        assert_ok(fkv_policy_setup(&o, &config, 1000, &s, &err));
        assert_int_equal(policy->select ? s.own[FKV_BUDGET] : s.window, 40);
        fkv_policy_setup_free(&s);
        o.window = 40;
        assert_ok(fkv_policy_setup(&o, &config, 1000, &s, &err));
        fkv_policy_setup_free(&s);
        o.window = 41;
        if (!policy->takes_window) continue;
        assert_refused(fkv_policy_setup(&o, &config, 1000, &s, &err),
                       "the same for both, found 41 and 40");
    }
}

/* Two policies may share an option's name: then it means the same to the command line. */
TEST(options_of_one_name_are_of_one_kind) {
    for (int a = 0; fkv_policies[a]; a++)
        for (int b = 0; b < a; b++)
            for (const struct fkv_policy_option *x = fkv_policies[a]->options; x && x->name; x++)
                for (const struct fkv_policy_option *y = fkv_policies[b]->options; y && y->name;
                     y++)
                    if (!strcmp(x->name, y->name)) assert_int_equal(x->kind, y->kind);
}

TEST(own_options_stand_in_the_label_unless_they_are_the_default) {
    struct fkv_policy_options options = {.name = "freqkv", .window = 64, .sinks = 4};
    struct fkv_policy_setup s;
    assert_ok(fkv_policy_setup(&options, &config, 1000, &s, &err));
    assert_string_equal(s.label, "freqkv");
    assert_string_equal(s.own_text, "recent=0 rescale=on mass-bias=off");
    fkv_policy_setup_free(&s);
    options.own[0] = (struct fkv_own_value){.name = "mass-bias", .value = 1},
    options.own[1] = (struct fkv_own_value){.name = "recent", .value = 16};
    options.own[2] = (struct fkv_own_value){.name = "rescale", .value = 0};
    assert_ok(fkv_policy_setup(&options, &config, 1000, &s, &err));
    assert_string_equal(s.label, "freqkv, recent 16, rescale off, mass-bias");
    assert_string_equal(s.own_text, "recent=16 rescale=off mass-bias=on");
    assert_int_equal(s.compressible, 44);
    fkv_policy_setup_free(&s);
    options.own[1].value = -1;
    assert_refused(fkv_policy_setup(&options, &config, 1000, &s, &err),
                   "--recent: expected a number from 0");
}

TEST(one_ratio_per_layer_rounds_to_sixty_fourths) {
    struct fkv_policy_setup s;
    assert_ok(setup_of("freqkv", 132, 4, 0, "0.26,0.75", &s));
    assert_int_equal(s.retained[2], 34); /* 0.26 * 64 = 16.64 -> 17 of 64 parts of 128 */
    assert_int_equal(s.retained[3], 96);
    fkv_policy_setup_free(&s);
}

static int setup_of_table(const char *json, int32_t window, int32_t sinks, int32_t recent,
                          struct fkv_policy_setup *s) {
    char folder[256], path[300], gamma[310];
    snprintf(path, sizeof path, "%s/gamma.json", test_make_folder(folder));
    test_write_text(path, json);
    snprintf(gamma, sizeof gamma, "@%s", path);
    int status = setup_of("freqkv", window, sinks, recent, gamma, s);
    test_remove_folder(folder);
    return status;
}

TEST(tables_are_honoured_exactly) {
    struct fkv_policy_setup s;
    const char *table =
        "{\"n_layers\":2,\"n_kv_heads\":3,\"window\":68,\"sinks\":4,"
        "\"gamma\":[[0.25,0.5,0.75],[0.5,0.5,0.125]],\"retained\":[[16,32,48],[32,32,8]]}";
    const int32_t expected[6] = {16, 32, 48, 32, 32, 8};
    assert_ok(setup_of_table(table, 0, -1, 0, &s));
    assert_int_equal(s.window, 68);
    assert_memory_equal(s.retained, expected, sizeof expected);
    assert_close(s.gamma, 2.625 / 6, 1e-12, 0);
    fkv_policy_setup_free(&s);
    const int32_t of_recent[6] = {12, 24, 36,
                                  24, 24, 6}; /* n = 48: what is retained of 64 is no ratio of 48 */
    assert_ok(setup_of_table(table, 0, -1, 16, &s));
    assert_memory_equal(s.retained, of_recent, sizeof of_recent);
    fkv_policy_setup_free(&s);
    assert_refused(setup_of_table(table, 100, -1, 0, &s),
                   "window: expected 100 as in --window, found 68");
    assert_refused(setup_of_table(table, 68, 2, 0, &s), "sinks: expected 2 as in --sinks, found 4");
}

TEST(malformed_tables_are_refused_by_field) {
    struct fkv_policy_setup s;
    assert_refused(setup_of_table("{\"n_layers\":3,\"gamma\":0.5}", 64, 4, 0, &s),
                   "n_layers: expected the model's 2, found 3");
    assert_refused(setup_of_table("{\"n_kv_heads\":8,\"gamma\":0.5}", 64, 4, 0, &s),
                   "n_kv_heads: expected the model's 3, found 8");
    assert_refused(setup_of_table("{}", 64, 4, 0, &s), "gamma: expected a table");
    assert_refused(setup_of_table("{\"gamma\":[[0.5,0.5,0.5]]}", 64, 4, 0, &s),
                   "gamma: expected 2 layers, found 1");
    assert_refused(setup_of_table("{\"gamma\":[[0.5,0.5],[0.5,0.5,0.5]]}", 64, 4, 0, &s),
                   "gamma[0]: expected 3 KV heads, found 2");
    assert_refused(setup_of_table("{\"gamma\":[[0.5,0.5,2],[0.5,0.5,0.5]]}", 64, 4, 0, &s),
                   "gamma[0][2]");
    assert_refused(setup_of_table("{\"gamma\":[[0.5,0.5,\"x\"],[0.5,0.5,0.5]]}", 64, 4, 0, &s),
                   "gamma[0][2]: expected a number");
    assert_refused(setup_of_table("{\"gamma\":0.5,\"retained\":0}", 64, 4, 0, &s),
                   "retained[0][0]");
    assert_refused(setup_of_table("{\"gamma\":0.5,\"retained\":60}", 64, 4, 0, &s),
                   "expected 1 to 59 retained slots of 60");
    assert_refused(setup_of_table("{\"gamma\":0.5,", 64, 4, 0, &s), "gamma.json");
    assert_refused(setup_of_table("{\"gamma\":0.5,\"text_sha256\":[\"ab\"]}", 64, 4, 0, &s),
                   "text_sha256[0]: expected 64 hex digits");
}

static int setup_of_policies(const char *json, int32_t window, struct fkv_policy_setup *s) {
    char folder[256], path[300];
    snprintf(path, sizeof path, "%s/policies.json", test_make_folder(folder));
    test_write_text(path, json);
    const struct fkv_policy_options o = {
        .name = "mixed", .window = window, .sinks = -1, .own = {{.name = "table", .text = path}}};
    int status = fkv_policy_setup(&o, &config, 1000, s, &err);
    test_remove_folder(folder);
    return status;
}

TEST(tables_of_policies_give_every_head_its_own) {
    struct fkv_policy_setup s;
    const int32_t expected[6] = {32, 63, 16, 48, 48, 48};
    assert_ok(setup_of_policies("{\"window\": 68, \"sinks\": 4, \"policy\": [[\"freqkv\", "
                                "\"streaming\", \"local\"], \"local\"], \"gamma\": "
                                "[[0.5, null, 0.25], 0.75]}",
                                0, &s));
    assert_int_equal(s.window, 68);
    assert_int_equal(s.part_count, 3);
    assert_memory_equal(s.retained, expected, sizeof expected);
    assert_close(s.gamma, (0.5 + 63. / 64 + 0.25 + 3 * 0.75) / 6, 1e-12, 0);
    assert_ptr_equal(fkv_policy_of_head(&s, 0), &fkv_policy_freqkv);
    assert_ptr_equal(fkv_policy_of_head(&s, 1), &fkv_policy_streaming);
    assert_ptr_equal(fkv_policy_of_head(&s, 5), &fkv_policy_local);
    assert_int_equal(s.capacity, 68 + 34); /* streaming's */
    assert_int_equal(strncmp(s.own_text, "table=policies.json@", 20), 0);
    fkv_policy_setup_free(&s);
    fkv_policy_setup_free(&s);
    assert_ok(setup_of_policies("{\"policy\": \"streaming\"}", 64, &s));
    for (int h = 0; h < 6; h++) assert_int_equal(fkv_policy_period(&s, h), 1);
    fkv_policy_setup_free(&s);
}

TEST(malformed_tables_of_policies_are_refused_by_field) {
    struct fkv_policy_setup s;
    const struct {
        const char *json, *message;
    } bad[] = {
        {"{\"gamma\": 0.5}", "policies.json: policy: expected a table [layer][kv_head]"},
        {"{\"policy\": 3}", "policy[0][0]: expected the name of a policy, found none"},
        {"{\"policy\": [\"local\"]}", "policy: expected 2 layers, found 1"},
        {"{\"policy\": [[\"local\"], \"local\"]}", "policy[0]: expected 3 KV heads, found 1"},
        {"{\"policy\": \"snapkv\"}",
         "policy[0][0]: expected one of freqkv, local, streaming, found \"snapkv\""},
        {"{\"policy\": \"mixed\"}", "found \"mixed\""},
        {"{\"policy\": \"a policy whose name is long\"}", "found \"a policy whose name is long\""},
        {"{\"policy\": \"local\"}", "gamma[0][0]: expected a ratio, which policy local takes"},
        {"{\"policy\": \"local\", \"gamma\": 1.5}", "expected a ratio in (0, 1], found 1.5"},
        {"{\"policy\": \"local\", \"gamma\": 0.5, \"window\": 32}", "window: expected 64"},
        {"{\"policy\": \"local\", \"gamma\": 0.001}", "expected 1 to 59 retained slots of 60"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(setup_of_policies(bad[i].json, 64, &s), bad[i].message);
    const struct fkv_policy_options none = {.name = "mixed", .window = 64, .sinks = -1};
    assert_refused(fkv_policy_setup(&none, &config, 1000, &s, &err),
                   "--table: policy mixed needs one");
    assert_refused(setup_of_table("{\"policy\": \"local\", \"gamma\": 0.5}", 64, 4, 0, &s),
                   "policy: expected no table of policies");
}

TEST(every_policy_has_a_summary_and_a_page) {
    enum { SUMMARY = 70, LINE = 80 };
    for (int p = 0; fkv_policies[p]; p++) {
        const struct fkv_policy *policy = fkv_policies[p];
        if (!policy->summary || !*policy->summary || !policy->page || !*policy->page)
            fail_msg("%s: expected a summary and a page, found none", policy->name);
        if (strlen(policy->summary) > SUMMARY || strchr(policy->summary, '\n'))
            fail_msg("%s: expected a summary of one line of %d characters, found \"%s\"",
                     policy->name, SUMMARY, policy->summary);
        for (const char *line = policy->page; *line; line += *line == '\n') {
            const size_t length = strcspn(line, "\n");
            if (length > LINE)
                fail_msg("%s: expected lines of %d characters, found \"%.*s\"", policy->name, LINE,
                         (int)length, line);
            line += length;
        }
    }
}

TEST(the_label_says_what_the_cache_is_rounded_to) {
    struct fkv_policy_options o = {.name = "full", .quant = FKV_QUANT_Q4, .quant_before = true};
    struct fkv_policy_setup s;
    assert_ok(fkv_policy_setup(&o, &config, 1000, &s, &err));
    assert_string_equal(s.label, "full, q4 cache, keys before RoPE");
    assert_string_equal(s.own_text, "");
    assert_int_equal(fkv_policy_state_bytes(&s, 64, FKV_F32), 36);
    fkv_policy_setup_free(&s);
    o.quant = FKV_NO_QUANT;
    assert_ok(fkv_policy_setup(&o, &config, 1000, &s, &err));
    assert_string_equal(s.label, "full");
    assert_int_equal(fkv_policy_state_bytes(&s, 64, FKV_F32), 256);
    fkv_policy_setup_free(&s);
}
