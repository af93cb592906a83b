/* Owns what a report reads of results.h5: where the findings came from, and the shares of energy
 * that its sentences are about. Shares are per head and computed from the full spectra, so that
 * "how many heads" can be said; the HDF5 file is trusted for nothing: every length is checked
 * against the others. */
#include "analyze/report/facts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/measure/depth.h"
#include "analyze/measure/error.h"
#include "capture/store/columns.h"

static void free_shares(struct fkv_report_shares *s) {
    free(s->layer_index);
    free(s->head_index);
    free(s->dc);
    memset(s, 0, sizeof *s);
}

void fkv_report_facts_free(struct fkv_report_facts *f) {
    for (int i = 0; i < f->states; i++) free_shares(&f->shares[i]);
    f->states = 0;
}

/* ---- spectra ---- */

/* power and null (may be NULL) [layers, heads, n] -> the shares of s. scratch [n] */
static void fill_shares(const double *power, const double *null, struct fkv_report_shares *s,
                        double *scratch) {
    const int32_t retained = fkv_retained(0.5, s->n);
    for (int64_t row = 0; row < (int64_t)s->layers * s->heads; row++) {
        const double *p = power + row * s->n;
        s->dc[row] = fkv_retained_energy(p, s->n, 1, false);
        s->half_dc[row] = fkv_retained_energy(p, s->n, retained, false);
        s->half[row] = fkv_retained_energy(p, s->n, retained, true);
        if (null) s->half_null[row] = fkv_retained_energy(null + row * s->n, s->n, retained, true);
    }
    for (int32_t l = 0; l < s->layers; l++)
        s->layer_half[l] =
            fkv_energy_shares_of(power + (int64_t)l * s->heads * s->n, s->heads, s->n, scratch)
                .low[FKV_LOW_HALF];
}

/* Lengths of the axes of `power`, and the model's numbers of its layers and heads. *found false: no
 * spectrum of this state. */
static int read_axes(struct fkv_h5_reader *h5, const char *group, struct fkv_report_shares *s,
                     bool *found, struct fkv_error *err) {
    char name[64];
    int rank;
    int64_t dims[8];
    snprintf(name, sizeof name, "%s/power", group);
    if (fkv_h5_shape(h5, name, &rank, dims, found, err)) return FKV_FAILED;
    if (!*found) return FKV_OK;
    bool fits = rank == 3;
    for (int i = 0; fits && i < rank; i++) fits = dims[i] >= 1 && dims[i] <= 1 << 24;
    if (!fits) return fkv_fail(err, "%s: expected [layers, heads, n], found another shape", name);
    if (dims[2] < 2)
        return fkv_fail(err, "%s: expected 2 frequencies or more, found %lld", name,
                        (long long)dims[2]);
    s->layers = (int32_t)dims[0], s->heads = (int32_t)dims[1], s->n = (int32_t)dims[2];
    snprintf(name, sizeof name, "%s/layer_index", group);
    if (fkv_column_expect(h5, name, FKV_H5_I32, s->layers, true, &s->layer_index, err))
        return FKV_FAILED;
    snprintf(name, sizeof name, "%s/head_index", group);
    return fkv_column_expect(h5, name, FKV_H5_I32, s->heads, true, &s->head_index, err);
}

static int read_shares(struct fkv_h5_reader *h5, enum fkv_state state, struct fkv_report_shares *s,
                       bool *found, struct fkv_error *err) {
    char group[32], name[64];
    snprintf(group, sizeof group, "/spectrum/%s", fkv_state_names[state]);
    s->state = state;
    if (read_axes(h5, group, s, found, err)) return FKV_FAILED;
    if (!*found) return FKV_OK;
    const int64_t rows = (int64_t)s->layers * s->heads, spectra = rows * s->n;
    double *power = NULL, *null = NULL;
    snprintf(name, sizeof name, "%s/power", group);
    int status = fkv_column_expect(h5, name, FKV_H5_F64, spectra, true, &power, err);
    snprintf(name, sizeof name, "%s/power_null", group);
    if (!status) status = fkv_column_expect(h5, name, FKV_H5_F64, spectra, false, &null, err);
    double *scratch = status ? NULL : malloc((size_t)s->n * sizeof *scratch);
    if (!status) s->dc = malloc((size_t)(4 * rows + s->layers) * sizeof *s->dc);
    if (!status && !(scratch && s->dc))
        status = fkv_fail(err, "out of memory for %lld heads", (long long)rows);
    if (!status) {
        s->half_dc = s->dc + rows, s->half = s->half_dc + rows;
        s->half_null = null ? s->half + rows : NULL, s->layer_half = s->half + 2 * rows;
        fill_shares(power, null, s, scratch);
    }
    free(power), free(null), free(scratch);
    return status;
}

/* ---- provenance ---- */

static int read_root(struct fkv_h5_reader *h5, struct fkv_report_facts *f, struct fkv_error *err) {
    bool found;
    const struct {
        const char *name;
        double *value;
    } numbers[] = {{"segment_length", &f->segment_length},
                   {"skip_sinks", &f->skip_sinks},
                   {"documents", &f->documents},
                   {"segments", &f->segments},
                   {"tokens_left_out", &f->tokens_left_out}};
    if (fkv_h5_get_string(h5, "/", "model", f->model, sizeof f->model, &found, err) ||
        fkv_h5_get_string(h5, "/", "version", f->version, sizeof f->version, &found, err) ||
        fkv_h5_get_string(h5, "/", "capture_sha256", f->capture_sha256, sizeof f->capture_sha256,
                          &found, err))
        return FKV_FAILED;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        *numbers[i].value = NAN;
        if (fkv_h5_get_double(h5, "/", numbers[i].name, numbers[i].value, &found, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_report_commands_read(struct fkv_h5_reader *results, struct fkv_text_list *commands,
                             struct fkv_error *err) {
    static const char *const groups[] = {"/spectrum", "/error", "/gamma"};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        char *command;
        if (fkv_h5_get_text(results, groups[i], "command", &command, err)) return FKV_FAILED;
        fkv_text_list_add_once(commands, command);
        free(command);
    }
    return FKV_OK;
}

int fkv_report_facts_read(struct fkv_h5_reader *results, struct fkv_report_facts *out,
                          struct fkv_error *err) {
    *out = (struct fkv_report_facts){0};
    int status = read_root(results, out, err);
    for (int state = 0; !status && state < FKV_STATES; state++) {
        struct fkv_report_shares *s = &out->shares[out->states];
        bool found = false;
        status = read_shares(results, (enum fkv_state)state, s, &found, err);
        if (!status && found)
            out->states++;
        else
            free_shares(s);
    }
    if (status) fkv_report_facts_free(out);
    return status;
}
