/* What every tool does with its command line. */
#ifndef FKV_BASE_ARGUMENTS_H
#define FKV_BASE_ARGUMENTS_H

#include <argp.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/letters.h"

/* Rows of struct argp_option that several commands have, so that an option reads the same in all of
 * them. `group` orders --help. That of --backend: kernels/backend_option.h. */
#define FKV_DEVICE_ROW(group)                                                                      \
    {                                                                                              \
        "device", FKV_LETTER_DEVICE, "K", 0, "index of the GPU (default: the first supported)",    \
            group                                                                                  \
    }
#define FKV_THREADS_ROW(group)                                                                     \
    { "threads", FKV_LETTER_THREADS, "K", 0, "CPU threads (default: the cores it may use)", group }
#define FKV_QUIET_ROW(group)                                                                       \
    { "quiet", FKV_LETTER_QUIET, NULL, 0, "no progress and no notes on stderr", group }
#define FKV_JSON_ROW(group)                                                                        \
    { "json", FKV_LETTER_JSON, NULL, 0, "one JSON object instead of text", group }
#define FKV_DRY_RUN_ROW(group)                                                                     \
    { "dry-run", FKV_LETTER_DRY_RUN, NULL, 0, "only print what the run will need", group }

/* Exit statuses, for --help. */
#define FKV_EXIT_HELP "Exit status: 0 done, 1 the work failed, 2 the command line was wrong."

/* An option's integer in [low, high]; `what` names the option, e.g. "--window". A text that is none
 * ends the program with status 2 and a message, as argp does. */
int64_t fkv_integer_option(struct argp_state *state, const char *text, const char *what,
                           int64_t low, int64_t high);

/* The values of --device and --threads; a bad one ends the program likewise. */
int fkv_device_option(struct argp_state *state, const char *text);
int fkv_threads_option(struct argp_state *state, const char *text);

/* The command line as a shell would take it back, for files that say what made them. malloc'd, the
 * caller frees it; NULL: out of memory. */
char *fkv_join_arguments(int argc, char **argv);

/* Prints "freqkv-TOOL: message" to stderr and returns main's exit status: 2 where an option is at
 * fault, else 1. */
int fkv_tool_failed(const char *tool, const struct fkv_error *err);

#endif
