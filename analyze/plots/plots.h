/* Every picture of what the analyzer found: each function draws one figure and writes
 * FOLDER/NAME.png and .svg. */
#ifndef FKV_ANALYZE_PLOTS_PLOTS_H
#define FKV_ANALYZE_PLOTS_PLOTS_H

#include "analyze/measure/findings.h"

/* FreqKV's Figure 1: mean power per layer over frequency (cycles per token, t on top), log scale,
 * coloured by layer with a colour bar; with a null, it is drawn and a second panel shows power over
 * null. FOLDER/spectrum_STATE */
int fkv_plot_spectrum(const struct fkv_spectrum *s, const char *folder,
                      const struct fkv_provenance *p, struct fkv_error *err);
/* FreqKV's Figure 7: the same per head, one panel per layer (24 of them, evenly spaced, where there
 * are more than 36; the title says so), without DC. FOLDER/spectrum_heads_STATE */
int fkv_plot_spectrum_heads(const struct fkv_spectrum *s, const char *folder,
                            const struct fkv_provenance *p, struct fkv_error *err);
/* Retained energy and relative error over gamma, per layer, with the spread over heads, with and
 * without DC. FOLDER/error_STATE */
int fkv_plot_error(const struct fkv_error_curves *e, const char *folder,
                   const struct fkv_provenance *p, struct fkv_error *err);
/* Heat map layer x head of the relative error (without DC) at the gamma nearest to 0.5.
 * FOLDER/error_heatmap_STATE */
int fkv_plot_error_heatmap(const struct fkv_error_curves *e, const char *folder,
                           const struct fkv_provenance *p, struct fkv_error *err);
/* DCT, KLT and SVD over gamma, mean and range over layers and heads. FOLDER/error_bounds_STATE */
int fkv_plot_bounds(const struct fkv_error_curves *e, const char *folder,
                    const struct fkv_provenance *p, struct fkv_error *err);

#endif
