/* Owns what a report reads of results.h5: where the findings came from, and the shares of energy
 * that its sentences are about. Shares are per head and computed from the full spectra, so that
 * "how many heads" can be said; the HDF5 file is trusted for nothing: every length is checked
 * against the others. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/columns.h"
#include "analyze/measure/error.h"
#include "analyze/report/parts.h"

const char *const fkv_report_state[FKV_STATES] = {"keys before RoPE", "values", "keys after RoPE",
                                                  "queries"};

static void free_shares(struct fkv_report_shares *s) {
    free(s->layer_index);
    free(s->head_index);
    free(s->dc);
    free(s->half);
    free(s->half_null);
    free(s->half_dc);
    memset(s, 0, sizeof *s);
}

void fkv_report_facts_free(struct fkv_report *r) {
    for (int i = 0; i < r->states; i++) free_shares(&r->shares[i]);
    r->states = 0;
    fkv_text_list_free(&r->commands);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int fkv_spread_of(const double *x, int64_t count, struct fkv_spread *out, struct fkv_error *err) {
    double *sorted = malloc(((size_t)count + 1) * sizeof *sorted), sum = 0;
    int64_t n = 0;
    if (!sorted) return fkv_fail(err, "out of memory for %lld numbers", (long long)count);
    *out = (struct fkv_spread){NAN, NAN, NAN, NAN, 0};
    for (int64_t i = 0; i < count; i++)
        if (isfinite(x[i])) sorted[n++] = x[i], sum += x[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    if (n)
        *out = (struct fkv_spread){(sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sum / (double)n,
                                   sorted[0], sorted[n - 1], (int)n};
    free(sorted);
    return FKV_OK;
}

/* ---- spectra ---- */

/* power [rows, n] -> shares [rows] */
static void shares_of(const double *power, int64_t rows, int32_t n, double *dc, double *half,
                      double *half_dc) {
    int32_t retained = fkv_retained(0.5, n);
    for (int64_t row = 0; row < rows; row++, power += n) {
        if (dc) dc[row] = fkv_retained_energy(power, n, 1, false);
        if (half_dc) half_dc[row] = fkv_retained_energy(power, n, retained, false);
        half[row] = fkv_retained_energy(power, n, retained, true);
    }
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
    int64_t rows = (int64_t)s->layers * s->heads;
    double *power = NULL, *null = NULL;
    s->dc = malloc((size_t)rows * sizeof *s->dc);
    s->half = malloc((size_t)rows * sizeof *s->half);
    s->half_dc = malloc((size_t)rows * sizeof *s->half_dc);
    int status = s->dc && s->half && s->half_dc
                     ? FKV_OK
                     : fkv_fail(err, "out of memory for %lld heads", (long long)rows);
    snprintf(name, sizeof name, "%s/power", group);
    if (!status) status = fkv_column_expect(h5, name, FKV_H5_F64, rows * s->n, true, &power, err);
    snprintf(name, sizeof name, "%s/power_null", group);
    if (!status) status = fkv_column_expect(h5, name, FKV_H5_F64, rows * s->n, false, &null, err);
    if (!status) shares_of(power, rows, s->n, s->dc, s->half, s->half_dc);
    if (!status && null) {
        s->half_null = malloc((size_t)rows * sizeof *s->half_null);
        if (s->half_null)
            shares_of(null, rows, s->n, NULL, s->half_null, NULL);
        else
            status = fkv_fail(err, "out of memory for %lld heads", (long long)rows);
    }
    free(power);
    free(null);
    return status;
}

/* ---- provenance ---- */

int fkv_report_command(struct fkv_report *r, const char *command, struct fkv_error *err) {
    for (int i = 0; i < r->commands.count; i++)
        if (!strcmp(r->commands.text[i], command)) return FKV_OK;
    return *command ? fkv_text_list_add(&r->commands, err, "%s", command) : FKV_OK;
}

static int read_root(struct fkv_report *r, struct fkv_error *err) {
    bool found;
    const struct {
        const char *name;
        double *value;
    } numbers[] = {{"segment_length", &r->segment_length},
                   {"skip_sinks", &r->skip_sinks},
                   {"documents", &r->documents},
                   {"segments", &r->segments},
                   {"tokens_left_out", &r->tokens_left_out}};
    if (fkv_h5_get_string(r->results, "/", "model", r->model, sizeof r->model, &found, err) ||
        fkv_h5_get_string(r->results, "/", "version", r->version, sizeof r->version, &found, err) ||
        fkv_h5_get_string(r->results, "/", "capture_sha256", r->capture_sha256,
                          sizeof r->capture_sha256, &found, err))
        return FKV_FAILED;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        *numbers[i].value = NAN;
        if (fkv_h5_get_double(r->results, "/", numbers[i].name, numbers[i].value, &found, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int read_commands(struct fkv_report *r, struct fkv_error *err) {
    static const char *const groups[] = {"/spectrum", "/error", "/gamma"};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        char *command;
        int status = fkv_h5_get_text(r->results, groups[i], "command", &command, err);
        if (!status) status = fkv_report_command(r, command ? command : "", err);
        free(command);
        if (status) return status;
    }
    return FKV_OK;
}

int fkv_report_facts_read(struct fkv_report *r, struct fkv_error *err) {
    int status = read_root(r, err);
    if (!status) status = read_commands(r, err);
    for (int state = 0; !status && state < FKV_STATES; state++) {
        struct fkv_report_shares *s = &r->shares[r->states];
        bool found = false;
        status = read_shares(r->results, (enum fkv_state)state, s, &found, err);
        if (!status && found)
            r->states++;
        else
            free_shares(s);
    }
    return status;
}
