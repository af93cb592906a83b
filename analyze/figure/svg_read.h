/* A figure's SVG file as fkv_figure_write left it, to be shown elsewhere. */
#ifndef FKV_ANALYZE_FIGURE_SVG_READ_H
#define FKV_ANALYZE_FIGURE_SVG_READ_H

#include <stddef.h>

#include "kernels/base/error.h"

struct fkv_figure_svg {
    char *text;    /* the whole file, 0 at its end; owned */
    size_t bytes;  /* of the file, without that 0 */
    char *title;   /* owned */
    char *command; /* command line that drew it, "" where the file names none; owned */
};
/* Refuses a file that is not marked as this toolkit's, is cut short, or is larger than 64 MiB. The
 * mark is not proof: a file that was changed afterwards still has it. So show the picture only
 * where scripts in it do not run. */
int fkv_figure_svg_read(const char *path, struct fkv_figure_svg *out, struct fkv_error *err);
/* Harmless on a zeroed struct and a second time. */
void fkv_figure_svg_free(struct fkv_figure_svg *svg);

#endif
