/* Owns the end of every figure (target.h). */
#include "analyze/plots/target.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/path.h"

const char *fkv_plot_name(const struct fkv_plot_target *to, const char *name,
                          char text[FKV_PLOT_NAME]) {
    const char *stem = to->stem ? to->stem : "", *end = name ? name : "";
    snprintf(text, FKV_PLOT_NAME, "%.270s%s%.48s", stem, *stem && *end ? "_" : "", end);
    return text;
}

void fkv_plot_leave_out(struct fkv_plot_target *to, const char *file, const char *name,
                        const char *reason) {
    char figure[FKV_PLOT_NAME];
    if (!to->left_out) return;
    json_array_append_new(to->left_out,
                          json_pack("{s:o, s:s, s:s}", "file", fkv_json_string(file), "figure",
                                    fkv_plot_name(to, name, figure), "reason", reason));
}

int fkv_plot_check_ours(const struct fkv_plot_target *to, const char *name, struct fkv_error *err) {
    static const char *const suffixes[] = {".svg", ".png", ".csv"};
    char start[4096], path[FKV_PATH], whole[FKV_PLOT_NAME];
    bool ours = false;
    for (int i = 0; i < 3; i++) {
        if (fkv_path_print(path, err, "%s/%s%s", to->folder, fkv_plot_name(to, name, whole),
                           suffixes[i]))
            return FKV_FAILED;
        FILE *f = fopen(path, "rb");
        if (!f) continue;
        size_t bytes = fread(start, 1, sizeof start, f);
        fclose(f);
        if (i < 2) ours = memmem(start, bytes, "FreqKV toolkit", 14) != NULL;
        if (!ours)
            return fkv_fail(
                err, "%s: exists, and freqkv-analyze did not make it; choose another --out", path);
    }
    return FKV_OK;
}

/* Appends " Model: NAME.": the last part of its path, since local paths are not published. */
static void add_model(struct fkv_figure *f, const struct fkv_provenance *p) {
    if (!p->model || !*p->model) return;
    size_t end = strlen(p->model);
    while (end > 1 && p->model[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && p->model[start - 1] != '/') start--;
    fkv_figure_note(f, " Model: %.*s.", (int)(end - start), p->model + start);
}

int fkv_plot_finish(struct fkv_figure *f, struct fkv_plot_target *to, struct fkv_error *err,
                    const char *name, ...) {
    char path[FKV_PATH], end[FKV_PLOT_NAME], whole[FKV_PLOT_NAME];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(end, sizeof end, name, arguments);
    va_end(arguments);
    add_model(f, to->provenance);
    int status = fkv_path_print(path, err, "%s/%s", to->folder, fkv_plot_name(to, end, whole));
    if (!status) status = fkv_figure_write(f, path, to->provenance, err);
    to->figures += !status;
    fkv_figure_destroy(f);
    return status;
}
