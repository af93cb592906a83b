/* See tool.h. */
#include "kernels/base/tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/arguments.h"
#include "kernels/base/start.h"

struct choice {
    const struct fkv_command *commands, *command;
    int index; /* of its name in argv */
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct choice *choice = state->input;
    if (key == ARGP_KEY_NO_ARGS) argp_error(state, "expected a command; --help lists them");
    if (key != ARGP_KEY_ARG) return ARGP_ERR_UNKNOWN;
    for (const struct fkv_command *c = choice->commands; c->name; c++)
        if (!strcmp(arg, c->name)) choice->command = c;
    if (!choice->command)
        argp_error(state, "unknown command \"%s\"; --help lists those there are", arg);
    choice->index = state->next - 1;
    state->next = state->argc; /* the rest is the command's own */
    return 0;
}

/* What --help says around the options, \v between what comes before and after them; malloc'd. */
static char *write_doc(const struct fkv_tool *tool) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    fprintf(f, "%s\n\nCommands (each has its own --help):\n", tool->doc);
    for (const struct fkv_command *c = tool->commands; c->name; c++)
        fprintf(f, "  %-10s %s\n", c->name, c->summary);
    fprintf(f, "\v" FKV_EXIT_HELP "\n\n%s", tool->see_manual);
    fclose(f);
    return text;
}

int fkv_tool_main(const struct fkv_tool *tool, int argc, char **argv) {
    struct choice choice = {.commands = tool->commands};
    fkv_start(argv);
    char *doc = write_doc(tool);
    const struct argp parser = {.parser = parse, .args_doc = "COMMAND ...", .doc = doc};
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &choice);
    free(doc);
    char name[64];
    snprintf(name, sizeof name, "%s %s", tool->name, choice.command->name);
    argv[choice.index] = name;
    return choice.command->run(argc - choice.index, argv + choice.index);
}
