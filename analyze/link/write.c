/* Owns the tables of `link`: CSV files for everything, and the same on stdout as text or as one
 * JSON object (link.h). */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "analyze/tables/csv.h"
#include "analyze/link/link.h"
#include "kernels/base/json.h"

/* What stands in a correlation, by name, for both kinds of output. */
static const struct {
    const char *name;
    size_t offset;
} intervals[] = {{"spearman", offsetof(struct fkv_correlation, spearman)},
                 {"spearman_units", offsetof(struct fkv_correlation, spearman_units)},
                 {"pearson", offsetof(struct fkv_correlation, pearson)},
                 {"pearson_units", offsetof(struct fkv_correlation, pearson_units)},
                 {"partial", offsetof(struct fkv_correlation, partial)},
                 {"behind", offsetof(struct fkv_correlation, behind)}};
enum { INTERVALS = sizeof intervals / sizeof *intervals };

static struct fkv_interval interval_at(const struct fkv_correlation *c, int i) {
    return *(const struct fkv_interval *)(const void *)((const char *)c + intervals[i].offset);
}

/* Of keys and values, with DC and without. */
static const char *const residual_names[2][2] = {{"residual_key", "residual_key_no_dc"},
                                                 {"residual_value", "residual_value_no_dc"}};

/* ---- CSV ---- */

static int write_sweep(const char *folder, const struct fkv_link_sweep *s, struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "link_sweep.csv",
                     "run,policy,gamma,retained_key,retained_value,retained_key_no_dc,retained_"
                     "value_no_dc,mean_nll,mean_nll_low,"
                     "mean_nll_high,perplexity,delta_nll,delta_nll_low,delta_nll_high,kl",
                     err))
        return FKV_FAILED;
    for (int32_t p = 0; p < s->points; p++) {
        struct fkv_interval nll = s->outcome[FKV_OUTCOME_NLL][p];
        fkv_csv_first(f.stream, s->run[p]->path);
        fkv_csv_text(f.stream, s->run[p]->policy);
        fkv_csv_number(f.stream, s->gamma[p]);
        for (int r = 0; r < FKV_RETAINED; r++)
            fkv_csv_number(f.stream, s->retained[r * s->points + p]);
        fkv_csv_interval(f.stream, nll);
        fkv_csv_number(f.stream, exp(nll.estimate));
        fkv_csv_interval(f.stream, s->outcome[FKV_OUTCOME_DELTA][p]);
        fkv_csv_number(f.stream, s->run[p]->mean_kl);
        fputc('\n', f.stream);
    }
    return fkv_atomic_commit(&f, err);
}

static int write_heads(const char *folder, const struct fkv_link *l, struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "link_heads.csv",
                     "probe,change,states,layer,head,depth,energy,energy_no_dc,absolute,visible,"
                     "attention,attention_projected,delta_nll,"
                     "delta_nll_low,"
                     "delta_nll_high,delta_nll_q,kl,kl_low,kl_high,kl_q",
                     err))
        return FKV_FAILED;
    for (int32_t i = 0; i < l->heads.count; i++) {
        const struct fkv_link_head *h = &l->heads.head[i];
        const struct fkv_damage *d = &l->damage[h->probe];
        const struct fkv_probe_change *c = &d->probe->changes[h->change];
        fkv_csv_first(f.stream, l->probe_path[h->probe]);
        fkv_csv_text(f.stream, c->label);
        fkv_csv_text(f.stream, fkv_probe_states_names[c->states]);
        fprintf(f.stream, ",%d,%d,%s", h->layer, h->head,
                fkv_depth_names[fkv_depth_of(h->layer, d->probe->layers)]);
        for (int p = 0; p < FKV_PREDICTORS; p++) fkv_csv_number(f.stream, h->predictor[p]);
        for (int m = 0; m < FKV_DAMAGES; m++) {
            fkv_csv_interval(f.stream, d->row[h->change].mean[m]);
            fkv_csv_number(f.stream, d->row[h->change].q[m]);
        }
        fputc('\n', f.stream);
    }
    return fkv_atomic_commit(&f, err);
}

static void correlation_row(FILE *f, const char *change, const char *states, const char *damage,
                            const char *depth, const char *predictor, int32_t points,
                            const struct fkv_correlation *c) {
    fkv_csv_first(f, change);
    fkv_csv_text(f, states);
    fprintf(f, ",%s,%s,%s,%d,", damage, depth, predictor, points);
    if (c->place) fprintf(f, "%d", c->place);
    for (int i = 0; i < INTERVALS; i++) fkv_csv_interval(f, interval_at(c, i));
    fputc('\n', f);
}

static int write_predictors(const char *folder, const struct fkv_link *l, struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "link_predictors.csv", NULL, err)) return FKV_FAILED;
    fputs("change,states,damage,depth,predictor,points,place", f.stream);
    for (int i = 0; i < INTERVALS; i++)
        fprintf(f.stream, ",%s,%s_low,%s_high", intervals[i].name, intervals[i].name,
                intervals[i].name);
    fputc('\n', f.stream);
    for (int o = 0; l->has_sweep && o < FKV_OUTCOMES; o++)
        for (int r = 0; l->sweep.has_outcome[o] && r < FKV_RETAINED; r++)
            correlation_row(f.stream, "sweep", "both", fkv_outcome_names[o], "all",
                            fkv_retained_names[r], l->sweep.points, &l->sweep.correlation[o][r]);
    for (int32_t i = 0; l->has_heads && i < l->heads.groups; i++) {
        const struct fkv_link_group *g = &l->heads.group[i];
        for (int m = 0; m < FKV_DAMAGES; m++)
            for (int depth = 0; depth < FKV_DEPTHS; depth++)
                for (int p = 0; p < FKV_PREDICTORS; p++)
                    correlation_row(f.stream, g->label, fkv_probe_states_names[g->states],
                                    fkv_damage_names[m], fkv_depth_names[depth],
                                    fkv_predictor_names[p], g->points[depth],
                                    &g->correlation[m][depth][p]);
    }
    return fkv_atomic_commit(&f, err);
}

static void class_row(FILE *f, const char *quantity, int c, int64_t tokens, struct fkv_interval x,
                      double se) {
    fkv_csv_first(f, quantity);
    fkv_csv_text(f, fkv_class_names[c]);
    fprintf(f, ",%lld", (long long)tokens);
    fkv_csv_interval(f, x);
    fkv_csv_number(f, se);
    fputc('\n', f);
}

static int write_damage_by_class(FILE *f, const struct fkv_damage *d, struct fkv_error *err) {
    double *scratch = malloc(2 * (size_t)d->units.count * sizeof *scratch);
    if (!scratch) return fkv_fail(err, "out of memory for %lld units", (long long)d->units.count);
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        if (change->layer >= 0 || change->kind == FKV_PROBE_NONE) continue;
        for (int c = 0; c < FKV_CLASSES; c++) {
            char quantity[FKV_PROBE_LABEL + 16];
            double se;
            int64_t tokens;
            struct fkv_interval x = fkv_damage_of_class(d, i, c, &se, &tokens, scratch);
            snprintf(quantity, sizeof quantity, "delta_nll: %s", change->label);
            class_row(f, quantity, c, tokens, x, se);
        }
    }
    free(scratch);
    return FKV_OK;
}

static int write_classes(const char *folder, const struct fkv_link *l, struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "link_classes.csv", "quantity,class,tokens,mean,low,high,se", err))
        return FKV_FAILED;
    for (int i = 0; l->has_residuals && i < 4 * FKV_CLASSES; i++) {
        const struct fkv_residuals *r = &l->residuals[i / (2 * FKV_CLASSES)];
        const int c = i / 2 % FKV_CLASSES, no_dc = i % 2;
        class_row(f.stream, residual_names[i / (2 * FKV_CLASSES)][no_dc], c, r->tokens[c],
                  r->residual[no_dc][c], r->se[no_dc][c]);
    }
    int status = FKV_OK;
    for (int32_t p = 0; !status && p < l->probes; p++)
        status = write_damage_by_class(f.stream, &l->damage[p], err);
    if (!status) return fkv_atomic_commit(&f, err);
    fkv_atomic_abandon(&f);
    return status;
}

int fkv_link_write(const char *folder, const struct fkv_link *l, struct fkv_error *err) {
    if (l->has_sweep && write_sweep(folder, &l->sweep, err)) return FKV_FAILED;
    if (l->has_heads && write_heads(folder, l, err)) return FKV_FAILED;
    if (write_predictors(folder, l, err)) return FKV_FAILED;
    return l->has_residuals || l->probes ? write_classes(folder, l, err) : FKV_OK;
}

/* ---- JSON ---- */

static json_t *interval_json(struct fkv_interval x) {
    return json_pack("[o, o, o]", fkv_json_number(x.estimate), fkv_json_number(x.low),
                     fkv_json_number(x.high));
}

static json_t *se_unit_json(enum fkv_se_unit unit) {
    const char *name = fkv_se_unit_name(unit);
    return name ? json_string(name) : json_null();
}

static json_t *correlation_json(const char *predictor, const struct fkv_correlation *c) {
    json_t *object = json_pack("{s:s, s:o}", "predictor", predictor, "place",
                               c->place ? json_integer(c->place) : json_null());
    for (int i = 0; i < INTERVALS; i++)
        json_object_set_new(object, intervals[i].name, interval_json(interval_at(c, i)));
    return object;
}

static json_t *sweep_json(const struct fkv_link_sweep *s, int32_t segment_length) {
    json_t *points = json_array(), *links = json_array();
    for (int32_t p = 0; p < s->points; p++) {
        json_t *point =
            json_pack("{s:s, s:o}", "run", s->run[p]->path, "gamma", fkv_json_number(s->gamma[p]));
        if (!point) continue;
        for (int r = 0; r < FKV_RETAINED; r++)
            json_object_set_new(point, fkv_retained_names[r],
                                fkv_json_number(s->retained[r * s->points + p]));
        for (int o = 0; o < FKV_OUTCOMES; o++)
            json_object_set_new(point, fkv_outcome_names[o], interval_json(s->outcome[o][p]));
        json_array_append_new(points, point);
    }
    for (int o = 0; o < FKV_OUTCOMES; o++)
        for (int r = 0; s->has_outcome[o] && r < FKV_RETAINED; r++) {
            json_t *link = correlation_json(fkv_retained_names[r], &s->correlation[o][r]);
            json_object_set_new(link, "damage", json_string(fkv_outcome_names[o]));
            json_array_append_new(links, link);
        }
    return json_pack("{s:i, s:o, s:o, s:o}", "segment_length", segment_length, "se_unit",
                     se_unit_json(s->se_unit), "points", points, "links", links);
}

static json_t *heads_json(const struct fkv_link *l) {
    const struct fkv_link_heads *h = &l->heads;
    json_t *groups = json_array();
    for (int32_t i = 0; i < h->groups; i++)
        for (int m = 0; m < FKV_DAMAGES; m++)
            for (int depth = 0; depth < FKV_DEPTHS; depth++) {
                const struct fkv_link_group *g = &h->group[i];
                json_t *links = json_array();
                for (int p = 0; p < FKV_PREDICTORS; p++)
                    json_array_append_new(links, correlation_json(fkv_predictor_names[p],
                                                                  &g->correlation[m][depth][p]));
                json_array_append_new(
                    groups,
                    json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o}", "change", g->label, "states",
                              fkv_probe_states_names[g->states], "damage", fkv_damage_names[m],
                              "depth", fkv_depth_names[depth], "heads", g->points[depth], "se_unit",
                              se_unit_json(l->damage[g->probe].units.kind), "links", links));
            }
    return groups;
}

static json_t *classes_json(const struct fkv_residuals residuals[2]) {
    json_t *classes = json_array();
    for (int c = 0; c < FKV_CLASSES; c++) {
        json_t *row = json_pack("{s:s, s:I}", "class", fkv_class_names[c], "tokens",
                                (json_int_t)residuals[0].tokens[c]);
        for (int i = 0; i < 4; i++)
            json_object_set_new(row, residual_names[i / 2][i % 2],
                                interval_json(residuals[i / 2].residual[i % 2][c]));
        json_array_append_new(classes, row);
    }
    return classes;
}

static int print_json(const struct fkv_link *l, struct fkv_error *err) {
    json_t *object = json_pack("{s:s, s:s, s:s}", "capture", l->capture, "capture_sha256",
                               l->provenance->capture_sha256, "model", l->provenance->model);
    if (!object)
        return fkv_fail(err, "%s: its path or model name is not UTF-8, which JSON needs",
                        l->capture);
    json_object_set_new(object, "sweep",
                        l->has_sweep ? sweep_json(&l->sweep, l->segment_length[0]) : json_null());
    json_object_set_new(object, "prefix_segment_length",
                        l->segment_length[1] ? json_integer(l->segment_length[1]) : json_null());
    json_object_set_new(object, "heads", l->has_heads ? heads_json(l) : json_null());
    json_object_set_new(object, "classes_se_unit",
                        l->has_residuals ? se_unit_json(l->residuals[0].se_unit) : json_null());
    json_object_set_new(object, "classes",
                        l->has_residuals ? classes_json(l->residuals) : json_null());
    return fkv_json_print(object, err);
}

/* ---- text ---- */

static void print_interval(struct fkv_interval x) {
    if (!isfinite(x.estimate))
        printf("  %-22s", "-");
    else if (isfinite(x.low))
        printf("  %6.3f [%6.3f,%6.3f]", x.estimate, x.low, x.high);
    else
        printf("  %6.3f %-15s", x.estimate, "");
}

static void print_se_unit(enum fkv_se_unit unit, int64_t documents, const char *blocks) {
    char words[FKV_SE_WORDS];
    printf("  intervals over texts: 95%%, bootstrap %s\n",
           fkv_se_unit_words(unit, documents, blocks, words));
}

static void print_sweep(const struct fkv_link_sweep *s) {
    printf("Retained energy along %d runs (segments of %d tokens)\n"
           "   gamma   key  key no DC  value  value no DC   mean nll   delta nll\n",
           s->points, s->n);
    for (int32_t p = 0; p < s->points; p++) {
        printf("  %6.3f %5.3f     %5.3f  %5.3f        %5.3f    %7.4f", s->gamma[p], s->retained[p],
               s->retained[2 * s->points + p], s->retained[s->points + p],
               s->retained[3 * s->points + p], s->outcome[FKV_OUTCOME_NLL][p].estimate);
        struct fkv_interval delta = s->outcome[FKV_OUTCOME_DELTA][p];
        if (isfinite(delta.estimate))
            printf(isfinite(delta.low + delta.high) ? "   %8.4f [%.4f, %.4f]\n" : "   %8.4f\n",
                   delta.estimate, delta.low, delta.high);
        else
            printf("          -\n");
    }
    print_se_unit(s->se_unit, s->documents, "blocks of 256 scored tokens");
    for (int o = 0; o < FKV_OUTCOMES; o++) {
        if (!s->has_outcome[o]) continue;
        printf("  %-22s  %-24s%-24s%s\n", fkv_outcome_names[o], "Spearman [over runs]",
               "[over texts]", "Pearson");
        for (int r = 0; r < FKV_RETAINED; r++) {
            const struct fkv_correlation *c = &s->correlation[o][r];
            printf("  %-22s", fkv_retained_names[r]);
            print_interval(c->spearman);
            print_interval(c->spearman_units);
            print_interval(c->pearson);
            putchar('\n');
        }
    }
}

static void print_group(const struct fkv_link_group *g, int measure) {
    printf("%s, %d heads: Spearman with %s\n  %-19s%5s  %-24s%-24s%-24s%s\n", g->label, g->count,
           fkv_damage_names[measure], "predictor", "place", "[over heads]", "[over texts]",
           "given depth", "behind the best");
    for (int place = 1; place <= FKV_PREDICTORS + 1; place++)
        for (int p = 0; p < FKV_PREDICTORS; p++) {
            const struct fkv_correlation *c = &g->correlation[measure][FKV_DEPTH_ALL][p];
            if (c->place != place % (FKV_PREDICTORS + 1)) continue;
            printf("  %-19s", fkv_predictor_names[p]);
            if (c->place)
                printf("%5d", c->place);
            else
                printf("%5s", "-");
            print_interval(c->spearman);
            print_interval(c->spearman_units);
            print_interval(c->partial);
            print_interval(c->behind);
            putchar('\n');
        }
}

/* What holds for all groups of a probe. */
static void print_probe(const struct fkv_link *l, int32_t p) {
    const struct fkv_damage *d = &l->damage[p];
    printf("%s\n", l->probe_path[p]);
    print_se_unit(d->units.kind, d->units.documents, "blocks of 256 scored tokens");
    if (!d->excess)
        printf("  no q of KL: the file holds no KL of the untouched run repeated (repeat_kl), and "
               "no other is a reference\n");
}

static void print_classes(const struct fkv_residuals r[2]) {
    printf("Residual of tokens, %d of %d coefficients kept (of the token's energy; of the "
           "segment's without DC)\n"
           "  %-17s%8s  %-24s%-24s%-24s%s\n",
           r[0].retained, r[0].n, "class", "tokens", "key", "key no DC", "value", "value no DC");
    for (int c = 0; c < FKV_CLASSES; c++) {
        printf("  %-17s%8lld", fkv_class_names[c], (long long)r[0].tokens[c]);
        for (int i = 0; i < 4; i++) print_interval(r[i / 2].residual[i % 2][c]);
        putchar('\n');
    }
    print_se_unit(r[0].se_unit, r[0].documents, "segments");
}

int fkv_link_print(const struct fkv_link *l, bool json, struct fkv_error *err) {
    if (json) return print_json(l, err);
    if (l->has_sweep) print_sweep(&l->sweep);
    for (int32_t p = 0; l->has_heads && p < l->probes; p++) print_probe(l, p);
    for (int32_t i = 0; l->has_heads && i < l->heads.groups; i++)
        for (int m = 0; m < FKV_DAMAGES; m++) print_group(&l->heads.group[i], m);
    if (l->has_residuals) print_classes(l->residuals);
    return FKV_OK;
}
