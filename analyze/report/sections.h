/* The sections that are more than figures and tables of the folder. Each writes HTML, and nothing
 * where its data is missing. */
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

#endif
