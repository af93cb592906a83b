/* Which modules an adapter_config.json means, with which rank: what PEFT 0.21 says. */
#include "engine/checkpoint/adapter_config.h"
#include "tests/unit/support.h"

static const struct {
    const char *name;
    bool linear;
} modules[] = {{"model.layers.0.self_attn.q_proj", true},
               {"model.layers.11.mlp.up_proj", true},
               {"model.embed_tokens", false},
               {"lm_head", false},
               {"layers.3.self_attn.v_proj", true}};
enum { MODULES = sizeof modules / sizeof *modules };

static void read_config(const char *fields, struct fkv_adapter_config *c) {
    char text[512];
    snprintf(text, sizeof text, "{\"peft_type\": \"LORA\", %s}", fields);
    json_t *root = fkv_json_parse(text, strlen(text), "c.json", &err);
    assert_non_null(root);
    assert_ok(fkv_adapter_config_read(root, "c.json", c, &err));
    json_decref(root);
}

#define T "\"target_modules\": "
#define QU T "[\"q_proj\", \"up_proj\"], "
#define QUV T "[\"q_proj\", \"up_proj\", \"v_proj\"], "
#define L "\"layers_to_transform\": "

TEST(targets_are_those_of_peft) {
    static const struct {
        const char *fields, *targeted; /* a 0 or 1 for each module */
    } rows[] = {
        {T "[\"q_proj\", \"up_proj\"]", "11000"},
        {T "[\"proj\"]", "00000"},
        {T "[\"self_attn.q_proj\", \"lm_head\"]", "10010"},
        {T "\".*\\\\.(q|up)_proj\"", "11000"},
        {T "\"q_proj\"", "00000"},
        {T "\"(model\\\\.)?layers\\\\.\\\\d\\\\..*\"", "10001"},
        {T "\"all-linear\"", "11001"},
        {T "\"All-Linear\"", "11001"},
        {T "[\"q_proj\", \"up_proj\", \"lm_head\"], " L "[11]", "01010"},
        {QUV L "0", "10000"},
        {QUV L "[3, 11], \"layers_pattern\": \"layers\"", "01001"},
        {T "[\"q_proj\"], " L "[0], \"layers_pattern\": [\"h\", \"blocks\"]", "00000"},
        {T "[\"model.layers.0.self_attn.q_proj\"], " L "[5]", "10000"},
        {QU "\"exclude_modules\": [\"mlp.up_proj\"]", "10000"},
        {QU "\"exclude_modules\": \".*\\\\.11\\\\..*\"", "10000"},
        {T "[\"q_proj\", \"up_proj\", \"lm_head\"], \"modules_to_save\": [\"mlp\", \"lm_head\"]",
         "10000"},
        {QU "\"modules_to_save\": [\"up\"]", "11000"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fkv_adapter_config c;
        read_config(rows[i].fields, &c);
        for (int m = 0; m < MODULES; m++) {
            bool targeted;
            assert_ok(fkv_adapter_config_targets(&c, modules[m].name, modules[m].linear, &targeted,
                                                 &err));
            if (targeted != (rows[i].targeted[m] == '1'))
                fail_msg("{%s}: %s: found %d", rows[i].fields, modules[m].name, targeted);
        }
        fkv_adapter_config_free(&c);
    }
}

TEST(ranks_are_those_of_peft) {
    static const struct {
        const char *pattern;
        int32_t ranks[MODULES]; /* 8: by no pattern */
    } rows[] = {
        {"{\"q_proj\": 1, \".*\": 2}", {1, 2, 2, 2, 2}},
        {"{\".*\": 2, \"q_proj\": 1}", {2, 2, 2, 2, 2}},
        {"{\"^model\": 1, \"^model.layers.0.self_attn.q_proj\": 3}", {3, 8, 8, 8, 8}},
        {"{\"proj\": 4}", {8, 8, 8, 8, 8}},
        {"{\"layers.1.*\": 5}", {8, 5, 8, 8, 8}},
        {"{\"layers\\\\.(0|3)\\\\..*q_proj\": 6, \"self_attn.v_proj\": 7}", {6, 8, 8, 8, 7}},
        {"{\"^q_proj\": 9}", {8, 8, 8, 8, 8}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fkv_adapter_config c;
        char fields[256];
        snprintf(fields, sizeof fields, "\"lora_alpha\": 16, \"rank_pattern\": %s",
                 rows[i].pattern);
        read_config(fields, &c);
        for (int m = 0; m < MODULES; m++) {
            int32_t rank;
            float scale;
            assert_ok(fkv_adapter_config_scale(&c, modules[m].name, &rank, &scale, &err));
            assert_int_equal(rank, rows[i].ranks[m]);
            assert_float_equal(scale, 16.0f / (float)rank, 0);
        }
        fkv_adapter_config_free(&c);
    }
}

TEST(scale_is_by_the_root_of_the_rank_in_rslora) {
    struct fkv_adapter_config c;
    int32_t rank;
    float scale;
    read_config("\"r\": 9, \"lora_alpha\": 6.5, \"use_rslora\": true, "
                "\"alpha_pattern\": {\"up_proj\": 3}",
                &c);
    assert_ok(fkv_adapter_config_scale(&c, modules[0].name, &rank, &scale, &err));
    assert_float_equal(scale, 6.5f / 3, 1e-7f);
    assert_ok(fkv_adapter_config_scale(&c, modules[1].name, &rank, &scale, &err));
    assert_float_equal(scale, 1.0f, 0);
    fkv_adapter_config_free(&c);
}
