/* The steps that a tokenizer.json lists, each by itself, against Hugging Face's results. */
#include "tests/unit/engine/tokenizer_files.h"

/* Every normalizer, pre-tokenizer and option of BPE: steps.json, made by
 * tests/e2e/check_tokenizers.py. */
TEST(every_step_does_what_hugging_faces_does) {
    json_t *all = golden("steps", ".json");
    const json_t *texts = json_object_get(all, "texts"), *bases = json_object_get(all, "bases");
    json_t *row, *text;
    size_t r, i;
    json_array_foreach(json_object_get(all, "tokenizers"), r, row) {
        json_t *document = json_object_get(row, "document"),
               *model = json_object_get(document, "model");
        size_t base = (size_t)json_integer_value(json_object_get(model, "base"));
        json_object_update(model, json_array_get(bases, base));
        struct fkv_tokenizer *t = parse(document);
        json_array_foreach(texts, i, text) {
            size_t count;
            int32_t *ids =
                encode(t, json_string_value(text), json_string_length(text), true, &count);
            if (!same_ids(ids, count, json_array_get(json_object_get(row, "ids"), i)))
                fail_msg("%s, text %zu: other ids", json_string_value(json_object_get(row, "name")),
                         i);
            free(ids);
        }
        fkv_tokenizer_close(t);
    }
    json_decref(all);
}

static const char runaway[] =
    "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a+)+(a+)+(a+)+(b|c)\"},"
    " \"behavior\": \"Isolated\"}, \"model\": {\"vocab\": {\"a\": 0}, \"merges\": []}}";

TEST(a_pattern_that_runs_away_is_stopped) {
    struct fkv_tokenizer *t;
    assert_ok(fkv_tokenizer_parse(runaway, strlen(runaway), "test.json", &t, &err));
    char text[400];
    memset(text, 'a', sizeof text);
    int32_t *ids;
    size_t count;
    assert_refused(fkv_tokenizer_encode(t, text, sizeof text, true, &ids, &count, &err),
                   "too many steps at byte 0");
    fkv_tokenizer_close(t);
}
