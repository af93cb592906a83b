/* Damage by class of token: sums per unit of the tokens of a class, then the interval of all. */
#include "analyze/link/damage.h"

#include <string.h>

#include "analyze/link/token_classes.h"

struct fkv_interval fkv_damage_of_class(const struct fkv_damage *d, int32_t change, int c,
                                        double *se, int64_t *tokens, double *scratch) {
    const struct fkv_probe *p = d->probe;
    double *sums = scratch, *counts = scratch + d->units.count;
    memset(scratch, 0, 2 * (size_t)d->units.count * sizeof *scratch);
    *tokens = 0;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        const float *nll = window->nll + (int64_t)change * p->score;
        for (int32_t i = 0; i < p->score; i++) { /* element i is about token P + 1 + i */
            if (c &&
                !(window->token_class && fkv_class_has(window->token_class[p->prefix + 1 + i], c)))
                continue;
            const int64_t unit = fkv_damage_unit(d, w, i);
            sums[unit] += (double)nll[i] - window->untouched_nll[i];
            counts[unit] += 1;
            ++*tokens;
        }
    }
    return fkv_ratio_interval(&d->units, sums, counts, se);
}
