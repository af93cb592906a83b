/* freqkv-analyze spectrum: where the energy of the states sits over frequency. */
#include <string.h>

#include "analyze/commands/command.h"
#include "analyze/tables/tables.h"
#include "kernels/base/arguments.h"
#include "kernels/base/letters.h"

enum { OPT_NULL = FKV_NO_LETTER };

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct fkv_cut_options *o = state->input;
    switch (key) {
    case OPT_NULL:
        if (strcmp(arg, "permute") && strcmp(arg, "none"))
            argp_error(state, "--null: expected permute or none, found \"%s\"", arg);
        o->null = !strcmp(arg, "permute");
        break;
    case ARGP_KEY_INIT: state->child_inputs[0] = o; break;
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

static int write_table(struct fkv_analysis *a, void *own, struct fkv_error *err) {
    (void)own;
    return fkv_spectrum_csv(a->o->common.out, a->spectra, a->findings.states, err);
}

int fkv_command_spectrum(int argc, char **argv) {
    static const struct fkv_analysis_command command = {
        .name = "spectrum", .parser = &parser, .write = write_table, .print = fkv_summary_spectrum};
    struct fkv_cut_options o = {.null = true};
    return fkv_analysis_main(&command, argc, argv, &o);
}
