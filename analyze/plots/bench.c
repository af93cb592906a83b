/* Times and bytes of freqkv-replay bench over lengths, a line per policy. Refused: a length that is
 * no number above 0, a time that is none. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/replay_tables.h"

enum { PANELS = 3, LABEL = 160 };

/* A panel: columns of the table, low and high "" where it has no whiskers, and what one unit of the
 * axis is of theirs. */
static const struct panel {
    const char *column, *low, *high, *title, *unit;
    double scale;
} panels[PANELS] = {
    {"decode_ms", "decode_ms_low", "decode_ms_high", "decoding", "ms per token", 1},
    {"prefill_s", "prefill_s_low", "prefill_s_high", "prefill", "seconds", 1},
    {"cache_bytes_peak", "", "", "cache, at most", "MiB", 1 << 20},
};

const char fkv_bench_columns[] = "policy,length,decode_ms,prefill_s,cache_bytes_peak";

/* The one text of all rows that have any; "" where they differ. */
static const char *common(const struct fkv_table *t, const char *column) {
    const char *found = "";
    for (int64_t r = 0; r < t->rows; r++) {
        const char *cell = fkv_table_text_of(t, r, column);
        if (!*cell) continue;
        if (*found && strcmp(found, cell)) return "";
        found = cell;
    }
    return found;
}

/* "freqkv, recent 128, γ = 0.25", with the window where rows have different ones. */
static void name_series(const struct fkv_table *t, int64_t row, char label[LABEL]) {
    const char *name = fkv_table_text_of(t, row, "label"),
               *window = fkv_table_text_of(t, row, "window"),
               *gamma = fkv_table_text_of(t, row, "gamma");
    if (!*name) name = fkv_table_text_of(t, row, "policy");
    if (*common(t, "window")) window = "";
    snprintf(label, LABEL, "%.96s%s%.16s%s%.16s", name, *window ? ", window " : "", window,
             *gamma ? ", \u03b3 = " : "", gamma);
}

static int fill_panel(struct fkv_charts *c, const struct fkv_table *t, const struct panel *p,
                      const char *path, struct fkv_error *err) {
    struct fkv_chart *chart = fkv_charts_panel(c, p->title, "length (tokens)", p->unit);
    chart->apart = true; /* policies of one window have the same bytes */
    for (int64_t r = 0; r < t->rows; r++) {
        const double length = fkv_table_number_of(t, r, "length"),
                     value = fkv_table_number_of(t, r, p->column);
        char label[LABEL];
        if (!(length > 0 && isfinite(length)) || !isfinite(value))
            return fkv_fail(err,
                            "%s: row %lld: expected a length above 0 and a number in %s, found "
                            "\"%.40s\" and \"%.40s\"",
                            path, (long long)r + 1, p->column, fkv_table_text_of(t, r, "length"),
                            fkv_table_text_of(t, r, p->column));
        name_series(t, r, label);
        fkv_chart_add(chart, label, fkv_color_cycle(chart->series), FKV_LOOK_JOINED, length,
                      (struct fkv_interval){value / p->scale,
                                            fkv_table_number_of(t, r, p->low) / p->scale,
                                            fkv_table_number_of(t, r, p->high) / p->scale});
    }
    return FKV_OK;
}

int fkv_plot_bench(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                   struct fkv_error *err) {
    struct fkv_charts c = {0};
    char note[FKV_PLOT_NOTE];
    if (!fkv_table_has(t, fkv_bench_columns) || t->rows < 1) return FKV_OK;
    int status = FKV_OK;
    for (int i = 0; i < PANELS && !status; i++) status = fill_panel(&c, t, &panels[i], path, err);
    const char *window = common(t, "window"), *decoded = common(t, "decoded"),
               *repeats = common(t, "repeats"), *machine = common(t, "machine"),
               *model = common(t, "model");
    snprintf(
        note, sizeof note,
        "Decoding: the last %.16s tokens of each length, one at a time; prefill: those before. "
        "Medians of %.16s; whiskers: least and most.%s%.16s%s%s%.300s%s%s%.100s%s",
        *decoded ? decoded : "few", *repeats ? repeats : "several repeats",
        *window ? " Window " : "", window, *window ? " slots." : "", *machine ? " " : "", machine,
        *machine ? "." : "", *model ? " Model: " : "", model, *model ? "." : "");
    const struct fkv_charts_page page = {.name = "times",
                                         .title = "Time and bytes over the length",
                                         .note = note,
                                         .height = 3.1,
                                         .columns = PANELS,
                                         .no_csv = true};
    return fkv_charts_finish(&c, status, &page, to, err);
}
