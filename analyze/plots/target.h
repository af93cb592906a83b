/* Where a figure goes, and how it is finished. */
#ifndef FKV_ANALYZE_PLOTS_TARGET_H
#define FKV_ANALYZE_PLOTS_TARGET_H

#include "analyze/figure/figure.h"
#include "kernels/base/json.h"

struct fkv_plot_target {
    const char *folder;
    const char
        *stem; /* of the files, FOLDER/STEM_...; NULL for figures whose names are their own */
    const struct fkv_provenance *provenance;
    json_t *left_out; /* array of {file, figure, reason}: what a figure cannot show; may be NULL */
    int32_t figures;  /* counts those written */
};

/* Bytes of a figure's name, and of the small print under it. */
enum { FKV_PLOT_NAME = 320, FKV_PLOT_NOTE = 1024 };

/* Adds a row to to->left_out. */
void fkv_plot_leave_out(struct fkv_plot_target *to, const char *file, const char *figure,
                        const char *reason);

/* Refuses to replace FOLDER/NAME.svg, .png or .csv of somebody else: a picture must say that this
 * program drew it, a table must have such a picture beside it. */
int fkv_plot_check_ours(const struct fkv_plot_target *to, const char *name, struct fkv_error *err);

/* Puts the note (may be NULL) and the model's name under the figure, writes FOLDER/NAME.png and
 * .svg, and destroys the figure, whatever happens. status: of the drawing; other than FKV_OK it is
 * returned, and nothing is written. */
int fkv_plot_finish(struct fkv_figure *f, int status, const char *note, const char *name,
                    struct fkv_plot_target *to, struct fkv_error *err);

#endif
