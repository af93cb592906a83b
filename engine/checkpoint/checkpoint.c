/* Finds a checkpoint's format, and a role's tensor by the names of that format. Where a tensor is
 * shared by several roles (fused projections), a role is a slice of its rows: rows are whole blocks
 * in every weight format. */
#include "engine/checkpoint/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/mistaken.h"

/* ---- finding ---- */

void fkv_checkpoint_print_name(const struct fkv_checkpoint_format *format, enum fkv_role role,
                               int32_t layer, const char *own, char name[FKV_TENSOR_NAME]) {
    char prefix[32] = "";
    if (role >= FKV_ATTENTION_NORM) snprintf(prefix, sizeof prefix, format->layer_prefix, layer);
    snprintf(name, FKV_TENSOR_NAME, "%s%s", prefix, own);
}

/* Of the whole tensor *t the role's rows. */
static int slice(const struct fkv_config *c, enum fkv_role role, struct fkv_role_tensor *t,
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

int fkv_checkpoint_find(const struct fkv_checkpoint *c, enum fkv_role role, int32_t layer,
                        struct fkv_role_tensor *out, struct fkv_error *err) {
    const struct fkv_role_name *names = &c->names[role];
    char name[FKV_TENSOR_NAME], shared[FKV_TENSOR_NAME];
    fkv_checkpoint_print_name(c->format, role, layer, names->own, name);
    bool found = c->format->find(c, name, out);
    int32_t rows, cols;
    fkv_role_shape(&c->config, role, &rows, &cols);
    const bool shares_own = names->shared && !strcmp(names->own, names->shared);
    if (found && shares_own && out->shape[0] != rows) {
        if (slice(&c->config, role, out, err)) return FKV_FAILED;
    } else if (names->shared && !found) {
        fkv_checkpoint_print_name(c->format, role, layer, names->shared, shared);
        found = c->format->find(c, shared, out);
        if (found && slice(&c->config, role, out, err)) return FKV_FAILED;
    }
    if (!found)
        return fkv_fail(err, "%s: tensor %s: expected in %s, found nothing", c->path, name,
                        c->format->where);
    if (!out->computable)
        return fkv_fail(err, "%s: tensor %s: dtype: expected %s, found %s", out->path, out->name,
                        c->format->formats, out->format_name);
    out->paired_heads = c->paired_heads && (role == FKV_QUERY || role == FKV_KEY ||
                                            role == FKV_QUERY_BIAS || role == FKV_KEY_BIAS);
    out->less_one = c->config.norms_less_one && fkv_role_is_norm(role);
    return FKV_OK;
}

/* ---- life ---- */

#define ADDRESS(x) &fkv_##x##_format,
static const struct fkv_checkpoint_format *const formats[] = {FKV_CHECKPOINT_FORMAT_ROWS(ADDRESS)};
enum { FORMATS = sizeof formats / sizeof *formats };

static int find_format(const char *path, const struct fkv_checkpoint_format **out,
                       struct fkv_error *err) {
    char expected[256] = "";
    for (int i = 0; i < FORMATS; i++) {
        const size_t end = strlen(expected);
        snprintf(expected + end, sizeof expected - end, "%s%s", i ? " or " : "", formats[i]->what);
    }
    if (fkv_mistaken_model(path, expected, err)) return FKV_FAILED;
    for (int i = 0; i < FORMATS; i++)
        if (formats[i]->fits(path)) {
            *out = formats[i];
            return FKV_OK;
        }
    if (access(path, R_OK)) return fkv_fail_errno(err, "%s: cannot open", path);
    return fkv_fail(err, "%s: expected %s, found a file", path, expected);
}

int fkv_checkpoint_open(const char *path, int32_t trained_context, struct fkv_checkpoint **out,
                        struct fkv_error *err) {
    const struct fkv_checkpoint_format *format;
    *out = NULL;
    if (find_format(path, &format, err)) return FKV_FAILED;
    struct fkv_checkpoint *c = calloc(1, sizeof *c);
    char *copy = strdup(path);
    if (!c || !copy) {
        free(c), free(copy);
        return fkv_fail(err, "%s: out of memory", path);
    }
    c->format = format;
    c->path = copy;
    memcpy(c->names, format->names, sizeof c->names);
    if (format->open(c, trained_context, err)) {
        fkv_checkpoint_close(c);
        return FKV_FAILED;
    }
    *out = c;
    return FKV_OK;
}

void fkv_checkpoint_close(struct fkv_checkpoint *c) {
    if (!c) return;
    c->format->close(c);
    free(c->path);
    free(c);
}

/* ---- questions ---- */

const struct fkv_config *fkv_checkpoint_config(const struct fkv_checkpoint *c) {
    return &c->config;
}

const char *fkv_checkpoint_note(const struct fkv_checkpoint *c) { return c->note; }

int fkv_checkpoint_sha256(const struct fkv_checkpoint *c, fkv_sha256_hex out,
                          struct fkv_error *err) {
    return c->format->sha256(c, out, err);
}
