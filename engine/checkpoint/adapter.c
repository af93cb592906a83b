/* Owns the tensors of an adapter: which role each plays, whether all of them play one, and the sum
 * with the base's weights.
 *
 * A module whose base is fused (qkv_proj) is of several roles: each takes its rows of B. An
 * embedding has lora_embedding_A [rank, vocab] and lora_embedding_B [dim, rank]: the same product,
 * transposed.
 *
 * The sum is formed as PEFT's merge does: B A in float32, times the scale, added to W. */
#include "engine/checkpoint/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/checkpoint/adapter_config.h"
#include "engine/checkpoint/adapter_name.h"
#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/families.h"
#include "engine/checkpoint/mistaken.h"
#include "engine/checkpoint/safetensors.h"
#include "kernels/base/path.h"

enum { MAX_CONFIG_BYTES = 1 << 20, MOST_NAME = FKV_ADAPTER_NAME };

static const char config_name[] = "adapter_config.json",
                  weights_name[] = "adapter_model.safetensors",
                  trained_name[] = "trainable_params.safetensors";

/* What the adapter has for a role of a layer. */
struct part {
    const struct fkv_tensor *tensors[FKV_ADAPTER_KINDS]; /* NULL: none */
    bool shared[FKV_ADAPTER_KINDS]; /* the tensor holds the rows of several roles */
    int32_t rank;                   /* where there are factors */
    float scale;
};

struct fkv_adapter {
    char config_path[FKV_PATH], label[64]; /* label: the adapter's name in its tensors */
    bool label_known;
    const char *model_prefix; /* of modules but the head: "model.", "" of bare models */
    struct fkv_config base;
    struct fkv_role_name names[FKV_ROLES]; /* in folders of the base's family */
    struct fkv_adapter_config config;
    struct fkv_safetensors *files;
    struct part *parts; /* of roles before FKV_ATTENTION_NORM, then [layers] of the others */
    int32_t vocab, rows_left_out;
    bool embedding_saved; /* the embedding is one of modules_to_save */
    fkv_sha256_hex sha256;
};

static struct part *part_of(const struct fkv_adapter *a, enum fkv_role role, int32_t layer) {
    const int32_t per_layer = FKV_ROLES - FKV_ATTENTION_NORM;
    return &a->parts[role < FKV_ATTENTION_NORM ? (int32_t)role : layer * per_layer + (int32_t)role];
}

/* ---- roles ---- */

/* The layer in "layers.3.self_attn.q_proj", and the rest in *inner; -1: none, and *inner is all. */
static int32_t layer_of(const char *module, const char **inner) {
    int layer = -1, used = 0;
    char again[MOST_NAME];
    *inner = module;
    if (sscanf(module, "layers.%9d.%n", &layer, &used) != 1 || !used) return -1;
    snprintf(again, sizeof again, "layers.%d.", layer);
    if (layer < 0 || strncmp(module, again, strlen(again))) return -1; /* another spelling */
    *inner = module + used;
    return layer;
}

/* The head of a tied base is a role as well: the adapter may change it alone. */
static bool is_present(const struct fkv_adapter *a, enum fkv_role role) {
    return role == FKV_HEAD || fkv_role_present(&a->base, role);
}

/* A matrix, which can have factors. */
static bool is_matrix(enum fkv_role role) {
    return fkv_role_is_projection(role) || role == FKV_EMBEDDING || role == FKV_HEAD;
}

/* Whether a role can have such a tensor. */
static bool takes(enum fkv_role role, const struct fkv_adapter_name *name) {
    return name->kind == FKV_ADAPTER_WHOLE || name->bias ||
           (is_matrix(role) && name->embedding == (role == FKV_EMBEDDING));
}

/* A file holds one adapter: its name is the same in all tensors. */
static int check_label(struct fkv_adapter *a, const struct fkv_tensor *t, const char *label,
                       struct fkv_error *err) {
    if (!a->label_known) strcpy(a->label, label);
    a->label_known = true;
    if (!strcmp(a->label, label)) return FKV_OK;
    return fkv_fail(err,
                    "%s: tensor %.200s: expected one adapter in the file, found \"%s\" and \"%s\"",
                    t->path, t->name, a->label, label);
}

/* Gives the tensor to the roles that it plays. */
static int assign(struct fkv_adapter *a, const struct fkv_tensor *t, struct fkv_error *err) {
    struct fkv_adapter_name name;
    const char *inner;
    int found = 0;
    if (!fkv_adapter_name_parse(t->name, &name))
        return fkv_fail(err, "%s: tensor %.200s: expected factors of LoRA, a weight or a bias",
                        t->path, t->name);
    if (name.labelled && check_label(a, t, name.label, err)) return FKV_FAILED;
    const int32_t layer = layer_of(name.module, &inner);
    if (layer >= 0 && !a->model_prefix) a->model_prefix = name.model ? "model." : "";
    for (int role = layer < 0 ? 0 : FKV_ATTENTION_NORM;
         role < (layer < 0 ? FKV_ATTENTION_NORM : FKV_ROLES) && layer < a->base.layers; role++) {
        const struct fkv_role_name *names = &a->names[role];
        const bool own = fkv_adapter_name_is(names->own, inner, name.bias);
        if (!(own || fkv_adapter_name_is(names->shared, inner, name.bias)) ||
            !is_present(a, (enum fkv_role)role) || !takes((enum fkv_role)role, &name))
            continue;
        struct part *part = part_of(a, (enum fkv_role)role, layer);
        if (part->tensors[name.kind])
            return fkv_fail(err,
                            "%s: tensor %.200s: expected one for its module, found %.200s, too",
                            t->path, t->name, part->tensors[name.kind]->name);
        part->tensors[name.kind] = t;
        part->shared[name.kind] = !own;
        found++;
    }
    if (found) return FKV_OK;
    return fkv_fail(err,
                    "%s: tensor %.200s: expected a tensor that has a part in a %s of %d layers, "
                    "found another (it would be left out)",
                    t->path, t->name, a->base.model_type, a->base.layers);
}

/* ---- checks ---- */

/* The role's module as PEFT names it, by its own tensor or the shared one; "" where there is none.
 */
static void module_name(const struct fkv_adapter *a, enum fkv_role role, int32_t layer, bool shared,
                        char name[MOST_NAME]) {
    const struct fkv_role_name *names = &a->names[role];
    const char *inner = shared ? names->shared : names->own;
    char prefix[32] = "";
    *name = 0;
    if (!inner) return;
    fkv_skip_prefix(&inner, "model.");
    if (role >= FKV_ATTENTION_NORM) snprintf(prefix, sizeof prefix, "layers.%d.", layer);
    snprintf(name, MOST_NAME, "%s%s%s", role == FKV_HEAD ? "" : a->model_prefix, prefix, inner);
    if (!fkv_cut_ending(name, ".weight")) fkv_cut_ending(name, ".bias");
}

static int refuse_missing(const struct fkv_adapter *a, const char *field, const char *module,
                          const char *what, struct fkv_error *err) {
    return fkv_fail(err, "%s: field \"%s\": %s: expected its %s in the weights, found nothing",
                    a->config_path, field, module, what);
}

/* Refuses a factor that is not [rows, cols], or with rows 0 not [cols]. */
static int check_factor(const struct fkv_tensor *t, int32_t rows, int32_t cols,
                        struct fkv_error *err) {
    return fkv_tensor_check_dtype(t, err) || fkv_tensor_check_shape(t, rows, cols, err) ? FKV_FAILED
                                                                                        : FKV_OK;
}

/* Both factors are there (or the bias of B), of the rank that the config says. */
static int check_factors(struct fkv_adapter *a, enum fkv_role role, int32_t layer,
                         struct fkv_error *err) {
    struct part *part = part_of(a, role, layer);
    const struct fkv_tensor *a_factor = part->tensors[FKV_ADAPTER_A],
                            *b_factor = part->tensors[FKV_ADAPTER_B],
                            *factor = a_factor ? a_factor : b_factor;
    const bool embedding = role == FKV_EMBEDDING, bias = !is_matrix(role);
    char name[MOST_NAME];
    int32_t rows, cols, first = 0, all, rank;
    if (!factor) return FKV_OK;
    module_name(a, role, layer, part->shared[b_factor ? FKV_ADAPTER_B : FKV_ADAPTER_A], name);
    if ((!a_factor && !bias) || !b_factor)
        return fkv_fail(err, "%s: tensor %.200s: expected both factors of %s, found this one alone",
                        factor->path, factor->name, name);
    if (fkv_adapter_config_scale(&a->config, name, &rank, &part->scale, err)) return FKV_FAILED;
    fkv_role_shape(&a->base, role, &rows, &cols);
    all = bias ? cols : rows;
    if (part->shared[FKV_ADAPTER_B]) fkv_role_shared_rows(&a->base, role, &first, &all);
    if (bias) return check_factor(b_factor, 0, all, err);
    part->rank = rank;
    if (check_factor(a_factor, rank, embedding ? rows : cols, err)) return FKV_FAILED;
    return check_factor(b_factor, embedding ? cols : all, rank, err);
}

/* What the config says of the role's module, by its own tensor or the shared one: `name` is that of
 * which it says something. */
struct said {
    char name[MOST_NAME];
    bool targeted, saved;
};

static int ask_config(const struct fkv_adapter *a, enum fkv_role role, int32_t layer,
                      struct said *out, struct fkv_error *err) {
    *out = (struct said){0};
    for (int shared = 0; shared < 2 && !out->targeted && !out->saved; shared++) {
        module_name(a, role, layer, shared, out->name);
        if (!*out->name) return FKV_OK;
        if (fkv_adapter_config_saves(&a->config, out->name, &out->saved, err) ||
            fkv_adapter_config_targets(&a->config, out->name, fkv_role_is_projection(role),
                                       &out->targeted, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* What the config says of the role's module is what the weights hold. A head that follows the
 * embedding may have tensors or not. */
static int check_role(struct fkv_adapter *a, enum fkv_role role, int32_t layer,
                      struct fkv_error *err) {
    struct part *part = part_of(a, role, layer);
    const bool follows = role == FKV_HEAD && a->base.tied && a->config.tied,
               matrix = is_matrix(role);
    const struct fkv_tensor *factor = part->tensors[FKV_ADAPTER_A];
    struct said said;
    if (!factor) factor = part->tensors[FKV_ADAPTER_B];
    if (ask_config(a, role, layer, &said, err)) return FKV_FAILED;
    if (said.saved && !part->tensors[FKV_ADAPTER_WHOLE] && !follows)
        return refuse_missing(a, "modules_to_save", said.name, "tensor", err);
    if (said.targeted && matrix && !factor && !follows)
        return refuse_missing(a, "target_modules", said.name, "factors A and B", err);
    if (factor && matrix && !said.targeted && !follows &&
        fkv_adapter_config_has_targets(&a->config))
        return fkv_fail(err,
                        "%s: tensor %.200s: expected a module that target_modules names, found "
                        "another (it would be left out)",
                        factor->path, factor->name);
    return check_factors(a, role, layer, err);
}

static int check_roles(struct fkv_adapter *a, struct fkv_error *err) {
    for (int role = 0; role < FKV_ROLES; role++)
        for (int32_t layer = 0; layer < (role < FKV_ATTENTION_NORM ? 1 : a->base.layers); layer++)
            if (is_present(a, (enum fkv_role)role) &&
                check_role(a, (enum fkv_role)role, layer, err))
                return FKV_FAILED;
    return FKV_OK;
}

static int64_t whole_rows(const struct fkv_adapter *a, enum fkv_role role) {
    const struct fkv_tensor *t = part_of(a, role, 0)->tensors[FKV_ADAPTER_WHOLE];
    return t && t->dims == 2 ? t->shape[0] : 0;
}

/* Trainings add tokens to the base's vocabulary. Where both embedding and head come whole the
 * vocabulary grows; an embedding alone is cut, for nothing says what the head has for the rest. */
static void find_vocab(struct fkv_adapter *a) {
    const int64_t embedding = whole_rows(a, FKV_EMBEDDING), head = whole_rows(a, FKV_HEAD),
                  most = embedding > head ? embedding : head;
    const bool together = embedding == head || (embedding && !head && !fkv_adapter_unties(a));
    a->vocab = a->base.vocab;
    if (most <= a->vocab || most > INT32_MAX / 2) return;
    if (together)
        a->vocab = a->base.vocab = (int32_t)most;
    else
        a->rows_left_out = (int32_t)(most - a->vocab);
}

/* ---- life ---- */

static int hash_files(struct fkv_adapter *a, int files, struct fkv_error *err) {
    const char *paths[3] = {a->config_path};
    for (int i = 0; i < files; i++) paths[1 + i] = a->files->paths[i];
    return fkv_sha256_files(paths, 1 + files, a->sha256, err);
}

static int load(struct fkv_adapter *a, const char *path, struct fkv_error *err) {
    char trained[FKV_PATH], embedding[MOST_NAME];
    struct stat found;
    const char *const names[] = {weights_name, trained_name};
    if (fkv_path_print(a->config_path, err, "%s/%s", path, config_name) ||
        fkv_path_print(trained, err, "%s/%s", path, trained_name))
        return FKV_FAILED;
    const int files = stat(trained, &found) ? 1 : 2;
    json_t *root = fkv_json_load(a->config_path, MAX_CONFIG_BYTES, err);
    if (!root) return FKV_FAILED;
    int status = fkv_adapter_config_read(root, a->config_path, &a->config, err);
    json_decref(root);
    if (status || fkv_safetensors_open_files(path, names, files, &a->files, err)) return FKV_FAILED;
    for (size_t i = 0; i < a->files->tensors.count; i++)
        if (assign(a, &a->files->tensors.tensors[i], err)) return FKV_FAILED;
    if (!a->files->tensors.count)
        return fkv_fail(err, "%s/%s: expected tensors, found none", path, weights_name);
    if (!a->model_prefix) a->model_prefix = "model.";
    module_name(a, FKV_EMBEDDING, 0, false, embedding);
    if (fkv_adapter_config_saves(&a->config, embedding, &a->embedding_saved, err))
        return FKV_FAILED;
    find_vocab(a);
    return check_roles(a, err) || hash_files(a, files, err) ? FKV_FAILED : FKV_OK;
}

int fkv_adapter_open(const char *path, const struct fkv_config *base, struct fkv_adapter **out,
                     struct fkv_error *err) {
    *out = NULL;
    if (fkv_mistaken_adapter(path, err)) return FKV_FAILED;
    struct fkv_adapter *a = calloc(1, sizeof *a);
    if (!a) return fkv_fail(err, "%s: out of memory", path);
    a->base = *base;
    fkv_hugging_face_names(base, a->names);
    a->parts = calloc((size_t)FKV_ROLES * (size_t)base->layers, sizeof *a->parts);
    if (a->parts ? load(a, path, err) : fkv_fail(err, "%s: out of memory", path)) {
        fkv_adapter_close(a);
        return FKV_FAILED;
    }
    *out = a;
    return FKV_OK;
}

void fkv_adapter_close(struct fkv_adapter *a) {
    if (!a) return;
    fkv_safetensors_close(a->files);
    fkv_adapter_config_free(&a->config);
    free(a->parts);
    free(a);
}

/* ---- questions ---- */

const char *fkv_adapter_sha256(const struct fkv_adapter *a) { return a->sha256; }

const char *fkv_adapter_base(const struct fkv_adapter *a) { return a->config.base; }

int32_t fkv_adapter_vocab(const struct fkv_adapter *a) { return a->vocab; }

int32_t fkv_adapter_rows_left_out(const struct fkv_adapter *a) { return a->rows_left_out; }

bool fkv_adapter_unties(const struct fkv_adapter *a) {
    const struct part *head = part_of(a, FKV_HEAD, 0), *embedding = part_of(a, FKV_EMBEDDING, 0);
    return !a->base.tied || head->tensors[FKV_ADAPTER_WHOLE] || head->tensors[FKV_ADAPTER_A] ||
           ((a->embedding_saved || embedding->tensors[FKV_ADAPTER_A]) && !a->config.tied);
}

bool fkv_adapter_find(const struct fkv_adapter *a, enum fkv_role role, int32_t layer,
                      struct fkv_tensor *out) {
    const struct part *part = part_of(a, role, layer);
    int32_t rows, cols;
    if (role == FKV_HEAD && !part->tensors[FKV_ADAPTER_WHOLE] && a->base.tied &&
        !a->embedding_saved)
        part = part_of(a, FKV_EMBEDDING, 0); /* the parameter that base and head share */
    const struct fkv_tensor *t = part->tensors[FKV_ADAPTER_WHOLE];
    if (!t) return false;
    *out = *t;
    out->less_one = fkv_family_find(a->base.model_type)->norms_less_one && fkv_role_is_norm(role);
    fkv_role_shape(&a->base, role, &rows, &cols);
    if (part->shared[FKV_ADAPTER_WHOLE]) {
        fkv_role_slice(&a->base, role, out, NULL); /* else refused by its shape */
    } else if ((role == FKV_EMBEDDING || role == FKV_HEAD) && t->dims == 2 && t->shape[0] > rows) {
        out->shape[0] = rows;
    }
    return true;
}

bool fkv_adapter_adds(const struct fkv_adapter *a, enum fkv_role role, int32_t layer) {
    return part_of(a, role, layer)->tensors[FKV_ADAPTER_B];
}

/* ---- the sum ---- */

/* Rows [first, first+rows) of t [.., cols] -> *out [rows, cols], or transposed [cols, rows], which
 * the caller frees. */
static int read_factor(const struct fkv_tensor *t, int32_t first, int32_t rows, int32_t cols,
                       bool transposed, float **out, struct fkv_error *err) {
    const size_t n = (size_t)rows * (size_t)cols;
    const char *from =
        (const char *)t->data + fkv_weight_bytes(t->format, (size_t)first * (size_t)cols);
    float *values = malloc(n * sizeof *values),
          *turned = transposed ? malloc(n * sizeof *turned) : values;
    *out = NULL;
    if (values && turned) {
        fkv_weight_expand(t->format, from, n, values);
        size_t i = 0;
        while (i < n && isfinite(values[i])) i++;
        if (i < n)
            fkv_fail(err, "%s: tensor %.200s: expected finite values, found %s at [%zu, %zu]",
                     t->path, t->name, isnan(values[i]) ? "NaN" : "infinity",
                     (size_t)first + i / (size_t)cols, i % (size_t)cols);
        else
            *out = turned;
        if (transposed)
            for (size_t r = 0; r < (size_t)rows; r++)
                for (size_t c = 0; c < (size_t)cols; c++)
                    turned[c * (size_t)rows + r] = values[r * (size_t)cols + c];
    } else {
        fkv_fail(err, "%s: tensor %.200s: out of memory", t->path, t->name);
    }
    if (values != *out) free(values);
    if (turned != values && turned != *out) free(turned);
    return *out ? FKV_OK : FKV_FAILED;
}

/* values [rows, cols] += scale * left [rows, rank] @ right [rank, cols], SOME columns at a time,
 * whose part of `right` stays in the second-level cache. */
static void add_product(const float *left, const float *right, int32_t rank, float scale,
                        int32_t rows, int32_t cols, float *values) {
    enum { SOME = 1024 };
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < rows; i++)
        for (int32_t at = 0; at < cols; at += SOME) {
            const int32_t n = cols - at < SOME ? cols - at : SOME;
            float sum[SOME] = {0}, *out = values + (size_t)i * (size_t)cols + at;
            for (int32_t k = 0; k < rank; k++) {
                const float x = left[(size_t)i * (size_t)rank + (size_t)k],
                            *y = right + (size_t)k * (size_t)cols + at;
#pragma omp simd
                for (int32_t j = 0; j < n; j++) sum[j] += x * y[j];
            }
            for (int32_t j = 0; j < n; j++) out[j] += scale * sum[j];
        }
}

/* The bias of B, of one column: rows [first, first+n) of it. */
static int add_bias(const struct part *part, int32_t first, int32_t n, float *values,
                    struct fkv_error *err) {
    float *bias;
    if (read_factor(part->tensors[FKV_ADAPTER_B], first, n, 1, false, &bias, err))
        return FKV_FAILED;
    for (int32_t i = 0; i < n; i++) values[i] += part->scale * bias[i];
    free(bias);
    return FKV_OK;
}

int fkv_adapter_add(const struct fkv_adapter *a, enum fkv_role role, int32_t layer, int32_t rows,
                    int32_t cols, float *values, struct fkv_error *err) {
    const struct part *part = part_of(a, role, layer);
    const struct fkv_tensor *b = part->tensors[FKV_ADAPTER_B],
                            *right_of = part->tensors[FKV_ADAPTER_A];
    float *left = NULL, *right = NULL;
    int32_t first = 0, all;
    if (part->shared[FKV_ADAPTER_B]) fkv_role_shared_rows(&a->base, role, &first, &all);
    if (!rows) return add_bias(part, first, cols, values, err);
    int status = role == FKV_EMBEDDING
                     ? read_factor(right_of, 0, part->rank, rows, true, &left, err) ||
                           read_factor(b, 0, cols, part->rank, true, &right, err)
                     : read_factor(b, first, rows, part->rank, false, &left, err) ||
                           read_factor(right_of, 0, part->rank, cols, false, &right, err);
    if (!status) add_product(left, right, part->rank, part->scale, rows, cols, values);
    free(left);
    free(right);
    return status ? FKV_FAILED : FKV_OK;
}
