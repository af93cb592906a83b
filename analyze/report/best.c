/* Owns the sentence about the policy that loses least at equal memory: from compare.csv, whose runs
 * scored the same tokens. Equal memory: peak bytes of the cache within 1%. Of several such sets the
 * largest is looked at. Two policies are told apart where the interval of their paired difference
 * leaves out 0. */
#include "analyze/report/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/table.h"
#include "kernels/base/host.h"

#define MINUS "\u2212"

enum { FEW_UNITS = 20 };

/* Columns of compare.csv; those of the second run of a pair follow those of the first. */
enum { LABEL_A, LABEL_B, NLL_A, NLL_B, BYTES_A, BYTES_B, BY, UNITS, DELTA, LOW, HIGH, COLUMNS };
static const char *const names[COLUMNS] = {
    "label_a", "label_b", "mean_nll_a", "mean_nll_b",    "cache_bytes_peak_a", "cache_bytes_peak_b",
    "by",      "units",   "delta_nll",  "delta_nll_low", "delta_nll_high"};

struct pairs {
    struct fkv_table table;
    int column[COLUMNS];
};

static const char *text_at(const struct pairs *p, int64_t row, int column) {
    return fkv_table_text(&p->table, row, p->column[column]);
}
static double number_at(const struct pairs *p, int64_t row, int column) {
    return fkv_table_number(&p->table, row, p->column[column]);
}

struct one_run {
    const char *label;
    double nll, bytes;
};
struct run_list {
    struct one_run *run; /* [count], each label once; owned */
    int count;
};

static int list_runs(const struct pairs *p, struct run_list *list, struct fkv_error *err) {
    list->run = calloc(2 * (size_t)p->table.rows + 1, sizeof *list->run);
    if (!list->run) return fkv_fail(err, "out of memory for %lld pairs", (long long)p->table.rows);
    for (int64_t i = 0; i < 2 * p->table.rows; i++) {
        const int64_t row = i / 2;
        const int b = (int)(i % 2);
        const char *label = text_at(p, row, LABEL_A + b);
        int known = 0;
        while (known < list->count && strcmp(list->run[known].label, label)) known++;
        if (known < list->count) continue;
        list->run[list->count++] =
            (struct one_run){label, number_at(p, row, NLL_A + b), number_at(p, row, BYTES_A + b)};
    }
    return FKV_OK;
}

static bool equal_memory(const struct one_run *a, const struct one_run *b) {
    return fabs(a->bytes - b->bytes) <= 0.01 * fmax(a->bytes, b->bytes); /* false for NaN */
}

static int count_equals(const struct run_list *list, const struct one_run *run) {
    int count = 0;
    for (int i = 0; i < list->count; i++) count += equal_memory(run, &list->run[i]);
    return count;
}

/* The run with the least loss among those with as much memory as `like`, `but` apart (may be NULL).
 */
static const struct one_run *least(const struct run_list *list, const struct one_run *like,
                                   const struct one_run *but) {
    const struct one_run *best = NULL;
    for (int i = 0; i < list->count; i++) {
        const struct one_run *run = &list->run[i];
        if (run != but && equal_memory(like, run) && (!best || run->nll < best->nll)) best = run;
    }
    return best;
}

/* The overall row of two runs, which come in either order; -1: none. */
static int64_t row_of(const struct pairs *p, const char *a, const char *b) {
    for (int64_t row = 0; row < p->table.rows; row++) {
        const char *x = text_at(p, row, LABEL_A), *y = text_at(p, row, LABEL_B);
        if (!strcmp(text_at(p, row, BY), "all") &&
            ((!strcmp(x, a) && !strcmp(y, b)) || (!strcmp(x, b) && !strcmp(y, a))))
            return row;
    }
    return -1;
}

static bool told_apart(const struct pairs *p, int64_t row) {
    return number_at(p, row, LOW) > 0 || number_at(p, row, HIGH) < 0;
}

/* ", but it is not told apart from A and B" */
static void name_equals(const struct pairs *p, const struct run_list *list,
                        const struct one_run *best, char text[1024]) {
    int said = 0;
    *text = 0;
    for (int i = 0; i < list->count; i++) {
        const struct one_run *run = &list->run[i];
        if (run == best || !equal_memory(best, run)) continue;
        int64_t row = row_of(p, best->label, run->label);
        size_t used = strlen(text);
        if (row < 0 || told_apart(p, row)) continue;
        snprintf(text + used, 1024 - used, "%s%s",
                 said++ ? "; " : " The intervals do not tell it from: ", run->label);
    }
    if (said) strncat(text, ".", 1023 - strlen(text));
}

static int say(struct fkv_report *r, const struct pairs *p, const struct run_list *list,
               struct fkv_error *err) {
    const struct one_run *like = NULL;
    for (int i = 0; i < list->count; i++)
        if (!like || count_equals(list, &list->run[i]) > count_equals(list, like))
            like = &list->run[i];
    if (!like || count_equals(list, like) < 2) return FKV_OK;
    const struct one_run *best = least(list, like, NULL), *next = least(list, like, best);
    const int64_t row = row_of(p, best->label, next->label);
    if (row < 0) return FKV_OK;
    const bool swapped = strcmp(text_at(p, row, LABEL_A), best->label) != 0;
    const double low = swapped ? -number_at(p, row, HIGH) : number_at(p, row, LOW),
                 high = swapped ? -number_at(p, row, LOW) : number_at(p, row, HIGH),
                 units = number_at(p, row, UNITS);
    char bytes[16], interval[64] = "", few[96] = "", equals[1024];
    fkv_format_bytes(bytes, (int64_t)like->bytes);
    if (isfinite(low + high))
        snprintf(interval, sizeof interval, " [%s%.4f, %s%.4f]", low < 0 ? MINUS : "", fabs(low),
                 high < 0 ? MINUS : "", fabs(high));
    if (units < FEW_UNITS)
        snprintf(few, sizeof few, " Its interval rests on %.0f units only, which is few.", units);
    name_equals(p, list, best, equals);
    return fkv_text_list_add(
        &r->outline->summary, err,
        "Of the %d runs that hold %s of cache, \u201c%s\u201d loses least: %.4f nats per token, "
        "%.4f%s less than the next, \u201c%s\u201d (paired).%s%s%s",
        count_equals(list, like), bytes, best->label, best->nll, fabs(number_at(p, row, DELTA)),
        interval, next->label,
        !isfinite(low + high) ? " There is no interval, so nothing is shown."
        : told_apart(p, row)  ? " The interval leaves out 0: it is the best of them."
                              : "",
        equals, few);
}

int fkv_report_say_best(struct fkv_report *r, struct fkv_error *err) {
    char path[4096];
    struct pairs p;
    struct run_list list = {0};
    bool complete = true;
    if (!fkv_report_has(r, "compare.csv")) return FKV_OK;
    if (fkv_report_path(r, "compare.csv", path, err) || fkv_table_read(path, &p.table, err))
        return FKV_FAILED;
    for (int i = 0; i < COLUMNS; i++)
        complete = (p.column[i] = fkv_table_column(&p.table, names[i])) >= 0 && complete;
    int status = complete ? list_runs(&p, &list, err) : FKV_OK;
    if (!status) status = say(r, &p, &list, err);
    free(list.run);
    fkv_table_free(&p.table);
    return status;
}
