/* Owns how the page is written: values as HTML, tables, the opening with style and policy, the
 * ending with data and script. */
#include "analyze/report/page.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/text_clean.h"

/* report.css and report.js, 0 at the end; embedded when the toolkit is built (embed.cmake). */
extern const unsigned char fkv_report_css[];
extern const unsigned char fkv_report_js[];

void fkv_html_text(FILE *out, const char *text) {
    char *clean = fkv_text_clean(text);
    for (const char *p = clean ? clean : ""; *p; p++) switch (*p) {
        case '&': fputs("&amp;", out); break;
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\'': fputs("&#39;", out); break;
        default: fputc(*p, out);
        }
    free(clean);
}

void fkv_html(FILE *out, const char *markup, ...) {
    va_list texts;
    va_start(texts, markup);
    for (const char *p = markup; *p; p++)
        if (p[0] == '%' && p[1] == 's')
            fkv_html_text(out, va_arg(texts, const char *)), p++;
        else
            fputc(*p, out);
    va_end(texts);
}

void fkv_html_list(FILE *out, const char *attributes, const struct fkv_text_list *list) {
    fprintf(out, "<ul%s>\n", attributes);
    for (int i = 0; i < list->count; i++) fkv_html(out, "<li>%s</li>\n", list->text[i]);
    fputs("</ul>\n", out);
}

void fkv_html_number(FILE *out, double x) {
    if (isfinite(x))
        fprintf(out, fabs(x) < 1e9 && x == floor(x) ? "%s%.0f" : "%s%.4g", x < 0 ? "\u2212" : "",
                fabs(x));
    else
        fputs("\u2013", out);
}

void fkv_html_percent(FILE *out, double share) {
    if (isfinite(share))
        fprintf(out, "%.1f%%", 100 * share);
    else
        fputs("\u2013", out);
}

void fkv_html_table(FILE *out, struct fkv_report *r, const char *caption) {
    int number = ++r->tables;
    fprintf(out, "<p class='caption' id='table-%d'><b>Table %d.</b> ", number, number);
    fkv_html_text(out, caption);
    fprintf(out,
            "</p>\n<div class='scroll' tabindex='0' role='region' "
            "aria-labelledby='table-%d'>\n<table aria-labelledby='table-%d'>\n",
            number, number);
}

void fkv_html_table_end(FILE *out) { fputs("</tbody>\n</table>\n</div>\n", out); }

/* The policy allows what is inside the file and no address outside of it: a report can be opened
 * without trust in who made it. */
void fkv_html_open(FILE *out, const struct fkv_report_facts *f) {
    fputs("<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
          "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
          "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
          "<meta name='color-scheme' content='light dark'>\n"
          "<meta name='generator' content='freqkv-analyze report " FKV_VERSION
          "'>\n<title>FreqKV report",
          out);
    if (*f->model) fkv_html(out, ": %s", f->model);
    fprintf(out, "</title>\n<style>\n%s", (const char *)fkv_report_css);
    fputs("</style>\n</head>\n<body>\n<a class='skip' href='#main'>Skip to the findings</a>\n"
          "<header>\n<p class='kind'>FreqKV report</p>\n<h1>",
          out);
    fkv_html_text(out, *f->model ? f->model : "a capture without a model\u2019s name");
    fputs("</h1>\n<p class='lead'>The states of a language model\u2019s KV cache along tokens: "
          "where their energy lies over frequency, and what that does and does not say about "
          "compressing them.",
          out);
    if (isfinite(f->segment_length) && isfinite(f->segments) && isfinite(f->documents))
        fprintf(out, " %.0f segment%s of <i>n</i>&nbsp;=&nbsp;%.0f tokens from %.0f document%s.",
                f->segments, f->segments == 1 ? "" : "s", f->segment_length, f->documents,
                f->documents == 1 ? "" : "s");
    fputs("</p>\n</header>\n", out);
}

void fkv_html_close(FILE *out, const char *data) {
    fputs("<footer><p>Made by freqkv-analyze " FKV_VERSION
          ". This file is complete: it loads nothing.</p></footer>\n",
          out);
    if (data) {
        fputs("<script type='application/json' id='data'>", out);
        /* No "</script>" and no "<!--", whatever a name holds. */
        for (const char *p = data; *p; p++)
            if (*p == '<')
                fputs("\\u003c", out);
            else
                fputc(*p, out);
        fputs("</script>\n", out);
    }
    fprintf(out, "<script>\n%s</script>\n</body>\n</html>\n", (const char *)fkv_report_js);
}
