/* What an experiment found, for people and for scripts. Numbers that do not exist (no window, no
 * second document) are a dash in the table and null in JSON; differences to a baseline that is no
 * reference are printed, and marked. */
#include "replay/perplexity/experiment.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/host.h"
#include "replay/identity.h"

const char *const fkv_result_names[FKV_RESULTS] = {
    [FKV_RESULT_GAMMA] = "gamma",
    [FKV_RESULT_TOKENS_SCORED] = "tokens_scored",
    [FKV_RESULT_NLL] = "mean_nll",
    [FKV_RESULT_NLL_SE] = "mean_nll_se",
    [FKV_RESULT_COMPRESSIONS] = "compressions",
    [FKV_RESULT_EVICTIONS] = "evictions",
    [FKV_RESULT_CACHE_BYTES_PEAK] = "cache_bytes_peak",
    [FKV_RESULT_CACHE_SLOTS] = "cache_slots_mean",
    [FKV_RESULT_BASELINE_NLL] = "baseline_mean_nll",
    [FKV_RESULT_DELTA_NLL] = "delta_nll",
    [FKV_RESULT_DELTA_NLL_SE] = "delta_nll_se",
    [FKV_RESULT_KL] = "kl",
    [FKV_RESULT_KL_SE] = "kl_se",
    [FKV_RESULT_TOP1] = "top1_agreement",
};

static double mean_nll(const struct fkv_sums *s) { return fkv_mean(s->nll, s->count); }

void fkv_experiment_results(const struct fkv_experiment *e, double r[FKV_RESULTS]) {
    const struct fkv_sums *total = &e->result->total;
    const struct fkv_session_statistics *statistics = &e->result->statistics;
    r[FKV_RESULT_GAMMA] = e->setup->gamma;
    r[FKV_RESULT_TOKENS_SCORED] = (double)total->count;
    r[FKV_RESULT_NLL] = mean_nll(total);
    r[FKV_RESULT_NLL_SE] = e->result->errors.nll_se;
    r[FKV_RESULT_COMPRESSIONS] = e->result->compressions;
    r[FKV_RESULT_EVICTIONS] = e->result->evictions;
    r[FKV_RESULT_CACHE_BYTES_PEAK] = (double)statistics->cache_bytes_peak;
    r[FKV_RESULT_CACHE_SLOTS] = fkv_mean(statistics->slots_sum, statistics->tokens);
    for (int i = FKV_RESULT_BASELINE_NLL; i < FKV_RESULTS; i++) r[i] = NAN;
    if (!e->baseline) return;
    r[FKV_RESULT_BASELINE_NLL] = fkv_mean(total->baseline_nll, total->count);
    r[FKV_RESULT_DELTA_NLL] = fkv_mean(total->nll - total->baseline_nll, total->count);
    r[FKV_RESULT_DELTA_NLL_SE] = e->result->errors.delta_nll_se;
    r[FKV_RESULT_KL] = fkv_mean(total->kl, total->count);
    r[FKV_RESULT_KL_SE] = e->result->errors.kl_se;
    r[FKV_RESULT_TOP1] = fkv_mean(total->agree, total->count);
}

double fkv_perplexity_se(const double r[FKV_RESULTS]) {
    return exp(r[FKV_RESULT_NLL]) * r[FKV_RESULT_NLL_SE];
}

const char *fkv_experiment_invalid(const struct fkv_experiment *e) {
    if (e->plan->longest > e->model->config.trained_context) return "past the trained context";
    if (e->setup->policy->takes_window && e->setup->window >= e->model->config.trained_context)
        return "window not below the trained context";
    return NULL;
}

bool fkv_experiment_never_acts(const struct fkv_experiment *e) {
    return e->setup->policy->takes_window && e->plan->longest <= e->setup->window;
}

static double tokens_per_second(const struct fkv_experiment *e) {
    return (double)e->result->statistics.tokens / e->result->seconds;
}

/* Slots that a head kept, over all selections; NaN without any. */
static double mean_budget(const struct fkv_experiment *e) {
    const struct fkv_session_statistics *s = &e->result->statistics;
    return s->selections ? (double)s->slots_kept / (double)s->selections : NAN;
}

static double compression_share(const struct fkv_experiment *e) {
    return e->result->seconds_compressing / e->result->seconds;
}

void fkv_se_unit_to_json(enum fkv_se_unit unit, json_t *o) {
    const char *name = fkv_se_unit_name(unit);
    json_object_set_new(o, "se_unit", name ? json_string(name) : json_null());
}

static json_t *documents_json(const struct fkv_experiment *e) {
    json_t *rows = json_array();
    for (int64_t d = 0; d < e->corpus->document_count; d++) {
        double nll = mean_nll(&e->result->documents[d]);
        json_t *row = json_object();
        json_object_set_new(row, "name", fkv_json_string(e->corpus->documents[d].name));
        json_object_set_new(row, "tokens", json_integer(e->corpus->documents[d].count));
        json_object_set_new(row, "mean_nll", fkv_json_number(nll));
        json_object_set_new(row, "perplexity", fkv_json_number(exp(nll)));
        json_array_append_new(rows, row);
    }
    return rows;
}

void fkv_results_to_json(const double r[FKV_RESULTS], json_t *o) {
    json_object_set_new(o, "tokens_scored", json_integer((json_int_t)r[FKV_RESULT_TOKENS_SCORED]));
    json_object_set_new(o, "mean_nll", fkv_json_number(r[FKV_RESULT_NLL]));
    json_object_set_new(o, "perplexity", fkv_json_number(exp(r[FKV_RESULT_NLL])));
    json_object_set_new(o, "perplexity_se", fkv_json_number(fkv_perplexity_se(r)));
    json_object_set_new(o, "compressions", fkv_json_number(r[FKV_RESULT_COMPRESSIONS]));
    json_object_set_new(o, "evictions", fkv_json_number(r[FKV_RESULT_EVICTIONS]));
    json_object_set_new(o, "cache_bytes_peak",
                        json_integer((json_int_t)r[FKV_RESULT_CACHE_BYTES_PEAK]));
    json_object_set_new(o, "cache_slots_mean", fkv_json_number(r[FKV_RESULT_CACHE_SLOTS]));
}

json_t *fkv_baseline_json(const double r[FKV_RESULTS], const struct fkv_experiment *e) {
    const char *missing = e->baseline_missing;
    json_t *o = json_object();
    json_object_set_new(o, "policy", json_string(fkv_full_attention.name));
    json_object_set_new(o, "valid", json_boolean(!fkv_experiment_invalid(e)));
    json_object_set_new(o, "mean_nll", fkv_json_number(r[FKV_RESULT_BASELINE_NLL]));
    json_object_set_new(o, "perplexity", fkv_json_number(exp(r[FKV_RESULT_BASELINE_NLL])));
    for (int i = FKV_RESULT_DELTA_NLL; i < FKV_RESULTS; i++)
        json_object_set_new(o, fkv_result_names[i], fkv_json_number(r[i]));
    json_object_set_new(o, "missing", missing ? json_string(missing) : json_null());
    return o;
}

/* [layers][kv_heads], with null for NaN. */
static json_t *heads_json(const struct fkv_policy_setup *setup, const double *values) {
    json_t *layers = json_array();
    for (int32_t l = 0; l < setup->layers; l++) {
        json_t *row = json_array();
        for (int32_t h = 0; h < setup->kv_heads; h++)
            json_array_append_new(row, fkv_json_number(values[l * setup->kv_heads + h]));
        json_array_append_new(layers, row);
    }
    return layers;
}

json_t *fkv_experiment_head_json(const struct fkv_experiment *e, bool gamma) {
    const struct fkv_policy_setup *setup = e->setup;
    const bool windowed = setup->policy->takes_window;
    json_t *o = json_object();
    json_object_set_new(o, "policy", json_string(setup->policy->name));
    json_object_set_new(o, "window", windowed ? json_integer(setup->window) : json_null());
    json_object_set_new(o, "sinks", windowed ? json_integer(setup->sinks) : json_null());
    if (gamma) json_object_set_new(o, "gamma", fkv_json_number(setup->gamma));
    fkv_own_to_json(setup->policy->options, setup->own, setup->own_texts, o);
    fkv_quant_to_json(setup, o);
    json_object_set_new(o, "protocol", json_string(e->plan->name));
    json_object_set_new(o, "documents", json_integer(e->corpus->document_count));
    json_object_set_new(o, "tokens", json_integer(e->corpus->token_count));
    return o;
}

json_t *fkv_experiment_json(const struct fkv_experiment *e) {
    double results[FKV_RESULTS];
    const struct fkv_policy_setup *setup = e->setup;
    const struct fkv_perplexity *found = e->result;
    json_t *o = fkv_experiment_head_json(e, true);
    fkv_experiment_results(e, results);
    fkv_results_to_json(results, o);
    json_object_set_new(o, "sees_queries", json_boolean(fkv_policy_sees_queries(setup->policy)));
    if (setup->policy->select)
        json_object_set_new(o, "budget_mean", fkv_json_number(mean_budget(e)));
    json_object_set_new(o, "cache_bytes_allocated", json_integer(found->cache_bytes_allocated));
    json_object_set_new(o, "slots_end", heads_json(setup, found->slots_end));
    json_object_set_new(o, "slots_kept", heads_json(setup, found->slots_kept));
    fkv_se_unit_to_json(fkv_perplexity_se_unit(e->corpus, e->plan), o);
    json_object_set_new(o, "prefill_tokens_per_s", fkv_json_number(tokens_per_second(e)));
    json_object_set_new(o, "compression_share", fkv_json_number(compression_share(e)));
    json_object_set_new(o, "per_document", documents_json(e));
    if (e->baseline) json_object_set_new(o, "baseline", fkv_baseline_json(results, e));
    return o;
}

/* ---- the table ---- */

const char *fkv_format_result(char text[32], const char *format, double value) {
    snprintf(text, 32, isfinite(value) ? format : "-", value);
    return text;
}

static void print_row(const char *name, int64_t tokens, const struct fkv_sums *sums) {
    char nll[32], perplexity[32];
    double mean = mean_nll(sums);
    printf("%-36.36s %10lld %10lld %11s %12s\n", name, (long long)tokens, (long long)sums->count,
           fkv_format_result(nll, "%.5f", mean), fkv_format_result(perplexity, "%.5f", exp(mean)));
}

void fkv_experiment_print_head(const struct fkv_experiment *e, bool gamma) {
    const struct fkv_policy_setup *setup = e->setup;
    printf("model %s, policy %s", e->model->name, setup->policy->name);
    if (setup->policy->takes_window) printf(", window %d, sinks %d", setup->window, setup->sinks);
    if (gamma && isfinite(setup->gamma)) printf(", gamma %.4g", setup->gamma);
    printf("%s", setup->label + strlen(setup->policy->name));
    printf(", protocol %s", e->plan->name);
    if (e->score_from) printf(", scored from target %lld", (long long)e->score_from);
}

void fkv_experiment_print_se_unit(const struct fkv_experiment *e) {
    char words[FKV_SE_WORDS];
    printf("standard errors: %s\n", fkv_se_unit_words(fkv_perplexity_se_unit(e->corpus, e->plan),
                                                      fkv_perplexity_documents(e->corpus, e->plan),
                                                      "blocks of 256 scored tokens", words));
}

static void print_baseline(const double r[FKV_RESULTS], const char *invalid) {
    char a[32], b[32], c[32], d[32];
    printf("\nbaseline %s%s%s\n", fkv_full_attention.name, invalid ? ": no reference here, " : "",
           invalid ? invalid : "");
    printf("  mean nll %s, perplexity %s\n",
           fkv_format_result(a, "%.5f", r[FKV_RESULT_BASELINE_NLL]),
           fkv_format_result(b, "%.5f", exp(r[FKV_RESULT_BASELINE_NLL])));
    printf("  delta nll %s +- %s (paired), KL %s nats, same top token %s %%\n",
           fkv_format_result(a, "%+.5f", r[FKV_RESULT_DELTA_NLL]),
           fkv_format_result(b, "%.5f", r[FKV_RESULT_DELTA_NLL_SE]),
           fkv_format_result(c, "%.5f", r[FKV_RESULT_KL]),
           fkv_format_result(d, "%.2f", 100 * r[FKV_RESULT_TOP1]));
}

/* Slots by head, for a policy that limits them. */
static void print_slots(const struct fkv_experiment *e) {
    const struct fkv_policy_setup *setup = e->setup;
    const double *end = e->result->slots_end;
    const int32_t heads = setup->layers * setup->kv_heads;
    double mean = 0, least = INFINITY, largest = 0;
    char kept[32];
    if (!setup->policy->takes_window && !setup->policy->select) return;
    for (int32_t h = 0; h < heads; h++) {
        mean += end[h] / heads;
        least = fmin(least, end[h]), largest = fmax(largest, end[h]);
    }
    if (setup->policy->select)
        printf("kept at the end of a block: mean slots %s; ",
               fkv_format_result(kept, "%.1f", mean_budget(e)));
    else
        printf("held at the end of a text: mean slots %.1f, by head %.1f to %.1f; ", mean, least,
               largest);
    printf("the choice %s queries\n",
           fkv_policy_sees_queries(setup->policy) ? "depends on" : "does not see");
}

void fkv_experiment_print(const struct fkv_experiment *e) {
    char se[32], share[48], bytes[16];
    double results[FKV_RESULTS];
    fkv_experiment_results(e, results);
    fkv_experiment_print_head(e, true);
    printf("\n\n%-36s %10s %10s %11s %12s\n", "document", "tokens", "scored", "mean nll",
           "perplexity");
    for (int64_t d = 0; d < e->corpus->document_count; d++)
        print_row(e->corpus->documents[d].name, e->corpus->documents[d].count,
                  &e->result->documents[d]);
    if (e->corpus->document_count > 1) print_row("all", e->corpus->token_count, &e->result->total);
    fkv_format_bytes(bytes, e->result->statistics.cache_bytes_peak);
    printf("\nstandard error of the perplexity %s\n",
           fkv_format_result(se, "%.5f", fkv_perplexity_se(results)));
    fkv_experiment_print_se_unit(e);
    printf("windows %lld, per head and window %.4g compressions, %.4g evictions\n",
           (long long)e->plan->count, e->result->compressions, e->result->evictions);
    print_slots(e);
    if (fkv_experiment_never_acts(e))
        printf("no text was longer than the window of %d slots: the policy did nothing, and this "
               "is full "
               "attention\n",
               e->setup->window);
    if (e->setup->policy->select && !e->result->statistics.selections)
        printf(
            "no prefill block that others follow ended above the budget: the policy did nothing, "
            "and this is full attention\n");
    printf("cache: peak %s, mean slots %.1f; %.0f tokens/s, compression %s %% of the time\n", bytes,
           results[FKV_RESULT_CACHE_SLOTS], tokens_per_second(e),
           fkv_format_result(share, "%.1f", 100 * compression_share(e)));
    if (e->baseline) print_baseline(results, fkv_experiment_invalid(e));
    if (e->baseline_missing) printf("  %s\n", e->baseline_missing);
}
