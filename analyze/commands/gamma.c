/* freqkv-analyze gamma: a retaining ratio per (layer, KV head). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "analyze/commands/command.h"
#include "analyze/measure/attention_error.h"
#include "analyze/measure/gamma.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/arguments.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"

enum {
    OPT_ENERGY = FKV_NO_LETTER,
    OPT_BUDGET,
    OPT_OBJECTIVE,
    OPT_DC,
    OPT_FLOOR,
    OPT_CAP,
    OPT_MIXED
};

struct options {
    struct fkv_cut_options cut;
    struct fkv_ratio_choice choice; /* window 0, sinks -1: those of the segments */
    bool chosen;                    /* a criterion was given */
    struct fkv_ratio_table table;   /* found; owned */
};

static double parse_share(const char *text, const char *option, double low, double high,
                          struct argp_state *state) {
    struct fkv_error err;
    double value = 0;
    if (fkv_parse_double(text, option, low, high, &value, &err))
        argp_error(state, "%s", err.message);
    return value;
}

static void parse_objective(struct options *o, const char *text, struct argp_state *state) {
    int i = 0;
    while (i < FKV_OBJECTIVES && strcmp(text, fkv_objective_names[i])) i++;
    if (i == FKV_OBJECTIVES)
        argp_error(state, "--objective: expected relative, absolute or attention, found \"%s\"",
                   text);
    o->choice.objective = (enum fkv_objective)i;
}

static void parse_criterion(struct options *o, bool budget, const char *text,
                            struct argp_state *state) {
    if (o->chosen) argp_error(state, "expected one of --energy and --budget, once");
    o->choice.by_budget = budget;
    o->choice.target = parse_share(text, budget ? "--budget" : "--energy", 0, 1, state);
    o->chosen = true;
}

/* "energy:TAU" or "worst:P". */
static void parse_mixed(struct options *o, const char *text, struct argp_state *state) {
    static const struct {
        const char *name;
        enum fkv_mixed_rule rule;
    } rules[] = {{"energy:", FKV_MIXED_ENERGY}, {"worst:", FKV_MIXED_WORST}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const size_t length = strlen(rules[i].name);
        if (strncmp(text, rules[i].name, length)) continue;
        o->choice.mixed = rules[i].rule;
        o->choice.mixed_share = parse_share(text + length, "--mixed", 0, 1, state);
        return;
    }
    argp_error(state, "--mixed: expected energy:TAU or worst:P, found \"%s\"", text);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case OPT_ENERGY: parse_criterion(o, false, arg, state); break;
    case OPT_BUDGET: parse_criterion(o, true, arg, state); break;
    case OPT_OBJECTIVE: parse_objective(o, arg, state); break;
    case OPT_DC: o->choice.dc = true; break;
    case OPT_FLOOR: o->choice.floor = parse_share(arg, "--floor", 0, 1, state); break;
    case OPT_CAP: o->choice.cap = parse_share(arg, "--cap", 0, 1, state); break;
    case OPT_MIXED: parse_mixed(o, arg, state); break;
    case FKV_LETTER_WINDOW:
        o->choice.window = (int32_t)fkv_integer_option(state, arg, "--window", 1, 1 << 28);
        break;
    case FKV_LETTER_SINKS:
        o->choice.sinks = (int32_t)fkv_integer_option(state, arg, "--sinks", 0, 1 << 28);
        break;
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->cut; break;
    case ARGP_KEY_END:
        if (!o->chosen) argp_error(state, "expected --energy TAU or --budget G");
        if (o->choice.floor > o->choice.cap)
            argp_error(state, "--floor %g is above --cap %g", o->choice.floor, o->choice.cap);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "A retaining ratio for every layer and KV head, from what each ratio loses.\n\n"
    "Examples:\n"
    "  freqkv-analyze gamma my-capture --out ratios --budget 0.5\n"
    "  freqkv-replay ppl --model M --text T --policy freqkv \\\n"
    "      --gamma @ratios/gamma.json\n"
    "\v"
    "Ratios are k/64. With --energy TAU a head gets the smallest ratio at which its keys and "
    "its values both keep the share TAU of their energy; with --budget G the ratios have a mean "
    "of at most G and the least sum of losses. DC counts as no energy unless --dc is "
    "given.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options_list[] = {
    {"energy", OPT_ENERGY, "TAU", 0, "share of the energy that every head keeps", 0},
    {"budget", OPT_BUDGET, "G", 0, "mean ratio over heads", 0},
    {"objective", OPT_OBJECTIVE, "NAME", 0, "relative (default), absolute or attention", 0},
    {"dc", OPT_DC, NULL, 0, "count DC, the mean over tokens, as energy", 0},
    {"floor", OPT_FLOOR, "G", 0, "no ratio below this", 0},
    {"cap", OPT_CAP, "G", 0, "no ratio above this", 0},
    {"mixed", OPT_MIXED, "RULE", 0,
     "policies.json too, with heads under local: energy:TAU, those that keep less than this share, "
     "or worst:P, the share P of heads that lose most by the objective",
     0},
    {"window", FKV_LETTER_WINDOW, "N", 0, "slots the table is for (default: length + sinks)", 0},
    {"sinks", FKV_LETTER_SINKS, "S", 0, "of them never compressed (default: --skip-sinks)", 0},
    {0},
};
static const struct argp_child children[] = {{&fkv_cut_argp, 0, NULL, 0}, {0}};
static const struct argp parser = {
    options_list, parse, "CAPTURE --out DIR (--energy TAU | --budget G)", doc, children,
    NULL,         NULL};

/* From the products of attention, which dominate: 4 flops per query, token before it and channel,
 * at the 20 Gflop/s that a core of 2023 does. */
static double attention_seconds(const struct fkv_analysis *a) {
    const struct fkv_capture_info *info = fkv_capture_info(a->capture);
    double pairs = 0,
           heads = (double)info->layer_count * fkv_capture_heads(a->capture, FKV_STATE_QUERY);
    for (int32_t i = 0; i < a->plan.recordings; i++) {
        const struct fkv_planned_recording *r = &a->plan.recording[i];
        double queries = a->plan.n < FKV_ATTENTION_QUERIES ? a->plan.n : FKV_ATTENTION_QUERIES;
        pairs += queries *
                 (double)(r->segments * fkv_capture_recording(a->capture, r->recording)->n_tokens) /
                 2;
    }
    return pairs * heads * info->head_dim * 4 * (FKV_RATIO_STEPS + 1) /
           (20e9 * omp_get_max_threads());
}

/* What the table needs of the capture; fills in window and sinks. */
static int check(struct fkv_analysis *a, void *own, double *seconds, struct fkv_error *err) {
    struct options *o = own;
    const struct fkv_capture_info *info = fkv_capture_info(a->capture);
    const uint32_t needed = 1u << FKV_STATE_KEY | 1u << FKV_STATE_VALUE;
    if ((info->states & needed) != needed)
        return fkv_fail(err, "%s: expected keys and values, found %s", o->cut.capture,
                        info->states >> FKV_STATE_KEY & 1     ? "keys alone"
                        : info->states >> FKV_STATE_VALUE & 1 ? "values alone"
                                                              : "neither");
    if (info->layer_count != info->n_layers || info->head_count != info->n_kv_heads)
        return fkv_fail(err,
                        "%s: a table needs every head of the model: expected %d layers of %d KV "
                        "heads, found %d of %d",
                        o->cut.capture, info->n_layers, info->n_kv_heads, info->layer_count,
                        info->head_count);
    a->measured_states = needed;
    if (o->choice.sinks < 0) o->choice.sinks = a->plan.skip_sinks;
    if (!o->choice.window) o->choice.window = a->plan.n + o->choice.sinks;
    int32_t low, high;
    if (fkv_ratio_limits(&o->choice, a->plan.n, &low, &high, err)) return FKV_FAILED;
    if (o->choice.objective != FKV_OBJECTIVE_ATTENTION) return FKV_OK;
    *seconds = attention_seconds(a);
    return fkv_attention_error_check(a->capture, &a->plan, err);
}

/* errors [2]: plain, and projected where the capture has what that takes; of `memory` */
static int measure_attention(struct fkv_analysis *a, struct fkv_memory *memory, double *errors[2],
                             struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(a->capture);
    size_t heads = (size_t)info->layer_count * (size_t)info->head_count;
    const bool projected = fkv_capture_output_gram(a->capture);
    for (int i = 0; i < 1 + projected; i++)
        errors[i] = fkv_memory_take(memory, heads * (FKV_RATIO_STEPS + 1), sizeof **errors);
    if (memory->failed) return fkv_fail(err, "out of memory for %zu heads", heads);
    if (!projected && !a->o->common.quiet)
        fprintf(stderr, "no objective_projected: the capture holds no output projection "
                        "(output_gram; freqkv-capture "
                        "--resume adds it)\n");
    fkv_analysis_progress(a, "segments", a->plan.segments * info->layer_count);
    int status = fkv_attention_error_measure(&a->m, errors[0], errors[1], err);
    fkv_progress_finish(&a->progress);
    return status;
}

static int find(struct fkv_analysis *a, void *own, struct fkv_error *err) {
    struct options *o = own;
    struct fkv_memory memory = {0};
    double *attention[2] = {NULL};
    int status = FKV_OK;
    if (o->choice.objective == FKV_OBJECTIVE_ATTENTION)
        status = measure_attention(a, &memory, attention, err);
    if (!status)
        status = fkv_ratio_table_make(&o->choice, &a->spectra[0], &a->spectra[1], attention[0],
                                      attention[1], &o->table, err);
    fkv_memory_free(&memory);
    a->findings.ratios = &o->table;
    return status;
}

static int write_table(struct fkv_analysis *a, void *own, struct fkv_error *err) {
    const struct options *o = own;
    return fkv_ratio_table_write(a->o->common.out, &o->table, a->capture, &a->plan, &a->provenance,
                                 err);
}

int fkv_command_gamma(int argc, char **argv) {
    static const struct fkv_analysis_command command = {.name = "gamma",
                                                        .parser = &parser,
                                                        .power_only = true,
                                                        .check = check,
                                                        .find = find,
                                                        .write = write_table,
                                                        .print = fkv_summary_gamma};
    struct options o = {.choice = {.cap = 1, .sinks = -1}};
    int status = fkv_analysis_main(&command, argc, argv, &o);
    fkv_ratio_table_free(&o.table);
    return status;
}
