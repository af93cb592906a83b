/* The bootstrap of definitions.md. Tokens of one text depend on each other, so what is resampled is a document, or a block of 256 tokens
 * where documents are few; the mean of a resample is a ratio of sums, because units differ in length. Resampled means, not sums, are
 * collected by Welford's update, so that nothing is stored and a small spread around a large mean keeps its digits. */
#include "replay/statistics.h"

#include <math.h>

#include "replay/random.h"

void fkv_sums_add(struct fkv_sums *to, const struct fkv_sums *from) {
    to->count += from->count;
    to->nll += from->nll;
    to->baseline_nll += from->baseline_nll;
    to->kl += from->kl;
    to->agree += from->agree;
}

double fkv_mean(double sum, int64_t count) { return count ? sum / (double)count : NAN; }

double fkv_bootstrap_se(const struct fkv_sums *units, int64_t count, enum fkv_quantity quantity) {
    if (count < 2) return NAN;
    struct fkv_random random = {0};
    double mean = 0, squares = 0;
    for (int resample = 1; resample <= FKV_BOOTSTRAP_RESAMPLES; resample++) {
        double sum = 0;
        int64_t tokens = 0;
        for (int64_t i = 0; i < count; i++) {
            const struct fkv_sums *unit = &units[fkv_random_below(&random, (uint64_t)count)];
            sum += quantity == FKV_DELTA_NLL ? unit->nll - unit->baseline_nll : unit->nll;
            tokens += unit->count;
        }
        double deviation = sum / (double)tokens - mean;
        mean += deviation / resample;
        squares += deviation * (sum / (double)tokens - mean);
    }
    return sqrt(squares / (FKV_BOOTSTRAP_RESAMPLES - 1));
}
