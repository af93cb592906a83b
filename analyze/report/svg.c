/* Owns the way of a figure's SVG into a page. A page has one space of ids and runs what it holds,
 * so an SVG is not copied but taken apart and written anew: only the elements and attributes that
 * fkv_figure_write's files have, every id and reference with the figure's own prefix, no text, no
 * address, no script. Anything else is refused: then the file is not one of ours.
 *
 * On the way coordinates lose what is below a hundredth of a point, strokes what is a default (the
 * page's style sets the miter limit), and glyphs, which cairo draws anew in every file, are shared
 * by all figures of the page: a third of the bytes stays. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/report/parts.h"
#include "kernels/base/atomic_file.h"

enum { LARGEST = 64 << 20, NAME = 32, DEEPEST = 64 };
static const double on_page = 1.1; /* a screen is further away than paper */

static const char *const elements[] = {"svg",  "g",   "defs",     "symbol", "path",
                                       "rect", "use", "clipPath", NULL};
static const char *const attributes[] = {
    "d",         "x",         "y",       "width",     "height",   "id",   "style",     "xlink:href",
    "clip-path", "clip-rule", "viewBox", "transform", "overflow", "fill", "fill-rule", NULL};
/* Said of the file or of no account inside a page. */
static const char *const dropped[] = {"xmlns", "xmlns:xlink", "version", NULL};
static const char *const default_styles[] = {"stroke-linecap:butt;", "stroke-linejoin:miter;",
                                             "stroke-opacity:1;",    "stroke-miterlimit:10;",
                                             "fill-opacity:1;",      NULL};

struct reading {
    const char *path, *at, *end, *prefix;
    FILE *out;
    char *title, *command, *creator; /* owned */
    char open[DEEPEST][NAME];
    int depth;
    FILE *page; /* where `out` goes on behind a symbol, which is written to memory; NULL outside of
                   one */
    char *symbol, symbol_id[NAME];
    size_t symbol_bytes;
    struct fkv_text_list *glyphs; /* of the page */
    struct known_glyph {
        char id[NAME]; /* in this file */
        int glyph;
    } * known; /* [knowns]; owned */
    int knowns;
    struct fkv_error *err;
};

static bool one_of(const char *name, const char *const *names) {
    while (*names && strcmp(*names, name)) names++;
    return *names;
}

static int refuse(struct reading *x, const char *found) {
    return fkv_fail(x->err, "%s: expected a figure of freqkv-analyze, found %.80s", x->path, found);
}

static void skip_space(struct reading *x) {
    while (x->at < x->end && isspace((unsigned char)*x->at)) x->at++;
}

/* Steps behind `text`, wherever it next is. */
static int skip_past(struct reading *x, const char *text) {
    const char *found = memmem(x->at, (size_t)(x->end - x->at), text, strlen(text));
    if (!found) return refuse(x, "an end before its time");
    x->at = found + strlen(text);
    return FKV_OK;
}

static int take_name(struct reading *x, char name[NAME]) {
    int n = 0;
    while (x->at < x->end && (isalnum((unsigned char)*x->at) || strchr(":-_", *x->at))) {
        if (n == NAME - 1) return refuse(x, "a name longer than any of ours");
        name[n++] = *x->at++;
    }
    name[n] = 0;
    return n ? FKV_OK : refuse(x, "something that is not a name");
}

/* The text of an element that holds nothing else, entities resolved; its content starts at x->at.
 * NULL and a message on failure. */
static char *take_text(struct reading *x, const char *name) {
    static const struct {
        const char *entity;
        char is;
    } entities[] = {
        {"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};
    const char *from = x->at;
    char close[NAME + 4];
    snprintf(close, sizeof close, "</%s>", name);
    if (skip_past(x, close)) return NULL;
    const char *to = x->at - strlen(close);
    char *text = malloc((size_t)(to - from) + 1), *write = text;
    if (!text) {
        fkv_fail(x->err, "%s: out of memory", x->path);
        return NULL;
    }
    while (from < to) {
        size_t i = 0, count = sizeof entities / sizeof *entities;
        while (i < count && strncmp(from, entities[i].entity, strlen(entities[i].entity))) i++;
        *write++ = i < count ? entities[i].is : *from;
        from += i < count ? strlen(entities[i].entity) : 1;
    }
    *write = 0;
    return text;
}

/* ---- values ---- */

/* Numbers with more than two decimals are rounded to two; the rest as it is. */
static void put_numbers(FILE *out, const char *from, const char *to) {
    while (from < to) {
        if (!isdigit((unsigned char)*from) && *from != '-') {
            fputc(*from++, out);
            continue;
        }
        char *end;
        double value = strtod(from, &end);
        const char *point = memchr(from, '.', (size_t)(end - from));
        if (end == from || !point || end - point <= 3) {
            if (end == from) end = (char *)from + 1;
            fwrite(from, 1, (size_t)(end - from), out);
        } else {
            char text[64];
            int n = snprintf(text, sizeof text, "%.2f", value + 0.0);
            while (n && text[n - 1] == '0') n--;
            if (n && text[n - 1] == '.') n--;
            text[n] = 0;
            fputs(!strcmp(text, "-0") ? "0" : text, out);
        }
        from = end;
    }
}

/* Properties apart from defaults. A style can load things: ours name nothing but colours and
 * numbers. */
static int put_style(struct reading *x, const char *from, const char *to) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-:;.,()% ";
    for (const char *p = from; p < to; p++)
        if (!strchr(allowed, *p) || (to - p >= 4 && !strncmp(p, "url(", 4)))
            return refuse(x, "a style of another kind");
    while (from < to) {
        const char *end = memchr(from, ';', (size_t)(to - from));
        end = end ? end + 1 : to;
        bool plain = false;
        for (const char *const *s = default_styles; *s && !plain; s++)
            plain = strlen(*s) == (size_t)(end - from) && !strncmp(*s, from, strlen(*s));
        if (!plain) fwrite(from, 1, (size_t)(end - from), x->out);
        from = end;
    }
    return FKV_OK;
}

static bool plain_name(const char *from, const char *to) {
    for (const char *p = from; p < to; p++)
        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_') return false;
    return from < to;
}

/* ---- glyphs ---- */

static int open_symbol(struct reading *x) {
    if (x->page) return refuse(x, "a symbol in a symbol");
    FILE *memory = open_memstream(&x->symbol, &x->symbol_bytes);
    if (!memory) return fkv_fail(x->err, "%s: out of memory", x->path);
    x->page = x->out;
    x->out = memory;
    *x->symbol_id = 0;
    return FKV_OK;
}

/* The symbol becomes one of the page's glyphs, if it is none yet. */
static int close_symbol(struct reading *x) {
    struct known_glyph *grown = realloc(x->known, ((size_t)x->knowns + 1) * sizeof *grown);
    int glyph = 0, status = FKV_OK;
    if (grown) x->known = grown;
    if (fclose(x->out) || !grown) status = fkv_fail(x->err, "%s: out of memory", x->path);
    x->out = x->page;
    x->page = NULL;
    while (!status && glyph < x->glyphs->count && strcmp(x->glyphs->text[glyph], x->symbol))
        glyph++;
    if (!status && glyph == x->glyphs->count)
        status = fkv_text_list_add(x->glyphs, x->err, "%s", x->symbol);
    if (!status) {
        grown[x->knowns].glyph = glyph;
        memcpy(grown[x->knowns++].id, x->symbol_id, NAME);
    }
    free(x->symbol);
    x->symbol = NULL;
    return status;
}

void fkv_svg_glyphs(FILE *out, const struct fkv_text_list *glyphs) {
    if (!glyphs->count) return;
    fputs("<svg class='glyphs' aria-hidden='true' width='0' height='0'><defs>\n", out);
    for (int i = 0; i < glyphs->count; i++)
        fprintf(out, "<symbol id='g%d'%s</symbol>\n", i, glyphs->text[i]);
    fputs("</defs></svg>\n", out);
}

static int put_reference(struct reading *x, bool clip, const char *from, const char *to) {
    for (int i = 0; !clip && i < x->knowns; i++)
        if (strlen(x->known[i].id) == (size_t)(to - from) &&
            !strncmp(x->known[i].id, from, (size_t)(to - from))) {
            fprintf(x->out, " href='#g%d'", x->known[i].glyph);
            return FKV_OK;
        }
    fprintf(x->out, clip ? " clip-path='url(#%s%.*s)'" : " href='#%s%.*s'", x->prefix,
            (int)(to - from), from);
    return FKV_OK;
}

static int put_id(struct reading *x, const char *from, const char *to) {
    if (!x->page) {
        fprintf(x->out, " id='%s%.*s'", x->prefix, (int)(to - from), from);
        return FKV_OK;
    }
    if (*x->symbol_id || to - from >= NAME) return refuse(x, "a symbol with other ids than ours");
    snprintf(x->symbol_id, NAME, "%.*s", (int)(to - from), from);
    return FKV_OK;
}

/* One attribute's value, which stands at from .. to, with its name in front. */
static int put_attribute(struct reading *x, const char *name, const char *from, const char *to) {
    static const char geometry[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-+()% \n";
    bool href = !strcmp(name, "xlink:href"), clip = !strcmp(name, "clip-path");
    size_t before = href ? 1 : clip ? 5 : 0, after = clip ? 1 : 0;
    if (href || clip || !strcmp(name, "id")) {
        if ((size_t)(to - from) <= before + after ||
            strncmp(from,
                    href   ? "#"
                    : clip ? "url(#"
                           : "",
                    before) ||
            (clip && to[-1] != ')') || !plain_name(from + before, to - after))
            return refuse(x, "a reference that leaves the figure");
        return href || clip ? put_reference(x, clip, from + before, to - after)
                            : put_id(x, from, to);
    }
    fprintf(x->out, " %s='", name);
    if (!strcmp(name, "style")) {
        if (put_style(x, from, to)) return FKV_FAILED;
    } else {
        for (const char *p = from; p < to; p++)
            if (!strchr(geometry, *p)) return refuse(x, "an attribute of another kind");
        put_numbers(x->out, from, to);
    }
    fputc('\'', x->out);
    return FKV_OK;
}

/* ---- elements ---- */

/* From behind the element's name to behind its '>'; *empty: it ended with "/>". The root's height
 * follows from its width. */
static int take_attributes(struct reading *x, bool root, bool *empty) {
    for (;;) {
        char name[NAME];
        skip_space(x);
        if (x->at >= x->end) return refuse(x, "an end before its time");
        *empty = *x->at == '/';
        if (*empty) x->at++;
        if (x->at < x->end && *x->at == '>') break;
        if (*empty || take_name(x, name)) return *empty ? refuse(x, "a lone /") : FKV_FAILED;
        if (x->end - x->at < 2 || x->at[0] != '=' || x->at[1] != '"')
            return refuse(x, "an attribute without a value");
        const char *from = x->at + 2;
        x->at = from;
        if (skip_past(x, "\"")) return FKV_FAILED;
        if (root && !strcmp(name, "width"))
            fprintf(x->out, " width='%.0fpt'", on_page * strtod(from, NULL));
        if (one_of(name, dropped) || (root && (!strcmp(name, "width") || !strcmp(name, "height"))))
            continue;
        if (!one_of(name, attributes)) return refuse(x, name);
        if (put_attribute(x, name, from, x->at - 1)) return FKV_FAILED;
    }
    x->at++;
    return FKV_OK;
}

/* What the file says about itself; NULL, without a message, where it does not. */
static char *told(struct reading *x, const char *name) {
    char open[NAME + 4];
    const char *here = x->at;
    snprintf(open, sizeof open, "<%s>", name);
    const char *found = memmem(here, (size_t)(x->end - here), open, strlen(open));
    if (!found) return NULL;
    x->at = found + strlen(open);
    char *text = take_text(x, name);
    x->at = here;
    return text;
}

static int put_titles(struct reading *x, const char *alt) {
    x->title = told(x, "title");
    x->creator = told(x, "dc:creator");
    x->command = told(x, "dc:description");
    if (!x->title || !x->creator || strncmp(x->creator, "FreqKV toolkit", 14))
        return refuse(x, "no title and no mark of one");
    fprintf(x->out, "<title id='%st'>", x->prefix);
    fkv_html(x->out, x->title);
    fprintf(x->out, "</title><desc id='%sd'>", x->prefix);
    fkv_html(x->out, alt);
    fputs("</desc>", x->out);
    return FKV_OK;
}

static int open_element(struct reading *x, const char *alt) {
    char name[NAME];
    bool empty;
    if (take_name(x, name)) return FKV_FAILED;
    if (x->depth && (!strcmp(name, "title") || !strcmp(name, "metadata"))) {
        char end[NAME + 4];
        snprintf(end, sizeof end, "</%s>", name);
        return skip_past(x, end);
    }
    if (!one_of(name, elements)) return refuse(x, name);
    bool root = !x->depth;
    if (root != !strcmp(name, "svg") || x->depth == DEEPEST)
        return refuse(x, "elements in another order");
    bool symbol = !strcmp(name, "symbol");
    if (symbol && open_symbol(x)) return FKV_FAILED;
    if (!symbol) fprintf(x->out, "<%s", name);
    if (root) fprintf(x->out, " role='img' aria-labelledby='%st %sd'", x->prefix, x->prefix);
    if (take_attributes(x, root, &empty)) return FKV_FAILED;
    if (symbol && empty) return refuse(x, "a symbol that shows nothing");
    fputs(empty ? "/>" : ">", x->out);
    if (root && put_titles(x, alt)) return FKV_FAILED;
    if (!empty) snprintf(x->open[x->depth++], NAME, "%s", name);
    return FKV_OK;
}

static int close_element(struct reading *x) {
    char name[NAME];
    if (take_name(x, name) || skip_past(x, ">")) return FKV_FAILED;
    if (!x->depth || strcmp(x->open[x->depth - 1], name))
        return refuse(x, "elements that do not nest");
    x->depth--;
    if (!strcmp(name, "symbol")) return close_symbol(x);
    fprintf(x->out, "</%s>", name);
    return FKV_OK;
}

static int take_markup(struct reading *x, const char *alt) {
    bool begun = false;
    skip_space(x);
    if (x->end - x->at > 5 && !strncmp(x->at, "<?xml", 5) && skip_past(x, "?>")) return FKV_FAILED;
    while (!begun || x->depth) {
        skip_space(x);
        if (x->at >= x->end || *x->at != '<')
            return refuse(x, "text between elements, or an end before its time");
        x->at++;
        bool closing = x->at < x->end && *x->at == '/';
        if (closing) x->at++;
        if (closing ? close_element(x) : open_element(x, alt)) return FKV_FAILED;
        begun = true;
    }
    skip_space(x);
    return x->at == x->end ? FKV_OK : refuse(x, "something behind the figure");
}

void fkv_svg_free(struct fkv_svg *s) {
    free(s->markup);
    free(s->title);
    free(s->command);
    memset(s, 0, sizeof *s);
}

/* "Command: freqkv-analyze ..." -> "freqkv-analyze ..." */
static char *command_of(const char *description) {
    static const char label[] = "Command: ";
    bool there = description && !strncmp(description, label, sizeof label - 1);
    return strdup(there ? description + sizeof label - 1 : "");
}

int fkv_svg_read(const char *path, const char *prefix, const char *alt,
                 struct fkv_text_list *glyphs, struct fkv_svg *out, struct fkv_error *err) {
    char *text;
    size_t bytes, length;
    *out = (struct fkv_svg){0};
    if (fkv_read_file(path, LARGEST, &text, &bytes, err)) return FKV_FAILED;
    struct reading x = {.path = path,
                        .at = text,
                        .end = text + bytes,
                        .prefix = prefix,
                        .glyphs = glyphs,
                        .err = err};
    int status = strlen(text) == bytes ? FKV_OK : refuse(&x, "a NUL");
    if (!status && !(x.out = open_memstream(&out->markup, &length)))
        status = fkv_fail(err, "%s: out of memory", path);
    if (!status) status = take_markup(&x, alt);
    if (x.page) {
        fclose(x.out);
        x.out = x.page;
    }
    if (x.out && fclose(x.out) && !status) status = fkv_fail(err, "%s: out of memory", path);
    out->title = x.title;
    out->command = command_of(x.command);
    if (!status && !out->command) status = fkv_fail(err, "%s: out of memory", path);
    if (status) fkv_svg_free(out);
    free(x.symbol);
    free(x.known);
    free(x.command);
    free(x.creator);
    free(text);
    return status;
}
