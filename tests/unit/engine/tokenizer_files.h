/* The golden tokenizers, opened and asked. */
#ifndef FKV_TESTS_TOKENIZER_FILES_H
#define FKV_TESTS_TOKENIZER_FILES_H

#include "engine/text/tokenizer.h"
#include "kernels/base/json.h"
#include "tests/unit/support.h"

static inline json_t *golden(const char *name, const char *ending) {
    char path[256];
    snprintf(path, sizeof path, "tests/golden/tokenizer/%s%s", name, ending);
    json_t *root = fkv_json_load(path, 1 << 20, &err);
    if (!root) fail_msg("%s", err.message);
    return root;
}

static inline struct fkv_tokenizer *parse(const json_t *document) {
    struct fkv_tokenizer *t;
    char *text = json_dumps(document, JSON_COMPACT);
    assert_ok(fkv_tokenizer_parse(text, strlen(text), "test.json", &t, &err));
    free(text);
    return t;
}

static inline struct fkv_tokenizer *open_family(const char *name) {
    json_t *document = golden(name, ".json");
    struct fkv_tokenizer *t = parse(document);
    json_decref(document);
    return t;
}

static inline int32_t *encode(const struct fkv_tokenizer *t, const char *text, size_t bytes,
                              bool special, size_t *count) {
    int32_t *ids;
    assert_ok(fkv_tokenizer_encode(t, text, bytes, special, &ids, count, &err));
    return ids;
}

static inline bool same_ids(const int32_t *ids, size_t count, const json_t *expected) {
    bool same = count == json_array_size(expected);
    for (size_t k = 0; same && k < count; k++)
        same = ids[k] == json_integer_value(json_array_get(expected, k));
    return same;
}

#endif
