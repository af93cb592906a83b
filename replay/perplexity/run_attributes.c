/* See run_attributes.h; layout: run_file.c. */
#include "replay/perplexity/run_attributes.h"

#include <string.h>

enum { RUN_FORMAT_VERSION = 2 };

const char fkv_run_final_states[] = "final_states";

void fkv_run_attributes(const struct fkv_experiment *e, struct fkv_run_text texts[FKV_RUN_TEXTS],
                        struct fkv_run_integer integers[FKV_RUN_INTEGERS]) {
    const struct fkv_config *c = &e->model->config;
    const bool window = e->setup->policy->takes_window;
    const char *se_unit = fkv_se_unit_name(fkv_perplexity_se_unit(e->corpus, e->plan));
    const struct fkv_run_text t[FKV_RUN_TEXTS] = {
        {"format", "freqkv-run", true},
        {"software_version", FKV_VERSION, false},
        {"command", e->command, false},
        {"backend", e->backend, true},
        {"compute", e->compute, true},
        {"kernels", e->kernels, false},
        {"cache_dtype", fkv_dtype_name(e->cache_dtype), true},
        {"model_name", e->model->name, false},
        {"model_sha256", e->model_sha256, true},
        {"config_sha256", c->sha256, true},
        {"adapter", e->model->adapter_name, false},
        {"adapter_sha256", fkv_model_adapter_sha256(e->model), false},
        {"tokenizer_sha256", e->tokenizer_sha256, true},
        {"model_type", c->model_type, true},
        {"rope_scaling", c->rotations[0].scaling, true},
        {"corpus_sha256", e->corpus_sha256, true},
        {"policy", e->setup->policy->name, true},
        {"policy_options", e->setup->own_text, true},
        {"policy_label", e->setup->label, false},
        {"protocol", e->plan->name, true},
        {"baseline", e->baseline ? fkv_full_attention.name : "", true},
        {"se_unit", se_unit ? se_unit : "",
         true}, /* errors formed in another way are no errors of this sweep */
        {"baseline_invalid",
         e->baseline && fkv_experiment_invalid(e) ? fkv_experiment_invalid(e) : "", false},
    };
    const struct fkv_run_integer i[FKV_RUN_INTEGERS] = {
        {"format_version", RUN_FORMAT_VERSION, true},
        {"n_layers", c->layers, false},
        {"n_heads", c->heads, false},
        {"n_kv_heads", c->kv_heads, false},
        {"head_dim", c->head_dim, false},
        {"trained_context", c->trained_context, true},
        {"window", window ? e->setup->window : 0, true},
        {"sinks", window ? e->setup->sinks : 0, true},
        {"compressible", window ? e->setup->compressible : 0, true},
        {"low_pass", e->setup->policy->low_pass, false},
        {"sees_queries", fkv_policy_sees_queries(e->setup->policy), false},
        {"tokens_limit", e->tokens, true},
        {"score_from", e->score_from, true},
    };
    memcpy(texts, t, sizeof t);
    memcpy(integers, i, sizeof i);
}
