/* Owns figures in a page. A figure is embedded as an image whose address holds the file's bytes: so
 * ids of two figures do not meet, no script runs in a file that was changed, and the picture is the
 * one in the folder. A row of `readings` says how a figure is to be read. */
#include "analyze/report/figures.h"

#include <fnmatch.h>
#include <string.h>

#include "analyze/figure/svg_read.h"
#include "analyze/report/page.h"

/* How a figure is to be read, by its name: its caption, and part of what is said of it to those who
 * do not see it. */
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

/* "" where no row matches. */
static const char *reading_of(const char *name) {
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++)
        if (!fnmatch(readings[i].pattern, name, 0)) return readings[i].text;
    return "";
}

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

int fkv_report_figure(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err) {
    char path[4096];
    const char *reading = reading_of(name);
    struct fkv_figure_svg svg;
    struct fkv_error why;
    if (fkv_report_path(r, name, path, err)) return FKV_FAILED;
    if (fkv_figure_svg_read(path, &svg, &why))
        return fkv_text_list_add(&r->outline->left_out, err, "%s", why.message);
    int number = ++r->figures, status = fkv_text_list_add_once(&r->commands, svg.command, err);
    fprintf(out, "<figure id='figure-%d'>\n<div class='plate'><img alt='", number);
    fkv_html_text(out, svg.title);
    if (*reading) fputs(". ", out), fkv_html_text(out, reading);
    fputs("' src='", out);
    put_data_address(out, &svg);
    fprintf(out, "'></div>\n<figcaption><b>Figure %d.</b> ", number);
    fkv_html_text(out, *reading ? reading : svg.title);
    fputs(" <span class='note'>(", out);
    fkv_html_text(out, name);
    fputs(")</span></figcaption>\n</figure>\n", out);
    fkv_figure_svg_free(&svg);
    return status;
}
