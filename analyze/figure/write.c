/* A figure's two files. Both are finished under temporary names before either takes its place. PNG:
 * 8-bit RGB at 300 dpi, provenance as tEXt (iTXt where it is not ASCII). SVG: cairo's, with a title
 * and Dublin Core metadata put behind the opening tag, and numbers of two decimals: 0.01 points.
 * Neither carries a time: the same findings give the same bytes. */
#include "analyze/figure/figure.h"
#include "analyze/figure/parts.h"

#include <cairo-svg.h>
#include <ctype.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/text_clean.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/path.h"

/* ------------------------------------------------------------------ PNG */

struct chunks {
    int count;
    png_text text[5];
    char *copies[5];
};

static int add_chunk(struct chunks *c, const char *key, const char *value, struct fkv_error *err) {
    if (!value || !*value) return FKV_OK;
    char *copy = fkv_text_clean(value);
    if (!copy) return fkv_fail(err, "figure: out of memory");
    bool ascii = true;
    for (const char *p = copy; *p; p++) ascii = ascii && (unsigned char)*p < 0x80;
    c->copies[c->count] = copy;
    c->text[c->count++] =
        (png_text){.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
                   .key = (char *)key,
                   .text = copy};
    return FKV_OK;
}

static void png_failed(png_structp png, png_const_charp message) {
    fkv_fail(png_get_error_ptr(png), "PNG: %s", message);
    png_longjmp(png, 1);
}

/* libpng would say that it failed, and not why; committing the file does. */
static void put_bytes(png_structp png, png_bytep data, size_t bytes) {
    fwrite(data, 1, bytes, png_get_io_ptr(png));
}

static void png_warned(png_structp png, png_const_charp message) { (void)png, (void)message; }

/* pixels: cairo's RGB24, one native-endian 32-bit word per pixel. row [3 * width]. */
static int encode_png(FILE *stream, const unsigned char *pixels, int width, int height, int stride,
                      png_byte *row, struct chunks *chunks, struct fkv_error *err) {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, err, png_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return fkv_fail(err, "figure: out of memory");
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return FKV_FAILED;
    }
    png_set_write_fn(png, stream, put_bytes, NULL);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_uint_32 per_metre = (png_uint_32)lround(FKV_DPI / 0.0254);
    png_set_pHYs(png, info, per_metre, per_metre, PNG_RESOLUTION_METER);
    png_set_text(png, info, chunks->text, chunks->count);
    png_set_filter(png, 0, PNG_FILTER_NONE); /* flat colours: smaller than with filters */
    png_set_compression_level(png, 3);       /* a fifth larger than with 6, in 0.4 of its time */
    png_write_info(png, info);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            uint32_t word;
            memcpy(&word, pixels + (size_t)y * (size_t)stride + 4 * (size_t)x, sizeof word);
            row[3 * x] = word >> 16 & 255, row[3 * x + 1] = word >> 8 & 255,
                    row[3 * x + 2] = word & 255;
        }
        png_write_row(png, row);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return FKV_OK;
}

static int write_png(struct fkv_figure *f, FILE *stream, const struct fkv_provenance *p,
                     struct fkv_error *err) {
    double scale = (double)FKV_DPI / FKV_POINTS;
    int width = (int)lround(f->width * scale), height = (int)lround(f->height * scale),
        rc = FKV_FAILED;
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    cairo_t *cr = cairo_create(surface);
    struct chunks chunks = {0};
    char software[128];
    snprintf(software, sizeof software, "FreqKV toolkit %s", p->version ? p->version : "");
    png_byte *row = malloc(3 * (size_t)width);
    cairo_scale(cr, scale, scale);
    if (!row) fkv_fail(err, "figure: out of memory");
    if (row && !fkv_figure_paint(f, cr, err) && !add_chunk(&chunks, "Title", f->title, err) &&
        !add_chunk(&chunks, "Software", software, err) &&
        !add_chunk(&chunks, "Source", p->capture_sha256, err) &&
        !add_chunk(&chunks, "Command", p->command, err) &&
        !add_chunk(&chunks, "Model", p->model, err)) {
        cairo_surface_flush(surface);
        rc = encode_png(stream, cairo_image_surface_get_data(surface), width, height,
                        cairo_image_surface_get_stride(surface), row, &chunks, err);
    }
    for (int i = 0; i < chunks.count; i++) free(chunks.copies[i]);
    free(row);
    cairo_destroy(cr);
    cairo_surface_destroy(surface);
    return rc;
}

/* ------------------------------------------------------------------ SVG */

struct buffer {
    char *data;
    size_t bytes, room;
};

static cairo_status_t collect(void *closure, const unsigned char *data, unsigned length) {
    struct buffer *b = closure;
    if (b->bytes + length > b->room) {
        size_t room = 2 * (b->bytes + length);
        char *grown = realloc(b->data, room);
        if (!grown) return CAIRO_STATUS_NO_MEMORY;
        b->data = grown, b->room = room;
    }
    memcpy(b->data + b->bytes, data, length);
    b->bytes += length;
    return CAIRO_STATUS_SUCCESS;
}

static int put_element(FILE *stream, const char *name, const char *label, const char *text,
                       struct fkv_error *err) {
    if (!text || !*text) return FKV_OK;
    char *clean = fkv_text_clean(text);
    if (!clean) return fkv_fail(err, "figure: out of memory");
    fprintf(stream, "<%s>%s", name, label);
    for (const char *p = clean; *p; p++)
        if (*p == '<' || *p == '>' || *p == '&')
            fprintf(stream, *p == '<' ? "&lt;" : *p == '>' ? "&gt;" : "&amp;");
        else
            fputc(*p, stream);
    fprintf(stream, "</%s>\n", name);
    free(clean);
    return FKV_OK;
}

static int put_metadata(const struct fkv_figure *f, FILE *stream, const struct fkv_provenance *p,
                        struct fkv_error *err) {
    if (put_element(stream, "title", "", f->title, err)) return FKV_FAILED;
    fprintf(stream,
            "<metadata>\n<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\" "
            "xmlns:dc=\"http://purl.org/dc/elements/1.1/\">\n<rdf:Description rdf:about=\"\">\n");
    if (put_element(stream, "dc:creator", "FreqKV toolkit ", p->version, err) ||
        put_element(stream, "dc:source", "sha256:", p->capture_sha256, err) ||
        put_element(stream, "dc:description", "Command: ", p->command, err) ||
        put_element(stream, "dc:subject", "Model: ", p->model, err))
        return FKV_FAILED;
    fprintf(stream, "</rdf:Description>\n</rdf:RDF>\n</metadata>\n");
    return FKV_OK;
}

/* cairo's numbers with two decimals at most: the file is a quarter smaller and looks the same. */
static void put_rounded(FILE *stream, const char *text, const char *end) {
    while (text < end) {
        const char *digits = text, *decimals, *next;
        while (digits < end && !isdigit((unsigned char)*digits)) digits++;
        for (decimals = digits; decimals < end && isdigit((unsigned char)*decimals);) decimals++;
        for (next = decimals + 1; next < end && isdigit((unsigned char)*next);) next++;
        fwrite(text, 1, (size_t)(digits - text), stream);
        if (decimals < end && *decimals == '.' && next - decimals > 3) {
            char number[400];
            int length = snprintf(number, sizeof number, "%.2f", strtod(digits, NULL));
            while (number[length - 1] == '0') length--;
            fwrite(number, 1, (size_t)(length - (number[length - 1] == '.')), stream);
            text = next;
        } else {
            fwrite(digits, 1, (size_t)(decimals - digits), stream);
            text = decimals;
        }
    }
}

/* cairo's text with the metadata behind the opening tag, and without the page group's id: a number
 * counted through the whole process. */
static int put_svg(const struct fkv_figure *f, FILE *stream, const struct buffer *b,
                   const struct fkv_provenance *p, struct fkv_error *err) {
    static const char group[] = "<g id=\"surface";
    const char *end = b->data + b->bytes, *tag = memmem(b->data, b->bytes, "<svg", 4);
    const char *body = tag ? memchr(tag, '>', (size_t)(end - tag)) : NULL;
    if (!body) return fkv_fail(err, "SVG: cairo wrote no <svg> tag");
    body++;
    fprintf(stream, "%.*s\n", (int)(body - b->data), b->data);
    if (put_metadata(f, stream, p, err)) return FKV_FAILED;
    const char *page = memmem(body, (size_t)(end - body), group, sizeof group - 1);
    if (page) {
        put_rounded(stream, body, page);
        fputs("<g", stream);
        body = page + sizeof group - 1;
        while (body < end && *body != '>') body++;
    }
    put_rounded(stream, body, end);
    return FKV_OK;
}

static int write_svg(struct fkv_figure *f, FILE *stream, const struct fkv_provenance *p,
                     struct fkv_error *err) {
    struct buffer buffer = {0};
    cairo_surface_t *surface =
        cairo_svg_surface_create_for_stream(collect, &buffer, f->width, f->height);
    cairo_t *cr = cairo_create(surface);
    int rc = fkv_figure_paint(f, cr, err);
    cairo_destroy(cr);
    cairo_surface_finish(surface);
    if (!rc && cairo_surface_status(surface))
        rc = fkv_fail(err, "SVG: cairo: %s", cairo_status_to_string(cairo_surface_status(surface)));
    cairo_surface_destroy(surface);
    if (!rc) rc = put_svg(f, stream, &buffer, p, err);
    free(buffer.data);
    return rc;
}

int fkv_figure_write(struct fkv_figure *f, const char *base,
                     const struct fkv_provenance *provenance, struct fkv_error *err) {
    static int (*const write[])(struct fkv_figure *, FILE *, const struct fkv_provenance *,
                                struct fkv_error *) = {write_png, write_svg};
    static const char *const suffix[] = {".png", ".svg"};
    struct fkv_atomic_file files[2] = {0};
    int rc = *f->failure.message ? fkv_fail(err, "%s", f->failure.message) : FKV_OK;
    for (int i = 0; !rc && i < 2; i++) {
        char path[FKV_PATH];
        rc = fkv_path_print(path, err, "%s%s", base, suffix[i]);
        if (!rc) rc = fkv_atomic_open(&files[i], path, err);
        if (!rc && (rc = write[i](f, files[i].stream, provenance, err)))
            fkv_error_prefix(err, "%s", path);
    }
    for (int i = 0; !rc && i < 2; i++) rc = fkv_atomic_commit(&files[i], err);
    for (int i = 0; i < 2; i++) fkv_atomic_abandon(&files[i]);
    return rc;
}
