/* The shapes of roles by a config, and the order of rows that the model computes in. Where a tensor
 * is shared by several roles (fused projections), a role is a slice of its rows: rows are whole
 * blocks in every weight format. */
#include "engine/checkpoint/roles.h"

#include <stdlib.h>
#include <string.h>

void fkv_role_shape(const struct fkv_config *c, enum fkv_role role, int32_t *rows, int32_t *cols) {
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int32_t shapes[FKV_ROLES][2] = {
        [FKV_EMBEDDING] = {c->vocab, c->dim},
        [FKV_FINAL_NORM] = {0, c->dim},
        [FKV_HEAD] = {c->vocab, c->dim},
        [FKV_ATTENTION_NORM] = {0, c->dim},
        [FKV_QUERY] = {q, c->dim},
        [FKV_KEY] = {kv, c->dim},
        [FKV_VALUE] = {kv, c->dim},
        [FKV_QUERY_BIAS] = {0, q},
        [FKV_KEY_BIAS] = {0, kv},
        [FKV_VALUE_BIAS] = {0, kv},
        [FKV_QUERY_NORM] = {0, c->qk_norm == FKV_QK_NORM_WHOLE ? q : c->head_dim},
        [FKV_KEY_NORM] = {0, c->qk_norm == FKV_QK_NORM_WHOLE ? kv : c->head_dim},
        [FKV_OUTPUT] = {c->dim, q},
        [FKV_ATTENTION_OUTPUT_NORM] = {0, c->dim},
        [FKV_MLP_NORM] = {0, c->dim},
        [FKV_GATE] = {c->hidden, c->dim},
        [FKV_UP] = {c->hidden, c->dim},
        [FKV_DOWN] = {c->dim, c->hidden},
        [FKV_MLP_OUTPUT_NORM] = {0, c->dim},
    };
    *rows = shapes[role][0];
    *cols = shapes[role][1];
}

void fkv_role_shared_rows(const struct fkv_config *c, enum fkv_role role, int32_t *first,
                          int32_t *all) {
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const bool mlp = role == FKV_GATE || role == FKV_UP,
               key = role == FKV_KEY || role == FKV_KEY_BIAS,
               value = role == FKV_VALUE || role == FKV_VALUE_BIAS;
    *all = mlp ? 2 * c->hidden : q + 2 * kv;
    *first = role == FKV_UP ? c->hidden : key ? q : value ? q + kv : 0;
}

int fkv_role_slice(const struct fkv_config *c, enum fkv_role role, struct fkv_tensor *t,
                   struct fkv_error *err) {
    int32_t first, all, rows, cols;
    fkv_role_shared_rows(c, role, &first, &all);
    fkv_role_shape(c, role, &rows, &cols);
    if (t->dims < 1 || t->dims > 2 || t->shape[0] != all)
        return fkv_fail(err, "%s: tensor %s: shape: expected %d rows, found %lld", t->path, t->name,
                        all, t->dims ? (long long)t->shape[0] : 0);
    const size_t width = t->dims == 2 ? (size_t)t->shape[1] : 1;
    t->shape[0] = rows ? rows : cols;
    if (t->computable)
        t->data = (const char *)t->data + fkv_weight_bytes(t->format, (size_t)first * width);
    return FKV_OK;
}

static const enum kind {
    OTHER,
    PROJECTION,
    NORM
} kinds[FKV_ROLES] = {
    [FKV_QUERY] = PROJECTION,  [FKV_KEY] = PROJECTION,       [FKV_VALUE] = PROJECTION,
    [FKV_OUTPUT] = PROJECTION, [FKV_GATE] = PROJECTION,      [FKV_UP] = PROJECTION,
    [FKV_DOWN] = PROJECTION,   [FKV_FINAL_NORM] = NORM,      [FKV_ATTENTION_NORM] = NORM,
    [FKV_QUERY_NORM] = NORM,   [FKV_KEY_NORM] = NORM,        [FKV_ATTENTION_OUTPUT_NORM] = NORM,
    [FKV_MLP_NORM] = NORM,     [FKV_MLP_OUTPUT_NORM] = NORM,
};

bool fkv_role_is_projection(enum fkv_role role) { return kinds[role] == PROJECTION; }

bool fkv_role_is_norm(enum fkv_role role) { return kinds[role] == NORM; }

bool fkv_role_present(const struct fkv_config *c, enum fkv_role role) {
    switch (role) {
    case FKV_HEAD: return !c->tied;
    case FKV_QUERY_BIAS:
    case FKV_KEY_BIAS:
    case FKV_VALUE_BIAS: return c->qkv_bias;
    case FKV_QUERY_NORM:
    case FKV_KEY_NORM: return c->qk_norm != FKV_QK_NORM_NONE;
    case FKV_ATTENTION_NORM:
    case FKV_MLP_NORM: return c->input_norms;
    case FKV_ATTENTION_OUTPUT_NORM:
    case FKV_MLP_OUTPUT_NORM: return c->output_norms;
    default: return true;
    }
}

/* Row 2i + j of a head -> row i + j * head_dim/2. */
static void unpair(const char *from, size_t rows, size_t row_bytes, size_t head_dim, char *to) {
    for (size_t r = 0; r < rows; r++) {
        const size_t head = r / head_dim, in = r % head_dim,
                     row = head * head_dim + in / 2 + in % 2 * (head_dim / 2);
        memcpy(to + row * row_bytes, from + r * row_bytes, row_bytes);
    }
}

/* n stored values w - 1 -> w in float32 */
static void add_one(const struct fkv_tensor *t, size_t n, float *to) {
    fkv_weight_expand(t->format, t->data, n, to);
    for (size_t i = 0; i < n; i++) to[i] += 1;
}

int fkv_role_tensor_arrange(struct fkv_tensor *t, int32_t head_dim, void **copy,
                            struct fkv_error *err) {
    const size_t rows = (size_t)t->shape[0],
                 row_bytes = fkv_weight_bytes(t->format, t->dims == 2 ? (size_t)t->shape[1] : 1),
                 element = fkv_weight_is_dtype(t->format)
                               ? fkv_dtype_bytes((enum fkv_dtype)t->format)
                               : 1,
                 bytes = t->less_one ? rows * sizeof(float) : rows * row_bytes;
    *copy = NULL;
    if (!t->paired_heads && !t->less_one && (uintptr_t)t->data % element == 0) return FKV_OK;
    *copy = malloc(bytes);
    if (!*copy)
        return fkv_fail(err, "%s: tensor %s: out of memory for a copy of %zu bytes", t->path,
                        t->name, bytes);
    if (t->less_one) {
        add_one(t, rows, *copy);
        t->format = FKV_WEIGHT_F32;
    } else if (t->paired_heads) {
        unpair(t->data, rows, row_bytes, (size_t)head_dim, *copy);
    } else {
        memcpy(*copy, t->data, bytes);
    }
    t->data = *copy;
    return FKV_OK;
}
