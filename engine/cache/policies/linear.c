/* FreqKV's schedule with any operator in the place of its DCT (engine/cache/operators.c): when a
 * head's cache holds N slots and another token arrives, the n = N - S slots after the sinks become
 * M times themselves, L = floor(gamma n) slots. What was compressed is compressed again with what
 * came since. Keys go through M before RoPE and then stand at their new slot index. `dct` is FreqKV
 * itself, up to rounding; the others say what its frequencies are worth. */
#include <string.h>

#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

enum { OPERATOR };

static const struct fkv_policy_option options[] = {
    [OPERATOR] = {.name = "operator",
                  .kind = FKV_OPTION_TEXT,
                  .argument = "NAME|OP.h5",
                  .standard_text = "dct",
                  .help =
                      "the L x n matrix in FreqKV's place: dct, dct-band:A (L coefficients from "
                      "A on), meanpool, decimate, random[:SEED] (orthonormal rows), haar, "
                      "klt:CAPTURE (fitted to another text's keys and values), or a file"},
    {0},
};

/* A file's matrices have one L and one n, and heads as the model or one for all. */
static int check_matrices(const struct fkv_policy_setup *setup, struct fkv_error *err) {
    const struct fkv_operator_data *data = setup->operator_data;
    const char *state = data->key == data->value ? "operator" : "key";
    const bool shared = data->layers == 1 && data->kv_heads == 1;
    if (!shared && (data->layers != setup->layers || data->kv_heads != setup->kv_heads))
        return fkv_fail(err,
                        "%s: %s: expected one matrix, or one per head of %d layers of %d KV "
                        "heads, found %d layers of %d",
                        data->text, state, setup->layers, setup->kv_heads, data->layers,
                        data->kv_heads);
    for (int32_t h = 0; h < setup->layers * setup->kv_heads; h++)
        if (data->retained != setup->retained[h] || data->n != setup->compressible)
            return fkv_fail(err,
                            "%s: %s: expected L x n = %d x %d for layer %d, KV head %d (by "
                            "--window, --sinks and --gamma), found %d x %d",
                            data->text, state, setup->retained[h], setup->compressible,
                            h / setup->kv_heads, h % setup->kv_heads, data->retained, data->n);
    return FKV_OK;
}

static int check_named(const struct fkv_policy_setup *setup, struct fkv_error *err) {
    struct fkv_operator o;
    if (fkv_operator_parse(setup->own_texts[OPERATOR], &o, err)) return FKV_FAILED;
    for (int32_t h = 0; h < setup->layers * setup->kv_heads; h++)
        if (o.kind == FKV_OPERATOR_DCT_BAND &&
            o.parameter > setup->compressible - setup->retained[h])
            return fkv_fail_option(
                err,
                "--operator dct-band: expected a first coefficient of at most n - L = %d, "
                "found %lld",
                setup->compressible - setup->retained[h], (long long)o.parameter);
    return FKV_OK;
}

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    const struct fkv_operator_data *data = setup->operator_data;
    if (fkv_schedule_prepare(setup, max_tokens, err)) return FKV_FAILED;
    if (!data) return check_named(setup, err);
    if (data->key) return check_matrices(setup, err);
    if (data->lags >= setup->compressible) return FKV_OK;
    return fkv_fail(err, "%s: expected segments of n = %d tokens or more, found %d", data->text,
                    setup->compressible, data->lags);
}

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    const struct fkv_operator_data *data = setup->operator_data;
    const int32_t index = head->layer * setup->kv_heads + head->kv_head;
    action->map_slot = setup->sinks;
    action->map_n = setup->compressible;
    action->map_retained = setup->retained[index];
    action->map_matrices = data && (!data->key || data->key != data->value) ? 2 : 1;
    action->map_id = data && data->layers * data->kv_heads > 1 ? index : 0;
    action->slots = setup->sinks + action->map_retained;
}

static int fill_map(const struct fkv_policy_setup *setup, const struct fkv_head *head, float *key,
                    float *value, struct fkv_error *err) {
    const struct fkv_operator_data *data = setup->operator_data;
    const int32_t index = head->layer * setup->kv_heads + head->kv_head, n = setup->compressible,
                  retained = setup->retained[index];
    struct fkv_operator o;
    if (!data)
        return fkv_operator_parse(setup->own_texts[OPERATOR], &o, err) ||
                       fkv_operator_fill(&o, n, retained, key, err)
                   ? FKV_FAILED
                   : FKV_OK;
    if (!data->key)
        return fkv_operator_fit(data->key_covariance, n, retained, key, err) ||
                       fkv_operator_fit(data->value_covariance, n, retained, value, err)
                   ? FKV_FAILED
                   : FKV_OK;
    const size_t count = (size_t)n * (size_t)retained,
                 at = data->layers * data->kv_heads > 1 ? (size_t)index * count : 0;
    memcpy(key, data->key + at, count * sizeof *key);
    if (value) memcpy(value, data->value + at, count * sizeof *value);
    return FKV_OK;
}

const struct fkv_policy fkv_policy_linear = {
    .name = "linear",
    .summary = "FreqKV's schedule with any matrix in the place of its DCT",
    .page = "When the cache of a head holds N slots (--window) and another token arrives,\n"
            "the n = N - S slots after the sinks become M times themselves, L = floor(gamma\n"
            "n) slots, keys and values alike. What was compressed is compressed again with\n"
            "what came since. M is --operator: by name, fitted to a capture of another text,\n"
            "or from a file, one for all or one per layer, head and state.\n"
            "\n"
            "Source: a control for FreqKV (arXiv 2505.00570). `dct` is FreqKV itself up to\n"
            "rounding; what mean pooling, decimation or random rows lose less or more says\n"
            "what low frequencies are worth.\n"
            "\n"
            "Positions: as under freqkv: keys go through M before RoPE and then stand at\n"
            "their new slot index.\n"
            "\n"
            "Memory: N slots per head, and the matrices.\n"
            "\n"
            "Defaults: N is the trained context, S 4, gamma 0.5, the operator dct. The man\n"
            "page of freqkv-replay defines every operator.\n",
    .options = options,
    .takes_window = true,
    .takes_ratio = true,
    .maps_slots = true,
    .counts_compressions = true,
    .prepare = prepare,
    .act = act,
    .fill_map = fill_map,
    FKV_SCHEDULE_ANSWERS,
};
