/* Owns the CSV files of findings (tables.h). */
#include "analyze/tables/tables.h"

#include <math.h>
#include <stdio.h>

#include "analyze/measure/error.h"
#include "kernels/base/atomic_file.h"

static void number(FILE *f, double x) {
    if (isfinite(x))
        fprintf(f, ",%.9g", x);
    else
        fputc(',', f);
}

static int open_in(struct fkv_atomic_file *f, const char *folder, const char *name,
                   struct fkv_error *err) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return fkv_fail(err, "%s: the path is too long", folder);
    return fkv_atomic_open(f, path, err);
}

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
    number(f, (low + high - 1) / (4.0 * s->n));
    number(f, sum / width);
    number(f, se);
    number(f, null_sum / width);
    number(f, sum / null_sum);
    number(f, sum / total[0]);
    number(f, low ? sum / total[1] : NAN);
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
    struct fkv_atomic_file f;
    if (open_in(&f, folder, "spectrum.csv", err)) return FKV_FAILED;
    fputs("state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_null,excess,energy_"
          "share,"
          "energy_share_no_dc\n",
          f.stream);
    for (int32_t i = 0; i < count; i++)
        for (int32_t layer = 0; layer < spectra[i].layers; layer++)
            for (int32_t head = 0; head < spectra[i].heads; head++)
                head_rows(f.stream, &spectra[i], layer, head);
    return fkv_atomic_commit(&f, err);
}

int fkv_error_csv(const char *folder, const struct fkv_error_curves *curves, int32_t count,
                  struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (open_in(&f, folder, "error.csv", err)) return FKV_FAILED;
    fputs("state,layer,head,gamma,retained,retained_energy,relative_error,snr_db,cosine,retained_"
          "energy_no_dc,"
          "relative_error_no_dc,snr_db_no_dc,cosine_no_dc\n",
          f.stream);
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_error_curves *e = &curves[i];
        for (int32_t at = 0; at < e->layers * e->heads * e->gammas; at++) {
            int32_t g = at % e->gammas, head = at / e->gammas % e->heads,
                    layer = at / e->gammas / e->heads;
            fprintf(f.stream, "%s,%d,%d,%.9g,%d", fkv_state_names[e->state], e->layer_index[layer],
                    e->head_index[head], e->gamma[g], fkv_retained(e->gamma[g], e->n));
            for (int no_dc = 0; no_dc < 2; no_dc++) {
                number(f.stream, e->retained_energy[no_dc][at]);
                number(f.stream, e->relative_error[no_dc][at]);
                number(f.stream, e->snr_db[no_dc][at]);
                number(f.stream, e->cosine[no_dc][at]);
            }
            fputc('\n', f.stream);
        }
    }
    return fkv_atomic_commit(&f, err);
}
