/* A retaining ratio per (layer, KV head): chosen from what every ratio would lose, written as
 * gamma.json.
 *
 * Ratios are k/64, so that few distinct sizes occur (one transform each): of n compressible slots L
 * = floor(k n / 64) stay. */
#ifndef FKV_ANALYZE_MEASURE_GAMMA_H
#define FKV_ANALYZE_MEASURE_GAMMA_H

#include <stdbool.h>

#include "analyze/measure/findings.h"
#include "analyze/measure/segments.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/memory.h"

enum { FKV_RATIO_STEPS = 64 };

enum fkv_objective {
    FKV_OBJECTIVE_RELATIVE,
    FKV_OBJECTIVE_ABSOLUTE,
    FKV_OBJECTIVE_ATTENTION,
    FKV_OBJECTIVES
};
extern const char
    *const fkv_objective_names[FKV_OBJECTIVES]; /* "relative", "absolute", "attention" */

/* What each head loses over k, from spectra and from attention. */
enum fkv_loss {
    FKV_LOSS_KEY,       /* share of the keys' energy that lies from L on */
    FKV_LOSS_VALUE,     /* the same of the values */
    FKV_LOSS_OBJECTIVE, /* what the budget minimises, sum over heads:
                           relative: the mean of the two above; absolute: their energies per
                           channel, summed; attention: the attention-output error, squared */
    FKV_LOSS_PROJECTED, /* objective attention where the capture holds the output projection: the
                           same after it; minimised by nobody, shown beside the objective */
    FKV_LOSSES
};

/* Which heads policies.json gives to `local` rather than freqkv. */
enum fkv_mixed_rule {
    FKV_MIXED_NONE,   /* no policies.json */
    FKV_MIXED_ENERGY, /* those whose keys or values keep less than a share of their energy */
    FKV_MIXED_WORST   /* the share of heads that lose most by the objective */
};

struct fkv_ratio_choice {
    bool by_budget;
    double target; /* mean ratio of the budget, or share of energy */
    enum fkv_objective objective;
    bool dc;               /* count the mean over tokens as energy */
    double floor, cap;     /* ratios that no head goes below or above; 0 and 1: no limit */
    int32_t window, sinks; /* of the cache the table is for */
    enum fkv_mixed_rule mixed;
    double mixed_share;
};

struct fkv_ratio_table {
    struct fkv_ratio_choice choice;
    int32_t layers, heads, n;          /* n: length of the segments the losses were measured on */
    int32_t *layer_index, *head_index; /* [layers], [heads] */
    int32_t losses;                    /* FKV_LOSSES, or one less without the projected */
    double *loss[FKV_LOSSES]; /* [layers, heads, FKV_RATIO_STEPS + 1], NaN where L would be 0 */
    int32_t *parts;           /* [layers, heads] k */
    double *gamma;            /* [layers, heads] k/64 */
    int32_t *retained;        /* [layers, heads] L of window - sinks slots */
    bool *local;              /* [layers, heads] under `local` by choice.mixed, at its ratio */
    struct fkv_memory memory;
    int32_t local_heads;
    double mean, least, largest, deviation; /* of gamma over heads */
    double mean_retained;
    double table_loss[FKV_LOSSES],
        uniform_loss[FKV_LOSSES]; /* mean over heads: of the table, and of one ratio for all of the
                                     same mean */
    int32_t unreached; /* heads that do not keep the wanted share of energy even at the cap */
};

/* The k that a head may take: within floor and cap, and 1 <= L < n both in segments of n tokens and
 * in the cache. Refuses a choice that leaves none, or a budget below the least. */
int fkv_ratio_limits(const struct fkv_ratio_choice *choice, int32_t n, int32_t *low, int32_t *high,
                     struct fkv_error *err);

/* Losses from the spectra of keys and values; attention and projected [layers, heads,
 * FKV_RATIO_STEPS + 1], the attention-output errors where the objective is that, else NULL
 * (projected: also where there is none). Then the choice. */
int fkv_ratio_table_make(const struct fkv_ratio_choice *choice, const struct fkv_spectrum *key,
                         const struct fkv_spectrum *value, const double *attention,
                         const double *projected, struct fkv_ratio_table *out,
                         struct fkv_error *err);
void fkv_ratio_table_free(
    struct fkv_ratio_table *t); /* harmless on a zeroed struct and a second time */

/* loss [FKV_RATIO_STEPS + 1] of one head at any ratio, interpolated between the two steps beside
 * it. */
double fkv_uniform_loss(const double *loss, double gamma);

/* FOLDER/gamma.json (and with choice.mixed FOLDER/policies.json) as engine/cache/ratios.h reads it,
 * with how it was chosen and the hashes of the texts of `plan`; and FOLDER/gamma.csv: layer, head,
 * gamma, retained and each loss beside that of the uniform ratio. */
int fkv_ratio_table_write(const char *folder, const struct fkv_ratio_table *t,
                          struct fkv_capture *capture, const struct fkv_segment_plan *plan,
                          const struct fkv_provenance *p, struct fkv_error *err);

#endif
