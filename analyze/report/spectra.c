/* Owns the section of spectra: the shares of energy as a table, and the selector. */
#include <math.h>

#include "analyze/plots/words.h"
#include "analyze/report/page.h"
#include "analyze/report/sections.h"
#include "analyze/report/spread.h"

/* One state. */
static int share_row(FILE *out, const struct fkv_report_shares *s, struct fkv_error *err) {
    const double *columns[] = {s->dc, s->half_dc, s->half, s->half_null};
    int64_t heads = (int64_t)s->layers * s->heads, above = 0;
    fprintf(out, "<tr><th scope='row'>%s</th><td>%lld</td>", fkv_plot_state_words[s->state],
            (long long)heads);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        struct fkv_spread spread = {NAN, NAN, NAN, NAN, 0};
        if (columns[i] && fkv_spread_of(columns[i], heads, &spread, err)) return FKV_FAILED;
        fputs("<td>", out);
        fkv_html_percent(out, spread.median);
        if (i == 2 && spread.count > 1) {
            fputs("</td><td>", out);
            fkv_html_percent(out, spread.least);
            fputs(" to ", out);
            fkv_html_percent(out, spread.largest);
        } else if (i == 2) {
            fputs("</td><td>\u2013", out);
        }
        fputs("</td>", out);
    }
    for (int64_t i = 0; s->half_null && i < heads; i++) above += s->half[i] > s->half_null[i];
    if (s->half_null)
        fprintf(out, "<td>%lld of %lld</td></tr>\n", (long long)above, (long long)heads);
    else
        fputs("<td>\u2013</td></tr>\n", out);
    return FKV_OK;
}

static int share_table(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    fkv_html_table(
        out, r,
        "Where the energy lies. Medians over heads; range: least to largest head. Low "
        "half: the floor(n/2) lowest frequencies, what \u03b3 = 0.5 keeps. Permuted: the "
        "same segments with their tokens in random order.");
    fputs(
        "<thead><tr><th scope='col' class='text' rowspan='2'>state</th>"
        "<th scope='col' rowspan='2'>heads</th><th scope='colgroup' colspan='2'>of all energy</th>"
        "<th scope='colgroup' colspan='4'>of the energy without DC, in the low half</th></tr>\n"
        "<tr><th scope='col'>DC</th><th scope='col'>low half</th><th scope='col'>median</th>"
        "<th scope='col'>range</th><th scope='col'>permuted</th>"
        "<th scope='col'>above it</th></tr></thead>\n<tbody>\n",
        out);
    for (int i = 0; i < r->facts.states; i++)
        if (share_row(out, &r->facts.shares[i], err)) return FKV_FAILED;
    fkv_html_table_end(out);
    return FKV_OK;
}

/* What the selector says of a head, per layer: means over its heads. */
static int layer_rows(FILE *out, const struct fkv_report_shares *s, struct fkv_error *err) {
    for (int32_t l = 0; l < s->layers; l++) {
        const double *columns[] = {s->dc, s->half, s->half_null};
        fprintf(out, "<tr><th scope='row'>%d</th>", s->layer_index[l]);
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
            struct fkv_spread spread = {NAN, NAN, NAN, NAN, 0};
            if (columns[i] &&
                fkv_spread_of(columns[i] + (int64_t)l * s->heads, s->heads, &spread, err))
                return FKV_FAILED;
            fputs("<td>", out);
            fkv_html_percent(out, spread.mean);
            if (i == 1) {
                fputs("</td><td>", out);
                fkv_html_percent(out, spread.least);
                fputs(" to ", out);
                fkv_html_percent(out, spread.largest);
            }
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    return FKV_OK;
}

/* What a page without script shows instead of the selector: numbers of every layer. These tables
 * have no number, since a page with script does not have them. */
static int without_script(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    fputs("<noscript>\n<p>The selector needs JavaScript. In its place: the layers, as means over "
          "their heads. The figures that follow show every head, and spectrum.csv has the "
          "numbers.</p>\n",
          out);
    for (int i = 0; i < r->facts.states; i++) {
        const struct fkv_report_shares *s = &r->facts.shares[i];
        const char *name = fkv_state_names[s->state];
        fprintf(out,
                "<p class='caption' id='layers-%s'>Layers of the %s: DC in all energy, and what "
                "the lower half of the frequencies holds of the energy without DC.</p>\n"
                "<div class='scroll' tabindex='0' role='region' "
                "aria-labelledby='layers-%s'>\n<table aria-labelledby='layers-%s'>\n"
                "<thead><tr><th scope='col'>layer</th><th scope='col'>DC</th><th scope='col'>lower "
                "half</th><th scope='col'>its range over heads</th><th "
                "scope='col'>permuted</th></tr></thead>\n<tbody>\n",
                name, fkv_plot_state_words[s->state], name, name);
        if (layer_rows(out, s, err)) return FKV_FAILED;
        fkv_html_table_end(out);
    }
    fputs("</noscript>\n", out);
    return FKV_OK;
}

/* Hidden until the script has filled it. */
static void selector(FILE *out) {
    fputs("<figure id='explorer' hidden>\n<div id='controls' role='group' aria-label='What the "
          "figure shows'>\n"
          "<label for='state'>State <select id='state'></select></label>\n"
          "<label for='shown'>Shown <select id='shown'><option value='power'>power</option>"
          "<option value='ratio'>power / permuted</option></select></label>\n"
          "<label for='layer'><span>Layer <output id='layer-number' for='layer'></output></span> "
          "<input type='range' id='layer' min='0' value='0' step='1'></label>\n"
          "<label for='head'><span><span id='head-unit'>KV head</span> <output id='head-number' "
          "for='head'></output></span> <input type='range' id='head' min='0' value='0' "
          "step='1'></label>\n</div>\n"
          "<svg id='plot' viewBox='0 0 760 430' role='img' aria-label='Power spectrum of the "
          "chosen state, layer and head' aria-describedby='readout'></svg>\n"
          "<figcaption><p id='readout' aria-live='polite'></p><p class='note'>Means over "
          "log-spaced bands of frequency; both axes logarithmic, the same for all "
          "layers and heads. DC (t = 0) is left out of the picture. Arrow keys move the "
          "sliders.</p></figcaption>\n</figure>\n",
          out);
}

int fkv_report_spectra(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    if (r->facts.states && share_table(r, out, err)) return FKV_FAILED;
    if (!fkv_report_has(r, "spectrum.csv")) return FKV_OK;
    fputs("<h3>One head at a time</h3>\n", out);
    if (without_script(r, out, err)) return FKV_FAILED;
    selector(out);
    return FKV_OK;
}
