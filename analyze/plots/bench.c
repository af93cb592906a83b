/* Times and bytes of freqkv-replay bench over lengths, a line per policy. Refused: a length that is
 * no number above 0, a time that is none. */
#include "analyze/plots/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"

enum { PANELS = 3, LABEL = 160 };

/* A panel: columns of the table, and what one unit of the axis is of theirs. */
static const struct panel {
    const char *column, *low, *high, *title, *unit;
    double scale;
} panels[PANELS] = {
    {"decode_ms", "decode_ms_low", "decode_ms_high", "decoding", "ms per token", 1},
    {"prefill_s", "prefill_s_low", "prefill_s_high", "prefill", "seconds", 1},
    {"cache_bytes_peak", NULL, NULL, "cache, at most", "MiB", 1 << 20},
};

bool fkv_bench_table(const struct fkv_table *t) {
    bool all = fkv_table_column(t, "policy") >= 0 && fkv_table_column(t, "length") >= 0;
    for (int i = 0; i < PANELS; i++) all = all && fkv_table_column(t, panels[i].column) >= 0;
    return all;
}

static const char *cell_of(const struct fkv_table *t, int64_t row, const char *column) {
    const int c = fkv_table_column(t, column);
    return c < 0 ? "" : fkv_table_text(t, row, c);
}

/* NaN where there is no such column. */
static double number_of(const struct fkv_table *t, int64_t row, const char *column) {
    const int c = column ? fkv_table_column(t, column) : -1;
    return c < 0 ? NAN : fkv_table_number(t, row, c);
}

/* The one text of all rows that have any; "" where they differ. */
static const char *common(const struct fkv_table *t, const char *column) {
    const char *found = "";
    for (int64_t r = 0; r < t->rows; r++) {
        const char *cell = cell_of(t, r, column);
        if (!*cell) continue;
        if (*found && strcmp(found, cell)) return "";
        found = cell;
    }
    return found;
}

/* "freqkv, recent 128, γ = 0.25", with the window where rows have different ones. */
static void name_series(const struct fkv_table *t, int64_t row, char label[LABEL]) {
    const char *name = cell_of(t, row, "label"), *window = cell_of(t, row, "window"),
               *gamma = cell_of(t, row, "gamma");
    if (!*name) name = cell_of(t, row, "policy");
    if (*common(t, "window")) window = "";
    snprintf(label, LABEL, "%.96s%s%.16s%s%.16s", name, *window ? ", window " : "", window,
             *gamma ? ", \u03b3 = " : "", gamma);
}

static int fill_panel(struct fkv_charts *c, const struct fkv_table *t, const struct panel *p,
                      const char *path, struct fkv_error *err) {
    const int panel = fkv_charts_panel(c, p->title, "length (tokens)", p->unit);
    c->chart[panel].apart = true; /* policies of one window have the same bytes */
    for (int64_t r = 0; r < t->rows; r++) {
        const double length = number_of(t, r, "length"), value = number_of(t, r, p->column);
        char label[LABEL];
        if (!(length > 0 && isfinite(length)) || !isfinite(value))
            return fkv_fail(err,
                            "%s: row %lld: expected a length above 0 and a number in %s, found "
                            "\"%.40s\" and \"%.40s\"",
                            path, (long long)r + 1, p->column, cell_of(t, r, "length"),
                            cell_of(t, r, p->column));
        name_series(t, r, label);
        fkv_charts_add(c, panel, label, fkv_color_cycle(c->chart[panel].series), FKV_LOOK_JOINED,
                       length,
                       (struct fkv_interval){value / p->scale, number_of(t, r, p->low) / p->scale,
                                             number_of(t, r, p->high) / p->scale});
    }
    return FKV_OK;
}

int fkv_plot_bench(const char *path, struct fkv_plot_target *to, struct fkv_error *err) {
    struct fkv_table t;
    struct fkv_charts c;
    char name[FKV_PLOT_NAME], note[FKV_PLOT_NOTE];
    if (fkv_table_read(path, &t, err)) return FKV_FAILED;
    if (!fkv_bench_table(&t) || t.rows < 1 || fkv_charts_open(&c, err)) {
        const bool bench = fkv_bench_table(&t) && t.rows > 0;
        fkv_table_free(&t);
        return bench ? FKV_FAILED : FKV_OK;
    }
    int status = FKV_OK;
    for (int i = 0; i < PANELS && !status; i++) status = fill_panel(&c, &t, &panels[i], path, err);
    const char *window = common(&t, "window"), *decoded = common(&t, "decoded"),
               *repeats = common(&t, "repeats"), *machine = common(&t, "machine"),
               *model = common(&t, "model");
    snprintf(
        note, sizeof note,
        "Decoding: the last %.16s tokens of each length, one at a time; prefill: those before. "
        "Medians of %.16s; whiskers: least and most.%s%.16s%s%s%.300s%s%s%.100s%s",
        *decoded ? decoded : "few", *repeats ? repeats : "several repeats",
        *window ? " Window " : "", window, *window ? " slots." : "", *machine ? " " : "", machine,
        *machine ? "." : "", *model ? " Model: " : "", model, *model ? "." : "");
    snprintf(name, sizeof name, "%.280s_times", to->stem);
    const struct fkv_charts_page page = {.name = name,
                                         .title = "Time and bytes over the length",
                                         .note = note,
                                         .width = 7.2,
                                         .height = 3.1,
                                         .columns = PANELS,
                                         .no_csv = true};
    status = fkv_charts_finish(&c, status, &page, to, err);
    fkv_table_free(&t);
    return status;
}
