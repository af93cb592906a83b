/* The JSON inside the page, which the selector draws from. */
#ifndef FKV_ANALYZE_REPORT_SPECTRA_JSON_H
#define FKV_ANALYZE_REPORT_SPECTRA_JSON_H

#include "analyze/report/folder.h"

/* The bands of spectrum.csv, with the low half's shares from results.h5. *text is malloc'd; NULL
 * where there is no spectrum.csv. */
int fkv_report_spectra_json(const struct fkv_report *r, char **text, struct fkv_error *err);

#endif
