/* Owns results.h5 (results.h) and the rules by which an output folder is written to. HDF5 itself
 * stays in the store. */
#include "analyze/tables/results.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "capture/store/columns.h"
#include "capture/store/h5.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/host.h"
#include "kernels/base/path.h"

static const char format_name[] = "freqkv-results";

enum { SPECTRUM, ERROR, GAMMA, LINK, GROUPS };
static const char *const groups[GROUPS] = {"/spectrum", "/error", "/gamma", "/link"};

/* ---- the file that exists ---- */

/* Opens DIR/results.h5; refuses one that is not ours. *reader is NULL where there is none. */
static int open_existing(const char *folder, struct fkv_h5_reader **reader, struct fkv_error *err) {
    char path[FKV_PATH], format[64] = "";
    bool found = false;
    *reader = NULL;
    if (fkv_path_print(path, err, "%s/results.h5", folder)) return FKV_FAILED;
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

static int has_group(struct fkv_h5_reader *reader, int group, bool *found, struct fkv_error *err) {
    char version[256];
    *found = false;
    if (!reader) return FKV_OK;
    return fkv_h5_get_string(reader, groups[group], "version", version, sizeof version, found, err);
}

/* Capture, segment length and sinks of the file must be those of the command; `link` cuts the
 * capture in ways of its own. */
static int check_agrees(struct fkv_h5_reader *reader, const struct fkv_results_intent *intent,
                        int own, int other, struct fkv_error *err) {
    char sha[128] = "";
    int32_t n = 0, skip = 0;
    bool found;
    if (fkv_h5_get_string(reader, "/", "capture_sha256", sha, sizeof sha, &found, err) ||
        fkv_column_integer(reader, "/", "segment_length", false, &n, err) ||
        fkv_column_integer(reader, "/", "skip_sinks", false, &skip, err))
        return FKV_FAILED;
    const char *advice = "choose another --out, or remove that file";
    if (strcmp(sha, intent->capture_sha256))
        return fkv_fail(err, "%s/results.h5: holds %s of capture %.12s, this is capture %.12s; %s",
                        intent->folder, groups[other], sha, intent->capture_sha256, advice);
    if (other == LINK || own == LINK) return FKV_OK;
    if (n != intent->n || skip != intent->skip_sinks)
        return fkv_fail(err,
                        "%s/results.h5: holds %s of segments of %d tokens after %d sinks, this "
                        "run has %d after %d; %s",
                        intent->folder, groups[other], n, skip, intent->n, intent->skip_sinks,
                        advice);
    return FKV_OK;
}

/* Without our group in our results.h5, this program did not write a file of such a name. */
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
    int status = FKV_OK, own = 0;
    while (strcmp(groups[own] + 1, intent->group)) own++;
    for (int i = 0; !status && i < GROUPS; i++) {
        bool found;
        status = has_group(reader, i, &found, err);
        if (!status && i == own && !found)
            status = check_no_foreign_file(intent->folder, intent->group, err);
        if (!status && i != own && found) status = check_agrees(reader, intent, own, i, err);
    }
    if (reader) fkv_h5_close(reader);
    return status;
}

/* ---- what a group holds ---- */

/* rows [count] -> datasets of a group; those without data are left out. */
static int put(struct fkv_h5_writer *w, const char *group, const struct fkv_results_dataset *rows,
               size_t count, struct fkv_error *err) {
    char path[128];
    for (const struct fkv_results_dataset *d = rows; d < rows + count; d++) {
        snprintf(path, sizeof path, "%s/%s", group, d->name);
        if (d->data && fkv_h5_put(w, path, d->type, d->rank, d->dims, d->data, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}
#define ROWS(rows) rows, sizeof rows / sizeof *rows

static int put_spectrum(struct fkv_h5_writer *w, const struct fkv_spectrum *s,
                        struct fkv_error *err) {
    const size_t heads = (size_t)s->layers * (size_t)s->heads, n = (size_t)s->n;
    struct fkv_memory scratch = {0};
    double *total = fkv_memory_take(&scratch, 2 * heads, sizeof *total),
           *excess = s->null ? fkv_memory_take(&scratch, heads * n, sizeof *excess) : NULL;
    char group[64];
    if (scratch.failed) {
        fkv_memory_free(&scratch);
        return fkv_fail(err, "out of memory for the results of %s", fkv_state_names[s->state]);
    }
    for (size_t i = 0; i < heads * n; i++) {
        total[i / n] += s->power[i];
        if (i % n) total[heads + i / n] += s->power[i];
        if (excess) excess[i] = s->power[i] / s->null[i];
    }
    const struct fkv_results_dataset rows[] = {
        {"layer_index", FKV_H5_I32, 1, {s->layers}, s->layer_index},
        {"head_index", FKV_H5_I32, 1, {s->heads}, s->head_index},
        {"power", FKV_H5_F64, 3, {s->layers, s->heads, s->n}, s->power},
        {"power_se", FKV_H5_F64, 3, {s->layers, s->heads, s->n}, s->power_se},
        {"power_normalised", FKV_H5_F64, 2, {s->layers, s->n}, s->normalised},
        {"rounding_floor", FKV_H5_F64, 2, {s->layers, s->heads}, s->rounding_floor},
        {"total", FKV_H5_F64, 2, {s->layers, s->heads}, total},
        {"total_no_dc", FKV_H5_F64, 2, {s->layers, s->heads}, total + heads},
        {"power_null", FKV_H5_F64, 3, {s->layers, s->heads, s->n}, s->null},
        {"excess", FKV_H5_F64, 3, {s->layers, s->heads, s->n}, excess}};
    snprintf(group, sizeof group, "/spectrum/%s", fkv_state_names[s->state]);
    int status = put(w, group, ROWS(rows), err);
    fkv_memory_free(&scratch);
    return status;
}

static int put_curves(struct fkv_h5_writer *w, const struct fkv_error_curves *e,
                      struct fkv_error *err) {
    char group[64];
    const struct fkv_results_dataset rows[] = {
        {"layer_index", FKV_H5_I32, 1, {e->layers}, e->layer_index},
        {"head_index", FKV_H5_I32, 1, {e->heads}, e->head_index},
        {"gamma", FKV_H5_F64, 1, {e->gammas}, e->gamma},
        {"rounding_floor", FKV_H5_F64, 2, {e->layers, e->heads}, e->floor}};
    snprintf(group, sizeof group, "/error/%s", fkv_state_names[e->state]);
    int status = put(w, group, ROWS(rows), err);
    for (int i = 0; !status && i < 2 * fkv_measure_count; i++) {
        const struct fkv_results_dataset row = {fkv_measures[i / 2].name[i % 2],
                                                FKV_H5_F64,
                                                3,
                                                {e->layers, e->heads, e->gammas},
                                                e->curve[i]};
        status = put(w, group, &row, 1, err);
    }
    return status;
}

static int put_ratios(struct fkv_h5_writer *w, const struct fkv_ratio_table *t,
                      struct fkv_error *err) {
    const int64_t layers = t->layers, heads = t->heads, steps = FKV_RATIO_STEPS + 1;
    const struct fkv_results_dataset rows[] = {
        {"layer_index", FKV_H5_I32, 1, {layers}, t->layer_index},
        {"head_index", FKV_H5_I32, 1, {heads}, t->head_index},
        {"gamma", FKV_H5_F64, 2, {layers, heads}, t->gamma},
        {"retained", FKV_H5_I32, 2, {layers, heads}, t->retained},
        {"loss_key", FKV_H5_F64, 3, {layers, heads, steps}, t->loss[FKV_LOSS_KEY]},
        {"loss_value", FKV_H5_F64, 3, {layers, heads, steps}, t->loss[FKV_LOSS_VALUE]},
        {"loss_objective", FKV_H5_F64, 3, {layers, heads, steps}, t->loss[FKV_LOSS_OBJECTIVE]},
        {"loss_objective_projected",
         FKV_H5_F64,
         3,
         {layers, heads, steps},
         t->loss[FKV_LOSS_PROJECTED]}};
    return put(w, "/gamma", ROWS(rows), err) ||
                   fkv_h5_put_string(w, "/gamma", "criterion",
                                     t->choice.by_budget ? "budget" : "energy", err) ||
                   fkv_h5_put_string(w, "/gamma", "objective",
                                     fkv_objective_names[t->choice.objective], err)
               ? FKV_FAILED
               : FKV_OK;
}

static int put_how(struct fkv_h5_writer *w, const struct fkv_spectrum *s, struct fkv_error *err) {
    const char *se_unit = fkv_se_unit_name(s->se_unit);
    return fkv_h5_put_string(w, "/spectrum", "standard_error", s->se_kind, err) ||
                   fkv_h5_put_string(w, "/spectrum", "se_unit", se_unit ? se_unit : "", err) ||
                   fkv_h5_put_string(w, "/spectrum", "null", s->null_kind, err)
               ? FKV_FAILED
               : FKV_OK;
}

/* ---- the file ---- */

/* How segments were cut: attributes of the root, in this order. */
enum { CUT = 5 };
static const char *const cut_names[CUT] = {"segment_length", "skip_sinks", "documents", "segments",
                                           "tokens_left_out"};

static void find_cut(const struct fkv_findings *f, int64_t cut[CUT]) {
    const struct fkv_segment_plan *p = f->cut;
    const struct fkv_spectrum *s = f->spectra;
    const int64_t numbers[CUT] = {p ? p->n : s->n, p ? p->skip_sinks : s->skip_sinks,
                                  p ? p->documents : s->documents, p ? p->segments : s->segments,
                                  p ? p->tokens_left_out : s->tokens_left_out};
    memcpy(cut, numbers, sizeof numbers);
}

static int group_of(const struct fkv_findings *f) {
    return f->cut ? LINK : f->ratios ? GAMMA : f->curves ? ERROR : SPECTRUM;
}

static int put_attributes(struct fkv_h5_writer *w, const struct fkv_findings *f,
                          const int64_t cut[CUT], struct fkv_error *err) {
    const struct fkv_provenance *p = f->provenance;
    const char *group = groups[group_of(f)];
    const struct {
        const char *object, *name, *value;
    } texts[] = {{"/", "format", format_name},
                 {"/", "version", p->version},
                 {"/", "capture_sha256", p->capture_sha256},
                 {"/", "model", p->model},
                 {group, "command", p->command},
                 {group, "version", p->version}};
    int status = fkv_h5_put_int(w, "/", "format_version", 1, err);
    for (size_t i = 0; !status && i < sizeof texts / sizeof *texts; i++)
        status = fkv_h5_put_string(w, texts[i].object, texts[i].name, texts[i].value, err);
    for (int i = 0; !status && i < CUT; i++)
        status = fkv_h5_put_int(w, "/", cut_names[i], cut[i], err);
    return status;
}

static int put_group(struct fkv_h5_writer *w, const struct fkv_findings *f, struct fkv_error *err) {
    const int group = group_of(f);
    int status = FKV_OK;
    if (group == LINK) return put(w, "/link", f->dataset, (size_t)f->datasets, err);
    if (group == GAMMA) return put_ratios(w, f->ratios, err);
    if (group == SPECTRUM) status = put_how(w, &f->spectra[0], err);
    for (int32_t i = 0; !status && i < f->states; i++)
        status = group == ERROR ? put_curves(w, &f->curves[i], err)
                                : put_spectrum(w, &f->spectra[i], err);
    return status;
}

/* The groups of other commands. */
static int carry_over(struct fkv_h5_writer *w, struct fkv_h5_reader *existing, int own,
                      struct fkv_error *err) {
    int status = FKV_OK;
    for (int i = 0; !status && i < GROUPS; i++) {
        bool found;
        status = has_group(existing, i, &found, err);
        if (!status && found && i != own) status = fkv_h5_copy(existing, w, groups[i], err);
    }
    return status;
}

/* What the file says of the cut stays: the lengths of a link are in its own group. */
static int keep_cut(struct fkv_h5_reader *existing, const char *folder, int64_t cut[CUT],
                    struct fkv_error *err) {
    for (int i = 0; i < CUT; i++) {
        double value = (double)cut[i];
        bool found;
        if (fkv_h5_get_double(existing, "/", cut_names[i], &value, &found, err)) return FKV_FAILED;
        if (!(fabs(value) <= 0x1p53)) /* else no integer is exact */
            return fkv_fail(err, "%s/results.h5: attribute %s: expected an integer, found %g",
                            folder, cut_names[i], value);
        cut[i] = (int64_t)value;
    }
    return FKV_OK;
}

static int fill(struct fkv_h5_writer *w, const char *folder, const struct fkv_findings *f,
                struct fkv_error *err) {
    struct fkv_h5_reader *existing;
    int64_t cut[CUT];
    if (open_existing(folder, &existing, err)) return FKV_FAILED;
    find_cut(f, cut);
    int status = existing && f->cut ? keep_cut(existing, folder, cut, err) : FKV_OK;
    if (!status) status = put_attributes(w, f, cut, err);
    if (!status) status = put_group(w, f, err);
    if (!status && existing) status = carry_over(w, existing, group_of(f), err);
    if (existing) fkv_h5_close(existing);
    return status;
}

/* The writer refuses to replace a file, so the new one gets a name of its own first; a leftover of
 * a killed run goes. */
int fkv_results_write(const char *folder, const struct fkv_findings *f, struct fkv_error *err) {
    char path[FKV_PATH], fresh[FKV_PATH];
    if (fkv_path_print(path, err, "%s/results.h5", folder) ||
        fkv_path_print(fresh, err, "%s/.results.h5.new", folder))
        return FKV_FAILED;
    if (unlink(fresh) && errno != ENOENT) return fkv_fail_errno(err, "%s", fresh);
    struct fkv_h5_writer *writer;
    if (fkv_h5_create(fresh, &writer, err)) return FKV_FAILED;
    if (fill(writer, folder, f, err)) {
        fkv_h5_abandon(writer);
        return FKV_FAILED;
    }
    if (fkv_h5_commit(writer, err)) return FKV_FAILED;
    if (!fkv_atomic_rename(fresh, path, err)) return FKV_OK;
    unlink(fresh);
    return FKV_FAILED;
}
