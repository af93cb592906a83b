/* The sub-commands of freqkv-analyze and what they share: options, opening a capture for work,
 * provenance. */
#ifndef FKV_ANALYZE_COMMANDS_COMMAND_H
#define FKV_ANALYZE_COMMANDS_COMMAND_H

#include <argp.h>
#include <stdbool.h>

#include "analyze/measure/spectrum.h"
#include "analyze/plots/figures.h"
#include "analyze/tables/results.h"
#include "capture/store/capture_reader.h"

/* The last line of every --help. */
#define FKV_SEE_MANUAL "Files, JSON keys and definitions: man freqkv-analyze."

/* Each parses argv (argv[0] "freqkv-analyze NAME"), works, and returns main's exit status. */
int fkv_command_spectrum(int argc, char **argv);
int fkv_command_error(int argc, char **argv);
int fkv_command_merge(int argc, char **argv);
int fkv_command_gamma(int argc, char **argv);
int fkv_command_impulse(int argc, char **argv);
int fkv_command_link(int argc, char **argv);
int fkv_command_compare(int argc, char **argv);
int fkv_command_plot(int argc, char **argv);
int fkv_command_report(int argc, char **argv);

struct fkv_common_options {
    const char *out;
    int threads; /* of fkv_computing_argp; 0: the cores it may use */
    bool quiet, json;
    bool out_was_there; /* before the command ran */
};
/* --out --quiet --json. Child parsers take their struct through state->child_inputs and end the
 * program with FKV_EXIT_USAGE on a bad value. */
extern const struct argp fkv_common_argp;
extern const struct argp fkv_computing_argp; /* the same and --threads */

/* Where the transforms of states run; for commands that have any. */
struct fkv_processor_options {
    const char *backend;
    int device;
};
extern const struct argp fkv_processor_argp; /* --backend --device; sets the defaults, too */
/* Opens the backends of a command that has both kinds of options; says on stderr where "auto" had
 * to pass an accelerator over. */
int fkv_processor_open(const struct fkv_processor_options *processor,
                       const struct fkv_common_options *common, struct fkv_workers *workers,
                       struct fkv_error *err);

struct fkv_cut_options {
    struct fkv_common_options common;
    struct fkv_processor_options processor;
    const char *capture;
    int32_t length, skip_sinks; /* 0 and -1: the defaults */
    bool dry_run;
};
/* CAPTURE --length --skip-sinks --dry-run, the common ones and the processor's. */
extern const struct argp fkv_cut_argp;
void fkv_cut_options_default(struct fkv_cut_options *o);

struct fkv_analysis_needs {
    int64_t memory, memory_free, disk, disk_free; /* bytes; memory_free -1 where nobody knows */
    int64_t device, device_free;                  /* of an accelerator that computes; else 0 */
    double seconds;
};

/* One run of `spectrum`, `error` or `gamma`: the capture, its cut, workers, and what is found. */
struct fkv_analysis {
    struct fkv_capture *capture;
    struct fkv_segment_plan plan;
    struct fkv_workers workers;
    struct fkv_analysis_needs needs;
    char *command; /* owned */
    struct fkv_provenance provenance;
    bool power_only;          /* as in fkv_measurement */
    uint32_t measured_states; /* bit i: state i is measured; at first all that the capture has */
    struct fkv_spectrum spectra[FKV_STATES];
    int32_t states;
};
/* Opens the capture and cuts it. `command` (of fkv_join_arguments) becomes its own, whatever
 * happens.
 */
int fkv_analysis_open(struct fkv_analysis *a, const struct fkv_cut_options *o, bool null,
                      char *command, struct fkv_error *err);
/* Opens the workers and says what measuring the states needs, beside `more_seconds` of other
 * work: as a note on stderr, or with --dry-run as the result. Refuses what memory or disk cannot
 * hold. */
int fkv_analysis_announce(struct fkv_analysis *a, const struct fkv_cut_options *o, bool null,
                          double more_seconds, struct fkv_error *err);
/* Makes the output folder, refuses one with files that are not ours. `group`: the command's name.
 */
int fkv_analysis_start(const struct fkv_analysis *a, const struct fkv_cut_options *o,
                       const char *group, struct fkv_error *err);
/* Fills spectra, one per measured state. */
int fkv_analysis_measure(struct fkv_analysis *a, const struct fkv_cut_options *o, bool null,
                         struct fkv_error *err);

void fkv_analysis_close(struct fkv_analysis *a);

/* Draws what a row of fkv_figures makes of measured state `state`; nothing where the row is of
 * other data. May run on any thread. */
typedef int fkv_draw_state(const struct fkv_figure_row *row, int32_t state,
                           const struct fkv_findings *findings, struct fkv_plot_target *to,
                           struct fkv_error *err);
/* Calls `draw` for every row and every state of the findings, side by side on all threads. Of
 * several failures the first in the order of rows and states is returned. */
int fkv_figures_draw(const struct fkv_findings *findings, const char *folder, fkv_draw_state *draw,
                     struct fkv_error *err);

/* Prints "freqkv-analyze NAME: message" to stderr, and removes a folder --out that the command made
 * and left empty (`common` NULL: there is none). Returns fkv_exit_status(err). */
int fkv_command_failed(const char *name, const struct fkv_common_options *common,
                       const struct fkv_error *err);

#endif
