/* Owns the sentence about the policy that loses least at equal memory: from compare.csv, whose runs
 * scored the same tokens. Equal memory: peak bytes of the cache within 1%. Of several such sets the
 * largest is looked at. Two policies are told apart where the interval of their paired difference
 * leaves out 0. */
#include "analyze/report/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/host.h"

#define MINUS "\u2212"

enum { FEW_UNITS = 20 };

/* Of compare.csv; those of the second run of a pair follow those of the first. */
static const char columns[] =
    "label_a,label_b,mean_nll_a,mean_nll_b,cache_bytes_peak_a,cache_bytes_peak_b,by,units,"
    "delta_nll,delta_nll_low,delta_nll_high";

struct one_run {
    const char *label;
    double nll, bytes;
};
struct run_list {
    struct one_run *run; /* [count], each label once; owned */
    int count;
};

static int list_runs(const struct fkv_table *t, struct run_list *list, struct fkv_error *err) {
    static const char *const labels[] = {"label_a", "label_b"},
                             *const nlls[] = {"mean_nll_a", "mean_nll_b"},
                             *const bytes[] = {"cache_bytes_peak_a", "cache_bytes_peak_b"};
    list->run = calloc(2 * (size_t)t->rows + 1, sizeof *list->run);
    if (!list->run) return fkv_fail(err, "out of memory for %lld pairs", (long long)t->rows);
    for (int64_t i = 0; i < 2 * t->rows; i++) {
        const int64_t row = i / 2;
        const int b = (int)(i % 2);
        const char *label = fkv_table_text_of(t, row, labels[b]);
        int known = 0;
        while (known < list->count && strcmp(list->run[known].label, label)) known++;
        if (known < list->count) continue;
        list->run[list->count++] = (struct one_run){label, fkv_table_number_of(t, row, nlls[b]),
                                                    fkv_table_number_of(t, row, bytes[b])};
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
static int64_t row_of(const struct fkv_table *t, const char *a, const char *b) {
    for (int64_t row = 0; row < t->rows; row++) {
        const char *x = fkv_table_text_of(t, row, "label_a"),
                   *y = fkv_table_text_of(t, row, "label_b");
        if (!strcmp(fkv_table_text_of(t, row, "by"), "all") &&
            ((!strcmp(x, a) && !strcmp(y, b)) || (!strcmp(x, b) && !strcmp(y, a))))
            return row;
    }
    return -1;
}

static bool told_apart(const struct fkv_table *t, int64_t row) {
    return fkv_table_number_of(t, row, "delta_nll_low") > 0 ||
           fkv_table_number_of(t, row, "delta_nll_high") < 0;
}

/* ", but it is not told apart from A and B" */
static void name_equals(const struct fkv_table *t, const struct run_list *list,
                        const struct one_run *best, char text[1024]) {
    int said = 0;
    *text = 0;
    for (int i = 0; i < list->count; i++) {
        const struct one_run *run = &list->run[i];
        if (run == best || !equal_memory(best, run)) continue;
        int64_t row = row_of(t, best->label, run->label);
        size_t used = strlen(text);
        if (row < 0 || told_apart(t, row)) continue;
        snprintf(text + used, 1024 - used, "%s%s",
                 said++ ? "; " : " The intervals do not tell it from: ", run->label);
    }
    if (said) strncat(text, ".", 1023 - strlen(text));
}

static void say(struct fkv_text_list *summary, const struct fkv_table *t,
                const struct run_list *list) {
    const struct one_run *like = NULL;
    for (int i = 0; i < list->count; i++)
        if (!like || count_equals(list, &list->run[i]) > count_equals(list, like))
            like = &list->run[i];
    if (!like || count_equals(list, like) < 2) return;
    const struct one_run *best = least(list, like, NULL), *next = least(list, like, best);
    const int64_t row = row_of(t, best->label, next->label);
    if (row < 0) return;
    const bool swapped = strcmp(fkv_table_text_of(t, row, "label_a"), best->label) != 0;
    const double low = swapped ? -fkv_table_number_of(t, row, "delta_nll_high")
                               : fkv_table_number_of(t, row, "delta_nll_low"),
                 high = swapped ? -fkv_table_number_of(t, row, "delta_nll_low")
                                : fkv_table_number_of(t, row, "delta_nll_high"),
                 units = fkv_table_number_of(t, row, "units");
    char bytes[16], interval[64] = "", few[96] = "", equals[1024];
    fkv_format_bytes(bytes, (int64_t)like->bytes);
    if (isfinite(low + high))
        snprintf(interval, sizeof interval, " [%s%.4f, %s%.4f]", low < 0 ? MINUS : "", fabs(low),
                 high < 0 ? MINUS : "", fabs(high));
    if (units < FEW_UNITS)
        snprintf(few, sizeof few, " Its interval rests on %.0f units only, which is few.", units);
    name_equals(t, list, best, equals);
    fkv_text_list_add(
        summary,
        "Of the %d runs that hold %s of cache, \u201c%s\u201d loses least: %.4f nats per token, "
        "%.4f%s less than the next, \u201c%s\u201d (paired).%s%s%s",
        count_equals(list, like), bytes, best->label, best->nll,
        fabs(fkv_table_number_of(t, row, "delta_nll")), interval, next->label,
        !isfinite(low + high) ? " There is no interval, so nothing is shown."
        : told_apart(t, row)  ? " The interval leaves out 0: it is the best of them."
                              : "",
        equals, few);
}

int fkv_report_say_best(struct fkv_report *r, struct fkv_error *err) {
    struct fkv_table t;
    struct run_list list = {0};
    if (!fkv_report_has(r, "compare.csv")) return FKV_OK;
    if (fkv_report_table_read(r, "compare.csv", &t, err)) return FKV_FAILED;
    int status = FKV_OK;
    if (fkv_table_has(&t, columns)) {
        status = list_runs(&t, &list, err);
        if (!status) say(&r->outline->summary, &t, &list);
    }
    free(list.run);
    fkv_table_free(&t);
    return status;
}
