/* A probe's damage as a JSON object and as a table. */
#include "replay/probe/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- JSON ---- */

/* A part of FreqKV; null where the change has none. */
static json_t *part_json(int32_t value) { return value < 0 ? json_null() : json_boolean(value); }

/* A layer or KV head; null of all. */
static json_t *index_json(int32_t value) { return value < 0 ? json_null() : json_integer(value); }

static json_t *bands_json(const struct fkv_probe_change *c) {
    json_t *bands = json_array();
    for (int32_t i = 0; i < c->band_count; i++)
        json_array_append_new(bands, json_pack("[f, f]", c->bands[i].low, c->bands[i].high));
    return bands;
}

static void put_interval(json_t *o, const char *name, struct fkv_interval x) {
    char key[32];
    json_object_set_new(o, name, fkv_json_number(x.estimate));
    snprintf(key, sizeof key, "%s_low", name);
    json_object_set_new(o, key, fkv_json_number(x.low));
    snprintf(key, sizeof key, "%s_high", name);
    json_object_set_new(o, key, fkv_json_number(x.high));
}

static json_t *change_json(const struct fkv_probe_change *c, const struct fkv_damage_row *row) {
    json_t *o = json_object();
    json_object_set_new(o, "label", json_string(c->label));
    json_object_set_new(o, "kind", json_string(fkv_probe_kind_names[c->kind]));
    json_object_set_new(o, "option", json_string(fkv_probe_option_names[c->option]));
    json_object_set_new(o, "family", json_integer(c->family));
    json_object_set_new(o, "layer", index_json(c->layer));
    json_object_set_new(o, "kv_head", index_json(c->kv_head));
    json_object_set_new(o, "states", json_string(fkv_probe_states_names[c->states]));
    json_object_set_new(o, "complement", json_boolean(c->complement));
    json_object_set_new(o, "bands", bands_json(c));
    json_object_set_new(o, "epsilon", fkv_json_number(c->epsilon));
    json_object_set_new(o, "gamma", fkv_json_number(c->gamma));
    json_object_set_new(o, "truncation", part_json(c->truncation));
    json_object_set_new(o, "squeezed", part_json(c->squeezed));
    json_object_set_new(o, "fewer", part_json(c->fewer));
    for (int m = 0; m < FKV_DAMAGES; m++) put_interval(o, fkv_damage_names[m], row->mean[m]);
    json_object_set_new(o, "lost_key",
                        fkv_json_number(c->states & FKV_PROBE_KEY ? row->lost[0] : NAN));
    json_object_set_new(o, "lost_value",
                        fkv_json_number(c->states & FKV_PROBE_VALUE ? row->lost[1] : NAN));
    json_object_set_new(o, "p", fkv_json_number(row->p[FKV_DAMAGE_NLL]));
    json_object_set_new(o, "q", fkv_json_number(row->q[FKV_DAMAGE_NLL]));
    json_object_set_new(o, "kl_p", fkv_json_number(row->p[FKV_DAMAGE_KL]));
    json_object_set_new(o, "kl_q", fkv_json_number(row->q[FKV_DAMAGE_KL]));
    return o;
}

json_t *fkv_probe_json(const struct fkv_damage *d) {
    const struct fkv_probe *p = d->probe;
    json_t *o = json_object(), *changes = json_array();
    const char *se_unit = fkv_se_unit_name(d->units.kind);
    json_object_set_new(o, "model", json_string(p->model_name));
    json_object_set_new(o, "prefix", json_integer(p->prefix));
    json_object_set_new(o, "score", json_integer(p->score));
    json_object_set_new(o, "sinks", json_integer(p->sinks));
    json_object_set_new(o, "windows", json_integer(p->window_count));
    json_object_set_new(o, "units", json_integer(d->units.count));
    json_object_set_new(o, "unit",
                        json_string(d->units.kind == FKV_SE_DOCUMENTS ? "document" : "block"));
    json_object_set_new(o, "documents", json_integer(d->units.documents));
    json_object_set_new(o, "se_unit", se_unit ? json_string(se_unit) : json_null());
    json_object_set_new(o, "untouched_nll", fkv_json_number(d->untouched_nll));
    json_object_set_new(o, "noise_floor_nll", fkv_json_number(p->noise_floor_nll));
    json_object_set_new(o, "noise_floor_kl", fkv_json_number(p->noise_floor_kl));
    for (int32_t c = 0; c < p->change_count; c++)
        json_array_append_new(changes, change_json(&p->changes[c], &d->row[c]));
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

void fkv_probe_print(const struct fkv_damage *d) {
    const struct fkv_probe *p = d->probe;
    char t[8][32], words[FKV_SE_WORDS];
    int label_width = 6, where_width = 5;
    bool corrected = false;
    for (int32_t c = 0; c < p->change_count; c++) {
        label_width = (int)fmax(label_width, strlen(p->changes[c].label));
        where_width = (int)fmax(where_width, strlen(where(t[0], &p->changes[c])));
        corrected = corrected || isfinite(d->row[c].q[FKV_DAMAGE_NLL]);
    }
    printf("model %s, prefix %d (%d sinks), %d tokens scored in each of %lld windows\n",
           p->model_name, p->prefix, p->sinks, p->score, (long long)p->window_count);
    printf("untouched: mean nll %.5f; read again in blocks of another size: |delta nll| %.2g, KL "
           "%.2g (rounding)\n",
           d->untouched_nll, p->noise_floor_nll, p->noise_floor_kl);
    printf(
        "intervals: 95%%, bootstrap %s\nlost: energy taken out, over the energy without DC\n\n",
        fkv_se_unit_words(d->units.kind, d->units.documents, "blocks of 256 scored tokens", words));
    printf("%-*s %-*s %8s %20s %8s %9s %9s%s\n", label_width, "change", where_width, "where",
           "delta nll", "interval", "KL", "lost keys", "lost vals", corrected ? "       q" : "");
    for (int32_t c = 0; c < p->change_count; c++) {
        const struct fkv_probe_change *change = &p->changes[c];
        const struct fkv_damage_row *row = &d->row[c];
        const struct fkv_interval nll = row->mean[FKV_DAMAGE_NLL];
        printf("%-*s %-*s %9s [%8s, %8s] %8s %9s %9s", label_width, change->label, where_width,
               where(t[0], change), number(t[1], "%+.5f", nll.estimate),
               number(t[2], "%+.5f", nll.low), number(t[3], "%+.5f", nll.high),
               number(t[4], "%.6f", fmax(row->mean[FKV_DAMAGE_KL].estimate, 0)),
               number(t[5], "%.4f", change->states & FKV_PROBE_KEY ? row->lost[0] : NAN),
               number(t[6], "%.4f", change->states & FKV_PROBE_VALUE ? row->lost[1] : NAN));
        printf(corrected ? " %7s\n" : "\n", number(t[7], "%.2g", row->q[FKV_DAMAGE_NLL]));
    }
}
