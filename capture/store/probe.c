/* PROBE.h5, written whole and read whole: a file holds two numbers per token and change, which is
 * little beside what they cost. Layout: probe.h. The table of changes: probe_changes.c. */
#include "capture/store/probe.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/h5.h"
#include "capture/store/probe_changes.h"

enum { PROBE_FORMAT_VERSION = 2, MOST_HEADS = 1 << 20 };

/* Texts at the root, each a field of that name. */
#define TEXT(field, compared)                                                                      \
    { #field, offsetof(struct fkv_probe, field), sizeof((struct fkv_probe *)0)->field, compared }
static const struct {
    const char *name;
    size_t offset;
    size_t bytes;  /* of the field */
    bool compared; /* and never absent */
} texts[] = {
    TEXT(model_name, true), TEXT(model_sha256, true),    TEXT(config_sha256, true),
    TEXT(states, true),     TEXT(backend, true),         TEXT(tokenizer_sha256, true),
    TEXT(compute, true),    TEXT(cache_dtype, true),     TEXT(kernels, false),
    TEXT(adapter, false),   TEXT(adapter_sha256, false),
};
enum { TEXTS = sizeof texts / sizeof *texts };

static const struct {
    const char *name;
    size_t offset;
    int32_t low, high;
} integers[] = {
    {"n_layers", offsetof(struct fkv_probe, layers), 1, 1 << 16},
    {"n_kv_heads", offsetof(struct fkv_probe, kv_heads), 1, 1 << 16},
    {"head_dim", offsetof(struct fkv_probe, head_dim), 1, 1 << 16},
    {"trained_context", offsetof(struct fkv_probe, trained_context), 1, 1 << 30},
    {"prefix", offsetof(struct fkv_probe, prefix), 1, 1 << 28},
    {"score", offsetof(struct fkv_probe, score), 1, 1 << 28},
    {"sinks", offsetof(struct fkv_probe, sinks), 0, 1 << 28},
};
enum { INTEGERS = sizeof integers / sizeof *integers };

/* ---- memory ---- */

int fkv_probe_window_create(const struct fkv_probe *p, struct fkv_probe_window *window,
                            struct fkv_error *err) {
    size_t m = (size_t)p->score, all = (size_t)p->change_count * m,
           tokens = (size_t)p->prefix + m + 1;
    *window = (struct fkv_probe_window){.tokens = calloc(tokens, sizeof *window->tokens),
                                        .untouched_nll = malloc((3 * m + 2 * all) * sizeof(float)),
                                        .lost_energy =
                                            calloc(2 * (size_t)p->change_count, sizeof(double))};
    if (!window->tokens || !window->untouched_nll || !window->lost_energy) {
        fkv_probe_window_free(window);
        return fkv_fail(err, "out of memory for the results of %d changes", p->change_count);
    }
    for (size_t i = 0; i < 3 * m + 2 * all; i++) window->untouched_nll[i] = NAN;
    window->repeat_nll = window->untouched_nll + m; /* one block of memory owns them all */
    window->repeat_kl = window->repeat_nll + m;
    window->nll = window->repeat_kl + m;
    window->kl = window->nll + all;
    return FKV_OK;
}

void fkv_probe_window_free(struct fkv_probe_window *window) {
    free(window->tokens);
    free(window->token_class);
    free(window->untouched_nll);
    free(window->lost_energy);
    *window = (struct fkv_probe_window){0};
}

void fkv_probe_free(struct fkv_probe *p) {
    for (int64_t i = 0; i < p->window_count; i++) fkv_probe_window_free(&p->windows[i]);
    free(p->windows);
    free(p->changes);
    free(p->command);
    p->windows = NULL, p->changes = NULL, p->command = NULL;
    p->window_count = 0, p->change_count = 0;
}

/* ---- writing ---- */

static int put_root(struct fkv_h5_writer *w, const struct fkv_probe *p, struct fkv_error *err) {
    if (fkv_h5_put_string(w, "/", "format", "freqkv-probe", err) ||
        fkv_h5_put_int(w, "/", "format_version", PROBE_FORMAT_VERSION, err) ||
        fkv_h5_put_string(w, "/", "version", FKV_VERSION, err) ||
        fkv_h5_put_string(w, "/", "command", p->command, err) ||
        fkv_h5_put_int(w, "/", "seed", p->seed, err) ||
        fkv_h5_put_double(w, "/", "noise_floor_nll", p->noise_floor_nll, err) ||
        fkv_h5_put_double(w, "/", "noise_floor_kl", p->noise_floor_kl, err))
        return FKV_FAILED;
    for (int i = 0; i < TEXTS; i++)
        if (fkv_h5_put_string(w, "/", texts[i].name, (const char *)p + texts[i].offset, err))
            return FKV_FAILED;
    for (int i = 0; i < INTEGERS; i++) {
        int32_t value = *(const int32_t *)(const void *)((const char *)p + integers[i].offset);
        if (fkv_h5_put_int(w, "/", integers[i].name, value, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* The arrays of a window, for both directions. token_class comes on top, as it may be absent. */
struct array {
    const char *name;
    enum fkv_h5_type type;
    int64_t dims[2];
    void *data;
    bool optional; /* stays as fkv_probe_window_create made it */
};
enum { ARRAYS = 7 };

static void list_arrays(const struct fkv_probe *p, const struct fkv_probe_window *w,
                        struct array arrays[ARRAYS]) {
    const int64_t m = p->score, changes = p->change_count;
    const struct array all[ARRAYS] = {
        {"tokens", FKV_H5_I32, {p->prefix + m + 1, 0}, w->tokens, false},
        {"untouched_nll", FKV_H5_F32, {m, 0}, w->untouched_nll, false},
        {"repeat_nll", FKV_H5_F32, {m, 0}, w->repeat_nll, false},
        {"repeat_kl", FKV_H5_F32, {m, 0}, w->repeat_kl, true},
        {"nll", FKV_H5_F32, {changes, m}, w->nll, false},
        {"kl", FKV_H5_F32, {changes, m}, w->kl, false},
        {"lost_energy", FKV_H5_F64, {changes, 2}, w->lost_energy, false},
    };
    memcpy(arrays, all, sizeof all);
}

static int put_window(struct fkv_h5_writer *w, const struct fkv_probe *p,
                      const struct fkv_probe_window *window, int64_t number,
                      struct fkv_error *err) {
    char group[64], path[96];
    struct array arrays[ARRAYS];
    list_arrays(p, window, arrays);
    snprintf(group, sizeof group, "/documents/%06lld", (long long)number);
    if (fkv_h5_put_string(w, group, "name", window->name, err) ||
        fkv_h5_put_string(w, group, "text_sha256", window->text_sha256, err) ||
        fkv_h5_put_int(w, group, "document", window->document, err) ||
        fkv_h5_put_int(w, group, "offset", window->offset, err))
        return FKV_FAILED;
    for (int i = 0; i < ARRAYS; i++) {
        snprintf(path, sizeof path, "%s/%s", group, arrays[i].name);
        if (fkv_h5_put(w, path, arrays[i].type, arrays[i].dims[1] ? 2 : 1, arrays[i].dims,
                       arrays[i].data, err))
            return FKV_FAILED;
    }
    if (!window->token_class) return FKV_OK;
    snprintf(path, sizeof path, "%s/token_class", group);
    return fkv_h5_put(w, path, FKV_H5_U8, 1, arrays[0].dims, window->token_class, err);
}

int fkv_probe_write(const char *path, const struct fkv_probe *p,
                    const struct fkv_probe_window *windows, int64_t count, struct fkv_error *err) {
    struct fkv_h5_writer *w;
    if (fkv_h5_create(path, &w, err)) return FKV_FAILED;
    int status = put_root(w, p, err) || fkv_probe_changes_put(w, p, err) ? FKV_FAILED : FKV_OK;
    for (int64_t i = 0; i < count && !status; i++) status = put_window(w, p, &windows[i], i, err);
    if (!status) return fkv_h5_commit(w, err);
    fkv_h5_abandon(w);
    return FKV_FAILED;
}

/* ---- reading ---- */

static int get_text(struct fkv_h5_reader *r, const char *object, const char *name, char *value,
                    size_t bytes, bool required, const char *path, struct fkv_error *err) {
    bool found;
    if (fkv_h5_get_string(r, object, name, value, (int64_t)bytes, &found, err)) return FKV_FAILED;
    return found || !required
               ? FKV_OK
               : fkv_fail(err, "%s: %s: expected an attribute %s, found none", path, object, name);
}

static int get_integer(struct fkv_h5_reader *r, const char *object, const char *name, int64_t low,
                       int64_t high, int64_t *value, const char *path, struct fkv_error *err) {
    bool found;
    double number = 0;
    if (fkv_h5_get_double(r, object, name, &number, &found, err)) return FKV_FAILED;
    if (!found)
        return fkv_fail(err, "%s: %s: expected an attribute %s, found none", path, object, name);
    if (!(number >= (double)low && number <= (double)high) || number != floor(number))
        return fkv_fail(err, "%s: %s: %s: expected %lld to %lld, found %g", path, object, name,
                        (long long)low, (long long)high, number);
    *value = (int64_t)number;
    return FKV_OK;
}

static int get_root(struct fkv_h5_reader *r, struct fkv_probe *p, const char *path,
                    struct fkv_error *err) {
    char format[64];
    int64_t value;
    bool found;
    if (get_text(r, "/", "format", format, sizeof format, true, path, err)) return FKV_FAILED;
    if (strcmp(format, "freqkv-probe"))
        return fkv_fail(err, "%s: expected the format freqkv-probe, found %s", path, format);
    if (get_integer(r, "/", "format_version", 1, PROBE_FORMAT_VERSION, &value, path, err))
        return FKV_FAILED;
    if (value < PROBE_FORMAT_VERSION)
        return fkv_fail(err,
                        "%s: was written before changes carried their bands as numbers "
                        "(format_version %lld, now %d): remove it and run the probe again",
                        path, (long long)value, PROBE_FORMAT_VERSION);
    if (get_integer(r, "/", "seed", 0, 1ll << 53, &p->seed, path, err) ||
        fkv_h5_get_text(r, "/", "command", &p->command, err) ||
        fkv_h5_get_double(r, "/", "noise_floor_nll", &p->noise_floor_nll, &found, err) ||
        fkv_h5_get_double(r, "/", "noise_floor_kl", &p->noise_floor_kl, &found, err))
        return FKV_FAILED;
    if (!p->command) return fkv_fail(err, "%s: /: expected an attribute command, found none", path);
    for (int i = 0; i < TEXTS; i++)
        if (get_text(r, "/", texts[i].name, (char *)p + texts[i].offset, texts[i].bytes,
                     texts[i].compared, path, err))
            return FKV_FAILED;
    for (int i = 0; i < INTEGERS; i++) {
        if (get_integer(r, "/", integers[i].name, integers[i].low, integers[i].high, &value, path,
                        err))
            return FKV_FAILED;
        *(int32_t *)(void *)((char *)p + integers[i].offset) = (int32_t)value;
    }
    if ((int64_t)p->layers * p->kv_heads <= MOST_HEADS) return FKV_OK;
    return fkv_fail(err, "%s: expected at most %d heads, found %d layers of %d", path, MOST_HEADS,
                    p->layers, p->kv_heads);
}

/* Shapes are looked at before memory is asked for: a number at the root must not decide how much.
 */
static int check_shapes(struct fkv_h5_reader *r, const struct fkv_probe *p, const char *group,
                        const char *path, bool present[ARRAYS], struct fkv_error *err) {
    const struct fkv_probe_window none = {0};
    struct array arrays[ARRAYS];
    list_arrays(p, &none, arrays);
    for (int i = 0; i < ARRAYS; i++) {
        char name[96];
        int rank = 0;
        int64_t dims[8] = {0};
        bool found;
        snprintf(name, sizeof name, "%s/%s", group, arrays[i].name);
        if (fkv_h5_shape(r, name, &rank, dims, &found, err)) return FKV_FAILED;
        present[i] = found;
        if (!found && arrays[i].optional) continue;
        if (!found || rank != (arrays[i].dims[1] ? 2 : 1) || dims[0] != arrays[i].dims[0] ||
            (rank == 2 && dims[1] != arrays[i].dims[1]))
            return fkv_fail(err, "%s: %s: expected %lld x %lld numbers, found %s", path, name,
                            (long long)arrays[i].dims[0],
                            (long long)(arrays[i].dims[1] ? arrays[i].dims[1] : 1),
                            found ? "another shape" : "nothing");
    }
    return FKV_OK;
}

static int get_window(struct fkv_h5_reader *r, const struct fkv_probe *p, const char *group,
                      struct fkv_probe_window *window, const char *path, struct fkv_error *err) {
    struct array arrays[ARRAYS];
    char name[96];
    int rank;
    int64_t dims[8], value;
    bool found, present[ARRAYS];
    *window = (struct fkv_probe_window){0};
    if (check_shapes(r, p, group, path, present, err) || fkv_probe_window_create(p, window, err))
        return FKV_FAILED;
    if (get_text(r, group, "name", window->name, sizeof window->name, true, path, err) ||
        get_text(r, group, "text_sha256", window->text_sha256, sizeof window->text_sha256, true,
                 path, err) ||
        get_integer(r, group, "document", 0, INT32_MAX, &value, path, err) ||
        get_integer(r, group, "offset", 0, 1ll << 53, &window->offset, path, err))
        return FKV_FAILED;
    window->document = (int32_t)value;
    list_arrays(p, window, arrays);
    for (int i = 0; i < ARRAYS; i++) {
        if (!present[i]) continue;
        int64_t elements = arrays[i].dims[0] * (arrays[i].dims[1] ? arrays[i].dims[1] : 1);
        snprintf(name, sizeof name, "%s/%s", group, arrays[i].name);
        if (fkv_h5_get(r, name, arrays[i].type, elements, arrays[i].data, err)) return FKV_FAILED;
    }
    snprintf(name, sizeof name, "%s/token_class", group);
    if (fkv_h5_shape(r, name, &rank, dims, &found, err)) return FKV_FAILED;
    if (!found) return FKV_OK;
    window->token_class = malloc((size_t)arrays[0].dims[0]);
    if (!window->token_class) return fkv_fail(err, "%s: out of memory", path);
    return fkv_h5_get(r, name, FKV_H5_U8, arrays[0].dims[0], window->token_class, err);
}

static int get_windows(struct fkv_h5_reader *r, struct fkv_probe *p, const char *path,
                       struct fkv_error *err) {
    for (;;) {
        char group[64], tokens[80];
        int rank;
        int64_t dims[8];
        bool found;
        snprintf(group, sizeof group, "/documents/%06lld", (long long)p->window_count);
        snprintf(tokens, sizeof tokens, "%s/tokens", group);
        if (fkv_h5_shape(r, tokens, &rank, dims, &found, err)) return FKV_FAILED;
        if (!found)
            return p->window_count ? FKV_OK
                                   : fkv_fail(err, "%s: expected documents, found none", path);
        struct fkv_probe_window *larger =
            realloc(p->windows, (size_t)(p->window_count + 1) * sizeof *larger);
        if (!larger) return fkv_fail(err, "%s: out of memory", path);
        p->windows = larger;
        if (get_window(r, p, group, &p->windows[p->window_count++], path, err)) return FKV_FAILED;
    }
}

int fkv_probe_read(const char *path, struct fkv_probe *p, struct fkv_error *err) {
    struct fkv_h5_reader *r;
    *p = (struct fkv_probe){.noise_floor_nll = NAN, .noise_floor_kl = NAN};
    if (fkv_h5_open(path, &r, err)) return FKV_FAILED;
    int status = get_root(r, p, path, err) || fkv_probe_changes_get(r, p, path, err) ||
                 get_windows(r, p, path, err);
    fkv_h5_close(r);
    if (!status) return FKV_OK;
    fkv_probe_free(p);
    return FKV_FAILED;
}

bool fkv_probe_has_floor(const struct fkv_probe *p) {
    for (int64_t w = 0; w < p->window_count; w++)
        for (int32_t i = 0; i < p->score; i++)
            if (!isfinite(p->windows[w].repeat_kl[i])) return false;
    return true;
}

/* ---- comparing ---- */

int fkv_probe_check_same(const struct fkv_probe *expected, const struct fkv_probe *found,
                         const char *where, struct fkv_error *err) {
    for (int i = 0; i < TEXTS; i++) {
        const char *a = (const char *)expected + texts[i].offset,
                   *b = (const char *)found + texts[i].offset;
        if (texts[i].compared && strcmp(a, b))
            return fkv_fail(err, "%s: %s: expected %s, found %s", where, texts[i].name, a, b);
    }
    for (int i = 0; i < INTEGERS; i++) {
        int32_t a = *(const int32_t *)(const void *)((const char *)expected + integers[i].offset);
        int32_t b = *(const int32_t *)(const void *)((const char *)found + integers[i].offset);
        if (a != b)
            return fkv_fail(err, "%s: %s: expected %d, found %d", where, integers[i].name, a, b);
    }
    if (expected->seed != found->seed)
        return fkv_fail(err, "%s: seed: expected %lld, found %lld", where,
                        (long long)expected->seed, (long long)found->seed);
    return fkv_probe_changes_check_same(expected, found, where, err);
}
