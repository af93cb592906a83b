/* Owns figures and tables that a section shows as they lie in the folder: every SVG and CSV whose name has the section's prefix. What other commands will write there appears by its name alone; a line in
 * `readings` says how to read it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/report_parts.h"

enum { MOST_ROWS = 400, MOST_COLUMNS = 16 };

/* How a figure is to be read, by the start of its name; longer starts first. Also its text for those who do not see it. */
static const struct {
    const char *prefix, *text;
} readings[] = {
    {"spectrum_heads_",
     "Power against frequency per head, one panel per layer, without DC; dashed: the same segments with their tokens permuted."},
    {"spectrum_",
     "Power against frequency, one line per layer, mean over heads. DC stands left of the axis break; dashed: the permuted null; lower panel: power over null."},
    {"error_heatmap_",
     "Relative error of every layer (down) and head (across) when the lowest half of the coefficients is kept, without DC."},
    {"error_",
     "What the lowest coefficients keep (left) and lose (right) over the ratio \u03b3, one line per layer, with and without DC."},
    {"gamma_heatmap", "The retaining ratio of every layer (down) and KV head (across), coloured from 0 to 1."},
    {"gamma_histogram", "How many heads have which ratio; dashed: the mean."},
    {"impulse_responses",
     "What is left of a chunk of tokens, and of its middle token, in the slots of the cache after rounds of compression."},
    {"impulse_memory",
     "Slots, independent directions and width that remain of a chunk against the tokens since; the horizon is where one slot is left."},
};

bool fkv_report_prefixed(const char *name, const char *prefix) {
    size_t length = strlen(prefix);
    return !strncmp(name, prefix, length) && (name[length] == '.' || name[length] == '_' || name[length] == '-');
}

static const char *reading_of(const char *name) {
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++)
        if (!strncmp(name, readings[i].prefix, strlen(readings[i].prefix))) return readings[i].text;
    return "";
}

static bool ends_with(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && !strcmp(name + n - m, suffix);
}

/* A file that is not one of ours is left out and named, not an error: folders gather things. */
static int show_figure(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err) {
    char path[4096], prefix[32];
    struct fkv_svg svg;
    struct fkv_error why;
    if (fkv_report_path(r, name, path, err)) return FKV_FAILED;
    snprintf(prefix, sizeof prefix, "f%d-", r->figures + 1);
    if (fkv_svg_read(path, prefix, reading_of(name), &svg, &why))
        return fkv_text_list_add(&r->outline->left_out, err, "%s", why.message);
    r->figures++;
    int status = fkv_report_command(r, svg.command, err);
    fprintf(out, "<figure id='figure-%d'>\n<div class='plate'>%s</div>\n<figcaption><b>Figure %d.</b> ", r->figures,
            svg.markup, r->figures);
    fkv_html(out, *reading_of(name) ? reading_of(name) : svg.title);
    fputs(" <span class='note'>(", out);
    fkv_html(out, name);
    fputs(")</span></figcaption>\n</figure>\n", out);
    fkv_svg_free(&svg);
    return status;
}

/* Text stands left, numbers right, by what the first row holds. */
static void table_rows(FILE *out, const struct fkv_table *c, int64_t rows) {
    int columns = c->columns < MOST_COLUMNS ? c->columns : MOST_COLUMNS;
    bool text[MOST_COLUMNS];
    fputs("<thead><tr>", out);
    for (int i = 0; i < columns; i++) {
        text[i] = c->rows && *fkv_table_text(c, 0, i) && !isfinite(fkv_table_number(c, 0, i));
        fprintf(out, "<th scope='col'%s>", text[i] ? " class='text'" : "");
        fkv_html(out, c->cell[i]);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    for (int64_t row = 0; row < rows; row++) {
        fputs("<tr>", out);
        for (int i = 0; i < columns; i++) {
            double x = fkv_table_number(c, row, i);
            fprintf(out, "<td%s>", text[i] ? " class='text'" : "");
            if (isfinite(x))
                fkv_html_number(out, x);
            else
                fkv_html(out, fkv_table_text(c, row, i));
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
}

static int show_table(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err) {
    char path[4096], caption[512];
    struct fkv_table csv;
    struct fkv_error why;
    if (fkv_report_path(r, name, path, err)) return FKV_FAILED;
    if (fkv_table_read(path, &csv, &why)) return fkv_text_list_add(&r->outline->left_out, err, "%s", why.message);
    bool short_enough = csv.rows <= MOST_ROWS && csv.columns <= MOST_COLUMNS;
    int64_t rows = csv.rows < MOST_ROWS ? csv.rows : MOST_ROWS;
    snprintf(caption, sizeof caption, "%.200s: %lld row%s%s", name, (long long)csv.rows, csv.rows == 1 ? "" : "s",
             short_enough ? "" : ", of which the beginning is shown");
    if (csv.rows > MOST_ROWS) rows = 20;
    fputs("<details><summary>Table ", out);
    fkv_html(out, name);
    fputs("</summary>\n", out);
    fkv_html_table(out, caption);
    table_rows(out, &csv, rows);
    fkv_html_table_end(out);
    fputs("</details>\n", out);
    fkv_table_free(&csv);
    return FKV_OK;
}

static bool listed(const char *name, const char *const *names) {
    while (names && *names && strcmp(*names, name)) names++;
    return names && *names;
}

int fkv_report_show(struct fkv_report *r, FILE *out, const char *prefix, const char *const *own,
                    struct fkv_error *err) {
    static const struct {
        const char *suffix;
        int (*show)(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err);
    } kinds[] = {{".svg", show_figure}, {".csv", show_table}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int i = 0; i < r->files.count; i++) {
            const char *name = r->files.text[i];
            if (r->used[i] || !ends_with(name, kinds[k].suffix) || !fkv_report_prefixed(name, prefix)) continue;
            r->used[i] = true;
            if (!listed(name, own) && kinds[k].show(r, out, name, err)) return FKV_FAILED;
        }
    return FKV_OK;
}
