/* Energy joined with what its loss does: a capture's spectra beside the perplexity of runs and the
 * damage of probes.
 *
 * Along a sweep, each run of a policy that keeps L lowest coefficients is a point: the energy that
 * its own L retain of segments of n = window - sinks - recent tokens (mean over the captured heads,
 * keys and values, with DC and without) against its mean nll and its difference to the baseline.
 * Over heads, each change of a single head by a filter is a point: predictors (predictors.h) of
 * what the change takes out, from segments of prefix - sinks tokens, against delta nll and KL.
 * Changes of one family (the same change of every head) form a group; groups are looked at whole
 * and by thirds of the model's layers. Refused: runs, probes and captures of different models or
 * sizes; runs and probes of texts that the capture does not hold; sweeps of different protocols,
 * texts, windows. */
#ifndef FKV_ANALYZE_LINK_LINK_H
#define FKV_ANALYZE_LINK_LINK_H

#include "analyze/link/token_classes.h"
#include "analyze/link/predictors.h"
#include "analyze/link/residual.h"
#include "capture/store/capture_reader.h"
#include "capture/store/run.h"

/* ---- along a sweep ---- */

enum fkv_link_retained {
    FKV_RETAINED_KEY,
    FKV_RETAINED_VALUE,
    FKV_RETAINED_KEY_NO_DC,
    FKV_RETAINED_VALUE_NO_DC,
    FKV_RETAINED
};
extern const char *const fkv_retained_names[FKV_RETAINED];
enum fkv_link_outcome { FKV_OUTCOME_NLL, FKV_OUTCOME_DELTA, FKV_OUTCOMES };
extern const char *const fkv_outcome_names[FKV_OUTCOMES]; /* "mean_nll", "delta_nll" */

struct fkv_link_sweep {
    int32_t points,
        n; /* runs, in the order of their mean ratio; n: slots that a compression sees */
    const struct fkv_run **run;                 /* [points] */
    double *gamma;                              /* [points] mean L / n over heads */
    double *retained;                           /* [FKV_RETAINED, points] */
    struct fkv_interval *outcome[FKV_OUTCOMES]; /* [points] over tokens; NaN where there is none */
    bool has_outcome[FKV_OUTCOMES];
    struct fkv_memory memory;
    enum fkv_se_unit se_unit; /* of intervals over texts */
    int64_t documents;
    struct fkv_correlation correlation[FKV_OUTCOMES][FKV_RETAINED];
};
/* Runs all checked; spectra of segments of n tokens. */
int fkv_link_sweep_make(const struct fkv_run *runs, int32_t count,
                        const struct fkv_predictor_spectra *spectra, struct fkv_link_sweep *out,
                        struct fkv_error *err);
void fkv_link_sweep_free(
    struct fkv_link_sweep *s); /* harmless on a zeroed struct and a second time */

/* ---- over heads ---- */

struct fkv_link_head { /* a change of one head */
    int32_t probe, change, layer, head;
    double predictor[FKV_PREDICTORS];
};

enum fkv_depth { FKV_DEPTH_ALL, FKV_DEPTH_EARLY, FKV_DEPTH_MIDDLE, FKV_DEPTH_LATE, FKV_DEPTHS };
extern const char *const fkv_depth_names[FKV_DEPTHS];
enum fkv_depth fkv_depth_of(int32_t layer, int32_t layers); /* early, middle or late: its third */

struct fkv_link_group {
    char label[FKV_PROBE_LABEL]; /* of its changes */
    int32_t states;              /* bit 0 keys, bit 1 values */
    int32_t probe, first, count; /* its heads in fkv_link_heads.head, by layer and head */
    int32_t points[FKV_DEPTHS];
    struct fkv_correlation correlation[FKV_DAMAGES][FKV_DEPTHS][FKV_PREDICTORS];
};

struct fkv_link_heads {
    int32_t count, groups;
    struct fkv_link_head *head;   /* [count] */
    struct fkv_link_group *group; /* [groups] */
    struct fkv_memory memory;
};
/* damage [probes], all checked, of one prefix and as many sinks. */
int fkv_link_heads_make(const struct fkv_damage *damage, int32_t probes,
                        const struct fkv_predictor_spectra *spectra, struct fkv_link_heads *out,
                        struct fkv_error *err);
void fkv_link_heads_free(
    struct fkv_link_heads *h); /* harmless on a zeroed struct and a second time */

/* ---- checks ---- */

int fkv_link_check_run(struct fkv_capture *c, const struct fkv_run *run, struct fkv_error *err);
int fkv_link_check_probe(struct fkv_capture *c, const struct fkv_probe *probe, const char *path,
                         struct fkv_error *err);

/* ---- everything that one command found ---- */

struct fkv_link {
    const struct fkv_provenance *provenance;
    const char *capture;
    int32_t runs, probes;
    const struct fkv_damage *damage; /* [probes] */
    const char *const *probe_path;   /* [probes] */
    bool has_sweep, has_heads, has_residuals;
    struct fkv_link_sweep sweep;
    struct fkv_link_heads heads;
    struct fkv_residuals residuals[2]; /* keys, values */
    int32_t segment_length[2];         /* of the sweep, of the probes; 0: none */
    struct fkv_segment_plan cut; /* how segments were cut last: its numbers, not its recordings */
    const struct fkv_predictor_spectra *spectra; /* of the probes */
};

/* FOLDER/link_sweep.csv, link_heads.csv, link_predictors.csv, link_classes.csv: those for which
 * there is something. (link/write.c) */
int fkv_link_write(const char *folder, const struct fkv_link *l, struct fkv_error *err);
/* The group /link of FOLDER/results.h5. (link/results.c) */
int fkv_link_results(const char *folder, const struct fkv_link *l, struct fkv_error *err);
int fkv_link_print(const struct fkv_link *l, bool json, struct fkv_error *err);

#endif
