/* Colours of layers, and of heads where there are many. They are ordered, so they take a sequential
 * map and a colour bar. */
#ifndef FKV_ANALYZE_PLOTS_LAYER_COLOR_H
#define FKV_ANALYZE_PLOTS_LAYER_COLOR_H

#include "analyze/figure/figure.h"

/* FKV_PLOT_FEW: as many lines as can each have a band or a label of their own. FKV_PLOT_STEPS: as
 * many as the colour bar shows as fields, one each. */
enum { FKV_PLOT_FEW = 8, FKV_PLOT_STEPS = 16 };

/* The i-th of `count` layers with ascending numbers index [count]; NULL: 0, 1, 2, ... */
struct fkv_color fkv_plot_color(int count, const int32_t *index, int i);
/* A layer's line. Of more layers than can be told apart, FKV_PLOT_FEW that are evenly spaced are
 * strong and the others faint; the strong ones are drawn last. */
struct fkv_line fkv_plot_layer_line(int count, const int32_t *index, int i);
/* The layer to draw as the k-th of `count`: the faint ones come first. */
int fkv_plot_drawn(int count, int k);
/* The bar that says which is which. `index` is borrowed. */
struct fkv_color_bar fkv_plot_color_bar(const char *label, int count, const int32_t *index);
/* Puts it beside the panels; none for a single layer. */
void fkv_plot_add_color_bar(struct fkv_figure *f, const char *label, int count,
                            const int32_t *index);

#endif
