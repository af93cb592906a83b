/* Sums per unit, then statistics by bootstrap.h, blocks being 256 scored tokens in a row within a
 * window; all are paired with the untouched run token by token. p values are corrected (Benjamini
 * and Hochberg) among the layers, or among the heads, of one change: those are the tables that
 * people search for the largest entry.
 *
 * A mean KL is never below zero, so "KL = 0" is no hypothesis that any change could meet. What is
 * tested is KL minus the KL of the untouched run repeated in blocks of another size, which is
 * rounding alone: p is one-sided, of a change that does more than rounding does. An empty change
 * has a KL of exactly 0, below the repeated run's, and two-sided that would count as a
 * difference. */
#include "replay/probe/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/statistics/significance.h"

struct units {
    struct fkv_units drawn;
    int64_t *first; /* [windows] unit of the window's first block */
    double *delta, *kl, *excess, *tokens,
        *means; /* [count]: sums of a change (excess: KL above the floor); scratch */
    bool has_floor;
};

static int32_t blocks_of(const struct fkv_probe *p) {
    return (p->score + FKV_BOOTSTRAP_BLOCK - 1) / FKV_BOOTSTRAP_BLOCK;
}

/* Windows come in the order of their documents. */
static bool begins_document(const struct fkv_probe *p, int64_t w) {
    return !w || p->windows[w].document != p->windows[w - 1].document;
}

static void units_free(struct units *u) {
    fkv_units_free(&u->drawn);
    free(u->first);
    free(u->delta);
}

static int units_make(const struct fkv_probe *p, struct units *u, struct fkv_error *err) {
    int64_t document = -1;
    *u = (struct units){.has_floor = fkv_probe_has_floor(p)};
    int64_t *blocks = calloc((size_t)p->window_count, sizeof *blocks);
    u->first = malloc((size_t)p->window_count * sizeof *u->first);
    int status =
        blocks && u->first ? FKV_OK : fkv_fail(err, "out of memory for the windows of the probe");
    for (int64_t w = 0; w < p->window_count && !status; w++)
        document += begins_document(p, w), blocks[document] += blocks_of(p);
    if (!status) status = fkv_units_make(blocks, document + 1, false, &u->drawn, err);
    document = -1;
    for (int64_t w = 0, block = 0; w < p->window_count && !status; w++, block += blocks_of(p)) {
        if (begins_document(p, w)) document++, block = 0;
        u->first[w] = fkv_unit_at(&u->drawn, document, block);
    }
    free(blocks);
    size_t count = (size_t)u->drawn.count;
    if (!status && !(u->delta = malloc(5 * count * sizeof *u->delta)))
        status = fkv_fail(err, "out of memory for the sums of %zu units", count);
    if (status) {
        units_free(u);
        return status;
    }
    u->kl = u->delta + count, u->excess = u->kl + count, u->tokens = u->excess + count,
    u->means = u->tokens + count;
    return FKV_OK;
}

static void sum_change(const struct fkv_probe *p, int32_t change, struct units *u) {
    for (int64_t i = 0; i < u->drawn.count; i++)
        u->delta[i] = u->kl[i] = u->excess[i] = u->tokens[i] = 0;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        size_t at = (size_t)change * (size_t)p->score;
        for (int32_t i = 0; i < p->score; i++) {
            int64_t unit =
                u->first[w] + (fkv_units_are_blocks(&u->drawn) ? i / FKV_BOOTSTRAP_BLOCK : 0);
            double kl = window->kl[at + (size_t)i];
            u->delta[unit] += (double)window->nll[at + (size_t)i] - window->untouched_nll[i];
            u->kl[unit] += kl;
            u->excess[unit] += kl - window->repeat_kl[i];
            u->tokens[unit] += 1;
        }
    }
}

static void measure(const struct fkv_probe *p, int32_t change, struct units *u,
                    struct fkv_probe_effect *e) {
    sum_change(p, change, u);
    *e = (struct fkv_probe_effect){.q = NAN, .kl_p = NAN, .kl_q = NAN};
    e->delta_nll = fkv_ratio_interval(&u->drawn, u->delta, u->tokens, NULL);
    e->kl = fkv_ratio_interval(&u->drawn, u->kl, u->tokens, NULL);
    e->p = fkv_t_test(u->means, fkv_independent_means(&u->drawn, u->delta, u->tokens, u->means));
    if (u->has_floor)
        e->kl_p = fkv_t_test_above(
            u->means, fkv_independent_means(&u->drawn, u->excess, u->tokens, u->means));
    for (int s = 0; s < 2; s++)
        for (int64_t w = 0; w < p->window_count; w++)
            e->lost[s] += p->windows[w].lost_energy[2 * change + s] / (double)p->window_count;
}

/* 0: all heads at once, 1: a layer, 2: a head */
static int scope_of(const struct fkv_probe_change *c) {
    return c->kv_head >= 0 ? 2 : c->layer >= 0;
}

/* The p of an effect, for delta nll or KL, and where its q belongs. */
static double *p_of(struct fkv_probe_effect *e, bool kl) { return kl ? &e->kl_p : &e->p; }
static double *q_of(struct fkv_probe_effect *e, bool kl) { return kl ? &e->kl_q : &e->q; }

static int correct(const struct fkv_probe *probe, const struct fkv_edit *edits,
                   struct fkv_probe_effect *effects, bool kl, struct fkv_error *err) {
    const int32_t count = probe->change_count;
    double *p = malloc(2 * (size_t)count * sizeof *p), *q = p + count;
    int32_t *order = malloc((size_t)count * sizeof *order);
    int status = p && order ? FKV_OK : fkv_fail(err, "out of memory for %d changes", count);
    for (int32_t first = 0, end; !status && first < count; first = end) {
        for (end = first + 1; end < count && edits[end].family == edits[first].family;) end++;
        for (int scope = 1; scope <= 2; scope++) {
            for (int32_t i = first; i < end; i++)
                p[i] = scope_of(&edits[i].row) == scope ? *p_of(&effects[i], kl) : NAN;
            fkv_benjamini_hochberg(p + first, end - first, q + first, order);
            for (int32_t i = first; i < end; i++)
                if (scope_of(&edits[i].row) == scope) *q_of(&effects[i], kl) = q[i];
        }
    }
    free(order);
    free(p);
    return status;
}

int fkv_probe_summarise(const struct fkv_probe *p, const struct fkv_edit *edits,
                        struct fkv_probe_summary *summary, struct fkv_error *err) {
    struct units u;
    *summary = (struct fkv_probe_summary){0};
    if (units_make(p, &u, err)) return FKV_FAILED;
    summary->units = u.drawn.count, summary->documents = u.drawn.documents,
    summary->se_unit = u.drawn.kind;
    summary->effects = malloc((size_t)p->change_count * sizeof *summary->effects);
    int status =
        summary->effects ? FKV_OK : fkv_fail(err, "out of memory for %d changes", p->change_count);
    for (int32_t c = 0; c < p->change_count && !status; c++)
        measure(p, c, &u, &summary->effects[c]);
    for (int64_t w = 0; w < p->window_count; w++)
        for (int32_t i = 0; i < p->score; i++)
            summary->untouched_nll +=
                p->windows[w].untouched_nll[i] / ((double)p->window_count * p->score);
    for (int kl = 0; kl < 2 && !status; kl++) status = correct(p, edits, summary->effects, kl, err);
    units_free(&u);
    if (status) fkv_probe_summary_free(summary);
    return status;
}

void fkv_probe_summary_free(struct fkv_probe_summary *summary) {
    free(summary->effects);
    summary->effects = NULL;
}

/* ---- JSON ---- */

static const char *const kind_names[FKV_PROBE_KINDS] = {"none", "filter", "noise", "freqkv",
                                                        "local"};

static json_t *switch_json(int32_t value) { return value < 0 ? json_null() : json_boolean(value); }

static json_t *index_json(int32_t value) { return value < 0 ? json_null() : json_integer(value); }

static json_t *change_json(const struct fkv_probe_change *c, const struct fkv_probe_effect *e) {
    static const char *const states[] = {"none", "key", "value", "both"};
    json_t *o = json_object();
    json_object_set_new(o, "label", json_string(c->label));
    json_object_set_new(o, "kind", json_string(kind_names[c->kind]));
    json_object_set_new(o, "layer", index_json(c->layer));
    json_object_set_new(o, "kv_head", index_json(c->kv_head));
    json_object_set_new(o, "states", json_string(states[c->states & 3]));
    json_object_set_new(o, "low", fkv_json_number(c->low));
    json_object_set_new(o, "high", fkv_json_number(c->high));
    json_object_set_new(o, "complement", json_boolean(c->complement));
    json_object_set_new(o, "epsilon", fkv_json_number(c->epsilon));
    json_object_set_new(o, "gamma", fkv_json_number(c->gamma));
    json_object_set_new(o, "truncation", switch_json(c->truncation));
    json_object_set_new(o, "squeezed", switch_json(c->squeezed));
    json_object_set_new(o, "fewer", switch_json(c->fewer));
    json_object_set_new(o, "delta_nll", fkv_json_number(e->delta_nll.estimate));
    json_object_set_new(o, "delta_nll_low", fkv_json_number(e->delta_nll.low));
    json_object_set_new(o, "delta_nll_high", fkv_json_number(e->delta_nll.high));
    json_object_set_new(o, "kl", fkv_json_number(e->kl.estimate));
    json_object_set_new(o, "kl_low", fkv_json_number(e->kl.low));
    json_object_set_new(o, "kl_high", fkv_json_number(e->kl.high));
    json_object_set_new(o, "lost_key",
                        fkv_json_number(c->states & FKV_PROBE_KEY ? e->lost[0] : NAN));
    json_object_set_new(o, "lost_value",
                        fkv_json_number(c->states & FKV_PROBE_VALUE ? e->lost[1] : NAN));
    json_object_set_new(o, "p", fkv_json_number(e->p));
    json_object_set_new(o, "q", fkv_json_number(e->q));
    json_object_set_new(o, "kl_p", fkv_json_number(e->kl_p));
    json_object_set_new(o, "kl_q", fkv_json_number(e->kl_q));
    return o;
}

json_t *fkv_probe_json(const struct fkv_probe *p, const struct fkv_probe_summary *summary) {
    json_t *o = json_object(), *changes = json_array();
    const char *se_unit = fkv_se_unit_name(summary->se_unit);
    json_object_set_new(o, "model", json_string(p->model_name));
    json_object_set_new(o, "prefix", json_integer(p->prefix));
    json_object_set_new(o, "score", json_integer(p->score));
    json_object_set_new(o, "sinks", json_integer(p->sinks));
    json_object_set_new(o, "windows", json_integer(p->window_count));
    json_object_set_new(o, "units", json_integer(summary->units));
    json_object_set_new(o, "unit",
                        json_string(summary->se_unit == FKV_SE_DOCUMENTS ? "document" : "block"));
    json_object_set_new(o, "documents", json_integer(summary->documents));
    json_object_set_new(o, "se_unit", se_unit ? json_string(se_unit) : json_null());
    json_object_set_new(o, "untouched_nll", fkv_json_number(summary->untouched_nll));
    json_object_set_new(o, "noise_floor_nll", fkv_json_number(p->noise_floor_nll));
    json_object_set_new(o, "noise_floor_kl", fkv_json_number(p->noise_floor_kl));
    for (int32_t c = 0; c < p->change_count; c++)
        json_array_append_new(changes, change_json(&p->changes[c], &summary->effects[c]));
    json_object_set_new(o, "changes", changes);
    return o;
}

/* ---- the table ---- */

static const char *number(char text[32], const char *format, double value) {
    snprintf(text, 32, isfinite(value) ? format : "-", value);
    if (!strcmp(text, "-0.00000")) *text = '+';
    return text;
}

static const char *where(char text[32], const struct fkv_probe_change *c) {
    if (c->kv_head >= 0)
        snprintf(text, 32, "layer %d head %d", c->layer, c->kv_head);
    else if (c->layer >= 0)
        snprintf(text, 32, "layer %d", c->layer);
    else
        snprintf(text, 32, "all");
    return text;
}

void fkv_probe_print(const struct fkv_probe *p, const struct fkv_probe_summary *summary) {
    char t[9][32], words[FKV_SE_WORDS];
    int wide[2] = {6, 5}; /* of the two columns of text, as narrow as they can be */
    bool corrected = false;
    for (int32_t c = 0; c < p->change_count; c++) {
        wide[0] = (int)fmax(wide[0], strlen(p->changes[c].label));
        wide[1] = (int)fmax(wide[1], strlen(where(t[0], &p->changes[c])));
        corrected = corrected || isfinite(summary->effects[c].q);
    }
    printf("model %s, prefix %d (%d sinks), %d tokens scored in each of %lld windows\n",
           p->model_name, p->prefix, p->sinks, p->score, (long long)p->window_count);
    printf("untouched: mean nll %.5f; read again in blocks of another size: |delta nll| %.2g, KL "
           "%.2g (rounding)\n",
           summary->untouched_nll, p->noise_floor_nll, p->noise_floor_kl);
    printf("intervals: 95%%, bootstrap %s\nlost: energy taken out, over the energy without DC\n\n",
           fkv_se_unit_words(summary->se_unit, summary->documents, "blocks of 256 scored tokens",
                             words));
    printf("%-*s %-*s %8s %20s %8s %9s %9s%s\n", wide[0], "change", wide[1], "where", "delta nll",
           "interval", "KL", "lost keys", "lost vals", corrected ? "       q" : "");
    for (int32_t c = 0; c < p->change_count; c++) {
        const struct fkv_probe_change *row = &p->changes[c];
        const struct fkv_probe_effect *e = &summary->effects[c];
        printf("%-*s %-*s %9s [%8s, %8s] %8s %9s %9s", wide[0], row->label, wide[1],
               where(t[0], row), number(t[1], "%+.5f", e->delta_nll.estimate),
               number(t[2], "%+.5f", e->delta_nll.low), number(t[3], "%+.5f", e->delta_nll.high),
               number(t[4], "%.6f", fmax(e->kl.estimate, 0)),
               number(t[5], "%.4f", row->states & FKV_PROBE_KEY ? e->lost[0] : NAN),
               number(t[6], "%.4f", row->states & FKV_PROBE_VALUE ? e->lost[1] : NAN));
        printf(corrected ? " %7s\n" : "\n", number(t[7], "%.2g", e->q));
    }
}
