/* Owns the colours of layers (layer_color.h). */
#include "analyze/plots/layer_color.h"

struct fkv_color fkv_plot_color(int count, const int32_t *index, int i) {
    if (count == 1) return fkv_color_map(0.3);
    double t = count <= FKV_PLOT_STEPS
                   ? (double)i / (count - 1)
                   : (double)(index[i] - index[0]) / (index[count - 1] - index[0]);
    return fkv_color_map(t * FKV_MAP_TOP);
}

struct fkv_color_bar fkv_plot_color_bar(const char *label, int count, const int32_t *index) {
    return (struct fkv_color_bar){.label = label,
                                  .low = index[0],
                                  .high = index[count - 1],
                                  .top = FKV_MAP_TOP,
                                  .integers = true,
                                  .steps = count <= FKV_PLOT_STEPS ? count : 0,
                                  .names = index};
}

int fkv_plot_add_color_bar(struct fkv_figure *f, const char *label, int count, const int32_t *index,
                           struct fkv_error *err) {
    if (count == 1) return FKV_OK;
    const struct fkv_color_bar bar = fkv_plot_color_bar(label, count, index);
    return fkv_figure_color_bar(f, &bar, err);
}
