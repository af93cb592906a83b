/* What is known of a row's prediction from a panel: some consecutive ids of the vocabulary. A row's
 * panels are joined one after the other, so that the logits of the whole vocabulary never stand in
 * memory at once.
 *
 *   A = largest logit, Z = sum of e^(z - A);   nll = A + log Z - z_target
 *   KL(P || Q) = gap / Z_p - (A_p + log Z_p) + (A_q + log Z_q),   gap = sum of e^(z - A_p) (z - y)
 *
 * over the logits z of P and y of Q. Everything is in double. NaN and +inf reach the results
 * through the sums; a row of nothing but -inf has no largest logit and gives NaN. */
#ifndef FKV_KERNELS_LIKELIHOOD_H
#define FKV_KERNELS_LIKELIHOOD_H

#include <math.h>
#include <stdint.h>

struct fkv_likelihood {
    double largest; /* logit; -inf: none that is larger */
    double sum;     /* of e^(logit - largest); of e^logit where largest is -inf */
    double target;  /* the target's logit; NaN: it is in another panel */
    int32_t top1;   /* the first id with the largest logit */
};

/* Of no id at all. */
static inline struct fkv_likelihood fkv_likelihood_none(void) {
    struct fkv_likelihood none = {-INFINITY, 0, NAN, 0};
    return none;
}

/* What sums relative to `before` are multiplied by to be relative to `largest`. */
static inline double fkv_likelihood_factor(double before, double largest) {
    return before == largest ? 1 : exp(before - largest);
}

/* 0 times infinity is 0 here: what a factor that small leaves of a gap is nothing. */
static inline double fkv_likelihood_scaled(double gap, double factor) {
    return factor == 0 ? 0 : gap * factor;
}

/* Takes the next panel in. */
static inline void fkv_likelihood_join(struct fkv_likelihood *all,
                                       const struct fkv_likelihood *panel) {
    const double largest = fmax(all->largest, panel->largest);
    all->sum = all->sum * fkv_likelihood_factor(all->largest, largest) +
               panel->sum * fkv_likelihood_factor(panel->largest, largest);
    if (panel->largest > all->largest) all->top1 = panel->top1;
    if (!isnan(panel->target)) all->target = panel->target;
    all->largest = largest;
}

/* Adds a panel's gap to that of the panels before; before P's likelihood takes the panel in. */
static inline void fkv_gap_join(double *gap, const struct fkv_likelihood *all, double panel_gap,
                                const struct fkv_likelihood *panel) {
    const double largest = fmax(all->largest, panel->largest);
    *gap = fkv_likelihood_scaled(*gap, fkv_likelihood_factor(all->largest, largest)) +
           fkv_likelihood_scaled(panel_gap, fkv_likelihood_factor(panel->largest, largest));
}

/* log of the sum of e^logit */
static inline double fkv_likelihood_log_sum(const struct fkv_likelihood *l) {
    return l->largest == -INFINITY ? NAN : l->largest + log(l->sum);
}

static inline double fkv_likelihood_nll(const struct fkv_likelihood *l) {
    return fkv_likelihood_log_sum(l) - l->target;
}

/* KL(P || Q) */
static inline double fkv_likelihood_divergence(const struct fkv_likelihood *p,
                                               const struct fkv_likelihood *q, double gap) {
    return gap / p->sum - fkv_likelihood_log_sum(p) + fkv_likelihood_log_sum(q);
}

#endif
