/* Who is high-frequency: what the lowest coefficients of a segment leave of each token, by class of
 * token. */
#ifndef FKV_ANALYZE_LINK_RESIDUAL_H
#define FKV_ANALYZE_LINK_RESIDUAL_H

#include "kernels/statistics/correlation.h"
#include "analyze/measure/spectrum.h"
#include "analyze/link/token_classes.h"

/* Of one state, classes [FKV_CLASSES]; means over tokens of the class, segments and documents
 * weighing as in definitions.md, each token's number being the mean over layers and heads of
 *   residual        ||x - x_L||^2 / ||x||^2
 *   residual_no_dc  ||x - x_L||^2 / mean over the segment's tokens of ||x - mean||^2, whose mean
 *                   over all tokens is the share of energy without DC that is lost: a token's own
 *                   ||x - mean||^2 as denominator was dropped, since tokens near the
 *                   mean then decide */
struct fkv_residuals {
    int32_t n, retained;
    bool by_ids; /* some recording had no classes: only those that ids decide are there */
    int64_t tokens[FKV_CLASSES];
    enum fkv_se_unit se_unit; /* of the intervals (bootstrap.h); a block is a segment */
    int64_t documents;
    struct fkv_interval residual[2][FKV_CLASSES]; /* [0] of the above, [1] without DC */
    double se[2][FKV_CLASSES];
};

/* FKV_STATE_KEY or FKV_STATE_VALUE, L = retained coefficients of m->plan's segments. */
int fkv_residuals_measure(struct fkv_measurement *m, enum fkv_state state, int32_t retained,
                          struct fkv_residuals *out, struct fkv_error *err);

#endif
