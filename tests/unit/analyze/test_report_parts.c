/* What a report reads: SVG figures, which go into a page only as our own code writes them, and CSV
 * tables. */
#include "analyze/figure/figure.h"
#include "analyze/report/parts.h"
#include "tests/unit/support.h"

static char folder[256], path[300];
static const struct fkv_provenance provenance = {"0.0", "abc",
                                                 "freqkv-analyze spectrum 'a <b> & c'", "made"};

static int setup(void **state) {
    (void)state;
    snprintf(path, sizeof path, "%s/file", test_make_folder(folder));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_remove_folder(folder);
    return 0;
}

static void put(const char *text, size_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    fclose(f);
}

/* A figure with text, lines, clips and a heat map -> its SVG, malloc'd. */
static char *draw(void) {
    struct fkv_error err;
    struct fkv_figure *f;
    char base[300], *text = NULL;
    size_t bytes = 0;
    const struct fkv_axis x = {"x <&> \"x\"", FKV_FIT, FKV_FIT, .logarithmic = true},
                          y = {"y", FKV_FIT, FKV_FIT, .logarithmic = false};
    const struct fkv_line line = {
        .label = "line", .color = fkv_color_cycle(1), .width = 1, .dashed = true, .markers = true};
    double xs[20], ys[20];
    const int names[4] = {0, 1, 2, 3};
    for (int i = 0; i < 20; i++) xs[i] = i + 1, ys[i] = test_normal();
    assert_ok(fkv_figure_create(5, 3, 1, 2, "A title of <script> & \"quotes\"", &f, &err), err);
    assert_ok(fkv_figure_axes(f, 0, "a", &x, &y, NULL, 1, &err), err);
    assert_ok(fkv_figure_line(f, 0, &line, 20, xs, ys, &err), err);
    assert_ok(fkv_figure_axes(f, 1, "b", &y, &y, NULL, 1, &err), err);
    assert_ok(fkv_figure_heatmap(f, 1, 4, 4, ys, names, names, -2, 2, &err), err);
    snprintf(base, sizeof base, "%s/drawn", folder);
    assert_ok(fkv_figure_write(f, base, &provenance, &err), err);
    fkv_figure_destroy(f);
    strcat(base, ".svg");
    FILE *in = fopen(base, "rb");
    assert_non_null(in);
    text = calloc(1, 1 << 20);
    bytes = fread(text, 1, (1 << 20) - 1, in);
    assert_true(bytes > 1000);
    fclose(in);
    return text;
}

static int read_svg(struct fkv_text_list *glyphs, struct fkv_svg *svg, struct fkv_error *err) {
    return fkv_svg_read(path, "f7-", "words <b>", glyphs, svg, err);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}

static void a_figure_keeps_its_shapes_and_gets_ids_of_its_own(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_svg svg;
    struct fkv_text_list glyphs = {0};
    char *text = draw();
    put(text, strlen(text));
    assert_ok(read_svg(&glyphs, &svg, &err), err);
    assert_string_equal(svg.title, "A title of <script> & \"quotes\"");
    assert_string_equal(svg.command, provenance.command);
    assert_non_null(strstr(svg.markup,
                           "<title id='f7-t'>A title of &lt;script&gt; &amp; "
                           "&quot;quotes&quot;</title><desc id='f7-d'>words &lt;b&gt;</desc>"));
    assert_int_equal(count(svg.markup, "<path"), count(strstr(text, "</defs>"), "<path") +
                                                     count(text, "<clipPath") -
                                                     count(strstr(text, "</defs>"), "<clipPath"));
    assert_int_equal(count(svg.markup, "<use"), count(text, "<use"));
    assert_int_equal(count(svg.markup, "href='#g"), count(text, "<use"));
    assert_int_equal(count(svg.markup, " id='"), count(svg.markup, " id='f7-"));
    assert_true(strlen(svg.markup) < strlen(text) / 2);
    int first = glyphs.count;
    fkv_svg_free(&svg);
    assert_true(first > 10);
    assert_ok(read_svg(&glyphs, &svg, &err), err);
    assert_int_equal(glyphs.count,
                     first); /* a second figure of the same letters needs no more of them */
    fkv_svg_free(&svg);
    fkv_svg_free(&svg);
    fkv_text_list_free(&glyphs);
    free(text);
}

/* The text with the first `old` as `new`, into the file. */
static void change(const char *text, const char *old, const char *new) {
    const char *at = strstr(text, old);
    assert_non_null(at);
    char *changed = malloc(strlen(text) + strlen(new) + 1);
    size_t before = (size_t)(at - text);
    memcpy(changed, text, before);
    strcpy(changed + before, new);
    strcat(changed, at + strlen(old));
    put(changed, strlen(changed));
    free(changed);
}

static void a_figure_that_could_do_anything_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *old, *new;
    } changes[] = {{"<defs>", "<script>alert(1)</script><defs>"},
                   {"<defs>", "<defs><foreignObject/>"},
                   {"<defs>", "<g onload=\"alert(1)\"></g><defs>"},
                   {"<defs>", "<image xlink:href=\"#a\"/><defs>"},
                   {"<defs>", "<style>*{}</style><defs>"},
                   {"<defs>", "<g style=\"fill:url(https://example.org/a)\"></g><defs>"},
                   {"<defs>", "<g style=\"@import 'a'\"></g><defs>"},
                   {"<defs>", "<g id=\"a' onload='alert(1)\"></g><defs>"},
                   {"<defs>", "<g transform=\"'/><script>\"></g><defs>"},
                   {"<defs>", "<!-- a --><defs>"},
                   {"<defs>", "text<defs>"},
                   {"<defs>", "<![CDATA[a]]><defs>"},
                   {"<defs>", "<g></svg></g><defs>"},
                   {"xlink:href=\"#", "xlink:href=\"https://example.org/#"},
                   {"xlink:href=\"#", "xlink:href=\"javascript:#"},
                   {"clip-path=\"url(#", "clip-path=\"url(https://example.org/#"},
                   {"<svg ", "<!DOCTYPE svg [<!ENTITY a 'b'>]><svg "},
                   {"<svg ", "<svg onload=\"alert(1)\" "},
                   {"</svg>", "</svg><script>alert(1)</script>"},
                   {"FreqKV toolkit", "Another tool"},
                   {"<symbol overflow=\"visible\" id=\"",
                    "<symbol overflow=\"visible\"><g id=\"a\"/></symbol><symbol id=\"b\" id=\""}};
    struct fkv_error err;
    struct fkv_svg svg;
    char *text = draw();
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct fkv_text_list glyphs = {0};
        change(text, changes[i].old, changes[i].new);
        if (read_svg(&glyphs, &svg, &err) != FKV_FAILED)
            fail_msg("\"%s\" was taken: %.300s", changes[i].new, svg.markup);
        if (!strstr(err.message, "expected a figure of freqkv-analyze"))
            fail_msg("\"%s\": message \"%s\"", changes[i].new, err.message);
        fkv_text_list_free(&glyphs);
    }
    free(text);
}

/* Bytes changed at random: refused, or taken without anything that is not in the list of what a
 * figure has. */
static void a_damaged_figure_never_becomes_more_than_a_figure(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_svg svg;
    char *text = draw();
    size_t bytes = strlen(text);
    for (int i = 0; i < 300; i++) {
        struct fkv_text_list glyphs = {0};
        char *damaged = malloc(bytes);
        memcpy(damaged, text, bytes);
        bool cut = i % 3 == 0;
        size_t length = cut ? (size_t)test_between(0, (int)bytes - 8) : bytes;
        for (int k = 0; !cut && k < 3; k++)
            damaged[test_between(0, (int)bytes - 1)] = "<>/\"'=&\0 a#;("[test_between(0, 12)];
        put(damaged, length);
        if (!read_svg(&glyphs, &svg, &err)) {
            if (cut) fail_msg("%zu of %zu bytes were taken", length, bytes);
            if (strstr(svg.markup, "script") && !strstr(svg.markup, "&lt;"))
                fail_msg("script in %.200s", svg.markup);
            assert_null(strstr(svg.markup, " on"));
            assert_int_equal(count(svg.markup, "<svg"), 1);
            fkv_svg_free(&svg);
        }
        fkv_text_list_free(&glyphs);
        free(damaged);
    }
    free(text);
}

static void a_table_gives_back_what_was_written(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_table t;
    const char text[] = "name,x,y\r\n\"a, \"\"b\"\"\nc\",1.5,\r\n,-2e3,nan\nlast,,7";
    put(text, strlen(text));
    assert_ok(fkv_table_read(path, &t, &err), err);
    assert_int_equal(t.rows, 3);
    assert_int_equal(t.columns, 3);
    assert_int_equal(fkv_table_column(&t, "y"), 2);
    assert_int_equal(fkv_table_column(&t, "z"), -1);
    assert_string_equal(fkv_table_text(&t, 0, 0), "a, \"b\"\nc");
    assert_close(fkv_table_number(&t, 0, 1), 1.5, 0, 0);
    assert_true(isnan(fkv_table_number(&t, 0, 2)));
    assert_string_equal(fkv_table_text(&t, 1, 0), "");
    assert_close(fkv_table_number(&t, 1, 1), -2000, 0, 0);
    assert_close(fkv_table_number(&t, 2, 2), 7, 0, 0);
    fkv_table_free(&t);
    fkv_table_free(&t);
}

static void a_ragged_table_is_refused_by_row(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_table t;
    put("a,b\n1,2\n3\n", 10);
    assert_refused(fkv_table_read(path, &t, &err), err, "row 2: expected 2 cells, found 1");
    put("a,b\n1,2,3\n", 10);
    assert_refused(fkv_table_read(path, &t, &err), err, "row 1: expected 2 cells, found 3");
    put("a,b\n1,\0\n", 8);
    assert_refused(fkv_table_read(path, &t, &err), err, "expected text, found a NUL");
    put("", 0);
    assert_ok(fkv_table_read(path, &t, &err), err);
    assert_int_equal(t.rows, 0);
    fkv_table_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_figure_keeps_its_shapes_and_gets_ids_of_its_own, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_figure_that_could_do_anything_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_damaged_figure_never_becomes_more_than_a_figure, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_table_gives_back_what_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_ragged_table_is_refused_by_row, setup, teardown)};
    return test_run(tests, NULL, NULL);
}
