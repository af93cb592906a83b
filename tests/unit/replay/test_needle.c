/* Prompts of `needle`: exact length, needle whole and where a sentence ends; rows of the file. */
#include "tests/unit/replay/runs.h"

#include <math.h>

#include "replay/tasks/needle_rows.h"

static struct fkv_corpus story;
static struct fkv_haystack haystack;

static int open_story(void **state) {
    if (open_engine(state)) return -1;
    static struct fkv_engine_options options;
    fkv_engine_options_default(&options);
    options.texts[options.text_count++] = "data/the_tide_mill.txt";
    options.quiet = true;
    if (!fkv_corpus_read(&options, &engine, false, 0, &story, &err) &&
        !fkv_haystack_open(&story, engine.tokenizer, &haystack, &err))
        return 0;
    printf("%s\n", err.message);
    return -1;
}

static int close_story(void **state) {
    fkv_haystack_close(&haystack);
    fkv_haystack_close(&haystack); /* twice is harmless */
    fkv_corpus_free(&story);
    return close_engine(state);
}

static struct fkv_needle_task task_of(enum fkv_needle_kind kind) {
    return (struct fkv_needle_task){.kind = kind,
                                    .haystack = &haystack,
                                    .tokenizer = engine.tokenizer,
                                    .vocab = engine.model->config.vocab,
                                    .bos = fkv_engine_added_bos(&engine),
                                    .needle = " The pass key is {key}. It is {key}.",
                                    .question = "\nWhat is it? It is",
                                    .answer = " {key}",
                                    .digits = test_between(1, 9),
                                    .passage = test_between(2, 40),
                                    .seed = test_between(0, 1 << 20)};
}

static char *decode(const int32_t *ids, int64_t count) {
    char *text;
    size_t bytes;
    assert_ok(fkv_tokenizer_decode(engine.tokenizer, ids, (size_t)count, &text, &bytes, &err));
    return text;
}

static bool is_an_end(int64_t token) {
    for (int64_t i = 0; i < haystack.end_count; i++)
        if (haystack.ends[i] == token) return true;
    return false;
}

TEST(sentences_end_with_a_stop_and_start_with_a_space) {
    assert_true(haystack.end_count > 100);
    assert_int_equal(haystack.ends[0], 0);
    for (int64_t i = 1; i < haystack.end_count; i++) {
        const int64_t at = haystack.ends[i];
        assert_true(at > haystack.ends[i - 1]);
        char *before = decode(haystack.tokens, at), *after = decode(haystack.tokens, at + 1);
        const size_t bytes = strlen(before);
        if (!strchr(".!?\"')\x9d\x99", before[bytes - 1]) || !strchr(" \n\r\t", after[bytes]))
            fail_msg("end %d: \"%s\"", (int)i, after + (bytes > 40 ? bytes - 40 : 0));
        free(before);
        free(after);
    }
}

/* Random lengths, depths and tasks. */
TEST(a_prompt_has_its_length_and_holds_the_needle_whole) {
    for (int round = 0; round < 200; round++) {
        const struct fkv_needle_task task = task_of(FKV_NEEDLE);
        struct fkv_needle_cell cell = {.length = test_between(100, 2000),
                                       .depth = test_between(0, 4) / 4.0,
                                       .repeat = test_between(0, 3)};
        int32_t *ids;
        char needle[128], question[128];
        assert_ok(fkv_needle_build(&task, &cell, &ids, &err));
        assert_int_equal(strlen(cell.key), task.digits);
        assert_int_equal(ids[0], task.bos);
        assert_true(is_an_end(cell.offset) && is_an_end(cell.offset + cell.position - 1));
        snprintf(needle, sizeof needle, " The pass key is %s. It is %s.", cell.key, cell.key);
        snprintf(question, sizeof question, "\nWhat is it? It is %s", cell.key);
        /* The text before the needle is the haystack's; the whole ends with question and answer. */
        assert_memory_equal(ids + 1, haystack.tokens + cell.offset,
                            (size_t)(cell.position - 1) * sizeof *ids);
        char *before = decode(ids, cell.position), *whole = decode(ids, cell.length + cell.answer),
             *prompt = decode(ids, cell.length);
        const bool first = cell.position == 1; /* decoding takes the space off a text's start */
        assert_memory_equal(whole + strlen(before), needle + first, strlen(needle) - first);
        assert_string_equal(whole + strlen(whole) - strlen(question), question);
        assert_int_equal(strlen(whole) - strlen(prompt), 1 + strlen(cell.key));
        free(before), free(prompt), free(whole), free(ids);
    }
}

/* No end of a sentence is nearer to the depth; key and offset depend on seed and repeat alone. */
TEST(the_needle_is_nearest_to_its_depth) {
    for (int round = 0; round < 100; round++) {
        const struct fkv_needle_task task = task_of(FKV_NEEDLE);
        struct fkv_needle_cell whole = {.length = 1000, .depth = 1},
                               cell = {.length = 1000, .depth = test_between(0, 100) / 100.0};
        int32_t *ids;
        assert_ok(fkv_needle_build(&task, &whole, NULL, &err));
        assert_ok(fkv_needle_build(&task, &cell, &ids, &err));
        assert_string_equal(cell.key, whole.key);
        assert_int_equal(cell.offset, whole.offset);
        /* Needle and question are what is not of the haystack. */
        int64_t same = 0, text;
        while (same < cell.length && ids[1 + same] == haystack.tokens[cell.offset + same]) same++;
        struct fkv_needle_cell longer = {.length = 1001};
        assert_ok(fkv_needle_build(&task, &longer, NULL, &err));
        assert_true(same >= cell.position - 1);
        char needle[128];
        int32_t *part;
        size_t count;
        snprintf(needle, sizeof needle, ". The pass key is %s. It is %s.", cell.key, cell.key);
        assert_ok(fkv_tokenizer_encode(engine.tokenizer, needle, strlen(needle), false, &part,
                                       &count, &err));
        text = cell.length - 1 - (int64_t)(count - 1);
        free(part);
        assert_ok(fkv_tokenizer_encode(engine.tokenizer, ".\nWhat is it? It is", 19, false, &part,
                                       &count, &err));
        text -= (int64_t)(count - 1);
        free(part);
        const double wanted = (double)cell.offset + cell.depth * (double)text,
                     found = (double)(cell.offset + cell.position - 1);
        for (int64_t i = 0; i < haystack.end_count; i++)
            if (haystack.ends[i] >= cell.offset && haystack.ends[i] <= cell.offset + text)
                assert_true(fabs((double)haystack.ends[i] - wanted) >= fabs(found - wanted));
        free(ids);
    }
}

TEST(a_passage_returns_at_the_end) {
    for (int round = 0; round < 100; round++) {
        const struct fkv_needle_task task = task_of(FKV_RECALL);
        struct fkv_needle_cell cell = {.length = test_between(200, 2000),
                                       .depth = test_between(0, 4) / 4.0};
        int32_t *ids;
        assert_ok(fkv_needle_build(&task, &cell, &ids, &err));
        assert_int_equal(cell.answer, task.passage);
        assert_memory_equal(ids + 1, haystack.tokens + cell.offset,
                            (size_t)(cell.length - 1 - task.passage) * sizeof *ids);
        assert_memory_equal(ids + cell.position, ids + cell.length - task.passage,
                            (size_t)task.passage * sizeof *ids);
        free(ids);
    }
}

TEST(what_does_not_fit_is_refused) {
    struct fkv_needle_task task = task_of(FKV_NEEDLE);
    struct fkv_needle_cell shorter = {.length = 10}, longer = {.length = 20000},
                           fits = {.length = 500};
    assert_refused(fkv_needle_build(&task, &shorter, NULL, &err), "all but the text");
    assert_refused(fkv_needle_build(&task, &longer, NULL, &err), "texts of at least");
    task.needle = "";
    assert_refused(fkv_needle_build(&task, &fits, NULL, &err), "--needle");
}

/* ---- rows ---- */

enum { ROWS = 3 };

TEST(every_cut_of_the_file_is_whole_lines_and_a_torn_one) {
    for (int kind = FKV_NEEDLE; kind <= FKV_RECALL; kind++) {
        const struct fkv_policy_options policy = {.name = "freqkv", .window = 32, .sinks = -1};
        struct fkv_policy_setup setup;
        assert_ok(fkv_policy_setup(&policy, &engine.model->config, 100, &setup, &err));
        const struct fkv_needle_task task = task_of((enum fkv_needle_kind)kind);
        struct fkv_needle_cell cells[ROWS];
        char text[8192] = "", found_text[] = " 1, \"2\"";
        size_t ends[ROWS + 2] = {0};
        for (int i = 0; i < ROWS; i++) {
            cells[i] = (struct fkv_needle_cell){.length = 200, .depth = i / 2.0};
            assert_ok(fkv_needle_build(&task, &cells[i], NULL, &err));
        }
        struct fkv_needle_result results[ROWS];
        const struct fkv_needle_sheet sheet = {task.kind, &setup, cells, ROWS, results};
        for (int i = -1; i < ROWS; i++) {
            if (i >= 0)
                results[i] = (struct fkv_needle_result){
                    .exact = i % 2,
                    .found = found_text,
                    .logprob = fkv_needle_round(-test_between(1, 1 << 30) / 7e8),
                    .first = fkv_needle_round(test_between(1, 1 << 30) / 7e8),
                    .second = fkv_needle_round(test_between(1, 1 << 30) / 7e8)};
            size_t bytes;
            char *line = fkv_lines_printed(fkv_needle_print_line, &sheet, i, &bytes, &err);
            strcat(text, line);
            ends[i + 2] = strlen(text);
            free(line);
        }
        for (size_t bytes = 1, whole = 0; bytes <= strlen(text); bytes++) {
            memset(results, 0, sizeof results);
            struct fkv_lines_found found;
            if (bytes == ends[whole + 1]) whole++;
            FILE *f = fmemopen(text, bytes, "r");
            assert_ok(fkv_needle_rows_read(f, "out.csv", &sheet, &found, &err));
            fclose(f);
            assert_int_equal(found.lines, whole);
            assert_int_equal(found.bytes, ends[whole]);
            assert_int_equal(found.bytes + found.torn, bytes);
            if (whole > 1 && kind == FKV_NEEDLE) assert_string_equal(results[0].found, found_text);
            for (int i = 0; i < ROWS; i++) fkv_needle_result_free(&results[i]);
        }
        /* A digit changed anywhere is refused, but for those that were measured. */
        for (size_t at = 0; text[at]; at++) {
            if (text[at] < '0' || text[at] > '9') continue;
            memset(results, 0, sizeof results);
            struct fkv_lines_found found;
            const char was = text[at];
            const char *line = text + at;
            int cell = 0;
            while (line > text && line[-1] != '\n') cell += *--line == ',';
            text[at] = was == '9' ? '8' : '9';
            FILE *f = fmemopen(text, strlen(text), "r");
            const int status = fkv_needle_rows_read(f, "out.csv", &sheet, &found, &err);
            fclose(f);
            text[at] = was;
            if (cell < (kind == FKV_NEEDLE ? 11 : 10)) assert_int_equal(status, FKV_FAILED);
            for (int i = 0; i < ROWS; i++) fkv_needle_result_free(&results[i]);
        }
        fkv_policy_setup_free(&setup);
    }
}

TEST_GROUP(open_story, close_story)
