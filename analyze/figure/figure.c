/* A figure as a description: what the caller said, copied, nothing placed yet. Refuses sizes no
 * page has, panels that are not there, and points that are not there. */
#include "analyze/figure/figure.h"
#include "analyze/figure/parts.h"

#include <stdlib.h>
#include <string.h>

#include "analyze/tables/text_clean.h"

static const double longest_side = 50; /* inches: 15000 pixels, half of what cairo can address */

static int copy_text(char **out, const char *text, struct fkv_error *err) {
    if (!text) return FKV_OK;
    char *copy = fkv_text_clean(text);
    if (!copy) return fkv_fail(err, "figure: out of memory");
    free(*out);
    *out = copy;
    return FKV_OK;
}

static int copy_data(void **out, const void *data, size_t bytes, struct fkv_error *err) {
    *out = malloc(bytes ? bytes : 1);
    if (!*out) return fkv_fail(err, "figure: out of memory");
    if (bytes) memcpy(*out, data, bytes);
    return FKV_OK;
}

int fkv_figure_create(double width, double height, int rows, int columns, const char *title,
                      struct fkv_figure **out, struct fkv_error *err) {
    *out = NULL;
    if (!(width >= 1 && width <= longest_side && height >= 1 && height <= longest_side))
        return fkv_fail(err, "figure: expected sides of 1 to %g inches, found %g x %g",
                        longest_side, width, height);
    if (rows < 1 || columns < 1 || rows > 100 || columns > 100)
        return fkv_fail(err, "figure: expected 1 to 100 rows and columns of panels, found %d x %d",
                        rows, columns);
    struct fkv_figure *f = calloc(1, sizeof *f);
    if (!f) return fkv_fail(err, "figure: out of memory");
    *f = (struct fkv_figure){.width = width * FKV_POINTS,
                             .height = height * FKV_POINTS,
                             .rows = rows,
                             .columns = columns};
    f->panels = calloc((size_t)rows * (size_t)columns, sizeof *f->panels);
    if (!f->panels) {
        fkv_figure_destroy(f);
        return fkv_fail(err, "figure: out of memory");
    }
    if (fkv_font_open(&f->font, err) || copy_text(&f->title, title, err)) {
        fkv_figure_destroy(f);
        return FKV_FAILED;
    }
    *out = f;
    return FKV_OK;
}

static void free_axis(struct fkv_axis *axis) {
    for (int i = 0; axis->names && i < axis->name_count; i++) free((char *)axis->names[i]);
    free((char **)axis->names), free((char *)axis->label);
}

static void free_panel(struct fkv_panel *p) {
    for (int i = 0; i < p->count; i++) {
        struct fkv_item *item = &p->items[i];
        free((char *)item->style.label), free(item->x), free(item->y), free(item->high);
    }
    if (p->map) free(p->map->values), free(p->map->row_names), free(p->map->column_names);
    free(p->map), free(p->items), free(p->title), free(p->top_label);
    free_axis(&p->x), free_axis(&p->y);
}

void fkv_figure_destroy(struct fkv_figure *f) {
    if (!f) return;
    for (int i = 0; f->panels && i < f->rows * f->columns; i++) free_panel(&f->panels[i]);
    if (f->font) cairo_font_face_destroy(f->font);
    free((char *)f->bar.label), free((int *)f->bar.names);
    free(f->panels), free(f->title), free(f->note), free(f->texts), free(f);
}

void fkv_figure_share_axes(struct fkv_figure *f) { f->share = true; }

int fkv_figure_note(struct fkv_figure *f, const char *text, struct fkv_error *err) {
    return copy_text(&f->note, text, err);
}

static struct fkv_panel *find_panel(struct fkv_figure *f, int panel, struct fkv_error *err) {
    if (panel >= 0 && panel < f->rows * f->columns) return &f->panels[panel];
    fkv_fail(err, "figure: expected a panel in [0, %d), found %d", f->rows * f->columns, panel);
    return NULL;
}

static int copy_axis(struct fkv_axis *to, const struct fkv_axis *from, struct fkv_error *err) {
    free_axis(to);
    *to = *from;
    to->label = NULL, to->names = NULL;
    char *label = NULL,
         **names = from->name_count > 0 ? calloc((size_t)from->name_count, sizeof *names) : NULL;
    int rc = copy_text(&label, from->label, err);
    to->label = label, to->names = (const char *const *)names;
    if (from->name_count > 0 && !names) return fkv_fail(err, "figure: out of memory");
    for (int i = 0; !rc && i < from->name_count; i++)
        rc = copy_text(&names[i], from->names[i], err);
    if (from->logarithmic && (from->low <= 0 || from->high <= 0))
        return fkv_fail(err, "figure: expected a logarithmic axis above 0, found [%g, %g]",
                        from->low, from->high);
    return rc;
}

int fkv_figure_axes(struct fkv_figure *f, int panel, const char *title, const struct fkv_axis *x,
                    const struct fkv_axis *y, const char *top_label, double top_scale,
                    struct fkv_error *err) {
    struct fkv_panel *p = find_panel(f, panel, err);
    if (!p) return FKV_FAILED;
    p->used = true;
    p->top_scale = top_scale;
    if (copy_axis(&p->x, x, err) || copy_axis(&p->y, y, err) || copy_text(&p->title, title, err) ||
        copy_text(&p->top_label, top_label, err))
        return FKV_FAILED;
    return FKV_OK;
}

static int add_item(struct fkv_panel *p, const struct fkv_line *style, int n, const double *x,
                    const double *y, const double *high, struct fkv_error *err) {
    if (n < 1) return fkv_fail(err, "figure: expected at least one point, found %d", n);
    struct fkv_item *items = realloc(p->items, ((size_t)p->count + 1) * sizeof *items);
    if (!items) return fkv_fail(err, "figure: out of memory");
    p->items = items;
    struct fkv_item *item = &items[p->count++];
    *item = (struct fkv_item){.style = *style, .n = n};
    char *label = NULL;
    int rc = copy_text(&label, style->label, err);
    item->style.label = label;
    size_t bytes = (size_t)n * sizeof *x;
    if (rc || copy_data((void **)&item->x, x, bytes, err) ||
        copy_data((void **)&item->y, y, bytes, err) ||
        (high && copy_data((void **)&item->high, high, bytes, err))) {
        free(label), free(item->x), free(item->y), free(item->high);
        p->count--;
        return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_figure_line(struct fkv_figure *f, int panel, const struct fkv_line *style, int n,
                    const double *x, const double *y, struct fkv_error *err) {
    struct fkv_panel *p = find_panel(f, panel, err);
    return p ? add_item(p, style, n, x, y, NULL, err) : FKV_FAILED;
}

int fkv_figure_band(struct fkv_figure *f, int panel, const char *label, struct fkv_color color,
                    int n, const double *x, const double *low, const double *high,
                    struct fkv_error *err) {
    struct fkv_panel *p = find_panel(f, panel, err);
    struct fkv_line style = {.label = label, .color = color};
    return p ? add_item(p, &style, n, x, low, high, err) : FKV_FAILED;
}

int fkv_figure_heatmap(struct fkv_figure *f, int panel, int rows, int columns, const double *values,
                       const int *row_names, const int *column_names, double low, double high,
                       struct fkv_error *err) {
    struct fkv_panel *p = find_panel(f, panel, err);
    if (!p) return FKV_FAILED;
    if (rows < 1 || columns < 1 || p->map)
        return fkv_fail(
            err, "figure: expected one heat map of at least one cell per panel, found %d x %d%s",
            rows, columns, p->map ? " as a second one" : "");
    p->map = calloc(1, sizeof *p->map);
    if (!p->map) return fkv_fail(err, "figure: out of memory");
    *p->map = (struct fkv_heatmap){.rows = rows, .columns = columns, .low = low, .high = high};
    size_t r = (size_t)rows, c = (size_t)columns;
    if (copy_data((void **)&p->map->values, values, r * c * sizeof *values, err) ||
        copy_data((void **)&p->map->row_names, row_names, r * sizeof *row_names, err) ||
        copy_data((void **)&p->map->column_names, column_names, c * sizeof *column_names, err))
        return FKV_FAILED;
    return FKV_OK;
}

int fkv_figure_color_bar(struct fkv_figure *f, const struct fkv_color_bar *bar,
                         struct fkv_error *err) {
    if (!bar->steps && !(bar->low < bar->high))
        return fkv_fail(err, "figure: expected a colour bar that rises, found [%g, %g]", bar->low,
                        bar->high);
    char *label = (char *)f->bar.label;
    void *names = NULL;
    free((int *)f->bar.names);
    f->bar = *bar;
    f->bar.names = NULL;
    int rc = copy_text(&label, bar->label ? bar->label : "", err);
    f->bar.label = label;
    if (rc || (bar->steps && copy_data(&names, bar->names, (size_t)bar->steps * sizeof(int), err)))
        return FKV_FAILED;
    f->bar.names = names;
    return FKV_OK;
}
