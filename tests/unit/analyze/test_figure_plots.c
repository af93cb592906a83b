/* The analyzer's figures over findings of every size: written, whole (nothing cut off at an edge),
 * and the same to the byte on every run. */
#include "../support.h"

#include <png.h>
#include <unistd.h>

#include "analyze/measure/averages.h"
#include "analyze/measure/depth.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"
#include "kernels/base/atomic_file.h"

static const struct fkv_provenance provenance = {"0.0-test", "00ff", "freqkv-analyze",
                                                 "a/model/folder/"};

struct findings {
    struct fkv_spectrum spectrum;
    struct fkv_error_curves error;
};

static double *doubles(struct fkv_memory *m, size_t n) {
    double *p = fkv_memory_take(m, n, sizeof *p);
    assert_non_null(p);
    return p;
}

static int32_t *ascending(struct fkv_memory *m, int n) {
    int32_t *p = fkv_memory_take(m, (size_t)n, sizeof *p);
    assert_non_null(p);
    for (int i = 0, v = test_between(0, 3); i < n; i++, v += test_between(1, 3)) p[i] = v;
    return p;
}

/* Power laws over five decades with the scatter of a few averaged squares; `broken`: zeros and NaN
 * among them. */
static void make_findings(struct findings *f, int layers, int heads, int n, int gammas, bool null,
                          bool broken) {
    size_t curves = (size_t)layers * (size_t)heads, values = curves * (size_t)n,
           points = curves * (size_t)gammas;
    struct fkv_spectrum *s = &f->spectrum;
    *s = (struct fkv_spectrum){.state = (enum fkv_state)test_between(0, FKV_STATES - 1),
                               .layers = layers,
                               .heads = heads,
                               .n = n};
    s->documents = test_between(1, 30), s->segments = test_between(1, 1000);
    s->layer_index = ascending(&s->memory, layers), s->head_index = ascending(&s->memory, heads);
    s->power = doubles(&s->memory, values), s->power_se = doubles(&s->memory, values),
    s->null = null ? doubles(&s->memory, values) : NULL;
    s->rounding_floor = doubles(&s->memory, curves),
    s->band_se = doubles(&s->memory, curves * FKV_BANDS);
    s->band_edge = fkv_memory_take(&s->memory, FKV_BANDS + 1, sizeof *s->band_edge);
    assert_non_null(s->band_edge);
    s->bands = fkv_band_edges(n, s->band_edge);
    for (size_t i = 0; i < curves * FKV_BANDS; i++) s->band_se[i] = broken ? NAN : test_uniform();
    for (size_t i = 0; i < curves; i++) {
        double amplitude = pow(10, 2 * test_uniform()), slope = 0.8 + 0.8 * test_uniform();
        s->rounding_floor[i] = amplitude * 1e-5;
        for (int t = 0; t < n; t++) {
            double *p = &s->power[i * (size_t)n + (size_t)t];
            *p = amplitude * pow(t + 0.3, -slope) * (0.5 + test_uniform());
            if (broken && test_between(0, 9) == 0) *p = test_between(0, 1) ? 0 : NAN;
            s->power_se[i * (size_t)n + (size_t)t] = broken ? NAN : *p * 0.2;
            if (null) s->null[i * (size_t)n + (size_t)t] = amplitude * 0.01;
        }
    }
    struct fkv_error_curves *e = &f->error;
    *e = (struct fkv_error_curves){
        .state = s->state, .layers = layers, .heads = heads, .n = n, .gammas = gammas};
    e->layer_index = s->layer_index, e->head_index = s->head_index;
    e->gamma = doubles(&e->memory, (size_t)gammas), e->floor = doubles(&e->memory, curves);
    for (int g = 0; g < gammas; g++) e->gamma[g] = (g + 1.0) / (gammas + 1);
    for (size_t i = 0; i < curves; i++) e->floor[i] = broken ? NAN : 1e-3;
    e->curve = fkv_memory_take(&e->memory, 2 * (size_t)fkv_measure_count, sizeof *e->curve);
    assert_non_null(e->curve);
    for (int d = 0; d < 2; d++) {
        double *energy = doubles(&e->memory, points), *error = doubles(&e->memory, points);
        e->curve[2 * FKV_RETAINED_ENERGY + d] = energy;
        e->curve[2 * FKV_RELATIVE_ERROR + d] = error;
        for (size_t i = 0; i < points; i++) {
            double kept = 1 - pow(1 - e->gamma[i % (size_t)gammas], 2) * test_uniform();
            energy[i] = broken ? NAN : kept;
            error[i] = broken ? NAN : sqrt(1 - kept);
        }
    }
}

static void free_findings(struct findings *f) {
    fkv_error_curves_free(&f->error);
    fkv_spectrum_free(&f->spectrum);
}

static void draw(const struct findings *f, const char *folder) {
    struct fkv_plot_target to = {.folder = folder, .provenance = &provenance};
    for (const struct fkv_figure_row *row = fkv_figures; row->files; row++) {
        if (row->spectrum) assert_ok(row->spectrum(&f->spectrum, &to, &err));
        if (row->errors) assert_ok(row->errors(&f->error, &to, &err));
    }
    const bool deep = f->spectrum.layers >= FKV_COURSE_LAYERS;
    const int maps = deep && f->spectrum.null && f->spectrum.bands > 1;
    assert_int_equal(to.figures, 4 + deep + maps); /* without the KLT, none of it */
}

/* The last two are of deep models; the last needs the null. */
static const char *const names[] = {"spectrum",      "spectrum_heads", "error",
                                    "error_heatmap", "spectrum_depth", "spectrum_map"};
enum { NAMES = sizeof names / sizeof *names };

/* What leaves the canvas is cut at its edge, so it inks the edge: a ring of four pixels must be
 * white, and the rest must not. */
static void check_edges(const char *path) {
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&image, path)) fail_msg("%s: %s", path, image.message);
    image.format = PNG_FORMAT_GRAY;
    unsigned char *pixels = malloc(PNG_IMAGE_SIZE(image));
    assert_non_null(pixels);
    if (!png_image_finish_read(&image, NULL, pixels, 0, NULL))
        fail_msg("%s: %s", path, image.message);
    int width = (int)image.width, height = (int)image.height, inked = 0;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            bool edge = x < 4 || y < 4 || x >= width - 4 || y >= height - 4;
            if (pixels[y * width + x] == 255) continue;
            if (edge)
                fail_msg("%s: ink at the edge, (%d, %d) of %d x %d", path, x, y, width, height);
            inked++;
        }
    assert_true(inked > 1000);
    free(pixels);
}

static void check_figures(enum fkv_state state, const char *folder) {
    for (size_t i = 0; i < NAMES; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s_%s.png", folder, names[i], fkv_state_names[state]);
        if (i >= 4 && access(path, F_OK)) continue; /* counted by draw */
        check_edges(path);
        snprintf(path, sizeof path, "%s/%s_%s.svg", folder, names[i], fkv_state_names[state]);
        assert_int_equal(access(path, R_OK), 0);
    }
}

TEST(figures_of_every_size_are_whole) {
    static const int sizes[][4] = {{1, 1, 2, 1},    {1, 1, 8, 3},     {2, 9, 31, 9},
                                   {5, 3, 409, 19}, {17, 2, 100, 50}, {80, 8, 64, 9}};
    const size_t last = sizeof sizes / sizeof *sizes - small_sizes(); /* the largest takes long */
    for (size_t i = 0; i < last; i++) {
        struct findings f;
        char folder[256];
        test_make_folder(folder);
        make_findings(&f, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], test_between(0, 1),
                      false);
        draw(&f, folder);
        check_figures(f.spectrum.state, folder);
        free_findings(&f);
        test_remove_folder(folder);
    }
}

TEST_IN_FOLDER(zeros_and_nan_among_the_findings_are_drawn_around) {
    struct findings f;
    make_findings(&f, 3, 2, 200, 9, true, true);
    draw(&f, folder);
    check_figures(f.spectrum.state, folder);
    free_findings(&f);
}

TEST(drawing_twice_gives_the_same_bytes) {
    struct findings f;
    char first[256], second[256];
    const char *const folder[2] = {test_make_folder(first), test_make_folder(second)};
    make_findings(&f, 4, 2, 500, 9, true, false);
    for (int i = 0; i < 2; i++) draw(&f, folder[i]);
    for (int k = 0; k < 2 * NAMES; k++) {
        char path[512], *data[2];
        size_t bytes[2];
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "%s/%s_%s.%s", folder[i], names[k / 2],
                     fkv_state_names[f.spectrum.state], k % 2 ? "svg" : "png");
            assert_ok(fkv_read_file(path, 64 << 20, &data[i], &bytes[i], &err));
        }
        if (bytes[0] != bytes[1] || memcmp(data[0], data[1], bytes[0]))
            fail_msg("%s differs", path);
        free(data[0]), free(data[1]);
    }
    free_findings(&f);
    test_remove_folder(first);
    test_remove_folder(second);
}

TEST(an_absent_folder_is_named) {
    struct findings f;
    struct fkv_plot_target to = {.folder = "/nonexistent/folder", .provenance = &provenance};
    make_findings(&f, 1, 1, 16, 3, false, false);
    assert_refused(fkv_plot_spectrum(&f.spectrum, &to, &err), "/nonexistent/folder/spectrum_");
    assert_refused(fkv_plot_error_heatmap(&f.error, &to, &err),
                   "/nonexistent/folder/error_heatmap_");
    free_findings(&f);
}

TEST(numbers_are_set_as_in_print) {
    char text[FKV_PLOT_NUMBER];
    assert_string_equal(fkv_plot_number(text, 3.5e-7, 2), "3.5\u00d710^{\u22127}");
    assert_string_equal(fkv_plot_number(text, -0.00634, 2), "\u22120.0063");
    assert_string_equal(fkv_plot_number(text, 2e12, 3), "2\u00d710^{12}");
    assert_string_equal(fkv_plot_fixed(text, -0.917, 2), "\u22120.92");
    assert_string_equal(fkv_plot_fixed(text, -0.004, 2), "0.00");
}
