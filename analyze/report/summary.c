/* Owns what the report says in words. Each function looks at one kind of data and appends sentences
 * or none. How a sentence ends is decided by the numbers in it, by these rules:
 *
 * - Low frequencies beyond chance: every head above its permuted null, and the median by 5 points
 * of energy or more; "no" within 1 point of it, or below it.
 * - A gain: 1% of the uniform loss or more.
 * - A link: an interval that leaves out 0. */
#include "analyze/report/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/measure/depth.h"
#include "analyze/plots/words.h"
#include "analyze/report/losses.h"
#include "analyze/report/spread.h"

#define MINUS "\u2212"
#define HALF "\u03b3\u00a0=\u00a00.5"

/* "0.42", or "−0.42" */
static const char *signed_text(char text[32], double x) {
    snprintf(text, 32, "%s%.2f", x < 0 ? MINUS : "", fabs(x));
    return text;
}

/* ---- spectra ---- */

static const char *verdict_on_shares(double advantage, int64_t above, int64_t heads) {
    if (advantage <= -0.01) return "Without DC these states lean to the high frequencies.";
    if (advantage < 0.01) return "Without DC there is no dominance of low frequencies to speak of.";
    if (above == heads && advantage >= 0.05)
        return "Low frequencies dominate beyond what DC and chance explain.";
    if (above == heads)
        return "A lean to low frequencies is there beyond DC and chance, and it is slight.";
    return "A lean to low frequencies is there, but not in every head.";
}

static int say_share(struct fkv_report *r, const struct fkv_report_shares *s,
                     struct fkv_error *err) {
    int64_t heads = (int64_t)s->layers * s->heads, above = 0;
    struct fkv_spread half, half_dc, dc, null, advantage;
    char lower[320];
    if (fkv_spread_of(s->half, heads, &half, err) || fkv_spread_of(s->dc, heads, &dc, err) ||
        fkv_spread_of(s->half_dc, heads, &half_dc, err))
        return FKV_FAILED;
    if (!half.count) return FKV_OK;
    snprintf(
        lower, sizeof lower,
        "Without DC, %.1f%% of the energy of the %s lies in the lower half of the frequencies, "
        "which " HALF " keeps (median over %lld head%s, %.1f%% to %.1f%%)",
        100 * half.median, fkv_plot_state_words[s->state], (long long)heads, heads == 1 ? "" : "s",
        100 * half.least, 100 * half.largest);
    if (!s->half_null) {
        fkv_text_list_add(&r->outline->summary,
                          "%s; no permuted null was measured, so chance is not ruled out.", lower);
        return FKV_OK;
    }
    double *difference = malloc((size_t)heads * sizeof *difference);
    if (!difference) return fkv_fail(err, "out of memory for %lld heads", (long long)heads);
    for (int64_t i = 0; i < heads; i++) {
        difference[i] = s->half[i] - s->half_null[i];
        above += difference[i] > 0;
    }
    int status = fkv_spread_of(s->half_null, heads, &null, err);
    if (!status) status = fkv_spread_of(difference, heads, &advantage, err);
    free(difference);
    if (status) return status;
    fkv_text_list_add(
        &r->outline->summary,
        "%s, against %.1f%% with the tokens permuted; %lld of %lld lean further to low frequencies "
        "than that. %s DC alone holds %.1f%% of all their energy; with it, " HALF " keeps %.1f%%.",
        lower, 100 * null.median, (long long)above, (long long)heads,
        verdict_on_shares(advantage.median, above, heads), 100 * dc.median, 100 * half_dc.median);
    return FKV_OK;
}

/* Over depth, where there are layers enough. */
static int say_course(struct fkv_report *r, const struct fkv_report_shares *s,
                      struct fkv_error *err) {
    char words[FKV_COURSE_WORDS];
    struct fkv_course course;
    for (int32_t l = 0; l < s->layers; l++)
        if (!isfinite(s->layer_half[l])) return FKV_OK;
    if (s->layers < FKV_COURSE_LAYERS) return FKV_OK;
    if (fkv_course_of(s->layer_half, s->layers, &course, err)) return FKV_FAILED;
    fkv_text_list_add(
        &r->outline->summary,
        "Over depth the lower half of the %s (without DC, pooled over heads) goes %s.",
        fkv_plot_state_words[s->state],
        fkv_course_words(&course, s->layer_half, s->layer_index, words));
    return FKV_OK;
}

static const struct fkv_report_shares *shares_of(const struct fkv_report *r, enum fkv_state state) {
    for (int i = 0; i < r->facts.states; i++)
        if (r->facts.shares[i].state == state) return &r->facts.shares[i];
    return NULL;
}

static int say_keys_and_values(struct fkv_report *r, struct fkv_error *err) {
    const struct fkv_report_shares *k = shares_of(r, FKV_STATE_KEY),
                                   *v = shares_of(r, FKV_STATE_VALUE);
    if (!k || !v || k->layers != v->layers || k->heads != v->heads) return FKV_OK;
    int64_t heads = (int64_t)k->layers * k->heads, more = 0;
    struct fkv_spread key, value;
    if (fkv_spread_of(k->half, heads, &key, err) || fkv_spread_of(v->half, heads, &value, err))
        return FKV_FAILED;
    if (!key.count || !value.count) return FKV_OK;
    for (int64_t i = 0; i < heads; i++) more += k->half[i] > v->half[i];
    double difference = key.median - value.median;
    const char *relation = difference >= 0.01    ? "more low-frequency than"
                           : difference <= -0.01 ? "less low-frequency than"
                                                 : "as low-frequency as";
    fkv_text_list_add(&r->outline->summary,
                      "Keys are %s values: without DC, %.1f%% against %.1f%% in the lower half"
                      "; the key\u2019s share is the larger one in %lld of %lld heads.",
                      relation, 100 * key.median, 100 * value.median, (long long)more,
                      (long long)heads);
    return FKV_OK;
}

static int say_spectra(struct fkv_report *r, struct fkv_error *err) {
    for (int i = 0; i < r->facts.states; i++)
        if (say_share(r, &r->facts.shares[i], err) || say_course(r, &r->facts.shares[i], err))
            return FKV_FAILED;
    return say_keys_and_values(r, err);
}

/* ---- ratios ---- */

static int say_ratios(struct fkv_report *r, struct fkv_error *err) {
    struct fkv_report_losses l;
    if (fkv_report_losses_read(r, &l, err)) return FKV_FAILED;
    double gain = 1 - l.per_head[FKV_LOSS_OBJECTIVE] / l.uniform[FKV_LOSS_OBJECTIVE];
    if (!l.gamma.count || !isfinite(gain) ||
        !isfinite(l.per_head[FKV_LOSS_KEYS] + l.per_head[FKV_LOSS_VALUES]))
        return FKV_OK;
    fkv_text_list_add(
        &r->outline->summary,
        "Ratios per head (mean %.4g, from %.4g to %.4g) lose %.1f%% of the keys\u2019 and %.1f%% "
        "of the values\u2019 energy where one ratio of the same mean loses %.1f%% and %.1f%%; what "
        "they minimise is %.1f%% %s. %s The comparison is on the texts they were chosen on.",
        l.gamma.mean, l.gamma.least, l.gamma.largest, 100 * l.per_head[FKV_LOSS_KEYS],
        100 * l.per_head[FKV_LOSS_VALUES], 100 * l.uniform[FKV_LOSS_KEYS],
        100 * l.uniform[FKV_LOSS_VALUES], 100 * fabs(gain), gain >= 0 ? "smaller" : "larger",
        gain >= 0.1    ? "That is a gain worth having in energy; whether it is one in perplexity, "
                         "only runs can say."
        : gain >= 0.01 ? "That is a small gain."
                       : "Next to nothing is gained.");
    return FKV_OK;
}

/* ---- links ---- */

/* Of link_predictors.csv. */
static const char link_columns[] =
    "change,damage,depth,predictor,points,place,spearman,spearman_low,spearman_high";

/* By where a correlation's interval is. expected: the sign that it has if energy matters. */
static const char *verdict_on_link(double low, double high, int expected) {
    if (!isfinite(low + high)) return "too few points for an interval";
    if (low <= 0 && high >= 0) return "the interval holds 0, so no link is shown";
    return (low > 0) == (expected > 0)
               ? "a link that the interval keeps away from 0"
               : "a link, and the other way round than energy as importance would have it";
}

/* A predictor's name in the file, in words. */
static const char *in_words(const char *predictor) {
    static const struct {
        const char *name, *words;
    } predictors[] = {
        {"retained_key", "the share of the keys\u2019 energy that is kept"},
        {"retained_value", "the share of the values\u2019 energy that is kept"},
        {"retained_key_no_dc", "the share of the keys\u2019 energy without DC that is kept"},
        {"retained_value_no_dc", "the share of the values\u2019 energy without DC that is kept"},
        {"energy", "the share of energy that is lost"},
        {"energy_no_dc", "the share of energy without DC that is lost"},
        {"absolute", "the energy lost, not as a share"},
        {"visible", "the energy lost that queries or the output can see"},
        {"attention", "the attention-output error"},
        {"attention_projected", "the attention-output error after the output projection"}};
    for (size_t i = 0; i < sizeof predictors / sizeof *predictors; i++)
        if (!strcmp(predictor, predictors[i].name)) return predictors[i].words;
    return predictor;
}

/* "0.42 [0.10, 0.66]", the interval where there is one. */
static const char *correlation_text(char text[96], const struct fkv_table *l, int64_t row) {
    char x[32], low[32], high[32];
    double from = fkv_table_number_of(l, row, "spearman_low"),
           to = fkv_table_number_of(l, row, "spearman_high");
    snprintf(text, 96, isfinite(from + to) ? "%s [%s, %s]" : "%s",
             signed_text(x, fkv_table_number_of(l, row, "spearman")), signed_text(low, from),
             signed_text(high, to));
    return text;
}

static void say_link(struct fkv_text_list *summary, const struct fkv_table *l, int64_t row) {
    const char *change = fkv_table_text_of(l, row, "change"),
               *points = fkv_table_text_of(l, row, "points"),
               *predictor = in_words(fkv_table_text_of(l, row, "predictor"));
    const bool sweep = !strcmp(change, "sweep");
    const char *verdict =
        verdict_on_link(fkv_table_number_of(l, row, "spearman_low"),
                        fkv_table_number_of(l, row, "spearman_high"), sweep ? -1 : 1);
    char correlation[96];
    if (!isfinite(fkv_table_number_of(l, row, "spearman"))) return;
    correlation_text(correlation, l, row);
    if (sweep)
        fkv_text_list_add(summary,
                          "Along a sweep of %s runs, %s and the loss have a rank correlation of "
                          "%s: %s. Both follow the ratio, so this alone says little.",
                          points, predictor, correlation, verdict);
    else
        fkv_text_list_add(summary,
                          "Over %s heads changed one at a time (%s), %s and the damage have a rank "
                          "correlation of %s: %s.",
                          points, change, predictor, correlation, verdict);
}

static void say_first_predictor(struct fkv_text_list *summary, const struct fkv_table *l,
                                int64_t row) {
    char correlation[96];
    bool clear = fkv_table_number_of(l, row, "spearman_low") > 0;
    fkv_text_list_add(
        summary,
        clear ? "The best predictor of that damage (%s) is %s: %s."
              : "No predictor is shown to rank that damage (%s); the first among them is %s: %s.",
        fkv_table_text_of(l, row, "change"), in_words(fkv_table_text_of(l, row, "predictor")),
        correlation_text(correlation, l, row));
}

/* Whether a row is about delta nll, and about all layers. */
static bool is_overall(const struct fkv_table *l, int64_t row) {
    return !strcmp(fkv_table_text_of(l, row, "depth"), "all") &&
           !strcmp(fkv_table_text_of(l, row, "damage"), "delta_nll");
}

/* From link_predictors.csv: energy without DC against delta nll, and which predictor came first
 * over heads. A file of that name with other columns adds nothing. */
static int say_links(struct fkv_report *r, struct fkv_error *err) {
    struct fkv_table l;
    if (!fkv_report_has(r, "link_predictors.csv")) return FKV_OK;
    if (fkv_report_table_read(r, "link_predictors.csv", &l, err)) return FKV_FAILED;
    const int64_t rows = fkv_table_has(&l, link_columns) ? l.rows : 0;
    for (int64_t row = 0; row < rows; row++) {
        const char *predictor = fkv_table_text_of(&l, row, "predictor");
        if (is_overall(&l, row) &&
            (!strcmp(predictor, "energy_no_dc") || !strcmp(predictor, "retained_key_no_dc") ||
             !strcmp(predictor, "retained_value_no_dc")))
            say_link(&r->outline->summary, &l, row);
    }
    for (int64_t row = 0; row < rows; row++)
        if (is_overall(&l, row) && strcmp(fkv_table_text_of(&l, row, "change"), "sweep") &&
            fkv_table_number_of(&l, row, "place") == 1)
            say_first_predictor(&r->outline->summary, &l, row);
    fkv_table_free(&l);
    return FKV_OK;
}

int fkv_report_summary(struct fkv_report *r, struct fkv_error *err) {
    if (fkv_report_say_best(r, err) || say_spectra(r, err) || say_ratios(r, err)) return FKV_FAILED;
    fkv_report_say_damage(r);
    return say_links(r, err);
}
