/* Painting: from the layout to ink. No groups, masks or patterns: cairo numbers those through the
 * whole process, and a second SVG would differ from the first. */
#include "analyze/figure/marker.h"
#include "analyze/figure/parts.h"

#include <stdio.h>

static const struct fkv_color ink = {0.13, 0.13, 0.13, 1}, faint = {0.90, 0.90, 0.90, 1},
                              quiet = {0.35, 0.35, 0.35, 1}, missing = {0.93, 0.93, 0.93, 1};
static const double frame_width = 0.7, tick_length = 3, minor_length = 1.8;

static void segment(cairo_t *cr, double x0, double y0, double x1, double y1) {
    cairo_move_to(cr, x0, y0);
    cairo_line_to(cr, x1, y1);
    cairo_stroke(cr);
}

static void rectangle(cairo_t *cr, struct fkv_box b) {
    cairo_rectangle(cr, b.x, b.y, b.width, b.height);
}

/* The main frame, right of the strip for x = 0. */
static struct fkv_box main_box(const struct fkv_panel *p) {
    return (struct fkv_box){p->sx.from, p->box.y, p->sx.to - p->sx.from, p->box.height};
}

static struct fkv_box strip_box(const struct fkv_panel *p) {
    return (struct fkv_box){p->box.x, p->box.y, 2 * (p->sx.zero_at - p->box.x), p->box.height};
}

static void paint_grid(const struct fkv_panel *p, cairo_t *cr) {
    fkv_paint_color(cr, faint);
    cairo_set_line_width(cr, 0.5);
    for (int i = 0; i < p->tx.count; i++) {
        double x = fkv_scale_at(&p->sx, p->tx.at[i]);
        if (p->tx.label[i][0] && p->tx.at[i] != 0)
            segment(cr, x, p->box.y, x, p->box.y + p->box.height);
    }
    for (int i = 0; i < p->ty.count; i++) {
        double y = fkv_scale_at(&p->sy, p->ty.at[i]);
        if (p->ty.label[i][0]) segment(cr, p->box.x, y, p->box.x + p->box.width, y);
    }
}

static bool in_band(const struct fkv_panel *p, const struct fkv_item *item, int k) {
    return !(p->sx.zero && item->x[k] == 0) && !isnan(fkv_scale_at(&p->sx, item->x[k])) &&
           !isnan(fkv_scale_at(&p->sy, item->y[k])) && !isnan(fkv_scale_at(&p->sy, item->high[k]));
}

/* One polygon from break to break: along the low side, back along the high one. At x = 0 of a
 * logarithmic axis, an upright bar. */
static void paint_band(const struct fkv_panel *p, cairo_t *cr, const struct fkv_item *item) {
    fkv_paint_color(cr, item->style.color);
    for (int k = 0, first; k < item->n; k++) {
        double y = fkv_scale_at(&p->sy, item->y[k]), high = fkv_scale_at(&p->sy, item->high[k]);
        if (p->sx.zero && item->x[k] == 0 && !isnan(y) && !isnan(high)) {
            double half = (strip_box(p).width - 3) / 2;
            cairo_rectangle(cr, p->sx.zero_at - half, high, 2 * half, y - high);
        }
        for (first = k; k < item->n && in_band(p, item, k); k++)
            cairo_line_to(cr, fkv_scale_at(&p->sx, item->x[k]), fkv_scale_at(&p->sy, item->y[k]));
        for (int back = k - 1; back >= first; back--)
            cairo_line_to(cr, fkv_scale_at(&p->sx, item->x[back]),
                          fkv_scale_at(&p->sy, item->high[back]));
        if (k > first) cairo_close_path(cr), k--; /* what ended it is looked at anew */
        cairo_fill(cr);
    }
}

static void paint_line(const struct fkv_panel *p, cairo_t *cr, const struct fkv_item *item) {
    const double dash[] = {item->style.width * 3.5, item->style.width * 3};
    fkv_paint_color(cr, item->style.color);
    cairo_set_line_width(cr, item->style.width);
    if (item->style.dashed) cairo_set_dash(cr, dash, 2, 0);
    bool drawing = false;
    double alone_x = NAN, alone_y = NAN; /* a point between two breaks is drawn as a dot */
    for (int k = 0; !item->style.scattered && k <= item->n; k++) {
        bool strip = k < item->n && p->sx.zero && item->x[k] == 0;
        double x = k < item->n ? fkv_scale_at(&p->sx, item->x[k]) : NAN;
        double y = k < item->n ? fkv_scale_at(&p->sy, item->y[k]) : NAN;
        if (isnan(x) || isnan(y) || strip) {
            if (!isnan(alone_x)) {
                cairo_move_to(cr, alone_x, alone_y);
                cairo_line_to(cr, alone_x + 0.01, alone_y);
            }
            alone_x = NAN, drawing = false;
            if (strip && !isnan(y)) {
                double half = (strip_box(p).width - 3) / 2;
                cairo_move_to(cr, x - half, y);
                cairo_line_to(cr, x + half, y);
            }
            continue;
        }
        if (drawing)
            cairo_line_to(cr, x, y), alone_x = NAN;
        else
            cairo_move_to(cr, x, y), alone_x = x, alone_y = y;
        drawing = true;
    }
    cairo_stroke(cr);
    cairo_set_dash(cr, NULL, 0, 0);
    for (int k = 0; item->style.markers && k < item->n; k++) {
        double x = fkv_scale_at(&p->sx, item->x[k]), y = fkv_scale_at(&p->sy, item->y[k]);
        if (!isnan(x) && !isnan(y)) fkv_paint_marker(cr, &item->style, x, y);
    }
}

static void paint_items(const struct fkv_panel *p, cairo_t *cr) {
    cairo_save(cr);
    if (p->sx.zero) rectangle(cr, strip_box(p));
    rectangle(cr, main_box(p));
    cairo_clip(cr);
    paint_grid(p, cr);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    for (int i = 0; i < p->count; i++)
        if (p->items[i].high) paint_band(p, cr, &p->items[i]);
    for (int i = 0; i < p->count; i++)
        if (!p->items[i].high) paint_line(p, cr, &p->items[i]);
    cairo_restore(cr);
}

/* Where a value of a heat map stands on the colour bar, 0 to 1. */
static double on_bar(const struct fkv_figure *f, double value) {
    return (value - f->bar.low) / (f->bar.high - f->bar.low);
}

static struct fkv_color map_color(const struct fkv_figure *f, double t) {
    return f->bar.is_signed ? fkv_color_signed(t) : fkv_color_map(t);
}

/* Each cell reaches under its neighbours to the right and below, so that no seam of background
 * shows between them. */
static void paint_map(struct fkv_figure *f, const struct fkv_panel *p, cairo_t *cr) {
    const struct fkv_heatmap *m = p->map;
    double w = p->box.width / m->columns, h = p->box.height / m->rows;
    bool numbers = w >= 21 && h >= 9;
    for (int r = 0; r < m->rows; r++)
        for (int c = 0; c < m->columns; c++) {
            double v = m->values[r * m->columns + c], x = p->box.x + c * w, y = p->box.y + r * h;
            fkv_paint_color(cr, isfinite(v) ? map_color(f, on_bar(f, v)) : missing);
            cairo_rectangle(cr, x, y, fmin(w + 0.5, p->box.x + p->box.width - x),
                            fmin(h + 0.5, p->box.y + p->box.height - y));
            cairo_fill(cr);
        }
    for (int i = 0; numbers && i < m->rows * m->columns; i++) {
        double v = m->values[i], t = on_bar(f, v);
        char text[32] = "n/a";
        bool dark = f->bar.is_signed ? fabs(t - 0.5) > 0.36 : t < 0.55;
        if (isfinite(v)) snprintf(text, sizeof text, "%s%.2f", v < -0.005 ? "\u2212" : "", fabs(v));
        struct fkv_color on = !isfinite(v) ? quiet
                              : dark       ? (struct fkv_color){1, 1, 1, 1}
                                           : (struct fkv_color){0, 0, 0, 1};
        fkv_text(f, cr, p->box.x + (i % m->columns + 0.5) * w,
                 p->box.y + (i / m->columns + 0.5) * h + FKV_SIZE_NOTE * 0.36, FKV_SIZE_NOTE,
                 FKV_CENTER, false, on, text);
    }
}

static void paint_frame(const struct fkv_panel *p, cairo_t *cr) {
    fkv_paint_color(cr, ink);
    cairo_set_line_width(cr, frame_width);
    if (p->sx.zero) rectangle(cr, strip_box(p));
    rectangle(cr, main_box(p));
    cairo_stroke(cr);
}

static void paint_ticks(struct fkv_figure *f, const struct fkv_panel *p, cairo_t *cr) {
    double bottom = p->box.y + p->box.height, left = p->box.x;
    for (int i = 0; i < p->tx.count; i++) {
        double x = fkv_scale_at(&p->sx, p->tx.at[i]);
        segment(cr, x, bottom, x, bottom + (p->tx.label[i][0] ? tick_length : minor_length));
        if (p->show_x)
            fkv_text(f, cr, x, bottom + tick_length + 2 + FKV_SIZE_TICK * 0.9, FKV_SIZE_TICK,
                     FKV_CENTER, false, ink, p->tx.label[i]);
        fkv_paint_color(cr, ink);
    }
    for (int i = 0; i < p->ty.count; i++) {
        double y = fkv_scale_at(&p->sy, p->ty.at[i]);
        segment(cr, left, y, left - (p->ty.label[i][0] ? tick_length : minor_length), y);
        if (p->show_y)
            fkv_text(f, cr, left - tick_length - 2, y + FKV_SIZE_TICK * 0.36, FKV_SIZE_TICK,
                     FKV_RIGHT, false, ink, p->ty.label[i]);
        fkv_paint_color(cr, ink);
    }
    for (int i = 0; p->x.top_label && i < p->tt.count; i++) {
        double x = fkv_scale_at(&p->sx, p->tt.at[i] / p->x.top_scale);
        segment(cr, x, p->box.y, x, p->box.y - (p->tt.label[i][0] ? tick_length : minor_length));
        fkv_text(f, cr, x, p->box.y - tick_length - 3, FKV_SIZE_TICK, FKV_CENTER, false, ink,
                 p->tt.label[i]);
        fkv_paint_color(cr, ink);
    }
}

/* A label around (x, y), at most `length` long and on the canvas: a longer one is set smaller. */
static void label(struct fkv_figure *f, cairo_t *cr, double x, double y, double length, double size,
                  bool upright, const char *text) {
    if (!text) return;
    double middle = upright ? y : x, end = upright ? f->height : f->width;
    double width = fkv_text_width(cr, size, text),
           most = fmin(length, 2 * fmin(middle, end - middle) - 1);
    fkv_text(f, cr, x, y, width > most ? size * most / width : size, FKV_CENTER, upright, ink,
             text);
}

static void paint_labels(struct fkv_figure *f, const struct fkv_panel *p, cairo_t *cr) {
    double middle = p->box.x + p->box.width / 2, room = p->box.width * 1.15;
    label(f, cr, middle,
          p->box.y + p->box.height + tick_length + 3 + FKV_SIZE_TICK + FKV_SIZE_LABEL, room,
          FKV_SIZE_LABEL, false, p->x.label);
    label(f, cr, p->box.x - tick_length - 6 - fkv_ticks_width(cr, &p->ty),
          p->box.y + p->box.height / 2, p->box.height * 1.15, FKV_SIZE_LABEL, true, p->y.label);
    if (p->x.top_label)
        label(f, cr, middle, p->box.y - tick_length - 7 - FKV_SIZE_TICK, room, FKV_SIZE_LABEL,
              false, p->x.top_label);
}

static void paint_panel(struct fkv_figure *f, const struct fkv_panel *p, cairo_t *cr) {
    if (p->map) {
        paint_map(f, p, cr);
        for (int i = 0; i < p->count; i++) paint_line(p, cr, &p->items[i]);
    } else {
        paint_items(p, cr);
    }
    paint_frame(p, cr);
    paint_ticks(f, p, cr);
    if (!f->share) paint_labels(f, p, cr);
    double above = p->x.top_label ? tick_length + 9 + FKV_SIZE_TICK + FKV_SIZE_LABEL : 4;
    label(f, cr, p->box.x + p->box.width / 2, p->box.y - above, p->box.width + 8, FKV_SIZE_LABEL,
          false, p->title);
}

static void paint_shared_labels(struct fkv_figure *f, cairo_t *cr) {
    const struct fkv_panel *p = &f->panels[0];
    double right = p->box.x, end = p->box.y;
    for (int i = 0; i < f->rows * f->columns; i++)
        if (f->panels[i].used) {
            right = fmax(right, f->panels[i].box.x + f->panels[i].box.width);
            end = fmax(end, f->panels[i].box.y + f->panels[i].box.height);
        }
    label(f, cr, (p->box.x + right) / 2, f->area.y + f->area.height - 3, f->area.width,
          FKV_SIZE_LABEL, false, p->x.label);
    label(f, cr, f->area.x + FKV_SIZE_LABEL, (p->box.y + end) / 2, f->area.height, FKV_SIZE_LABEL,
          true, p->y.label);
}

static void paint_bar(struct fkv_figure *f, cairo_t *cr) {
    const struct fkv_color_bar *bar = &f->bar;
    struct fkv_box b = f->bar_box;
    int steps = bar->steps ? bar->steps : 128;
    for (int i = 0; i < steps;
         i++) { /* from the bottom; each reaches up to the top and is covered by the next */
        double t = steps > 1 ? (double)i / (steps - 1) : 0;
        fkv_paint_color(cr, map_color(f, t * bar->top));
        cairo_rectangle(cr, b.x, b.y, b.width, b.height * (steps - i) / steps);
        cairo_fill(cr);
    }
    fkv_paint_color(cr, ink);
    cairo_set_line_width(cr, frame_width);
    rectangle(cr, b);
    cairo_stroke(cr);
    double low = bar->steps ? 0 : bar->low, high = bar->steps ? bar->steps : bar->high;
    if (bar->marked) {
        double y = b.y + b.height * (1 - (bar->mark - low) / (high - low));
        cairo_set_line_width(cr, 2 * frame_width);
        segment(cr, b.x - tick_length, y, b.x + b.width + tick_length, y);
        cairo_set_line_width(cr, frame_width);
    }
    for (int i = 0; i < f->bar_ticks.count; i++) {
        double y = b.y + b.height * (1 - (f->bar_ticks.at[i] - low) / (high - low));
        segment(cr, b.x + b.width, y, b.x + b.width + tick_length, y);
        fkv_text(f, cr, b.x + b.width + tick_length + 2, y + FKV_SIZE_TICK * 0.36, FKV_SIZE_TICK,
                 FKV_LEFT, false, ink, f->bar_ticks.label[i]);
        fkv_paint_color(cr, ink);
    }
    label(f, cr,
          b.x + b.width + tick_length + 4 + fkv_ticks_width(cr, &f->bar_ticks) + FKV_SIZE_LABEL,
          b.y + b.height / 2, b.height * 1.15, FKV_SIZE_LABEL, true, bar->label);
}

int fkv_figure_paint(struct fkv_figure *f, cairo_t *cr, struct fkv_error *err) {
    f->text_count = 0;
    fkv_text_begin(f, cr);
    fkv_figure_layout(f, cr);
    f->text_count = 0;
    fkv_paint_color(cr, (struct fkv_color){1, 1, 1, 1});
    cairo_rectangle(cr, 0, 0, f->width, f->height);
    cairo_fill(cr);
    for (int i = 0; i < f->rows * f->columns; i++)
        if (f->panels[i].used) paint_panel(f, &f->panels[i], cr);
    if (f->share && f->panels[0].used) paint_shared_labels(f, cr);
    if (f->bar.label) paint_bar(f, cr);
    if (f->legend.count) fkv_legend_paint(f, cr);
    double width = f->width - 10;
    if (f->title)
        fkv_text_wrapped(f, cr, f->width / 2, 5 + FKV_SIZE_TITLE, width, FKV_SIZE_TITLE, FKV_CENTER,
                         ink, f->title);
    if (f->note) {
        int lines =
            fkv_text_wrapped(NULL, cr, 0, 0, width, FKV_SIZE_NOTE, FKV_LEFT, quiet, f->note);
        fkv_text_wrapped(f, cr, 5, f->height - 7 - (lines - 1) * FKV_SIZE_NOTE * 1.3, width,
                         FKV_SIZE_NOTE, FKV_LEFT, quiet, f->note);
    }
    if (cairo_status(cr))
        return fkv_fail(err, "figure: cairo: %s", cairo_status_to_string(cairo_status(cr)));
    return FKV_OK;
}
