/* Sums over scored tokens; see measure/averages.h. */
#include "replay/statistics.h"

#include <math.h>

void fkv_sums_add(struct fkv_sums *to, const struct fkv_sums *from) {
    to->count += from->count;
    to->nll += from->nll;
    to->baseline_nll += from->baseline_nll;
    to->kl += from->kl;
    to->agree += from->agree;
}

double fkv_mean(double sum, int64_t count) { return count ? sum / (double)count : NAN; }
