/* Owns the drawing of points with intervals (plots/charts.h). Series that share an axis of names
 * stand side by side around a name's position, so that whiskers do not cover each other. */
#include "analyze/plots/charts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/csv.h"

static const struct fkv_color level_color = {0.45, 0.45, 0.45, 1};

void fkv_charts_close(struct fkv_charts *c) {
    for (int i = 0; i < c->panels; i++) {
        struct fkv_chart *chart = &c->chart[i];
        free(chart->title), free(chart->x_label), free(chart->y_label);
        for (int k = 0; k < chart->names; k++) free(chart->name[k]);
        for (int s = 0; s < chart->series; s++)
            free(chart->one[s].label), free(chart->one[s].x), free(chart->one[s].y);
    }
    c->panels = 0;
}

static char *copy(struct fkv_chart *c, const char *text) {
    char *out = strdup(text ? text : "");
    if (!out) c->failed = true;
    return out;
}

struct fkv_chart *fkv_charts_panel(struct fkv_charts *c, const char *title, const char *x_label,
                                   const char *y_label) {
    struct fkv_chart *chart = &c->chart[c->panels++];
    *chart = (struct fkv_chart){.level = NAN};
    chart->title = copy(chart, title);
    chart->x_label = copy(chart, x_label), chart->y_label = copy(chart, y_label);
    return chart;
}

int fkv_chart_name(struct fkv_chart *c, const char *name) {
    for (int i = 0; i < c->names; i++)
        if (c->name[i] && !strcmp(c->name[i], name)) return i;
    if (c->names == FKV_CHARTS_NAMES) return -1;
    c->name[c->names] = copy(c, name);
    return c->names++;
}

struct fkv_chart_series *fkv_chart_add(struct fkv_chart *c, const char *series,
                                       struct fkv_color color, enum fkv_chart_look look, double x,
                                       struct fkv_interval y) {
    struct fkv_chart_series *s = c->one;
    while (s < c->one + c->series && s->label && strcmp(s->label, series)) s++;
    if (s == c->one + c->series) {
        if (c->series == FKV_CHARTS_SERIES) return NULL;
        *s = (struct fkv_chart_series){.label = copy(c, series), .color = color, .look = look};
        c->series++;
    }
    if (s->count == s->capacity) {
        int capacity = s->capacity ? 2 * s->capacity : 16;
        double *xs = realloc(s->x, (size_t)capacity * sizeof *xs);
        if (xs) s->x = xs;
        struct fkv_interval *ys = realloc(s->y, (size_t)capacity * sizeof *ys);
        if (ys) s->y = ys;
        if (!xs || !ys) {
            c->failed = true;
            return NULL;
        }
        s->capacity = capacity;
    }
    int at = s->count++;
    for (; look == FKV_LOOK_JOINED && at && s->x[at - 1] > x; at--) /* the line runs to the right */
        s->x[at] = s->x[at - 1], s->y[at] = s->y[at - 1];
    s->x[at] = x, s->y[at] = y;
    return s;
}

/* ---- drawing ---- */

/* What one call of fkv_figure_line gets of a series. */
struct points {
    double *position; /* [3 * points] */
    double *value;    /* [3 * points] */
};

/* A position, moved along its axis; on a logarithmic one by a factor. */
static double shifted(const struct fkv_chart *chart, double x, double shift) {
    return chart->logarithmic_x ? x * exp(shift) : x + shift;
}

static void draw_line(struct fkv_figure *f, int panel, const struct fkv_chart *chart,
                      const struct fkv_line *line, int n, const double *position,
                      const double *value) {
    fkv_figure_line(f, panel, line, n, chart->across ? value : position,
                    chart->across ? position : value);
}

/* Whiskers as strokes with breaks between them. */
static void draw_whiskers(struct fkv_figure *f, int panel, const struct fkv_chart *chart,
                          const struct fkv_chart_series *s, double shift, struct points r) {
    const struct fkv_line line = {.color = s->color, .width = 0.8};
    int n = 0;
    for (int i = 0; i < s->count; i++) {
        if (!isfinite(s->y[i].low)) continue;
        r.position[n] = r.position[n + 1] = shifted(chart, s->x[i], shift), r.position[n + 2] = NAN;
        r.value[n] = s->y[i].low, r.value[n + 1] = s->y[i].high, r.value[n + 2] = NAN;
        n += 3;
    }
    if (n) draw_line(f, panel, chart, &line, n, r.position, r.value);
}

static void draw_band(struct fkv_figure *f, int panel, const struct fkv_chart_series *s,
                      struct points r) {
    struct fkv_color shade = s->color;
    bool any = false;
    shade.a = 0.18;
    for (int i = 0; i < s->count; i++) {
        r.position[i] = s->y[i].low, r.value[i] = s->y[i].high;
        any = any || isfinite(s->y[i].low);
    }
    if (any) fkv_figure_band(f, panel, NULL, shade, s->count, s->x, r.position, r.value);
}

static void range(const struct fkv_chart *chart, double *low, double *high) {
    *low = INFINITY, *high = -INFINITY;
    for (int s = 0; s < chart->series; s++)
        for (int i = 0; i < chart->one[s].count; i++) {
            *low = fmin(*low, chart->one[s].x[i]), *high = fmax(*high, chart->one[s].x[i]);
        }
    if (*low < *high || chart->names || chart->logarithmic_x) return;
    const double margin = *low ? 0.1 * fabs(*low) : 0.1; /* one position has no extent of its own */
    *low -= margin, *high += margin;
}

static bool is_flat(const struct fkv_chart_series *s) { return s->count && isnan(s->x[0]); }

/* Does it stand beside others at the same position? */
static bool is_moved(const struct fkv_chart_series *s) { return !is_flat(s) && !s->in_place; }

/* One value along the whole axis of numbers. */
static void draw_flat(struct fkv_figure *f, int panel, const struct fkv_chart *chart,
                      const struct fkv_chart_series *s) {
    const struct fkv_line line = {
        .label = s->label, .color = s->color, .width = 1.2, .dashed = true};
    struct fkv_color shade = s->color;
    double position[2];
    range(chart, &position[0], &position[1]);
    const struct fkv_interval y = s->y[0];
    const double value[2] = {y.estimate, y.estimate}, low[2] = {y.low, y.low},
                 high[2] = {y.high, y.high};
    shade.a = 0.08;
    if (!s->bare && isfinite(y.low)) fkv_figure_band(f, panel, NULL, shade, 2, position, low, high);
    fkv_figure_line(f, panel, &line, 2, position, value);
}

static void draw_series(struct fkv_figure *f, int panel, const struct fkv_chart *chart,
                        const struct fkv_chart_series *s, double shift) {
    double *both = fkv_figure_numbers(f, 6 * (size_t)s->count);
    if (!both) return;
    struct points r = {both, both + 3 * s->count};
    if (!s->bare && s->look == FKV_LOOK_LINE) draw_band(f, panel, s, r);
    if (!s->bare && s->look != FKV_LOOK_LINE) draw_whiskers(f, panel, chart, s, shift, r);
    for (int i = 0; i < s->count; i++)
        r.position[i] = shifted(chart, s->x[i], shift), r.value[i] = s->y[i].estimate;
    const struct fkv_line line = {.label = *s->label && !s->unnamed ? s->label : NULL,
                                  .color = s->color,
                                  .width = 1.2,
                                  .dashed = s->dashed,
                                  .markers = s->look != FKV_LOOK_LINE,
                                  .scattered = s->look == FKV_LOOK_POINTS};
    draw_line(f, panel, chart, &line, s->count, r.position, r.value);
}

static double extent(const struct fkv_chart *chart) {
    double low, high;
    range(chart, &low, &high);
    if (!(high > low)) return 0;
    return chart->logarithmic_x ? log(high / low) : high - low;
}

/* Along the whole axis of positions. */
static void draw_level(struct fkv_figure *f, int panel, const struct fkv_chart *chart) {
    const struct fkv_line line = {.color = level_color, .width = 0.8, .dashed = true};
    double low, high;
    if (!isfinite(chart->level)) return;
    range(chart, &low, &high);
    if (chart->names) low = -0.5, high = chart->names - 0.5;
    const double position[2] = {low, high}, value[2] = {chart->level, chart->level};
    draw_line(f, panel, chart, &line, 2, position, value);
}

/* Does a name have points of two series? */
static bool share_names(const struct fkv_chart *chart) {
    bool taken[FKV_CHARTS_NAMES] = {false};
    for (int s = 0; s < chart->series; s++) {
        const struct fkv_chart_series *one = &chart->one[s];
        for (int i = 0; i < one->count; i++)
            if (taken[(int)one->x[i]]) return true;
        for (int i = 0; i < one->count; i++) taken[(int)one->x[i]] = true;
    }
    return false;
}

/* Few positions of points get a tick each. */
static void place_ticks(const struct fkv_chart *chart, struct fkv_axis *x) {
    for (int s = 0; s < chart->series; s++)
        for (int i = 0; i < chart->one[s].count; i++) {
            const double at = chart->one[s].x[i];
            int k = 0;
            if (chart->one[s].look == FKV_LOOK_LINE) continue;
            while (k < x->at_count && x->at[k] < at) k++;
            if (!isfinite(at) || (k < x->at_count && x->at[k] == at)) continue;
            if (x->at_count == FKV_AXIS_TICKS) {
                x->at_count = 0;
                return;
            }
            memmove(x->at + k + 1, x->at + k, (size_t)(x->at_count++ - k) * sizeof *x->at);
            x->at[k] = at;
        }
}

/* Names along y run downwards: position i stands at names - 1 - i. */
static void draw_panel(struct fkv_figure *f, int panel, struct fkv_chart *chart,
                       bool named_before) {
    const char *names[FKV_CHARTS_NAMES];
    for (int i = 0; i < chart->names; i++)
        names[i] = named_before ? "" : chart->name[chart->across ? chart->names - 1 - i : i];
    struct fkv_axis x = {.label = *chart->x_label ? chart->x_label : NULL,
                         .logarithmic = chart->logarithmic_x,
                         .integers = chart->integers};
    struct fkv_axis y = {.label = *chart->y_label ? chart->y_label : NULL,
                         .logarithmic = chart->logarithmic_y};
    struct fkv_axis *named = chart->across ? &y : &x;
    if (!chart->names && !chart->logarithmic_x) place_ticks(chart, &x);
    named->names = names, named->name_count = chart->names;
    fkv_figure_axes(f, panel, chart->title, &x, &y);
    draw_level(f, panel, chart);
    const bool side_by_side = chart->names && share_names(chart);
    int placed = 0, before = 0; /* of those that share positions */
    for (int s = 0; s < chart->series; s++) placed += is_moved(&chart->one[s]);
    for (int s = 0; s < chart->series; s++) {
        struct fkv_chart_series *one = &chart->one[s];
        if (one->hidden) continue;
        double step = side_by_side   ? fmin(0.16, 0.8 / placed)
                      : chart->apart ? extent(chart) / 100
                                     : 0;
        double shift = is_moved(one) ? (before - (placed - 1) / 2.0) * step : 0;
        before += is_moved(one);
        for (int i = 0; chart->across && i < one->count; i++)
            one->x[i] = chart->names - 1 - one->x[i];
        if (is_flat(one))
            draw_flat(f, panel, chart, one);
        else
            draw_series(f, panel, chart, one, chart->across ? -shift : shift);
        for (int i = 0; chart->across && i < one->count; i++)
            one->x[i] = chart->names - 1 - one->x[i];
    }
}

/* Panels of one row whose names run along y need them once. */
static bool same_names(const struct fkv_chart *a, const struct fkv_chart *b) {
    bool same = a->across && b->across && a->names == b->names;
    for (int i = 0; same && i < a->names; i++) same = !strcmp(a->name[i], b->name[i]);
    return same;
}

static int write_csv(const struct fkv_charts *c, const struct fkv_plot_target *to, const char *name,
                     struct fkv_error *err) {
    struct fkv_atomic_file f;
    char whole[FKV_PLOT_NAME], file[FKV_PLOT_NAME + 8];
    bool policies = c->chart[0].one[0].policy;
    snprintf(file, sizeof file, "%s.csv", fkv_plot_name(to, name, whole));
    if (fkv_csv_open(&f, to->folder, file,
                     policies ? "panel,series,place,estimate,low,high,policy"
                              : "panel,series,place,estimate,low,high",
                     err))
        return FKV_FAILED;
    for (int i = 0; i < c->panels; i++)
        for (int s = 0; s < c->chart[i].series; s++) {
            const struct fkv_chart *chart = &c->chart[i];
            const struct fkv_chart_series *one = &chart->one[s];
            for (int k = 0; k < one->count; k++) {
                fkv_csv_first(f.stream, chart->title);
                fkv_csv_text(f.stream, one->label);
                if (chart->names)
                    fkv_csv_text(f.stream, chart->name[(int)one->x[k]]);
                else
                    fkv_csv_number(f.stream, one->x[k]);
                fkv_csv_interval(f.stream, one->y[k]);
                if (policies) fkv_csv_text(f.stream, one->policy);
                fputc('\n', f.stream);
            }
        }
    return fkv_atomic_commit(&f, err);
}

static int draw(struct fkv_charts *c, const struct fkv_charts_page *page,
                struct fkv_plot_target *to, struct fkv_error *err) {
    int columns = page->columns < c->panels ? page->columns : c->panels,
        rows = (c->panels + columns - 1) / columns;
    int names = 0;
    for (int i = 0; i < c->panels; i++)
        if (c->chart[i].across && c->chart[i].names > names) names = c->chart[i].names;
    double width = page->width > 0 ? page->width : columns == 1 ? 5 : 7.2;
    double height =
        page->height > 0 ? page->height : fmin(11, rows * fmax(2.3, 0.9 + 0.19 * names) + 0.9);
    struct fkv_figure *f;
    if (fkv_plot_check_ours(to, page->name, err) ||
        fkv_figure_create(width, height, rows, columns, page->title, &f, err))
        return FKV_FAILED;
    for (int i = 0; i < c->panels; i++)
        draw_panel(f, i, &c->chart[i], i % columns && same_names(&c->chart[i - 1], &c->chart[i]));
    if (page->bar) fkv_figure_color_bar(f, page->bar);
    if (page->note) fkv_figure_note(f, "%s", page->note);
    return fkv_plot_finish(f, to, err, "%s", page->name ? page->name : "");
}

int fkv_charts_finish(struct fkv_charts *c, int status, const struct fkv_charts_page *page,
                      struct fkv_plot_target *to, struct fkv_error *err) {
    for (int i = 0; !status && i < c->panels; i++)
        if (c->chart[i].failed) status = fkv_fail(err, "out of memory for figure %s", page->title);
    if (!status && c->panels) status = draw(c, page, to, err);
    if (!status && c->panels && !page->no_csv) status = write_csv(c, to, page->name, err);
    fkv_charts_close(c);
    return status;
}
