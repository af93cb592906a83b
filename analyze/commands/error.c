/* freqkv-analyze error: what a retaining ratio throws away. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "analyze/commands/command.h"
#include "analyze/measure/bounds.h"
#include "analyze/measure/error.h"
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
    struct fkv_error_curves curves[FKV_STATES]; /* found; owned */
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

static int check_bounds(const struct fkv_analysis *a, struct fkv_error *err) {
    int64_t needed = fkv_bounds_bytes(a->capture, &a->plan),
            available = fkv_host_memory_available();
    if (fkv_bounds_check(a->capture, &a->plan, err)) return FKV_FAILED;
    if (available < 0 || needed <= available) return FKV_OK;
    return fkv_fail(err,
                    "--bounds needs %s of memory for segments of %d tokens, and %s are available; "
                    "a shorter --length needs less",
                    fkv_bytes_text(needed).text, a->plan.n, fkv_bytes_text(available).text);
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

static int check(struct fkv_analysis *a, void *own, double *seconds, struct fkv_error *err) {
    const struct options *o = own;
    if (fkv_gammas_check(o->gamma, o->gammas, a->plan.n, err)) return FKV_FAILED;
    if (!o->bounds) return FKV_OK;
    *seconds = bounds_seconds(a);
    return check_bounds(a, err);
}

static int find(struct fkv_analysis *a, void *own, struct fkv_error *err) {
    struct options *o = own;
    const int32_t states = a->findings.states;
    int64_t heads = 0;
    int status = FKV_OK;
    a->findings.curves = o->curves;
    for (int32_t i = 0; i < states; i++) {
        if (fkv_error_curves_make(&a->spectra[i], o->gamma, o->gammas, &o->curves[i], err))
            return FKV_FAILED;
        heads += (int64_t)o->curves[i].layers * o->curves[i].heads;
    }
    if (!o->bounds) return FKV_OK;
    fkv_analysis_progress(a, "heads", heads);
    for (int32_t i = 0; !status && i < states; i++)
        status = fkv_bounds_measure(&a->m, &o->curves[i], err);
    fkv_progress_finish(&a->progress);
    return status;
}

static int write_tables(struct fkv_analysis *a, void *own, struct fkv_error *err) {
    const struct options *o = own;
    const char *folder = a->o->common.out;
    const int32_t states = a->findings.states, head_dim = fkv_capture_info(a->capture)->head_dim;
    if (fkv_error_csv(folder, o->curves, states, err)) return FKV_FAILED;
    return o->bounds ? fkv_bounds_csv(folder, o->curves, states, head_dim, err) : FKV_OK;
}

int fkv_command_error(int argc, char **argv) {
    static const struct fkv_analysis_command command = {.name = "error",
                                                        .parser = &parser,
                                                        .power_only = true,
                                                        .check = check,
                                                        .find = find,
                                                        .write = write_tables,
                                                        .print = fkv_summary_error};
    struct options o = {0};
    struct fkv_error err = {0};
    if (fkv_parse_range("0.1:0.9:0.1", "--gamma", &o.gamma, &o.gammas, &err))
        return fkv_command_failed("error", NULL, &err);
    int status = fkv_analysis_main(&command, argc, argv, &o);
    for (int32_t i = 0; i < FKV_STATES; i++) fkv_error_curves_free(&o.curves[i]);
    free(o.gamma);
    return status;
}
