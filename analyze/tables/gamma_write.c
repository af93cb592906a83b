/* Owns what is written and printed of a ratio table (gamma.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/measure/gamma.h"
#include "analyze/tables/csv.h"
#include "analyze/tables/summary.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/json.h"

enum { K = FKV_RATIO_STEPS, FEW_HEADS = 12 };

static const char policies_file[] = "policies.json";
static const char *const loss_names[FKV_LOSSES] = {"key_energy_lost", "value_energy_lost",
                                                   "objective", "objective_projected"};

/* ---- gamma.json and policies.json ---- */

enum field { GAMMA, RETAINED, POLICY };

/* One of them as [layer][kv_head]. */
static json_t *rows(const struct fkv_ratio_table *t, enum field field) {
    json_t *layers = json_array();
    for (int32_t l = 0; l < t->layers; l++) {
        json_t *row = json_array();
        for (int32_t at = l * t->heads; at < (l + 1) * t->heads; at++)
            json_array_append_new(row, field == GAMMA ? json_real(t->gamma[at])
                                       : field == RETAINED
                                           ? json_integer(t->retained[at])
                                           : json_string(t->local[at] ? "local" : "freqkv"));
        json_array_append_new(layers, row);
    }
    return layers;
}

/* How heads came to be under local, and how many did; null: there is no policies.json. */
static json_t *mixed(const struct fkv_ratio_table *t) {
    const struct fkv_ratio_choice *c = &t->choice;
    if (!c->mixed) return json_null();
    return json_pack("{s:s, s:f, s:i}", "rule", c->mixed == FKV_MIXED_ENERGY ? "energy" : "worst",
                     "share", c->mixed_share, "local_heads", t->local_heads);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every text with a segment, once; a user's own file need not know its texts, nor call them by
 * hashes. */
static json_t *texts(struct fkv_capture *capture, const struct fkv_segment_plan *plan) {
    const char **hashes = malloc((size_t)(plan->recordings + 1) * sizeof *hashes);
    if (!hashes) return NULL;
    json_t *list = json_array();
    for (int32_t i = 0; i < plan->recordings; i++)
        hashes[i] = fkv_capture_recording(capture, plan->recording[i].recording)->text_sha256;
    qsort(hashes, (size_t)plan->recordings, sizeof *hashes, by_text);
    for (int32_t i = 0; i < plan->recordings; i++)
        if (strlen(hashes[i]) == sizeof(fkv_sha256_hex) - 1 &&
            (!i || strcmp(hashes[i], hashes[i - 1])))
            json_array_append_new(list, json_string(hashes[i]));
    free(hashes);
    return list;
}

static json_t *how(const struct fkv_ratio_choice *c) {
    return json_pack(
        "{s:s, s:f, s:s, s:b, s:f, s:f}", "criterion", c->by_budget ? "budget" : "energy",
        c->by_budget ? "mean_gamma" : "retained_energy", c->target, "objective",
        fkv_objective_names[c->objective], "dc", c->dc, "floor", c->floor, "cap", c->cap);
}

/* `name`: gamma.json, or policies.json, which is the same and has the policies. */
static int write_json(const char *folder, const char *name, const struct fkv_ratio_table *t,
                      struct fkv_capture *capture, const struct fkv_segment_plan *plan,
                      const struct fkv_provenance *p, struct fkv_error *err) {
    struct fkv_atomic_file f;
    const bool with_policies = !strcmp(name, policies_file);
    json_t *chosen = how(&t->choice), *hashes = texts(capture, plan);
    json_t *origin =
        json_pack("{s:s, s:i, s:i, s:i, s:I, s:s}", "capture_sha256", p->capture_sha256,
                  "segment_length", t->n, "skip_sinks", plan->skip_sinks, "documents",
                  plan->documents, "segments", (json_int_t)plan->segments, "command", p->command);
    json_t *object = json_pack(
        "{s:s, s:i, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:o, s:o, s:o, s:o, s:o}", "format",
        with_policies ? "freqkv-policies" : "freqkv-gamma", "format_version", 1, "version",
        p->version, "model", p->model, "model_sha256", fkv_capture_info(capture)->model_sha256,
        "n_layers", t->layers, "n_kv_heads", t->heads, "window", t->choice.window, "sinks",
        t->choice.sinks, "mean_gamma", t->mean, "gamma", rows(t, GAMMA), "retained",
        rows(t, RETAINED), "chosen", chosen, "measured", origin, "text_sha256", hashes);
    if (!object)
        return fkv_fail(
            err, "%s: the command line or the model's name is not UTF-8, which JSON needs", name);
    if (with_policies) {
        json_object_set_new(object, "policy", rows(t, POLICY));
        json_object_set_new(object, "mixed", mixed(t));
    }
    int status = fkv_csv_open(&f, folder, name, NULL, err);
    if (!status && json_dumpf(object, f.stream, JSON_INDENT(1) | JSON_REAL_PRECISION(17))) {
        status = fkv_fail_errno(err, "%s", f.path);
        fkv_atomic_abandon(&f);
    } else if (!status) {
        fputc('\n', f.stream);
        status = fkv_atomic_commit(&f, err);
    }
    json_decref(object);
    return status;
}

/* ---- gamma.csv ---- */

static int write_csv(const char *folder, const struct fkv_ratio_table *t, struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "gamma.csv", NULL, err)) return FKV_FAILED;
    fputs("layer,head,gamma,retained", f.stream);
    for (int i = 0; i < t->losses; i++)
        fprintf(f.stream, ",%s,%s_uniform", loss_names[i], loss_names[i]);
    fputc('\n', f.stream);
    for (int32_t at = 0; at < t->layers * t->heads; at++) {
        fprintf(f.stream, "%d,%d,%.9g,%d", t->layer_index[at / t->heads],
                t->head_index[at % t->heads], t->gamma[at], t->retained[at]);
        for (int i = 0; i < t->losses; i++) {
            const double *loss = t->loss[i] + (size_t)at * (K + 1);
            fprintf(f.stream, ",%.9g,%.9g", loss[t->parts[at]], fkv_uniform_loss(loss, t->mean));
        }
        fputc('\n', f.stream);
    }
    return fkv_atomic_commit(&f, err);
}

int fkv_ratio_table_write(const char *folder, const struct fkv_ratio_table *t,
                          struct fkv_capture *capture, const struct fkv_segment_plan *plan,
                          const struct fkv_provenance *p, struct fkv_error *err) {
    if (write_json(folder, "gamma.json", t, capture, plan, p, err) ||
        (t->choice.mixed && write_json(folder, policies_file, t, capture, plan, p, err)))
        return FKV_FAILED;
    return write_csv(folder, t, err);
}

/* ---- stdout ---- */

static const char *objective_text(const struct fkv_ratio_table *t) {
    static const char *const names[FKV_OBJECTIVES] = {"mean of the two", "energy lost per channel",
                                                      "attention-output error, squared"};
    return names[t->choice.objective];
}

static void print_losses(const struct fkv_ratio_table *t) {
    const char *const labels[FKV_LOSSES] = {"keys, share of energy lost",
                                            "values, share of energy lost", objective_text(t),
                                            "the same, projected"};
    printf("  mean over heads%s        this table    uniform %.4f    difference\n",
           t->choice.dc ? "          " : ", without DC", t->mean);
    for (int i = 0; i < t->losses; i++) {
        double table = t->table_loss[i], uniform = t->uniform_loss[i];
        printf("  %-33s %12.5g %17.5g", labels[i], table, uniform);
        if (uniform > 0)
            printf("  %11.1f%%\n", 100 * (table / uniform - 1));
        else
            printf("  %12s\n", "-");
    }
}

static void print_layers(const struct fkv_ratio_table *t) {
    bool few = t->heads <= FEW_HEADS;
    printf("  layer   mean    %s\n", few ? "gamma of each KV head" : "least  largest");
    for (int32_t l = 0; l < t->layers; l++) {
        double mean = 0, least = INFINITY, largest = -INFINITY;
        const double *row = t->gamma + l * t->heads;
        for (int32_t h = 0; h < t->heads; h++)
            mean += row[h] / t->heads, least = fmin(least, row[h]), largest = fmax(largest, row[h]);
        printf("  %5d  %.3f   ", t->layer_index[l], mean);
        for (int32_t h = 0; few && h < t->heads; h++) printf(" %.3f", row[h]);
        if (!few) printf(" %.3f   %.3f", least, largest);
        putchar('\n');
    }
}

static int print_json(const struct fkv_findings *f, const char *capture, struct fkv_error *err) {
    const struct fkv_ratio_table *t = f->ratios;
    const struct fkv_spectrum *s = f->spectra;
    json_t *losses = json_object();
    for (int i = 0; i < t->losses; i++)
        json_object_set_new(losses, loss_names[i],
                            json_pack("{s:o, s:o}", "table", fkv_json_number(t->table_loss[i]),
                                      "uniform", fkv_json_number(t->uniform_loss[i])));
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:i, s:i, s:o, s:f, s:f, s:f, s:f, s:f, s:i, s:o, "
        "s:o, s:o, s:o}",
        "capture", capture, "capture_sha256", f->provenance->capture_sha256, "model",
        f->provenance->model, "segment_length", s->n, "skip_sinks", s->skip_sinks, "documents",
        s->documents, "segments", (json_int_t)s->segments, "window", t->choice.window, "sinks",
        t->choice.sinks, "chosen", how(&t->choice), "mean_gamma", t->mean, "least", t->least,
        "largest", t->largest, "deviation", t->deviation, "mean_retained", t->mean_retained,
        "unreached", t->unreached, "losses", losses, "gamma", rows(t, GAMMA), "retained",
        rows(t, RETAINED), "mixed", mixed(t));
    if (!object)
        return fkv_fail(err, "%s: its path or model name is not UTF-8, which JSON needs", capture);
    return fkv_json_print(object, err);
}

int fkv_summary_gamma(const struct fkv_findings *f, const char *capture, bool json,
                      struct fkv_error *err) {
    if (json) return print_json(f, capture, err);
    const struct fkv_ratio_table *t = f->ratios;
    const struct fkv_spectrum *key = f->spectra;
    const struct fkv_ratio_choice *c = &t->choice;
    printf("%d layer%s x %d KV head%s, %lld segment%s of %d tokens from %d document%s; ratios for "
           "a window of %d slots, %d sinks\n",
           t->layers, t->layers == 1 ? "" : "s", t->heads, t->heads == 1 ? "" : "s",
           (long long)key->segments, key->segments == 1 ? "" : "s", t->n, key->documents,
           key->documents == 1 ? "" : "s", c->window, c->sinks);
    printf("  gamma: mean %.4f, from %.4f to %.4f, standard deviation %.4f; mean L %.1f of %d\n",
           t->mean, t->least, t->largest, t->deviation, t->mean_retained, c->window - c->sinks);
    if (t->unreached)
        printf("  %d head%s keep less than the wanted share of energy at their largest ratio\n",
               t->unreached, t->unreached == 1 ? "" : "s");
    if (c->mixed)
        printf("  policies.json: %d of %d heads under local, by %s %g; the others under freqkv\n",
               t->local_heads, t->layers * t->heads,
               c->mixed == FKV_MIXED_ENERGY ? "energy below" : "the worst share", c->mixed_share);
    print_losses(t);
    print_layers(t);
    return FKV_OK;
}
