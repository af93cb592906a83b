/* How far to trust a mean over tokens: the bootstrap that replay and analyze share.
 *
 * Tokens of one text depend on each other, and texts differ. So what is drawn is
 *   20 documents or more     documents, with replacement (Efron 1979)
 *   2 to 19                  documents with replacement, then as many blocks as the drawn document
 *                            has from its blocks, with replacement (the two-stage bootstrap;
 *                            Davison and Hinkley 1997, section 3.8)
 *   one                      its blocks: this speaks for that document only
 * A block is 256 tokens in a row, or a segment of a spectrum. Where windows share tokens there
 * are no blocks: documents are drawn however few they are, and one document has no standard
 * error.
 *
 * Dropped: blocks of all documents together, which take the spread between documents for none;
 * blocks within every document, which leaves that spread out on purpose. What is kept errs on the
 * wide side where documents do not differ (the noise of their blocks counts twice, at most a
 * factor of root 2) and on the narrow side where they are few and differ (by root of (D - 1) /
 * D). Of 95% intervals, documents differing from not at all to as much as their blocks, 69 to 96%
 * hold the truth with two or three documents and 87 to 99% with 5 to 19; with blocks of all
 * documents together 52 to 94%.
 *
 * A statistic is a ratio of sums, sum(sums) / sum(counts), because units differ in length. 1,000
 * resamples from seed 0; the same draws serve every quantity over the same units, so that
 * differences are paired.
 *
 * p values are Student's t and no bootstrap: 1,000 resamples cannot tell p = 1e-3 from 1e-6, and
 * a table of a thousand heads needs such differences once it is corrected for their number. What
 * is tested is always the largest independent unit: the means of the D documents (D - 1 degrees
 * of freedom) where there are two or more, and only with one document the means of its blocks. t
 * of the two-stage standard error, also with D - 1, was dropped: where nothing is to be found it
 * calls 0 to 6% of tests significant at 5%, by how much documents differ; t over documents 4 to
 * 7% throughout. */
#ifndef FKV_STATISTICS_BOOTSTRAP_H
#define FKV_STATISTICS_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/statistics/random.h"

enum { FKV_BOOTSTRAP_RESAMPLES = 1000, FKV_BOOTSTRAP_BLOCK = 256, FKV_BOOTSTRAP_DOCUMENTS = 20 };

/* What a standard error rests on. */
enum fkv_se_unit { FKV_SE_NONE, FKV_SE_DOCUMENTS, FKV_SE_DOCUMENTS_AND_BLOCKS, FKV_SE_BLOCKS };

/* Of so many documents with so many blocks in all. overlap: their windows share tokens. */
enum fkv_se_unit fkv_se_unit_of(int64_t documents, int64_t blocks, bool overlap);
/* "documents", "documents and blocks", "blocks of one document"; NULL for none. */
const char *fkv_se_unit_name(enum fkv_se_unit unit);
/* The same for people, with what it does not say: "over 3 documents and segments within them (so
 * few documents say little about others)". blocks: what a block is called. Returns `text`. */
enum { FKV_SE_WORDS = 160 };
const char *fkv_se_unit_words(enum fkv_se_unit unit, int64_t documents, const char *blocks,
                              char text[FKV_SE_WORDS]);

/* What is drawn. Units of a document follow one another. */
struct fkv_units {
    enum fkv_se_unit kind;
    int64_t documents; /* that have a block */
    int64_t count;     /* units */
    int64_t groups;    /* documents of the two-stage draw, else 1 */
    int64_t *first;    /* [groups + 1] first unit of each; owned */
    int64_t *unit;     /* [documents as given] first unit of each; within `first` */
};
/* blocks [documents] of each document, 0 where a document has nothing. */
int fkv_units_make(const int64_t *blocks, int64_t documents, bool overlap, struct fkv_units *units,
                   struct fkv_error *err);
void fkv_units_free(struct fkv_units *units); /* harmless on a zeroed struct and a second time */

/* Is each block a unit, or each document? */
static inline bool fkv_units_are_blocks(const struct fkv_units *u) {
    return u->kind == FKV_SE_BLOCKS || u->kind == FKV_SE_DOCUMENTS_AND_BLOCKS;
}

/* The unit of a block of a document, both as given to fkv_units_make. */
static inline int64_t fkv_unit_at(const struct fkv_units *u, int64_t document, int64_t block) {
    return u->unit[document] + (fkv_units_are_blocks(u) ? block : 0);
}

/* times [count] <- how often the next resample draws each unit. */
void fkv_resample(const struct fkv_units *units, struct fkv_random *random, double *times);

struct fkv_interval {
    double estimate, low, high; /* NaN where it does not exist */
};

/* sum(sums) / sum(counts) over units [count] and its 95% interval: 2.5th and 97.5th percentile of
 * the resamples, linear between order statistics. *se (may be NULL): their standard deviation (n
 * - 1). Neither exists without two units, or where half of the resamples draw no token. */
struct fkv_interval fkv_ratio_interval(const struct fkv_units *units, const double *sums,
                                       const double *counts, double *se);

/* The 95% interval of values [count], `step` apart; NaN is left out, and more than half must be
 * there. scratch [count]. */
struct fkv_interval fkv_percentile_interval(double estimate, int count, const double *values,
                                            size_t step, double *scratch);

/* means [count] <- sums / counts of what a test takes for independent (see above); returns how
 * many. Those without a token are left out. */
int64_t fkv_independent_means(const struct fkv_units *units, const double *sums,
                              const double *counts, double *means);

#endif
