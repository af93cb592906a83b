/* What the figures have in common: colours by layer, names, the small print. Private to plots_*.c.
 */
#ifndef FKV_ANALYZE_PLOTS_PARTS_H
#define FKV_ANALYZE_PLOTS_PARTS_H

#include "analyze/figure/figure.h"
#include "analyze/plots/plots.h"

enum { FKV_PLOT_NOTE = 1024, FKV_PLOT_FEW = 8, FKV_PLOT_STEPS = 16 };

extern const char *const fkv_plot_state[FKV_STATES]; /* "keys before RoPE", ... */
const char *fkv_plot_heads(enum fkv_state state);    /* "KV head", or "head" for queries */

/* The i-th of `count` things with ascending numbers index [count], and the bar that says which is
 * which (none for a single one). */
struct fkv_color fkv_plot_color(int count, const int32_t *index, int i);
int fkv_plot_color_bar(struct fkv_figure *f, const char *label, int count, const int32_t *index,
                       struct fkv_error *err);

/* x with so many significant digits (3.5e-07 with its power of ten raised), or decimals; a
 * typographic minus, and none before a zero. They return `text`. */
enum { FKV_PLOT_NUMBER = 48 };
const char *fkv_plot_number(char text[FKV_PLOT_NUMBER], double x, int digits);
const char *fkv_plot_fixed(char text[FKV_PLOT_NUMBER], double x, int digits);

/* Appends " Model: NAME." to the note: the last part of a path, since the folder is nobody's
 * business on a published figure. */
void fkv_plot_note_model(char note[FKV_PLOT_NOTE], const struct fkv_provenance *p);

/* Puts the note under the figure, writes FOLDER/NAME_STATE.png and .svg, and destroys the figure,
 * whatever happens. */
int fkv_plot_finish(struct fkv_figure *f, const char *note, const char *folder, const char *name,
                    enum fkv_state state, const struct fkv_provenance *p, struct fkv_error *err);

#endif
