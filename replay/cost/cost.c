#include "replay/cost/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/checkpoint/checkpoint.h"
#include "kernels/base/path.h"

enum { BLOCK = 512, MOST_CONFIG = 64 << 20 };

/* ---- the model ---- */

/* A matrix that every token is multiplied by. */
static bool is_product(enum fkv_role role) {
    return role == FKV_HEAD || fkv_role_is_projection(role);
}

static int64_t role_values(const struct fkv_config *config, enum fkv_role role) {
    int32_t rows, cols;
    fkv_role_shape(config, role, &rows, &cols);
    return (rows ? rows : 1) * (int64_t)cols;
}

static int32_t role_copies(const struct fkv_config *config, enum fkv_role role) {
    if (!fkv_role_present(config, role)) return 0;
    return role >= FKV_ATTENTION_NORM ? config->layers : 1;
}

static void count_products(struct fkv_model_size *size) {
    const struct fkv_config *config = &size->config;
    for (enum fkv_role role = 0; role < FKV_ROLES; role++)
        if (is_product(role))
            size->product_weights += (double)role_values(config, role) * role_copies(config, role);
    if (config->tied) size->product_weights += (double)role_values(config, FKV_EMBEDDING);
}

static int size_of_checkpoint(const char *path, int32_t trained_context,
                              struct fkv_model_size *size, struct fkv_error *err) {
    struct fkv_checkpoint *c;
    if (fkv_checkpoint_open(path, trained_context, &c, err)) return FKV_FAILED;
    size->config = *fkv_checkpoint_config(c);
    size->state_bytes = 2;
    int status = FKV_OK;
    for (enum fkv_role role = 0; role < FKV_ROLES && !status; role++)
        for (int32_t l = 0; l < role_copies(&size->config, role) && !status; l++) {
            struct fkv_tensor tensor;
            status = fkv_checkpoint_find(c, role, l, &tensor, err);
            if (status) break;
            size->weight_bytes +=
                (int64_t)fkv_weight_bytes(tensor.format, (size_t)role_values(&size->config, role));
            if (role == FKV_QUERY && tensor.format == FKV_WEIGHT_F32) size->state_bytes = 4;
        }
    fkv_checkpoint_close(c);
    return status;
}

/* How a config says that weights are stored; that of a multimodal one in its text part. */
static const char *stored_dtype(const json_t *root) {
    const json_t *parts[] = {json_object_get(root, "text_config"), root};
    static const char *const fields[] = {"dtype", "torch_dtype"};
    for (int p = 0; p < 2; p++)
        for (int f = 0; f < 2; f++) {
            const char *dtype = json_string_value(json_object_get(parts[p], fields[f]));
            if (dtype) return dtype;
        }
    return "float16";
}

static int size_of_config(const char *path, int32_t trained_context, struct fkv_model_size *size,
                          struct fkv_error *err) {
    json_t *root = fkv_json_load(path, MOST_CONFIG, err);
    if (!root) return FKV_FAILED;
    size->state_bytes = strcmp(stored_dtype(root), "float32") ? 2 : 4;
    int status = fkv_config_read(root, path, trained_context, &size->config, err);
    for (enum fkv_role role = 0; role < FKV_ROLES && !status; role++)
        size->weight_bytes +=
            role_values(&size->config, role) * size->state_bytes * role_copies(&size->config, role);
    json_decref(root);
    return status;
}

int fkv_model_size_read(const char *path, int32_t trained_context, struct fkv_model_size *size,
                        struct fkv_error *err) {
    char file[FKV_PATH];
    struct stat info;
    const size_t length = strlen(path);
    *size = (struct fkv_model_size){0};
    int status;
    if (length > 5 && !strcmp(path + length - 5, ".gguf"))
        status = size_of_checkpoint(path, trained_context, size, err);
    else if (!stat(path, &info) && S_ISDIR(info.st_mode))
        status = fkv_path_print(file, err, "%s/config.json", path) ||
                 size_of_config(file, trained_context, size, err);
    else
        status = size_of_config(path, trained_context, size, err);
    if (!status) count_products(size);
    return status ? FKV_FAILED : FKV_OK;
}

/* ---- the schedule ---- */

/* What one head does over the text. */
struct head_cost {
    double query_slots; /* summed over queries */
    double scored;      /* pairs of a query, or a selection by keys, and a slot that is scored */
    int64_t compressions;
    int32_t most_slots; /* in use and seen */
};

/* Of the head's slots those that a query sees, by the policy and by the layer's own window. */
static int32_t seen_slots(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    const int32_t own = setup->layer_windows[head->layer],
                  seen = head->slots < setup->most_seen ? head->slots : setup->most_seen;
    return own && own < seen ? own : seen;
}

/* Makes room for another token. `from` [setup->capacity] is scratch of actions. */
static void act(const struct fkv_policy_setup *setup, struct fkv_head *head, int32_t *from,
                struct head_cost *cost) {
    const struct fkv_policy *policy = fkv_policy_of_layer(setup, head->layer),
                            *own = fkv_policy_of_head(setup, head->layer * setup->kv_heads +
                                                                 head->kv_head);
    struct fkv_action action = {.gather_from = from, .slots = head->slots};
    struct fkv_selection selection = {.budget = head->slots};
    if (policy->select) {
        policy->select(setup, head, &selection);
        const int32_t queries = policy->scores != FKV_SCORE_ATTENTION ? 1
                                : selection.observe                   ? selection.observe
                                                                      : head->block;
        cost->scored += (double)queries * head->slots;
        if (selection.budget < head->slots) action.slots = selection.budget;
    } else {
        policy->act(setup, head, &action);
    }
    head->slots = action.slots;
    head->rounds++;
    cost->compressions += policy == setup->policy && own->counts_compressions;
}

/* Runs a head's schedule. */
static struct head_cost run_head(const struct fkv_policy_setup *setup, int32_t layer,
                                 int32_t kv_head, int64_t tokens, int32_t *from) {
    const struct fkv_policy *policy = fkv_policy_of_layer(setup, layer);
    const int32_t block = setup->prefill_block ? setup->prefill_block : (int32_t)tokens;
    struct fkv_head head = {.layer = layer, .kv_head = kv_head, .block = block, .prefill = tokens};
    struct head_cost cost = {0};
    while (head.tokens < tokens) {
        int32_t count = policy->append_limit(setup, &head);
        if (count < 1) {
            act(setup, &head, from, &cost);
            continue;
        }
        if (count > tokens - head.tokens) count = (int32_t)(tokens - head.tokens);
        head.slots += count;
        head.tokens += count;
        const int32_t seen = seen_slots(setup, &head), held = policy->choose ? head.slots : seen;
        cost.query_slots += (double)count * seen;
        if (policy->choose) /* of chunks, scores and the two passes that make their vectors */
            cost.scored += (double)count * (head.slots / setup->chunk + 2 * setup->chunk);
        if (held > cost.most_slots) cost.most_slots = held;
    }
    return cost;
}

/* Numbers that a block of tokens holds besides the cache: hidden states, normed and rotated rows,
 * the MLP's two, logits of one row. */
static int64_t activations(const struct fkv_config *c, int64_t rows) {
    const int64_t attention = (2 * (int64_t)c->heads + 2 * (int64_t)c->kv_heads) * c->head_dim;
    return rows * (2 * (int64_t)c->dim + attention + 2 * (int64_t)c->hidden) + c->vocab;
}

static void sum_heads(const struct fkv_model_size *size, const struct fkv_policy_setup *setup,
                      int32_t *from, struct fkv_cost_row *row) {
    const struct fkv_config *c = &size->config;
    const int32_t heads = c->layers * c->kv_heads;
    const double group = (double)c->heads / c->kv_heads, n = setup->compressible;
    const enum fkv_dtype dtype = size->state_bytes == 4 ? FKV_F32 : FKV_F16;
    const int64_t slot_bytes = 2 * (int64_t)fkv_policy_state_bytes(setup, c->head_dim, dtype);
    for (int32_t h = 0; h < heads; h++) {
        const struct head_cost cost =
            run_head(setup, h / c->kv_heads, h % c->kv_heads, row->tokens, from);
        row->operations += c->head_dim * group * (4 * cost.query_slots + 2 * cost.scored);
        row->cache_bytes += cost.most_slots * slot_bytes;
        if (!cost.compressions) continue;
        row->compressions += (double)cost.compressions / heads;
        /* Of keys and values: a matrix is multiplied, a DCT computed fast. */
        row->compression_operations +=
            (double)cost.compressions * 2 * c->head_dim *
            (setup->policy->fill_map ? 2 * n * setup->retained[h] : n * log2(n));
    }
    row->operations +=
        2 * size->product_weights * (double)row->tokens + row->compression_operations;
    row->peak_bytes = size->weight_bytes + (int64_t)heads * setup->capacity * slot_bytes +
                      activations(c, row->tokens < BLOCK ? row->tokens : BLOCK) * 4;
}

int fkv_cost_work_out(const struct fkv_model_size *size, const struct fkv_policy_options *policy,
                      int64_t tokens, struct fkv_cost_row *row, struct fkv_error *err) {
    struct fkv_policy_setup setup;
    if (fkv_policy_setup(policy, &size->config, tokens, &setup, err)) return FKV_FAILED;
    *row = (struct fkv_cost_row){.tokens = tokens, .gamma = setup.gamma};
    int32_t *from = malloc((size_t)setup.capacity * sizeof *from);
    if (from) sum_heads(size, &setup, from, row);
    int status =
        from ? FKV_OK : fkv_fail(err, "out of memory for a schedule of %d slots", setup.capacity);
    free(from);
    fkv_policy_setup_free(&setup);
    return status;
}
