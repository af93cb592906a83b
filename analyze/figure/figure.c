/* A figure as a description: what the caller said, copied, nothing placed yet. Refuses sizes no
 * page has, panels that are not there, and points that are not there. */
#include "analyze/figure/figure.h"
#include "analyze/figure/parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/text_clean.h"

static const double longest_side = 50; /* inches: 15000 pixels, half of what cairo can address */

/* Memory that a figure frees with itself. */
struct fkv_block {
    struct fkv_block *next;
    double data[];
};

/* Where a failure is written: nowhere after the first. */
static struct fkv_error *failure_of(struct fkv_figure *f) {
    return *f->failure.message ? NULL : &f->failure;
}

/* Memory that lives as long as the figure: a copy of `data`; of NULL: zeros. */
static void *keep(struct fkv_figure *f, const void *data, size_t bytes) {
    struct fkv_block *block = calloc(1, sizeof *block + bytes);
    if (!block) {
        fkv_fail(failure_of(f), "figure: out of memory");
        return NULL;
    }
    block->next = f->blocks;
    f->blocks = block;
    if (data) memcpy(block->data, data, bytes);
    return block->data;
}

/* NULL for NULL. */
static const int *keep_names(struct fkv_figure *f, const int *names, int count) {
    return names ? keep(f, names, (size_t)count * sizeof *names) : NULL;
}

/* NULL for NULL. */
static const char *keep_text(struct fkv_figure *f, const char *text) {
    if (!text) return NULL;
    char *clean = fkv_text_clean(text);
    if (!clean) fkv_fail(failure_of(f), "figure: out of memory");
    const char *copy = clean ? keep(f, clean, strlen(clean) + 1) : NULL;
    free(clean);
    return copy;
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
    if (f) f->panels = calloc((size_t)rows * (size_t)columns, sizeof *f->panels);
    int status = f && f->panels ? FKV_OK : fkv_fail(err, "figure: out of memory");
    if (!status) status = fkv_font_open(&f->font, err);
    if (status) {
        fkv_figure_destroy(f);
        return status;
    }
    f->width = width * FKV_POINTS, f->height = height * FKV_POINTS;
    f->rows = rows, f->columns = columns;
    f->title = keep_text(f, title);
    *out = f;
    return FKV_OK;
}

void fkv_figure_destroy(struct fkv_figure *f) {
    if (!f) return;
    for (int i = 0; f->panels && i < f->rows * f->columns; i++) free(f->panels[i].items);
    for (struct fkv_block *block = f->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    if (f->font) cairo_font_face_destroy(f->font);
    free(f->panels), free(f->texts), free(f);
}

void fkv_figure_share_axes(struct fkv_figure *f) { f->share = true; }

double *fkv_figure_numbers(struct fkv_figure *f, size_t count) {
    return keep(f, NULL, count * sizeof(double));
}

void fkv_figure_note(struct fkv_figure *f, const char *format, ...) {
    char *text, *joined = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0) text = NULL;
    va_end(arguments);
    if (text && asprintf(&joined, "%s%s", f->note ? f->note : "", text) < 0) joined = NULL;
    if (!joined) fkv_fail(failure_of(f), "figure: out of memory");
    if (joined && *joined) f->note = keep_text(f, joined);
    free(text), free(joined);
}

static struct fkv_panel *find_panel(struct fkv_figure *f, int panel) {
    if (panel >= 0 && panel < f->rows * f->columns) return &f->panels[panel];
    fkv_fail(failure_of(f), "figure: expected a panel in [0, %d), found %d", f->rows * f->columns,
             panel);
    return NULL;
}

static struct fkv_axis keep_axis(struct fkv_figure *f, const struct fkv_axis *from) {
    struct fkv_axis axis = *from;
    const size_t count = from->name_count > 0 ? (size_t)from->name_count : 0;
    const char **names = count ? keep(f, from->names, count * sizeof *names) : NULL;
    for (size_t i = 0; names && i < count; i++) names[i] = keep_text(f, names[i]);
    axis.label = keep_text(f, from->label), axis.top_label = keep_text(f, from->top_label);
    axis.names = names;
    if (!from->low && !from->high) axis.low = axis.high = FKV_FIT;
    if (axis.logarithmic && (axis.low <= 0 || axis.high <= 0))
        fkv_fail(failure_of(f), "figure: expected a logarithmic axis above 0, found [%g, %g]",
                 axis.low, axis.high);
    return axis;
}

void fkv_figure_axes(struct fkv_figure *f, int panel, const char *title, const struct fkv_axis *x,
                     const struct fkv_axis *y) {
    struct fkv_panel *p = find_panel(f, panel);
    if (!p) return;
    p->used = true;
    p->x = keep_axis(f, x), p->y = keep_axis(f, y);
    p->title = keep_text(f, title);
}

/* high NULL: a line. */
static void add_item(struct fkv_figure *f, int panel, const struct fkv_line *style, int n,
                     const double *x, const double *y, const double *high) {
    struct fkv_panel *p = find_panel(f, panel);
    if (!p) return;
    if (n < 1) {
        fkv_fail(failure_of(f), "figure: expected at least one point, found %d", n);
        return;
    }
    struct fkv_item *items = realloc(p->items, ((size_t)p->count + 1) * sizeof *items);
    if (!items) {
        fkv_fail(failure_of(f), "figure: out of memory");
        return;
    }
    const size_t bytes = (size_t)n * sizeof *x;
    p->items = items;
    p->items[p->count] = (struct fkv_item){.style = *style,
                                           .n = n,
                                           .x = keep(f, x, bytes),
                                           .y = keep(f, y, bytes),
                                           .high = high ? keep(f, high, bytes) : NULL};
    p->items[p->count++].style.label = keep_text(f, style->label);
}

void fkv_figure_line(struct fkv_figure *f, int panel, const struct fkv_line *style, int n,
                     const double *x, const double *y) {
    add_item(f, panel, style, n, x, y, NULL);
}

void fkv_figure_band(struct fkv_figure *f, int panel, const char *label, struct fkv_color color,
                     int n, const double *x, const double *low, const double *high) {
    add_item(f, panel, &(struct fkv_line){.label = label, .color = color}, n, x, low, high);
}

void fkv_figure_heatmap(struct fkv_figure *f, int panel, int rows, int columns,
                        const double *values, const int *row_names, const int *column_names) {
    struct fkv_panel *p = find_panel(f, panel);
    if (!p) return;
    if (rows < 1 || columns < 1 || p->map) {
        fkv_fail(failure_of(f),
                 "figure: expected one heat map of at least one cell per panel, found %d x %d%s",
                 rows, columns, p->map ? " as a second one" : "");
        return;
    }
    const size_t cells = (size_t)rows * (size_t)columns;
    const struct fkv_heatmap map = {.rows = rows,
                                    .columns = columns,
                                    .values = keep(f, values, cells * sizeof *values),
                                    .row_names = keep_names(f, row_names, rows),
                                    .column_names = keep_names(f, column_names, columns)};
    p->map = keep(f, &map, sizeof map);
}

void fkv_figure_color_bar(struct fkv_figure *f, const struct fkv_color_bar *bar) {
    if (!bar->steps && !(bar->low < bar->high)) {
        fkv_fail(failure_of(f), "figure: expected a colour bar that rises, found [%g, %g]",
                 bar->low, bar->high);
        return;
    }
    f->bar = *bar;
    f->bar.label = keep_text(f, bar->label ? bar->label : "");
    f->bar.names = keep_names(f, bar->names, bar->steps);
}
