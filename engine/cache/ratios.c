/* Reading ratios; see ratios.h. Refuses tables of another shape, ratios outside (0, 1] and sizes
 * that would keep nothing or everything. */
#include "engine/cache/ratios.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/json.h"
#include "kernels/base/parse.h"
#include "kernels/base/ratio.h"

enum { TABLE_STEPS = 64, FILE_LIMIT = 64 << 20 };

static int check_gamma(const struct fkv_ratios *r, double gamma, int32_t layer, int32_t head,
                       struct fkv_error *err) {
    if (gamma > 0 && gamma <= 1) return FKV_OK;
    if (r->uniform)
        return fkv_fail_option(err, "%s: expected a ratio in (0, 1], found %g", r->where, gamma);
    return (r->table ? fkv_fail : fkv_fail_option)(
        err, "%s: gamma[%d][%d]: expected a ratio in (0, 1], found %g", r->where, layer, head,
        gamma);
}

/* An element of gamma or retained: a number, one per layer, or one per (layer, KV head). */
static const json_t *table_entry(const json_t *table, int32_t layer, int32_t head) {
    const json_t *row = json_is_array(table) ? json_array_get(table, (size_t)layer) : table;
    return json_is_array(row) ? json_array_get(row, (size_t)head) : row;
}

static int check_shape(const struct fkv_ratios *r, const json_t *table, const char *field,
                       struct fkv_error *err) {
    if (!json_is_array(table)) return FKV_OK;
    if (json_array_size(table) != (size_t)r->layers)
        return fkv_fail(err, "%s: %s: expected %d layers, found %zu", r->where, field, r->layers,
                        json_array_size(table));
    for (int32_t l = 0; l < r->layers; l++) {
        const json_t *row = json_array_get(table, (size_t)l);
        if (json_is_array(row) && json_array_size(row) != (size_t)r->kv_heads)
            return fkv_fail(err, "%s: %s[%d]: expected %d KV heads, found %zu", r->where, field, l,
                            r->kv_heads, json_array_size(row));
    }
    return FKV_OK;
}

static int read_policies(struct fkv_ratios *r, const json_t *table, struct fkv_error *err) {
    if (check_shape(r, table, "policy", err)) return FKV_FAILED;
    r->policy = calloc((size_t)r->layers * (size_t)r->kv_heads, sizeof *r->policy);
    if (!r->policy) return fkv_fail(err, "%s: out of memory", r->where);
    for (int32_t l = 0; l < r->layers; l++)
        for (int32_t h = 0; h < r->kv_heads; h++) {
            const char *name = json_string_value(table_entry(table, l, h));
            struct fkv_policy_name *to = &r->policy[l * r->kv_heads + h];
            if (!name)
                return fkv_fail(err,
                                "%s: policy[%d][%d]: expected the name of a policy, found none",
                                r->where, l, h);
            if (strlen(name) >= sizeof to->name)
                return fkv_fail(err,
                                "%s: policy[%d][%d]: expected the name of a policy, found "
                                "\"%.40s\"",
                                r->where, l, h, name);
            strcpy(to->name, name);
        }
    return FKV_OK;
}

/* gamma and retained (NULL: none) of one head; in a table of policies it may have neither. */
static int read_head(struct fkv_ratios *r, const json_t *gamma, const json_t *retained, int32_t l,
                     int32_t h, struct fkv_error *err) {
    const int32_t head = l * r->kv_heads + h;
    const json_t *g = gamma ? table_entry(gamma, l, h) : NULL,
                 *k = retained ? table_entry(retained, l, h) : NULL;
    r->gamma[head] = NAN;
    if (r->policy && (!g || json_is_null(g))) return FKV_OK;
    if (!json_is_number(g))
        return fkv_fail(err, "%s: gamma[%d][%d]: expected a number, found none", r->where, l, h);
    r->gamma[head] = json_number_value(g);
    if (check_gamma(r, r->gamma[head], l, h, err)) return FKV_FAILED;
    if (!retained) return FKV_OK;
    if (!json_is_integer(k) || json_integer_value(k) < 1 || json_integer_value(k) > INT32_MAX)
        return fkv_fail(err, "%s: retained[%d][%d]: expected a positive integer", r->where, l, h);
    r->retained[head] = (int32_t)json_integer_value(k);
    return FKV_OK;
}

static int read_tables(struct fkv_ratios *r, const json_t *root, struct fkv_error *err) {
    const json_t *gamma = json_object_get(root, "gamma"),
                 *retained = json_object_get(root, "retained");
    if (!gamma && !r->policy)
        return fkv_fail(err, "%s: gamma: expected a table [layer][kv_head], found nothing",
                        r->where);
    if ((gamma && check_shape(r, gamma, "gamma", err)) ||
        (retained && check_shape(r, retained, "retained", err)))
        return FKV_FAILED;
    if (retained &&
        !(r->retained = calloc((size_t)r->layers * (size_t)r->kv_heads, sizeof *r->retained)))
        return fkv_fail(err, "%s: out of memory", r->where);
    for (int32_t l = 0; l < r->layers; l++)
        for (int32_t h = 0; h < r->kv_heads; h++)
            if (read_head(r, gamma, retained, l, h, err)) return FKV_FAILED;
    return FKV_OK;
}

static int read_texts(struct fkv_ratios *r, const json_t *root, struct fkv_error *err) {
    const json_t *texts = json_object_get(root, "text_sha256");
    size_t count = json_array_size(texts);
    if (!count) return FKV_OK;
    if (!(r->texts = calloc(count, sizeof *r->texts)))
        return fkv_fail(err, "%s: out of memory", r->where);
    for (size_t i = 0; i < count; i++) {
        const char *hash = json_string_value(json_array_get(texts, i));
        if (!hash || strlen(hash) != 64)
            return fkv_fail(err, "%s: text_sha256[%zu]: expected 64 hex digits", r->where, i);
        memcpy(r->texts[i], hash, 65);
    }
    r->text_count = (int32_t)count;
    return FKV_OK;
}

static int read_file(struct fkv_ratios *r, struct fkv_error *err) {
    json_t *root = fkv_json_load(r->where, FILE_LIMIT, err);
    if (!root) return FKV_FAILED;
    int64_t layers = r->layers, heads = r->kv_heads, window = 0, sinks = -1, version = 1;
    int status = FKV_FAILED;
    if (fkv_json_get_int(root, r->where, "format_version", false, 1, 1, &version, err) ||
        fkv_json_get_int(root, r->where, "n_layers", false, 1, INT32_MAX, &layers, err) ||
        fkv_json_get_int(root, r->where, "n_kv_heads", false, 1, INT32_MAX, &heads, err) ||
        fkv_json_get_int(root, r->where, "window", false, 1, INT32_MAX, &window, err) ||
        fkv_json_get_int(root, r->where, "sinks", false, 0, INT32_MAX, &sinks, err))
        goto done;
    const json_t *policies = json_object_get(root, "policy");
    r->window = (int32_t)window, r->sinks = (int32_t)sinks;
    if (layers != r->layers)
        fkv_fail(err, "%s: n_layers: expected the model's %d, found %lld", r->where, r->layers,
                 (long long)layers);
    else if (heads != r->kv_heads)
        fkv_fail(err, "%s: n_kv_heads: expected the model's %d, found %lld", r->where, r->kv_heads,
                 (long long)heads);
    else if (!(policies && read_policies(r, policies, err)) && !read_tables(r, root, err))
        status = read_texts(r, root, err);
done:
    json_decref(root);
    return status;
}

static int read_numbers(struct fkv_ratios *r, const char *text, struct fkv_error *err) {
    double *values = NULL;
    int count = 0;
    if (fkv_parse_range(text, r->where, &values, &count, err)) return FKV_FAILED;
    int status = FKV_OK;
    r->uniform = count == 1;
    if (count != 1 && count != r->layers)
        status = fkv_fail_option(err, "%s: expected one ratio or one per layer (%d), found %d",
                                 r->where, r->layers, count);
    for (int32_t l = 0; l < r->layers && !status; l++) {
        double gamma = values[r->uniform ? 0 : l];
        status = check_gamma(r, gamma, l, 0, err);
        for (int32_t h = 0; h < r->kv_heads; h++) r->gamma[l * r->kv_heads + h] = gamma;
    }
    free(values);
    return status;
}

/* numbers NULL: from the file `where`. */
static int read_ratios(const char *where, const char *numbers, int32_t layers, int32_t kv_heads,
                       struct fkv_ratios *ratios, struct fkv_error *err) {
    *ratios =
        (struct fkv_ratios){.table = !numbers, .layers = layers, .kv_heads = kv_heads, .sinks = -1};
    ratios->where = strdup(where);
    ratios->gamma = calloc((size_t)layers * (size_t)kv_heads, sizeof *ratios->gamma);
    int status = ratios->where && ratios->gamma ? FKV_OK : fkv_fail(err, "--gamma: out of memory");
    if (!status) status = numbers ? read_numbers(ratios, numbers, err) : read_file(ratios, err);
    if (status) fkv_ratios_free(ratios);
    return status;
}

int fkv_ratios_read_table(const char *path, int32_t layers, int32_t kv_heads,
                          struct fkv_ratios *ratios, struct fkv_error *err) {
    return read_ratios(path, NULL, layers, kv_heads, ratios, err);
}

int fkv_ratios_read(const char *text, int32_t layers, int32_t kv_heads, struct fkv_ratios *ratios,
                    struct fkv_error *err) {
    if (*text == '@') return fkv_ratios_read_table(text + 1, layers, kv_heads, ratios, err);
    return read_ratios("--gamma", text, layers, kv_heads, ratios, err);
}

void fkv_ratios_free(struct fkv_ratios *ratios) {
    free(ratios->where);
    free(ratios->gamma);
    free(ratios->retained);
    free(ratios->policy);
    free(ratios->texts);
    *ratios = (struct fkv_ratios){0};
}

int fkv_ratios_retained(const struct fkv_ratios *r, int32_t n, int32_t **retained, double *mean,
                        struct fkv_error *err) {
    int32_t count = r->layers * r->kv_heads;
    int32_t *kept = calloc((size_t)count, sizeof *kept);
    if (!kept) return fkv_fail(err, "%s: out of memory", r->where);
    double sum = 0;
    bool other_n = r->window && r->sinks >= 0 && r->window - r->sinks != n; /* --recent */
    for (int32_t i = 0; i < count; i++) {
        const bool none = isnan(r->gamma[i]);
        if (none)
            kept[i] = n - 1;
        else if (r->retained && !other_n)
            kept[i] = r->retained[i];
        else if (r->uniform)
            kept[i] = fkv_retained(r->gamma[i], n);
        else
            kept[i] = (int32_t)((int64_t)lround(r->gamma[i] * TABLE_STEPS) * n / TABLE_STEPS);
        sum += none ? (n - 1.0) / n : r->gamma[i];
        if (kept[i] >= 1 && kept[i] < n) continue;
        int32_t bad = kept[i];
        free(kept);
        if (n < 2)
            return fkv_fail_option(err,
                                   "--window: expected 2 slots or more to compress, found %d: the "
                                   "sinks and --recent leave no more",
                                   n);
        return (r->table ? fkv_fail : fkv_fail_option)(
            err,
            "%s: layer %d, KV head %d: expected 1 to %d retained slots of %d, found %d (ratio %g)",
            r->where, i / r->kv_heads, i % r->kv_heads, n - 1, n, bad, r->gamma[i]);
    }
    *retained = kept;
    *mean = r->uniform ? r->gamma[0] : sum / count; /* a sum of equals is not exact */
    return FKV_OK;
}
