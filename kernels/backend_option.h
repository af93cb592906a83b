/* The option --backend, which several commands have: its row for --help and its values. */
#ifndef FKV_KERNELS_BACKEND_OPTION_H
#define FKV_KERNELS_BACKEND_OPTION_H

#include <argp.h>

#include "kernels/base/letters.h"
#include "kernels/kernels.h"

/* A row of struct argp_option. `group` orders --help. */
#define FKV_BACKEND_HELP(name, note, where) ", " #name note
#define FKV_BACKEND_ROW(group)                                                                     \
    {                                                                                              \
        "backend", FKV_LETTER_BACKEND, "NAME", 0,                                                  \
            "auto (default)" FKV_BACKEND_ROWS(FKV_BACKEND_HELP), group                             \
    }

/* The option's value: `text` where fkv_backend_find knows that name; any other ends the program
 * with status 2 and a message, as argp does. */
const char *fkv_backend_option(struct argp_state *state, const char *text);

#endif
