/* Where a figure goes, and how it is finished. */
#ifndef FKV_ANALYZE_PLOTS_TARGET_H
#define FKV_ANALYZE_PLOTS_TARGET_H

#include "analyze/figure/figure.h"
#include "kernels/base/json.h"

struct fkv_plot_target {
    const char *folder;
    const char *stem; /* what the names of its files start with, or NULL */
    const struct fkv_provenance *provenance;
    json_t *left_out; /* array of {file, figure, reason}: what a figure cannot show; may be NULL */
    int32_t figures;  /* counts those written */
};

/* Bytes of a figure's name, and of the small print under it. */
enum { FKV_PLOT_NAME = 320, FKV_PLOT_NOTE = 1024 };

/* Adds a row about figure STEM_NAME to to->left_out. */
void fkv_plot_leave_out(struct fkv_plot_target *to, const char *file, const char *name,
                        const char *reason);

/* STEM_NAME; where one of them is NULL or "" the other. Returns `text`. */
const char *fkv_plot_name(const struct fkv_plot_target *to, const char *name,
                          char text[FKV_PLOT_NAME]);

/* Refuses to replace FOLDER/STEM_NAME.svg, .png or .csv of somebody else: a picture must say that
 * this program drew it, a table must have such a picture beside it. */
int fkv_plot_check_ours(const struct fkv_plot_target *to, const char *name, struct fkv_error *err);

/* Puts the model's name under the figure, writes FOLDER/STEM_NAME.png and .svg, and destroys the
 * figure, whatever happens. The name is as printf writes it. */
int fkv_plot_finish(struct fkv_figure *f, struct fkv_plot_target *to, struct fkv_error *err,
                    const char *name, ...) __attribute__((format(printf, 4, 5)));

#endif
