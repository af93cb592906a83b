/* Owns what the report says in words about runs and probes: from the tables that `plot` writes
 * beside its figures (panel, series, place, estimate, low, high), whose intervals decide how a
 * sentence ends. */
#include "analyze/report/sections.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/plots/words.h"

#define MINUS "\u2212"

struct chart {
    struct fkv_table table;
    const char *stem; /* of the file's name, up to its last _ */
    int stem_length;
};

static const char *text_at(const struct chart *c, int64_t row, const char *column) {
    return fkv_table_text_of(&c->table, row, column);
}
static double number_at(const struct chart *c, int64_t row, const char *column) {
    return fkv_table_number_of(&c->table, row, column);
}

/* "10.2 [8.1, 12.3]", the interval where there is one. */
static const char *interval_text(char text[96], const struct chart *c, int64_t row) {
    const double x[3] = {number_at(c, row, "estimate"), number_at(c, row, "low"),
                         number_at(c, row, "high")};
    char part[3][32];
    for (int i = 0; i < 3; i++)
        snprintf(part[i], sizeof part[i], "%s%.3g", x[i] < 0 ? MINUS : "", fabs(x[i]));
    snprintf(text, 96, isfinite(x[1] + x[2]) ? "%s [%s, %s]" : "%s", part[0], part[1], part[2]);
    return text;
}

static bool clear_of_zero(const struct chart *c, int64_t row) {
    return number_at(c, row, "low") > 0 || number_at(c, row, "high") < 0;
}

static bool is_damage(const struct chart *c, int64_t row) {
    return !strncmp(text_at(c, row, "panel"), "\u0394 nll", 6);
}

/* The row nearest to a place, of those with this text in a column; -1 where there is none. */
static int64_t nearest(const struct chart *c, const char *column, const char *text, double place) {
    int64_t best = -1;
    for (int64_t row = 0; row < c->table.rows; row++)
        if (is_damage(c, row) && !strcmp(text_at(c, row, column), text) &&
            isfinite(number_at(c, row, "place")) &&
            (best < 0 ||
             fabs(number_at(c, row, "place") - place) < fabs(number_at(c, best, "place") - place)))
            best = row;
    return best;
}

static void say_policies(struct fkv_text_list *summary, const struct chart *c) {
    char whole[96], window[96];
    int64_t freqkv = nearest(c, "series", fkv_probe_kind_names[FKV_PROBE_FREQKV], 0.5);
    if (freqkv < 0) return;
    int64_t local =
        nearest(c, "series", fkv_probe_kind_names[FKV_PROBE_LOCAL], number_at(c, freqkv, "place"));
    bool comparable = local >= 0 && number_at(c, local, "place") == number_at(c, freqkv, "place");
    const char *verdict = !clear_of_zero(c, freqkv) ? "not told apart from no damage"
                          : number_at(c, freqkv, "estimate") > 0
                              ? "damage that its interval keeps away from 0"
                              : "less loss than untouched";
    fkv_text_list_add(
        summary,
        "One compression at \u03b3\u00a0=\u00a0%.3g changes the loss of the tokens after it by "
        "%s thousandths of a nat per token (probe \u201c%.*s\u201d): %s.",
        number_at(c, freqkv, "place"), interval_text(whole, c, freqkv), c->stem_length, c->stem,
        verdict);
    if (!comparable) return;
    const char *order = number_at(c, freqkv, "low") > number_at(c, local, "high")
                            ? "the latest tokens are worth more than the low frequencies there"
                        : number_at(c, freqkv, "high") < number_at(c, local, "low")
                            ? "the low frequencies are worth more than the latest tokens there"
                            : "the intervals overlap, so neither is shown to be worth more";
    fkv_text_list_add(summary, "Keeping as many of the latest tokens instead changes it by %s: %s.",
                      interval_text(window, c, local), order);
}

/* Which of the bands that were taken out hurts most, for keys and for values. */
static void say_bands(struct fkv_text_list *summary, const struct chart *c) {
    for (int states = FKV_PROBE_KEY; states <= FKV_PROBE_BOTH; states++) {
        const char *series = fkv_plot_states_words[states];
        int64_t worst = -1, clear = 0, bands = 0;
        char text[96];
        for (int64_t row = 0; row < c->table.rows; row++) {
            if (!is_damage(c, row) || strcmp(text_at(c, row, "series"), series) ||
                !isfinite(number_at(c, row, "estimate")))
                continue;
            bands++, clear += clear_of_zero(c, row);
            if (worst < 0 || number_at(c, row, "estimate") > number_at(c, worst, "estimate"))
                worst = row;
        }
        if (bands < 2) continue;
        char place[32];
        double middle = number_at(c, worst, "place");
        if (isfinite(middle))
            snprintf(place, sizeof place, "%.2g", middle);
        else
            snprintf(place, sizeof place, "%.31s", text_at(c, worst, "place"));
        fkv_text_list_add(
            summary,
            "Of %lld bands (DC apart) taken out of the %s one at a time, the one at %s of all "
            "coefficients (0: the lowest, 1: the highest) hurts most: %s thousandths of a nat "
            "per token; for %lld of the %lld the interval leaves out 0.",
            (long long)bands, series, place, interval_text(text, c, worst), (long long)clear,
            (long long)bands);
    }
}

static void say_decomposition(struct fkv_text_list *summary, const struct chart *c) {
    int64_t parts = 0;
    char list[2048] = "", text[96];
    for (int64_t row = 0; row < c->table.rows; row++) {
        if (!is_damage(c, row) || !isfinite(number_at(c, row, "estimate"))) continue;
        const char *part = text_at(c, row, "place");
        if (!strcmp(part, "nothing")) continue; /* the check that no part does nothing */
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s %s", parts++ ? "; " : "", part,
                 interval_text(text, c, row));
    }
    if (!parts) return;
    fkv_text_list_add(
        summary,
        "FreqKV\u2019s damage by which of its parts are on (coefficients lost, positions squeezed, "
        "fewer slots), in thousandths of a nat per token: %s.",
        list);
}

/* Does the difference to the baseline shrink as a policy keeps more? */
static void say_policy(struct fkv_text_list *summary, const struct chart *c, const char *policy) {
    char low[96], high[96];
    int64_t first = nearest(c, "policy", policy, 0), last = nearest(c, "policy", policy, 1);
    if (first < 0 || first == last) return;
    const char *verdict = number_at(c, first, "low") > number_at(c, last, "high")
                              ? "keeping more costs less, and the intervals are apart"
                          : number_at(c, first, "high") < number_at(c, last, "low")
                              ? "keeping more costs more, and the intervals are apart"
                              : "the intervals overlap, so the ratio is not shown to matter";
    fkv_text_list_add(summary,
                      "Along the runs, the policy %s costs %s nats per token at "
                      "\u03b3\u00a0=\u00a0%.3g and %s at %.3g, against full attention: %s.",
                      policy, interval_text(low, c, first), number_at(c, first, "place"),
                      interval_text(high, c, last), number_at(c, last, "place"), verdict);
}

/* Every policy once, at its first row. */
static void say_runs(struct fkv_text_list *summary, const struct chart *c) {
    if (!fkv_table_has(&c->table, "policy")) return; /* of runs alone */
    for (int64_t row = 0; row < c->table.rows; row++) {
        const char *policy = text_at(c, row, "policy");
        int64_t earlier = 0;
        while (strcmp(text_at(c, earlier, "policy"), policy)) earlier++;
        if (earlier == row) say_policy(summary, c, policy);
    }
}

static const struct {
    const char *pattern;
    void (*say)(struct fkv_text_list *summary, const struct chart *c);
} charts[] = {{"runs_perplexity.csv", say_runs},
              {"*_policies.csv", say_policies},
              {"*_decomposition.csv", say_decomposition},
              {"*_bands.csv", say_bands}};

/* A table of that name with other columns is somebody else's and says nothing. The section that
 * shows it says why it cannot be read. */
static void say_chart(struct fkv_report *r, const char *name,
                      void (*say)(struct fkv_text_list *summary, const struct chart *c)) {
    struct chart c = {.stem = name, .stem_length = (int)(strrchr(name, '_') - name)};
    if (fkv_report_table_read(r, name, &c.table, NULL)) return;
    if (fkv_table_has(&c.table, "panel,series,place,estimate,low,high"))
        say(&r->outline->summary, &c);
    fkv_table_free(&c.table);
}

void fkv_report_say_damage(struct fkv_report *r) {
    for (size_t k = 0; k < sizeof charts / sizeof *charts; k++)
        for (int i = 0; i < r->files.count; i++)
            if (!fnmatch(charts[k].pattern, r->files.text[i], 0))
                say_chart(r, r->files.text[i], charts[k].say);
}
