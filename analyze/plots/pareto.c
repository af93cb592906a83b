/* Quality against bytes of the rows of freqkv-replay compare: what each policy loses to full
 * attention over the most that its cache took, a line per policy over its budgets, and the Pareto
 * front, the rows that no other beats in both. In every panel less is better. Refused: more than 40
 * policies. */
#include "analyze/plots/pareto.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"

enum { MOST_POLICIES = 40 };
static const char front_label[] = "Pareto front";
static const struct fkv_color front_color = {0.55, 0.55, 0.55, 1};

bool fkv_pareto_table(const struct fkv_table *t) {
    return fkv_table_column(t, "policy") >= 0 && fkv_table_column(t, "budget") >= 0 &&
           fkv_table_column(t, "cache_bytes_peak") >= 0 && fkv_table_column(t, "delta_nll") >= 0;
}

/* What a panel shows; se: the column of a standard error, "" where low and high have columns. */
struct measure {
    const char *column, *se, *title;
    bool logarithmic;
};
static const struct measure measures[] = {
    {"delta_nll", "", "\u0394 nll to full attention", false},
    {"kl", "kl_se", "KL to full attention", true},
    {"recall_delta", "recall_delta_se", "recall less full attention\u2019s", false}};

static double number_of(const struct fkv_table *t, int64_t row, const char *column) {
    const int c = fkv_table_column(t, column);
    return c < 0 ? NAN : fkv_table_number(t, row, c);
}

static double mebibytes(const struct fkv_table *t, int64_t row) {
    return number_of(t, row, "cache_bytes_peak") / (1 << 20);
}

/* The row of full attention: the one without a difference. -1: there is none. */
static int64_t find_full(const struct fkv_table *t) {
    for (int64_t r = 0; r < t->rows; r++)
        if (!isfinite(number_of(t, r, "delta_nll"))) return r;
    return -1;
}

/* Full attention loses nothing to itself; a logarithmic axis cannot show that. */
static struct fkv_interval value_of(const struct fkv_table *t, int64_t row,
                                    const struct measure *m) {
    const double value = number_of(t, row, m->column);
    if (row == find_full(t)) return (struct fkv_interval){m->logarithmic ? NAN : 0, NAN, NAN};
    if (!*m->se)
        return (struct fkv_interval){value, number_of(t, row, "delta_nll_low"),
                                     number_of(t, row, "delta_nll_high")};
    const double se = number_of(t, row, m->se);
    struct fkv_interval y = {value, value - 1.96 * se, value + 1.96 * se};
    if (m->logarithmic && !(y.low > 0)) y.low = value / 10; /* a whisker that leaves the axis */
    if (!isfinite(se)) y.low = NAN;
    return y;
}

/* No other row takes no more bytes and loses no more. */
static bool is_on_front(const struct fkv_table *t, int64_t row, const struct measure *m) {
    const double bytes = mebibytes(t, row), value = value_of(t, row, m).estimate;
    if (!isfinite(value)) return false;
    for (int64_t r = 0; r < t->rows; r++) {
        const double b = mebibytes(t, r), v = value_of(t, r, m).estimate;
        if (b <= bytes && v <= value && (b < bytes || v < value)) return false;
    }
    return true;
}

/* Rows of the front, by their bytes; a single one needs no line. */
static void add_front(struct fkv_charts *c, int panel, const struct fkv_table *t,
                      const struct measure *m) {
    double reached = 0;
    int rows = 0;
    for (int64_t r = 0; r < t->rows; r++) rows += is_on_front(t, r, m);
    if (rows < 2) return;
    for (;;) {
        int64_t next = -1;
        for (int64_t r = 0; r < t->rows; r++)
            if (is_on_front(t, r, m) && mebibytes(t, r) > reached &&
                (next < 0 || mebibytes(t, r) < mebibytes(t, next)))
                next = r;
        if (next < 0) return;
        reached = mebibytes(t, next);
        const struct fkv_interval y = {value_of(t, next, m).estimate, NAN, NAN};
        struct fkv_chart_series *front =
            fkv_charts_add(c, panel, front_label, front_color, FKV_LOOK_LINE, reached, y);
        if (front) front->in_place = true;
    }
}

/* Which policy of the table a row's is, in their order, full attention left out. */
static int policy_index(const struct fkv_table *t, int64_t row) {
    const int column = fkv_table_column(t, "policy");
    int index = 0;
    for (int64_t r = 0; r < t->rows; r++) {
        const char *policy = fkv_table_text(t, r, column);
        if (!strcmp(policy, fkv_table_text(t, row, column))) return index;
        bool seen = r == find_full(t);
        for (int64_t k = 0; k < r && !seen; k++)
            seen = !strcmp(policy, fkv_table_text(t, k, column));
        index += !seen;
    }
    return index;
}

/* Beyond the palette, colours of the map that are far from it and from each other. */
static struct fkv_color policy_color(int index) {
    static const double beyond[] = {0, 0.9, 0.25, 0.7, 0.5};
    const int count = sizeof beyond / sizeof *beyond;
    return index < FKV_COLORS ? fkv_color_cycle(index)
                              : fkv_color_map(beyond[(index - FKV_COLORS) % count]);
}

static bool is_measured(const struct fkv_table *t, const struct measure *m) {
    for (int64_t r = 0; r < t->rows; r++)
        if (isfinite(number_of(t, r, m->column))) return true;
    return false;
}

static void fill_panel(struct fkv_charts *c, const struct fkv_table *t, const struct measure *m) {
    const int policy = fkv_table_column(t, "policy");
    const int64_t full = find_full(t);
    int panel = -1;
    if (!is_measured(t, m)) return;
    for (int64_t r = 0; r < t->rows; r++) {
        const struct fkv_interval y = value_of(t, r, m);
        if (!isfinite(y.estimate)) continue;
        if (panel < 0) {
            panel = fkv_charts_panel(c, m->title, "cache at its peak (MiB)", "nats per token");
            c->chart[panel].logarithmic_x = true, c->chart[panel].logarithmic_y = m->logarithmic;
            c->chart[panel].apart = true;
            add_front(c, panel, t, m);
        }
        const int index = policy_index(t, r);
        struct fkv_chart_series *series = fkv_charts_add(
            c, panel, fkv_table_text(t, r, policy), r == full ? front_color : policy_color(index),
            r == full ? FKV_LOOK_POINTS : FKV_LOOK_JOINED, mebibytes(t, r), y);
        if (!series) continue;
        series->dashed = index >= FKV_COLORS;
        series->in_place = r == full;
    }
    if (panel >= 0 && !m->logarithmic) c->chart[panel].level = 0;
}

static int draw(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                struct fkv_error *err) {
    struct fkv_charts c;
    char name[FKV_PLOT_NAME];
    for (int64_t r = 0; r < t->rows; r++)
        if (policy_index(t, r) >= MOST_POLICIES)
            return fkv_fail(err, "%s: expected at most %d policies, found more", path,
                            MOST_POLICIES);
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (size_t i = 0; i < sizeof measures / sizeof *measures; i++) fill_panel(&c, t, &measures[i]);
    snprintf(name, sizeof name, "%.280s_pareto", to->stem);
    const struct fkv_charts_page page = {
        .name = name,
        .title = "Quality against bytes",
        .note = "Less is better. Grey: the Pareto front, what no other row beats in both. "
                "Whiskers: 95%. Lines join the budgets of a policy; points at equal bytes stand "
                "side by side.",
        .width = c.panels < 2 ? 4.6 : 7.2,
        .height = 3.6,
        .columns = 3};
    return fkv_charts_finish(&c, FKV_OK, &page, to, err);
}

int fkv_plot_pareto(const char *path, struct fkv_plot_target *to, struct fkv_error *err) {
    struct fkv_table t;
    if (fkv_table_read(path, &t, err)) return FKV_FAILED;
    int status = FKV_OK;
    if (fkv_pareto_table(&t) && t.rows > 0) status = draw(&t, path, to, err);
    fkv_table_free(&t);
    return status;
}
