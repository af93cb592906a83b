/* Owns the colours of layers (layer_color.h). */
#include "analyze/plots/layer_color.h"

#include <math.h>

struct fkv_color fkv_plot_color(int count, const int32_t *index, int i) {
    if (count == 1) return fkv_color_map(0.3);
    double t = count <= FKV_PLOT_STEPS || !index
                   ? (double)i / (count - 1)
                   : (double)(index[i] - index[0]) / (index[count - 1] - index[0]);
    return fkv_color_map(t * FKV_MAP_TOP);
}

static bool is_strong(int count, int i) {
    for (int k = 0; k < FKV_PLOT_FEW; k++)
        if (i == (int)lround((double)k * (count - 1) / (FKV_PLOT_FEW - 1))) return true;
    return count <= FKV_PLOT_FEW;
}

struct fkv_line fkv_plot_layer_line(int count, const int32_t *index, int i) {
    const bool strong = is_strong(count, i);
    struct fkv_line line = {.color = fkv_plot_color(count, index, i), .width = strong ? 1.2 : 0.6};
    if (!strong) line.color.a = 0.25;
    return line;
}

int fkv_plot_drawn(int count, int k) {
    for (int strong = 0; strong < 2; strong++)
        for (int i = 0; i < count; i++)
            if (is_strong(count, i) == strong && !k--) return i;
    return 0;
}

struct fkv_color_bar fkv_plot_color_bar(const char *label, int count, const int32_t *index) {
    return (struct fkv_color_bar){.label = label,
                                  .low = index ? index[0] : 0,
                                  .high = index ? index[count - 1] : count - 1,
                                  .top = FKV_MAP_TOP,
                                  .integers = true,
                                  .steps = count <= FKV_PLOT_STEPS ? count : 0,
                                  .names = index};
}

void fkv_plot_add_color_bar(struct fkv_figure *f, const char *label, int count,
                            const int32_t *index) {
    const struct fkv_color_bar bar = fkv_plot_color_bar(label, count, index);
    if (count > 1) fkv_figure_color_bar(f, &bar);
}
