/* freqkv-analyze spectrum: where the energy of the states sits over frequency. */
#include <stdio.h>
#include <string.h>

#include "analyze/commands/command.h"
#include "analyze/plots/plots.h"
#include "analyze/tables/summary.h"
#include "analyze/tables/tables.h"

struct options {
    struct fkv_cut_options cut;
    bool null;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case 'N':
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
    "Power spectra of a capture's states along tokens, per layer and KV head.\n\n"
    "CAPTURE is a folder of freqkv-capture, its capture.h5, or one .h5 file with the same groups. "
    "Every recording is cut "
    "into consecutive segments of N tokens after its first S; power is the square of the "
    "orthonormal DCT-II, mean over "
    "channels, then over segments within a document, then over documents."
    "\v"
    "Writes into the folder --out: results.h5 (/spectrum/STATE at full resolution), spectrum.csv "
    "(DC, then 64 log-spaced bands "
    "t_low <= t < t_high), spectrum_STATE and spectrum_heads_STATE as PNG and SVG; and sources.csv "
    "(names and hashes of the model, its tokenizer and the texts). Running again replaces them; "
    "findings of "
    "`error` on the same capture, length and sinks stay. Files that freqkv-analyze did not make "
    "are never replaced.\n\n"
    "Standard errors are over documents where there are 20 or more; with 2 to 19 a bootstrap over "
    "documents and, within each that is drawn, over its segments; with one over its "
    "segments, which speaks for that document only (1,000 resamples, seed 0; of sums in closed "
    "form). Few documents say little about others.\n\n"
    "Example:\n"
    "  freqkv-analyze spectrum my-capture --out findings\n"
    "  freqkv-analyze spectrum my-capture --out findings --length 508 --json\n\n"
    "JSON keys: capture, capture_sha256, model, segment_length, skip_sinks, documents, segments, "
    "tokens_left_out, standard_error "
    "(documents, bootstrap or segments: in closed form from sums), se_unit (documents, documents "
    "and blocks, or blocks of one document; a block is a segment), null (permute, expected or "
    "none), states: [{state, layers: [{layer, dc_share (of all "
    "energy), low_eighth, low_quarter, low_half (share of the lowest coefficients in the energy "
    "without DC), "
    "null_low_eighth, null_low_quarter, null_low_half (of permuted tokens)}]}]. What does not "
    "exist is null."
    " With --dry-run: capture, segment_length, documents, segments, tokens, tokens_left_out, "
    "memory_bytes, memory_available, disk_bytes, disk_free, device_bytes, device_free, seconds.";

static const struct argp_option options_list[] = {
    {"null", 'N', "KIND", 0,
     "permute (default): the same segments with their tokens permuted, mean of 8 draws; none: "
     "without, 9 times the speed",
     0},
    {0}};
static const struct argp_child children[] = {{&fkv_cut_argp, 0, NULL, 0}, {0}};
static const struct argp parser = {options_list, parse, "CAPTURE --out DIR", doc, children,
                                   NULL,         NULL};

static int write_all(const struct fkv_analysis *a, const struct options *o, struct fkv_error *err) {
    const char *folder = o->cut.common.out;
    const struct fkv_findings findings = {
        .provenance = &a->provenance, .states = a->states, .spectra = a->spectra};
    if (fkv_results_write(folder, &findings, err) ||
        fkv_spectrum_csv(folder, a->spectra, a->states, err))
        return FKV_FAILED;
    for (int32_t i = 0; i < a->states; i++)
        if (fkv_plot_spectrum(&a->spectra[i], folder, &a->provenance, err) ||
            fkv_plot_spectrum_heads(&a->spectra[i], folder, &a->provenance, err))
            return FKV_FAILED;
    return fkv_summary_spectrum(&findings, o->cut.capture, o->cut.common.json, err);
}

int fkv_command_spectrum(int argc, char **argv) {
    struct options o = {.null = true};
    struct fkv_analysis a;
    struct fkv_error err = {0};
    fkv_cut_options_default(&o.cut);
    char *command = fkv_command_line(argc, argv); /* before argp puts the options first */
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    int status = fkv_analysis_open(&a, &o.cut, o.null, command, &err);
    if (!status) status = fkv_analysis_announce(&a, &o.cut, o.null, 0, &err);
    if (!status && !o.cut.dry_run) {
        status = fkv_analysis_start(&a, &o.cut, "spectrum", &err);
        if (!status) status = fkv_analysis_measure(&a, &o.cut, o.null, &err);
        if (!status) status = write_all(&a, &o, &err);
    }
    fkv_analysis_close(&a);
    return status ? fkv_command_failed("spectrum", &o.cut.common, &err) : 0;
}
