/* Figures of the join (link.h): a sweep's points, heads against their damage, predictors side by
 * side, classes of tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/link/link.h"
#include "analyze/plots/charts.h"
#include "analyze/plots/parts.h"

enum { LEAST_TOKENS = 20 }; /* a class of fewer is left out of the picture; the table has it */

static const char milli_nats[] = "10^{\u22123} nats per token";
static const char *const damage_words[FKV_DAMAGES] = {"\u0394 nll", "KL"};
static const char *const state_words[4] = {"nothing", "keys", "values", "keys and values"};

static struct fkv_interval milli(struct fkv_interval x) {
    return (struct fkv_interval){1e3 * x.estimate, 1e3 * x.low, 1e3 * x.high};
}

/* "keys: ρ = −0.92 [−1.00, −0.56]" */
static void name_rho(char title[160], const char *what, struct fkv_interval rho) {
    char text[3][FKV_PLOT_NUMBER];
    fkv_plot_fixed(text[0], rho.estimate, 2), fkv_plot_fixed(text[1], rho.low, 2),
        fkv_plot_fixed(text[2], rho.high, 2);
    snprintf(title, 160,
             isfinite(rho.low + rho.high) ? "%s: \u03c1 = %s [%s, %s]" : "%s: \u03c1 = %s", what,
             text[0], text[1], text[2]);
}

static int write(struct fkv_charts *c, const struct fkv_charts_page *page, const struct fkv_link *l,
                 int status, struct fkv_error *err) {
    if (!status) status = fkv_charts_write(c, page, l->provenance, err);
    fkv_charts_close(c);
    return status;
}

/* ---- sweep ---- */

/* Retained energy against the outcome, a panel per state; runs coloured by ratio. */
static int plot_sweep(const struct fkv_link *l, const char *folder, struct fkv_error *err) {
    static const char *const titles[FKV_RETAINED] = {"keys", "values", "keys, without DC",
                                                     "values, without DC"};
    const struct fkv_link_sweep *s = &l->sweep;
    int outcome = s->outcome_there[FKV_OUTCOME_DELTA] ? FKV_OUTCOME_DELTA : FKV_OUTCOME_NLL;
    struct fkv_charts c;
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (int r = 0; r < FKV_RETAINED; r++) {
        char title[160];
        struct fkv_interval rho = s->correlation[outcome][r].spearman;
        name_rho(title, titles[r], rho);
        int panel = fkv_charts_panel(&c, title, "retained energy (fraction)",
                                     outcome == FKV_OUTCOME_DELTA ? "\u0394 nll (nats per token)"
                                                                  : "mean nll (nats per token)");
        if (outcome == FKV_OUTCOME_DELTA) c.chart[panel].level = 0;
        for (int32_t p = 0; p < s->points; p++) {
            char label[160];
            double t = s->points > 1 ? (double)p / (s->points - 1) : 0.3;
            snprintf(label, sizeof label, "\u03b3 = %.2g", s->gamma[p]);
            fkv_charts_add(&c, panel, label, fkv_color_map(0.92 * t), FKV_LOOK_POINTS,
                           s->retained[r * s->points + p], s->outcome[outcome][p]);
        }
    }
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    snprintf(note, sizeof note,
             "Segments of %d tokens; energy: mean over heads at each head's own L. Whiskers: 95%%, "
             "bootstrap %s. \u03c1: Spearman over the runs, 95%% by bootstrap over them.",
             s->n,
             fkv_se_unit_words(s->se_unit, s->documents, "blocks of 256 scored tokens", words));
    const struct fkv_charts_page page = {
        folder, "link_retained", "Retained energy against loss, along a sweep", note, 7.2, 6, 2,
        NULL};
    return write(&c, &page, l, FKV_OK, err);
}

/* ---- heads ---- */

/* The line of ranks: from the predictor's order statistic to the damage's, where rank rho of one is
 * expected at the other. */
static void add_rank_line(struct fkv_charts *c, int panel, int32_t n, const double *x,
                          const double *y, double rho, double *room, int32_t *order) {
    double *sorted_y = room, *rank = room + n;
    fkv_ranks(n, y, rank, order);
    for (int32_t i = 0; i < n; i++) sorted_y[i] = y[order[i]];
    fkv_ranks(n, x, rank, order);
    for (int32_t i = 0; i < n; i++) {
        double at = (n - 1) / 2.0 + rho * (i - (n - 1) / 2.0);
        int below = (int)fmax(0, floor(at)), above = below + 1 < n ? below + 1 : below;
        double value = sorted_y[below] + (at - below) * (sorted_y[above] - sorted_y[below]);
        fkv_charts_add(c, panel, "fitted ranks", (struct fkv_color){0.35, 0.35, 0.35, 1},
                       FKV_LOOK_LINE, x[order[i]], (struct fkv_interval){value, NAN, NAN});
    }
}

static int add_group(struct fkv_charts *c, const struct fkv_link *l, const struct fkv_link_group *g,
                     int measure, int predictor, struct fkv_error *err) {
    const struct fkv_damage *d = &l->damage[g->probe];
    const struct fkv_correlation *found = &g->correlation[measure][FKV_DEPTH_ALL][predictor];
    char title[160];
    double *room = malloc(4 * (size_t)g->count * sizeof *room);
    int32_t *order = malloc((size_t)g->count * sizeof *order);
    if (!room || !order) {
        free(room), free(order);
        return fkv_fail(err, "out of memory for %d heads", g->count);
    }
    name_rho(title, damage_words[measure], found->spearman);
    int panel = fkv_charts_panel(c, title, fkv_predictor_words[predictor], milli_nats);
    if (measure == FKV_DAMAGE_NLL) c->chart[panel].level = 0;
    c->chart[panel].logarithmic_y = measure == FKV_DAMAGE_KL;
    double *x = room + 2 * g->count, *y = x + g->count;
    for (int32_t i = 0; i < g->count; i++) {
        const struct fkv_link_head *h = &l->heads.head[g->first + i];
        struct fkv_interval damage = milli(d->row[h->change].mean[measure]);
        int third = fkv_depth_of(h->layer, d->probe->layers) - FKV_DEPTH_EARLY;
        char label[40];
        snprintf(label, sizeof label, "%s third of the layers",
                 fkv_depth_names[FKV_DEPTH_EARLY + third]);
        x[i] = h->predictor[predictor], y[i] = damage.estimate;
        fkv_charts_add(c, panel, label, fkv_color_map(0.1 + 0.38 * third), FKV_LOOK_POINTS, x[i],
                       damage);
    }
    if (isfinite(found->spearman.estimate))
        add_rank_line(c, panel, g->count, x, y, found->spearman.estimate, room, order);
    free(room), free(order);
    return FKV_OK;
}

/* One figure per group: every predictor that exists against KL (first row) and delta nll. */
static int plot_group(const struct fkv_link *l, int32_t i, const char *folder,
                      struct fkv_error *err) {
    const struct fkv_link_group *g = &l->heads.group[i];
    const struct fkv_units *units = &l->damage[g->probe].units;
    struct fkv_charts c;
    char name[64], title[160], note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    int status = fkv_charts_open(&c, err), columns = 0;
    for (int measure = FKV_DAMAGES - 1; !status && measure >= 0; measure--)
        for (int p = 0; !status && p < FKV_PREDICTORS; p++) {
            if (p == FKV_PREDICTOR_ENERGY || !isfinite(l->heads.head[g->first].predictor[p]))
                continue;
            columns += measure == FKV_DAMAGE_KL;
            status = add_group(&c, l, g, measure, p, err);
        }
    snprintf(name, sizeof name, "link_heads_%d", i + 1);
    snprintf(title, sizeof title, "Energy against damage, head by head: %s", g->label);
    snprintf(note, sizeof note,
             "A point is a KV head, changed alone. Whiskers: 95%%, bootstrap %s. \u03c1: Spearman "
             "over heads, 95%% by bootstrap over them. Line: the fit of ranks, at the values "
             "that have them.%s",
             fkv_se_unit_words(units->kind, units->documents, "blocks of 256 scored tokens", words),
             g->states == 1   ? " Visible: to queries before RoPE."
             : g->states == 2 ? " Visible: after the output projection."
                              : "");
    const struct fkv_charts_page page = {folder, name,    title, note, 2.4 * columns + 0.6,
                                         5.4,    columns, NULL};
    return write(&c, &page, l, status, err);
}

/* ---- predictors ---- */

/* The rank correlation of each predictor, a panel per group and damage; thirds of the layers as
 * series. */
static int plot_predictors(const struct fkv_link *l, const char *folder, struct fkv_error *err) {
    enum { MOST = 3 };
    static const char *const depth_words[FKV_DEPTHS] = {"all layers", "early third", "middle third",
                                                        "late third"};
    struct fkv_charts c;
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (int32_t i = 0; i < l->heads.groups && i < MOST; i++)
        for (int m = FKV_DAMAGES - 1; m >= 0; m--) {
            const struct fkv_link_group *g = &l->heads.group[i];
            char title[160];
            snprintf(title, sizeof title, "%s: %s", g->label, damage_words[m]);
            int panel = fkv_charts_panel(&c, title, "Spearman's \u03c1 over heads", NULL);
            c.chart[panel].across = true, c.chart[panel].level = 0;
            for (int p = 0; p < FKV_PREDICTORS; p++) {
                int place = fkv_charts_name(&c, panel, fkv_predictor_words[p]);
                for (int depth = 0; depth < FKV_DEPTHS; depth++) {
                    struct fkv_interval rho = g->correlation[m][depth][p].spearman;
                    if (depth && l->damage[g->probe].probe->layers < 3) continue;
                    struct fkv_color color = depth ? fkv_color_map(0.1 + 0.38 * (depth - 1))
                                                   : (struct fkv_color){0.1, 0.1, 0.1, 1};
                    fkv_charts_add(&c, panel, depth_words[depth], color, FKV_LOOK_POINTS, place,
                                   rho);
                }
            }
        }
    const struct fkv_charts_page page = {
        folder,
        "link_ranking",
        "Which predictor ranks heads as damage does",
        "Whiskers: 95%, bootstrap over heads (few of them in a third of the layers). A predictor "
        "without a point does not exist for "
        "that change or capture.",
        7.2,
        0,
        2,
        NULL};
    return write(&c, &page, l, FKV_OK, err);
}

/* ---- classes ---- */

static void add_residuals(struct fkv_charts *c, const struct fkv_link *l, bool no_dc) {
    int panel = fkv_charts_panel(
        c, no_dc ? "residual (without DC)" : "residual",
        no_dc ? "share of the segment's mean energy" : "share of the token's energy", NULL);
    c->chart[panel].across = true;
    for (int s = 0; s < 2; s++) {
        const struct fkv_residuals *r = &l->residuals[s];
        for (int k = 0; k < FKV_CLASSES; k++) {
            if (r->tokens[k] < LEAST_TOKENS) continue;
            int place = fkv_charts_name(c, panel, fkv_class_names[k]);
            fkv_charts_add(c, panel, state_words[1 + s], fkv_color_cycle(s), FKV_LOOK_POINTS, place,
                           no_dc ? r->residual_no_dc[k] : r->residual[k]);
        }
    }
}

/* Filters and compressions of the whole cache, at most four of them. */
static void add_damages(struct fkv_charts *c, const struct fkv_link *l, const struct fkv_damage *d,
                        double *room) {
    enum { MOST = 4 };
    const struct fkv_probe *p = d->probe;
    int panel = -1, shown = 0;
    for (int64_t w = 0; w < p->window_count; w++)
        if (!p->windows[w].token_class) return;
    for (int32_t i = 0; i < p->change_count && shown < MOST; i++) {
        const struct fkv_probe_change *change = &p->changes[i];
        bool filter = change->kind == FKV_PROBE_FILTER && !change->complement,
             freqkv = change->kind == FKV_PROBE_FREQKV;
        if (change->layer >= 0 || !(filter || freqkv) ||
            change->option == FKV_PROBE_OPTION_DECOMPOSE)
            continue;
        if (panel < 0) {
            panel = fkv_charts_panel(c, "\u0394 nll", milli_nats, NULL);
            c->chart[panel].across = true, c->chart[panel].level = 0;
            for (int k = 0; k < FKV_CLASSES; k++)
                if (l->residuals[0].tokens[k] >= LEAST_TOKENS)
                    fkv_charts_name(c, panel, fkv_class_names[k]);
        }
        for (int k = 0; k < FKV_CLASSES; k++) {
            int64_t tokens;
            struct fkv_interval y = fkv_damage_of_class(d, i, k, NULL, &tokens, room);
            if (l->residuals[0].tokens[k] < LEAST_TOKENS) continue;
            fkv_charts_add(c, panel, change->label, fkv_color_cycle(2 + shown), FKV_LOOK_POINTS,
                           fkv_charts_name(c, panel, fkv_class_names[k]), milli(y));
        }
        shown++;
    }
}

static int plot_classes(const struct fkv_link *l, const char *folder, struct fkv_error *err) {
    struct fkv_charts c;
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    int status = FKV_OK;
    add_residuals(&c, l, false);
    add_residuals(&c, l, true);
    for (int32_t p = 0; !status && p < l->probes && c.panels == 2; p++) {
        long long units = (long long)l->damage[p].units.count;
        double *room = malloc(2 * (size_t)units * sizeof *room);
        status = room ? FKV_OK : fkv_fail(err, "out of memory for %lld units", units);
        if (room) add_damages(&c, l, &l->damage[p], room);
        free(room);
    }
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    const struct fkv_residuals *r = &l->residuals[0];
    snprintf(note, sizeof note,
             "\u2016x \u2212 x_{L}\u2016^{2} per token, mean over layers and heads; L = %d of n = "
             "%d coefficients. Whiskers: 95%%, bootstrap %s.%s",
             r->retained, r->n, fkv_se_unit_words(r->se_unit, r->documents, "segments", words),
             r->by_ids ? " The capture holds no classes: those that ids alone decide." : "");
    const struct fkv_charts_page page = {folder,
                                         "link_residuals",
                                         "Who is high-frequency",
                                         note,
                                         c.panels > 2 ? 9.6 : 7.2,
                                         3.6,
                                         c.panels,
                                         NULL};
    return write(&c, &page, l, status, err);
}

int fkv_plot_link(const struct fkv_link *l, const char *folder, struct fkv_error *err) {
    if (l->has_sweep && plot_sweep(l, folder, err)) return FKV_FAILED;
    for (int32_t i = 0; l->has_heads && i < l->heads.groups; i++)
        if (plot_group(l, i, folder, err)) return FKV_FAILED;
    if (l->has_heads && l->heads.groups && plot_predictors(l, folder, err)) return FKV_FAILED;
    return l->has_residuals ? plot_classes(l, folder, err) : FKV_OK;
}
