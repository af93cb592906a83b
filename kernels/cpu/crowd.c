/* See crowd.h. Two cores of a Xeon (Emerald Rapids), SmolLM2-135M in bfloat16, decoding beside a
 * busy loop and beside another that decodes, times its time alone: 2.2 to 2.7 and 2.5, so 1.9 and
 * 1.95; one thread alone 1.7 to 2. MUCH is less than that, and more than what a step's matrices
 * differ by. WINDOW is two steps of that model; those of a larger one are looked at in parts. */
#include "kernels/cpu/crowd.h"

static const double WINDOW = 0.02; /* seconds */
static const double MUCH = 1.6;
enum { MOST_TIMES = 10 };

int fkv_crowd_threads(const struct fkv_crowd *c, int threads) {
    return c->halved && threads > 1 ? threads / 2 : threads;
}

void fkv_crowd_add(struct fkv_crowd *c, double seconds, double work) {
    c->seconds += seconds;
    c->work += work;
    if (c->seconds < WINDOW) return;
    const double rate = c->seconds / c->work;
    c->seconds = c->work = 0;
    if (!c->halved) {
        c->full = rate;
        if (c->best == 0 || rate < c->best) c->best = rate;
        c->halved = rate > MUCH * c->best;
        c->times = 0;
    } else if (rate < c->full) {
        c->halved = ++c->times < MOST_TIMES;
    } else {
        c->halved = false;
        if (!c->times) c->best = c->full;
    }
}
