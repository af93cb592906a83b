/* The legend: one entry per label, in the order the labels came. In a figure of one panel it takes
 * the corner or edge where it covers no data; where there is no such place, and in figures of many
 * panels, it stands in rows below them. */
#include "analyze/figure/marker.h"
#include "analyze/figure/parts.h"

#include <string.h>

static const double row = 11, handle = 18, space = 5, inset = 5, apart = 14;

void fkv_legend_collect(struct fkv_figure *f) {
    struct fkv_legend *l = &f->legend;
    *l = (struct fkv_legend){0};
    for (int i = 0; i < f->rows * f->columns; i++)
        for (int k = 0; k < f->panels[i].count; k++) {
            const struct fkv_item *item = &f->panels[i].items[k];
            bool known = !item->style.label || l->count == FKV_LEGEND_MOST;
            for (int e = 0; !known && e < l->count; e++)
                known = !strcmp(l->entries[e]->style.label, item->style.label);
            if (!known) l->entries[l->count++] = item;
        }
}

static double entry_width(cairo_t *cr, const struct fkv_item *item) {
    return handle + space + fkv_text_width(cr, FKV_SIZE_TICK, item->style.label);
}

/* Entries in rows of at most `width`: x [count] from the left and line [count]; returns the number
 * of rows. */
static int flow(const struct fkv_legend *l, cairo_t *cr, double width, double *x, int *line) {
    int rows = 1;
    double at = 0;
    for (int i = 0; i < l->count; i++) {
        double w = entry_width(cr, l->entries[i]);
        if (at > 0 && at + w > width) at = 0, rows++;
        x[i] = at, line[i] = rows - 1;
        at += w + apart;
    }
    return rows;
}

double fkv_legend_rows_height(struct fkv_figure *f, cairo_t *cr, double width) {
    double x[FKV_LEGEND_MOST];
    int line[FKV_LEGEND_MOST];
    return flow(&f->legend, cr, width, x, line) * row + 8;
}

/* How many of the steps along the drawn data fall into the box. */
static int covered(const struct fkv_panel *p, struct fkv_box box) {
    int hits = 0;
    for (int i = 0; i < p->count; i++) {
        const struct fkv_item *item = &p->items[i];
        for (int k = 0; k < item->n; k++) {
            int next = k + 1 < item->n ? k + 1 : k;
            double x0 = fkv_scale_at(&p->sx, item->x[k]), x1 = fkv_scale_at(&p->sx, item->x[next]);
            double y0 = fkv_scale_at(&p->sy, item->y[k]), y1 = fkv_scale_at(&p->sy, item->y[next]);
            double h0 = item->high ? fkv_scale_at(&p->sy, item->high[k]) : y0;
            double h1 = item->high ? fkv_scale_at(&p->sy, item->high[next]) : y1;
            if (isnan(x1) || isnan(y1)) x1 = x0, y1 = y0;
            if (isnan(h1)) h1 = h0;
            int steps = 1 + (int)fmin(200, fmax(fabs(x1 - x0), fabs(y1 - y0)) / 3);
            for (int s = 0; s <= steps; s++) {
                double t = (double)s / steps, x = x0 + t * (x1 - x0), y = y0 + t * (y1 - y0),
                       h = h0 + t * (h1 - h0);
                hits += x >= box.x && x <= box.x + box.width && fmax(y, h) >= box.y &&
                        fmin(y, h) <= box.y + box.height;
            }
        }
    }
    return hits;
}

bool fkv_legend_place(struct fkv_figure *f, cairo_t *cr) {
    /* upper right, lower left, upper left, lower right, then the middles of the sides */
    static const double places[][2] = {{1, 0},   {0, 1},   {0, 0},   {1, 1},
                                       {1, 0.5}, {0, 0.5}, {0.5, 0}, {0.5, 1}};
    struct fkv_legend *l = &f->legend;
    const struct fkv_panel *p = &f->panels[0];
    if (p->map) return false; /* every cell is data */
    double width = 0, height = l->count * row + 4;
    for (int i = 0; i < l->count; i++) width = fmax(width, entry_width(cr, l->entries[i]));
    width += 2 * inset;
    double left = p->sx.from + inset, room_x = p->box.x + p->box.width - inset - left - width;
    double room_y = p->box.height - 2 * inset - height;
    if (room_x < 0 || room_y < 0) return false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct fkv_box box = {left + places[i][0] * room_x,
                              p->box.y + inset + places[i][1] * room_y, width, height};
        struct fkv_box around = {box.x - 3, box.y - 3, width + 6, height + 6};
        if (covered(p, around)) continue;
        l->box = box;
        return true;
    }
    return false;
}

static void paint_entry(struct fkv_figure *f, cairo_t *cr, const struct fkv_item *item, double x,
                        double y) {
    const struct fkv_line *s = &item->style;
    fkv_paint_color(cr, s->color);
    if (item->high) {
        cairo_rectangle(cr, x, y - 3, handle, 6);
        cairo_fill(cr);
    } else {
        const double dash[] = {3.2, 2};
        cairo_set_dash(cr, dash, 2, 0);
        if (!s->dashed) cairo_set_dash(cr, NULL, 0, 0);
        cairo_set_line_width(cr, fmax(s->width, 1));
        if (!s->scattered) {
            cairo_move_to(cr, x, y);
            cairo_line_to(cr, x + handle, y);
            cairo_stroke(cr);
        }
        cairo_set_dash(cr, NULL, 0, 0);
        if (s->markers) fkv_paint_marker(cr, s, x + handle / 2, y);
    }
    fkv_text(f, cr, x + handle + space, y + FKV_SIZE_TICK * 0.36, FKV_SIZE_TICK, FKV_LEFT, false,
             (struct fkv_color){0.13, 0.13, 0.13, 1}, s->label);
}

void fkv_legend_paint(struct fkv_figure *f, cairo_t *cr) {
    const struct fkv_legend *l = &f->legend;
    if (!l->outside) {
        cairo_rectangle(cr, l->box.x, l->box.y, l->box.width, l->box.height);
        fkv_paint_color(cr, (struct fkv_color){1, 1, 1, 0.85});
        cairo_fill_preserve(cr);
        fkv_paint_color(cr, (struct fkv_color){0.8, 0.8, 0.8, 1});
        cairo_set_line_width(cr, 0.5);
        cairo_stroke(cr);
        for (int i = 0; i < l->count; i++)
            paint_entry(f, cr, l->entries[i], l->box.x + inset, l->box.y + 2 + (i + 0.5) * row);
        return;
    }
    double x[FKV_LEGEND_MOST], ends[FKV_LEGEND_MOST] = {0};
    int line[FKV_LEGEND_MOST];
    flow(l, cr, l->box.width, x, line);
    for (int i = 0; i < l->count; i++) ends[line[i]] = x[i] + entry_width(cr, l->entries[i]);
    for (int i = 0; i < l->count; i++)
        paint_entry(f, cr, l->entries[i],
                    l->box.x + fmax(0, l->box.width - ends[line[i]]) / 2 + x[i],
                    l->box.y + 5 + (line[i] + 0.5) * row);
}
