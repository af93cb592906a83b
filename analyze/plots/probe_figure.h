/* What the figures of a probe share: which changes they are about, the names of changes, panels of
 * damage, and their small print. Damages are in milli-nats, since most are that small. */
#ifndef FKV_ANALYZE_PLOTS_PROBE_FIGURE_H
#define FKV_ANALYZE_PLOTS_PROBE_FIGURE_H

#include "analyze/plots/charts.h"
#include "capture/store/probe_damage.h"

/* Whether it changes all layers and heads. */
bool fkv_probe_is_whole(const struct fkv_probe_change *c);
/* Whether it is one of FreqKV's parts (--decompose). */
bool fkv_probe_is_part(const struct fkv_probe_change *c);
/* Whether it takes one band out of all layers and heads: it has a position on an axis of bands. */
bool fkv_probe_is_band(const struct fkv_probe_change *c);
/* Whether it is another filter of all layers and heads: it is a row. */
bool fkv_probe_is_filter(const struct fkv_probe_change *c);

/* Bytes of a change's name: 16 bands at a readable precision. */
enum { FKV_PROBE_NAME = 320 };
/* Its name among changes of all kinds: in words, with what it changes, "lowest half: keys"; of
 * policies their label. */
void fkv_probe_name_alone(const struct fkv_probe_change *c, char out[FKV_PROBE_NAME]);

/* A new panel of a damage; x_label: of the changes' axis; NULL: changes are rows. */
struct fkv_chart *fkv_probe_panel(struct fkv_charts *c, int measure, const char *x_label);
/* A point at a change's name among its kind, in words: "without lowest eighth", its parts, the band
 * of noise with its energy in brackets. */
void fkv_probe_add_named(struct fkv_chart *c, const struct fkv_probe_change *change,
                         const char *series, struct fkv_color color, struct fkv_interval y);

/* `text`, then how the probe was made, its intervals and its noise floor. */
void fkv_probe_describe(const struct fkv_damage *d, const char *text, char note[FKV_PLOT_NOTE]);

/* fkv_charts_finish for a page whose note begins with `text` (fkv_probe_describe). Without a point
 * nothing is drawn. */
int fkv_probe_finish(struct fkv_charts *c, int status, const struct fkv_damage *d, const char *text,
                     struct fkv_charts_page page, struct fkv_plot_target *to,
                     struct fkv_error *err);

#endif
