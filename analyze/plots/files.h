/* Figures of what freqkv-replay wrote, and of tables: each function writes PNG, SVG and CSV into
 * the folder. */
#ifndef FKV_ANALYZE_PLOTS_FILES_H
#define FKV_ANALYZE_PLOTS_FILES_H

#include "analyze/link/damage.h"
#include "analyze/measure/findings.h"
#include "capture/store/run.h"
#include "kernels/base/json.h"

/* Where a figure goes, and what it is called: FOLDER/STEM_... */
struct fkv_plot_place {
    const char *folder, *stem;
    const struct fkv_provenance *provenance;
    int32_t figures;  /* counts those written */
    json_t *left_out; /* an array, or NULL; gets {file, figure, reason} of what has no place in a
                         figure */
};
void fkv_plot_leave_out(struct fkv_plot_place *at, const char *file, const char *figure,
                        const char *reason);

/* All runs together: STEM_perplexity (perplexity, delta nll, KL over gamma), STEM_distance (both
 * over tokens since the last compression and over rounds). */
int fkv_plot_runs(const struct fkv_run *runs, int32_t count, struct fkv_plot_place *at,
                  struct fkv_error *err);
/* One run: STEM_rounds, the share of energy that each compression keeps, over rounds, per state and
 * layer. Nothing where there was no compression. */
int fkv_plot_rounds(const struct fkv_run *run, struct fkv_plot_place *at, struct fkv_error *err);

/* What the probe has of: STEM_bands, STEM_filters, STEM_policies, STEM_decomposition, STEM_noise,
 * STEM_layers, STEM_heads_delta_nll, STEM_heads_kl, STEM_classes. */
int fkv_plot_probe(const struct fkv_damage *d, struct fkv_plot_place *at, struct fkv_error *err);

/* STEM: every column of numbers over the first one, a panel each, a line per combination of the
 * columns of text. */
int fkv_plot_table(const char *path, struct fkv_plot_place *at, struct fkv_error *err);

#endif
