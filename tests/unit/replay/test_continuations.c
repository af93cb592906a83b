/* The file of continuations: what an earlier run left of it is found, what another run made is
 * refused by name, and nothing is lost. */
#include "tests/unit/replay/runs.h"

#include "kernels/base/atomic_file.h"
#include "kernels/base/progress.h"
#include "replay/generate/continuations.h"
#include "replay/lines_file.h"

enum { PROMPTS = 5, TOKENS = 6 };

/* Adds a prompt of a text; `id` may be NULL. */
static void add_prompt(struct fkv_prompts *p, const char *text, json_t *id) {
    struct fkv_prompt_reader reader = {.tokenizer = engine.tokenizer,
                                       .vocab = engine.model->config.vocab};
    json_t *row = json_pack("{s:s, s:O*}", "prompt", text, "id", id);
    assert_ok(fkv_prompts_add(p, &reader, row, "test", &err));
    json_decref(row);
}

struct lines {
    struct fkv_prompts prompts;
    struct fkv_policy_setup setup;
    struct fkv_continuing how;
    json_t *lines[PROMPTS];
    char text[PROMPTS + 1][4096]; /* [i] the first i lines as they are written */
};

/* Continuations of random ids; every second ends by itself. */
static void make_lines(struct lines *l) {
    static const char *const texts[PROMPTS] = {"The tide came up", "A boat", "",
                                               "\xc3\x9cn\xc3\xafk", "The end"};
    const struct fkv_policy_options policy = {.name = "freqkv", .window = 32, .sinks = -1};
    *l = (struct lines){0};
    assert_ok(fkv_policy_setup(&policy, &engine.model->config, 100, &l->setup, &err));
    l->how = (struct fkv_continuing){.prompts = &l->prompts,
                                     .tokenizer = engine.tokenizer,
                                     .setup = &l->setup,
                                     .tokens = TOKENS,
                                     .seed = 7,
                                     .temperature = 0.8};
    for (int i = 0; i < PROMPTS; i++) {
        json_t *id = i % 2 ? json_integer(i) : NULL;
        add_prompt(&l->prompts, texts[i], id);
        json_decref(id);
    }
    for (size_t i = 0; i < PROMPTS; i++) {
        int32_t ids[TOKENS];
        struct fkv_generation g = {
            .ids = ids, .count = i % 2 ? test_between(0, TOKENS - 1) : TOKENS, .ended = i % 2};
        for (int k = 0; k < TOKENS; k++) ids[k] = test_between(3, engine.model->config.vocab - 1);
        l->lines[i] = fkv_continuation_json(&l->how, i, &g, &err);
        assert_non_null(l->lines[i]);
        char *text = json_dumps(l->lines[i], JSON_COMPACT | JSON_REAL_PRECISION(17));
        snprintf(l->text[i + 1], sizeof l->text[i + 1], "%s%s\n", l->text[i], text);
        free(text);
    }
}

static void free_lines(struct lines *l) {
    for (int i = 0; i < PROMPTS; i++) json_decref(l->lines[i]);
    fkv_policy_setup_free(&l->setup);
    fkv_prompts_free(&l->prompts);
    fkv_prompts_free(&l->prompts); /* twice is harmless */
}

static int read_text(const struct lines *l, const char *text, size_t bytes,
                     struct fkv_continued *found, struct fkv_error *err) {
    FILE *f = bytes ? fmemopen((char *)text, bytes, "r") : fopen("/dev/null", "r");
    assert_non_null(f);
    int status = fkv_continuations_read(f, "out.jsonl", &l->how, found, err);
    fclose(f);
    return status;
}

TEST(every_cut_of_the_file_is_whole_lines_and_a_torn_one) {
    struct lines l;
    make_lines(&l);
    size_t total = strlen(l.text[PROMPTS]);
    for (size_t bytes = 0, whole = 0; bytes <= total; bytes++) {
        struct fkv_continued found;
        if (bytes && l.text[PROMPTS][bytes - 1] == '\n') whole++;
        assert_ok(read_text(&l, l.text[PROMPTS], bytes, &found, &err));
        assert_int_equal(found.file.lines, whole);
        assert_int_equal(found.file.bytes, strlen(l.text[whole]));
        assert_int_equal(found.file.bytes + found.file.torn, bytes);
    }
    free_lines(&l);
}

/* Models have a token for every byte, and may draw that of 0. */
TEST(a_continuation_that_holds_the_byte_0_is_read_back) {
    struct lines l;
    struct fkv_continued found;
    int32_t ids[TOKENS], nul = -1;
    make_lines(&l);
    for (int32_t id = 0; id < engine.model->config.vocab && nul < 0; id++) {
        char *text;
        size_t bytes;
        assert_ok(fkv_tokenizer_decode(engine.tokenizer, &id, 1, &text, &bytes, &err));
        if (bytes == 1 && !text[0]) nul = id;
        free(text);
    }
    assert_true(nul >= 0);
    for (int k = 0; k < TOKENS; k++) ids[k] = k == 2 ? nul : nul + k + 1;
    struct fkv_generation g = {.ids = ids, .count = TOKENS};
    json_t *line = fkv_continuation_json(&l.how, 0, &g, &err);
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL,
         whole[4096];
    assert_non_null(text);
    assert_non_null(strstr(text, "\\u0000"));
    snprintf(whole, sizeof whole, "%s\n", text);
    assert_ok(read_text(&l, whole, strlen(whole), &found, &err));
    assert_int_equal(found.file.lines, 1);
    assert_int_equal(found.tokens, TOKENS);
    free(text);
    json_decref(line);
    free_lines(&l);
}

/* A line with one field changed: the field is named. */
TEST(a_line_of_another_run_is_refused_by_its_field) {
    struct lines l;
    make_lines(&l);
    static const char *const changes[][2] = {
        {"prompt", "\"another\""},
        {"text", "\"another\""},
        {"token_ids", "[1, 2]"},
        {"token_ids", "7"},
        {"token_ids", "[1, 2, 3, 4, 5, \"6\"]"},
        {"token_ids", "[1, 2, 3, 4, 5, 99999]"},
        {"prompt_tokens", "99"},
        {"tokens", "99"},
        {"stopped", "\"eos\""},
        {"stopped", "7"},
        {"policy", "\"full\""},
        {"window", "33"},
        {"gamma", "0.25"},
        {"seed", "8"},
        {"temperature", "0.5"},
        {"id", "3"},
        {"extra", "1"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        json_t *line = json_deep_copy(l.lines[0]);
        json_object_set_new(line, changes[i][0], json_loads(changes[i][1], JSON_DECODE_ANY, NULL));
        char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17)), file[8192];
        size_t bytes = (size_t)snprintf(file, sizeof file, "%s\n", text);
        struct fkv_continued found;
        const char *field =
            !strcmp(changes[i][1], "\"eos\"") ? "token_ids" : changes[i][0]; /* they go together */
        assert_refused(read_text(&l, file, bytes, &found, &err), "out.jsonl:1: field \"");
        assert_refused(read_text(&l, file, bytes, &found, &err), field);
        free(text);
        json_decref(line);
    }
    free_lines(&l);
}

TEST(what_is_no_line_is_refused) {
    struct lines l;
    make_lines(&l);
    char file[8192], spaced[8192];
    char *loose = json_dumps(l.lines[0], JSON_REAL_PRECISION(17)); /* spaces behind commas */
    snprintf(spaced, sizeof spaced, "%s\n", loose);
    const char *const bad[][2] = {
        {"not JSON\n", "out.jsonl:6: expected one line for each of the 5 prompts, found more"},
        {"{}\n", "found more"},
        {"{", "found more"}, /* nothing can be torn behind the last line */
    };
    for (int i = 0; i < 3; i++) {
        struct fkv_continued found;
        size_t bytes = (size_t)snprintf(file, sizeof file, "%s%s", l.text[PROMPTS], bad[i][0]);
        assert_refused(read_text(&l, file, bytes, &found, &err), bad[i][1]);
    }
    const char *const first[][2] = {{"not JSON\n", "out.jsonl:1: not valid JSON"},
                                    {"\n", "out.jsonl:1: not valid JSON"},
                                    {"[1]\n", "out.jsonl:1: expected an object"},
                                    {"{}\n", "token_ids"},
                                    {spaced, "written otherwise"}};
    for (int i = 0; i < 5; i++) {
        struct fkv_continued found;
        assert_refused(read_text(&l, first[i][0], strlen(first[i][0]), &found, &err), first[i][1]);
    }
    const char *const torn[] = {"Once upon a time", "{\"text\":", "\n", "{\"prompt\"\t"};
    for (int i = 0; i < 4; i++) { /* no start of a line that this program writes */
        struct fkv_continued found;
        assert_refused(read_text(&l, torn[i], strlen(torn[i]), &found, &err),
                       i == 2 ? "not valid JSON" : "expected the start of a line");
    }
    free(loose);
    free_lines(&l);
}

/* ---- files ---- */

static void assert_file(const char *path, const char *expected) {
    char *text;
    size_t bytes;
    assert_ok(fkv_read_file(path, 1 << 20, &text, &bytes, &err));
    assert_string_equal(text, expected);
    free(text);
}

static json_t *identity_turned(const struct lines *l, int32_t batch, int64_t rope_positions) {
    static char one[] = "one", another[] = "another";
    const struct fkv_replay replay = {.engine = engine, .command = batch == 1 ? one : another};
    json_t *identity = fkv_continuing_identity(&l->how, &replay, batch, rope_positions, &err);
    if (!identity) fail_msg("%s", err.message);
    return identity;
}

static json_t *identity_of(const struct lines *l, int32_t batch) {
    return identity_turned(l, batch, 0);
}

/* Rotations that were chosen for another length. A file without them says nothing of positions. */
TEST(a_run_goes_on_with_its_own_rotation_alone) {
    struct lines l;
    make_lines(&l);
    json_t *plain = identity_of(&l, 1), *near = identity_turned(&l, 1, 64),
           *far = identity_turned(&l, 1, 9000);
    assert_null(json_object_get(plain, "rope_positions"));
    assert_ok(fkv_lines_same("file", near, near, NULL, &err));
    assert_refused(fkv_lines_same("file", far, near, NULL, &err), "rope_positions");
    assert_refused(fkv_lines_same("file", far, plain, NULL, &err), "rope_positions");
    assert_refused(fkv_lines_same("file", plain, near, NULL, &err), "rope_positions");
    json_decref(plain);
    json_decref(near);
    json_decref(far);
    free_lines(&l);
}

TEST_IN_FOLDER(a_file_grows_behind_its_whole_lines) {
    char path[512];
    struct lines l;
    struct fkv_continued found;
    struct fkv_lines_file *file;
    make_lines(&l);
    json_t *identity = identity_of(&l, 1);
    snprintf(path, sizeof path, "%s/out.jsonl", folder);
    assert_ok(fkv_continuations_find(path, &l.how, identity, &found, &err));
    assert_int_equal(found.file.lines, 0);
    for (size_t i = 0; i < PROMPTS; i++) {
        assert_ok(fkv_lines_open(path, identity, found.file.bytes, found.file.torn, &file, &err));
        assert_ok(fkv_lines_append_json(file, l.lines[i], &err));
        fkv_lines_close(file);
        assert_file(path, l.text[i + 1]);
        char torn[8192];
        if (i + 1 < PROMPTS) {
            size_t bytes = strlen(l.text[i + 1]), more = strlen(l.text[i + 2]) - bytes;
            snprintf(torn, sizeof torn, "%.*s",
                     (int)(bytes + (size_t)test_between(0, (int)more - 1)), l.text[i + 2]);
            test_write_text(path, torn);
        }
        assert_ok(fkv_continuations_find(path, &l.how, identity, &found, &err));
        assert_int_equal(found.file.lines, i + 1);
    }
    json_decref(identity);
    free_lines(&l);
}

TEST_IN_FOLDER(one_process_alone_writes) {
    char path[512], beside[520];
    struct lines l;
    struct fkv_lines_file *file, *other;
    make_lines(&l);
    json_t *identity = identity_of(&l, 1);
    snprintf(path, sizeof path, "%s/out.jsonl", folder);
    assert_ok(fkv_lines_open(path, identity, 0, 0, &file, &err));
    assert_refused(fkv_lines_open(path, identity, 0, 0, &other, &err), "another process writes it");
    snprintf(beside, sizeof beside, "%s.run", path);
    assert_int_equal(unlink(beside), 0); /* as if both had found nothing */
    assert_refused(fkv_lines_open(path, identity, 0, 0, &other, &err), "another process writes it");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(access(beside, F_OK), 0);
    assert_ok(fkv_lines_append_json(file, l.lines[0], &err));
    fkv_lines_close(file);
    assert_refused(fkv_lines_open(path, identity, 0, 0, &other, &err),
                   "another process writes it"); /* it wrote since this one looked */
    assert_file(path, l.text[1]);
    json_decref(identity);
    free_lines(&l);
}

TEST_IN_FOLDER(without_a_line_no_file_stays) {
    char path[512], beside[520];
    struct lines l;
    struct fkv_lines_file *file;
    make_lines(&l);
    json_t *identity = identity_of(&l, 1);
    snprintf(path, sizeof path, "%s/out.jsonl", folder);
    snprintf(beside, sizeof beside, "%s.run", path);
    assert_ok(fkv_lines_open(path, identity, 0, 0, &file, &err));
    assert_true(access(path, F_OK) == 0 && access(beside, F_OK) == 0);
    fkv_lines_close(file);
    fkv_lines_close(NULL);
    assert_true(access(path, F_OK) && access(beside, F_OK));
    json_decref(identity);
    free_lines(&l);
}

TEST_IN_FOLDER(lines_of_another_run_are_refused_and_stay) {
    char path[512], beside[520];
    struct lines l;
    struct fkv_continued found;
    struct fkv_lines_file *file;
    make_lines(&l);
    json_t *identity = identity_of(&l, 1), *other;
    snprintf(path, sizeof path, "%s/out.jsonl", folder);
    snprintf(beside, sizeof beside, "%s.run", path);
    assert_ok(fkv_lines_open(path, identity, 0, 0, &file, &err));
    assert_ok(fkv_lines_append_json(file, l.lines[0], &err));
    fkv_lines_close(file);

    assert_refused(fkv_continuations_find(path, &l.how, other = identity_of(&l, 2), &found, &err),
                   "out.jsonl.run: field \"batch\": expected 2, found 1");
    json_decref(other);
    const char *key;
    json_t *value;
    json_object_foreach(identity, key, value) {
        char expected[128];
        const bool free_to_differ = !strcmp(key, "command") || !strcmp(key, "model") ||
                                    !strcmp(key, "software_version") || !strcmp(key, "kernels");
        other = json_deep_copy(identity);
        json_object_set_new(other, key, json_string("something else"));
        snprintf(expected, sizeof expected, "field \"%s\": expected \"something else\"", key);
        if (free_to_differ)
            assert_ok(fkv_continuations_find(path, &l.how, other, &found, &err));
        else
            assert_refused(fkv_continuations_find(path, &l.how, other, &found, &err), expected);
        json_decref(other);
    }
    test_write_text(beside, "not JSON");
    assert_refused(fkv_continuations_find(path, &l.how, identity, &found, &err),
                   "out.jsonl.run: not valid JSON");
    unlink(beside);
    assert_refused(fkv_continuations_find(path, &l.how, identity, &found, &err),
                   "nothing says what made");
    assert_file(path, l.text[1]);
    json_decref(identity);
    free_lines(&l);
}

TEST(every_option_of_a_policy_identifies_its_lines) {
    const struct fkv_policy_options base = {.name = "freqkv", .window = 64, .sinks = 4};
    struct fkv_policy_options others[7];
    for (int i = 0; i < 7; i++) others[i] = base;
    others[0].window = 65, others[1].sinks = 3,
    others[2].own[0] = (struct fkv_own_value){.name = "recent", .value = 1};
    others[3].own[0] = (struct fkv_own_value){.name = "rescale", .value = 0};
    others[4].own[0] = (struct fkv_own_value){.name = "mass-bias", .value = 1},
    others[5].gamma = "0.25", others[6].name = "local";
    struct lines l;
    struct fkv_policy_setup setup;
    make_lines(&l);
    l.how.setup = &setup;
    assert_ok(fkv_policy_setup(&base, &engine.model->config, 100, &setup, &err));
    json_t *expected = identity_of(&l, 1);
    fkv_policy_setup_free(&setup);
    for (int i = 0; i < 7; i++) {
        assert_ok(fkv_policy_setup(&others[i], &engine.model->config, 100, &setup, &err));
        json_t *found = identity_of(&l, 1);
        assert_false(json_equal(expected, found));
        json_decref(found);
        fkv_policy_setup_free(&setup);
    }
    json_decref(expected);
    free_lines(&l);
}

TEST(prompts_are_told_apart_by_text_id_and_order) {
    static const char *const texts[][2] = {{"a", "b"}, {"b", "a"}, {"a", "c"}, {"a", "b"}};
    fkv_sha256_hex hashes[4];
    for (int i = 0; i < 4; i++) {
        struct fkv_prompts p = {0};
        json_t *id = i == 3 ? json_integer(1) : NULL;
        for (int k = 0; k < 2; k++) add_prompt(&p, texts[i][k], k ? id : NULL);
        assert_ok(fkv_prompts_sha256(&p, hashes[i], &err));
        for (int k = 0; k < i; k++) assert_string_not_equal(hashes[k], hashes[i]);
        json_decref(id);
        fkv_prompts_free(&p);
    }
}

/* ---- times ---- */

struct watched {
    double seconds;
    int draws, complete;
};

static int watch_slowly(void *context, const struct fkv_generation *g, struct fkv_error *err) {
    (void)err;
    struct watched *w = context;
    double started = fkv_seconds();
    usleep(5000);
    w->draws++;
    w->complete += g->complete;
    w->seconds += fkv_seconds() - started;
    return FKV_OK;
}

/* Disjoint parts of one span of time cannot add up to more than it, however busy the machine is. */
TEST(watching_is_not_in_the_times) {
    const struct fkv_session_options options = {.block = 64, .sequences = 2, .max_tokens = 64};
    struct fkv_generation g[3] = {0};
    struct fkv_generation_times times = {0};
    struct watched watched = {0};
    const struct fkv_generation_options how = {
        .tokens = 10, .lanes = 2, .block = 64, .watch = watch_slowly, .context = &watched};
    struct fkv_session *session;
    for (int i = 0; i < 20; i++) tokens[i] = test_between(3, engine.model->config.vocab - 1);
    for (int i = 0; i < 3; i++)
        g[i] = (struct fkv_generation){.prompt = tokens, .prompt_count = 10 + i};
    assert_ok(fkv_session_open(engine.model, &fkv_full_attention, &options, &session, &err));
    double started = fkv_seconds();
    assert_ok(fkv_generate(session, g, 3, &how, &times, &err));
    double all = fkv_seconds() - started;
    assert_int_equal(watched.complete, 3);
    int64_t drawn = 0;
    for (int i = 0; i < 3; i++) {
        drawn += g[i].count + g[i].ended;
        fkv_generation_free(&g[i]);
    }
    assert_int_equal(watched.draws, drawn);
    assert_true(times.prefill_seconds > 0 && times.decode_seconds > 0);
    if (times.prefill_seconds + times.decode_seconds > all - watched.seconds)
        fail_msg("%.4f s of feeds and %.4f s of watching in %.4f s",
                 times.prefill_seconds + times.decode_seconds, watched.seconds, all);
    fkv_session_close(session);
}

TEST_GROUP(open_engine, close_engine)
