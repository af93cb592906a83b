/* freqkv-analyze: what a capture shows. Picks the sub-command; each parses its own options. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "analyze/commands/command.h"
#include "kernels/base/start.h"

const char *argp_program_version = "freqkv-analyze " FKV_VERSION;

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {{"spectrum", fkv_command_spectrum}, {"error", fkv_command_error},
                {"gamma", fkv_command_gamma},       {"impulse", fkv_command_impulse},
                {"link", fkv_command_link},         {"plot", fkv_command_plot},
                {"merge", fkv_command_merge},       {"report", fkv_command_report}};

struct choice {
    const struct command *command;
    int index; /* of its name in argv */
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct choice *choice = state->input;
    if (key == ARGP_KEY_NO_ARGS) argp_error(state, "expected a command; --help lists them");
    if (key != ARGP_KEY_ARG) return ARGP_ERR_UNKNOWN;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(arg, commands[i].name)) choice->command = &commands[i];
    if (!choice->command)
        argp_error(state, "unknown command \"%s\"; --help lists those there are", arg);
    choice->index = state->next - 1;
    state->next = state->argc; /* the rest is the command's own */
    return 0;
}

static const char doc[] =
    "What a capture of keys and values shows.\n\n"
    "Examples:\n"
    "  freqkv-analyze spectrum my-capture --out findings\n"
    "  freqkv-analyze error my-capture --out findings\n"
    "  freqkv-analyze report findings\n\n"
    "Commands (each has its own --help):\n"
    "  spectrum   where the energy sits over frequency, per layer and head\n"
    "  error      what a retaining ratio throws away\n"
    "  gamma      a retaining ratio per layer and head\n"
    "  impulse    what becomes of a token that is compressed again and again\n"
    "  link       what the energy in a capture says about perplexity\n"
    "  plot       figures of what freqkv-replay wrote, and of tables\n"
    "  merge      several captures into one\n"
    "  report     everything found so far, as one page of HTML"
    "\v"
    "Exit status: 0 done, 1 the work failed, 2 the command line was wrong.\n\n" FKV_SEE_MANUAL;

static const struct argp parser = {NULL, parse, "COMMAND ...", doc, NULL, NULL, NULL};

int main(int argc, char **argv) {
    struct choice choice = {0};
    fkv_start(argv);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &choice);
    char name[64];
    snprintf(name, sizeof name, "freqkv-analyze %s", choice.command->name);
    argv[choice.index] = name;
    return choice.command->run(argc - choice.index, argv + choice.index);
}
