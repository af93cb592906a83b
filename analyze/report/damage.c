/* Owns what the report says in words about runs and probes: from the tables that `plot` writes
 * beside its figures (panel, series, place, estimate, low, high), whose intervals decide how a
 * sentence ends. */
#include "analyze/report/sections.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/plots/words.h"
#include "analyze/tables/table.h"

#define MINUS "\u2212"

/* POLICY: of runs alone. */
enum { PANEL, SERIES, PLACE, ESTIMATE, LOW, HIGH, COLUMNS, POLICY = COLUMNS };
static const char *const names[COLUMNS + 1] = {"panel", "series", "place", "estimate",
                                               "low",   "high",   "policy"};

struct chart {
    struct fkv_table table;
    int column[COLUMNS + 1]; /* -1: the table has none */
    const char *stem;        /* of the file's name, up to its last _ */
    int stem_length;
};

static const char *text_at(const struct chart *c, int64_t row, int column) {
    return fkv_table_text(&c->table, row, c->column[column]);
}
static double number_at(const struct chart *c, int64_t row, int column) {
    return fkv_table_number(&c->table, row, c->column[column]);
}

/* "10.2 [8.1, 12.3]", the interval where there is one. */
static const char *interval_text(char text[96], const struct chart *c, int64_t row) {
    const double x[3] = {number_at(c, row, ESTIMATE), number_at(c, row, LOW),
                         number_at(c, row, HIGH)};
    char part[3][32];
    for (int i = 0; i < 3; i++)
        snprintf(part[i], sizeof part[i], "%s%.3g", x[i] < 0 ? MINUS : "", fabs(x[i]));
    snprintf(text, 96, isfinite(x[1] + x[2]) ? "%s [%s, %s]" : "%s", part[0], part[1], part[2]);
    return text;
}

static bool clear_of_zero(const struct chart *c, int64_t row) {
    return number_at(c, row, LOW) > 0 || number_at(c, row, HIGH) < 0;
}

static bool is_damage(const struct chart *c, int64_t row) {
    return !strncmp(text_at(c, row, PANEL), "\u0394 nll", 6);
}

/* The row nearest to a place, of those with this text in a column; -1 where there is none. */
static int64_t nearest(const struct chart *c, int column, const char *text, double place) {
    int64_t best = -1;
    for (int64_t row = 0; row < c->table.rows; row++)
        if (is_damage(c, row) && !strcmp(text_at(c, row, column), text) &&
            isfinite(number_at(c, row, PLACE)) &&
            (best < 0 ||
             fabs(number_at(c, row, PLACE) - place) < fabs(number_at(c, best, PLACE) - place)))
            best = row;
    return best;
}

static int say_policies(struct fkv_report *r, const struct chart *c, struct fkv_error *err) {
    char whole[96], window[96];
    int64_t freqkv = nearest(c, SERIES, fkv_probe_kind_names[FKV_PROBE_FREQKV], 0.5);
    if (freqkv < 0) return FKV_OK;
    int64_t local =
        nearest(c, SERIES, fkv_probe_kind_names[FKV_PROBE_LOCAL], number_at(c, freqkv, PLACE));
    bool comparable = local >= 0 && number_at(c, local, PLACE) == number_at(c, freqkv, PLACE);
    const char *verdict = !clear_of_zero(c, freqkv) ? "not told apart from no damage"
                          : number_at(c, freqkv, ESTIMATE) > 0
                              ? "damage that its interval keeps away from 0"
                              : "less loss than untouched";
    if (fkv_text_list_add(
            &r->outline->summary, err,
            "One compression at \u03b3\u00a0=\u00a0%.3g changes the loss of the tokens after it by "
            "%s thousandths of a nat per token (probe \u201c%.*s\u201d): %s.",
            number_at(c, freqkv, PLACE), interval_text(whole, c, freqkv), c->stem_length, c->stem,
            verdict))
        return FKV_FAILED;
    if (!comparable) return FKV_OK;
    const char *order = number_at(c, freqkv, LOW) > number_at(c, local, HIGH)
                            ? "the latest tokens are worth more than the low frequencies there"
                        : number_at(c, freqkv, HIGH) < number_at(c, local, LOW)
                            ? "the low frequencies are worth more than the latest tokens there"
                            : "the intervals overlap, so neither is shown to be worth more";
    return fkv_text_list_add(&r->outline->summary, err,
                             "Keeping as many of the latest tokens instead changes it by %s: %s.",
                             interval_text(window, c, local), order);
}

/* Which of the bands that were taken out hurts most, for keys and for values. */
static int say_bands(struct fkv_report *r, const struct chart *c, struct fkv_error *err) {
    for (int states = FKV_PROBE_KEY; states <= FKV_PROBE_BOTH; states++) {
        const char *series = fkv_plot_states_words[states];
        int64_t worst = -1, clear = 0, bands = 0;
        char text[96];
        for (int64_t row = 0; row < c->table.rows; row++) {
            if (!is_damage(c, row) || strcmp(text_at(c, row, SERIES), series) ||
                !isfinite(number_at(c, row, ESTIMATE)))
                continue;
            bands++, clear += clear_of_zero(c, row);
            if (worst < 0 || number_at(c, row, ESTIMATE) > number_at(c, worst, ESTIMATE))
                worst = row;
        }
        if (bands < 2) continue;
        char place[32];
        double middle = number_at(c, worst, PLACE);
        if (isfinite(middle))
            snprintf(place, sizeof place, "%.2g", middle);
        else
            snprintf(place, sizeof place, "%.31s", text_at(c, worst, PLACE));
        if (fkv_text_list_add(
                &r->outline->summary, err,
                "Of %lld bands (DC apart) taken out of the %s one at a time, the one at %s of all "
                "coefficients (0: the lowest, 1: the highest) hurts most: %s thousandths of a nat "
                "per token; for %lld of the %lld the interval leaves out 0.",
                (long long)bands, series, place, interval_text(text, c, worst), (long long)clear,
                (long long)bands))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int say_decomposition(struct fkv_report *r, const struct chart *c, struct fkv_error *err) {
    int64_t parts = 0;
    char list[2048] = "", text[96];
    for (int64_t row = 0; row < c->table.rows; row++) {
        if (!is_damage(c, row) || !isfinite(number_at(c, row, ESTIMATE))) continue;
        const char *part = text_at(c, row, PLACE);
        if (!strcmp(part, "nothing")) continue; /* the check that no part does nothing */
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s %s", parts++ ? "; " : "", part,
                 interval_text(text, c, row));
    }
    if (!parts) return FKV_OK;
    return fkv_text_list_add(
        &r->outline->summary, err,
        "FreqKV\u2019s damage by which of its parts are on (coefficients lost, positions squeezed, "
        "fewer slots), in thousandths of a nat per token: %s.",
        list);
}

/* Does the difference to the baseline shrink as a policy keeps more? */
static int say_policy(struct fkv_report *r, const struct chart *c, const char *policy,
                      struct fkv_error *err) {
    char low[96], high[96];
    int64_t first = nearest(c, POLICY, policy, 0), last = nearest(c, POLICY, policy, 1);
    if (first < 0 || first == last) return FKV_OK;
    const char *verdict = number_at(c, first, LOW) > number_at(c, last, HIGH)
                              ? "keeping more costs less, and the intervals are apart"
                          : number_at(c, first, HIGH) < number_at(c, last, LOW)
                              ? "keeping more costs more, and the intervals are apart"
                              : "the intervals overlap, so the ratio is not shown to matter";
    return fkv_text_list_add(&r->outline->summary, err,
                             "Along the runs, the policy %s costs %s nats per token at "
                             "\u03b3\u00a0=\u00a0%.3g and %s at %.3g, against full attention: %s.",
                             policy, interval_text(low, c, first), number_at(c, first, PLACE),
                             interval_text(high, c, last), number_at(c, last, PLACE), verdict);
}

/* Every policy once, at its first row. */
static int say_runs(struct fkv_report *r, const struct chart *c, struct fkv_error *err) {
    if (c->column[POLICY] < 0) return FKV_OK;
    for (int64_t row = 0; row < c->table.rows; row++) {
        const char *policy = text_at(c, row, POLICY);
        int64_t earlier = 0;
        while (strcmp(text_at(c, earlier, POLICY), policy)) earlier++;
        if (earlier == row && say_policy(r, c, policy, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static const struct {
    const char *pattern;
    int (*say)(struct fkv_report *r, const struct chart *c, struct fkv_error *err);
} charts[] = {{"runs_perplexity.csv", say_runs},
              {"*_policies.csv", say_policies},
              {"*_decomposition.csv", say_decomposition},
              {"*_bands.csv", say_bands}};

/* A table of that name with other columns is somebody else's and says nothing. */
static int say_chart(struct fkv_report *r, const char *name,
                     int (*say)(struct fkv_report *r, const struct chart *c, struct fkv_error *err),
                     struct fkv_error *err) {
    char path[4096];
    struct chart c = {.stem = name, .stem_length = (int)(strrchr(name, '_') - name)};
    bool ours = true;
    if (fkv_report_path(r, name, path, err)) return FKV_FAILED;
    if (fkv_table_read(path, &c.table, NULL))
        return FKV_OK; /* the section that shows it says why */
    for (int i = 0; i < COLUMNS; i++)
        ours = (c.column[i] = fkv_table_column(&c.table, names[i])) >= 0 && ours;
    c.column[POLICY] = fkv_table_column(&c.table, names[POLICY]);
    int status = ours ? say(r, &c, err) : FKV_OK;
    fkv_table_free(&c.table);
    return status;
}

int fkv_report_say_damage(struct fkv_report *r, struct fkv_error *err) {
    for (size_t k = 0; k < sizeof charts / sizeof *charts; k++)
        for (int i = 0; i < r->files.count; i++)
            if (!fnmatch(charts[k].pattern, r->files.text[i], 0) &&
                say_chart(r, r->files.text[i], charts[k].say, err))
                return FKV_FAILED;
    return FKV_OK;
}
