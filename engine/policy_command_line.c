/* The options of cache policies: --policy, what every policy is asked with (--window, --budget,
 * --sinks, --gamma), and the own options of each, which come from the policies' tables. An own
 * option that the chosen policy does not take is refused; window, sinks and ratio may be given to
 * all, because a loop over policies does. */
#include <stdlib.h>
#include <string.h>

#include "engine/command_line.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"

enum { OPT_BUDGET = FKV_NO_LETTER, OPT_QUANT, OPT_QUANT_KEYS, OPT_OWN };
enum { COMMON = 8, MOST_OWN = 64, TEXT = 8192 };

/* Own options of all policies by name, each once; row i of it has the key OPT_OWN + i. */
static const struct fkv_policy_option *own[MOST_OWN];
static int own_count;
static struct argp_option options[COMMON + MOST_OWN + 1];
static char help[TEXT];

static int find_own(const char *name) {
    for (int i = 0; i < own_count; i++)
        if (!strcmp(own[i]->name, name)) return i;
    return -1;
}

static bool is_common(const char *name) {
    for (int i = 1; i < COMMON; i++)
        if (!strcmp(options[i].name, name)) return true;
    return false;
}

/* After the common options, which a policy may have as its own as well: the budget. */
static void collect_own(void) {
    own_count = 0;
    for (int p = 0; fkv_policies[p]; p++)
        for (const struct fkv_policy_option *o = fkv_policies[p]->options; o && o->name; o++)
            if (find_own(o->name) < 0 && !is_common(o->name) && own_count < MOST_OWN)
                own[own_count++] = o;
}

/* "full (default), freqkv, local, streaming" */
static void print_policies(FILE *f) {
    for (int p = 0; fkv_policies[p]; p++) {
        const char *name = fkv_policies[p]->name;
        fprintf(f, "%s%s%s", p ? ", " : "", name,
                strcmp(name, fkv_full_attention.name) ? "" : " (default)");
    }
}

static bool takes_own(const struct fkv_policy *policy, const char *option) {
    for (const struct fkv_policy_option *o = policy->options; o && o->name; o++)
        if (!strcmp(o->name, option)) return true;
    return false;
}

/* The policies that take an own option, or (NULL) a ratio: "freqkv, local". */
static void print_takers(FILE *f, const char *option) {
    bool first = true;
    for (int p = 0; fkv_policies[p]; p++) {
        const struct fkv_policy *policy = fkv_policies[p];
        if (!(option ? takes_own(policy, option) : policy->takes_ratio)) continue;
        fprintf(f, "%s%s", first ? "" : ", ", policy->name);
        first = false;
    }
}

/* Ends a help text; the next one starts where it returns. */
static const char *end_text(FILE *f, const char *text) {
    putc(0, f);
    fflush(f);
    return text;
}

static void fill_options(void) {
    FILE *f = fmemopen(help, sizeof help, "w");
    const int group = 4;
    if (!f) return;
    const char *at = help;
    print_policies(f);
    fputs("; freqkv-replay policies says more", f);
    const char *policy = end_text(f, at);
    at = help + ftell(f);
    print_takers(f, NULL);
    fputs(": ratio (default 0.5), one per layer G0,G1,... or @gamma.json", f);
    const char *gamma = end_text(f, at);
    const struct argp_option common[COMMON] = {
        {0, 0, 0, 0, "Cache policy:", group},
        {"policy", FKV_LETTER_POLICY, "NAME", 0, policy, group},
        {"window", FKV_LETTER_WINDOW, "N", 0,
         "cache slots with sinks (default: trained context); layers that slide over fewer are "
         "left alone",
         group},
        {"budget", OPT_BUDGET, "SLOTS", 0,
         "slots that a head may hold: another name of --window; of policies that select, what "
         "stays after a prefill block (default there: half the trained context)",
         group},
        {"sinks", FKV_LETTER_SINKS, "S", 0, "first tokens, never compressed (default 4)", group},
        {"gamma", FKV_LETTER_GAMMA, "G", 0, gamma, group},
        {"cache-quant", OPT_QUANT, "q8|q4", 0,
         "round keys and values to this grid, to measure its damage, not its speed", group},
        {"cache-quant-keys", OPT_QUANT_KEYS, "before|after", 0,
         "round keys before or after RoPE (default after)", group},
    };
    memcpy(options, common, sizeof common);
    collect_own();
    for (int i = 0; i < own_count; i++) {
        at = help + ftell(f);
        print_takers(f, own[i]->name);
        fprintf(f, ": %s", own[i]->help);
        fkv_own_print_standard(f, own[i]);
        options[COMMON + i] = (struct argp_option){
            own[i]->name, OPT_OWN + i, own[i]->argument, 0, end_text(f, at), group};
    }
    options[COMMON + own_count] = (struct argp_option){0};
    fclose(f);
}

void fkv_policy_options_default(struct fkv_policy_options *o) {
    *o = (struct fkv_policy_options){.sinks = -1};
    fill_options();
}

/* Ratios that can be read at all; what they are is checked against the model. */
static void check_ratios(const char *text, struct argp_state *state) {
    struct fkv_error err;
    double *values;
    int count;
    if (!strcmp(text, "@")) argp_error(state, "--gamma: expected @gamma.json, found \"@\"");
    if (*text == '@') return;
    if (fkv_parse_range(text, "--gamma", &values, &count, &err))
        argp_error(state, "%s", err.message);
    free(values);
}

static int64_t choice_of(const struct fkv_policy_option *option, const char *text,
                         struct argp_state *state) {
    int bytes;
    for (int64_t i = option->low; i <= option->high; i++) {
        const char *word = fkv_own_word(option, i, &bytes);
        if (strlen(text) == (size_t)bytes && !strncmp(text, word, (size_t)bytes)) return i;
    }
    argp_error(state, "--%s: expected %s, found \"%s\"", option->name, option->argument, text);
    return option->standard;
}

static int64_t value_of(const struct fkv_policy_option *option, const char *text,
                        struct argp_state *state) {
    char what[64];
    snprintf(what, sizeof what, "--%s", option->name);
    if (option->kind == FKV_OPTION_FLAG) return 1;
    if (option->kind == FKV_OPTION_INTEGER)
        return fkv_integer_option(state, text, what, option->low, option->high);
    if (option->kind == FKV_OPTION_CHOICE) return choice_of(option, text, state);
    if (strcmp(text, "on") && strcmp(text, "off"))
        argp_error(state, "%s: expected on or off, found \"%s\"", what, text);
    return !strcmp(text, "on");
}

/* The last value given counts. */
static void set_own(struct fkv_policy_options *o, const struct fkv_policy_option *option,
                    const char *text, struct argp_state *state) {
    int i = 0;
    while (i < FKV_OWN_OPTIONS && o->own[i].name && strcmp(o->own[i].name, option->name)) i++;
    if (i == FKV_OWN_OPTIONS)
        argp_error(state, "--%s: no policy takes so many options", option->name);
    o->own[i] = option->kind == FKV_OPTION_TEXT
                    ? (struct fkv_own_value){.name = option->name, .text = text}
                    : (struct fkv_own_value){option->name, value_of(option, text, state), NULL};
}

static enum fkv_quant quant_of(const char *text, struct argp_state *state) {
    enum fkv_quant quant = FKV_NO_QUANT;
    if (fkv_quant_parse(text, &quant) || !quant)
        argp_error(state, "--cache-quant: expected q8 or q4, found \"%s\"", text);
    return quant;
}

static bool is_before(const char *text, struct argp_state *state) {
    if (strcmp(text, "before") && strcmp(text, "after"))
        argp_error(state, "--cache-quant-keys: expected before or after, found \"%s\"", text);
    return !strcmp(text, "before");
}

static void check_options(struct fkv_policy_options *o, struct argp_state *state) {
    struct fkv_error err = {0};
    if (o->quant_before && !o->quant)
        argp_error(state, "--cache-quant-keys before: expected --cache-quant, too");
    if (!o->name && o->gamma)
        argp_error(state, "--gamma: full attention, the default, keeps no ratio; expected --policy "
                          "with one that does");
    if (!o->name) o->name = fkv_full_attention.name;
    const struct fkv_policy *policy = fkv_policy_find(o->name, &err);
    if (!policy || fkv_own_set(policy->name, policy->options, o->own, NULL, NULL, &err) ||
        fkv_policy_check_budget(o, &err))
        argp_error(state, "%s", err.message);
    if (policy->takes_table && o->gamma)
        argp_error(state, "--gamma: policy %s takes its ratios from --table", policy->name);
    if (policy->takes_window && o->budget) o->window = o->budget;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct fkv_policy_options *o = state->input;
    struct fkv_error err;
    if (key >= OPT_OWN && key < OPT_OWN + own_count) {
        set_own(o, own[key - OPT_OWN], arg, state);
        return 0;
    }
    switch (key) {
    case FKV_LETTER_POLICY:
        if (!fkv_policy_find(arg, &err)) argp_error(state, "%s", err.message);
        o->name = arg;
        return 0;
    case FKV_LETTER_WINDOW:
        o->window = (int32_t)fkv_integer_option(state, arg, "--window", 1, 1 << 28);
        return 0;
    case OPT_BUDGET:
        o->budget = (int32_t)fkv_integer_option(state, arg, "--budget", 1, 1 << 28);
        return 0;
    case FKV_LETTER_SINKS:
        o->sinks = (int32_t)fkv_integer_option(state, arg, "--sinks", 0, 1 << 28);
        return 0;
    case FKV_LETTER_GAMMA:
        check_ratios(arg, state);
        o->gamma = arg;
        return 0;
    case OPT_QUANT: o->quant = quant_of(arg, state); return 0;
    case OPT_QUANT_KEYS: o->quant_before = is_before(arg, state); return 0;
    case ARGP_KEY_END: check_options(o, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fkv_policy_argp = {.options = options, .parser = parse};

/* A note of the layers that slide over fewer than `slots` tokens, the least of their windows among
 * it. */
static void note_sliding(const struct fkv_config *c, int64_t slots, const char *what, FILE *to) {
    int32_t count = 0, window = INT32_MAX;
    for (int32_t l = 0; l < c->layers; l++) {
        const int32_t own = c->layer[l].window;
        if (!own || own >= slots) continue;
        count++;
        if (own < window) window = own;
    }
    if (to && count)
        fprintf(to, "note: %d of %d layers slide over %d tokens by themselves: %s\n", count,
                c->layers, window, what);
}

void fkv_policy_note_left_alone(const struct fkv_policy_setup *setup, const struct fkv_config *c,
                                FILE *to) {
    if (setup->policy->takes_window)
        note_sliding(c, setup->window, "the policy leaves them alone", to);
}

void fkv_note_changed_beyond(const struct fkv_config *c, int64_t slots, FILE *to) {
    note_sliding(c, slots,
                 "changes also act on slots that their queries no longer see, and `lost` counts "
                 "those",
                 to);
}

void fkv_policy_note_unused(const struct fkv_policy_options *o, FILE *to) {
    const struct fkv_policy *policy = fkv_policy_find(o->name, NULL);
    if (!to || !policy) return;
    if (!policy->takes_window && (o->window || o->sinks >= 0))
        fprintf(to, "note: policy %s has no window: --window and --sinks are not used\n",
                policy->name);
    if (policy->without_sinks && o->sinks >= 0)
        fprintf(to, "note: policy %s has no sinks: --sinks is not used\n", policy->name);
    if (!policy->takes_ratio && o->gamma)
        fprintf(to, "note: policy %s keeps no ratio: --gamma is not used\n", policy->name);
}

void fkv_policy_note_quant(const struct fkv_policy_options *o, FILE *to) {
    if (to && o->quant)
        fprintf(to,
                "keys, %s RoPE, and values are rounded to %s; cache bytes are those of such a "
                "cache\n",
                o->quant_before ? "before" : "after", fkv_quant_name(o->quant));
}
