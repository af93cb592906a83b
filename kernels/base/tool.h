/* The main function of a tool that has commands. */
#ifndef FKV_BASE_TOOL_H
#define FKV_BASE_TOOL_H

struct fkv_command {
    const char *name;
    /* argv[0] is "TOOL NAME"; returns main's exit status. */
    int (*run)(int argc, char **argv);
    const char *summary; /* its line in --help */
};

struct fkv_tool {
    const char *name;                   /* "freqkv-replay" */
    const char *doc;                    /* for --help: what the tool does, and examples */
    const char *see_manual;             /* the last line of --help */
    const struct fkv_command *commands; /* a row without a name ends them */
};

/* Starts the process (start.h) and runs the command that argv names; returns main's exit status.
 * --help, --version and a wrong command line end the program. */
int fkv_tool_main(const struct fkv_tool *tool, int argc, char **argv);

#endif
