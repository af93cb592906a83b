/* Owns results.h5 (results.h) and the rules by which an output folder is written to. HDF5 itself
 * stays in the store. */
#include "analyze/tables/results.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/store/columns.h"
#include "capture/store/h5.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/host.h"

static const char format_name[] = "freqkv-results";

/* Everything a group may hold, for carrying it over. */
static const struct dataset {
    const char *name;
    enum fkv_h5_type type;
} spectrum_datasets[] = {{"layer_index", FKV_H5_I32},
                         {"head_index", FKV_H5_I32},
                         {"power", FKV_H5_F64},
                         {"power_se", FKV_H5_F64},
                         {"power_null", FKV_H5_F64},
                         {"excess", FKV_H5_F64},
                         {"total", FKV_H5_F64},
                         {"total_no_dc", FKV_H5_F64},
                         {"rounding_floor", FKV_H5_F64},
                         {"power_normalised", FKV_H5_F64},
                         {NULL, FKV_H5_F64}},
  error_datasets[] = {{"layer_index", FKV_H5_I32},
                      {"head_index", FKV_H5_I32},
                      {"gamma", FKV_H5_F64},
                      {"retained_energy", FKV_H5_F64},
                      {"retained_energy_no_dc", FKV_H5_F64},
                      {"relative_error", FKV_H5_F64},
                      {"relative_error_no_dc", FKV_H5_F64},
                      {"snr_db", FKV_H5_F64},
                      {"snr_db_no_dc", FKV_H5_F64},
                      {"cosine", FKV_H5_F64},
                      {"cosine_no_dc", FKV_H5_F64},
                      {"rounding_floor", FKV_H5_F64},
                      {"klt_error_no_dc", FKV_H5_F64},
                      {"svd_error_no_dc", FKV_H5_F64},
                      {NULL, FKV_H5_F64}},
  gamma_datasets[] = {{"layer_index", FKV_H5_I32},
                      {"head_index", FKV_H5_I32},
                      {"gamma", FKV_H5_F64},
                      {"retained", FKV_H5_I32},
                      {"loss_key", FKV_H5_F64},
                      {"loss_value", FKV_H5_F64},
                      {"loss_objective", FKV_H5_F64},
                      {"loss_objective_projected", FKV_H5_F64},
                      {NULL, FKV_H5_F64}};

static const struct dataset link_datasets[] = {
    {"sweep_gamma", FKV_H5_F64},    {"sweep_retained", FKV_H5_F64},
    {"sweep_mean_nll", FKV_H5_F64}, {"sweep_delta_nll", FKV_H5_F64},
    {"head_place", FKV_H5_I32},     {"head_predictor", FKV_H5_F64},
    {"head_delta_nll", FKV_H5_F64}, {"head_kl", FKV_H5_F64},
    {"link_place", FKV_H5_I32},     {"link_spearman", FKV_H5_F64},
    {"link_pearson", FKV_H5_F64},   {"link_partial", FKV_H5_F64},
    {"segment_length", FKV_H5_I32}, {NULL, FKV_H5_F64}};

enum { SPECTRUM, ERROR, GAMMA, LINK, GROUPS, PATH = 4096 };

static const struct group {
    const char *name;
    const struct dataset *datasets;
    bool by_state; /* datasets lie in a group per state */
    const char *attributes[6];
} groups[GROUPS] = {
    {"spectrum",
     spectrum_datasets,
     true,
     {"command", "version", "standard_error", "se_unit", "null"}},
    {"error", error_datasets, true, {"command", "version"}},
    {"gamma", gamma_datasets, false, {"command", "version", "criterion", "objective"}},
    {"link", link_datasets, false, {"command", "version"}}};

static int path_in(char path[PATH], const char *folder, const char *name, struct fkv_error *err) {
    if (snprintf(path, PATH, "%s/%s", folder, name) < PATH) return FKV_OK;
    return fkv_fail(err, "%s: the path is too long", folder);
}

/* ---- what is there already ---- */

/* Opens DIR/results.h5, if there is one; refuses one that is not ours. *reader stays NULL when
 * there is none. */
static int open_existing(const char *folder, struct fkv_h5_reader **reader, struct fkv_error *err) {
    char path[PATH], format[64] = "";
    bool found = false;
    *reader = NULL;
    if (path_in(path, folder, "results.h5", err)) return FKV_FAILED;
    if (access(path, F_OK)) return FKV_OK;
    if (!fkv_h5_open(path, reader, NULL) &&
        !fkv_h5_get_string(*reader, "/", "format", format, sizeof format, &found, NULL) && found &&
        !strcmp(format, format_name))
        return FKV_OK;
    if (*reader) fkv_h5_close(*reader);
    *reader = NULL;
    return fkv_fail(err, "%s: exists, and freqkv-analyze did not make it; choose another --out",
                    path);
}

static int has_group(struct fkv_h5_reader *reader, const struct group *group, bool *found,
                     struct fkv_error *err) {
    char object[32], version[256];
    snprintf(object, sizeof object, "/%s", group->name);
    *found = false;
    return reader
               ? fkv_h5_get_string(reader, object, "version", version, sizeof version, found, err)
               : FKV_OK;
}

/* Capture, segment length and sinks of what is there must be those of what comes; `link` cuts the
 * capture in ways of its own. */
static int check_agrees(struct fkv_h5_reader *reader, const struct fkv_results_intent *intent,
                        const char *other, struct fkv_error *err) {
    const char *link = groups[LINK].name;
    char sha[128] = "";
    int32_t n = 0, skip = 0;
    bool found;
    if (fkv_h5_get_string(reader, "/", "capture_sha256", sha, sizeof sha, &found, err) ||
        fkv_column_integer(reader, "/", "segment_length", false, &n, err) ||
        fkv_column_integer(reader, "/", "skip_sinks", false, &skip, err))
        return FKV_FAILED;
    const char *advice = "choose another --out, or remove that file";
    if (strcmp(sha, intent->capture_sha256))
        return fkv_fail(err, "%s/results.h5: holds /%s of capture %.12s, this is capture %.12s; %s",
                        intent->folder, other, sha, intent->capture_sha256, advice);
    if (!strcmp(other, link) || !strcmp(intent->group, link)) return FKV_OK;
    if (n != intent->n || skip != intent->skip_sinks)
        return fkv_fail(err,
                        "%s/results.h5: holds /%s of segments of %d tokens after %d sinks, this "
                        "run has %d after %d; %s",
                        intent->folder, other, n, skip, intent->n, intent->skip_sinks, advice);
    return FKV_OK;
}

/* Without our group in our results.h5, a file under a name of ours is somebody else's. */
static int check_no_foreign_file(const char *folder, const char *prefix, struct fkv_error *err) {
    DIR *directory = opendir(folder);
    if (!directory) return fkv_fail_errno(err, "%s", folder);
    int status = FKV_OK;
    size_t length = strlen(prefix);
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        const char *name = entry->d_name, *dot = strrchr(name, '.');
        if (strncmp(name, prefix, length) || (name[length] != '_' && name[length] != '.') || !dot)
            continue;
        if (!strcmp(dot, ".csv") || !strcmp(dot, ".json") || !strcmp(dot, ".png") ||
            !strcmp(dot, ".svg"))
            status = fkv_fail(
                err,
                "%s/%s: exists, and no results.h5 beside it says that freqkv-analyze %s made it; "
                "choose another --out",
                folder, name, prefix);
    }
    closedir(directory);
    return status;
}

int fkv_results_check(const struct fkv_results_intent *intent, struct fkv_error *err) {
    struct fkv_h5_reader *reader;
    if (fkv_make_directories(intent->folder, err)) return FKV_FAILED;
    if (access(intent->folder, W_OK | X_OK)) return fkv_fail_errno(err, "%s", intent->folder);
    if (open_existing(intent->folder, &reader, err)) return FKV_FAILED;
    int status = FKV_OK;
    for (int i = 0; !status && i < GROUPS; i++) {
        bool found, own = !strcmp(groups[i].name, intent->group);
        status = has_group(reader, &groups[i], &found, err);
        if (!status && own && !found)
            status = check_no_foreign_file(intent->folder, intent->group, err);
        if (!status && !own && found) status = check_agrees(reader, intent, groups[i].name, err);
    }
    if (reader) fkv_h5_close(reader);
    return status;
}

/* ---- carrying the other commands' groups over ---- */

static int carry_dataset(struct fkv_h5_reader *from, struct fkv_h5_writer *to, const char *path,
                         enum fkv_h5_type type, bool *found, struct fkv_error *err) {
    int rank;
    int64_t dims[8], count = 1;
    if (fkv_h5_shape(from, path, &rank, dims, found, err)) return FKV_FAILED;
    if (!*found) return FKV_OK;
    for (int i = 0; i < rank; i++) count *= dims[i];
    void *data = malloc((size_t)(count ? count : 1) * sizeof(double));
    if (!data) return fkv_fail(err, "out of memory for %s", path);
    int status = fkv_h5_get(from, path, type, count, data, err);
    if (!status) status = fkv_h5_put(to, path, type, rank, dims, data, err);
    free(data);
    return status;
}

static int carry_group(struct fkv_h5_reader *from, struct fkv_h5_writer *to,
                       const struct group *group, struct fkv_error *err) {
    char object[128], *value;
    bool found;
    if (has_group(from, group, &found, err)) return FKV_FAILED;
    if (!found) return FKV_OK;
    for (int state = 0; state < (group->by_state ? FKV_STATES : 1); state++)
        for (const struct dataset *d = group->datasets; d->name; d++) {
            if (group->by_state)
                snprintf(object, sizeof object, "/%s/%s/%s", group->name, fkv_state_names[state],
                         d->name);
            else
                snprintf(object, sizeof object, "/%s/%s", group->name, d->name);
            if (carry_dataset(from, to, object, d->type, &found, err)) return FKV_FAILED;
        }
    snprintf(object, sizeof object, "/%s", group->name);
    for (const char *const *name = group->attributes; *name; name++) {
        if (fkv_h5_get_text(from, object, *name, &value, err)) return FKV_FAILED;
        int status = value ? fkv_h5_put_string(to, object, *name, value, err) : FKV_OK;
        free(value);
        if (status) return status;
    }
    return FKV_OK;
}

/* ---- writing ---- */

static int put(struct fkv_h5_writer *w, const char *group, enum fkv_state state, const char *name,
               enum fkv_h5_type type, int rank, const int64_t *dims, const void *data,
               struct fkv_error *err) {
    char path[128];
    snprintf(path, sizeof path, "/%s/%s/%s", group, fkv_state_names[state], name);
    return fkv_h5_put(w, path, type, rank, dims, data, err);
}

static int put_spectrum(struct fkv_h5_writer *w, const struct fkv_spectrum *s,
                        struct fkv_error *err) {
    int64_t dims[] = {s->layers, s->heads, s->n}, by_layer[] = {s->layers, s->n};
    size_t rows = (size_t)s->layers * (size_t)s->heads, n = (size_t)s->n;
    double *excess = malloc(rows * n * sizeof *excess), *total = calloc(2 * rows, sizeof *total);
    int status = excess && total ? FKV_OK
                                 : fkv_fail(err, "out of memory for the results of %s",
                                            fkv_state_names[s->state]);
    for (size_t r = 0; !status && r < rows; r++)
        for (size_t t = 0; t < n; t++) {
            total[r] += s->power[r * n + t];
            if (t) total[rows + r] += s->power[r * n + t];
        }
    struct {
        const char *name;
        enum fkv_h5_type type;
        int rank;
        const int64_t *dims;
        const void *data;
    } const datasets[] = {{"layer_index", FKV_H5_I32, 1, dims, s->layer_index},
                          {"head_index", FKV_H5_I32, 1, dims + 1, s->head_index},
                          {"power", FKV_H5_F64, 3, dims, s->power},
                          {"power_se", FKV_H5_F64, 3, dims, s->power_se},
                          {"power_normalised", FKV_H5_F64, 2, by_layer, s->normalised},
                          {"rounding_floor", FKV_H5_F64, 2, dims, s->rounding_floor},
                          {"total", FKV_H5_F64, 2, dims, total},
                          {"total_no_dc", FKV_H5_F64, 2, dims, total + rows}};
    for (size_t i = 0; !status && i < sizeof datasets / sizeof *datasets; i++)
        status = put(w, "spectrum", s->state, datasets[i].name, datasets[i].type, datasets[i].rank,
                     datasets[i].dims, datasets[i].data, err);
    if (!status && s->null) {
        for (size_t i = 0; i < rows * n; i++) excess[i] = s->power[i] / s->null[i];
        status = put(w, "spectrum", s->state, "power_null", FKV_H5_F64, 3, dims, s->null, err);
        if (!status)
            status = put(w, "spectrum", s->state, "excess", FKV_H5_F64, 3, dims, excess, err);
    }
    free(excess);
    free(total);
    return status;
}

static int put_curves(struct fkv_h5_writer *w, const struct fkv_error_curves *e,
                      struct fkv_error *err) {
    int64_t dims[] = {e->layers, e->heads, e->gammas};
    struct {
        const char *name;
        enum fkv_h5_type type;
        int rank;
        const int64_t *dims;
        const void *data;
    } const datasets[] = {{"layer_index", FKV_H5_I32, 1, dims, e->layer_index},
                          {"head_index", FKV_H5_I32, 1, dims + 1, e->head_index},
                          {"gamma", FKV_H5_F64, 1, dims + 2, e->gamma},
                          {"retained_energy", FKV_H5_F64, 3, dims, e->retained_energy[0]},
                          {"retained_energy_no_dc", FKV_H5_F64, 3, dims, e->retained_energy[1]},
                          {"relative_error", FKV_H5_F64, 3, dims, e->relative_error[0]},
                          {"relative_error_no_dc", FKV_H5_F64, 3, dims, e->relative_error[1]},
                          {"snr_db", FKV_H5_F64, 3, dims, e->snr_db[0]},
                          {"snr_db_no_dc", FKV_H5_F64, 3, dims, e->snr_db[1]},
                          {"cosine", FKV_H5_F64, 3, dims, e->cosine[0]},
                          {"cosine_no_dc", FKV_H5_F64, 3, dims, e->cosine[1]},
                          {"rounding_floor", FKV_H5_F64, 2, dims, e->floor},
                          {"klt_error_no_dc", FKV_H5_F64, 3, dims, e->klt_error},
                          {"svd_error_no_dc", FKV_H5_F64, 3, dims, e->svd_error}};
    for (size_t i = 0; i < sizeof datasets / sizeof *datasets; i++)
        if (datasets[i].data && put(w, "error", e->state, datasets[i].name, datasets[i].type,
                                    datasets[i].rank, datasets[i].dims, datasets[i].data, err))
            return FKV_FAILED;
    return FKV_OK;
}

static int put_ratios(struct fkv_h5_writer *w, const struct fkv_ratio_table *t,
                      struct fkv_error *err) {
    int64_t dims[] = {t->layers, t->heads, FKV_RATIO_STEPS + 1};
    return fkv_h5_put(w, "/gamma/layer_index", FKV_H5_I32, 1, dims, t->layer_index, err) ||
                   fkv_h5_put(w, "/gamma/head_index", FKV_H5_I32, 1, dims + 1, t->head_index,
                              err) ||
                   fkv_h5_put(w, "/gamma/gamma", FKV_H5_F64, 2, dims, t->gamma, err) ||
                   fkv_h5_put(w, "/gamma/retained", FKV_H5_I32, 2, dims, t->retained, err) ||
                   fkv_h5_put(w, "/gamma/loss_key", FKV_H5_F64, 3, dims, t->loss[FKV_LOSS_KEY],
                              err) ||
                   fkv_h5_put(w, "/gamma/loss_value", FKV_H5_F64, 3, dims, t->loss[FKV_LOSS_VALUE],
                              err) ||
                   fkv_h5_put(w, "/gamma/loss_objective", FKV_H5_F64, 3, dims,
                              t->loss[FKV_LOSS_OBJECTIVE], err) ||
                   (t->losses > FKV_LOSS_PROJECTED &&
                    fkv_h5_put(w, "/gamma/loss_objective_projected", FKV_H5_F64, 3, dims,
                               t->loss[FKV_LOSS_PROJECTED], err)) ||
                   fkv_h5_put_string(w, "/gamma", "criterion",
                                     t->choice.by_budget ? "budget" : "energy", err) ||
                   fkv_h5_put_string(w, "/gamma", "objective",
                                     fkv_objective_names[t->choice.objective], err)
               ? FKV_FAILED
               : FKV_OK;
}

static int put_attributes(struct fkv_h5_writer *w, const struct fkv_findings *f, const char *group,
                          struct fkv_error *err) {
    const struct fkv_spectrum *s = &f->spectra[0];
    const struct fkv_provenance *p = f->provenance;
    const char *se_unit = fkv_se_unit_name(s->se_unit);
    if (fkv_h5_put_string(w, "/", "format", format_name, err) ||
        fkv_h5_put_int(w, "/", "format_version", 1, err) ||
        fkv_h5_put_string(w, "/", "version", p->version, err) ||
        fkv_h5_put_string(w, "/", "capture_sha256", p->capture_sha256, err) ||
        fkv_h5_put_string(w, "/", "model", p->model, err) ||
        fkv_h5_put_int(w, "/", "segment_length", s->n, err) ||
        fkv_h5_put_int(w, "/", "skip_sinks", s->skip_sinks, err) ||
        fkv_h5_put_int(w, "/", "documents", s->documents, err) ||
        fkv_h5_put_int(w, "/", "segments", s->segments, err) ||
        fkv_h5_put_int(w, "/", "tokens_left_out", s->tokens_left_out, err) ||
        fkv_h5_put_string(w, group, "command", p->command, err) ||
        fkv_h5_put_string(w, group, "version", p->version, err))
        return FKV_FAILED;
    if (f->curves || f->ratios) return FKV_OK;
    return fkv_h5_put_string(w, group, "standard_error", s->se_kind, err) ||
                   fkv_h5_put_string(w, group, "se_unit", se_unit ? se_unit : "", err) ||
                   fkv_h5_put_string(w, group, "null", s->null_kind, err)
               ? FKV_FAILED
               : FKV_OK;
}

static int carry_others(struct fkv_h5_writer *w, const char *folder, int own,
                        struct fkv_error *err) {
    struct fkv_h5_reader *reader;
    int status = FKV_OK;
    if (open_existing(folder, &reader, err)) return FKV_FAILED;
    for (int i = 0; reader && !status && i < GROUPS; i++)
        if (i != own) status = carry_group(reader, w, &groups[i], err);
    if (reader) fkv_h5_close(reader);
    return status;
}

static int fill(struct fkv_h5_writer *w, const char *folder, const struct fkv_findings *f,
                struct fkv_error *err) {
    int own = f->ratios ? GAMMA : f->curves ? ERROR : SPECTRUM;
    char object[32];
    snprintf(object, sizeof object, "/%s", groups[own].name);
    int status = put_attributes(w, f, object, err);
    if (!status && own == GAMMA) status = put_ratios(w, f->ratios, err);
    for (int32_t i = 0; !status && own != GAMMA && i < f->states; i++)
        status =
            own == ERROR ? put_curves(w, &f->curves[i], err) : put_spectrum(w, &f->spectra[i], err);
    return status ? status : carry_others(w, folder, own, err);
}

/* What the cut of the others says stays where there is one: the link's own lengths are in its
 * group. */
static int put_cut(struct fkv_h5_writer *w, const char *folder, const struct fkv_segment_plan *cut,
                   struct fkv_error *err) {
    const struct {
        const char *name;
        int64_t value;
    } own[] = {{"segment_length", cut->n},
               {"skip_sinks", cut->skip_sinks},
               {"documents", cut->documents},
               {"segments", cut->segments},
               {"tokens_left_out", cut->tokens_left_out}};
    struct fkv_h5_reader *reader;
    int status = FKV_OK;
    if (open_existing(folder, &reader, err)) return FKV_FAILED;
    for (size_t i = 0; !status && i < sizeof own / sizeof *own; i++) {
        double there = (double)own[i].value;
        bool found;
        if (reader) status = fkv_h5_get_double(reader, "/", own[i].name, &there, &found, err);
        if (!status && !(fabs(there) <= 0x1p53))
            status = fkv_fail(err, "%s/results.h5: attribute %s: expected an integer, found %g",
                              folder, own[i].name, there);
        if (!status) status = fkv_h5_put_int(w, "/", own[i].name, (int64_t)there, err);
    }
    if (reader) fkv_h5_close(reader);
    return status;
}

static int fill_link(struct fkv_h5_writer *w, const char *folder, const struct fkv_results_link *l,
                     struct fkv_error *err) {
    const struct fkv_provenance *p = l->provenance;
    char path[64];
    if (fkv_h5_put_string(w, "/", "format", format_name, err) ||
        fkv_h5_put_int(w, "/", "format_version", 1, err) ||
        fkv_h5_put_string(w, "/", "version", p->version, err) ||
        fkv_h5_put_string(w, "/", "capture_sha256", p->capture_sha256, err) ||
        fkv_h5_put_string(w, "/", "model", p->model, err) || put_cut(w, folder, l->cut, err) ||
        fkv_h5_put_string(w, "/link", "command", p->command, err) ||
        fkv_h5_put_string(w, "/link", "version", p->version, err))
        return FKV_FAILED;
    for (int i = 0; i < l->count; i++) {
        const struct fkv_results_column *c = &l->columns[i];
        snprintf(path, sizeof path, "/link/%s", c->name);
        if (fkv_h5_put(w, path, c->type, c->rank, c->dims, c->data, err)) return FKV_FAILED;
    }
    return carry_others(w, folder, LINK, err);
}

/* One of the two. */
static int write_file(const char *folder, const struct fkv_findings *findings,
                      const struct fkv_results_link *link, struct fkv_error *err) {
    /* The writer refuses to replace a file, so the new one gets a name of its own first; a leftover
     * of a killed run goes. */
    char path[PATH], fresh[PATH];
    if (path_in(path, folder, "results.h5", err) || path_in(fresh, folder, ".results.h5.new", err))
        return FKV_FAILED;
    if (unlink(fresh) && errno != ENOENT) return fkv_fail_errno(err, "%s", fresh);
    struct fkv_h5_writer *writer;
    if (fkv_h5_create(fresh, &writer, err)) return FKV_FAILED;
    if (link ? fill_link(writer, folder, link, err) : fill(writer, folder, findings, err)) {
        fkv_h5_abandon(writer);
        return FKV_FAILED;
    }
    if (fkv_h5_commit(writer, err)) return FKV_FAILED;
    if (!fkv_atomic_rename(fresh, path, err)) return FKV_OK;
    unlink(fresh);
    return FKV_FAILED;
}

int fkv_results_write(const char *folder, const struct fkv_findings *findings,
                      struct fkv_error *err) {
    return write_file(folder, findings, NULL, err);
}

int fkv_results_write_link(const char *folder, const struct fkv_results_link *link,
                           struct fkv_error *err) {
    return write_file(folder, NULL, link, err);
}
