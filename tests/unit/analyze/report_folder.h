/* A folder of findings made for a report, and what tests look for in the report. */
#ifndef FKV_TESTS_REPORT_FOLDER_H
#define FKV_TESTS_REPORT_FOLDER_H

#include <sys/stat.h>

#include "analyze/figure/figure.h"
#include "analyze/report/report.h"
#include "capture/store/h5.h"
#include "kernels/base/atomic_file.h"
#include "tests/unit/support.h"

static const char *model; /* of the next results.h5 */

static inline int setup(void **state) {
    make_folder(state);
    model = "made";
    return 0;
}

enum { LAYERS = 2, HEADS = 3, ROWS = LAYERS * HEADS, N = 64, GAMMAS = 3 };

static inline void path_of(char path[400], const char *name) {
    snprintf(path, 400, "%s/%s", folder, name);
}

static inline void put_file(const char *name, const char *text) {
    char path[400];
    path_of(path, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline void put(struct fkv_h5_writer *w, const char *name, enum fkv_h5_type type, int rank,
                       const int64_t *dims, const void *data) {
    assert_ok(fkv_h5_put(w, name, type, rank, dims, data, &err));
}

/* Power falls as t^-slope beside a flat null of the same energy; `exceptions` heads are flat. null
 * false: none. */
static inline void put_spectrum(struct fkv_h5_writer *w, const char *state, double slope,
                                int exceptions, bool null) {
    static const int32_t layers[LAYERS] = {0, 7}, heads[HEADS] = {0, 1, 4};
    static double power[ROWS][N], flat[ROWS][N];
    const int64_t dims[] = {LAYERS, HEADS, N};
    char name[64];
    for (int row = 0; row < ROWS; row++)
        for (int t = 0; t < N; t++) {
            power[row][t] = t ? pow(t, row < exceptions ? 0 : -slope) : 50;
            flat[row][t] = t ? 1 : 50;
        }
    snprintf(name, sizeof name, "/spectrum/%s/power", state);
    put(w, name, FKV_H5_F64, 3, dims, power);
    snprintf(name, sizeof name, "/spectrum/%s/power_null", state);
    if (null) put(w, name, FKV_H5_F64, 3, dims, flat);
    snprintf(name, sizeof name, "/spectrum/%s/layer_index", state);
    put(w, name, FKV_H5_I32, 1, dims, layers);
    snprintf(name, sizeof name, "/spectrum/%s/head_index", state);
    put(w, name, FKV_H5_I32, 1, dims + 1, heads);
}

static inline void put_errors(struct fkv_h5_writer *w, const char *state) {
    static const char *const names[] = {"retained_energy", "retained_energy_no_dc",
                                        "relative_error", "relative_error_no_dc"};
    static const int32_t layers[LAYERS] = {0, 7};
    static const double gamma[GAMMAS] = {0.25, 0.5, 0.75};
    const int64_t dims[] = {LAYERS, HEADS, GAMMAS};
    double values[ROWS * GAMMAS];
    char name[64];
    for (int i = 0; i < ROWS * GAMMAS; i++) values[i] = i == 4 ? NAN : 0.375;
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "/error/%s/%s", state, names[i]);
        put(w, name, FKV_H5_F64, 3, dims, values);
    }
    snprintf(name, sizeof name, "/error/%s/gamma", state);
    put(w, name, FKV_H5_F64, 1, dims + 2, gamma);
    snprintf(name, sizeof name, "/error/%s/layer_index", state);
    put(w, name, FKV_H5_I32, 1, dims, layers);
}

static inline struct fkv_h5_writer *begin_results(void) {
    struct fkv_h5_writer *w;
    char path[400];
    path_of(path, "results.h5");
    unlink(path);
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-results", &err));
    assert_ok(fkv_h5_put_string(w, "/", "model", model, &err));
    assert_ok(fkv_h5_put_string(w, "/", "capture_sha256", "0123abc", &err));
    assert_ok(fkv_h5_put_int(w, "/", "segment_length", N, &err));
    return w;
}

static inline void finish_results(struct fkv_h5_writer *w) { assert_ok(fkv_h5_commit(w, &err)); }

static inline void put_spectrum_csv(void) {
    char path[400];
    path_of(path, "spectrum.csv");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_null,excess,energy_"
          "share,energy_share_no_dc\n",
          f);
    for (int row = 0; row < ROWS; row++)
        for (int t = 0; t < 5; t++)
            fprintf(f, "key,%d,%d,%d,%d,%g,%g,0.1,1,1,0.1,0.1\n", row < HEADS ? 0 : 7,
                    (int[]){0, 1, 4}[row % HEADS], t, t + 1, t / 128.0, row + 1.0 / (t + 1));
    fclose(f);
}

/* A figure whose title is its name. */
static inline void put_figure(const char *name) {
    struct fkv_figure *f;
    char base[400];
    const struct fkv_axis axis = {"x", 0, 1, .logarithmic = false};
    const struct fkv_provenance p = {"0.0", "abc", "freqkv-analyze made", "made"};
    assert_ok(fkv_figure_create(3, 3, 1, 1, name, &f, &err));
    fkv_figure_axes(f, 0, NULL, &axis, &axis);
    path_of(base, name);
    assert_ok(fkv_figure_write(f, base, &p, &err));
    fkv_figure_destroy(f);
}

/* Writes the report; its text, malloc'd. */
static inline char *write_report(struct fkv_report_outline *o) {
    assert_ok(fkv_report_write(folder, o, &err));
    char *text = calloc(1, (size_t)o->bytes + 1);
    FILE *f = fopen(o->path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(text, 1, (size_t)o->bytes + 1, f), o->bytes);
    fclose(f);
    return text;
}

static inline void assert_list(const struct fkv_text_list *list, const char *const *expected) {
    int n = 0;
    for (; expected[n]; n++)
        if (n >= list->count || strcmp(list->text[n], expected[n]))
            fail_msg("entry %d: expected %s, found %s", n, expected[n],
                     n < list->count ? list->text[n] : "none");
    assert_int_equal(list->count, n);
}

static inline bool said(const struct fkv_report_outline *o, const char *words) {
    for (int i = 0; i < o->summary.count; i++)
        if (strstr(o->summary.text[i], words)) return true;
    return false;
}

static inline void assert_said(const struct fkv_report_outline *o, const char *words) {
    if (said(o, words)) return;
    for (int i = 0; i < o->summary.count; i++) printf("  %s\n", o->summary.text[i]);
    fail_msg("no sentence says \"%s\"", words);
}

static inline int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}

#endif
