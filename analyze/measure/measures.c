/* Owns the measures. With P the head's mean power,
 *
 *     retained energy  R = sum_{t<L} P / sum_t P                   ||x_L||^2 / ||x||^2, sums pooled
 *                                                                  before the division
 *     relative error   E = sqrt(sum_{t>=L} P / sum_t P)            ||x - x_L|| / ||x||, so that
 *                                                                  E^2 = 1 - R (Parseval)
 *     SNR              -20 log10 E dB                              infinite where nothing is lost
 *     cosine           <x, x_L> / (||x|| ||x_L||) = sqrt(R)        because <x, x_L> = ||x_L||^2
 *
 * White noise has R = gamma and E = sqrt(1 - gamma): its power is alike at all frequencies.
 *
 * E comes from the tail's own sum: 1 - R would lose its digits where the error is small. */
#include "analyze/measure/measures.h"

#include <math.h>
#include <stddef.h>

static double sum(const double *power, int32_t from, int32_t until) {
    double total = 0;
    for (int32_t t = from; t < until; t++) total += power[t];
    return total;
}

struct fkv_cut_power fkv_cut_power(const double *power, int32_t n, int32_t retained, bool no_dc) {
    return (struct fkv_cut_power){sum(power, no_dc, retained), sum(power, retained, n)};
}

static double retained_energy(const struct fkv_cut_power *p) {
    return p->kept / (p->kept + p->lost);
}

static double relative_error(const struct fkv_cut_power *p) {
    return sqrt(p->lost / (p->kept + p->lost));
}

static double white_energy(double gamma) { return gamma; }

static double white_error(double gamma) { return sqrt(1 - gamma); }

static double snr_db(const struct fkv_cut_power *p) { return -20 * log10(relative_error(p)); }

static double cosine(const struct fkv_cut_power *p) { return sqrt(retained_energy(p)); }

const struct fkv_measure fkv_measures[] = {
    [FKV_RETAINED_ENERGY] = {{"retained_energy", "retained_energy_no_dc"},
                             "retained energy",
                             "retained energy (fraction)",
                             .panel = 1,
                             .json = 2,
                             .white = white_energy,
                             .value = retained_energy},
    [FKV_RELATIVE_ERROR] = {{"relative_error", "relative_error_no_dc"},
                            "relative error",
                            "\u2016x \u2212 x_{L}\u2016 / \u2016x\u2016",
                            .panel = 2,
                            .rounding = true,
                            .json = 1,
                            .white = white_error,
                            .value = relative_error},
    [FKV_SNR_DB] = {{"snr_db", "snr_db_no_dc"}, "SNR", "SNR (dB)", .value = snr_db},
    [FKV_COSINE] = {{"cosine", "cosine_no_dc"}, "cosine", "cosine", .value = cosine},
    [FKV_KLT_ERROR] = {{NULL, "klt_error_no_dc"},
                       "relative error of the KLT",
                       "relative error",
                       .json = 3},
    [FKV_SVD_ERROR] = {
        {NULL, "svd_error_no_dc"}, "relative error of the SVD", "relative error", .json = 4}};
const int fkv_measure_count = sizeof fkv_measures / sizeof *fkv_measures;
