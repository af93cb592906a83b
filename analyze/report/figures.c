/* Owns figures and tables that a section shows as they lie in the folder. A line in `readings` says
 * how a figure is to be read; one without shows its own title. */
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/report/parts.h"

enum { MOST_ROWS = 60, FIRST_ROWS = 20, MOST_COLUMNS = 16, WIDE = 10 };

/* How a figure is to be read, by its name. Also its text for those who do not see it. */
static const struct {
    const char *pattern, *text;
} readings[] = {
    {"spectrum_heads_*", "Power against frequency per head, one panel per layer, without DC; "
                         "dashed: the same segments with their tokens permuted."},
    {"spectrum_*", "Power against frequency, one line per layer, mean over heads. DC stands left "
                   "of the axis break; dashed: the permuted null; lower panel: power over null."},
    {"error_heatmap_*", "Relative error of every layer (down) and head (across) when the lowest "
                        "half of the coefficients is kept, without DC."},
    {"error_bounds_*",
     "How good a basis the DCT is: its relative error beside that of a basis fitted to other data "
     "(KLT) at equal L, and of truncation along channels (SVD) at equal bytes."},
    {"error_*", "What the lowest coefficients keep (left) and lose (right) over the ratio \u03b3, "
                "one line per layer, with and without DC."},
    {"gamma_heatmap.*",
     "The retaining ratio of every layer (down) and KV head (across), coloured from 0 to 1."},
    {"gamma_histogram.*", "How many heads have which ratio; dashed: the mean."},
    {"impulse_responses.*", "What is left of a chunk of tokens, and of its middle token, in the "
                            "slots of the cache after rounds of compression."},
    {"impulse_memory.*", "Slots, independent directions and width that remain of a chunk against "
                         "the tokens since; the horizon is where one slot is left."},
    {"runs_perplexity.*", "Runs over the retaining ratio: perplexity, difference to the baseline "
                          "and KL, each with its 95% interval."},
    {"runs_distance.*", "Difference to the baseline over the tokens since the last compression, "
                        "and over the rounds of compression so far."},
    {"link_retained*", "Runs of a sweep: the energy that a ratio keeps (across) against what the "
                       "run loses (up), with rank correlations."},
    {"link_heads*", "Each point is one head: what a predictor says it would cost to change it "
                    "(across), and what it did cost (up)."},
    {"link_ranking*", "How well each predictor ranks heads by their damage: Spearman\u2019s "
                      "correlation with its interval."},
    {"link_residuals*",
     "What low frequencies leave of tokens, and the damage of changes to them, by class of token."},
    {"*_rounds.*",
     "The share of energy that every round of compression keeps, per state and layer."},
    {"*_policies.*", "Damage of one compression, and of keeping the latest tokens instead, over "
                     "the retaining ratio."},
    {"*_decomposition.*", "FreqKV\u2019s damage in parts, each alone and together."},
    {"*_bands.*", "Damage of taking one band of frequencies out of the cache."},
    {"*_filters.*", "Damage of keeping some bands only."},
    {"*_noise.*", "Damage of noise limited to a band, per unit of its energy."},
    {"*_layers.*", "Damage of the same change to one layer at a time."},
    {"*_heads_*", "Damage of changing one head at a time; dots: differences that the correction "
                  "for multiplicity lets stand (of KL: above that of rounding, not above 0)."},
    {"*_classes.*", "Damage by class of token."},
};

static const char *reading_of(const char *name) {
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++)
        if (!fnmatch(readings[i].pattern, name, 0)) return readings[i].text;
    return "";
}

/* A file that is not one of ours is left out and named, not an error: folders gather things. */
int fkv_report_figure(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err) {
    char path[4096], prefix[32];
    struct fkv_svg svg;
    struct fkv_error why;
    if (fkv_report_path(r, name, path, err)) return FKV_FAILED;
    snprintf(prefix, sizeof prefix, "f%d-", r->figures + 1);
    if (fkv_svg_read(path, prefix, reading_of(name), &r->glyphs, &svg, &why))
        return fkv_text_list_add(&r->outline->left_out, err, "%s", why.message);
    r->figures++;
    int status = fkv_report_command(r, svg.command, err);
    fprintf(out,
            "<figure id='figure-%d'>\n<div class='plate'>%s</div>\n<figcaption><b>Figure %d.</b> ",
            r->figures, svg.markup, r->figures);
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

int fkv_report_table(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err) {
    char path[4096], caption[512];
    struct fkv_table csv;
    struct fkv_error why;
    if (fkv_report_path(r, name, path, err)) return FKV_FAILED;
    if (fkv_table_read(path, &csv, &why))
        return fkv_text_list_add(&r->outline->left_out, err, "%s", why.message);
    bool short_enough = csv.rows <= MOST_ROWS && csv.columns <= MOST_COLUMNS;
    int64_t rows = csv.rows <= MOST_ROWS ? csv.rows : FIRST_ROWS;
    snprintf(caption, sizeof caption, "%.200s: %lld row%s%s", name, (long long)csv.rows,
             csv.rows == 1 ? "" : "s", short_enough ? "" : ", of which the beginning is shown");
    fprintf(out, "<details%s><summary>Table ", csv.columns > WIDE ? " class='wide'" : "");
    fkv_html(out, name);
    fputs("</summary>\n", out);
    fkv_html_table(out, r, caption);
    table_rows(out, &csv, rows);
    fkv_html_table_end(out);
    fputs("</details>\n", out);
    fkv_table_free(&csv);
    return FKV_OK;
}
