/* Figures' SVG files, read back: title and command come back as they were, bytes unchanged, and
 * what another program wrote is refused. */
#include "analyze/figure/figure.h"
#include "analyze/figure/svg_read.h"
#include "tests/unit/support.h"

static char path[300];
static const char title[] = "A title of <script> & \"quotes\" &lt;";

static int setup(void **state) {
    make_folder(state);
    snprintf(path, sizeof path, "%s/drawn.svg", folder);
    return 0;
}

/* Draws a figure with text, a line and a heat map. */
static void draw(const char *command) {
    struct fkv_figure *f;
    char base[300];
    const struct fkv_provenance provenance = {"0.0", "abc", command, "made"};
    const struct fkv_axis axis = {"x <&> \"x\"", FKV_FIT, FKV_FIT, .logarithmic = false};
    const struct fkv_line line = {.label = "line", .color = fkv_color_cycle(1), .width = 1};
    const int names[4] = {0, 1, 2, 3};
    double x[16], y[16];
    for (int i = 0; i < 16; i++) x[i] = i + 1, y[i] = test_normal();
    assert_ok(fkv_figure_create(5, 3, 1, 2, title, &f, &err));
    fkv_figure_axes(f, 0, "a", &axis, &axis);
    fkv_figure_line(f, 0, &line, 16, x, y);
    fkv_figure_axes(f, 1, "b", &axis, &axis);
    fkv_figure_heatmap(f, 1, 4, 4, y, names, names);
    fkv_figure_color_bar(f, &(struct fkv_color_bar){.low = -2, .high = 2, .top = 1});
    snprintf(base, sizeof base, "%s/drawn", folder);
    assert_ok(fkv_figure_write(f, base, &provenance, &err));
    fkv_figure_destroy(f);
}

TEST_WITH(title_command_and_bytes_come_back, setup, remove_folder) {
    static const char *const commands[] = {"freqkv-analyze spectrum 'a <b> & c' --out &amp;", ""};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct fkv_figure_svg svg;
        draw(commands[i]);
        assert_ok(fkv_figure_svg_read(path, &svg, &err));
        assert_string_equal(svg.title, title);
        assert_string_equal(svg.command, commands[i]);
        FILE *f = fopen(path, "rb");
        char *text = malloc(svg.bytes + 2);
        assert_non_null(f);
        assert_int_equal(fread(text, 1, svg.bytes + 2, f), svg.bytes);
        assert_memory_equal(text, svg.text, svg.bytes);
        assert_int_equal(svg.text[svg.bytes], 0);
        fclose(f);
        free(text);
        fkv_figure_svg_free(&svg);
        fkv_figure_svg_free(&svg);
    }
}

/* Replaces the first `old` in the drawn file. */
static void change(const struct fkv_figure_svg *svg, const char *old, const char *new) {
    const char *at = strstr(svg->text, old);
    assert_non_null(at);
    char *changed = malloc(svg->bytes + strlen(new) + 1);
    size_t before = (size_t)(at - svg->text);
    memcpy(changed, svg->text, before);
    strcpy(changed + before, new);
    strcat(changed, at + strlen(old));
    test_write_text(path, changed);
    free(changed);
}

TEST_WITH(what_another_program_wrote_is_refused, setup, remove_folder) {
    static const struct {
        const char *old, *new, *words;
    } changes[] = {{"FreqKV toolkit", "Another tool", "no mark of one"},
                   {"</metadata>", "</other>", "no mark of one"},
                   {"<title>", "<name>", "no title"},
                   {"</svg>", "</svg><script>alert(1)</script>", "no </svg> at its end"},
                   {"</svg>\n", "", "no </svg> at its end"}};
    struct fkv_figure_svg svg, other;
    draw("freqkv-analyze made");
    assert_ok(fkv_figure_svg_read(path, &svg, &err));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        change(&svg, changes[i].old, changes[i].new);
        assert_refused(fkv_figure_svg_read(path, &other, &err),
                       "drawn.svg: expected a figure of freqkv-analyze, found");
        assert_refused(fkv_figure_svg_read(path, &other, &err), changes[i].words);
        assert_null(other.text);
    }
    test_write_file(path, "", 0);
    assert_refused(fkv_figure_svg_read(path, &other, &err), "no mark of one");
    svg.text[svg.bytes / 2] = 0;
    test_write_file(path, svg.text, svg.bytes);
    assert_refused(fkv_figure_svg_read(path, &other, &err), "found a NUL");
    fkv_figure_svg_free(&svg);
}

/* Wherever a file ends, and whichever bytes of it are others: refused in words, or read whole. */
TEST_WITH(damaged_files_are_refused_or_read_whole, setup, remove_folder) {
    struct fkv_figure_svg svg, damaged;
    draw("freqkv-analyze made");
    assert_ok(fkv_figure_svg_read(path, &svg, &err));
    for (int i = 0; i < 300; i++) {
        bool cut = i % 3 == 0;
        size_t head = 1000, bytes = cut ? (size_t)test_between(0, (int)svg.bytes - 1) : svg.bytes;
        char *text = malloc(bytes + 1);
        memcpy(text, svg.text, bytes);
        for (int k = 0; !cut && k < 3; k++)
            text[test_between(0, (int)head)] = "<>/\"'=&\0 a#;("[test_between(0, 12)];
        test_write_file(path, text, bytes);
        if (!fkv_figure_svg_read(path, &damaged, &err)) {
            assert_false(cut);
            assert_int_equal(damaged.bytes, bytes);
            assert_memory_equal(damaged.text, text, bytes);
            fkv_figure_svg_free(&damaged);
        } else if (!strstr(err.message, "expected a figure of freqkv-analyze")) {
            fail_msg("message \"%s\"", err.message);
        }
        free(text);
    }
    fkv_figure_svg_free(&svg);
}
