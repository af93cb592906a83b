/* A config.json of a test: complete, with what the test changes, read or refused. */
#ifndef FKV_TESTS_CONFIG_TEXT_H
#define FKV_TESTS_CONFIG_TEXT_H

#include <jansson.h>

#include "tests/unit/engine/parse_config.h"
#include "tests/unit/support.h"

/* A complete llama config with the fields of `changes` on top of it; a field set to "absent" is
 * taken out. The caller frees. */
static inline char *config_text(const char *changes) {
    json_t *config = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b}", "model_type", "llama", "hidden_size", 64,
        "intermediate_size", 96, "num_hidden_layers", 3, "num_attention_heads", 8, "vocab_size",
        100, "max_position_embeddings", 512, "rms_norm_eps", 1e-5, "tie_word_embeddings", 1);
    json_t *overlay = json_loads(changes, 0, NULL);
    if (!overlay) fail_msg("the test's own JSON is wrong: %s", changes);
    const char *field;
    json_t *value;
    json_object_foreach(overlay, field, value) {
        const char *text = json_string_value(value);
        if (text && !strcmp(text, "absent"))
            json_object_del(config, field);
        else
            json_object_set(config, field, value);
    }
    json_decref(overlay);
    char *text = json_dumps(config, JSON_REAL_PRECISION(17));
    json_decref(config);
    return text;
}

static inline struct fkv_config parsed(const char *changes) {
    struct fkv_config c;
    char *text = config_text(changes);
    assert_ok(parse_config(text, strlen(text), "config.json", 0, &c, &err));
    free(text);
    return c;
}

static inline void refused(const char *changes, const char *expected) {
    struct fkv_config c;
    char *text = config_text(changes);
    assert_refused(parse_config(text, strlen(text), "config.json", 0, &c, &err), expected);
    if (strncmp(err.message, "config.json: ", 13))
        fail_msg("message \"%s\" does not open with the file", err.message);
    free(text);
}

#endif
