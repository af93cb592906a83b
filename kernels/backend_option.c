/* See backend_option.h. */
#include "kernels/backend_option.h"

const char *fkv_backend_option(struct argp_state *state, const char *text) {
#define NAME(name, note, where) #name,
    static const char *const names[] = {"auto", FKV_BACKEND_ROWS(NAME)};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text, names[i])) return text;
    argp_error(state, "--backend: expected one of " FKV_BACKEND_NAMES ", found \"%s\"", text);
    return NULL;
}
