/* Every figure, as one table. A figure is a file in this folder that draws it, and a row here; the
 * commands draw all rows of the data they have, and the report takes its captions from the rows. */
#ifndef FKV_ANALYZE_PLOTS_FIGURES_H
#define FKV_ANALYZE_PLOTS_FIGURES_H

#include "analyze/compare/compare.h"
#include "analyze/link/link.h"
#include "analyze/measure/gamma.h"
#include "analyze/measure/impulse.h"
#include "analyze/plots/target.h"
#include "analyze/tables/table.h"

/* ROW(names of its files, data it is drawn from, function that draws it, how to read it). Of a
 * file's name the first row that fits counts. */
#define FKV_FIGURE_ROWS(ROW)                                                                       \
    ROW("spectrum_heads_*", spectrum, fkv_plot_spectrum_heads,                                     \
        "Power over the permuted null against frequency, per head, one panel per layer, without "  \
        "DC.")                                                                                     \
    ROW("spectrum_depth_*", spectrum, fkv_plot_spectrum_depth,                                     \
        "Shares of the energy by layer: lines pooled over heads, points one head each; dashed: "   \
        "with the tokens permuted.")                                                               \
    ROW("spectrum_map_*", spectrum, fkv_plot_spectrum_map,                                         \
        "Power over the permuted null by layer (down) and frequency (across); orange above "       \
        "chance, blue below, pooled over heads.")                                                  \
    ROW("spectrum_*", spectrum, fkv_plot_spectrum,                                                 \
        "Power against frequency, one line per layer, mean over heads. DC stands left of the "     \
        "axis break; dashed: the permuted null; lower panel: power over null.")                    \
    ROW("error_heatmap_*", errors, fkv_plot_error_heatmap,                                         \
        "Relative error of every layer (down) and head (across) when the lowest half of the "      \
        "coefficients is kept, without DC.")                                                       \
    ROW("error_bounds_*", errors, fkv_plot_bounds,                                                 \
        "How good a basis the DCT is: its relative error beside that of a basis fitted to other "  \
        "data (KLT) at equal L, and of truncation along channels (SVD) at equal bytes.")           \
    ROW("error_*", errors, fkv_plot_error,                                                         \
        "What the lowest coefficients keep (left) and lose (right) over the ratio \u03b3, one "    \
        "line per layer, with and without DC.")                                                    \
    ROW("gamma_heatmap.*", ratios, fkv_plot_gamma_heatmap,                                         \
        "The retaining ratio of every layer (down) and KV head (across), coloured from 0 to 1.")   \
    ROW("gamma_histogram.*", ratios, fkv_plot_gamma_histogram,                                     \
        "How many heads have which ratio; dashed: the mean.")                                      \
    ROW("impulse_responses.*", impulses, fkv_plot_impulse_responses,                               \
        "What is left of a chunk of tokens, and of its middle token, in the slots of the cache "   \
        "after rounds of compression.")                                                            \
    ROW("impulse_memory.*", impulses, fkv_plot_impulse_memory,                                     \
        "Slots, independent directions and width that remain of a chunk against the tokens "       \
        "since; the horizon is where one slot is left.")                                           \
    ROW("runs_perplexity.*", runs, fkv_plot_runs_perplexity,                                       \
        "Runs over the retaining ratio: perplexity, difference to the baseline and KL, each with " \
        "its 95% interval.")                                                                       \
    ROW("runs_time.*", runs, fkv_plot_runs_time,                                                   \
        "Runs over the retaining ratio: perplexity with its 95% interval, time per token, and "    \
        "the share of it that compressions take.")                                                 \
    ROW("runs_position.*", runs, fkv_plot_runs_position,                                           \
        "Loss, and its difference to the baseline, over the position in the text: what "           \
        "compressing again and again adds up to.")                                                 \
    ROW("runs_distance.*", runs, fkv_plot_runs_distance,                                           \
        "Difference to the baseline over the tokens since the last compression, and over the "     \
        "rounds of compression so far.")                                                           \
    ROW("compare.*", comparison, fkv_plot_comparison,                                              \
        "Runs less the first of them, token by token: over all tokens, by position in the text, "  \
        "by class of token and by document.")                                                      \
    ROW("link_retained*", link, fkv_plot_link_retained,                                            \
        "Runs of a sweep: the energy that a ratio keeps (across) against what the run loses "      \
        "(up), with rank correlations.")                                                           \
    ROW("link_heads*", link, fkv_plot_link_heads,                                                  \
        "Each point is one head: what a predictor says it would cost to change it (across), and "  \
        "what it did cost (up).")                                                                  \
    ROW("link_ranking*", link, fkv_plot_link_ranking,                                              \
        "How well each predictor ranks heads by their damage: Spearman\u2019s correlation with "   \
        "its interval.")                                                                           \
    ROW("link_residuals*", link, fkv_plot_link_residuals,                                          \
        "What low frequencies leave of tokens, and the damage of changes to them, by class of "    \
        "token.")                                                                                  \
    ROW("*_rounds.*", run, fkv_plot_rounds,                                                        \
        "The share of energy that every round of compression keeps, per state and layer.")         \
    ROW("*_policies.*", probe, fkv_plot_probe_policies,                                            \
        "Damage of one compression, and of keeping the latest tokens instead, over the "           \
        "retaining ratio.")                                                                        \
    ROW("*_decomposition.*", probe, fkv_plot_probe_decomposition,                                  \
        "FreqKV\u2019s damage in parts, each alone and together.")                                 \
    ROW("*_bands.*", probe, fkv_plot_probe_bands,                                                  \
        "Damage of taking one band of frequencies out of the cache.")                              \
    ROW("*_filters.*", probe, fkv_plot_probe_filters, "Damage of keeping some bands only.")        \
    ROW("*_noise.*", probe, fkv_plot_probe_noise,                                                  \
        "Damage of noise limited to a band, per unit of its energy.")                              \
    ROW("*_layers.*", probe, fkv_plot_probe_layers,                                                \
        "Damage of the same change to one layer at a time.")                                       \
    ROW("*_heads_*", probe, fkv_plot_probe_heads,                                                  \
        "Damage of changing one head at a time; dots: differences that the correction for "        \
        "multiplicity lets stand (of KL: above that of rounding, not above 0).")                   \
    ROW("*_classes.*", probe, fkv_plot_probe_classes, "Damage by class of token.")                 \
    ROW("*_exact.*", table, fkv_plot_needle_exact,                                                 \
        "Share of needles whose answer is exact, over the length of the prompt (across) and the "  \
        "needle\u2019s depth in it (down).")                                                       \
    ROW("*_logprob.*", table, fkv_plot_needle_logprob,                                             \
        "Log-probability of the needle\u2019s answer per token, over length (across) and depth "   \
        "(down).")                                                                                 \
    ROW("*_recall.*", table, fkv_plot_needle_recall,                                               \
        "What a passage of the text loses less when it returns at the end, over length (across) "  \
        "and the depth where it stood (down).")                                                    \
    ROW("*_times.*", table, fkv_plot_bench,                                                        \
        "Time of decoding a token and of the prefill before it, and the bytes of the cache, over " \
        "the length; whiskers: least and most of the repeats.")                                    \
    ROW("*_pareto.*", table, fkv_plot_pareto,                                                      \
        "What policies lose to full attention (up) over the bytes of their cache (across); "       \
        "grey: the Pareto front.")                                                                 \
    ROW("*", table, fkv_plot_table, "")

/* Kinds of data. Each function writes FOLDER/NAME.png and .svg, most of what freqkv-replay wrote
 * NAME.csv too; one whose data are not there writes nothing. */
typedef int fkv_draw_spectrum(const struct fkv_spectrum *s, struct fkv_plot_target *to,
                              struct fkv_error *err);
typedef int fkv_draw_errors(const struct fkv_error_curves *e, struct fkv_plot_target *to,
                            struct fkv_error *err);
typedef int fkv_draw_ratios(const struct fkv_ratio_table *t, struct fkv_plot_target *to,
                            struct fkv_error *err);
/* impulses [count]: one per ratio. */
typedef int fkv_draw_impulses(const struct fkv_impulse *impulses, int32_t count,
                              struct fkv_plot_target *to, struct fkv_error *err);
/* runs [count]: of one model, drawn together. */
typedef int fkv_draw_runs(const struct fkv_run *runs, int32_t count, struct fkv_plot_target *to,
                          struct fkv_error *err);
typedef int fkv_draw_run(const struct fkv_run *run, struct fkv_plot_target *to,
                         struct fkv_error *err);
typedef int fkv_draw_probe(const struct fkv_damage *d, struct fkv_plot_target *to,
                           struct fkv_error *err);
typedef int fkv_draw_link(const struct fkv_link *l, struct fkv_plot_target *to,
                          struct fkv_error *err);
typedef int fkv_draw_comparison(const struct fkv_comparison *c, struct fkv_plot_target *to,
                                struct fkv_error *err);
/* t: of the CSV file `path`. */
typedef int fkv_draw_table(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                           struct fkv_error *err);

#define FKV_DECLARE_FIGURE(files, data, draw, reading) fkv_draw_##data draw;
FKV_FIGURE_ROWS(FKV_DECLARE_FIGURE)

struct fkv_figure_row {
    const char *files;   /* pattern of their names, for fnmatch */
    const char *reading; /* how the figure is to be read, a sentence; "" where the data say it */
    /* The function that draws it, of its kind of data; the others are NULL. */
    fkv_draw_spectrum *spectrum;
    fkv_draw_errors *errors;
    fkv_draw_ratios *ratios;
    fkv_draw_impulses *impulses;
    fkv_draw_runs *runs;
    fkv_draw_run *run;
    fkv_draw_probe *probe;
    fkv_draw_link *link;
    fkv_draw_comparison *comparison;
    fkv_draw_table *table;
};
/* The rows in their order; `files` of the one behind the last is NULL. */
extern const struct fkv_figure_row fkv_figures[];

/* How the figure in a file of this name is to be read. */
const char *fkv_figure_reading(const char *file);

#endif
