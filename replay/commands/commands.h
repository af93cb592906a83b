/* The sub-commands of freqkv-replay: each parses its own command line and returns main's exit
 * status. */
#ifndef FKV_REPLAY_COMMANDS_COMMANDS_H
#define FKV_REPLAY_COMMANDS_COMMANDS_H

/* The last line of every --help. */
#define FKV_SEE_MANUAL "Files, JSON keys and definitions: man freqkv-replay."

int fkv_command_ppl(int argc, char **argv);
int fkv_command_probe(int argc, char **argv);
int fkv_command_generate(int argc, char **argv);
int fkv_command_needle(int argc, char **argv);
int fkv_command_bench(int argc, char **argv);
int fkv_command_compare(int argc, char **argv);
int fkv_command_cost(int argc, char **argv);
int fkv_command_policies(int argc, char **argv);
int fkv_command_tokens(int argc, char **argv);

#endif
