/* The figure toolkit: bytes that repeat, provenance that reads back, and a layout that keeps every
 * text on the canvas and off the others, whatever the data. */
#include "../support.h"

#include <png.h>

#include "analyze/figure/figure.h"
#include "analyze/figure/parts.h"
#include "analyze/tables/text_clean.h"
#include "kernels/base/atomic_file.h"

enum { POINTS = 200 };

static const struct fkv_provenance provenance = {
    "0.0-test", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "freqkv-analyze spectrum \"a & b\" <c> --out d\u00e9", "models/some model"};

static const struct fkv_axis plain = {"x", FKV_FIT, FKV_FIT, .logarithmic = false};

static struct fkv_figure *make(double width, double height, int rows, int columns,
                               const char *title) {
    struct fkv_figure *f;
    assert_ok(fkv_figure_create(width, height, rows, columns, title, &f, &err));
    return f;
}

/* Lays out and paints without writing. */
static void paint(struct fkv_figure *f) {
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)f->width, (int)f->height);
    cairo_t *cr = cairo_create(surface);
    assert_string_equal(f->failure.message, "");
    int rc = fkv_figure_paint(f, cr, &err);
    cairo_destroy(cr);
    cairo_surface_destroy(surface);
    assert_ok(rc);
}

static void check_texts(const struct fkv_figure *f) {
    assert_true(f->text_count > 0);
    for (int i = 0; i < f->text_count; i++) {
        const struct fkv_text_box *t = &f->texts[i];
        if (t->box.x < 0 || t->box.y < 0 || t->box.x + t->box.width > f->width ||
            t->box.y + t->box.height > f->height)
            fail_msg("\"%s\" at (%.1f, %.1f) of size %.1f x %.1f leaves the canvas of %g x %g",
                     t->text, t->box.x, t->box.y, t->box.width, t->box.height, f->width, f->height);
        for (int k = 0; k < i; k++) {
            const struct fkv_text_box *u = &f->texts[k];
            double x =
                fmin(t->box.x + t->box.width, u->box.x + u->box.width) - fmax(t->box.x, u->box.x);
            double y =
                fmin(t->box.y + t->box.height, u->box.y + u->box.height) - fmax(t->box.y, u->box.y);
            if (x > 0 && y > 1)
                fail_msg("\"%s\" and \"%s\" overlap by %.1f x %.1f points", t->text, u->text, x, y);
        }
    }
}

/* A random line over [panel]: falling power, a walk, constant, zeros and negatives, NaN. */
static void add_random_line(struct fkv_figure *f, int panel, int index) {
    double x[POINTS], y[POINTS], high[POINTS], walk = 0, size = pow(10, test_between(-8, 8));
    int kind = test_between(0, 4), n = test_between(1, POINTS);
    for (int i = 0; i < n; i++) {
        x[i] = i / (2.0 * POINTS);
        walk += test_normal();
        y[i] = size * (kind == 0   ? pow(i + 1, -1.2) * (0.5 + test_uniform())
                       : kind == 1 ? walk
                       : kind == 2 ? 1
                       : kind == 3 ? test_between(-1, 1)
                                   : NAN);
        if (test_between(0, 19) == 0) y[i] = NAN;
        high[i] = y[i] + fabs(y[i]) * 0.1;
    }
    char label[32];
    snprintf(label, sizeof label, "line %d of a kind", index);
    struct fkv_line style = {
        .label = label, .color = fkv_color_cycle(index), .width = 1, .dashed = index % 2};
    fkv_figure_line(f, panel, &style, n, x, y);
    fkv_figure_band(f, panel, NULL, (struct fkv_color){0, 0, 1, 0.2}, n, x, y, high);
}

static struct fkv_figure *make_random(void) {
    int rows = test_between(1, 4), columns = test_between(1, 4);
    struct fkv_figure *f =
        make(2.2 * columns + 1.5, 1.6 * rows + 2, rows, columns, "A title of several words");
    bool share = test_between(0, 1), log_x = test_between(0, 1), log_y = test_between(0, 1),
         top = test_between(0, 1);
    if (share) fkv_figure_share_axes(f);
    struct fkv_axis x = {"frequency (cycles per token)", FKV_FIT, FKV_FIT, .logarithmic = log_x,
                         .zero = log_x};
    if (top && !share) x.top_label = "t", x.top_scale = 2.0 * POINTS;
    struct fkv_axis y = {"power per channel (DCT-II, orthonormal)", FKV_FIT, FKV_FIT,
                         .logarithmic = log_y};
    for (int p = 0; p < rows * columns - test_between(0, columns - 1); p++) {
        fkv_figure_axes(f, p, "panel", &x, &y);
        for (int i = test_between(0, 4); i > 0; i--) add_random_line(f, p, i);
    }
    if (test_between(0, 1)) {
        struct fkv_color_bar bar = {
            .label = "layer", .low = 0, .high = test_between(1, 80), .top = 0.9, .integers = true};
        fkv_figure_color_bar(f, &bar);
    }
    if (test_between(0, 1))
        fkv_figure_note(
            f, "A note that is long enough to be wrapped in narrow figures, if they are narrow.");
    return f;
}

TEST(every_text_stays_on_the_canvas_and_off_the_others) {
    for (int trial = 0; trial < 200; trial++) {
        struct fkv_figure *f = make_random();
        paint(f);
        check_texts(f);
        fkv_figure_destroy(f);
    }
}

static void read_file(const char *folder, const char *name, char **data, size_t *bytes) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_ok(fkv_read_file(path, 64 << 20, data, bytes, &err));
}

TEST_IN_FOLDER(the_same_figure_has_the_same_bytes) {
    char base[300];
    struct fkv_figure *f = make_random();
    for (int i = 0; i < 2; i++) {
        snprintf(base, sizeof base, "%s/%d", folder, i);
        assert_ok(fkv_figure_write(f, base, &provenance, &err));
        struct fkv_figure *other = make_random(); /* what is drawn in between leaves no trace */
        paint(other);
        fkv_figure_destroy(other);
    }
    fkv_figure_destroy(f);
    static const char *const names[2][2] = {{"0.png", "1.png"}, {"0.svg", "1.svg"}};
    for (int i = 0; i < 2; i++) {
        char *a, *b;
        size_t na, nb;
        read_file(folder, names[i][0], &a, &na);
        read_file(folder, names[i][1], &b, &nb);
        assert_int_equal(na, nb);
        assert_memory_equal(a, b, na);
        free(a), free(b);
    }
}

static const char *chunk(const png_text *text, int count, const char *key) {
    for (int i = 0; i < count; i++)
        if (!strcmp(text[i].key, key)) return text[i].text;
    return "(absent)";
}

TEST_IN_FOLDER(a_png_says_where_it_came_from) {
    char path[300];
    struct fkv_figure *f = make(3, 2, 1, 1, "Title");
    fkv_figure_axes(f, 0, NULL, &plain, &plain);
    snprintf(path, sizeof path, "%s/a", folder);
    assert_ok(fkv_figure_write(f, path, &provenance, &err));
    fkv_figure_destroy(f);

    snprintf(path, sizeof path, "%s/a.png", folder);
    FILE *stream = fopen(path, "rb");
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    assert_non_null(stream);
    assert_int_equal(setjmp(png_jmpbuf(png)), 0);
    png_init_io(png, stream);
    png_read_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    assert_int_equal(png_get_image_width(png, info), 900);
    assert_int_equal(png_get_image_height(png, info), 600);
    assert_int_equal(png_get_pixels_per_inch(png, info), 300);
    png_textp text;
    int count = png_get_text(png, info, &text, NULL);
    png_timep time;
    assert_false(png_get_tIME(png, info, &time));
    assert_string_equal(chunk(text, count, "Title"), "Title");
    assert_string_equal(chunk(text, count, "Software"), "FreqKV toolkit 0.0-test");
    assert_string_equal(chunk(text, count, "Source"), provenance.capture_sha256);
    assert_string_equal(chunk(text, count, "Command"), provenance.command);
    assert_string_equal(chunk(text, count, "Model"), provenance.model);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(stream);

    char *svg;
    size_t bytes;
    read_file(folder, "a.svg", &svg, &bytes);
    assert_non_null(strstr(svg, provenance.capture_sha256));
    assert_non_null(strstr(
        svg, "freqkv-analyze spectrum \"a &amp; b\" &lt;c&gt; --out d\u00e9</dc:description>"));
    assert_non_null(strstr(svg, "<title>Title</title>"));
    free(svg);
}

TEST(a_log_axis_skips_zeros_and_negatives_and_strips_x_zero) {
    const struct fkv_axis x = {"x", FKV_FIT, FKV_FIT, .logarithmic = true, .zero = true};
    const struct fkv_axis y = {"y", FKV_FIT, FKV_FIT, .logarithmic = true};
    const double xs[] = {0, 0.01, 0.1, -1, 1}, ys[] = {1e4, 100, 0, 5, 1};
    struct fkv_figure *f = make(4, 3, 1, 1, NULL);
    fkv_figure_axes(f, 0, NULL, &x, &y);
    struct fkv_line style = {.color = fkv_color_cycle(0), .width = 1, .markers = true};
    fkv_figure_line(f, 0, &style, 5, xs, ys);
    paint(f);
    const struct fkv_panel *p = &f->panels[0];
    assert_true(p->sx.zero && p->sx.low > 0.005 && p->sx.low < 0.01 && p->sx.high > 1 &&
                p->sx.high < 2);
    assert_true(p->sy.low > 0.1 && p->sy.low < 1 && p->sy.high > 1e4);
    assert_true(fkv_scale_at(&p->sx, 0) > p->box.x && fkv_scale_at(&p->sx, 0) < p->sx.from);
    assert_true(fkv_scale_at(&p->sx, 0.01) > p->sx.from);
    assert_true(isnan(fkv_scale_at(&p->sx, -1)) && isnan(fkv_scale_at(&p->sy, 0)));
    assert_string_equal(p->tx.label[0], "0");
    check_texts(f);
    fkv_figure_destroy(f);
}

/* Pixels that are neither white nor grey in the middle of a painted panel. */
static int colored_pixels(struct fkv_figure *f) {
    int width = (int)f->width, height = (int)f->height, count = 0;
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    cairo_t *cr = cairo_create(surface);
    assert_ok(fkv_figure_paint(f, cr, &err));
    cairo_surface_flush(surface);
    const unsigned char *data = cairo_image_surface_get_data(surface);
    for (int i = 0; i < width * height; i++) {
        const unsigned char *q =
            data + (size_t)(i / width) * (size_t)cairo_image_surface_get_stride(surface) +
            4 * (i % width);
        count += abs(q[0] - q[1]) > 60 || abs(q[1] - q[2]) > 60;
    }
    cairo_destroy(cr);
    cairo_surface_destroy(surface);
    return count;
}

TEST(nan_breaks_a_line_and_nothing_but_nan_draws_nothing) {
    int found[3];
    for (int kind = 0; kind < 3; kind++) { /* whole, the middle half missing, all missing */
        double x[100], y[100];
        for (int i = 0; i < 100; i++)
            x[i] = i, y[i] = kind == 2 || (kind == 1 && i >= 25 && i < 75) ? NAN : 5;
        struct fkv_figure *f = make(4, 3, 1, 1, NULL);
        fkv_figure_axes(f, 0, NULL, &plain, &plain);
        struct fkv_line style = {.color = {1, 0, 0, 1}, .width = 2};
        fkv_figure_line(f, 0, &style, 100, x, y);
        found[kind] = colored_pixels(f);
        check_texts(f);
        fkv_figure_destroy(f);
    }
    assert_int_equal(found[2], 0);
    if (!(found[1] > 0.4 * found[0] && found[1] < 0.6 * found[0]))
        fail_msg("half a line has %d pixels, the whole %d", found[1], found[0]);
}

TEST(constant_data_get_an_axis_around_them) {
    static const double values[] = {0, 1, -3, 1e-12, 1e9, 1e300};
    for (size_t i = 0; i < 6; i++)
        for (int logarithmic = 0; logarithmic < 2; logarithmic++) {
            const double x[2] = {1, 1}, y[2] = {values[i], values[i]};
            const struct fkv_axis axis = {"v", FKV_FIT, FKV_FIT, .logarithmic = logarithmic};
            struct fkv_figure *f = make(3, 2.5, 1, 1, NULL);
            fkv_figure_axes(f, 0, NULL, &axis, &axis);
            struct fkv_line style = {.color = fkv_color_cycle(0), .width = 1};
            fkv_figure_line(f, 0, &style, 2, x, y);
            paint(f);
            const struct fkv_scale *s = &f->panels[0].sy;
            if (values[i] > 0 || !logarithmic)
                assert_true(s->low < values[i] && s->high > values[i]);
            check_texts(f);
            fkv_figure_destroy(f);
        }
}

TEST(a_legend_covers_no_data) {
    for (int trial = 0; trial < 50; trial++) {
        struct fkv_figure *f = make(3.5, 3, 1, 1, NULL);
        double x[POINTS], y[POINTS];
        fkv_figure_axes(f, 0, NULL, &plain, &plain);
        for (int i = 0; i < POINTS;
             i++) { /* a parabola, or a cloud: a point anywhere in each cell of a grid */
            int cell = 61 * i % POINTS, columns = 10;
            x[i] = trial % 2 ? test_uniform() : (cell % columns + test_uniform()) / columns;
            y[i] = trial % 2 ? x[i] * x[i] : (cell / columns + test_uniform()) * columns / POINTS;
        }
        struct fkv_line style = {.label = "some data", .color = fkv_color_cycle(0), .width = 1};
        fkv_figure_line(f, 0, &style, POINTS, x, y);
        paint(f);
        const struct fkv_box *b = &f->legend.box, *p = &f->panels[0].box;
        assert_int_equal(f->legend.outside,
                         trial % 2 == 0); /* a parabola leaves corners free, a cloud does not */
        for (int i = 0; i < POINTS; i++) {
            double u = fkv_scale_at(&f->panels[0].sx, x[i]),
                   v = fkv_scale_at(&f->panels[0].sy, y[i]);
            if (u > b->x && u < b->x + b->width && v > b->y && v < b->y + b->height)
                fail_msg("point %d at (%g, %g) lies under the legend", i, u, v);
        }
        if (f->legend.outside) assert_true(b->y > p->y + p->height);
        check_texts(f);
        fkv_figure_destroy(f);
    }
}

/* One marked cell: the rest of the map looks empty to a count of points, and is data. */
TEST(a_legend_covers_no_cell_of_a_map) {
    const double values[4] = {0, 1, 2, 3}, x = 0.2, y = 1;
    const int names[2] = {0, 1};
    struct fkv_figure *f = make(4, 3, 1, 1, NULL);
    struct fkv_line mark = {.label = "a mark", .width = 1, .markers = true, .scattered = true};
    fkv_figure_axes(f, 0, NULL, &plain, &plain);
    fkv_figure_heatmap(f, 0, 2, 2, values, names, names);
    fkv_figure_color_bar(f, &(struct fkv_color_bar){.low = 0, .high = 3, .top = 1});
    fkv_figure_line(f, 0, &mark, 1, &x, &y);
    paint(f);
    assert_true(f->legend.outside);
    assert_true(f->legend.box.y > f->panels[0].box.y + f->panels[0].box.height);
    check_texts(f);
    fkv_figure_destroy(f);
}

TEST(a_page_of_no_size_is_refused) {
    struct fkv_figure *f = NULL;
    assert_refused(fkv_figure_create(0.5, 3, 1, 1, NULL, &f, &err),
                   "expected sides of 1 to 50 inches");
    assert_refused(fkv_figure_create(NAN, 3, 1, 1, NULL, &f, &err), "expected sides");
    assert_refused(fkv_figure_create(3, 3, 0, 1, NULL, &f, &err), "rows and columns");
    assert_null(f);
}

/* Each is said when the figure is to be written; of several the first. */
TEST_IN_FOLDER(what_cannot_be_drawn_is_refused) {
    static const char *const messages[] = {"expected a panel in [0, 2), found 2", "found -1",
                                           "at least one point", "logarithmic axis above 0",
                                           "rises"};
    const double one = 1;
    const struct fkv_line style = {.width = 1};
    const struct fkv_axis bad = {"x", 0, 1, .logarithmic = true};
    const struct fkv_color_bar flat = {.low = 1, .high = 1};
    char base[300];
    snprintf(base, sizeof base, "%s/figure", folder);
    for (int first = 0; first < 5; first++) {
        struct fkv_figure *f = make(3, 3, 1, 2, NULL);
        if (first <= 0) fkv_figure_axes(f, 2, NULL, &plain, &plain);
        if (first <= 1) fkv_figure_line(f, -1, &style, 1, &one, &one);
        if (first <= 2) fkv_figure_line(f, 0, &style, 0, &one, &one);
        if (first <= 3) fkv_figure_axes(f, 0, NULL, &bad, &plain);
        fkv_figure_color_bar(f, &flat);
        assert_refused(fkv_figure_write(f, base, &provenance, &err), messages[first]);
        fkv_figure_destroy(f);
    }
    snprintf(base, sizeof base, "%s/figure.png", folder);
    assert_int_not_equal(access(base, F_OK), 0);
    fkv_figure_destroy(NULL);
}

TEST_IN_FOLDER(a_folder_that_is_not_there_leaves_nothing) {
    char base[300];
    struct fkv_figure *f = make(3, 3, 1, 1, NULL);
    snprintf(base, sizeof base, "%s/absent/figure", folder);
    assert_refused(fkv_figure_write(f, base, &provenance, &err), "absent/figure.png");
    /* A folder stands where the SVG should go: said by name, and no temporary stays behind. */
    char blocker[640];
    snprintf(blocker, sizeof blocker, "mkdir '%s/figure.svg' && touch '%s/figure.svg/x'", folder,
             folder);
    assert_int_equal(system(blocker), 0);
    snprintf(base, sizeof base, "%s/figure", folder);
    assert_refused(fkv_figure_write(f, base, &provenance, &err), "figure.svg");
    snprintf(blocker, sizeof blocker, "test -z \"$(find '%s' -name '*tmp*')\"", folder);
    assert_int_equal(system(blocker), 0);
    fkv_figure_destroy(f);
}

TEST(a_missing_font_says_what_to_install) {
    struct fkv_figure *f = NULL;
    setenv("FKV_FONT", "/nonexistent/font.ttf", 1);
    int rc = fkv_figure_create(3, 3, 1, 1, NULL, &f, &err);
    setenv("FKV_FONT", "/dev/null", 1);
    struct fkv_error second = {0};
    int rc2 = fkv_figure_create(3, 3, 1, 1, NULL, &f, &second);
    unsetenv("FKV_FONT");
    assert_int_equal(rc, FKV_FAILED);
    assert_int_equal(rc2, FKV_FAILED);
    assert_null(f);
    assert_non_null(strstr(err.message, "/nonexistent/font.ttf (from FKV_FONT)"));
    assert_non_null(strstr(err.message, "fonts-dejavu-core"));
}

TEST(text_of_any_bytes_becomes_valid) {
    static const char *const cases[][2] = {{"a\xff"
                                            "b",
                                            "a?b"},
                                           {"\xc0\xaf", "??"},
                                           {"\xe2\x88", "??"},
                                           {"x\n\ty\x01", "x  y?"},
                                           {"\u03b3\u2212", "\u03b3\u2212"},
                                           {"\xed\xa0\x80", "???"},
                                           {"\xf4\x90\x80\x80", "????"},
                                           {"\uffff", "???"}, /* never a character */
                                           {"\ufdd0x", "???x"},
                                           {"\U0001fffe", "????"},
                                           {"\ufffd", "\ufffd"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *clean = fkv_text_clean(cases[i][0]);
        assert_string_equal(clean, cases[i][1]);
        free(clean);
    }
    for (int trial = 0; trial < 50; trial++) { /* and cairo takes it as a title */
        char bytes[64];
        for (int i = 0; i < 63; i++) bytes[i] = (char)test_between(1, 255);
        bytes[63] = 0;
        struct fkv_figure *f = make(3, 3, 1, 1, bytes);
        paint(f);
        fkv_figure_destroy(f);
    }
}

TEST(an_axis_of_whole_numbers_has_no_others) {
    for (int most = 1; most <= 12; most++) {
        struct fkv_figure *f = make(5, 3, 1, 1, "whole");
        double x[12], y[12];
        for (int i = 0; i < most; i++) x[i] = i + 1, y[i] = test_between(0, 3);
        const struct fkv_axis axis = {
            .label = "round", .low = FKV_FIT, .high = FKV_FIT, .integers = true};
        const struct fkv_line line = {
            .color = fkv_color_cycle(0), .width = 1, .markers = test_between(0, 1)};
        fkv_figure_axes(f, 0, NULL, &axis, &axis);
        fkv_figure_line(f, 0, &line, most, x, y);
        paint(f);
        for (int i = 0; i < f->text_count; i++)
            if (strchr(f->texts[i].text, '.'))
                fail_msg("of 1 to %d there is a tick %s", most, f->texts[i].text);
        fkv_figure_destroy(f);
    }
}
