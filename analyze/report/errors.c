/* Owns the section of reconstruction errors: a table of ratio against state, and behind a fold one
 * per state and layer. From /error of results.h5; means over heads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/words.h"
#include "analyze/report/page.h"
#include "analyze/report/sections.h"
#include "capture/store/columns.h"

enum { MOST_GAMMAS = 20 }; /* in a table */

enum { ENERGY, ENERGY_NO_DC, ERROR, ERROR_NO_DC, VALUES };
static const char *const datasets[VALUES] = {"retained_energy", "retained_energy_no_dc",
                                             "relative_error", "relative_error_no_dc"};

struct curves {
    enum fkv_state state;
    int64_t layers, heads, gammas;
    int32_t *layer_index;  /* [layers]: numbers in the model; owned */
    double *gamma;         /* [gammas]; owned */
    double *value[VALUES]; /* [layers, heads, gammas] each; owned */
};

static void free_curves(struct curves *c) {
    free(c->layer_index);
    free(c->gamma);
    for (int i = 0; i < VALUES; i++) free(c->value[i]);
    memset(c, 0, sizeof *c);
}

/* *found false: results.h5 has no errors of this state. */
static int read_curves(struct fkv_h5_reader *h5, enum fkv_state state, struct curves *c,
                       bool *found, struct fkv_error *err) {
    char name[96];
    int rank;
    int64_t dims[8];
    const char *state_name = fkv_state_names[state];
    snprintf(name, sizeof name, "/error/%s/%s", state_name, datasets[ENERGY]);
    if (fkv_h5_shape(h5, name, &rank, dims, found, err)) return FKV_FAILED;
    if (!*found) return FKV_OK;
    if (rank != 3)
        return fkv_fail(err, "%s: expected [layers, heads, gammas], found %d axes", name, rank);
    *c = (struct curves){.state = state, .layers = dims[0], .heads = dims[1], .gammas = dims[2]};
    snprintf(name, sizeof name, "/error/%s/layer_index", state_name);
    if (fkv_column_expect(h5, name, FKV_H5_I32, c->layers, true, &c->layer_index, err))
        return FKV_FAILED;
    snprintf(name, sizeof name, "/error/%s/gamma", state_name);
    if (fkv_column_expect(h5, name, FKV_H5_F64, c->gammas, true, &c->gamma, err)) return FKV_FAILED;
    for (int i = 0; i < VALUES; i++) {
        snprintf(name, sizeof name, "/error/%s/%s", state_name, datasets[i]);
        if (fkv_column_expect(h5, name, FKV_H5_F64, c->layers * c->heads * c->gammas, true,
                              &c->value[i], err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* Mean over heads of layers [from, to). */
static double mean_of(const struct curves *c, int value, int64_t from, int64_t to, int64_t gamma) {
    double sum = 0;
    for (int64_t row = from * c->heads; row < to * c->heads; row++)
        sum += c->value[value][row * c->gammas + gamma];
    return sum / (double)((to - from) * c->heads);
}

/* Every how many-th ratio a table shows, so that it has MOST_GAMMAS at most. The CSV has all. */
static int64_t step_of(const struct curves *c) {
    return (c->gammas + MOST_GAMMAS - 1) / MOST_GAMMAS;
}

/* A cell with three decimals. */
static void cell(FILE *out, double x) {
    fputs("<td>", out);
    if (isfinite(x))
        fprintf(out, "%.3f", x);
    else
        fputs("\u2013", out);
    fputs("</td>", out);
}

static void overview(struct fkv_report *r, FILE *out, const struct curves *c, int count) {
    fkv_html_table(
        out, r,
        "What the L = floor(\u03b3 n) lowest coefficients keep of the energy, and the relative "
        "error \u2016x \u2212 x_L\u2016 / \u2016x\u2016 that is left; without DC, "
        "mean over layers and heads.");
    fputs("<thead><tr><th scope='col' rowspan='2' class='text'>\u03b3</th>", out);
    for (int i = 0; i < count; i++)
        fprintf(out, "<th scope='colgroup' colspan='2'>%s</th>", fkv_plot_state_words[c[i].state]);
    fputs("</tr>\n<tr>", out);
    for (int i = 0; i < count; i++)
        fputs("<th scope='col'>kept</th><th scope='col'>error</th>", out);
    fputs("</tr></thead>\n<tbody>\n", out);
    for (int64_t g = 0; g < c[0].gammas; g += step_of(c)) {
        fprintf(out, "<tr><th scope='row'>%.4g</th>", c[0].gamma[g]);
        for (int i = 0; i < count; i++) {
            fputs("<td>", out);
            fkv_html_percent(out, mean_of(&c[i], ENERGY_NO_DC, 0, c[i].layers, g));
            fputs("</td>", out);
            cell(out, mean_of(&c[i], ERROR_NO_DC, 0, c[i].layers, g));
        }
        fputs("</tr>\n", out);
    }
    fkv_html_table_end(out);
}

static void layer_table(struct fkv_report *r, FILE *out, const struct curves *c, int value,
                        const char *what) {
    char caption[256];
    snprintf(caption, sizeof caption, "%s, %s: mean over heads.", fkv_plot_state_words[c->state],
             what);
    fkv_html_table(out, r, caption);
    fputs("<thead><tr><th scope='col' class='text'>layer \\ \u03b3</th>", out);
    for (int64_t g = 0; g < c->gammas; g += step_of(c))
        fprintf(out, "<th scope='col'>%.4g</th>", c->gamma[g]);
    fputs("</tr></thead>\n<tbody>\n", out);
    for (int64_t l = 0; l < c->layers; l++) {
        fprintf(out, "<tr><th scope='row'>%d</th>", c->layer_index[l]);
        for (int64_t g = 0; g < c->gammas; g += step_of(c))
            cell(out, mean_of(c, value, l, l + 1, g));
        fputs("</tr>\n", out);
    }
    fkv_html_table_end(out);
}

static void write_tables(struct fkv_report *r, FILE *out, const struct curves *c, int count) {
    overview(r, out, c, count);
    for (int i = 0; i < count; i++) {
        fprintf(out, "<details><summary>Per layer: %s</summary>\n",
                fkv_plot_state_words[c[i].state]);
        layer_table(r, out, &c[i], ERROR_NO_DC, "relative error without DC");
        layer_table(r, out, &c[i], ERROR, "relative error with DC");
        fputs("</details>\n", out);
    }
}

int fkv_report_errors(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    struct curves curves[FKV_STATES] = {0};
    int count = 0, status = FKV_OK;
    for (int state = 0; !status && state < FKV_STATES; state++) {
        bool found;
        status = read_curves(r->results, (enum fkv_state)state, &curves[count], &found, err);
        if (!status && found && curves[count].gammas != curves[0].gammas)
            status = fkv_fail(err, "%s/results.h5: /error: expected the same ratios for all states",
                              r->folder);
        if (!status && found) count++;
    }
    if (!status && count) write_tables(r, out, curves, count);
    for (int state = 0; state < FKV_STATES; state++) free_curves(&curves[state]);
    return status;
}
