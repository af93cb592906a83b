/* freqkv-analyze spectrum: where the energy of the states sits over frequency. */
#include <string.h>

#include "analyze/commands/command.h"
#include "analyze/tables/summary.h"
#include "analyze/tables/tables.h"
#include "kernels/base/arguments.h"
#include "kernels/base/letters.h"

enum { OPT_NULL = FKV_NO_LETTER };

struct options {
    struct fkv_cut_options cut;
    bool null;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case OPT_NULL:
        if (strcmp(arg, "permute") && strcmp(arg, "none"))
            argp_error(state, "--null: expected permute or none, found \"%s\"", arg);
        o->null = !strcmp(arg, "permute");
        break;
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->cut; break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "Where the energy of keys and values sits over frequency, per layer and KV head.\n\n"
    "Examples:\n"
    "  freqkv-analyze spectrum my-capture --out findings\n"
    "  freqkv-analyze spectrum my-capture --out findings --length 508 --json\n"
    "\v"
    "Every recording is cut into segments of N tokens after its first S. Power is the "
    "square of the orthonormal DCT-II along tokens: mean over channels, then over segments of a "
    "document, then over documents. The null is the power of the same segments with their "
    "tokens permuted.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options_list[] = {
    {"null", OPT_NULL, "KIND", 0, "permute (default) or none, which is 9 times faster", 0},
    {0},
};
static const struct argp_child children[] = {{&fkv_cut_argp, 0, NULL, 0}, {0}};
static const struct argp parser = {options_list, parse, "CAPTURE --out DIR", doc, children,
                                   NULL,         NULL};

static int draw(const struct fkv_figure_row *row, int32_t state,
                const struct fkv_findings *findings, struct fkv_plot_target *to,
                struct fkv_error *err) {
    return row->spectrum ? row->spectrum(&findings->spectra[state], to, err) : FKV_OK;
}

static int write_all(const struct fkv_analysis *a, const struct options *o, struct fkv_error *err) {
    const char *folder = o->cut.common.out;
    const struct fkv_findings findings = {
        .provenance = &a->provenance, .states = a->states, .spectra = a->spectra};
    if (fkv_results_write(folder, &findings, err) ||
        fkv_spectrum_csv(folder, a->spectra, a->states, err) ||
        fkv_figures_draw(&findings, folder, draw, err))
        return FKV_FAILED;
    return fkv_summary_spectrum(&findings, o->cut.capture, o->cut.common.json, err);
}

int fkv_command_spectrum(int argc, char **argv) {
    struct options o = {.null = true};
    struct fkv_analysis a;
    struct fkv_error err = {0};
    fkv_cut_options_default(&o.cut);
    char *command = fkv_join_arguments(argc, argv); /* before argp puts the options first */
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    int status = fkv_analysis_open(&a, &o.cut, o.null, command, &err);
    if (!status) status = fkv_analysis_announce(&a, &o.cut, o.null, 0, &err);
    if (!status && !o.cut.dry_run) {
        status = fkv_analysis_start(&a, &o.cut, "spectrum", &err);
        if (!status) status = fkv_analysis_measure(&a, &o.cut, o.null, &err);
        if (!status) status = write_all(&a, &o, &err);
    }
    fkv_analysis_close(&a);
    return status ? fkv_command_failed("spectrum", &o.cut.common, &err) : FKV_EXIT_DONE;
}
