/* Finds a checkpoint's format, and a role's tensor by the names of that format. */
#include "engine/checkpoint/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/mistaken.h"

/* ---- finding ---- */

enum { MOST_NAME = 96 };

/* `name` of the role, with that of its layer in front. */
static void print_name(const struct fkv_checkpoint *c, enum fkv_role role, int32_t layer,
                       const char *name, char out[MOST_NAME]) {
    char prefix[32] = "";
    if (role >= FKV_ATTENTION_NORM) snprintf(prefix, sizeof prefix, c->format->layer_prefix, layer);
    snprintf(out, MOST_NAME, "%s%s", prefix, name);
}

const struct fkv_tensor *fkv_checkpoint_lookup(const struct fkv_checkpoint *c, enum fkv_role role,
                                               int32_t layer, bool *shared) {
    const struct fkv_role_name *names = &c->names[role];
    char name[MOST_NAME];
    print_name(c, role, layer, names->own, name);
    const struct fkv_tensor *t = c->format->find(c, name);
    *shared = !t && names->shared;
    if (!*shared) return t;
    print_name(c, role, layer, names->shared, name);
    return c->format->find(c, name);
}

int fkv_checkpoint_find(const struct fkv_checkpoint *c, enum fkv_role role, int32_t layer,
                        struct fkv_tensor *out, struct fkv_error *err) {
    const struct fkv_role_name *names = &c->names[role];
    char name[MOST_NAME];
    bool shared;
    int32_t rows, cols;
    const struct fkv_tensor *t = fkv_checkpoint_lookup(c, role, layer, &shared);
    print_name(c, role, layer, names->own, name);
    if (!t)
        return fkv_fail(err, "%s: tensor %s: expected in %s, found nothing", c->path, name,
                        c->format->where);
    *out = *t;
    fkv_role_shape(&c->config, role, &rows, &cols);
    if (names->shared && !strcmp(names->own, names->shared)) shared = t->shape[0] != rows;
    if (shared && fkv_role_slice(&c->config, role, out, err)) return FKV_FAILED;
    if (!out->computable)
        return fkv_fail(err, "%s: tensor %s: dtype: expected %s, found %s", out->path, out->name,
                        c->format->formats, out->format_name);
    out->paired_heads = c->paired_heads && (role == FKV_QUERY || role == FKV_KEY ||
                                            role == FKV_QUERY_BIAS || role == FKV_KEY_BIAS);
    out->less_one = c->config.norms_less_one && fkv_role_is_norm(role);
    return FKV_OK;
}

/* ---- life ---- */

/* A path is of the first that fits it. */
static const struct fkv_checkpoint_format *const formats[] = {&fkv_hugging_face_format,
                                                              &fkv_gguf_format};
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

void fkv_checkpoint_unload(const struct fkv_checkpoint *c) { c->format->unload(c); }

const char *fkv_checkpoint_note(const struct fkv_checkpoint *c) { return c->note; }

int fkv_checkpoint_sha256(const struct fkv_checkpoint *c, fkv_sha256_hex out,
                          struct fkv_error *err) {
    return c->format->sha256(c, out, err);
}
