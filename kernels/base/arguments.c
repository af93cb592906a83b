/* See arguments.h. */
#include "kernels/base/arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/parse.h"

int64_t fkv_integer_option(struct argp_state *state, const char *text, const char *what,
                           int64_t low, int64_t high) {
    struct fkv_error err;
    int64_t value = low;
    if (fkv_parse_int(text, what, low, high, &value, &err)) argp_error(state, "%s", err.message);
    return value;
}

int fkv_device_option(struct argp_state *state, const char *text) {
    return (int)fkv_integer_option(state, text, "--device", 0, 1023);
}

int fkv_threads_option(struct argp_state *state, const char *text) {
    return (int)fkv_integer_option(state, text, "--threads", 1, 4096);
}

/* One argument, in quotes where a shell would read it otherwise. */
static void put_argument(FILE *f, const char *text) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%";
    if (*text && !text[strspn(text, plain)]) {
        fputs(text, f);
        return;
    }
    fputc('\'', f);
    for (; *text; text++) fputs(*text == '\'' ? "'\\''" : (char[]){*text, 0}, f);
    fputc('\'', f);
}

char *fkv_join_arguments(int argc, char **argv) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    fputs(argv[0], f); /* "freqkv-replay ppl" is two words */
    for (int i = 1; i < argc; i++) {
        fputc(' ', f);
        put_argument(f, argv[i]);
    }
    if (!fclose(f)) return text;
    free(text);
    return NULL;
}

int fkv_tool_failed(const char *tool, const struct fkv_error *err) {
    fprintf(stderr, "%s: %s\n", tool, err->message);
    return fkv_exit_status(err);
}
