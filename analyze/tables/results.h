/* DIR/results.h5: the findings of `spectrum`, `error` and `gamma` over one capture, at full
 * resolution, float64.
 *
 *   /                       attrs: format "freqkv-results", format_version, version,
 *                           capture_sha256, model, segment_length, skip_sinks, documents, segments,
 *                           tokens_left_out
 *   /spectrum               attrs: command, version, standard_error ("documents", "bootstrap",
 *                           "segments"), se_unit ("documents", "documents and blocks", "blocks of
 *                           one document", "" for none; a block is a segment), null ("permute",
 *                           "expected", "none")
 *   /spectrum/STATE/        power, power_se, power_null, excess [layers, kv_heads, n];
 *                           power_normalised [layers, n]; rounding_floor, total, total_no_dc
 *                           [layers, kv_heads]; layer_index [layers], head_index [kv_heads]
 *   /error                  attrs: command, version
 *   /error/STATE/           gamma [G]; retained_energy, relative_error, snr_db, cosine and the same
 *                           with suffix _no_dc [layers, kv_heads, G]; rounding_floor [layers,
 *                           kv_heads]: relative error that storage rounding makes; layer_index,
 *                           head_index; with --bounds klt_error_no_dc, svd_error_no_dc [layers,
 *                           kv_heads, G]
 *
 *   /gamma                  attrs: command, version, criterion ("energy", "budget"), objective;
 *                           gamma, retained [layers, kv_heads], loss_key, loss_value,
 *                           loss_objective, and where there is one loss_objective_projected
 *                           [layers, kv_heads, 65]: what each ratio k/64 loses (gamma.h);
 *                           layer_index, head_index
 *
 *   /link                   attrs: command, version; segment_length [2] (of the sweep's segments,
 *                           of the probes'; 0: none); sweep_gamma, sweep_mean_nll, sweep_delta_nll
 *                           [runs], sweep_retained [4, runs] (key, value, key without DC, value
 *                           without DC); head_place [heads, 4] (layer, head, states: bit 0 keys,
 *                           bit 1 values, group), head_predictor [heads, 6] (energy, energy_no_dc,
 *                           absolute, visible, attention, attention_projected), head_delta_nll,
 *                           head_kl [heads, 3] (estimate, low, high); link_place [links, 5] (group;
 *                           damage: 0 delta nll, 1 KL; depth: 0 all, 1 to 3 thirds; predictor;
 *                           place), link_spearman, link_pearson, link_partial [links, 3]
 *
 * All may write into one DIR: the one that runs later rewrites the file and carries the others'
 * groups over, provided that capture, segment length and sinks agree (of /link the capture alone
 * has to: it cuts as its runs and probes do). A command replaces its own group and files when it
 * runs again. What freqkv-analyze did not make is never touched: a DIR that holds such a file under
 * a name that would be written is refused before any work starts. */
#ifndef FKV_ANALYZE_TABLES_RESULTS_H
#define FKV_ANALYZE_TABLES_RESULTS_H

#include "analyze/measure/findings.h"
#include "analyze/measure/gamma.h"
#include "analyze/measure/segments.h"
#include "capture/store/h5.h"

/* A dataset of a group. */
struct fkv_results_dataset {
    const char *name;
    enum fkv_h5_type type;
    int rank;
    int64_t dims[3];  /* [rank] */
    const void *data; /* dims, row-major; NULL: not written */
};

/* What one command found: a spectrum per state, and beside it `curves` (one per state) for error,
 * `ratios` for gamma; else NULL. Of link `cut` and the datasets of its group, and no spectrum. */
struct fkv_findings {
    const struct fkv_provenance *provenance;
    int32_t states;
    const struct fkv_spectrum *spectra;
    const struct fkv_error_curves *curves;
    const struct fkv_ratio_table *ratios;
    const struct fkv_segment_plan *cut; /* for a file that has no other group yet */
    int32_t datasets;
    const struct fkv_results_dataset *dataset; /* [datasets] */
};

/* What a command intends to write. */
struct fkv_results_intent {
    const char *folder, *group; /* group: the command's name, also the prefix of its files */
    const char *capture_sha256;
    int32_t n, skip_sinks;
};
/* Makes the folder and refuses one that cannot be written to under the rules above. */
int fkv_results_check(const struct fkv_results_intent *intent, struct fkv_error *err);

/* Writes FOLDER/results.h5. */
int fkv_results_write(const char *folder, const struct fkv_findings *findings,
                      struct fkv_error *err);

#endif
