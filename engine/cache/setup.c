/* Turning what the user asked for into a setup. Owns every check of window, sinks and ratios, so
 * that policies and session can take them for granted. */
#include "engine/cache/setup.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cache/policies/selecting.h"
#include "engine/cache/ratios.h"

static int set_own_options(const struct fkv_policy_options *options, struct fkv_policy_setup *setup,
                           struct fkv_error *err) {
    const struct fkv_policy *policy = setup->policy;
    if (fkv_own_set(policy->name, policy->options, options->own, setup->own, setup->own_texts, err))
        return FKV_FAILED;
    setup->operator_data = options->operator_data;
    if (policy->recent) setup->recent = policy->recent(setup);
    return FKV_OK;
}

/* Adds ", q4 cache" to the label; ", q4 cache, keys before RoPE" where they are rounded there. */
static int add_quant_to_label(struct fkv_policy_setup *setup) {
    enum { MOST = 40 };
    if (!setup->quant) return FKV_OK;
    const size_t length = strlen(setup->label);
    char *longer = realloc(setup->label, length + MOST);
    if (!longer) return FKV_FAILED;
    setup->label = longer;
    snprintf(longer + length, MOST, ", %s cache%s", fkv_quant_name(setup->quant),
             setup->quant_before ? ", keys before RoPE" : "");
    return FKV_OK;
}

/* After the policy has put its defaults in place. */
static int set_texts(struct fkv_policy_setup *setup, struct fkv_error *err) {
    const struct fkv_policy *policy = setup->policy;
    setup->own_text = fkv_own_text(policy->options, setup->own, setup->own_texts);
    setup->label = fkv_own_label(policy->name, policy->options, setup->own, setup->own_texts);
    return setup->own_text && setup->label && !add_quant_to_label(setup)
               ? FKV_OK
               : fkv_fail(err, "policy %s: out of memory", policy->name);
}

/* --budget is N of a policy with a window, and the first own option of one that selects. */
int fkv_policy_check_budget(const struct fkv_policy_options *options, struct fkv_error *err) {
    const struct fkv_policy *policy = fkv_policy_find(options->name, err);
    if (!policy) return FKV_FAILED;
    if (!options->budget || policy->select) return FKV_OK;
    if (policy->keeps_every_token)
        return fkv_fail_option(err, "--budget: policy %s keeps every token: it has no budget",
                               policy->name);
    if (options->window && options->window != options->budget)
        return fkv_fail_option(
            err,
            "--budget: policy %s holds as many slots as its window: expected --window or "
            "--budget, or the same for both, found %d and %d",
            policy->name, options->window, options->budget);
    return FKV_OK;
}

static int set_budget(const struct fkv_policy_options *options, struct fkv_policy_setup *setup,
                      struct fkv_error *err) {
    if (fkv_policy_check_budget(options, err)) return FKV_FAILED;
    if (!options->budget) return FKV_OK;
    if (setup->policy->select)
        setup->own[FKV_BUDGET] = options->budget;
    else
        setup->window = options->budget;
    return FKV_OK;
}

static int check_window(struct fkv_policy_setup *setup, struct fkv_error *err) {
    if (setup->window <= setup->sinks + setup->recent)
        return fkv_fail_option(
            err, "--window: expected more than the %d sinks%s, found %d", setup->sinks,
            setup->recent ? " and the --recent slots together" : "", setup->window);
    return FKV_OK;
}

/* The policy of head `h` of a table; where it takes no ratio, the head has none. */
static int set_head_policy(struct fkv_policy_setup *setup, struct fkv_ratios *ratios, int32_t h,
                           struct fkv_error *err) {
    const int32_t layer = h / setup->kv_heads, kv_head = h % setup->kv_heads;
    const char *name = ratios->policy[h].name;
    char known[128] = "";
    for (int i = 0; fkv_policies[i]; i++) {
        const struct fkv_policy *policy = fkv_policies[i];
        if (!policy->mixes) continue;
        const size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "", policy->name);
        if (!strcmp(name, policy->name)) setup->head_policies[h] = policy;
    }
    const struct fkv_policy *found = setup->head_policies[h];
    if (!found)
        return fkv_fail(err, "%s: policy[%d][%d]: expected one of %s, found \"%s\"", ratios->where,
                        layer, kv_head, known, name);
    if (!found->takes_ratio)
        ratios->gamma[h] = NAN;
    else if (isnan(ratios->gamma[h]))
        return fkv_fail(err,
                        "%s: gamma[%d][%d]: expected a ratio, which policy %s takes, found none",
                        ratios->where, layer, kv_head, name);
    return FKV_OK;
}

static int set_head_policies(struct fkv_policy_setup *setup, struct fkv_ratios *ratios,
                             struct fkv_error *err) {
    const int32_t heads = setup->layers * setup->kv_heads;
    if (!setup->policy->takes_table)
        return ratios->policy
                   ? fkv_fail(err,
                              "%s: policy: expected no table of policies (--policy mixed "
                              "--table takes one), found one",
                              ratios->where)
                   : FKV_OK;
    if (!ratios->policy)
        return fkv_fail(err, "%s: policy: expected a table [layer][kv_head], found nothing",
                        ratios->where);
    setup->head_policies = calloc((size_t)heads, sizeof *setup->head_policies);
    if (!setup->head_policies)
        return fkv_fail(err, "policy %s: out of memory", setup->policy->name);
    for (int32_t h = 0; h < heads; h++)
        if (set_head_policy(setup, ratios, h, err)) return FKV_FAILED;
    return FKV_OK;
}

/* What stands for --table in files: basename and hash, for local paths are not published. */
static int name_table(struct fkv_policy_setup *setup, struct fkv_error *err) {
    enum { NAME = 64, DIGITS = 16, BYTES = NAME + DIGITS + 2 };
    const char *path = setup->own_texts[FKV_TABLE], *slash = strrchr(path, '/');
    fkv_sha256_hex hash;
    if (!*path)
        return fkv_fail_option(err,
                               "--table: policy %s needs one, expected POLICIES.json, found "
                               "none",
                               setup->policy->name);
    if (fkv_sha256_files(&path, 1, hash, err)) return fkv_error_prefix(err, "--table");
    setup->table_text = malloc(BYTES);
    if (!setup->table_text) return fkv_fail(err, "policy %s: out of memory", setup->policy->name);
    snprintf(setup->table_text, BYTES, "%.*s@%.*s", NAME, slash ? slash + 1 : path, DIGITS, hash);
    setup->own_texts[FKV_TABLE] = setup->table_text;
    return FKV_OK;
}

static int read_ratios(const struct fkv_policy_options *options, struct fkv_policy_setup *setup,
                       struct fkv_ratios *ratios, struct fkv_error *err) {
    const char *path = setup->own_texts[FKV_TABLE];
    if (!setup->policy->takes_table)
        return fkv_ratios_read(options->gamma ? options->gamma : "0.5", setup->layers,
                               setup->kv_heads, ratios, err);
    if (name_table(setup, err)) return FKV_FAILED;
    return fkv_ratios_read_table(path, setup->layers, setup->kv_heads, ratios, err);
}

/* Ratios with their n: the table may bring window and sinks of its own, so it is read before they
 * are final. */
static int resolve_ratios(const struct fkv_policy_options *options, struct fkv_policy_setup *setup,
                          struct fkv_error *err) {
    struct fkv_ratios ratios;
    const bool window_given = options->window || options->budget;
    if (read_ratios(options, setup, &ratios, err)) return FKV_FAILED;
    int status = FKV_FAILED;
    if (!window_given && ratios.window) setup->window = ratios.window;
    if (options->sinks < 0 && ratios.sinks >= 0) setup->sinks = ratios.sinks;
    setup->compressible = setup->window - setup->sinks - setup->recent;
    if (ratios.window && ratios.window != setup->window)
        fkv_fail(err, "%s: window: expected %d as in --window, found %d", ratios.where,
                 setup->window, ratios.window);
    else if (ratios.sinks >= 0 && ratios.sinks != setup->sinks)
        fkv_fail(err, "%s: sinks: expected %d as in --sinks, found %d", ratios.where, setup->sinks,
                 ratios.sinks);
    else if (!check_window(setup, err) && !set_head_policies(setup, &ratios, err))
        status =
            fkv_ratios_retained(&ratios, setup->compressible, &setup->retained, &setup->gamma, err);
    fkv_ratios_free(&ratios);
    return status;
}

static int set_layer_windows(const struct fkv_config *config, struct fkv_policy_setup *setup,
                             struct fkv_error *err) {
    setup->layer_windows = calloc((size_t)config->layers, sizeof *setup->layer_windows);
    if (!setup->layer_windows)
        return fkv_fail(err, "policy %s: out of memory", setup->policy->name);
    for (int32_t l = 0; l < config->layers; l++) setup->layer_windows[l] = config->layer[l].window;
    return FKV_OK;
}

/* A policy that leaves every layer alone is asked for by mistake. */
static int check_layers(const struct fkv_policy_setup *setup, struct fkv_error *err) {
    int32_t widest = 0;
    for (int32_t l = 0; l < setup->layers; l++) {
        if (fkv_policy_of_layer(setup, l) == setup->policy) return FKV_OK;
        if (setup->layer_windows[l] > widest) widest = setup->layer_windows[l];
    }
    if (setup->policy->select)
        return fkv_fail_option(err,
                               "policy %s: would change nothing: every layer of the model slides "
                               "over a window of its own, of at most %d tokens",
                               setup->policy->name, widest);
    return fkv_fail_option(err,
                           "--window: expected at most %d, the window that every layer of the "
                           "model has by itself (policy %s would change nothing), found %d",
                           widest, setup->policy->name, setup->window);
}

int fkv_policy_setup(const struct fkv_policy_options *options, const struct fkv_config *config,
                     int64_t max_tokens, struct fkv_policy_setup *setup, struct fkv_error *err) {
    *setup = (struct fkv_policy_setup){.layers = config->layers,
                                       .kv_heads = config->kv_heads,
                                       .window = options->window ? options->window
                                                                 : config->trained_context,
                                       .sinks = options->sinks < 0 ? 4 : options->sinks,
                                       .trained_context = config->trained_context,
                                       .prefill_block = options->prefill_block,
                                       .quant = options->quant,
                                       .quant_before = options->quant_before,
                                       .gamma = NAN};
    setup->policy = fkv_policy_find(options->name, err);
    if (!setup->policy) return FKV_FAILED;
    setup->max_spans = setup->policy->max_spans;
    if (setup->policy->without_sinks) setup->sinks = 0;
    if (set_own_options(options, setup, err) || set_layer_windows(config, setup, err)) goto failed;
    const bool ratios = setup->policy->takes_ratio || setup->policy->takes_table;
    if (set_budget(options, setup, err)) goto failed;
    if (ratios && resolve_ratios(options, setup, err)) goto failed;
    if (!ratios && setup->policy->takes_window && check_window(setup, err)) goto failed;
    setup->compressible = setup->window - setup->sinks - setup->recent;
    setup->most_seen = setup->policy->takes_window ? setup->window : INT32_MAX;
    if (check_layers(setup, err)) goto failed;
    if (!setup->policy->prepare(setup, max_tokens, err) && !set_texts(setup, err)) return FKV_OK;
failed:
    fkv_policy_setup_free(setup);
    return FKV_FAILED;
}

void fkv_policy_setup_free(struct fkv_policy_setup *setup) {
    free(setup->retained);
    free(setup->layer_windows);
    free(setup->own_text);
    free(setup->label);
    free(setup->head_policies);
    free(setup->table_text);
    free(setup->parts);
    *setup = (struct fkv_policy_setup){0};
}

size_t fkv_policy_state_bytes(const struct fkv_policy_setup *setup, int32_t head_dim,
                              enum fkv_dtype dtype) {
    return setup->quant ? fkv_quant_bytes(setup->quant, (size_t)head_dim)
                        : (size_t)head_dim * fkv_dtype_bytes(dtype);
}

int32_t fkv_policy_period(const struct fkv_policy_setup *setup, int32_t head) {
    return setup->retained ? setup->compressible - setup->retained[head] : 0;
}

/* Slots that the queries of t tokens see, each `window` at most. */
static double within_window(double t, double window) {
    return t <= window ? t * (t + 1) / 2 : window * (window + 1) / 2 + (t - window) * window;
}

/* The same under the policy, by the mean period of its heads. */
static double under_policy(const struct fkv_policy_setup *setup, double t) {
    const double n = setup->most_seen;
    if (t <= n) return t * (t + 1) / 2;
    double fewest = n; /* that a query sees: after an action, with its own */
    if (setup->retained) {
        double period = 0;
        const int32_t heads = setup->layers * setup->kv_heads;
        for (int32_t h = 0; h < heads; h++) period += fkv_policy_period(setup, h);
        fewest = n + 1 - period / heads;
    }
    return n * (n + 1) / 2 + (t - n) * (fewest + n) / 2;
}

double fkv_policy_slots(const struct fkv_policy_setup *setup, int64_t tokens) {
    const double t = (double)tokens, policy = under_policy(setup, t);
    double sum = 0;
    for (int32_t l = 0; l < setup->layers; l++) {
        const double own =
            setup->layer_windows[l] ? within_window(t, setup->layer_windows[l]) : policy;
        sum += own < policy ? own : policy;
    }
    return sum / setup->layers;
}
