/* Owns how comparisons of runs are written: compare.csv, the table and the JSON object of stdout
 * (compare.h). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/compare/compare.h"
#include "analyze/tables/csv.h"
#include "kernels/base/json.h"

static const char header[] = "run_a,run_b,label_a,label_b,mean_nll_a,mean_nll_b,"
                             "cache_bytes_peak_a,cache_bytes_peak_b,by,group,tokens,units,"
                             "delta_nll,delta_nll_low,delta_nll_high,delta_nll_se,delta_nll_p,"
                             "delta_kl,delta_kl_low,delta_kl_high,delta_kl_se,delta_kl_p,"
                             "delta_top1,delta_top1_low,delta_top1_high,delta_top1_se,delta_top1_p";

int fkv_comparison_write(const char *folder, const struct fkv_comparison *c,
                         struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "compare.csv", header, err)) return FKV_FAILED;
    for (int32_t pair = 0; pair < c->pairs; pair++)
        for (int32_t g = 0; g < c->groups; g++) {
            const int32_t a = c->pair[pair].a, b = c->pair[pair].b;
            const struct fkv_difference *d = fkv_comparison_at(c, pair, g);
            fkv_csv_first(f.stream, c->runs[a].path);
            fkv_csv_text(f.stream, c->runs[b].path);
            fkv_csv_text(f.stream, c->label[a]);
            fkv_csv_text(f.stream, c->label[b]);
            fkv_csv_number(f.stream, c->runs[a].mean_nll);
            fkv_csv_number(f.stream, c->runs[b].mean_nll);
            fkv_csv_number(f.stream, c->runs[a].cache_bytes_peak);
            fkv_csv_number(f.stream, c->runs[b].cache_bytes_peak);
            fkv_csv_text(f.stream, fkv_grouping_names[c->group[g].by]);
            fkv_csv_text(f.stream, c->group[g].name);
            fprintf(f.stream, ",%lld,%lld", (long long)d->tokens,
                    (long long)c->group[g].units.count);
            for (int kind = 0; kind < FKV_DIFFERENCES; kind++) {
                fkv_csv_interval(f.stream, d[kind].mean);
                fkv_csv_number(f.stream, d[kind].se);
                fkv_csv_number(f.stream, d[kind].p);
            }
            fputc('\n', f.stream);
        }
    return fkv_atomic_commit(&f, err);
}

/* ---- JSON ---- */

/* Adds tokens, units and the numbers of a pair in a group to the object, which it returns. Those of
 * nll have the short names that scripts know. */
static json_t *differences(const struct fkv_comparison *c, int32_t pair, int32_t g,
                           json_t *object) {
    static const char *const parts[] = {"", "_se", "_low", "_high", "_p"};
    static const char *const short_parts[] = {"delta_nll", "delta_nll_se", "low", "high", "p"};
    const struct fkv_difference *d = fkv_comparison_at(c, pair, g);
    json_object_set_new(object, "tokens", json_integer(d->tokens));
    json_object_set_new(object, "units", json_integer(c->group[g].units.count));
    for (int kind = 0; kind < FKV_DIFFERENCES; kind++, d++) {
        const double values[] = {d->mean.estimate, d->se, d->mean.low, d->mean.high, d->p};
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            char key[48];
            snprintf(key, sizeof key, "%s%s", fkv_difference_names[kind], parts[i]);
            json_object_set_new(object, kind == FKV_DIFFERENCE_NLL ? short_parts[i] : key,
                                fkv_json_number(values[i]));
        }
    }
    return object;
}

static json_t *groups_json(const struct fkv_comparison *c, int32_t pair, enum fkv_grouping by) {
    json_t *groups = json_array();
    for (int32_t g = 1; g < c->groups; g++)
        if (c->group[g].by == by)
            json_array_append_new(
                groups,
                differences(c, pair, g,
                            json_pack("{s:o}", "group", fkv_json_string(c->group[g].name))));
    return groups;
}

static int print_json(const struct fkv_comparison *c, enum fkv_grouping by, struct fkv_error *err) {
    const char *unit = fkv_se_unit_name(c->group->units.kind);
    json_t *runs = json_array(), *pairs = json_array();
    for (int32_t i = 0; i < c->count; i++)
        json_array_append_new(
            runs, json_pack("{s:o, s:o, s:f}", "run", fkv_json_string(c->runs[i].path), "label",
                            fkv_json_string(c->label[i]), "mean_nll", c->runs[i].mean_nll));
    for (int32_t pair = 0; pair < c->pairs; pair++) {
        const struct fkv_run_pair runs_of = c->pair[pair];
        json_t *row = json_pack("{s:o, s:o}", "a", fkv_json_string(c->runs[runs_of.a].path), "b",
                                fkv_json_string(c->runs[runs_of.b].path));
        json_array_append_new(pairs, differences(c, pair, 0, row));
        if (by != FKV_ALL_TOKENS) json_object_set_new(row, "groups", groups_json(c, pair, by));
    }
    return fkv_json_print(json_pack("{s:o, s:o, s:s, s:o}", "runs", runs, "se_unit",
                                    unit ? json_string(unit) : json_null(), "by",
                                    fkv_grouping_names[by], "pairs", pairs),
                          err);
}

/* ---- text ---- */

static bool is_there(const struct fkv_comparison *c, int kind) {
    for (int32_t pair = 0; pair < c->pairs; pair++)
        if (fkv_comparison_at(c, pair, 0)[kind].tokens) return true;
    return false;
}

static void print_difference(const struct fkv_difference *d) {
    char interval[40] = "", p[24] = "";
    if (!isfinite(d->mean.estimate)) {
        printf("  %9s %-18s %-7s", "-", "", "");
        return;
    }
    if (isfinite(d->mean.low))
        snprintf(interval, sizeof interval, "[%.4f, %.4f]", d->mean.low, d->mean.high);
    if (isfinite(d->p)) snprintf(p, sizeof p, d->p < 1e-4 ? "<0.0001" : "%.4f", d->p);
    printf("  %+9.4f %-18s %-7s", d->mean.estimate, interval, p);
}

static void print_row(const struct fkv_comparison *c, const char *name, int32_t pair, int32_t g) {
    const struct fkv_difference *d = fkv_comparison_at(c, pair, g);
    printf("  %-18.18s %8lld", name, (long long)d->tokens);
    for (int kind = 0; kind < FKV_DIFFERENCES; kind++)
        if (is_there(c, kind)) print_difference(&d[kind]);
    putchar('\n');
}

static void print_head(const struct fkv_comparison *c) {
    static const char *const heads[FKV_DIFFERENCES] = {"delta nll", "delta KL", "top-1"};
    printf("\n  %-18s %8s", "run less run", "tokens");
    for (int kind = 0; kind < FKV_DIFFERENCES; kind++)
        if (is_there(c, kind)) printf("  %9s %-18s %-7s", heads[kind], "95%", "p");
    putchar('\n');
}

static void print_text(const struct fkv_comparison *c, enum fkv_grouping by) {
    char words[FKV_SE_WORDS];
    for (int32_t i = 0; i < c->count; i++)
        printf("%3d  %.5f nats  %s  (%s)\n", i + 1, c->runs[i].mean_nll, c->label[i],
               c->runs[i].path);
    print_head(c);
    for (int32_t pair = 0; pair < c->pairs; pair++) {
        char name[FKV_DOCUMENT_NAME + 2];
        snprintf(name, sizeof name, "%d - %d", c->pair[pair].b + 1, c->pair[pair].a + 1);
        print_row(c, name, pair, 0);
        for (int32_t g = 1; g < c->groups; g++) {
            if (c->group[g].by != by) continue;
            snprintf(name, sizeof name, "  %s", c->group[g].name);
            print_row(c, name, pair, g);
        }
    }
    printf("\nMeans over tokens, paired, in nats%s.\n"
           "Intervals: 95%%, bootstrap %s; p: Student's t, uncorrected for %d comparison%s.\n",
           is_there(c, FKV_DIFFERENCE_KL) ? "; KL and top-1 agreement are each run's with its "
                                            "baseline"
                                          : "",
           fkv_se_unit_words(c->group->units.kind, c->group->units.documents,
                             "blocks of 256 scored tokens", words),
           c->pairs, c->pairs == 1 ? "" : "s");
}

int fkv_comparison_print(const struct fkv_comparison *c, enum fkv_grouping by, bool json,
                         struct fkv_error *err) {
    if (json) return print_json(c, by, err);
    print_text(c, by);
    return FKV_OK;
}
