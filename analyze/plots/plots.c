/* What the figures have in common. Layers are ordered, so they take a sequential map and a colour
 * bar; its light end is left out, where lines would vanish on paper. */
#include "analyze/plots/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double map_top = 0.92;

const char *const fkv_plot_state[FKV_STATES] = {"keys before RoPE", "values", "keys after RoPE",
                                                "queries"};

const char *fkv_plot_heads(enum fkv_state state) {
    return state == FKV_STATE_QUERY ? "head" : "KV head";
}

struct fkv_color fkv_plot_color(int count, const int32_t *index, int i) {
    if (count == 1) return fkv_color_map(0.3);
    double t = count <= FKV_PLOT_STEPS
                   ? (double)i / (count - 1)
                   : (double)(index[i] - index[0]) / (index[count - 1] - index[0]);
    return fkv_color_map(t * map_top);
}

int fkv_plot_color_bar(struct fkv_figure *f, const char *label, int count, const int32_t *index,
                       struct fkv_error *err) {
    if (count == 1) return FKV_OK;
    return fkv_figure_color_bar(
        f,
        &(struct fkv_color_bar){.label = label,
                                .low = index[0],
                                .high = index[count - 1],
                                .top = map_top,
                                .integers = true,
                                .steps = count <= FKV_PLOT_STEPS ? count : 0,
                                .names = index},
        err);
}

const char *fkv_plot_number(char text[FKV_PLOT_NUMBER], double x, int digits) {
    char plain[32];
    snprintf(plain, sizeof plain, "%.*g", digits, fabs(x));
    char *power = strchr(plain, 'e');
    if (power) *power++ = 0;
    int used = snprintf(text, FKV_PLOT_NUMBER, "%s%s", x < 0 ? "\u2212" : "", plain);
    if (power)
        snprintf(text + used, FKV_PLOT_NUMBER - (size_t)used, "\u00d710^{%s%d}",
                 *power == '-' ? "\u2212" : "", abs(atoi(power)));
    return text;
}

const char *fkv_plot_fixed(char text[FKV_PLOT_NUMBER], double x, int digits) {
    bool negative = x < 0 && fabs(x) >= 0.5 * pow(10, -digits);
    snprintf(text, FKV_PLOT_NUMBER, "%s%.*f", negative ? "\u2212" : "", digits, fabs(x));
    return text;
}

void fkv_plot_note_model(char note[FKV_PLOT_NOTE], const struct fkv_provenance *p) {
    if (!p->model || !*p->model) return;
    size_t end = strlen(p->model);
    while (end > 1 && p->model[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && p->model[start - 1] != '/') start--;
    size_t used = strlen(note);
    snprintf(note + used, FKV_PLOT_NOTE - used, " Model: %.*s.", (int)(end - start),
             p->model + start);
}

int fkv_plot_finish(struct fkv_figure *f, const char *note, const char *folder, const char *name,
                    enum fkv_state state, const struct fkv_provenance *p, struct fkv_error *err) {
    char base[4096];
    int rc = fkv_figure_note(f, note, err);
    if (!rc && (size_t)snprintf(base, sizeof base, "%s/%s_%s", folder, name,
                                fkv_state_names[state]) >= sizeof base)
        rc = fkv_fail(err, "figure %s: the folder's path is too long", name);
    if (!rc) rc = fkv_figure_write(f, base, p, err);
    fkv_figure_destroy(f);
    return rc;
}
