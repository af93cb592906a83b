/* The sub-commands of freqkv-analyze and what they share: options, opening a capture for work,
 * provenance. */
#ifndef FKV_ANALYZE_COMMANDS_COMMAND_H
#define FKV_ANALYZE_COMMANDS_COMMAND_H

#include <argp.h>
#include <stdbool.h>

#include "analyze/measure/spectrum.h"
#include "analyze/plots/figures.h"
#include "analyze/tables/summary.h"
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
    bool null;                  /* also measure permuted segments: an option of `spectrum` */
    bool dry_run;
};
/* CAPTURE --length --skip-sinks --dry-run, the common ones and the processor's; sets the defaults,
 * too. */
extern const struct argp fkv_cut_argp;

/* One run of `spectrum`, `error` or `gamma`: the capture, its cut, and what is found. */
struct fkv_analysis {
    const struct fkv_cut_options *o;
    struct fkv_capture *capture;
    struct fkv_segment_plan plan;
    struct fkv_workers workers;
    struct fkv_measurement m; /* of the three above */
    struct fkv_progress progress;
    char *command; /* owned */
    struct fkv_provenance provenance;
    uint32_t measured_states; /* bit i: state i is measured; at first all that the capture has */
    struct fkv_spectrum spectra[FKV_STATES];
    struct fkv_findings findings; /* the spectra, and what a command adds to them */
};
/* Starts a->progress for a->m, `total` of `unit`. */
void fkv_analysis_progress(struct fkv_analysis *a, const char *unit, int64_t total);

/* What the three commands differ in. `own`: the command's struct, of which struct fkv_cut_options
 * is the first member. check and find may be NULL. */
struct fkv_analysis_command {
    const char *name; /* also of its group in results.h5 */
    const struct argp *parser;
    bool power_only; /* as in fkv_measurement */
    /* Refuses what can be refused before states are read. *seconds: of what `find` will do. */
    int (*check)(struct fkv_analysis *a, void *own, double *seconds, struct fkv_error *err);
    /* Adds to a->findings what follows from the spectra. */
    int (*find)(struct fkv_analysis *a, void *own, struct fkv_error *err);
    /* Writes the tables beside results.h5 and the figures. */
    int (*write)(struct fkv_analysis *a, void *own, struct fkv_error *err);
    fkv_summary *print; /* on stdout */
};
/* Parses argv, works, and returns main's exit status. What a dry run prints, and everything that
 * can be refused, comes before the first byte of states is read. */
int fkv_analysis_main(const struct fkv_analysis_command *command, int argc, char **argv, void *own);

/* Prints "freqkv-analyze NAME: message" to stderr, and removes a folder --out that the command made
 * and left empty (`common` NULL: there is none). Returns fkv_exit_status(err). */
int fkv_command_failed(const char *name, const struct fkv_common_options *common,
                       const struct fkv_error *err);

#endif
