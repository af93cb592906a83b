/* Figures of the folder, in a section. */
#ifndef FKV_ANALYZE_REPORT_FIGURES_H
#define FKV_ANALYZE_REPORT_FIGURES_H

#include <stdio.h>

#include "analyze/report/folder.h"

/* The SVG `name` as an image with a caption; its command joins r->commands. A file that is not a
 * figure of this toolkit is named in outline->left_out: no error, since folders hold other files.
 */
int fkv_report_figure(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err);

#endif
