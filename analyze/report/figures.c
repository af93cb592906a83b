/* Owns figures in a page. A figure is embedded as an image whose address holds the file's bytes: so
 * ids of two figures do not meet, no script runs in a file that was changed, and the picture is the
 * one in the folder. Its caption says how it is to be read (plots/figures.h). */
#include "analyze/report/sections.h"

#include <string.h>

#include "analyze/figure/svg_read.h"
#include "analyze/plots/figures.h"
#include "analyze/report/page.h"

/* As a value for an attribute in single quotes. Percent-encoding makes an SVG 4% longer, base64 a
 * third. Encoded: what ends the attribute or the address (' and #), what parsers of HTML or of
 * addresses take out (& and %, control characters), and <, so that the page's own text has no tag
 * of a figure. */
static void put_data_address(FILE *out, const struct fkv_figure_svg *svg) {
    fputs("data:image/svg+xml,", out);
    for (size_t i = 0; i < svg->bytes; i++) {
        unsigned char c = (unsigned char)svg->text[i];
        if (c < ' ' || c > '~' || strchr("%#&'<", c))
            fprintf(out, "%%%02X", c);
        else
            fputc(c, out);
    }
}

void fkv_report_figure(struct fkv_report *r, FILE *out, const char *name) {
    char path[4096];
    const char *reading = fkv_figure_reading(name);
    struct fkv_figure_svg svg;
    struct fkv_error why;
    if (fkv_report_path(r, name, path, &why) || fkv_figure_svg_read(path, &svg, &why)) {
        fkv_text_list_add(&r->outline->left_out, "%s", why.message);
        return;
    }
    r->figures++;
    fkv_text_list_add_once(&r->commands, svg.command);
    fprintf(out, "<figure id='figure-%d'>\n<div class='plate'><img alt='", r->figures);
    fkv_html(out, *reading ? "%s. %s' src='" : "%s%s' src='", svg.title, reading);
    put_data_address(out, &svg);
    fprintf(out, "'></div>\n<figcaption><b>Figure %d.</b> ", r->figures);
    fkv_html(out, "%s <span class='note'>(%s)</span></figcaption>\n</figure>\n",
             *reading ? reading : svg.title, name);
    fkv_figure_svg_free(&svg);
}
