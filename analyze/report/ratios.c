/* Owns the section of ratios per head. The map and the histogram that follow are figures of the
 * folder. */
#include <math.h>

#include "analyze/report/losses.h"
#include "analyze/report/page.h"
#include "analyze/report/sections.h"

static const char *const labels[FKV_LOSS_KINDS] = {
    [FKV_LOSS_KEYS] = "keys: share of energy lost",
    [FKV_LOSS_VALUES] = "values: share of energy lost",
    [FKV_LOSS_OBJECTIVE] = "what the table minimises",
    [FKV_LOSS_OBJECTIVE_PROJECTED] = "the same after the output projection"};

int fkv_report_ratios(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    struct fkv_report_losses l;
    if (fkv_report_losses_read(r, &l, err)) return FKV_FAILED;
    if (!l.gamma.count) return FKV_OK;
    char caption[256];
    snprintf(caption, sizeof caption,
             "Means over %d heads, on the texts that the ratios were chosen on. Uniform: one ratio "
             "of %.4g for every head.",
             l.gamma.count, l.gamma.mean);
    fkv_html_table(out, r, caption);
    fputs("<thead><tr><th scope='col' class='text'>loss</th><th scope='col'>ratio per head</th><th "
          "scope='col'>uniform</th><th scope='col'>difference</th></tr></thead>\n"
          "<tbody>\n",
          out);
    for (int i = 0; i < FKV_LOSS_KINDS; i++) {
        if (!isfinite(l.per_head[i])) continue;
        fprintf(out, "<tr><th scope='row'>%s</th><td>", labels[i]);
        fkv_html_number(out, l.per_head[i]);
        fputs("</td><td>", out);
        fkv_html_number(out, l.uniform[i]);
        double change = l.per_head[i] / l.uniform[i] - 1;
        if (isfinite(change))
            fprintf(out, "</td><td>%s%.1f%%</td></tr>\n", change < 0 ? "\u2212" : "+",
                    100 * fabs(change));
        else
            fputs("</td><td>\u2013</td></tr>\n", out);
    }
    fkv_html_table_end(out);
    return FKV_OK;
}
