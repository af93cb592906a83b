/* Words and numbers as figures print them. */
#ifndef FKV_ANALYZE_PLOTS_WORDS_H
#define FKV_ANALYZE_PLOTS_WORDS_H

#include "capture/store/capture.h"
#include "capture/store/probe_damage.h"
#include "capture/store/run.h"

/* "keys before RoPE", ... */
extern const char *const fkv_plot_state_words[FKV_STATES];
/* "KV head", or "head" for queries. */
const char *fkv_plot_head_word(enum fkv_state state);

/* By the bits of a change's states: "nothing", "keys", "values", "keys and values". */
extern const char *const fkv_plot_states_words[FKV_PROBE_BOTH + 1];
/* "delta nll" with a Greek letter, "KL". */
extern const char *const fkv_plot_damage_words[FKV_DAMAGES];
/* Damages are small: they are drawn in this unit. */
extern const char fkv_plot_milli_nats[];
/* x / by in thousandths. */
struct fkv_interval fkv_plot_milli(struct fkv_interval x, double by);

/* What a run's intervals rest on: "over 3 documents and ..."; "" where the units cannot be made.
 * Returns `text`. */
const char *fkv_plot_run_units(const struct fkv_run *run, char text[FKV_SE_WORDS]);

/* Run i's label (fkv_run_label) and its ratio, where it has one. */
enum { FKV_PLOT_RUN_NAME = FKV_RUN_LABEL + 32 };
void fkv_plot_run_name(const struct fkv_run *runs, int32_t count, int32_t i,
                       char name[FKV_PLOT_RUN_NAME]);

/* Bytes of a number's text. */
enum { FKV_PLOT_NUMBER = 48 };
/* x with so many significant digits, 3.5e-07 with its power of ten raised; a typographic minus.
 * Returns `text`. */
const char *fkv_plot_number(char text[FKV_PLOT_NUMBER], double x, int digits);
/* x with so many decimals; a typographic minus, and none before a zero. Returns `text`. */
const char *fkv_plot_fixed(char text[FKV_PLOT_NUMBER], double x, int digits);
/* "keys: ρ = −0.92 [−1.00, −0.56]", the interval where there is one. */
void fkv_plot_name_rho(char title[160], const char *what, struct fkv_interval rho);

#endif
