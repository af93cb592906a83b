/* The policy table, and turning what the user asked for into a setup. Owns every check of window, sinks and ratios, so that policies and session can
 * take them for granted. */
#include "engine/policy.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/policies/policies.h"
#include "engine/ratios.h"

const struct fkv_policy *const fkv_policies[] = {
    &fkv_policy_full, &fkv_policy_freqkv, &fkv_policy_local, &fkv_policy_streaming, NULL,
};

const struct fkv_policy *fkv_policy_find(const char *name, struct fkv_error *err) {
    char known[256] = "";
    for (int i = 0; fkv_policies[i]; i++) {
        if (!strcmp(name, fkv_policies[i]->name)) return fkv_policies[i];
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", fkv_policies[i]->name);
    }
    fkv_fail_option(err, "--policy: expected one of %s, found \"%s\"", known, name);
    return NULL;
}

/* ---- options of a policy's own ---- */

static const struct fkv_policy_option *options_of(const struct fkv_policy *policy) {
    static const struct fkv_policy_option none = {0};
    return policy->options ? policy->options : &none;
}

int fkv_policy_option_check(const struct fkv_policy_option *option, int64_t value, struct fkv_error *err) {
    const int64_t low = option->kind == FKV_OPTION_INTEGER ? option->low : 0,
                  high = option->kind == FKV_OPTION_INTEGER ? option->high : 1;
    if (value >= low && value <= high) return FKV_OK;
    return fkv_fail_option(err, "--%s: expected a number from %" PRId64 " to %" PRId64 ", found %" PRId64, option->name, low,
                    high, value);
}

static int refuse_option(const struct fkv_policy *policy, const char *name, struct fkv_error *err) {
    char own[256] = "";
    for (const struct fkv_policy_option *o = options_of(policy); o->name; o++) {
        size_t used = strlen(own);
        snprintf(own + used, sizeof own - used, "%s--%s", used ? ", " : "", o->name);
    }
    return fkv_fail_option(err, "--%s: policy %s does not take it%s%s", name, policy->name,
                    *own ? "; its own options are " : "; it has no options of its own", own);
}

int fkv_policy_options_check(const struct fkv_policy *policy, const struct fkv_own_value *own, struct fkv_error *err) {
    for (int i = 0; i < FKV_OWN_OPTIONS && own[i].name; i++) {
        const struct fkv_policy_option *o = options_of(policy);
        while (o->name && strcmp(o->name, own[i].name)) o++;
        if (!o->name) return refuse_option(policy, own[i].name, err);
        if (fkv_policy_option_check(o, own[i].value, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

void fkv_policy_option_key(const struct fkv_policy_option *option, char key[32]) {
    snprintf(key, 32, "%s", option->name);
    for (char *c = key; *c; c++)
        if (*c == '-') *c = '_';
}

/* Writes the value of one option as a user would give it. */
static void print_value(FILE *f, const struct fkv_policy_option *option, int64_t value) {
    if (option->kind == FKV_OPTION_INTEGER)
        fprintf(f, "%" PRId64, value);
    else
        fputs(value ? "on" : "off", f);
}

static char *own_text(const struct fkv_policy_setup *setup) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    const struct fkv_policy_option *o = options_of(setup->policy);
    for (int i = 0; o[i].name; i++) {
        fprintf(f, "%s%s=", i ? " " : "", o[i].name);
        print_value(f, &o[i], setup->own[i]);
    }
    fclose(f);
    return text;
}

static char *label(const struct fkv_policy_setup *setup) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    fputs(setup->policy->name, f);
    const struct fkv_policy_option *o = options_of(setup->policy);
    for (int i = 0; o[i].name; i++) {
        if (setup->own[i] == o[i].standard) continue;
        fprintf(f, ", %s", o[i].name);
        if (o[i].kind == FKV_OPTION_FLAG) continue;
        fputc(' ', f);
        print_value(f, &o[i], setup->own[i]);
    }
    fclose(f);
    return text;
}

static int set_own_options(const struct fkv_policy_options *options, struct fkv_policy_setup *setup,
                           struct fkv_error *err) {
    if (fkv_policy_options_check(setup->policy, options->own, err)) return FKV_FAILED;
    const struct fkv_policy_option *o = options_of(setup->policy);
    for (int i = 0; o[i].name; i++) {
        setup->own[i] = o[i].standard;
        for (int k = 0; k < FKV_OWN_OPTIONS && options->own[k].name; k++)
            if (!strcmp(options->own[k].name, o[i].name)) setup->own[i] = options->own[k].value;
    }
    if (setup->policy->recent) setup->recent = setup->policy->recent(setup);
    setup->own_text = own_text(setup);
    setup->label = label(setup);
    return setup->own_text && setup->label ? FKV_OK : fkv_fail(err, "policy %s: out of memory", setup->policy->name);
}

/* ---- window and ratios ---- */

static int check_window(struct fkv_policy_setup *setup, struct fkv_error *err) {
    if (setup->window <= setup->sinks + setup->recent)
        return fkv_fail_option(err, "--window: expected more than the %d sinks%s, found %d", setup->sinks,
                        setup->recent ? " and the --recent slots together" : "", setup->window);
    return FKV_OK;
}

/* Ratios with their n: the table may bring window and sinks of its own, so it is read before they are final. */
static int resolve_ratios(const struct fkv_policy_options *options, const struct fkv_config *config,
                          struct fkv_policy_setup *setup, struct fkv_error *err) {
    struct fkv_ratios ratios;
    if (fkv_ratios_read(options->gamma ? options->gamma : "0.5", config->layers, config->kv_heads, &ratios, err))
        return FKV_FAILED;
    int status = FKV_FAILED;
    if (!options->window && ratios.window) setup->window = ratios.window;
    if (options->sinks < 0 && ratios.sinks >= 0) setup->sinks = ratios.sinks;
    setup->compressible = setup->window - setup->sinks - setup->recent;
    if (ratios.window && ratios.window != setup->window)
        fkv_fail(err, "%s: window: expected %d as in --window, found %d", ratios.where, setup->window, ratios.window);
    else if (ratios.sinks >= 0 && ratios.sinks != setup->sinks)
        fkv_fail(err, "%s: sinks: expected %d as in --sinks, found %d", ratios.where, setup->sinks, ratios.sinks);
    else if (!check_window(setup, err))
        status = fkv_ratios_retained(&ratios, setup->compressible, &setup->retained, &setup->gamma, err);
    fkv_ratios_free(&ratios);
    return status;
}

int fkv_policy_setup(const struct fkv_policy_options *options, const struct fkv_config *config, int64_t max_tokens,
                     struct fkv_policy_setup *setup, struct fkv_error *err) {
    *setup = (struct fkv_policy_setup){.layers = config->layers,
                                       .kv_heads = config->kv_heads,
                                       .window = options->window ? options->window : config->trained_context,
                                       .sinks = options->sinks < 0 ? 4 : options->sinks,
                                       .gamma = NAN};
    setup->policy = fkv_policy_find(options->name ? options->name : "full", err);
    if (!setup->policy) return FKV_FAILED;
    if (set_own_options(options, setup, err)) goto failed;
    if (setup->policy->has_gamma && resolve_ratios(options, config, setup, err)) goto failed;
    if (!setup->policy->has_gamma && setup->policy->has_window && check_window(setup, err)) goto failed;
    setup->compressible = setup->window - setup->sinks - setup->recent;
    if (!setup->policy->prepare(setup, max_tokens, err)) return FKV_OK;
failed:
    fkv_policy_setup_free(setup);
    return FKV_FAILED;
}

void fkv_policy_setup_free(struct fkv_policy_setup *setup) {
    free(setup->retained);
    free(setup->own_text);
    free(setup->label);
    setup->retained = NULL;
    setup->own_text = setup->label = NULL;
}

double fkv_policy_slots(const struct fkv_policy_setup *setup, int64_t tokens) {
    const double t = (double)tokens, n = setup->window;
    if (!setup->policy->has_window || t <= n) return t * (t + 1) / 2;
    double fewest = n; /* that a query sees: after an action, with its own */
    if (setup->retained) {
        double retained = 0;
        const int32_t heads = setup->layers * setup->kv_heads;
        for (int32_t h = 0; h < heads; h++) retained += setup->retained[h];
        fewest = n - setup->compressible + retained / heads + 1;
    }
    return n * (n + 1) / 2 + (t - n) * (fewest + n) / 2;
}
