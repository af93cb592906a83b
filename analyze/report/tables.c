/* Owns CSV files of the folder as tables of a page. */
#include "analyze/report/sections.h"

#include <math.h>

#include "analyze/report/page.h"

/* A file of more rows or columns than a page should hold is shown in part. */
enum { MOST_ROWS = 60, FIRST_ROWS = 20, MOST_COLUMNS = 16 };
/* From so many columns on, print makes the letters smaller. */
enum { WIDE = 10 };

/* Text is aligned left and numbers right, by what the first row holds. */
static void table_rows(FILE *out, const struct fkv_table *c, int64_t rows) {
    int columns = c->columns < MOST_COLUMNS ? c->columns : MOST_COLUMNS;
    bool text[MOST_COLUMNS];
    fputs("<thead><tr>", out);
    for (int i = 0; i < columns; i++) {
        text[i] = c->rows && *fkv_table_text(c, 0, i) && !isfinite(fkv_table_number(c, 0, i));
        fkv_html(out, text[i] ? "<th scope='col' class='text'>%s</th>" : "<th scope='col'>%s</th>",
                 c->cell[i]);
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
                fkv_html_text(out, fkv_table_text(c, row, i));
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
}

void fkv_report_table(struct fkv_report *r, FILE *out, const char *name) {
    char caption[512];
    struct fkv_table csv;
    struct fkv_error why;
    if (fkv_report_table_read(r, name, &csv, &why)) {
        fkv_text_list_add(&r->outline->left_out, "%s", why.message);
        return;
    }
    bool short_enough = csv.rows <= MOST_ROWS && csv.columns <= MOST_COLUMNS;
    int64_t rows = csv.rows <= MOST_ROWS ? csv.rows : FIRST_ROWS;
    snprintf(caption, sizeof caption, "%.200s: %lld row%s%s", name, (long long)csv.rows,
             csv.rows == 1 ? "" : "s", short_enough ? "" : ", of which the beginning is shown");
    fprintf(out, "<details%s>", csv.columns > WIDE ? " class='wide'" : "");
    fkv_html(out, "<summary>Table %s</summary>\n", name);
    fkv_html_table(out, r, caption);
    table_rows(out, &csv, rows);
    fkv_html_table_end(out);
    fputs("</details>\n", out);
    fkv_table_free(&csv);
}
