/* Commands run in this process, their stdout and stderr in files of `folder`. */
#ifndef FKV_TESTS_COMMAND_OUTPUT_H
#define FKV_TESTS_COMMAND_OUTPUT_H

#include <fcntl.h>
#include <jansson.h>

#include "analyze/commands/command.h"
#include "kernels/base/json.h"
#include "tests/unit/analyze/made_folder.h"

/* The command's exit status. */
static inline int run_command(int (*command)(int, char **), int argc, char **argv) {
    char to[300];
    int saved[2];
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        snprintf(to, sizeof to, "%s/std%d", folder, i + 1);
        int file = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        saved[i] = dup(i + 1);
        dup2(file, i + 1);
        close(file);
    }
    int status = command(argc, argv);
    fflush(NULL);
    for (int i = 0; i < 2; i++) dup2(saved[i], i + 1), close(saved[i]);
    return status;
}

/* What the last command wrote to stream 1 or 2; valid until the next call. */
static inline char *text_of(int stream) {
    static char text[1 << 18];
    char from[300];
    snprintf(from, sizeof from, "%s/std%d", folder, stream);
    FILE *f = fopen(from, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

/* The JSON object on the last command's stdout; a new reference. */
static inline json_t *object_of_stdout(void) {
    char *text = text_of(1);
    json_t *object = fkv_json_parse(text, strlen(text), "stdout", &err);
    if (!object) fail_msg("%s: %s", err.message, text);
    return object;
}

#endif
