/* Owns what a config says of a rotation. Two spellings exist: rope_theta and rope_scaling
 * (transformers 4), and rope_parameters holding both (transformers 5), there with one object per
 * kind of layers where they differ. The formulas are rope_kinds.c's. */
#include "engine/checkpoint/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/parse.h"
#include "kernels/base/path.h"

/* The object of a field for these layers, or NULL. *own: it is not for the other layers. */
static int find_object(const json_t *root, const char *where, const char *field, const char *layers,
                       const json_t **out, bool *own, struct fkv_error *err) {
    const json_t *rope = json_object_get(root, field), *inner;
    *out = NULL;
    *own = false;
    if (!rope || json_is_null(rope)) return FKV_OK;
    if (!json_is_object(rope))
        return fkv_fail(err, "%s: field \"%s\": expected an object or null", where, field);
    inner = layers ? json_object_get(rope, layers) : NULL;
    if (inner && !json_is_object(inner) && !json_is_null(inner))
        return fkv_fail(err, "%s: field \"%s\": expected an object for %s", where, field, layers);
    if (inner) {
        *out = json_is_null(inner) ? NULL : inner;
        *own = true;
        return FKV_OK;
    }
    for (void *at = json_object_iter((json_t *)rope); at;
         at = json_object_iter_next((json_t *)rope, at))
        if (json_is_object(json_object_iter_value(at)))
            return fkv_fail(err,
                            "%s: field \"%s\": expected one rotation for all layers, found one of "
                            "its own for %.64s",
                            where, field, json_object_iter_key(at));
    *out = rope;
    return FKV_OK;
}

/* The object that describes the rotation, a new reference, or NULL: rope_scaling if it says
 * anything, else rope_parameters. *field: its name. */
static int find_rope(const json_t *root, const char *where, json_t **out, const char **field,
                     struct fkv_error *err) {
    static const char *const fields[] = {"rope_scaling", "rope_parameters"};
    const json_t *found = NULL;
    bool own;
    for (int i = 0; i < 2 && !(found && json_object_size(found)); i++) {
        *field = fields[i];
        if (find_object(root, where, fields[i], NULL, &found, &own, err)) return FKV_FAILED;
    }
    *out = json_incref((json_t *)found);
    return FKV_OK;
}

/* The same of one kind of layers: the object in rope_parameters with rope_scaling on top of it.
 * *own: there is one in rope_parameters. */
static int find_rope_of_layers(const json_t *root, const char *where, const char *layers,
                               json_t **out, const char **field, bool *own, struct fkv_error *err) {
    const json_t *parameters, *scaling;
    bool scaling_own;
    if (find_object(root, where, "rope_parameters", layers, &parameters, own, err) ||
        find_object(root, where, "rope_scaling", layers, &scaling, &scaling_own, err))
        return FKV_FAILED;
    if (scaling_own)
        return fkv_fail(err,
                        "%s: field \"rope_scaling\": expected one rotation (transformers reads "
                        "none by kind of layers here, but in rope_parameters), found one for %s",
                        where, layers);
    if (parameters && !*own && json_object_size(parameters))
        return fkv_fail(err, "%s: field \"rope_parameters\": expected an object for %s, found none",
                        where, layers);
    const bool scaled = scaling && json_object_size(scaling);
    *field = scaled ? "rope_scaling" : "rope_parameters";
    if (!scaled || !parameters) {
        *out = json_incref((json_t *)(scaled ? scaling : parameters));
        return FKV_OK;
    }
    *out = json_copy((json_t *)parameters);
    return *out && !json_object_update(*out, (json_t *)scaling)
               ? FKV_OK
               : fkv_fail(err, "%s: out of memory", where);
}

/* Older Phi-3 files call longrope su or yarn. */
static int find_kind(const json_t *rope, const char *scope, const struct fkv_rope_kind **out,
                     struct fkv_error *err) {
    const char *name = "default";
    if (rope && (fkv_json_get_string(rope, scope, "type", false, &name, err) ||
                 fkv_json_get_string(rope, scope, "rope_type", false, &name, err)))
        return FKV_FAILED;
    if (json_object_get(rope, "short_factor") && (!strcmp(name, "su") || !strcmp(name, "yarn")))
        name = "longrope";
    *out = fkv_rope_kind_find(name);
    if (*out) return FKV_OK;
    return fkv_fail(err, "%s: field \"rope_type\": expected %s, found %.64s", scope,
                    fkv_rope_kind_names(), name);
}

static int keep_scaling_text(const json_t *rope, const char *scope, struct fkv_rope *r,
                             struct fkv_error *err) {
    char *text = json_dumps(rope, JSON_COMPACT);
    size_t length = text ? strlen(text) : 0;
    bool fits = text && length < sizeof r->scaling;
    if (fits) memcpy(r->scaling, text, length + 1);
    free(text);
    if (fits) return FKV_OK;
    return fkv_fail(err, "%s: expected less than %zu characters, found %zu", scope,
                    sizeof r->scaling, length);
}

/* Of a head, the channels that turn. */
static int count_channels(const char *where, double part, int32_t head_dim, int32_t *channels,
                          struct fkv_error *err) {
    *channels = part <= 1 ? (int32_t)(head_dim * part) : 0;
    if (*channels >= 2 && *channels % 2 == 0) return FKV_OK;
    return fkv_fail(err,
                    "%s: field \"partial_rotary_factor\": expected an even number of channels up "
                    "to head_dim %d, found %g of them",
                    where, head_dim, part * head_dim);
}

/* The rotation of a kind, from its fields. */
static int form(const struct fkv_rope_kind *kind, const struct fkv_rope_fields *f, double theta,
                int32_t channels, struct fkv_rope *r, struct fkv_error *err) {
    *r = (struct fkv_rope){.channels = channels,
                           .theta = theta,
                           .attention_factor = 1,
                           .factor = 1,
                           .by_length = kind->beyond != NULL,
                           .scaling = "null"};
    strcpy(r->kind, kind->name);
    for (int i = 0; i < channels / 2; i++) r->inv_freq[i] = pow(theta, -2.0 * i / channels);
    if (!kind->read) return FKV_OK;
    return kind->read(f, r, err) || keep_scaling_text(f->rope, f->scope, r, err) ? FKV_FAILED
                                                                                 : FKV_OK;
}

/* rope: the object that describes the rotation, or NULL; own: see find_object. */
static int read_found(const json_t *root, const char *where, const json_t *rope, const char *field,
                      bool own, const struct fkv_rope_defaults *defaults, struct fkv_rope *r,
                      struct fkv_error *err) {
    const struct fkv_rope_kind *kind;
    char scope[FKV_PATH + 64]; /* a path and a field's name */
    double theta = defaults->theta, part = 1;
    int32_t channels;
    snprintf(scope, sizeof scope, "%s: %s", where, field);
    const bool inner_theta = json_object_get(rope, "rope_theta");
    static const char *const theta_field[] = {"rope_theta", NULL};
    if (fkv_json_refuse_null(inner_theta ? rope : root, inner_theta ? scope : where, theta_field,
                             err) ||
        fkv_json_get_double(root, where, "rope_theta", false, 1, 1e15, &theta, err) ||
        fkv_json_get_double(root, where, "partial_rotary_factor", false, 0, 1e6, &part, err))
        return FKV_FAILED;
    if (rope &&
        (fkv_json_get_double(rope, scope, "rope_theta", false, 1, 1e15, &theta, err) ||
         fkv_json_get_double(rope, scope, "partial_rotary_factor", false, 0, 1e6, &part, err)))
        return FKV_FAILED;
    if (count_channels(where, part, defaults->head_dim, &channels, err) ||
        find_kind(rope, scope, &kind, err))
        return FKV_FAILED;
    const struct fkv_rope_fields f = {.rope = rope,
                                      .scope = scope,
                                      .outer = own ? NULL : root,
                                      .where = where,
                                      .context = defaults->trained_context};
    return form(kind, &f, theta, channels, r, err);
}

int fkv_rope_read(const json_t *root, const char *where, const struct fkv_rope_defaults *defaults,
                  struct fkv_rope *r, struct fkv_error *err) {
    json_t *rope = NULL;
    const char *field = NULL;
    bool own = false;
    int status = defaults->layers
                     ? find_rope_of_layers(root, where, defaults->layers, &rope, &field, &own, err)
                     : find_rope(root, where, &rope, &field, err);
    if (status == FKV_OK) status = read_found(root, where, rope, field, own, defaults, r, err);
    json_decref(rope);
    return status;
}

/* ---- another scaling ---- */

int fkv_rope_scaling_parse(const char *text, const char *what, struct fkv_rope_scaling *scaling,
                           struct fkv_error *err) {
    char name[16], factor_of[64];
    const char *factor = strchr(text, ':');
    const size_t length = factor ? (size_t)(factor - text) : 0;
    snprintf(name, sizeof name, "%.*s", length < sizeof name ? (int)length : 0, text);
    scaling->kind = fkv_rope_kind_find(name);
    if (!factor || !scaling->kind || !scaling->kind->by_factor)
        return fkv_fail(err, "%s: expected linear:F, yarn:F or dynamic:F, found \"%s\"", what,
                        text);
    snprintf(factor_of, sizeof factor_of, "%s: factor of %s", what, name);
    return fkv_parse_double(factor + 1, factor_of, 1, 1e6, &scaling->factor, err);
}

const char *fkv_rope_scaling_name(const struct fkv_rope *r) {
    if (strcmp(r->kind, "default")) return r->kind;
    return strcmp(r->scaling, "null") ? "divisors" : NULL;
}

int fkv_rope_rescale(struct fkv_rope *r, const struct fkv_rope_scaling *scaling, int32_t context,
                     struct fkv_error *err) {
    static const char where[] = "rope scaling";
    const char *own = fkv_rope_scaling_name(r);
    json_t *rope = json_pack("{s:s, s:f, s:i, s:s*}", "rope_type", scaling->kind->name, "factor",
                             scaling->factor, "original_max_position_embeddings", (int)context,
                             "replaces", own);
    if (!rope) return fkv_fail(err, "%s: out of memory", where);
    const struct fkv_rope_fields f = {
        .rope = rope, .scope = where, .where = where, .context = context};
    const int status = form(scaling->kind, &f, r->theta, r->channels, r, err);
    r->original = context;
    json_decref(rope);
    return status;
}

int fkv_rope_divide(struct fkv_rope *r, const float *divisors, struct fkv_error *err) {
    const size_t pairs = (size_t)r->channels / 2;
    fkv_sha256_hex hash;
    if (fkv_sha256_memory(divisors, pairs * sizeof *divisors, hash, err)) return FKV_FAILED;
    for (size_t i = 0; i < pairs; i++) r->inv_freq[i] /= (double)divisors[i];
    snprintf(r->scaling, sizeof r->scaling, "{\"rope_type\":\"divisors\",\"sha256\":\"%s\"}", hash);
    return FKV_OK;
}

void fkv_rope_frequencies(const struct fkv_rope *rope, int64_t positions, double *inv_freq) {
    if (rope->by_length && positions > rope->original)
        fkv_rope_kind_find(rope->kind)->beyond(rope, positions, inv_freq);
    else
        memcpy(inv_freq, rope->inv_freq, (size_t)rope->channels / 2 * sizeof *inv_freq);
}

bool fkv_rope_describe(const struct fkv_rope *rope, int64_t positions, char text[128]) {
    *text = 0;
    if (!rope->by_length) return false;
    snprintf(text, 128, "%s: frequencies %s its original context of %d, for %lld positions",
             rope->kind, positions > rope->original ? "beyond" : "within", rope->original,
             (long long)positions);
    return true;
}
