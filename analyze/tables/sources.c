/* Owns the files of sources (sources.h). */
#include "analyze/tables/sources.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/csv.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/path.h"

const char fkv_sources_header[] = "kind,name,sha256";

bool fkv_sources_named(const char *name) {
    static const char ending[] = "sources.csv";
    size_t n = strlen(name), m = sizeof ending - 1;
    return n >= m && !strcmp(name + n - m, ending) && (n == m || name[n - m - 1] == '_');
}

struct source {
    const char *kind, *name, *sha256;
    int64_t order;
};

struct sources {
    struct source *one; /* [count]; owned */
    int64_t count, room;
};

static bool same(const struct source *a, const struct source *b) {
    return !strcmp(a->kind, b->kind) && !strcmp(a->name, b->name) && !strcmp(a->sha256, b->sha256);
}

/* Texts mostly come several times in a row: windows, recordings. */
static int add(struct sources *s, const char *kind, const char *name, const char *sha256,
               struct fkv_error *err) {
    const struct source source = {kind, name ? name : "", sha256, s->count};
    if (!*source.name && !*sha256) return FKV_OK;
    if (s->count && same(&s->one[s->count - 1], &source)) return FKV_OK;
    if (s->count == s->room) {
        int64_t room = s->room ? 2 * s->room : 16;
        struct source *grown = realloc(s->one, (size_t)room * sizeof *grown);
        if (!grown) return fkv_fail(err, "out of memory for %lld sources", (long long)room);
        s->one = grown, s->room = room;
    }
    s->one[s->count++] = source;
    return FKV_OK;
}

static int by_identity(const void *a, const void *b) {
    const struct source *x = a, *y = b;
    int order = strcmp(x->kind, y->kind);
    if (!order) order = strcmp(x->sha256, y->sha256);
    if (!order) order = strcmp(x->name, y->name);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b) {
    const struct source *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

static void keep_first_of_each(struct sources *s) {
    int64_t kept = 0;
    qsort(s->one, (size_t)s->count, sizeof *s->one, by_identity);
    for (int64_t i = 0; i < s->count; i++)
        if (!kept || !same(&s->one[kept - 1], &s->one[i])) s->one[kept++] = s->one[i];
    s->count = kept;
    qsort(s->one, (size_t)s->count, sizeof *s->one, by_order);
}

static int check_ours(const char *folder, const char *name, struct fkv_error *err) {
    char path[FKV_PATH], line[64] = "";
    if (fkv_path_print(path, err, "%s/%s", folder, name)) return FKV_FAILED;
    FILE *f = fopen(path, "r");
    if (!f) return FKV_OK;
    bool ours = fgets(line, sizeof line, f) &&
                !strncmp(line, fkv_sources_header, strlen(fkv_sources_header));
    fclose(f);
    if (ours) return FKV_OK;
    return fkv_fail(err, "%s: exists, and freqkv-analyze did not make it; choose another --out",
                    path);
}

static int write_rows(const struct sources *s, const char *folder, const char *name,
                      struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (check_ours(folder, name, err) || fkv_csv_open(&f, folder, name, fkv_sources_header, err))
        return FKV_FAILED;
    for (int64_t i = 0; i < s->count; i++) {
        fkv_csv_first(f.stream, s->one[i].kind);
        fkv_csv_text(f.stream, s->one[i].name);
        fkv_csv_text(f.stream, s->one[i].sha256);
        fputc('\n', f.stream);
    }
    return fkv_atomic_commit(&f, err);
}

/* Frees s, whatever happens. */
static int finish(struct sources *s, int status, const char *folder, const char *name,
                  struct fkv_error *err) {
    if (!status && s->count) {
        keep_first_of_each(s);
        status = write_rows(s, folder, name, err);
    }
    free(s->one);
    return status;
}

int fkv_sources_of_capture(const struct fkv_capture *capture, const char *folder,
                           struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(capture);
    struct sources s = {0};
    int status = add(&s, "model", info->model_name, info->model_sha256, err);
    if (!status && *info->tokenizer_sha256)
        status = add(&s, "tokenizer", "", info->tokenizer_sha256, err);
    for (int32_t i = 0; !status && i < fkv_capture_count(capture); i++) {
        const struct fkv_recording *r = fkv_capture_recording(capture, i);
        status = add(&s, "text", r->name, r->text_sha256, err);
    }
    return finish(&s, status, folder, "sources.csv", err);
}

int fkv_sources_of_runs(const struct fkv_run *runs, int32_t count, const char *folder,
                        struct fkv_error *err) {
    struct sources s = {0};
    int status = FKV_OK;
    for (int32_t i = 0; !status && i < count; i++) {
        status = add(&s, "model", runs[i].model_name, runs[i].model_sha256, err);
        for (int32_t d = 0; !status && d < runs[i].documents; d++)
            status =
                add(&s, "text", runs[i].document[d].name, runs[i].document[d].text_sha256, err);
    }
    return finish(&s, status, folder, "runs_sources.csv", err);
}

int fkv_sources_of_probe(const struct fkv_probe *probe, const char *stem, const char *folder,
                         struct fkv_error *err) {
    struct sources s = {0};
    char name[300];
    snprintf(name, sizeof name, "%.280s_sources.csv", stem);
    int status = add(&s, "model", probe->model_name, probe->model_sha256, err);
    for (int64_t w = 0; !status && w < probe->window_count; w++)
        status = add(&s, "text", probe->windows[w].name, probe->windows[w].text_sha256, err);
    return finish(&s, status, folder, name, err);
}
