/* Rows of IN.jsonl -> prompts, the model's chat template, and what ends a continuation. */
#include "tests/unit/replay/runs.h"

#include "replay/generate/continuations.h"
#include "replay/generate/truncate.h"

enum { PROMPTS = 3, TOKENS = 10 };

static struct fkv_prompt_reader reader_of(const char *model) {
    return (struct fkv_prompt_reader){
        .tokenizer = engine.tokenizer, .vocab = engine.model->config.vocab, .model = model};
}

static int add(struct fkv_prompts *p, struct fkv_prompt_reader *reader, const char *row,
               struct fkv_error *err) {
    json_t *object = json_loads(row, 0, NULL);
    if (!object) fail_msg("no JSON: %s", row);
    const int status = fkv_prompts_add(p, reader, object, "in.jsonl:1", err);
    json_decref(object);
    return status;
}

static const char story[] = "The tide came up the creek before the miller was awake, and the "
                            "gulls cried over na\xc3\xafve \xe2\x80\x9cquoted\xe2\x80\x9d words.";

/* ---- rows ---- */

TEST(fields_of_a_row_are_checked) {
    static const char *const bad[][2] = {
        {"[1]", "in.jsonl:1: expected an object"},
        {"{}", "field \"prompt\""},
        {"{\"prompt\": 3}", "field \"prompt\""},
        {"{\"prompt\": \"a\", \"messages\": []}", "found both"},
        {"{\"prompt\": \"a\", \"stop\": 1}", "field \"stop\": expected a string or a list"},
        {"{\"prompt\": \"a\", \"stop\": [\"b\", 1]}", "field \"stop\""},
        {"{\"prompt\": \"a\", \"stop\": \"\"}", "found an empty one"},
        {"{\"prompt\": \"a\", \"max_tokens\": 0}", "field \"max_tokens\""},
        {"{\"prompt\": \"a\", \"max_tokens\": 1.5}", "field \"max_tokens\""},
        {"{\"prompt\": \"a\", \"chat\": 1}", "field \"chat\""},
        {"{\"prompt\": \"a\", \"answer_prefix\": 1}", "field \"answer_prefix\""},
        {"{\"prompt\": \"a\", \"chat\": true}", "field \"chat_template\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fkv_prompts p = {0};
        struct fkv_prompt_reader reader = reader_of("data/litbank-1m");
        assert_refused(add(&p, &reader, bad[i][0], &err), bad[i][1]);
        fkv_prompts_free(&p);
        fkv_prompt_reader_close(&reader);
    }
}

TEST(rows_have_their_own_ends) {
    struct fkv_prompts p = {0};
    struct fkv_prompt_reader reader = reader_of(NULL);
    reader.stops = json_pack("[s, s]", "</s>", "one");
    assert_ok(add(&p, &reader, "{\"prompt\": \"a\", \"stop\": \"two\", \"max_tokens\": 7}", &err));
    assert_ok(add(&p, &reader, "{\"prompt\": \"a\", \"answer_prefix\": \" b\"}", &err));
    assert_int_equal(p.all[0].stops.count, 2);
    assert_int_equal(p.all[0].stops.id_count, 1);
    assert_true(fkv_stops_has_id(&p.all[0].stops, 2) && !fkv_stops_has_id(&p.all[0].stops, 1));
    assert_int_equal(fkv_prompt_most(&p.all[0], 9), 7);
    assert_int_equal(fkv_prompt_most(&p.all[1], 9), 9);
    assert_string_equal(p.all[1].text, "a b");
    assert_int_equal(fkv_prompts_reach(&p, 9), (int64_t)p.all[1].count + 9);
    fkv_prompts_free(&p);
    fkv_prompt_reader_close(&reader);
    fkv_prompt_reader_close(&reader); /* twice is harmless */
}

/* ---- chats ---- */

static void write_file(const char *folder, const char *name, const char *text) {
    test_write_file(test_path(folder, name), text, strlen(text));
}

#define TEMPLATE                                                                                   \
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{{ eos_token }}"    \
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"

static void assert_rendered(const char *folder, const char *row, const char *expected) {
    struct fkv_prompts p = {0};
    struct fkv_prompt_reader reader = reader_of(folder);
    reader.date = "2026-07-04";
    assert_ok(add(&p, &reader, row, &err));
    assert_string_equal(p.all[0].text, expected);
    int bos = 0;
    for (size_t i = 0; i < p.all[0].count; i++) bos += p.all[0].tokens[i] == 1;
    assert_int_equal(bos, 1);
    assert_int_equal(p.all[0].tokens[0], 1); /* and no other before it */
    fkv_prompts_free(&p);
    fkv_prompt_reader_close(&reader);
}

TEST_IN_FOLDER(a_template_is_found_where_models_keep_it) {
    static const char user[] = "{\"prompt\": \" hi \", \"chat\": true}",
                      chat[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, "
                               "{\"role\": \"user\", \"content\": \"u\"}]}",
                      prefix[] =
                          "{\"prompt\": \"hi\", \"chat\": true, \"answer_prefix\": \" It is\"}";
    write_file(folder, "tokenizer_config.json",
               "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", "
               "\"chat_template\": \"" TEMPLATE "\"}");
    assert_rendered(folder, user, "<s>[user]hi</s>[assistant]");
    assert_rendered(folder, chat, "<s>[system]s</s>[user]u</s>[assistant]");
    assert_rendered(folder, prefix, "<s>[user]hi</s>[assistant] It is");
    write_file(folder, "tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"tool\", \"template\": \"no\"}, "
               "{\"name\": \"default\", \"template\": \"" TEMPLATE "\"}]}");
    write_file(folder, "special_tokens_map.json", "{\"bos_token\": \"<s>\", \"eos_token\": null}");
    assert_rendered(folder, user, "<s>[user]hi[assistant]");
    write_file(folder, "chat_template.jinja", "{{ bos_token }}{{ strftime_now('%d %b') }}\n");
    assert_rendered(folder, user, "<s>04 Jul");
}

TEST_IN_FOLDER(messages_that_are_none_are_refused) {
    write_file(folder, "chat_template.jinja", TEMPLATE);
    static const char *const bad[][2] = {
        {"{\"messages\": 1}", "expected a list of messages"},
        {"{\"messages\": []}", "expected a list of messages"},
        {"{\"messages\": [{\"role\": \"user\"}]}", "found something else at 0"},
        {"{\"messages\": [{\"role\": 1, \"content\": \"a\"}]}", "found something else at 0"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": {}}]}",
         "chat_template.jinja:1: expected a text or a whole number to print, found a mapping"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fkv_prompts p = {0};
        struct fkv_prompt_reader reader = reader_of(folder);
        assert_refused(add(&p, &reader, bad[i][0], &err), bad[i][1]);
        fkv_prompts_free(&p);
        fkv_prompt_reader_close(&reader);
    }
}

/* ---- the middle ---- */

TEST(long_texts_lose_their_middle) {
    int32_t *ids;
    size_t count;
    assert_ok(
        fkv_tokenizer_encode(engine.tokenizer, story, strlen(story), true, &ids, &count, &err));
    for (int64_t most = 2; most < (int64_t)count + 3; most++) {
        char *text, *halves[2], expected[2 * sizeof story];
        size_t bytes;
        const size_t half = (size_t)most / 2;
        assert_ok(fkv_truncate_middle(engine.tokenizer, story, most, &text, &err));
        assert_ok(fkv_tokenizer_decode(engine.tokenizer, ids, half, &halves[0], &bytes, &err));
        assert_ok(fkv_tokenizer_decode(engine.tokenizer, ids + count - half, half, &halves[1],
                                       &bytes, &err));
        snprintf(expected, sizeof expected, "%s%s", halves[0], halves[1]);
        json_t *utf8 = json_string(text);
        assert_non_null(utf8);
        if (most >= (int64_t)count) assert_string_equal(text, story);
        if (most < (int64_t)count && !strchr(text, '\xef')) assert_string_equal(text, expected);
        json_decref(utf8);
        free(halves[0]);
        free(halves[1]);
        free(text);
    }
    free(ids);
}

TEST(what_a_cut_leaves_of_a_character_is_replaced) {
    char *text;
    /* four characters that the vocabulary spells by bytes: BOS, a space, then four tokens of each
     */
    static const char rare[] = "\xf0\x9f\x90\x8c\xf0\x9f\x90\x8c\xf0\x9f\x90\x8c\xf0\x9f\x90\x8c";
    assert_ok(fkv_truncate_middle(engine.tokenizer, rare, 14, &text, &err));
    assert_string_equal(text, "\xf0\x9f\x90\x8c\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                              "\xf0\x9f\x90\x8c");
    free(text);
}

/* ---- stops ---- */

/* Random characters of `text`, which begin and end at whole ones; the caller frees. */
static char *part_of(const char *text) {
    const int bytes = (int)strlen(text);
    int start = test_between(0, bytes - 1), stop = test_between(start + 1, bytes);
    while (start && ((unsigned char)text[start] & 0xc0) == 0x80) start--;
    while (((unsigned char)text[stop] & 0xc0) == 0x80) stop++;
    return strndup(text + start, (size_t)(stop - start));
}

TEST(a_stop_string_is_found_wherever_tokens_end) {
    int32_t *ids;
    size_t count;
    assert_ok(
        fkv_tokenizer_encode(engine.tokenizer, story, strlen(story), true, &ids, &count, &err));
    for (int round = 0; round < 300; round++) {
        struct fkv_stops stops = {0};
        struct fkv_stopped_text text;
        size_t first = strlen(story), shown = 0, pushed = 1;
        for (int i = test_between(1, 3); i; i--) {
            char *stop = part_of(story);
            const size_t at = (size_t)(strstr(story, stop) - story);
            assert_ok(fkv_stops_add(&stops, engine.tokenizer, stop, &err));
            if (at < first) first = at;
            free(stop);
        }
        assert_ok(fkv_stopped_text_open(&text, engine.tokenizer, ids, 1, &stops, &err));
        for (; pushed < count && !text.stopped; pushed++) {
            assert_ok(fkv_stopped_text_push(&text, ids[pushed], &err));
            assert_true(text.settled >= shown && (text.stopped || text.settled <= first));
            assert_memory_equal(text.text, story, text.settled);
            shown = text.settled;
        }
        assert_ok(fkv_stopped_text_finish(&text, &err));
        assert_true(text.stopped);
        assert_true(text.bytes >= first); /* of several, the one that is complete first */
        assert_int_equal(text.settled, text.bytes);
        if (stops.count == 1) assert_int_equal(text.bytes, first);
        fkv_stopped_text_close(&text);
        fkv_stopped_text_close(&text); /* twice is harmless */
        fkv_stops_free(&stops);
    }
    free(ids);
}

/* Prompts of random tokens that `fkv_generate` continues in `lanes`; freed by free_continued. */
struct continued {
    struct fkv_prompts prompts;
    struct fkv_generation g[PROMPTS];
};

static void generate(struct continued *c, int32_t lanes) {
    struct fkv_session *session;
    struct fkv_generation_times times = {0};
    const struct fkv_session_options open = {.block = 64, .sequences = lanes, .max_tokens = 100};
    const struct fkv_generation_options how = {
        .tokens = TOKENS, .lanes = lanes, .block = 64, .tokenizer = engine.tokenizer};
    for (int i = 0; i < PROMPTS; i++)
        c->g[i] = (struct fkv_generation){.prompt = c->prompts.all[i].tokens,
                                          .prompt_count = (int64_t)c->prompts.all[i].count,
                                          .most = fkv_prompt_most(&c->prompts.all[i], TOKENS),
                                          .stops = &c->prompts.all[i].stops};
    assert_ok(fkv_session_open(engine.model, &fkv_full_attention, &open, &session, &err));
    assert_ok(fkv_generate(session, c->g, PROMPTS, &how, &times, &err));
    fkv_session_close(session);
}

static void free_continued(struct continued *c) {
    for (int i = 0; i < PROMPTS; i++) fkv_generation_free(&c->g[i]);
    fkv_prompts_free(&c->prompts);
}

static struct fkv_continuing lines_of(const struct continued *c, struct fkv_policy_setup *setup) {
    assert_ok(fkv_policy_setup(&fkv_full_attention, &engine.model->config, 100, setup, &err));
    return (struct fkv_continuing){
        .prompts = &c->prompts, .tokenizer = engine.tokenizer, .setup = setup, .tokens = TOKENS};
}

/* The line of prompt i is read back, and not with `field` changed to `value`. */
static void assert_line(const struct fkv_continuing *lines, size_t i, json_t *line,
                        const char *field, const char *value) {
    struct fkv_prompts one = {lines->prompts->all + i, 1, 1, lines->prompts->longest};
    struct fkv_continuing of_one = *lines;
    of_one.prompts = &one;
    for (int changed = 0; changed < 2; changed++) {
        struct fkv_continued found;
        if (changed) json_object_set_new(line, field, json_loads(value, JSON_DECODE_ANY, NULL));
        char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17)), file[8192];
        const int bytes = snprintf(file, sizeof file, "%s\n", text);
        FILE *f = fmemopen(file, (size_t)bytes, "r");
        const int status = fkv_continuations_read(f, "out.jsonl", &of_one, &found, &err);
        fclose(f);
        free(text);
        if (changed && !status) fail_msg("%s: %s was taken", field, value);
        if (!changed) assert_ok(status);
    }
}

/* Continuations without stops, then with a stop string out of the text of each: the text ends
 * before it, and no more ids are drawn than it takes; however many run side by side. */
TEST(generation_ends_at_stops) {
    struct continued whole = {0}, cut = {0};
    struct fkv_prompt_reader reader = reader_of(NULL);
    struct fkv_policy_setup setup;
    for (int i = 0; i < PROMPTS; i++) {
        json_t *row = json_pack("{s:s}", "prompt", story + test_between(0, 40));
        assert_ok(fkv_prompts_add(&whole.prompts, &reader, row, "test", &err));
        json_decref(row);
    }
    generate(&whole, 1);
    const struct fkv_continuing lines = lines_of(&whole, &setup);
    const char *texts[PROMPTS];
    char *stops[PROMPTS];
    json_t *made[PROMPTS];
    for (int i = 0; i < PROMPTS; i++) {
        made[i] = fkv_continuation_json(&lines, (size_t)i, &whole.g[i], &err);
        texts[i] = json_string_value(json_object_get(made[i], "text"));
        assert_true(texts[i] && *texts[i]);
        stops[i] = part_of(texts[i]);
        json_t *row = json_pack("{s:s, s:s, s:i}", "prompt", whole.prompts.all[i].text, "stop",
                                stops[i], "max_tokens", i == 0 ? 3 : TOKENS);
        assert_ok(fkv_prompts_add(&cut.prompts, &reader, row, "test", &err));
        json_decref(row);
    }
    fkv_policy_setup_free(&setup);
    generate(&cut, test_between(1, PROMPTS));
    const struct fkv_continuing cut_lines = lines_of(&cut, &setup);
    for (int i = 0; i < PROMPTS; i++) {
        const struct fkv_generation *a = &whole.g[i], *b = &cut.g[i];
        json_t *line = fkv_continuation_json(&cut_lines, (size_t)i, b, &err);
        assert_non_null(line);
        const char *text = json_string_value(json_object_get(line, "text"));
        assert_true(b->count <= a->count && b->complete);
        assert_memory_equal(a->ids, b->ids, (size_t)b->count * sizeof *b->ids);
        if (i == 0) assert_true(b->count <= 3);
        if (i == 0 && !b->stopped) assert_int_equal(b->count, 3);
        assert_true(b->stopped || i == 0);
        if (b->stopped) assert_int_equal(strlen(text), strstr(texts[i], stops[i]) - texts[i]);
        assert_string_equal(json_string_value(json_object_get(line, "stopped")),
                            b->stopped ? "stop" : "length");
        assert_line(&cut_lines, (size_t)i, line, "stopped", b->stopped ? "\"length\"" : "\"stop\"");
        json_decref(line);
        free(stops[i]);
        json_decref(made[i]);
    }
    fkv_policy_setup_free(&setup);
    free_continued(&whole);
    free_continued(&cut);
}

TEST_GROUP(open_engine, close_engine)
