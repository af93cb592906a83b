/* freqkv-replay cost: operations and bytes of cache policies by arithmetic, for a model that need
 * not be there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/command_line.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"
#include "kernels/base/parse.h"
#include "replay/commands/commands.h"
#include "replay/cost/cost.h"
#include "replay/operators/operator_file.h"
#include "replay/perplexity/sweep.h"

enum { OPT_CONFIG = FKV_NO_LETTER, OPT_TOKENS, OPT_SWEEP, OPT_TRAINED_CONTEXT, OPT_BLOCK };
enum { MOST_TOKENS = 1 << 30 };

struct settings {
    struct fkv_policy_options policy;
    struct fkv_sweep sweep;
    const char *config;
    int32_t trained_context;
    double *tokens; /* [token_count]; owned */
    int token_count;
    bool json;
};

static const char doc[] =
    "Operations and bytes of a cache policy, by arithmetic from a config.json or a GGUF file. No "
    "weights are needed.\n\n"
    "Example:\n"
    "  freqkv-replay cost --config data/litbank-1m/config.json --tokens 1024,4096 \\\n"
    "      --policy freqkv --sweep gamma=0.25,0.5,0.75\n"
    "\v"
    "One row per number of tokens and ratio. The conventions are those of FreqKV's "
    "tables.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Cost:", 5},
    {"config", OPT_CONFIG, "FILE", 0, "config.json, a folder with one, or a GGUF file", 5},
    {"trained-context", OPT_TRAINED_CONTEXT, "T", 0, "in place of what the config says", 5},
    {"tokens", OPT_TOKENS, "T[,T...]", 0, "lengths of the text (default: the trained context)", 5},
    {"block", OPT_BLOCK, "B", 0,
     "of selecting policies: tokens of a prefill block (default: the text is one)", 5},
    {"sweep", OPT_SWEEP, "gamma=a:b:c", 0, "every ratio from a to b in steps of c", 5},
    FKV_JSON_ROW(5),
    {0},
};

static void set_tokens(struct settings *s, const char *text, struct argp_state *state) {
    struct fkv_error err;
    free(s->tokens);
    if (fkv_parse_range(text, "--tokens", &s->tokens, &s->token_count, &err))
        argp_error(state, "%s", err.message);
    for (int i = 0; i < s->token_count; i++)
        if (!(s->tokens[i] >= 1 && s->tokens[i] <= MOST_TOKENS) ||
            s->tokens[i] != floor(s->tokens[i]))
            argp_error(state, "--tokens: expected integers from 1 to %d, found %.10g", MOST_TOKENS,
                       s->tokens[i]);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    const struct fkv_policy *policy;
    struct fkv_error err;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &s->policy; return 0;
    case OPT_CONFIG: s->config = arg; return 0;
    case OPT_TRAINED_CONTEXT:
        s->trained_context =
            (int32_t)fkv_integer_option(state, arg, "--trained-context", 1, MOST_TOKENS);
        return 0;
    case OPT_TOKENS: set_tokens(s, arg, state); return 0;
    case OPT_BLOCK:
        s->policy.prefill_block =
            (int32_t)fkv_integer_option(state, arg, "--block", 1, MOST_TOKENS);
        return 0;
    case OPT_SWEEP:
        if (fkv_sweep_parse(arg, &s->sweep, &err)) argp_error(state, "%s", err.message);
        return 0;
    case FKV_LETTER_JSON: s->json = true; return 0;
    case ARGP_KEY_END:
        if (!s->config) argp_error(state, "--config is missing");
        if (s->sweep.count && s->policy.gamma)
            argp_error(state, "give --gamma or --sweep, not both");
        policy = fkv_policy_find(s->policy.name, NULL);
        if (s->sweep.count && policy && !policy->takes_ratio)
            argp_error(state, "--sweep gamma: the policy %s has no ratio", policy->name);
        if (s->policy.prefill_block && policy && !policy->select)
            argp_error(state, "--block: the policy %s takes no notice of blocks", policy->name);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&fkv_policy_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

static void print_row(const struct fkv_cost_row *row) {
    char cache[16], peak[16], gamma[16] = "-";
    fkv_format_bytes(cache, row->cache_bytes);
    fkv_format_bytes(peak, row->peak_bytes);
    if (!isnan(row->gamma)) snprintf(gamma, sizeof gamma, "%.4g", row->gamma);
    printf("%10lld %6s %12.5g %12.4g %12.5g %10s %10s\n", (long long)row->tokens, gamma,
           row->operations / 1e12, row->compression_operations / 1e12, row->compressions, cache,
           peak);
}

static json_t *row_json(const struct fkv_cost_row *row, const char *policy, int64_t weight_bytes) {
    return json_pack("{s:I, s:s, s:o, s:f, s:f, s:f, s:I, s:I, s:I}", "tokens",
                     (json_int_t)row->tokens, "policy", policy, "gamma",
                     fkv_json_number(row->gamma), "tflops", row->operations / 1e12,
                     "compression_tflops", row->compression_operations / 1e12, "compressions",
                     row->compressions, "cache_bytes", (json_int_t)row->cache_bytes, "weight_bytes",
                     (json_int_t)weight_bytes, "peak_bytes", (json_int_t)row->peak_bytes);
}

/* All rows, to `rows` or where it is NULL to stdout. */
static int work_out(struct settings *s, const struct fkv_model_size *size, json_t *rows,
                    struct fkv_error *err) {
    const int points = s->sweep.count ? s->sweep.count : 1;
    for (int t = 0; t < s->token_count; t++)
        for (int i = 0; i < points; i++) {
            struct fkv_point point;
            struct fkv_cost_row row;
            if (s->sweep.count) {
                if (fkv_sweep_name(&s->sweep, NULL, i, &point, err)) return FKV_FAILED;
                s->policy.gamma = point.name;
            }
            if (fkv_cost_work_out(size, &s->policy, (int64_t)s->tokens[t], &row, err))
                return FKV_FAILED;
            if (rows)
                json_array_append_new(rows, row_json(&row, s->policy.name, size->weight_bytes));
            else
                print_row(&row);
        }
    return FKV_OK;
}

static int run(struct settings *s, struct fkv_error *err) {
    struct fkv_model_size size;
    if (fkv_model_size_read(s->config, s->trained_context, &size, err)) return FKV_FAILED;
    if (!s->token_count) {
        s->tokens = malloc(sizeof *s->tokens);
        if (!s->tokens) return fkv_fail(err, "out of memory");
        s->tokens[s->token_count++] = size.config.trained_context;
    }
    json_t *rows = s->json ? json_array() : NULL;
    if (!s->json) {
        char weights[16];
        fkv_format_bytes(weights, size.weight_bytes);
        printf("%s, %.4g weights in products per token, %s of weights\n", s->policy.name,
               size.product_weights, weights);
        printf("%10s %6s %12s %12s %12s %10s %10s\n", "tokens", "gamma", "TFLOPs", "of them DCT",
               "compressions", "cache", "peak");
    }
    if (work_out(s, &size, rows, err)) {
        json_decref(rows);
        return FKV_FAILED;
    }
    return rows ? fkv_json_print(json_pack("{s:o}", "rows", rows), err) : FKV_OK;
}

int fkv_command_cost(int argc, char **argv) {
    struct settings s = {0};
    struct fkv_error err = {0};
    struct fkv_operator_data operator_data = {0};
    fkv_policy_options_default(&s.policy);
    argp_parse(&parser, argc, argv, 0, NULL, &s);
    int status = fkv_operator_data_read(&s.policy, &operator_data, &err);
    if (!status) status = run(&s, &err);
    fkv_operator_data_free(&operator_data);
    free(s.tokens);
    fkv_sweep_free(&s.sweep);
    return status ? fkv_tool_failed("freqkv-replay cost", &err) : FKV_EXIT_DONE;
}
