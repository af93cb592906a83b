/* What every tool does with its command line. */
#ifndef FKV_BASE_ARGUMENTS_H
#define FKV_BASE_ARGUMENTS_H

#include <argp.h>
#include <stdint.h>

#include "kernels/base/error.h"

/* An option's integer in [low, high]; `what` names the option, e.g. "--window". A text that is none
 * ends the program with status 2 and a message, as argp does. */
int64_t fkv_integer_option(struct argp_state *state, const char *text, const char *what,
                           int64_t low, int64_t high);

/* The command line as a shell would take it back, for files that say what made them. malloc'd, the
 * caller frees it; NULL: out of memory. */
char *fkv_join_arguments(int argc, char **argv);

/* Prints "freqkv-TOOL: message" to stderr and returns main's exit status: 2 where an option is at
 * fault, else 1. */
int fkv_tool_failed(const char *tool, const struct fkv_error *err);

#endif
