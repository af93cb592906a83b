/* Turning what the user asked for into a setup. Owns every check of window, sinks and ratios, so
 * that policies and session can take them for granted. */
#include "engine/cache/setup.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (setup->label && add_quant_to_label(setup))
        return fkv_fail(err, "policy %s: out of memory", policy->name);
    return setup->own_text && setup->label
               ? FKV_OK
               : fkv_fail(err, "policy %s: out of memory", policy->name);
}

static int check_window(struct fkv_policy_setup *setup, struct fkv_error *err) {
    if (setup->window <= setup->sinks + setup->recent)
        return fkv_fail_option(
            err, "--window: expected more than the %d sinks%s, found %d", setup->sinks,
            setup->recent ? " and the --recent slots together" : "", setup->window);
    return FKV_OK;
}

/* Ratios with their n: the table may bring window and sinks of its own, so it is read before they
 * are final. */
static int resolve_ratios(const struct fkv_policy_options *options, const struct fkv_config *config,
                          struct fkv_policy_setup *setup, struct fkv_error *err) {
    struct fkv_ratios ratios;
    if (fkv_ratios_read(options->gamma ? options->gamma : "0.5", config->layers, config->kv_heads,
                        &ratios, err))
        return FKV_FAILED;
    int status = FKV_FAILED;
    if (!options->window && ratios.window) setup->window = ratios.window;
    if (options->sinks < 0 && ratios.sinks >= 0) setup->sinks = ratios.sinks;
    setup->compressible = setup->window - setup->sinks - setup->recent;
    if (ratios.window && ratios.window != setup->window)
        fkv_fail(err, "%s: window: expected %d as in --window, found %d", ratios.where,
                 setup->window, ratios.window);
    else if (ratios.sinks >= 0 && ratios.sinks != setup->sinks)
        fkv_fail(err, "%s: sinks: expected %d as in --sinks, found %d", ratios.where, setup->sinks,
                 ratios.sinks);
    else if (!check_window(setup, err))
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
    if (set_own_options(options, setup, err) || set_layer_windows(config, setup, err)) goto failed;
    if (setup->policy->takes_ratio && resolve_ratios(options, config, setup, err)) goto failed;
    if (!setup->policy->takes_ratio && setup->policy->takes_window && check_window(setup, err))
        goto failed;
    setup->compressible = setup->window - setup->sinks - setup->recent;
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
    setup->retained = setup->layer_windows = NULL;
    setup->own_text = setup->label = NULL;
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
    const double n = setup->window;
    if (!setup->policy->takes_window || t <= n) return t * (t + 1) / 2;
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
