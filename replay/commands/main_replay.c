/* freqkv-replay: what a cache policy costs a model. One table of sub-commands; each owns its
 * options. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/error.h"
#include "kernels/base/start.h"
#include "replay/commands/commands.h"

const char *argp_program_version = "freqkv-replay " FKV_VERSION;

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"ppl", fkv_command_ppl, "perplexity under a cache policy, against full attention if asked"},
    {"probe", fkv_command_probe,
     "what the tokens after it say when one part of the cache is changed"},
    {"generate", fkv_command_generate, "continue prompts under a cache policy"},
    {"tokens", fkv_command_tokens, "the token ids of texts"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to) {
    fputs("Usage: freqkv-replay COMMAND [OPTION...]\n"
          "Runs a checkpoint with FreqKV or another cache policy and measures what that costs it.\n"
          "\n"
          "Example:\n"
          "  freqkv-replay ppl --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
          "      --policy freqkv --window 512 --gamma 0.5 --tokens 1024 --baseline full\n"
          "\n"
          "Commands (each has its own --help):\n",
          to);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\nExit status: 0 done, 1 the work failed, 2 the command line was wrong.\n"
          "\n" FKV_SEE_MANUAL "\n",
          to);
}

int main(int argc, char **argv) {
    fkv_start(argv);
    if (argc > 1 &&
        (!strcmp(argv[1], "--help") || !strcmp(argv[1], "--usage") || !strcmp(argv[1], "-?"))) {
        print_help(stdout);
        return FKV_EXIT_DONE;
    }
    if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
        puts(argp_program_version);
        return FKV_EXIT_DONE;
    }
    for (int i = 0; i < COMMANDS && argc > 1; i++) {
        if (strcmp(argv[1], commands[i].name)) continue;
        char name[64];
        snprintf(name, sizeof name, "freqkv-replay %s", commands[i].name);
        argv[1] = name; /* what usage and messages call the program */
        return commands[i].run(argc - 1, argv + 1);
    }
    if (argc > 1) fprintf(stderr, "freqkv-replay: \"%s\" is no command\n", argv[1]);
    print_help(stderr);
    return FKV_EXIT_USAGE;
}
