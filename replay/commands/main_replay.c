/* freqkv-replay: what a cache policy costs a model. Its commands; each parses its own options. */
#include <argp.h>

#include "kernels/base/tool.h"
#include "replay/commands/commands.h"

const char *argp_program_version = "freqkv-replay " FKV_VERSION;

static const struct fkv_command commands[] = {
    {"ppl", fkv_command_ppl, "perplexity under a cache policy, against full attention if asked"},
    {"probe", fkv_command_probe, "what later tokens say when a part of the cache is changed"},
    {"generate", fkv_command_generate, "continue prompts under a cache policy"},
    {"needle", fkv_command_needle, "find a fact in a long text under a cache policy"},
    {"bench", fkv_command_bench, "time and bytes of policies over lengths"},
    {"compare", fkv_command_compare,
     "policies at equal memory: perplexity, KL, recall, bytes, speed"},
    {"cost", fkv_command_cost, "operations and bytes of a policy, from a config alone"},
    {"policies", fkv_command_policies, "the cache policies, and a page of help on each"},
    {"tokens", fkv_command_tokens, "the token ids of texts"},
    {0},
};

static const struct fkv_tool tool = {
    "freqkv-replay",
    "Runs a checkpoint with FreqKV or another cache policy and measures what that costs it.\n\n"
    "Example:\n"
    "  freqkv-replay ppl --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
    "      --policy freqkv --window 512 --gamma 0.5 --tokens 1024 --baseline full",
    FKV_SEE_MANUAL, commands};

int main(int argc, char **argv) { return fkv_tool_main(&tool, argc, argv); }
