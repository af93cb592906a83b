/* Owns what is compared (compare.h): which tokens are the same, how they are grouped, and sums. */
#include "analyze/compare/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/link/token_classes.h"
#include "kernels/statistics/significance.h"

enum { MOST_POSITIONS = 16, LEAST_WIDTH = 64 };

const char *const fkv_difference_names[FKV_DIFFERENCES] = {"delta_nll", "delta_kl", "delta_top1"};
const char *const fkv_grouping_names[FKV_GROUPINGS] = {"all", "position", "class", "document"};

enum fkv_grouping fkv_grouping_find(const char *name) {
    int by = 0;
    while (by < FKV_GROUPINGS && strcmp(fkv_grouping_names[by], name)) by++;
    return (enum fkv_grouping)by;
}

/* ---- which runs can be compared ---- */

/* Of the first document or window of which the runs scored other targets; -1: none. */
static int32_t other_targets(const struct fkv_run *a, const struct fkv_run *b) {
    for (int32_t d = 0; d < a->column_sets; d++) {
        const struct fkv_run_columns *x = &a->columns[d], *y = &b->columns[d];
        if (x->count != y->count) return d;
        for (int64_t t = 0; t < x->count; t++)
            if (isfinite(x->nll[t]) != isfinite(y->nll[t])) return d;
    }
    return -1;
}

static int check_pair(const struct fkv_run *a, const struct fkv_run *b, struct fkv_error *err) {
    const size_t windows = (size_t)a->windows * sizeof *a->window_start;
    if (a->joined != b->joined || a->windows != b->windows ||
        (windows && memcmp(a->window_start, b->window_start, windows)))
        return fkv_fail(err,
                        "%s and %s: expected runs of the same windows, found \"%s\" and \"%s\"",
                        a->path, b->path, a->protocol, b->protocol);
    if (a->documents != b->documents)
        return fkv_fail(err, "%s and %s: expected runs of the same documents, found %d and %d",
                        a->path, b->path, a->documents, b->documents);
    for (int32_t d = 0; d < a->documents; d++) {
        const struct fkv_run_document *x = &a->document[d], *y = &b->document[d];
        if (x->count != y->count ||
            memcmp(x->tokens, y->tokens, (size_t)x->count * sizeof *x->tokens))
            return fkv_fail(err,
                            "%s and %s: expected runs of the same tokens, found others in document "
                            "%d (\"%s\", %lld tokens, and \"%s\", %lld)",
                            a->path, b->path, d, x->name, (long long)x->count, y->name,
                            (long long)y->count);
    }
    int32_t d = other_targets(a, b);
    if (d < 0) return FKV_OK;
    return fkv_fail(
        err,
        "%s and %s: expected runs that scored the same tokens, found others%s%s: \"%s\" "
        "from token %d on and \"%s\" from token %d on",
        a->path, b->path, a->joined ? "" : " in ", a->joined ? "" : a->document[d].name,
        a->protocol, a->score_from, b->protocol, b->score_from);
}

int fkv_comparison_check(const struct fkv_run *runs, int32_t count, struct fkv_error *err) {
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_run *run = &runs[i];
        for (int32_t d = 0; !run->joined && d < run->column_sets; d++)
            if (run->columns[d].count != run->document[d].count)
                return fkv_fail(err, "%s: document %d: expected %lld values of nll, found %lld",
                                run->path, d, (long long)run->document[d].count,
                                (long long)run->columns[d].count);
        if (run->joined && (run->windows < 1 || run->columns[0].count % run->windows))
            return fkv_fail(err, "%s: /windows/nll: expected a row per window of %lld, found %lld",
                            run->path, (long long)run->windows, (long long)run->columns[0].count);
        if (i && check_pair(&runs[0], run, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- groups of tokens ---- */

/* Tokens of the longest document, or of a window. */
static int64_t longest(const struct fkv_run *run) {
    int64_t most = 0;
    if (run->joined) return run->columns[0].count / run->windows;
    for (int32_t d = 0; d < run->column_sets; d++)
        if (run->columns[d].count > most) most = run->columns[d].count;
    return most;
}

/* The next group, of the run's units, or of one document's. */
static struct fkv_token_group *add_group(struct fkv_comparison *c, enum fkv_grouping by,
                                         int32_t index, const char *name, struct fkv_error *err) {
    struct fkv_token_group *g = &c->group[c->groups];
    const struct fkv_run *run = c->runs;
    g->by = by, g->index = index;
    snprintf(g->name, sizeof g->name, "%s", name);
    int64_t blocks = 0;
    if (by == FKV_BY_DOCUMENT)
        blocks =
            (fkv_run_scored(&run->columns[index]) + FKV_BOOTSTRAP_BLOCK - 1) / FKV_BOOTSTRAP_BLOCK;
    int status = by == FKV_BY_DOCUMENT ? fkv_units_make(&blocks, 1, false, &g->units, err)
                                       : fkv_run_units(run, &g->units, err);
    if (status) return NULL;
    c->groups++;
    return g;
}

/* All tokens; positions in at most 16 bins of one width, a power of two; and where documents are
 * apart, classes of tokens and documents. */
static int make_groups(struct fkv_comparison *c, struct fkv_error *err) {
    const struct fkv_run *run = c->runs;
    const int64_t length = longest(run);
    int64_t width = LEAST_WIDTH;
    while (length > MOST_POSITIONS * width) width *= 2;
    size_t most = 1 + MOST_POSITIONS + FKV_CLASSES + (size_t)run->documents;
    c->group = fkv_memory_take(&c->memory, most, sizeof *c->group);
    if (!c->group) return fkv_fail(err, "out of memory for %zu groups of tokens", most);
    if (!add_group(c, FKV_ALL_TOKENS, 0, fkv_grouping_names[FKV_ALL_TOKENS], err))
        return FKV_FAILED;
    for (int64_t first = 0; first < length; first += width) {
        char name[48];
        snprintf(name, sizeof name, "%lld-%lld", (long long)first, (long long)(first + width - 1));
        struct fkv_token_group *g = add_group(c, FKV_BY_POSITION, 0, name, err);
        if (!g) return FKV_FAILED;
        g->first = first, g->end = first + width;
    }
    if (run->joined) return FKV_OK;
    bool by_text = true;
    for (int32_t d = 0; d < run->documents; d++) by_text = by_text && run->document[d].token_class;
    for (int class = by_text ? 1 : FKV_CLASSES_BY_IDS; class < FKV_CLASSES; class ++)
        if (!add_group(c, FKV_BY_CLASS, class, fkv_class_names[class], err)) return FKV_FAILED;
    for (int32_t d = 0; d < run->documents; d++)
        if (!add_group(c, FKV_BY_DOCUMENT, d, run->document[d].name, err)) return FKV_FAILED;
    return FKV_OK;
}

static bool holds(const struct fkv_token_group *g, int64_t position, const uint8_t *classes,
                  int64_t token) {
    if (g->by == FKV_BY_POSITION) return position >= g->first && position < g->end;
    return g->by != FKV_BY_CLASS || fkv_class_has(classes[token], g->index);
}

/* ---- differences ---- */

/* Values per token of a kind; NULL where the run has none. */
static const float *values_of(const struct fkv_run_columns *columns,
                              enum fkv_difference_kind kind) {
    if (kind == FKV_DIFFERENCE_NLL) return columns->nll;
    return kind == FKV_DIFFERENCE_KL ? columns->kl : columns->agree;
}

/* What one pass over two runs' tokens needs beside them. */
struct pass {
    const uint8_t **classes; /* [documents] of their tokens; NULL where documents are joined */
    int64_t row;             /* tokens of a window; 0: positions count from the document's start */
    double *sums;            /* [units] of the group at hand */
    double *counts;          /* the same: tokens */
    double *independent;     /* the same: scratch of the test */
    struct fkv_memory memory;
};

static void add_tokens(const struct fkv_run *a, const struct fkv_run *b,
                       enum fkv_difference_kind kind, const struct fkv_token_group *g, int32_t d,
                       const struct pass *p) {
    const struct fkv_run_columns *columns = &a->columns[d];
    const float *x = values_of(columns, kind), *y = values_of(&b->columns[d], kind);
    int64_t seen = 0;
    if (!x || !y) return;
    for (int64_t t = 0; t < columns->count; t++) {
        if (!isfinite(columns->nll[t])) continue;
        int64_t block = seen++ / FKV_BOOTSTRAP_BLOCK;
        if (!holds(g, p->row ? t % p->row : t, p->classes ? p->classes[d] : NULL, t)) continue;
        double difference = (double)y[t] - x[t];
        if (!isfinite(difference)) continue;
        int64_t unit = fkv_unit_at(&g->units, g->by == FKV_BY_DOCUMENT ? 0 : d, block);
        p->sums[unit] += difference, p->counts[unit] += 1;
    }
}

static struct fkv_difference difference_of(const struct fkv_run *a, const struct fkv_run *b,
                                           enum fkv_difference_kind kind,
                                           const struct fkv_token_group *g, const struct pass *p) {
    struct fkv_difference found = {.mean = {NAN, NAN, NAN}, .se = NAN, .p = NAN};
    const int32_t first = g->by == FKV_BY_DOCUMENT ? g->index : 0,
                  end = g->by == FKV_BY_DOCUMENT ? g->index + 1 : a->column_sets;
    memset(p->sums, 0, (size_t)g->units.count * sizeof *p->sums);
    memset(p->counts, 0, (size_t)g->units.count * sizeof *p->counts);
    for (int32_t d = first; d < end; d++) add_tokens(a, b, kind, g, d, p);
    for (int64_t u = 0; u < g->units.count; u++) found.tokens += (int64_t)p->counts[u];
    if (!found.tokens) return found;
    found.mean = fkv_ratio_interval(&g->units, p->sums, p->counts, &found.se);
    int64_t n = fkv_independent_means(&g->units, p->sums, p->counts, p->independent);
    found.p = fkv_t_test(p->independent, n);
    return found;
}

/* Classes of a document's tokens as the file has them, else by their ids. */
static int find_classes(struct pass *p, const struct fkv_run_document *d, const uint8_t **classes,
                        struct fkv_error *err) {
    *classes = d->token_class;
    if (*classes) return FKV_OK;
    uint8_t *by_ids = fkv_memory_take(&p->memory, (size_t)d->count, 1);
    if (!by_ids)
        return fkv_fail(err, "out of memory for the classes of %lld tokens", (long long)d->count);
    *classes = by_ids;
    return fkv_classes_by_ids(d->tokens, d->count, by_ids, err);
}

static int open_pass(const struct fkv_comparison *c, struct pass *p, struct fkv_error *err) {
    const struct fkv_run *run = c->runs;
    size_t most = 0;
    for (int32_t g = 0; g < c->groups; g++)
        if ((size_t)c->group[g].units.count > most) most = (size_t)c->group[g].units.count;
    if (run->joined)
        p->row = longest(run);
    else
        p->classes = fkv_memory_take(&p->memory, (size_t)run->documents, sizeof *p->classes);
    p->sums = fkv_memory_take(&p->memory, most, sizeof(double));
    p->counts = fkv_memory_take(&p->memory, most, sizeof(double));
    p->independent = fkv_memory_take(&p->memory, most, sizeof(double));
    if (p->memory.failed) return fkv_fail(err, "out of memory for %zu units", most);
    for (int32_t d = 0; p->classes && d < run->documents; d++)
        if (find_classes(p, &run->document[d], &p->classes[d], err)) return FKV_FAILED;
    return FKV_OK;
}

/* Labels with the ratio where two of them are alike, and with the file where that does not help. */
static int make_labels(struct fkv_comparison *c, struct fkv_error *err) {
    c->label = fkv_memory_take(&c->memory, (size_t)c->count, sizeof *c->label);
    if (!c->label) return fkv_fail(err, "out of memory for %d labels", c->count);
    for (int step = 0; step < 3; step++)
        for (int32_t i = 0; i < c->count; i++) {
            const double gamma = fkv_run_gamma(&c->runs[i]);
            char *label = c->label[i];
            size_t used = strlen(label);
            if (step == 0) fkv_run_label(c->runs, c->count, i, label);
            if (step == 1 && isfinite(gamma))
                snprintf(label + used, FKV_RUN_LABEL - used, ", \u03b3 = %.3g", gamma);
            for (int32_t k = 0; step == 2 && k < c->count; k++)
                if (k != i && !strcmp(label, c->label[k])) {
                    snprintf(label + used, FKV_RUN_LABEL - used, " (%s)", c->runs[i].path);
                    break;
                }
        }
    return FKV_OK;
}

const struct fkv_difference *fkv_comparison_at(const struct fkv_comparison *c, int32_t pair,
                                               int32_t group) {
    return &c->found[((int64_t)pair * c->groups + group) * FKV_DIFFERENCES];
}

static int make(struct fkv_comparison *c, struct pass *p, struct fkv_error *err) {
    if (make_labels(c, err) || make_groups(c, err) || open_pass(c, p, err)) return FKV_FAILED;
    const size_t cells = (size_t)c->pairs * (size_t)c->groups * FKV_DIFFERENCES;
    c->pair = fkv_memory_take(&c->memory, (size_t)c->pairs, sizeof *c->pair);
    c->found = fkv_memory_take(&c->memory, cells, sizeof *c->found);
    if (c->memory.failed) return fkv_fail(err, "out of memory for %zu differences", cells);
    struct fkv_difference *next = c->found;
    struct fkv_run_pair *pair = c->pair;
    for (int32_t a = 0; a < c->count; a++)
        for (int32_t b = a + 1; b < c->count; b++, pair++) {
            *pair = (struct fkv_run_pair){a, b};
            for (int32_t g = 0; g < c->groups; g++)
                for (int kind = 0; kind < FKV_DIFFERENCES; kind++)
                    *next++ = difference_of(&c->runs[a], &c->runs[b],
                                            (enum fkv_difference_kind)kind, &c->group[g], p);
        }
    return FKV_OK;
}

int fkv_comparison_make(const struct fkv_run *runs, int32_t count, struct fkv_comparison *c,
                        struct fkv_error *err) {
    struct pass pass = {0};
    *c = (struct fkv_comparison){.runs = runs, .count = count, .pairs = count * (count - 1) / 2};
    int status = make(c, &pass, err);
    fkv_memory_free(&pass.memory);
    if (status) fkv_comparison_free(c);
    return status;
}

void fkv_comparison_free(struct fkv_comparison *c) {
    for (int32_t g = 0; g < c->groups; g++) fkv_units_free(&c->group[g].units);
    fkv_memory_free(&c->memory);
    *c = (struct fkv_comparison){0};
}
