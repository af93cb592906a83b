/* From a description to coordinates: ranges from the data, ticks from the ranges and the panel's
 * size, margins from the ticks, boxes from the margins. Ticks and margins depend on each other, so
 * it runs twice from an estimate; a third round left seven of eight figures tried the same to the
 * byte. Columns share one left and right margin, rows one top and bottom, so that frames line up.
 */
#include "analyze/figure/parts.h"

#include <stdio.h>
#include <string.h>

static const double pad = 5, gap = 6, tick_length = 3, label_height = 13, bar_width = 9;

struct range {
    double low, high;
    bool zero;
};

static void extend(struct range *r, const struct fkv_axis *axis, double v) {
    if (axis->zero && axis->logarithmic && v == 0) r->zero = true;
    if (!isfinite(v) || (axis->logarithmic && v <= 0)) return;
    r->low = fmin(r->low, v);
    r->high = fmax(r->high, v);
}

static void extend_panel(struct range *x, struct range *y, const struct fkv_panel *p) {
    for (int i = 0; i < p->count; i++)
        for (int k = 0; k < p->items[i].n; k++) {
            const struct fkv_item *item = &p->items[i];
            extend(x, &p->x, item->x[k]);
            if (p->x.logarithmic && !(item->x[k] > 0 || (p->x.zero && item->x[k] == 0)))
                continue; /* cannot be drawn */
            extend(y, &p->y, item->y[k]);
            if (item->high) extend(y, &p->y, item->high[k]);
        }
}

/* The axis' own ends where it has them, else the data's with some air; something to draw on
 * whatever the data are. */
static void set_scale(const struct fkv_axis *axis, struct range r, double air,
                      struct fkv_scale *s) {
    if (axis->name_count) {
        *s = (struct fkv_scale){.low = -0.5, .high = axis->name_count - 0.5};
        return;
    }
    bool logarithmic = axis->logarithmic;
    if (r.low > r.high) r.low = logarithmic ? 0.1 : 0, r.high = 1; /* no data */
    double low = isnan(axis->low) ? r.low : axis->low,
           high = isnan(axis->high) ? r.high : axis->high;
    if (logarithmic) {
        if (!(high > low * (1 + 1e-9))) low /= 2, high = fmax(high, low) * 2;
        double ratio = pow(high / low, air);
        if (isnan(axis->low)) low = fmax(low / ratio, 1e-305);
        if (isnan(axis->high)) high = fmin(high * ratio, 1e305);
    } else {
        double size = fmax(fabs(low), fabs(high));
        if (!(high - low > 1e-9 * size))
            low -= size ? size * 0.05 : 1, high = low + (size ? size * 0.1 : 2);
        double extra = (high - low) * air;
        if (isnan(axis->low)) low -= extra;
        if (isnan(axis->high)) high += extra;
    }
    *s = (struct fkv_scale){.low = low, .high = high, .logarithmic = logarithmic, .zero = r.zero};
}

/* Of the panel, or of any where all share their axes. */
static bool has_markers(const struct fkv_figure *f, const struct fkv_panel *p) {
    if (f->share) p = f->panels;
    for (const struct fkv_panel *end = p + (f->share ? f->rows * f->columns : 1); p < end; p++)
        for (int i = 0; i < p->count; i++)
            if (p->items[i].style.markers) return true;
    return false;
}

static void find_ranges(struct fkv_figure *f) {
    const struct range nothing = {INFINITY, -INFINITY, false};
    struct range all_x = nothing, all_y = nothing;
    for (int i = 0; f->share && i < f->rows * f->columns; i++)
        extend_panel(&all_x, &all_y, &f->panels[i]);
    for (int i = 0; i < f->rows * f->columns; i++) {
        struct fkv_panel *p = &f->panels[i];
        struct range x = all_x, y = all_y;
        if (!f->share) extend_panel(&x, &y, p);
        set_scale(&p->x, x, has_markers(f, p) ? 0.04 : 0.02,
                  &p->sx); /* markers do not sit on the frame */
        set_scale(&p->y, y, 0.05, &p->sy);
        if (p->map) {
            p->sx = (struct fkv_scale){.low = -0.5, .high = p->map->columns - 0.5};
            p->sy = (struct fkv_scale){.low = p->map->rows - 0.5, .high = -0.5};
        }
    }
}

static void fix_scale(struct fkv_panel *p) {
    double strip = p->sx.zero ? fmin(12, p->box.width * 0.08) : 0;
    p->sx.zero_at = p->box.x + strip / 2;
    p->sx.from = p->box.x + (strip ? strip + 3 : 0);
    p->sx.to = p->box.x + p->box.width;
    p->sy.from = p->box.y + p->box.height;
    p->sy.to = p->box.y;
}

/* Points that a label takes along its axis. */
static double label_extent(cairo_t *cr, const char *label, bool upright) {
    return upright ? FKV_SIZE_TICK * 1.25 : fkv_text_width(cr, FKV_SIZE_TICK, label) + 5;
}

static int colliding(cairo_t *cr, const struct fkv_ticks *t, const struct fkv_scale *s,
                     double factor, bool upright) {
    double last = NAN, last_extent = 0;
    for (int i = 0; i < t->count; i++) {
        if (!t->label[i][0]) continue;
        double at = fkv_scale_at(s, t->at[i] / factor),
               extent = label_extent(cr, t->label[i], upright);
        if (fabs(at - last) < (extent + last_extent) / 2) return i;
        last = at, last_extent = extent;
    }
    return -1;
}

static void add_zero(struct fkv_ticks *t) {
    if (t->count == FKV_TICKS) return;
    memmove(t->at + 1, t->at, (size_t)t->count * sizeof t->at[0]);
    memmove(t->label + 1, t->label, (size_t)t->count * sizeof t->label[0]);
    t->at[0] = 0;
    memcpy(t->label[0], "0", 2);
    t->count++;
}

/* As many labels as stand apart. Where even two do not, or the strip's 0 is in the way, the later
 * gives way. */
static void fit_ticks(cairo_t *cr, const struct fkv_scale *s, double factor, bool upright,
                      bool integers, struct fkv_ticks *t) {
    double length = fabs(s->to - s->from);
    int most = (int)fmax(2, length / (upright ? (s->logarithmic ? 14 : 18) : 26)), hit;
    for (;; most--) {
        if (s->logarithmic)
            fkv_ticks_log(s->low * factor, s->high * factor, most, t);
        else
            fkv_ticks_linear(s->low * factor, s->high * factor, most, integers, t);
        if (most <= 2 || colliding(cr, t, s, factor, upright) < 0) break;
    }
    if (s->zero) add_zero(t);
    while ((hit = colliding(cr, t, s, factor, upright)) >= 0) t->label[hit][0] = 0;
}

/* names [count]; NULL: 0, 1, 2, ... */
static void name_ticks(cairo_t *cr, const struct fkv_scale *s, bool upright, int count,
                       const int *names, double offset, struct fkv_ticks *t) {
    static const int strides[] = {1, 2, 4, 5, 8, 10, 16, 20, 25, 50, 100, 200, 500, 1000};
    for (size_t k = 0; k < sizeof strides / sizeof *strides; k++) {
        t->count = 0;
        for (int i = 0; i < count && t->count < FKV_TICKS; i += strides[k]) {
            t->at[t->count] = i + offset;
            snprintf(t->label[t->count++], sizeof t->label[0], "%d", names ? names[i] : i);
        }
        if ((count - 1) / strides[k] < FKV_TICKS && colliding(cr, t, s, 1, upright) < 0) return;
    }
}

/* Every name has its tick; of those that would run into each other, the later go without words.
 * Numbers stand at the places that the axis asks for, or where those are too close as many as fit.
 */
static void axis_ticks(cairo_t *cr, const struct fkv_axis *axis, const struct fkv_scale *s,
                       bool upright, struct fkv_ticks *t) {
    int hit;
    if (!axis->name_count) {
        fkv_ticks_at(axis->at, axis->at_count, t);
        if (!axis->at_count || colliding(cr, t, s, 1, upright) >= 0)
            fit_ticks(cr, s, 1, upright, axis->integers, t);
        return;
    }
    t->count = axis->name_count < FKV_TICKS ? axis->name_count : FKV_TICKS;
    for (int i = 0; i < t->count; i++) {
        t->at[i] = i;
        snprintf(t->label[i], sizeof t->label[0], "%s", axis->names[i]);
    }
    while ((hit = colliding(cr, t, s, 1, upright)) >= 0) t->label[hit][0] = 0;
}

static void find_ticks(struct fkv_panel *p, cairo_t *cr) {
    fix_scale(p);
    if (p->map) {
        name_ticks(cr, &p->sx, false, p->map->columns, p->map->column_names, 0, &p->tx);
        name_ticks(cr, &p->sy, true, p->map->rows, p->map->row_names, 0, &p->ty);
        return;
    }
    axis_ticks(cr, &p->x, &p->sx, false, &p->tx);
    axis_ticks(cr, &p->y, &p->sy, true, &p->ty);
    if (p->x.top_label) fit_ticks(cr, &p->sx, p->x.top_scale, false, false, &p->tt);
}

struct margins {
    double left, right, top, bottom;
};

static void overhang(cairo_t *cr, const struct fkv_panel *p, const struct fkv_ticks *t,
                     double factor, struct margins *m) {
    for (int i = 0; i < t->count; i++) {
        double at = fkv_scale_at(&p->sx, t->at[i] / factor),
               half = fkv_text_width(cr, FKV_SIZE_TICK, t->label[i]) / 2;
        m->left = fmax(m->left, p->box.x - at + half);
        m->right = fmax(m->right, at + half - p->box.x - p->box.width);
    }
}

static struct margins find_margins(const struct fkv_figure *f, const struct fkv_panel *p,
                                   cairo_t *cr) {
    struct margins m = {gap, gap / 2, gap, gap / 2};
    if (p->show_y)
        m.left = tick_length + 2 + fkv_ticks_width(cr, &p->ty) +
                 (f->share || !p->y.label ? 0 : label_height);
    if (p->show_x)
        m.bottom = tick_length + 2 + FKV_SIZE_TICK + (f->share || !p->x.label ? 0 : label_height);
    if (p->show_x) overhang(cr, p, &p->tx, 1, &m);
    if (p->x.top_label) {
        m.top = tick_length + 4 + FKV_SIZE_TICK + label_height;
        overhang(cr, p, &p->tt, p->x.top_scale, &m);
    }
    if (p->title && *p->title) m.top += FKV_SIZE_LABEL + 1;
    return m;
}

static struct fkv_panel *panel_at(struct fkv_figure *f, int row, int column) {
    return row < f->rows && column < f->columns ? &f->panels[row * f->columns + column] : NULL;
}

enum { MOST_PANELS = 100 }; /* along one side of the grid */

/* What stands around the panels of a grid. */
struct surroundings {
    double left[MOST_PANELS], right[MOST_PANELS]; /* [columns] */
    double top[MOST_PANELS], bottom[MOST_PANELS]; /* [rows] */
};

/* The margins that the ticks of the panels' present boxes need. */
static struct surroundings find_surroundings(struct fkv_figure *f, cairo_t *cr) {
    struct surroundings s = {0};
    for (int r = 0; r < f->rows; r++)
        for (int c = 0; c < f->columns; c++) {
            struct fkv_panel *p = panel_at(f, r, c), *below = panel_at(f, r + 1, c);
            if (!p->used) continue;
            p->show_y = !f->share || c == 0;
            p->show_x = !f->share || !below || !below->used;
            find_ticks(p, cr);
            struct margins m = find_margins(f, p, cr);
            s.left[c] = fmax(s.left[c], m.left), s.right[c] = fmax(s.right[c], m.right);
            s.top[r] = fmax(s.top[r], m.top);
            /* Below a hole in the last row the ticks stand in the hole. */
            if (r == f->rows - 1 || !f->share) s.bottom[r] = fmax(s.bottom[r], m.bottom);
        }
    return s;
}

static void place_panels(struct fkv_figure *f, cairo_t *cr, const struct surroundings *s) {
    struct fkv_box inner = f->area;
    if (f->share)
        inner.x += label_height, inner.width -= label_height, inner.height -= label_height;
    double width = inner.width, height = inner.height;
    for (int c = 0; c < f->columns; c++) width -= s->left[c] + s->right[c] + (c ? gap : 0);
    for (int r = 0; r < f->rows; r++) height -= s->top[r] + s->bottom[r] + (r ? gap : 0);
    width = fmax(width / f->columns, 4), height = fmax(height / f->rows, 4);
    double y = inner.y;
    for (int r = 0; r < f->rows; r++) {
        double x = inner.x;
        y += s->top[r];
        for (int c = 0; c < f->columns; c++) {
            x += s->left[c];
            struct fkv_panel *p = panel_at(f, r, c);
            p->box = (struct fkv_box){x, y, width, height};
            if (p->used) find_ticks(p, cr);
            x += width + s->right[c] + gap;
        }
        y += height + s->bottom[r] + gap;
    }
}

/* to [count] <- the larger of both. Returns whether one grew. */
static bool grow(double *to, const double *from, int count) {
    bool grew = false;
    for (int i = 0; i < count; i++)
        if (from[i] > to[i]) to[i] = from[i], grew = true;
    return grew;
}

/* Panels of other sizes have other ticks, which need other margins: the second placing is nearly
 * always the last. Where its ticks still need more, margins grow until they have it. */
static void fit_panels(struct fkv_figure *f, cairo_t *cr) {
    struct surroundings s, needed;
    for (int pass = 0; pass < 2; pass++) {
        s = find_surroundings(f, cr);
        place_panels(f, cr, &s);
    }
    for (int pass = 0; pass < 4; pass++) {
        needed = find_surroundings(f, cr);
        bool grew = grow(s.left, needed.left, f->columns);
        grew |= grow(s.right, needed.right, f->columns);
        grew |= grow(s.top, needed.top, f->rows);
        grew |= grow(s.bottom, needed.bottom, f->rows);
        if (!grew) return;
        place_panels(f, cr, &s);
    }
}

static void bar_ticks(struct fkv_figure *f, cairo_t *cr) {
    const struct fkv_color_bar *bar = &f->bar;
    struct fkv_scale s = {.low = bar->steps ? 0 : bar->low,
                          .high = bar->steps ? bar->steps : bar->high,
                          .from = f->bar_box.y + f->bar_box.height,
                          .to = f->bar_box.y};
    if (bar->steps)
        name_ticks(cr, &s, true, bar->steps, bar->names, 0.5, &f->bar_ticks);
    else
        fkv_ticks_linear(s.low, s.high, (int)fmin(9, fmax(2, f->bar_box.height / 18)),
                         bar->integers, &f->bar_ticks);
}

/* Beside the panels, as high as they are up to four inches. */
static void place_bar(struct fkv_figure *f, cairo_t *cr) {
    double top = f->area.y, end = f->area.y;
    for (int i = 0; i < f->rows * f->columns; i++) {
        const struct fkv_panel *p = &f->panels[i];
        if (!p->used) continue;
        if (!i) top = p->box.y;
        end = fmax(end, p->box.y + p->box.height);
    }
    double height = fmin(end - top, 4 * FKV_POINTS);
    f->bar_box = (struct fkv_box){f->area.x + f->area.width + gap, (top + end - height) / 2,
                                  bar_width, height};
    bar_ticks(f, cr);
}

/* Width of the bar with its ticks and label, and of the gap before it. */
static double bar_space(const struct fkv_figure *f, cairo_t *cr) {
    return gap + bar_width + tick_length + 2 + fkv_ticks_width(cr, &f->bar_ticks) +
           (*f->bar.label ? label_height : 0);
}

static void find_area(struct fkv_figure *f, cairo_t *cr) {
    const struct fkv_color none = {0, 0, 0, 0};
    double width = f->width - 2 * pad, top = pad, bottom = f->height - pad;
    if (f->title)
        top += fkv_text_wrapped(NULL, cr, 0, 0, width, FKV_SIZE_TITLE, FKV_CENTER, none, f->title) *
               FKV_SIZE_TITLE * 1.3;
    if (f->note)
        bottom -= fkv_text_wrapped(NULL, cr, 0, 0, width, FKV_SIZE_NOTE, FKV_LEFT, none, f->note) *
                      FKV_SIZE_NOTE * 1.3 +
                  5;
    if (f->legend.outside) {
        double height = fkv_legend_rows_height(f, cr, width);
        bottom -= height;
        f->legend.box = (struct fkv_box){pad, bottom, width, height};
    }
    f->area = (struct fkv_box){pad, top, width, bottom - top};
    if (f->bar.label) {
        f->bar_box.height = (bottom - top) * 0.7;
        bar_ticks(f, cr);
        f->area.width -= bar_space(f, cr);
    }
}

static void arrange(struct fkv_figure *f, cairo_t *cr) {
    find_area(f, cr);
    for (int i = 0; i < f->rows * f->columns; i++)
        f->panels[i].box = (struct fkv_box){0, 0, f->area.width / f->columns * 0.8,
                                            f->area.height / f->rows * 0.7};
    fit_panels(f, cr);
    if (!f->bar.label) return;
    place_bar(f, cr);
    /* A bar that is higher than find_area took it to be may have wider ticks. */
    double lacking = bar_space(f, cr) - (f->width - pad - f->area.x - f->area.width);
    if (lacking < 0.01) return;
    f->area.width -= lacking;
    fit_panels(f, cr);
    place_bar(f, cr);
}

void fkv_figure_layout(struct fkv_figure *f, cairo_t *cr) {
    find_ranges(f);
    fkv_legend_collect(f);
    f->legend.outside = f->legend.count && f->rows * f->columns > 1;
    arrange(f, cr);
    if (f->legend.count && !f->legend.outside && !fkv_legend_place(f, cr)) {
        f->legend.outside = true;
        arrange(f, cr);
    }
}
