/* freqkv-analyze error: what a retaining ratio throws away. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "analyze/commands/command.h"
#include "analyze/measure/bounds.h"
#include "analyze/measure/error.h"
#include "analyze/tables/summary.h"
#include "analyze/tables/tables.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/arguments.h"
#include "kernels/base/host.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"

enum { OPT_BOUNDS = FKV_NO_LETTER };

struct options {
    struct fkv_cut_options cut;
    double *gamma; /* [gammas]; owned */
    int gammas;
    bool bounds;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    struct fkv_error err;
    switch (key) {
    case FKV_LETTER_GAMMA:
        free(o->gamma);
        o->gamma = NULL;
        if (fkv_parse_range(arg, "--gamma", &o->gamma, &o->gammas, &err))
            argp_error(state, "%s", err.message);
        break;
    case OPT_BOUNDS: o->bounds = true; break;
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->cut; break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "What a retaining ratio throws away: the error of keys and values rebuilt from their "
    "lowest frequencies, per layer and KV head.\n\n"
    "Examples:\n"
    "  freqkv-analyze error my-capture --out findings\n"
    "  freqkv-analyze error my-capture --out findings --gamma 0.25,0.5,0.75 --json\n"
    "\v"
    "Segments are those of `spectrum`. At ratio gamma the L = floor(gamma N) lowest DCT "
    "coefficients are kept. --bounds adds two other bases at equal cost; its time grows with "
    "the cube of N (a minute per head at N = 4000).\n\n" FKV_SEE_MANUAL;

static const struct argp_option options_list[] = {
    {"gamma", FKV_LETTER_GAMMA, "G", 0, "ratios: a:b:step or a,b,c (default 0.1:0.9:0.1)", 0},
    {"bounds", OPT_BOUNDS, NULL, 0, "also what other bases lose at equal cost", 0},
    {0},
};
static const struct argp_child children[] = {{&fkv_cut_argp, 0, NULL, 0}, {0}};
static const struct argp parser = {options_list, parse, "CAPTURE --out DIR", doc, children,
                                   NULL,         NULL};

static int draw(const struct fkv_figure_row *row, int32_t state,
                const struct fkv_findings *findings, struct fkv_plot_target *to,
                struct fkv_error *err) {
    return row->errors ? row->errors(&findings->curves[state], to, err) : FKV_OK;
}

static int write_all(const struct fkv_analysis *a, const struct options *o,
                     const struct fkv_error_curves *curves, struct fkv_error *err) {
    const char *folder = o->cut.common.out;
    const struct fkv_findings findings = {
        .provenance = &a->provenance, .states = a->states, .spectra = a->spectra, .curves = curves};
    if (fkv_results_write(folder, &findings, err) ||
        fkv_error_csv(folder, curves, a->states, err) ||
        fkv_figures_draw(&findings, folder, draw, err))
        return FKV_FAILED;
    if (o->bounds &&
        fkv_bounds_csv(folder, curves, a->states, fkv_capture_info(a->capture)->head_dim, err))
        return FKV_FAILED;
    return fkv_summary_error(&findings, o->cut.capture, o->cut.common.json, err);
}

static int measure_bounds(struct fkv_analysis *a, const struct options *o,
                          struct fkv_error_curves *curves, struct fkv_error *err) {
    struct fkv_progress progress;
    struct fkv_measurement m = {
        .capture = a->capture, .plan = &a->plan, .workers = &a->workers, .progress = &progress};
    int64_t heads = 0;
    int status = FKV_OK;
    for (int32_t i = 0; i < a->states; i++) heads += (int64_t)curves[i].layers * curves[i].heads;
    fkv_progress_start(&progress, "heads", heads, o->cut.common.quiet);
    for (int32_t i = 0; !status && i < a->states; i++)
        status = fkv_bounds_measure(&m, &curves[i], err);
    fkv_progress_finish(&progress);
    return status;
}

static int check_bounds(const struct fkv_analysis *a, struct fkv_error *err) {
    int64_t needed = fkv_bounds_bytes(a->capture, &a->plan),
            available = fkv_host_memory_available();
    char text[2][16];
    if (fkv_bounds_check(a->capture, &a->plan, err)) return FKV_FAILED;
    if (available < 0 || needed <= available) return FKV_OK;
    fkv_format_bytes(text[0], needed);
    fkv_format_bytes(text[1], available);
    return fkv_fail(err,
                    "--bounds needs %s of memory for segments of %d tokens, and %s are available; "
                    "a shorter --length needs less",
                    text[0], a->plan.n, text[1]);
}

/* A minute per head at 4,000 tokens, on one core of 2023; with the cube of the tokens. Two folds of
 * two halves each keep four threads busy. */
static double bounds_seconds(const struct fkv_analysis *a) {
    const struct fkv_capture_info *info = fkv_capture_info(a->capture);
    int64_t heads = 0;
    for (int state = 0; state < FKV_STATES; state++)
        if (info->states >> state & 1)
            heads += fkv_capture_heads(a->capture, (enum fkv_state)state);
    return (double)(heads * info->layer_count) * 60 * pow(a->plan.n / 4000.0, 3) /
           fmin(omp_get_max_threads(), 4);
}

static int measure_and_write(struct fkv_analysis *a, const struct options *o,
                             struct fkv_error *err) {
    struct fkv_error_curves curves[FKV_STATES] = {0};
    int status = fkv_analysis_start(a, &o->cut, "error", err);
    if (!status) status = fkv_analysis_measure(a, &o->cut, false, err);
    for (int32_t i = 0; !status && i < a->states; i++)
        status = fkv_error_curves_make(&a->spectra[i], o->gamma, o->gammas, &curves[i], err);
    if (!status && o->bounds) status = measure_bounds(a, o, curves, err);
    if (!status) status = write_all(a, o, curves, err);
    for (int32_t i = 0; i < FKV_STATES; i++) fkv_error_curves_free(&curves[i]);
    return status;
}

int fkv_command_error(int argc, char **argv) {
    struct options o = {0};
    struct fkv_analysis a;
    struct fkv_error err = {0};
    fkv_cut_options_default(&o.cut);
    if (fkv_parse_range("0.1:0.9:0.1", "--gamma", &o.gamma, &o.gammas, &err))
        return fkv_command_failed("error", NULL, &err);
    char *command = fkv_join_arguments(argc, argv); /* before argp puts the options first */
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    int status = fkv_analysis_open(&a, &o.cut, false, command, &err);
    a.power_only = true;
    if (!status) status = fkv_gammas_check(o.gamma, o.gammas, a.plan.n, &err);
    if (!status && o.bounds) status = check_bounds(&a, &err);
    if (!status)
        status = fkv_analysis_announce(&a, &o.cut, false, o.bounds ? bounds_seconds(&a) : 0, &err);
    if (!status && !o.cut.dry_run) status = measure_and_write(&a, &o, &err);
    fkv_analysis_close(&a);
    free(o.gamma);
    return status ? fkv_command_failed("error", &o.cut.common, &err) : FKV_EXIT_DONE;
}
