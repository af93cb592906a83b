/* Owns which files may be joined (link.h). A capture made by hand may know neither model nor texts:
 * what it does not say is not compared, its shape always is. */
#include "analyze/link/link.h"
#include "capture/store/capture_reader.h"

#include <string.h>

const char *const fkv_retained_names[FKV_RETAINED] = {"retained_key", "retained_value",
                                                      "retained_key_no_dc", "retained_value_no_dc"};
const char *const fkv_outcome_names[FKV_OUTCOMES] = {"mean_nll", "delta_nll"};
const char *const fkv_depth_names[FKV_DEPTHS] = {"all", "early", "middle", "late"};

enum fkv_depth fkv_depth_of(int32_t layer, int32_t layers) {
    return FKV_DEPTH_EARLY + (enum fkv_depth)((int64_t)layer * 3 / layers);
}

struct model {
    const char *path, *sha256, *config;
    int32_t layers, kv_heads, head_dim;
};

static int check_model(struct fkv_capture *c, const struct model *m, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    if (info->model_sha256[0] && strcmp(info->model_sha256, m->sha256))
        return fkv_fail(err, "%s and %s: expected one model, found sha256 %.12s and %.12s",
                        fkv_capture_path(c), m->path, info->model_sha256, m->sha256);
    if (info->config_sha256[0] && strcmp(info->config_sha256, m->config))
        return fkv_fail(err, "%s and %s: expected one config.json, found sha256 %.12s and %.12s",
                        fkv_capture_path(c), m->path, info->config_sha256, m->config);
    if (info->n_layers != m->layers || info->n_kv_heads != m->kv_heads ||
        info->head_dim != m->head_dim)
        return fkv_fail(err,
                        "%s and %s: expected one model, found %d and %d layers, %d and %d KV heads "
                        "of %d and %d channels",
                        fkv_capture_path(c), m->path, info->n_layers, m->layers, info->n_kv_heads,
                        m->kv_heads, info->head_dim, m->head_dim);
    return FKV_OK;
}

static int check_text(struct fkv_capture *c, const char *path, const char *name, const char *sha256,
                      struct fkv_error *err) {
    bool known = false;
    for (int32_t i = 0; i < fkv_capture_count(c); i++) {
        const char *has = fkv_capture_recording(c, i)->text_sha256;
        if (has[0] && !strcmp(has, sha256)) return FKV_OK;
        known = known || has[0];
    }
    if (!known) return FKV_OK;
    return fkv_fail(
        err, "%s and %s: expected the same texts, found \"%s\" (sha256 %.12s) in the latter only",
        fkv_capture_path(c), path, name, sha256);
}

int fkv_link_check_run(struct fkv_capture *c, const struct fkv_run *run, struct fkv_error *err) {
    const struct model m = {run->path,   run->model_sha256, run->config_sha256,
                            run->layers, run->kv_heads,     run->head_dim};
    if (!run->low_pass || !run->retained || !run->compressible)
        return fkv_fail(err,
                        "%s: expected a run of a policy that keeps the lowest coefficients "
                        "(freqkv), found policy %s",
                        run->path, run->policy);
    if (check_model(c, &m, err)) return FKV_FAILED;
    for (int32_t i = 0; i < run->documents; i++)
        if (check_text(c, run->path, run->document[i].name, run->document[i].text_sha256, err))
            return FKV_FAILED;
    return FKV_OK;
}

int fkv_link_check_probe(struct fkv_capture *c, const struct fkv_probe *probe, const char *path,
                         struct fkv_error *err) {
    const struct model m = {path,          probe->model_sha256, probe->config_sha256,
                            probe->layers, probe->kv_heads,     probe->head_dim};
    if (check_model(c, &m, err)) return FKV_FAILED;
    for (int64_t w = 0; w < probe->window_count; w++)
        if (check_text(c, path, probe->windows[w].name, probe->windows[w].text_sha256, err))
            return FKV_FAILED;
    return FKV_OK;
}
