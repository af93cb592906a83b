/* The changes of a probe: their names, their bands, and the table /changes of PROBE.h5. Its columns
 * are described once, for writing, reading and comparing. */
#include "capture/store/probe_changes.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/ratio.h"

enum { MOST_CHANGES = 1 << 20 };

const char *const fkv_probe_kind_names[FKV_PROBE_KINDS] = {"none", "filter", "noise", "freqkv",
                                                           "local"};
const char *const fkv_probe_option_names[FKV_PROBE_OPTIONS] = {
    "none", "filter", "noise", "freqkv", "local", "decompose", "bands", "octaves"};
const char *const fkv_probe_states_names[FKV_PROBE_BOTH + 1] = {"none", "key", "value", "both"};

/* ---- one change ---- */

struct fkv_probe_change fkv_probe_change_of(enum fkv_probe_kind kind) {
    struct fkv_probe_change c = {.kind = (int32_t)kind,
                                 .layer = -1,
                                 .kv_head = -1,
                                 .epsilon = NAN,
                                 .gamma = NAN,
                                 .truncation = -1,
                                 .squeezed = -1,
                                 .fewer = -1};
    for (int i = 0; i < FKV_PROBE_BANDS; i++) c.bands[i] = (struct fkv_probe_band){NAN, NAN};
    return c;
}

bool fkv_probe_change_has(const struct fkv_probe_change *change, int32_t t, int32_t n) {
    for (int i = 0; i < change->band_count; i++)
        if (fkv_band_edge(change->bands[i].low, n) <= t &&
            t < fkv_band_edge(change->bands[i].high, n))
            return true;
    return false;
}

bool fkv_probe_takes_dc(const struct fkv_probe_change *change) {
    const bool division =
        change->option == FKV_PROBE_OPTION_BANDS || change->option == FKV_PROBE_OPTION_OCTAVES;
    return division && change->bands[0].low == 0; /* the other bands of both begin above DC */
}

const char *fkv_probe_parts(const struct fkv_probe_change *change, char text[FKV_PROBE_PARTS]) {
    static const char *const names[] = {"truncation", "squeezed", "fewer"};
    const int32_t on[] = {change->truncation, change->squeezed, change->fewer};
    int used = 0;
    for (int i = 0; i < 3; i++)
        if (on[i] > 0)
            used += snprintf(text + used, FKV_PROBE_PARTS - (size_t)used, "%s%s", used ? " + " : "",
                             names[i]);
    if (!used) snprintf(text, FKV_PROBE_PARTS, "nothing");
    const bool alone = on[0] > 0 && on[1] <= 0 && on[2] <= 0;
    if (alone && change->kind == FKV_PROBE_FREQKV)
        snprintf(text + used, FKV_PROBE_PARTS - (size_t)used, ", L slots");
    return text;
}

/* ---- columns ---- */

struct column {
    const char *name;
    enum fkv_h5_type type;
    int64_t dims[2]; /* of one change; 0: no such axis */
    size_t offset;
};
static const struct column columns[] = {
    {"kind", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, kind)},
    {"option", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, option)},
    {"family", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, family)},
    {"layer", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, layer)},
    {"kv_head", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, kv_head)},
    {"states", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, states)},
    {"complement", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, complement)},
    {"band_count", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, band_count)},
    {"bands", FKV_H5_F64, {FKV_PROBE_BANDS, 2}, offsetof(struct fkv_probe_change, bands)},
    {"epsilon", FKV_H5_F64, {0}, offsetof(struct fkv_probe_change, epsilon)},
    {"gamma", FKV_H5_F64, {0}, offsetof(struct fkv_probe_change, gamma)},
    {"truncation", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, truncation)},
    {"squeezed", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, squeezed)},
    {"fewer", FKV_H5_I32, {0}, offsetof(struct fkv_probe_change, fewer)},
    {"label", FKV_H5_U8, {FKV_PROBE_LABEL, 0}, offsetof(struct fkv_probe_change, label)},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

/* Numbers of one change in a column. */
static int64_t column_numbers(const struct column *c) {
    return (c->dims[0] ? c->dims[0] : 1) * (c->dims[1] ? c->dims[1] : 1);
}

static size_t column_bytes(const struct column *c) {
    return fkv_h5_bytes(c->type) * (size_t)column_numbers(c);
}

/* Memory for the largest column of `count` changes; the caller frees it. */
static char *column_buffer(int32_t count) {
    size_t most = 0;
    for (int i = 0; i < COLUMNS; i++)
        if (column_bytes(&columns[i]) > most) most = column_bytes(&columns[i]);
    return malloc((size_t)count * most);
}

/* The field of a change that a column holds. */
static void *field(struct fkv_probe_change *change, const struct column *c) {
    return (char *)change + c->offset;
}

int fkv_probe_changes_put(struct fkv_h5_writer *w, const struct fkv_probe *p,
                          struct fkv_error *err) {
    char path[64], *values = column_buffer(p->change_count);
    int status = values ? FKV_OK : fkv_fail(err, "out of memory for %d changes", p->change_count);
    for (int i = 0; i < COLUMNS && !status; i++) {
        const struct column *c = &columns[i];
        const int64_t dims[] = {p->change_count, c->dims[0], c->dims[1]};
        const size_t bytes = column_bytes(c);
        for (int32_t k = 0; k < p->change_count; k++)
            memcpy(values + (size_t)k * bytes, field(&p->changes[k], c), bytes);
        snprintf(path, sizeof path, "/changes/%s", c->name);
        status = fkv_h5_put(w, path, c->type, 1 + !!c->dims[0] + !!c->dims[1], dims, values, err);
    }
    free(values);
    return status;
}

/* ---- checks ---- */

static bool same_column(const struct column *c, const struct fkv_probe_change *a,
                        const struct fkv_probe_change *b) {
    const void *x = (const char *)a + c->offset, *y = (const char *)b + c->offset;
    if (c->type != FKV_H5_F64) return !memcmp(x, y, column_bytes(c));
    for (int64_t i = 0; i < column_numbers(c); i++) {
        const double u = ((const double *)x)[i], v = ((const double *)y)[i];
        if (u != v && !(isnan(u) && isnan(v))) return false;
    }
    return true;
}

/* The first column of the structure in which two changes differ, or NULL. alike: layer and kv_head
 * may differ. */
static const char *difference(const struct fkv_probe_change *a, const struct fkv_probe_change *b,
                              bool alike) {
    for (int i = 0; i < COLUMNS; i++) {
        const size_t offset = columns[i].offset;
        if (offset == offsetof(struct fkv_probe_change, label)) continue;
        if (alike && (offset == offsetof(struct fkv_probe_change, layer) ||
                      offset == offsetof(struct fkv_probe_change, kv_head)))
            continue;
        if (!same_column(&columns[i], a, b)) return columns[i].name;
    }
    return NULL;
}

int fkv_probe_changes_check_same(const struct fkv_probe *expected, const struct fkv_probe *found,
                                 const char *where, struct fkv_error *err) {
    if (expected->change_count != found->change_count)
        return fkv_fail(err, "%s: expected %d changes, found %d", where, expected->change_count,
                        found->change_count);
    for (int32_t i = 0; i < expected->change_count; i++) {
        const char *name = difference(&expected->changes[i], &found->changes[i], false);
        if (name)
            return fkv_fail(err, "%s: change %d: expected \"%s\", found \"%s\" with another %s",
                            where, i, expected->changes[i].label, found->changes[i].label, name);
    }
    return FKV_OK;
}

static int check_bands(const struct fkv_probe_change *c, int32_t number, const char *path,
                       struct fkv_error *err) {
    for (int32_t i = 0; i < FKV_PROBE_BANDS; i++) {
        const double low = c->bands[i].low, high = c->bands[i].high;
        if (i < c->band_count && !(low >= 0 && low <= high && high <= 1))
            return fkv_fail(err,
                            "%s: /changes/bands: change %d, band %d: expected a band within 0 and "
                            "1, found %g to %g",
                            path, number, i, low, high);
        if (i >= c->band_count && !(isnan(low) && isnan(high)))
            return fkv_fail(err,
                            "%s: /changes/bands: change %d, band %d: expected NaN beyond its %d "
                            "bands, found %g to %g",
                            path, number, i, c->band_count, low, high);
    }
    return FKV_OK;
}

/* NaN where the kind has no such number, else at most `most`. */
static int check_number(const char *name, double value, bool has, double most, int32_t number,
                        const char *path, struct fkv_error *err) {
    if (has ? value >= 0 && value <= most : isnan(value)) return FKV_OK;
    if (!has)
        return fkv_fail(err, "%s: /changes/%s: change %d: expected NaN, found %g", path, name,
                        number, value);
    return fkv_fail(err, "%s: /changes/%s: change %d: expected 0 to %g, found %g", path, name,
                    number, most, value);
}

static int check_change(const struct fkv_probe *p, int32_t number, const char *path,
                        struct fkv_error *err) {
    const struct fkv_probe_change *c = &p->changes[number], *before = number ? c - 1 : NULL;
    const bool bands = c->kind == FKV_PROBE_FILTER || c->kind == FKV_PROBE_NOISE;
    const bool gamma = c->kind == FKV_PROBE_FREQKV || c->kind == FKV_PROBE_LOCAL ||
                       c->option == FKV_PROBE_OPTION_DECOMPOSE;
    const int32_t no_part = c->kind == FKV_PROBE_FREQKV ? 0 : -1;
    const int32_t family = before ? before->family : 0;
    const struct {
        const char *name;
        int32_t value, low, high;
    } ranges[] = {
        {"kind", c->kind, 0, FKV_PROBE_KINDS - 1},
        {"option", c->option, 0, FKV_PROBE_OPTIONS - 1},
        {"family", c->family, family, family + !!before},
        {"layer", c->layer, c->kv_head >= 0 ? 0 : -1, p->layers - 1},
        {"kv_head", c->kv_head, -1, p->kv_heads - 1},
        {"states", c->states, 0, FKV_PROBE_BOTH},
        {"complement", c->complement, 0, 1},
        {"band_count", c->band_count, bands, bands ? FKV_PROBE_BANDS : 0},
        {"truncation", c->truncation, no_part, 1},
        {"squeezed", c->squeezed, no_part, 1},
        {"fewer", c->fewer, no_part, 1},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return fkv_fail(err, "%s: /changes/%s: change %d: expected %d to %d, found %d", path,
                            ranges[i].name, number, ranges[i].low, ranges[i].high, ranges[i].value);
    if (check_bands(c, number, path, err) ||
        check_number("epsilon", c->epsilon, c->kind == FKV_PROBE_NOISE, 1e6, number, path, err) ||
        check_number("gamma", c->gamma, gamma, 1, number, path, err))
        return FKV_FAILED;
    const char *name = before && c->family == family ? difference(before, c, true) : NULL;
    if (!name) return FKV_OK;
    return fkv_fail(err,
                    "%s: /changes/%s: change %d: expected that of change %d, as both are of family "
                    "%d, found another",
                    path, name, number, number - 1, family);
}

/* ---- reading ---- */

int fkv_probe_changes_get(struct fkv_h5_reader *r, struct fkv_probe *p, const char *path,
                          struct fkv_error *err) {
    int rank = 0;
    int64_t dims[8] = {0};
    bool found;
    if (fkv_h5_shape(r, "/changes/kind", &rank, dims, &found, err)) return FKV_FAILED;
    if (!found || rank != 1 || dims[0] < 1 || dims[0] > MOST_CHANGES)
        return fkv_fail(err, "%s: /changes/kind: expected 1 to %d changes", path, MOST_CHANGES);
    const int32_t count = (int32_t)dims[0];
    p->changes = calloc((size_t)count, sizeof *p->changes);
    char name[64], *values = column_buffer(count);
    int status = p->changes && values
                     ? FKV_OK
                     : fkv_fail(err, "%s: out of memory for %d changes", path, count);
    p->change_count = status ? 0 : count;
    for (int i = 0; i < COLUMNS && !status; i++) {
        const struct column *c = &columns[i];
        const size_t bytes = column_bytes(c);
        snprintf(name, sizeof name, "/changes/%s", c->name);
        status = fkv_h5_get(r, name, c->type, count * column_numbers(c), values, err);
        for (int32_t k = 0; k < count && !status; k++)
            memcpy(field(&p->changes[k], c), values + (size_t)k * bytes, bytes);
    }
    free(values);
    for (int32_t i = 0; i < count && !status; i++) {
        p->changes[i].label[FKV_PROBE_LABEL - 1] = 0;
        status = check_change(p, i, path, err);
    }
    return status;
}
