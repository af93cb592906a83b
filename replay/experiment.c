/* What an experiment found, for people and for scripts. Numbers that do not exist (no window, no second document) are a dash in the table and
 * null in JSON; differences to a baseline that is no reference are printed, and marked. */
#include "replay/experiment.h"

#include <math.h>
#include <stdio.h>

#include "kernels/base/host.h"

static double mean_nll(const struct fkv_sums *s) { return fkv_mean(s->nll, s->count); }

double fkv_experiment_perplexity_se(const struct fkv_experiment *e) {
    return exp(mean_nll(&e->result->total)) * e->result->nll_se;
}

double fkv_experiment_delta_nll(const struct fkv_experiment *e) {
    const struct fkv_sums *total = &e->result->total;
    return fkv_mean(total->nll - total->baseline_nll, total->count);
}

const char *fkv_experiment_invalid(const struct fkv_experiment *e) {
    if (e->plan->longest > e->model->config.trained_context) return "past the trained context";
    if (e->setup->policy->has_window && e->setup->window >= e->model->config.trained_context)
        return "window not below the trained context";
    return NULL;
}

static double cache_slots_mean(const struct fkv_experiment *e) {
    return fkv_mean(e->result->statistics.slots_sum, e->result->statistics.tokens);
}

static double tokens_per_second(const struct fkv_experiment *e) {
    return (double)e->result->statistics.tokens / e->result->statistics.seconds;
}

static double compression_share(const struct fkv_experiment *e) {
    return e->result->statistics.seconds_acting / e->result->statistics.seconds;
}

static json_t *json_string_or_fallback(const char *text) {
    json_t *string = json_string(text);
    return string ? string : json_string("(a name that is not UTF-8)");
}

static json_t *documents_json(const struct fkv_experiment *e) {
    json_t *rows = json_array();
    for (int64_t d = 0; d < e->corpus->document_count; d++) {
        double nll = mean_nll(&e->result->documents[d]);
        json_t *row = json_object();
        json_object_set_new(row, "name", json_string_or_fallback(e->corpus->documents[d].name));
        json_object_set_new(row, "tokens", json_integer(e->corpus->documents[d].count));
        json_object_set_new(row, "mean_nll", fkv_json_number(nll));
        json_object_set_new(row, "perplexity", fkv_json_number(exp(nll)));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *baseline_json(const struct fkv_experiment *e) {
    const struct fkv_sums *total = &e->result->total;
    double nll = fkv_mean(total->baseline_nll, total->count);
    json_t *o = json_object();
    json_object_set_new(o, "policy", json_string("full"));
    json_object_set_new(o, "valid", json_boolean(!fkv_experiment_invalid(e)));
    json_object_set_new(o, "mean_nll", fkv_json_number(nll));
    json_object_set_new(o, "perplexity", fkv_json_number(exp(nll)));
    json_object_set_new(o, "delta_nll", fkv_json_number(fkv_experiment_delta_nll(e)));
    json_object_set_new(o, "delta_nll_se", fkv_json_number(e->result->delta_nll_se));
    json_object_set_new(o, "kl", fkv_json_number(fkv_mean(total->kl, total->count)));
    json_object_set_new(o, "top1_agreement", fkv_json_number(fkv_mean((double)total->agree, total->count)));
    return o;
}

json_t *fkv_experiment_json(const struct fkv_experiment *e) {
    const struct fkv_policy_setup *setup = e->setup;
    bool windowed = setup->policy->has_window;
    double nll = mean_nll(&e->result->total);
    json_t *o = json_object();
    json_object_set_new(o, "policy", json_string(setup->policy->name));
    json_object_set_new(o, "window", windowed ? json_integer(setup->window) : json_null());
    json_object_set_new(o, "sinks", windowed ? json_integer(setup->sinks) : json_null());
    json_object_set_new(o, "gamma", fkv_json_number(setup->policy->has_gamma ? setup->gamma : NAN));
    json_object_set_new(o, "protocol", json_string(e->plan->name));
    json_object_set_new(o, "documents", json_integer(e->corpus->document_count));
    json_object_set_new(o, "tokens", json_integer(e->corpus->token_count));
    json_object_set_new(o, "tokens_scored", json_integer(e->result->total.count));
    json_object_set_new(o, "mean_nll", fkv_json_number(nll));
    json_object_set_new(o, "perplexity", fkv_json_number(exp(nll)));
    json_object_set_new(o, "perplexity_se", fkv_json_number(fkv_experiment_perplexity_se(e)));
    json_object_set_new(o, "compressions", fkv_json_number(e->result->compressions));
    json_object_set_new(o, "cache_bytes_peak", json_integer(e->result->statistics.cache_bytes_peak));
    json_object_set_new(o, "cache_slots_mean", fkv_json_number(cache_slots_mean(e)));
    json_object_set_new(o, "prefill_tokens_per_s", fkv_json_number(tokens_per_second(e)));
    json_object_set_new(o, "compression_share", fkv_json_number(compression_share(e)));
    json_object_set_new(o, "per_document", documents_json(e));
    if (e->baseline) json_object_set_new(o, "baseline", baseline_json(e));
    return o;
}

/* ---- the table ---- */

/* "%.5f", or a dash for a number that does not exist. */
static const char *number(char text[32], const char *format, double value) {
    if (isfinite(value))
        snprintf(text, 32, format, value);
    else
        snprintf(text, 32, "-");
    return text;
}

static void print_row(const char *name, int64_t tokens, const struct fkv_sums *sums) {
    char nll[32], perplexity[32];
    double mean = mean_nll(sums);
    printf("%-36.36s %10lld %10lld %11s %12s\n", name, (long long)tokens, (long long)sums->count,
           number(nll, "%.5f", mean), number(perplexity, "%.5f", exp(mean)));
}

static void print_head(const struct fkv_experiment *e) {
    const struct fkv_policy_setup *setup = e->setup;
    printf("model %s, policy %s", e->model->name, setup->policy->name);
    if (setup->policy->has_window) printf(", window %d, sinks %d", setup->window, setup->sinks);
    if (setup->recent) printf(", recent %d", setup->recent);
    if (setup->policy->has_gamma) printf(", gamma %.4g", setup->gamma);
    if (!setup->rescale) printf(", no rescale");
    printf(", protocol %s", e->plan->name);
    if (e->score_from) printf(", scored from target %lld", (long long)e->score_from);
    printf("\n\n");
}

static void print_baseline(const struct fkv_experiment *e) {
    char a[32], b[32], c[32], d[32];
    const struct fkv_sums *total = &e->result->total;
    const char *invalid = fkv_experiment_invalid(e);
    double nll = fkv_mean(total->baseline_nll, total->count);
    printf("\nbaseline full%s%s\n", invalid ? ": no reference here, " : "", invalid ? invalid : "");
    printf("  mean nll %s, perplexity %s\n", number(a, "%.5f", nll), number(b, "%.5f", exp(nll)));
    printf("  delta nll %s +- %s (paired), KL %s nats, same top token %s %%\n",
           number(a, "%+.5f", fkv_experiment_delta_nll(e)), number(b, "%.5f", e->result->delta_nll_se),
           number(c, "%.5f", fkv_mean(total->kl, total->count)),
           number(d, "%.2f", 100 * fkv_mean((double)total->agree, total->count)));
}

void fkv_experiment_print(const struct fkv_experiment *e) {
    char se[32], share[32], bytes[16];
    print_head(e);
    printf("%-36s %10s %10s %11s %12s\n", "document", "tokens", "scored", "mean nll", "perplexity");
    for (int64_t d = 0; d < e->corpus->document_count; d++)
        print_row(e->corpus->documents[d].name, e->corpus->documents[d].count, &e->result->documents[d]);
    if (e->corpus->document_count > 1) print_row("all", e->corpus->token_count, &e->result->total);
    fkv_format_bytes(bytes, e->result->statistics.cache_bytes_peak);
    printf("\nstandard error of the perplexity %s\n", number(se, "%.5f", fkv_experiment_perplexity_se(e)));
    printf("windows %lld, compressions per head and window %.4g\n", (long long)e->plan->count, e->result->compressions);
    printf("cache: peak %s, mean slots %.1f; %.0f tokens/s, compression %s %% of the time\n", bytes,
           cache_slots_mean(e), tokens_per_second(e), number(share, "%.1f", 100 * compression_share(e)));
    if (e->baseline) print_baseline(e);
}
