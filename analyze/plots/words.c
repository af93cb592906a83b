/* Owns words and numbers as figures print them (words.h). */
#include "analyze/plots/words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const fkv_plot_state_words[FKV_STATES] = {"keys before RoPE", "values",
                                                      "keys after RoPE", "queries"};

const char *fkv_plot_head_word(enum fkv_state state) {
    return state == FKV_STATE_QUERY ? "head" : "KV head";
}

const char *const fkv_plot_states_words[FKV_PROBE_BOTH + 1] = {"nothing", "keys", "values",
                                                               "keys and values"};
const char *const fkv_plot_damage_words[FKV_DAMAGES] = {"\u0394 nll", "KL"};
const char fkv_plot_milli_nats[] = "10^{\u22123} nats per token";

struct fkv_interval fkv_plot_milli(struct fkv_interval x, double by) {
    return (struct fkv_interval){1e3 * x.estimate / by, 1e3 * x.low / by, 1e3 * x.high / by};
}

const char *fkv_plot_run_units(const struct fkv_run *run, char text[FKV_SE_WORDS]) {
    struct fkv_units units;
    text[0] = 0;
    if (fkv_run_units(run, &units, NULL)) return text;
    fkv_se_unit_words(units.kind, units.documents, "blocks of 256 scored tokens", text);
    fkv_units_free(&units);
    return text;
}

void fkv_plot_run_name(const struct fkv_run *runs, int32_t count, int32_t i,
                       char name[FKV_PLOT_RUN_NAME]) {
    const double gamma = fkv_run_gamma(&runs[i]);
    fkv_run_label(runs, count, i, name);
    const size_t used = strlen(name);
    if (isfinite(gamma)) snprintf(name + used, FKV_PLOT_RUN_NAME - used, ", \u03b3 = %.2g", gamma);
}

const char *fkv_plot_number(char text[FKV_PLOT_NUMBER], double x, int digits) {
    char plain[32];
    snprintf(plain, sizeof plain, "%.*g", digits, fabs(x));
    char *power = strchr(plain, 'e');
    if (power) *power++ = 0;
    int used = snprintf(text, FKV_PLOT_NUMBER, "%s%s", x < 0 ? "\u2212" : "", plain);
    if (power)
        snprintf(text + used, FKV_PLOT_NUMBER - (size_t)used, "\u00d710^{%s%d}",
                 *power == '-' ? "\u2212" : "", abs(atoi(power)));
    return text;
}

const char *fkv_plot_fixed(char text[FKV_PLOT_NUMBER], double x, int digits) {
    bool negative = x < 0 && fabs(x) >= 0.5 * pow(10, -digits);
    snprintf(text, FKV_PLOT_NUMBER, "%s%.*f", negative ? "\u2212" : "", digits, fabs(x));
    return text;
}

void fkv_plot_name_rho(char title[160], const char *what, struct fkv_interval rho) {
    char text[3][FKV_PLOT_NUMBER];
    fkv_plot_fixed(text[0], rho.estimate, 2), fkv_plot_fixed(text[1], rho.low, 2),
        fkv_plot_fixed(text[2], rho.high, 2);
    snprintf(title, 160,
             isfinite(rho.low + rho.high) ? "%s: \u03c1 = %s [%s, %s]" : "%s: \u03c1 = %s", what,
             text[0], text[1], text[2]);
}
