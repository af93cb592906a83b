/* See crowd.h. Two cores of a Xeon (Emerald Rapids), SmolLM2-135M in bfloat16, decoding beside a
 * busy loop and beside another that decodes, times its time alone: 2.7 and 2.3 to 2.5 with all
 * threads, 2.0 and 2.1 with this; started beside a loop 2.0 and 1.7; one thread alone 1.7 to 2.
 * MUCH is less than that, and more than what a step's matrices differ by. WINDOW is two steps of
 * that model; those of a larger one are looked at in parts. */
#include "kernels/cpu/crowd.h"

static const double WINDOW = 0.02; /* seconds */
static const double MUCH = 1.6;
enum { MOST_TIMES = 10, MOST_PATIENCE = 63 };

int fkv_crowd_threads(const struct fkv_crowd *c, int threads) {
    return c->halved && threads > 1 ? threads / 2 : threads;
}

/* All threads took `rate`. Of the first slow window a part may be older than what made it slow. */
static void decide_to_halve(struct fkv_crowd *c, double rate) {
    if (c->best == 0 || rate < c->best) c->best = rate, c->guessed = false;
    c->full = rate;
    if (c->tried && rate <= MUCH * c->best)
        c->slow = c->patience = 0;
    else
        c->halved = ++c->slow >= 2 + c->patience;
}

/* Half of them did. Where that is faster, what all would take on an idle machine is guessed: a run
 * that never saw one would take the crowd's rate for the best. */
static void decide_to_stay(struct fkv_crowd *c, double rate) {
    const bool faster = rate < c->full;
    if (faster && rate < MUCH * c->best)
        c->best = rate / MUCH, c->guessed = true;
    else if (!faster && c->guessed)
        c->best = c->full, c->guessed = false;
    c->halved = faster && ++c->times < (c->tried ? MOST_TIMES : 1);
    c->tried = true;
    if (c->halved) return;
    c->patience = c->times ? 0 : 2 * c->patience + 1;
    if (c->patience > MOST_PATIENCE) c->patience = MOST_PATIENCE;
    c->slow = c->times = 0;
}

void fkv_crowd_add(struct fkv_crowd *c, double seconds, double work) {
    c->seconds += seconds;
    c->work += work;
    if (c->seconds < WINDOW) return;
    const double rate = c->seconds / c->work;
    c->seconds = c->work = 0;
    if (c->halved)
        decide_to_stay(c, rate);
    else
        decide_to_halve(c, rate);
}
