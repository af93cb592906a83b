/* What a page is put together from. Functions with `out` write HTML, and nothing where their data
 * are missing. */
#ifndef FKV_ANALYZE_REPORT_SECTIONS_H
#define FKV_ANALYZE_REPORT_SECTIONS_H

#include <stdio.h>

#include "analyze/report/folder.h"

/* Shares of energy, and the selector of state, layer and head. (spectra.c) */
int fkv_report_spectra(struct fkv_report *r, FILE *out, struct fkv_error *err);
/* Tables of ratio against state and layer. (errors.c) */
int fkv_report_errors(struct fkv_report *r, FILE *out, struct fkv_error *err);
/* What ratios per head lose beside a uniform one. (ratios.c) */
int fkv_report_ratios(struct fkv_report *r, FILE *out, struct fkv_error *err);
/* Model, texts, commands, hashes, and what was left out. Comes last: the other sections add to
 * r->commands and outline->left_out. (provenance.c) */
int fkv_report_provenance(struct fkv_report *r, FILE *out, struct fkv_error *err);
/* The CSV `name` as a table that is folded away; a long one in part. A file that cannot be read is
 * named in outline->left_out. (tables.c) */
void fkv_report_table(struct fkv_report *r, FILE *out, const char *name);
/* The SVG `name` as an image with a caption; its command joins r->commands. A file that is not a
 * figure of this toolkit is named in outline->left_out: no error, since folders hold other files.
 * (figures.c) */
void fkv_report_figure(struct fkv_report *r, FILE *out, const char *name);
/* The bands of spectrum.csv, with the low half's shares from results.h5. *text is malloc'd; NULL
 * where there is no spectrum.csv. (spectra_json.c) */
int fkv_report_spectra_json(const struct fkv_report *r, char **text, struct fkv_error *err);
/* Fills outline->summary: the findings in words. (summary.c) */
int fkv_report_summary(struct fkv_report *r, struct fkv_error *err);
/* Appends the sentence about the best policy at equal memory, from compare.csv, to
 * outline->summary. (best.c) */
int fkv_report_say_best(struct fkv_report *r, struct fkv_error *err);
/* Appends the sentences about runs and probes to outline->summary. (damage.c) */
void fkv_report_say_damage(struct fkv_report *r);

#endif
