/* Means over the prompts of a length and a depth, and over all of them. */
#include "replay/tasks/needle_report.h"

#include <inttypes.h>
#include <stdio.h>

/* Sums over prompts; the ones that a task has not stay zero. */
struct sums {
    int64_t count, exact, position;
    double logprob, per_token, first, second;
};

/* Of all prompts whose length and depth are those of cell `like`; of all where that is NULL. */
static struct sums add_up(const struct fkv_needle_sheet *sheet,
                          const struct fkv_needle_cell *like) {
    struct sums sums = {0};
    for (int64_t i = 0; i < sheet->count; i++) {
        const struct fkv_needle_cell *cell = &sheet->cells[i];
        const struct fkv_needle_result *r = &sheet->results[i];
        if (like && (cell->length != like->length || cell->depth != like->depth)) continue;
        sums.count++;
        sums.exact += r->exact;
        sums.position += cell->position;
        sums.logprob += r->logprob;
        sums.per_token += r->logprob / cell->answer;
        sums.first += r->first;
        sums.second += r->second;
    }
    return sums;
}

static void set_means(json_t *o, enum fkv_needle_kind kind, const struct sums *sums) {
    const struct {
        const char *name;
        double sum;
    } needle[] = {{"exact", (double)sums->exact},
                  {"logprob", sums->logprob},
                  {"logprob_per_token", sums->per_token}},
      recall[] = {{"first_nll", sums->first},
                  {"second_nll", sums->second},
                  {"gain", sums->first - sums->second}},
      *all = kind == FKV_RECALL ? recall : needle;
    for (int i = 0; i < 3; i++)
        json_object_set_new(o, all[i].name, fkv_json_number(all[i].sum / (double)sums->count));
}

json_t *fkv_needle_report_json(const struct fkv_needle_sheet *sheet) {
    const struct fkv_policy_setup *setup = sheet->setup;
    const struct sums all = add_up(sheet, NULL);
    json_t *cells = json_array(), *o = json_object();
    for (int64_t i = 0; i < sheet->count; i++) {
        const struct fkv_needle_cell *cell = &sheet->cells[i];
        if (cell->repeat) continue;
        const struct sums sums = add_up(sheet, cell);
        json_t *one = json_object();
        json_object_set_new(one, "length", json_integer(cell->length));
        json_object_set_new(one, "depth", fkv_json_number(cell->depth));
        json_object_set_new(one, "position",
                            fkv_json_number((double)sums.position / (double)sums.count));
        set_means(one, sheet->kind, &sums);
        json_array_append_new(cells, one);
    }
    json_object_set_new(o, "task", json_string(fkv_needle_kinds[sheet->kind]));
    json_object_set_new(o, "policy", json_string(setup->policy->name));
    json_object_set_new(o, "window",
                        setup->policy->takes_window ? json_integer(setup->window) : json_null());
    json_object_set_new(o, "gamma", fkv_json_number(setup->gamma));
    json_object_set_new(o, "prompts", json_integer(sheet->count));
    set_means(o, sheet->kind, &all);
    json_object_set_new(o, "cells", cells);
    return o;
}

static void print_sums(enum fkv_needle_kind kind, const struct sums *sums) {
    const double n = (double)sums->count;
    if (kind == FKV_RECALL)
        printf("  %9.4f  %10.4f  %8.4f\n", sums->first / n, sums->second / n,
               (sums->first - sums->second) / n);
    else
        printf("  %5.2f  %8.3f  %9.4f\n", (double)sums->exact / n, sums->logprob / n,
               sums->per_token / n);
}

void fkv_needle_report_print(const struct fkv_needle_sheet *sheet) {
    const enum fkv_needle_kind kind = sheet->kind;
    puts(kind == FKV_RECALL ? "length  depth  position  first nll  second nll      gain"
                            : "length  depth  position  exact   logprob  per token");
    for (int64_t i = 0; i < sheet->count; i++) {
        const struct fkv_needle_cell *cell = &sheet->cells[i];
        if (cell->repeat) continue;
        const struct sums sums = add_up(sheet, cell);
        printf("%6" PRId64 "  %5.2f  %8.0f", cell->length, cell->depth,
               (double)sums.position / (double)sums.count);
        print_sums(kind, &sums);
    }
    const struct sums all = add_up(sheet, NULL);
    printf("all                   ");
    print_sums(kind, &all);
}
