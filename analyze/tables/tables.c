/* Owns the CSV files of findings (tables.h). */
#include "analyze/tables/tables.h"

#include <math.h>
#include <stdio.h>

#include "analyze/measure/bounds.h"
#include "analyze/measure/error.h"
#include "analyze/tables/csv.h"

/* Coefficients [low, high) of one head; se is that of their mean power. */
static void band_row(FILE *f, const struct fkv_spectrum *s, int32_t layer, int32_t head,
                     int32_t low, int32_t high, double se, const double total[2]) {
    size_t row = (size_t)layer * (size_t)s->heads + (size_t)head;
    const double *power = s->power + row * (size_t)s->n,
                 *null = s->null ? s->null + row * (size_t)s->n : NULL;
    double sum = 0, null_sum = null ? 0 : NAN, width = high - low;
    for (int32_t t = low; t < high; t++) {
        sum += power[t];
        if (null) null_sum += null[t];
    }
    fprintf(f, "%s,%d,%d,%d,%d", fkv_state_names[s->state], s->layer_index[layer],
            s->head_index[head], low, high);
    fkv_csv_number(f, (low + high - 1) / (4.0 * s->n));
    fkv_csv_number(f, sum / width);
    fkv_csv_number(f, se);
    fkv_csv_number(f, null_sum / width);
    fkv_csv_number(f, sum / null_sum);
    fkv_csv_number(f, sum / total[0]);
    fkv_csv_number(f, low ? sum / total[1] : NAN);
    fputc('\n', f);
}

static void head_rows(FILE *f, const struct fkv_spectrum *s, int32_t layer, int32_t head) {
    size_t row = (size_t)layer * (size_t)s->heads + (size_t)head;
    const double *power = s->power + row * (size_t)s->n;
    double total[2] = {power[0], 0};
    for (int32_t t = 1; t < s->n; t++) total[1] += power[t];
    total[0] += total[1];
    band_row(f, s, layer, head, 0, 1, s->power_se[row * (size_t)s->n], total);
    for (int32_t b = 0; b < s->bands; b++)
        band_row(f, s, layer, head, s->band_edge[b], s->band_edge[b + 1],
                 s->band_se[row * (size_t)s->bands + (size_t)b], total);
}

int fkv_spectrum_csv(const char *folder, const struct fkv_spectrum *spectra, int32_t count,
                     struct fkv_error *err) {
    static const char header[] = "state,layer,head,t_low,t_high,cycles_per_token,power,power_se,"
                                 "power_null,excess,energy_share,energy_share_no_dc";
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "spectrum.csv", header, err)) return FKV_FAILED;
    for (int32_t i = 0; i < count; i++)
        for (int32_t layer = 0; layer < spectra[i].layers; layer++)
            for (int32_t head = 0; head < spectra[i].heads; head++)
                head_rows(f.stream, &spectra[i], layer, head);
    return fkv_atomic_commit(&f, err);
}

/* The first cells of a point: which head, which gamma, how many coefficients stay. Returns the
 * last. */
static int32_t begin_point(FILE *f, const struct fkv_error_curves *e, int32_t at) {
    const int32_t row = at / e->gammas;
    const double gamma = e->gamma[at % e->gammas];
    const int32_t retained = fkv_retained(gamma, e->n);
    fprintf(f, "%s,%d,%d,%.9g,%d", fkv_state_names[e->state], e->layer_index[row / e->heads],
            e->head_index[row % e->heads], gamma, retained);
    return retained;
}

int fkv_error_csv(const char *folder, const struct fkv_error_curves *curves, int32_t count,
                  struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "error.csv", NULL, err)) return FKV_FAILED;
    fputs("state,layer,head,gamma,retained", f.stream);
    for (int i = 0; i < 2 * fkv_measure_count; i++) {
        const struct fkv_measure *m = &fkv_measures[i % fkv_measure_count];
        if (m->value) fprintf(f.stream, ",%s", m->name[i / fkv_measure_count]);
    }
    fputc('\n', f.stream);
    for (int32_t i = 0; i < count; i++)
        for (int32_t at = 0; at < curves[i].layers * curves[i].heads * curves[i].gammas; at++) {
            begin_point(f.stream, &curves[i], at);
            for (int no_dc = 0; no_dc < 2; no_dc++)
                for (int m = 0; m < fkv_measure_count; m++)
                    if (fkv_measures[m].value)
                        fkv_csv_number(f.stream, fkv_error_curve(&curves[i], m, no_dc)[at]);
            fputc('\n', f.stream);
        }
    return fkv_atomic_commit(&f, err);
}

int fkv_bounds_csv(const char *folder, const struct fkv_error_curves *curves, int32_t count,
                   int32_t head_dim, struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, folder, "error_bounds.csv", NULL, err)) return FKV_FAILED;
    fputs("state,layer,head,gamma,retained", f.stream);
    for (int b = 0; b < FKV_BASES; b++) fprintf(f.stream, ",%s", fkv_bases[b].name);
    fputs(",svd_rank\n", f.stream);
    for (int32_t i = 0; i < count; i++)
        for (int32_t at = 0; at < curves[i].layers * curves[i].heads * curves[i].gammas; at++) {
            const int32_t retained = begin_point(f.stream, &curves[i], at);
            for (int b = 0; b < FKV_BASES; b++)
                fkv_csv_number(f.stream,
                               fkv_error_curve(&curves[i], fkv_bases[b].measure, true)[at]);
            fprintf(f.stream, ",%d\n", fkv_bounds_rank(retained, curves[i].n, head_dim));
        }
    return fkv_atomic_commit(&f, err);
}
