/* Owns the choice of a retaining ratio per (layer, KV head).
 *
 * K and V of a head share one L, so both have a say. --energy: the smallest k at which keys and
 * values both keep the wanted share of their energy, which is the larger of the two. --budget: k
 * per head with a sum of at most floor(64 g heads) and the least sum of losses (budget.c). The mean
 * over tokens is left out unless asked for: DC dominates keys, and every L keeps it.
 *
 * Losses come from the mean spectra, so they are those of `error` at these L: lost share = sum_{t
 * >= L} P / sum P = relative error squared. Squares are summed, because energies of independent
 * errors add; so the attention-output error (attention_error.h) is squared too. Its plain sum was
 * tried: sqrt(1 - k/64) is concave, so the least sum gives some heads all and others nothing (on a
 * small model: 1/64 or 63/64 for every one of 12 heads), which says more about the root than about
 * the heads. The projected error is shown of the same table, not minimised.
 *
 * The comparison with one ratio for all heads is at equal mean ratio; where that is no multiple of
 * 1/64, losses are interpolated linearly between the two steps beside it (the share of heads that
 * would have to take the larger). */
#include "analyze/measure/gamma.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/measure/budget.h"
#include "kernels/base/ratio.h"

enum { K = FKV_RATIO_STEPS };

const char *const fkv_objective_names[FKV_OBJECTIVES] = {"relative", "absolute", "attention"};

static int32_t coefficients(int32_t k, int32_t n) { return fkv_retained((double)k / K, n); }

void fkv_ratio_table_free(struct fkv_ratio_table *t) {
    fkv_memory_free(&t->memory);
    *t = (struct fkv_ratio_table){0};
}

static int allocate(struct fkv_ratio_table *t, const struct fkv_spectrum *s, bool projected,
                    struct fkv_error *err) {
    size_t heads = (size_t)s->layers * (size_t)s->heads;
    t->layers = s->layers, t->heads = s->heads, t->n = s->n;
    t->losses = projected ? FKV_LOSSES : FKV_LOSS_PROJECTED;
    t->layer_index = fkv_memory_take(&t->memory, (size_t)s->layers, sizeof(int32_t));
    t->head_index = fkv_memory_take(&t->memory, (size_t)s->heads, sizeof(int32_t));
    for (int i = 0; i < t->losses; i++)
        t->loss[i] = fkv_memory_take(&t->memory, heads * (K + 1), sizeof(double));
    t->parts = fkv_memory_take(&t->memory, heads, sizeof(int32_t));
    t->gamma = fkv_memory_take(&t->memory, heads, sizeof(double));
    t->retained = fkv_memory_take(&t->memory, heads, sizeof(int32_t));
    t->local = fkv_memory_take(&t->memory, heads, sizeof(bool));
    if (t->memory.failed) return fkv_fail(err, "out of memory for the ratios of %zu heads", heads);
    memcpy(t->layer_index, s->layer_index, (size_t)s->layers * sizeof(int32_t));
    memcpy(t->head_index, s->head_index, (size_t)s->heads * sizeof(int32_t));
    return FKV_OK;
}

/* power [n] -> lost [K + 1], energy from L(k) on, and the energy it is a share of. A head without
 * energy loses nothing. */
static double lost_energy(const double *power, int32_t n, bool dc, double lost[K + 1]) {
    double sum = 0;
    int32_t t = n;
    for (int32_t k = K; k >= 0; k--) {
        int32_t from = coefficients(k, n);
        if (!dc && from < 1) from = 1;
        while (t > from) sum += power[--t];
        lost[k] = sum;
    }
    return sum;
}

static void fill_losses(struct fkv_ratio_table *t, const struct fkv_spectrum *key,
                        const struct fkv_spectrum *value, const double *attention,
                        const double *projected) {
    const struct fkv_spectrum *const spectra[2] = {key, value};
    for (int32_t head = 0; head < t->layers * t->heads; head++) {
        double lost[2][K + 1], total[2];
        for (int i = 0; i < 2; i++)
            total[i] = lost_energy(spectra[i]->power + (size_t)head * (size_t)t->n, t->n,
                                   t->choice.dc, lost[i]);
        for (int32_t k = 0; k <= K; k++) {
            size_t at = (size_t)head * (K + 1) + (size_t)k;
            double share[2];
            for (int i = 0; i < 2; i++) {
                share[i] = total[i] > 0 ? lost[i][k] / total[i] : 0;
                t->loss[FKV_LOSS_KEY + i][at] = coefficients(k, t->n) ? share[i] : NAN;
            }
            double objective =
                t->choice.objective == FKV_OBJECTIVE_RELATIVE   ? (share[0] + share[1]) / 2
                : t->choice.objective == FKV_OBJECTIVE_ABSOLUTE ? lost[0][k] + lost[1][k]
                                                                : attention[at] * attention[at];
            t->loss[FKV_LOSS_OBJECTIVE][at] = coefficients(k, t->n) ? objective : NAN;
            if (projected) t->loss[FKV_LOSS_PROJECTED][at] = projected[at] * projected[at];
        }
    }
}

int fkv_ratio_limits(const struct fkv_ratio_choice *c, int32_t n, int32_t *low, int32_t *high,
                     struct fkv_error *err) {
    int32_t slots = c->window - c->sinks, shorter = slots < n ? slots : n;
    if (slots < 2)
        return fkv_fail_option(err,
                               "--window: expected %d sinks and at least two slots more, found %d",
                               c->sinks, c->window);
    int32_t least = (K + shorter - 1) / shorter;
    *low = (int32_t)ceil(c->floor * K - 1e-9);
    *high = (int32_t)floor(c->cap * K + 1e-9);
    if (*low < least) *low = least;
    if (*high > K - 1) *high = K - 1;
    if (*low > *high)
        return fkv_fail_option(err,
                               "--floor %g and --cap %g: expected a multiple of 1/64 between them, "
                               "from %d/64 to 63/64",
                               c->floor, c->cap, least);
    if (c->by_budget && c->target * K < *low - 1e-9)
        return fkv_fail_option(err,
                               "--budget %g: expected %g or more, the least that a head may get",
                               c->target, (double)*low / K);
    return FKV_OK;
}

static int choose_by_energy(struct fkv_ratio_table *t, int32_t low, int32_t high) {
    int unreached = 0;
    for (int32_t head = 0; head < t->layers * t->heads; head++) {
        const double *key = t->loss[FKV_LOSS_KEY] + (size_t)head * (K + 1);
        const double *value = t->loss[FKV_LOSS_VALUE] + (size_t)head * (K + 1);
        double allowed = 1 - t->choice.target + 1e-12;
        int32_t k = low;
        while (k < high && fmax(key[k], value[k]) > allowed) k++;
        if (fmax(key[k], value[k]) > allowed) unreached++;
        t->parts[head] = k;
    }
    return unreached;
}

static int choose_by_budget(struct fkv_ratio_table *t, int32_t low, int32_t high,
                            struct fkv_error *err) {
    int32_t heads = t->layers * t->heads;
    int64_t total = (int64_t)floor(t->choice.target * K * heads + 1e-9);
    return fkv_budget_share(t->loss[FKV_LOSS_OBJECTIVE], heads, K, low, high, total, t->parts, err);
}

double fkv_uniform_loss(const double *loss, double gamma) {
    int32_t below = (int32_t)floor(gamma * K + 1e-9);
    double above = fmax(gamma * K - below, 0);
    return above > 0 ? (1 - above) * loss[below] + above * loss[below + 1] : loss[below];
}

struct head_loss {
    double loss;
    int32_t head;
};

static int by_loss(const void *left, const void *right) {
    const struct head_loss *a = left, *b = right;
    if (a->loss != b->loss) return a->loss > b->loss ? -1 : 1;
    return (a->head > b->head) - (a->head < b->head);
}

/* By what a head loses at its own ratio, which `local` takes over: both keep as many slots. */
static int choose_local(struct fkv_ratio_table *t, struct fkv_error *err) {
    const int32_t heads = t->layers * t->heads;
    const struct fkv_ratio_choice *c = &t->choice;
    const bool energy = c->mixed == FKV_MIXED_ENERGY;
    struct head_loss *worst = malloc((size_t)heads * sizeof *worst);
    if (!worst) return fkv_fail(err, "out of memory for the policies of %d heads", heads);
    for (int32_t head = 0; head < heads; head++) {
        const size_t at = (size_t)head * (K + 1) + (size_t)t->parts[head];
        const double lost = fmax(t->loss[FKV_LOSS_KEY][at], t->loss[FKV_LOSS_VALUE][at]);
        worst[head] = (struct head_loss){energy ? lost : t->loss[FKV_LOSS_OBJECTIVE][at], head};
    }
    qsort(worst, (size_t)heads, sizeof *worst, by_loss);
    const int32_t most = energy ? heads : (int32_t)floor(c->mixed_share * heads + 1e-9);
    for (int32_t i = 0; i < most; i++) {
        if (energy && worst[i].loss <= 1 - c->mixed_share + 1e-12) break;
        t->local[worst[i].head] = true;
        t->local_heads++;
    }
    free(worst);
    return FKV_OK;
}

static void conclude(struct fkv_ratio_table *t) {
    int32_t heads = t->layers * t->heads, slots = t->choice.window - t->choice.sinks;
    double squares = 0;
    t->least = INFINITY, t->largest = -INFINITY;
    for (int32_t i = 0; i < heads; i++) {
        t->gamma[i] = (double)t->parts[i] / K;
        t->retained[i] = coefficients(t->parts[i], slots);
        t->mean += t->gamma[i]; /* multiples of 1/64: the sum is exact */
        t->mean_retained += (double)t->retained[i] / heads;
        t->least = fmin(t->least, t->gamma[i]), t->largest = fmax(t->largest, t->gamma[i]);
    }
    t->mean /= heads;
    for (int32_t i = 0; i < heads; i++)
        squares += (t->gamma[i] - t->mean) * (t->gamma[i] - t->mean);
    t->deviation = sqrt(squares / heads);
    for (int i = 0; i < t->losses; i++)
        for (int32_t head = 0; head < heads; head++) {
            const double *loss = t->loss[i] + (size_t)head * (K + 1);
            t->table_loss[i] += loss[t->parts[head]] / heads;
            t->uniform_loss[i] += fkv_uniform_loss(loss, t->mean) / heads;
        }
}

int fkv_ratio_table_make(const struct fkv_ratio_choice *choice, const struct fkv_spectrum *key,
                         const struct fkv_spectrum *value, const double *attention,
                         const double *projected, struct fkv_ratio_table *out,
                         struct fkv_error *err) {
    int32_t low = 1, high = K - 1;
    *out = (struct fkv_ratio_table){.choice = *choice};
    int status = allocate(out, key, projected != NULL, err);
    if (!status) status = fkv_ratio_limits(choice, key->n, &low, &high, err);
    if (!status) {
        fill_losses(out, key, value, attention, projected);
        if (choice->by_budget)
            status = choose_by_budget(out, low, high, err);
        else
            out->unreached = choose_by_energy(out, low, high);
    }
    if (!status && choice->mixed) status = choose_local(out, err);
    if (!status) conclude(out);
    if (status) fkv_ratio_table_free(out);
    return status;
}
