/* Quality against bytes of the rows of freqkv-replay compare: what each policy loses to full
 * attention over the most that its cache took, a line per policy over its budgets, and the Pareto
 * front, the rows that no other beats in both. In every panel less is better. Refused: more than 40
 * policies. */
#include <math.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/replay_tables.h"

enum { MOST_POLICIES = 40 };
static const char front_label[] = "Pareto front";
static const struct fkv_color front_color = {0.55, 0.55, 0.55, 1};

const char fkv_pareto_columns[] = "policy,budget,cache_bytes_peak,delta_nll";

/* What a panel shows; se: the column of a standard error, "" where low and high have columns. */
struct measure {
    const char *column, *se, *title;
    bool logarithmic;
};
static const struct measure measures[] = {
    {"delta_nll", "", "\u0394 nll to full attention", false},
    {"kl", "kl_se", "KL to full attention", true},
    {"recall_delta", "recall_delta_se", "recall less full attention\u2019s", false}};

static double mebibytes(const struct fkv_table *t, int64_t row) {
    return fkv_table_number_of(t, row, "cache_bytes_peak") / (1 << 20);
}

/* The row of full attention: the one without a difference. -1: there is none. */
static int64_t find_full(const struct fkv_table *t) {
    for (int64_t r = 0; r < t->rows; r++)
        if (!isfinite(fkv_table_number_of(t, r, "delta_nll"))) return r;
    return -1;
}

/* Full attention loses nothing to itself; a logarithmic axis cannot show that. */
static struct fkv_interval value_of(const struct fkv_table *t, int64_t row,
                                    const struct measure *m) {
    const double value = fkv_table_number_of(t, row, m->column);
    if (row == find_full(t)) return (struct fkv_interval){m->logarithmic ? NAN : 0, NAN, NAN};
    if (!*m->se)
        return (struct fkv_interval){value, fkv_table_number_of(t, row, "delta_nll_low"),
                                     fkv_table_number_of(t, row, "delta_nll_high")};
    const double se = fkv_table_number_of(t, row, m->se);
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
static void add_front(struct fkv_chart *chart, const struct fkv_table *t, const struct measure *m) {
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
            fkv_chart_add(chart, front_label, front_color, FKV_LOOK_LINE, reached, y);
        if (front) front->in_place = true;
    }
}

/* Which policy of the table a row's is, in their order, full attention left out. */
static int policy_index(const struct fkv_table *t, int64_t row) {
    int index = 0;
    for (int64_t r = 0; r < t->rows; r++) {
        const char *policy = fkv_table_text_of(t, r, "policy");
        if (!strcmp(policy, fkv_table_text_of(t, row, "policy"))) return index;
        bool seen = r == find_full(t);
        for (int64_t k = 0; k < r && !seen; k++)
            seen = !strcmp(policy, fkv_table_text_of(t, k, "policy"));
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
        if (isfinite(fkv_table_number_of(t, r, m->column))) return true;
    return false;
}

static void fill_panel(struct fkv_charts *c, const struct fkv_table *t, const struct measure *m) {
    const int64_t full = find_full(t);
    struct fkv_chart *chart = NULL;
    if (!is_measured(t, m)) return;
    for (int64_t r = 0; r < t->rows; r++) {
        const struct fkv_interval y = value_of(t, r, m);
        if (!isfinite(y.estimate)) continue;
        if (!chart) {
            chart = fkv_charts_panel(c, m->title, "cache at its peak (MiB)", "nats per token");
            chart->logarithmic_x = true, chart->logarithmic_y = m->logarithmic;
            chart->apart = true;
            add_front(chart, t, m);
        }
        const int index = policy_index(t, r);
        struct fkv_chart_series *series = fkv_chart_add(
            chart, fkv_table_text_of(t, r, "policy"), r == full ? front_color : policy_color(index),
            r == full ? FKV_LOOK_POINTS : FKV_LOOK_JOINED, mebibytes(t, r), y);
        if (!series) continue;
        series->dashed = index >= FKV_COLORS;
        series->in_place = r == full;
    }
    if (chart && !m->logarithmic) chart->level = 0;
}

int fkv_plot_pareto(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                    struct fkv_error *err) {
    struct fkv_charts c = {0};
    if (!fkv_table_has(t, fkv_pareto_columns)) return FKV_OK;
    for (int64_t r = 0; r < t->rows; r++)
        if (policy_index(t, r) >= MOST_POLICIES)
            return fkv_fail(err, "%s: expected at most %d policies, found more", path,
                            MOST_POLICIES);
    for (size_t i = 0; i < sizeof measures / sizeof *measures; i++) fill_panel(&c, t, &measures[i]);
    const struct fkv_charts_page page = {
        .name = "pareto",
        .title = "Quality against bytes",
        .note = "Less is better. Grey: the Pareto front, what no other row beats in both. "
                "Whiskers: 95%. Lines join the budgets of a policy; points at equal bytes stand "
                "side by side.",
        .width = c.panels < 2 ? 4.6 : 7.2,
        .height = 3.6,
        .columns = 3};
    return fkv_charts_finish(&c, FKV_OK, &page, to, err);
}
