/* freqkv-analyze: what a capture shows. Its commands; each parses its own options. */
#include "analyze/commands/command.h"
#include "kernels/base/tool.h"

const char *argp_program_version = "freqkv-analyze " FKV_VERSION;

static const struct fkv_command commands[] = {
    {"spectrum", fkv_command_spectrum, "where the energy sits over frequency, per layer and head"},
    {"error", fkv_command_error, "what a retaining ratio throws away"},
    {"gamma", fkv_command_gamma, "a retaining ratio per layer and head"},
    {"impulse", fkv_command_impulse, "what becomes of a token that is compressed again and again"},
    {"link", fkv_command_link, "what the energy in a capture says about perplexity"},
    {"compare", fkv_command_compare, "runs against runs over the same tokens, paired"},
    {"plot", fkv_command_plot, "figures of what freqkv-replay wrote, and of tables"},
    {"merge", fkv_command_merge, "several captures into one"},
    {"report", fkv_command_report, "everything found so far, as one page of HTML"},
    {0},
};

static const struct fkv_tool tool = {"freqkv-analyze",
                                     "What a capture of keys and values shows.\n\n"
                                     "Examples:\n"
                                     "  freqkv-analyze spectrum my-capture --out findings\n"
                                     "  freqkv-analyze error my-capture --out findings\n"
                                     "  freqkv-analyze report findings",
                                     FKV_SEE_MANUAL, commands};

int main(int argc, char **argv) { return fkv_tool_main(&tool, argc, argv); }
