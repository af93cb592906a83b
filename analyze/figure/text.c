/* Text: one font, opened by path through FreeType, so that neither fontconfig's configuration nor
 * the installed fonts change a picture. Hinting is off, so that widths are the same in PNG and SVG.
 * Superscripts and subscripts are the only markup. Pango was dropped: it needs fontconfig and
 * crashes where no font is installed. */
#include "analyze/figure/marker.h"
#include "analyze/figure/parts.h"

#include <cairo-ft.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double small = 0.7, raised_by = 0.42, lowered_by = 0.16, ascent = 0.76,
                    descent = 0.24; /* of the size */

static const char *const font_paths[] = {"/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
                                         "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
                                         "/usr/share/fonts/TTF/DejaVuSans.ttf",
                                         "/usr/share/fonts/dejavu/DejaVuSans.ttf"};

struct loaded_font { /* lives as long as cairo uses the face, which may be longer than the figure */
    FT_Library library;
    FT_Face face;
};

static void close_font(void *data) {
    struct loaded_font *font = data;
    if (font->face) FT_Done_Face(font->face);
    FT_Done_FreeType(font->library);
    free(font);
}

int fkv_font_open(cairo_font_face_t **out, struct fkv_error *err) {
    static const cairo_user_data_key_t key;
    const char *path = getenv("FKV_FONT");
    if (path && !*path) path = NULL;
    bool asked = path;
    for (size_t i = 0; !path && i < sizeof font_paths / sizeof *font_paths; i++)
        if (!access(font_paths[i], R_OK)) path = font_paths[i];
    if (!path)
        return fkv_fail(err,
                        "font: expected %s, found none; install fonts-dejavu-core (apt install "
                        "fonts-dejavu-core) "
                        "or set FKV_FONT to a TrueType file",
                        font_paths[0]);
    struct loaded_font *font = calloc(1, sizeof *font);
    if (!font) return fkv_fail(err, "figure: out of memory");
    if (FT_Init_FreeType(&font->library)) {
        free(font);
        return fkv_fail(err, "font: FreeType does not start");
    }
    if (FT_New_Face(font->library, path, 0, &font->face) || !FT_IS_SCALABLE(font->face)) {
        close_font(font);
        return fkv_fail(
            err,
            "font %s%s: expected a readable scalable font; install fonts-dejavu-core (apt install "
            "fonts-dejavu-core) or set FKV_FONT to a TrueType file",
            path, asked ? " (from FKV_FONT)" : "");
    }
    *out = cairo_ft_font_face_create_for_ft_face(font->face, FT_LOAD_NO_HINTING);
    if (cairo_font_face_status(*out) ||
        cairo_font_face_set_user_data(*out, &key, font, close_font)) {
        cairo_font_face_destroy(*out);
        *out = NULL;
        close_font(font);
        return fkv_fail(err, "font %s: cairo cannot use it", path);
    }
    return FKV_OK;
}

void fkv_text_begin(const struct fkv_figure *f, cairo_t *cr) {
    cairo_font_options_t *options = cairo_font_options_create();
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    cairo_set_font_options(cr, options);
    cairo_font_options_destroy(options);
    cairo_set_font_face(cr, f->font);
}

/* +1 where a superscript begins, -1 where a subscript does. */
static int mark(const char *p) { return !strncmp(p, "^{", 2) - !strncmp(p, "_{", 2); }

/* Takes the next stretch of one height off *text. */
static bool next_run(const char **text, char run[256], int *level) {
    const char *p = *text;
    if (!*p) return false;
    *level = mark(p);
    if (*level) p += 2;
    size_t n = 0;
    while (*p && (*level ? *p != '}' : !mark(p))) {
        if (n >= 250 && ((unsigned char)*p & 0xc0) != 0x80)
            break; /* never in the middle of a character */
        run[n++] = *p++;
    }
    run[n] = 0;
    *text = *level && *p == '}' ? p + 1 : p;
    return true;
}

static double run_advance(cairo_t *cr, double size, const char *run) {
    cairo_text_extents_t extents;
    cairo_set_font_size(cr, size);
    cairo_text_extents(cr, run, &extents);
    return extents.x_advance;
}

double fkv_text_width(cairo_t *cr, double size, const char *text) {
    char run[256];
    int level;
    double width = 0;
    while (next_run(&text, run, &level)) width += run_advance(cr, level ? size * small : size, run);
    return width;
}

double fkv_ticks_width(cairo_t *cr, const struct fkv_ticks *t) {
    double width = 0;
    for (int i = 0; i < t->count; i++)
        width = fmax(width, fkv_text_width(cr, FKV_SIZE_TICK, t->label[i]));
    return width;
}

static void remember(struct fkv_figure *f, struct fkv_box box, const char *text) {
    if (f->text_count == f->text_room) {
        int room = f->text_room ? 2 * f->text_room : 64;
        struct fkv_text_box *texts = realloc(f->texts, (size_t)room * sizeof *texts);
        if (!texts) return; /* only the tests read them */
        f->texts = texts, f->text_room = room;
    }
    struct fkv_text_box *t = &f->texts[f->text_count++];
    t->box = box;
    snprintf(t->text, sizeof t->text, "%s", text);
}

void fkv_text(struct fkv_figure *f, cairo_t *cr, double x, double y, double size,
              enum fkv_anchor anchor, bool upright, struct fkv_color color, const char *text) {
    if (!*text) return;
    double width = fkv_text_width(cr, size, text);
    double top = strstr(text, "^{") ? raised_by + small * ascent : ascent;
    double shift = anchor == FKV_LEFT ? 0 : anchor == FKV_CENTER ? width / 2 : width;
    struct fkv_box flat = {x - shift, y - top * size, width, (top + descent) * size};
    struct fkv_box stood = {x - top * size, y - width + shift, (top + descent) * size, width};
    remember(f, upright ? stood : flat, text);

    char run[256];
    int level;
    fkv_paint_color(cr, color);
    cairo_save(cr);
    cairo_translate(cr, x, y);
    if (upright) cairo_rotate(cr, -M_PI / 2);
    double at = -shift;
    for (const char *rest = text; next_run(&rest, run, &level);) {
        double run_size = level ? size * small : size;
        double advance = run_advance(cr, run_size, run);
        cairo_move_to(cr, at, level > 0 ? -raised_by * size : level < 0 ? lowered_by * size : 0);
        cairo_show_text(cr, run);
        at += advance;
    }
    cairo_restore(cr);
}

/* The bytes of the longest beginning of `text` that fits, at a blank if there is one; at least one
 * character. */
static size_t fitting(cairo_t *cr, const char *text, double width, double size) {
    char part[512];
    size_t fits = 0, blank = 0, limit = sizeof part - 8;
    for (size_t n = 1; n <= limit; n++) {
        if (((unsigned char)text[n] & 0xc0) == 0x80) continue; /* within a character */
        memcpy(part, text, n);
        part[n] = 0;
        if (fits && fkv_text_width(cr, size, part) > width) return blank ? blank : fits;
        fits = n;
        if (!text[n]) return n;
        if (text[n] == ' ') blank = n;
    }
    return fits;
}

int fkv_text_wrapped(struct fkv_figure *f, cairo_t *cr, double x, double y, double width,
                     double size, enum fkv_anchor anchor, struct fkv_color color,
                     const char *text) {
    int lines = 0;
    while (*text == ' ') text++;
    while (*text) {
        size_t n = fitting(cr, text, width, size);
        char line[512];
        memcpy(line, text, n);
        line[n] = 0;
        if (f) fkv_text(f, cr, x, y + lines * size * 1.3, size, anchor, false, color, line);
        lines++;
        text += n;
        while (*text == ' ') text++;
    }
    return lines;
}
