/* Owns what a report reads of the sources of findings: the files that other commands left
 * (tables/sources.h), and gamma.json, which has the hashes of the texts that its ratios were chosen
 * on. A source that several used is listed once. A file of sources with other columns is named
 * among those left out; a gamma.json that cannot be read adds nothing. */
#include "analyze/report/sources.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/sources.h"
#include "kernels/base/json.h"

enum { LARGEST = 64 << 20 };

void fkv_report_sources_free(struct fkv_report_sources *s) {
    for (int64_t i = 0; i < s->count; i++) {
        free(s->list[i].kind);
        free(s->list[i].name);
        free(s->list[i].sha256);
        free(s->list[i].used_by);
    }
    free(s->list);
    *s = (struct fkv_report_sources){0};
}

/* The same source among the first `count`, or NULL. By hash where there is one: gamma.json has no
 * names. */
static struct fkv_report_source *find(struct fkv_report_sources *s, int64_t count, const char *kind,
                                      const char *name, const char *sha256) {
    for (int64_t i = 0; i < count; i++) {
        struct fkv_report_source *known = &s->list[i];
        bool same = *sha256 ? !strcmp(known->sha256, sha256)
                            : !*known->sha256 && !strcmp(known->name, name);
        if (same && !strcmp(known->kind, kind) &&
            (!*name || !*known->name || !strcmp(known->name, name)))
            return known;
    }
    return NULL;
}

/* Adds a user to a source, once. */
static int add_user(struct fkv_report_source *source, const char *user, struct fkv_error *err) {
    size_t n = strlen(user);
    for (const char *at = source->used_by; (at = strstr(at, user)); at += n)
        if ((at == source->used_by || at[-1] == ' ') && (!at[n] || at[n] == ',')) return FKV_OK;
    char *joined;
    if (asprintf(&joined, "%s, %s", source->used_by, user) < 0)
        return fkv_fail(err, "out of memory");
    free(source->used_by);
    source->used_by = joined;
    return FKV_OK;
}

/* Adds a source, or a user to one that is listed. `known`: how many sources were listed before the
 * file that is being read. Only those are searched: a file has each source once, and a corpus of
 * many texts is not compared with itself. */
static int add(struct fkv_report_sources *s, int64_t known, const char *kind, const char *name,
               const char *sha256, const char *user, struct fkv_error *err) {
    struct fkv_report_source *source = find(s, known, kind, name, sha256);
    if (source) return add_user(source, user, err);
    if (!(s->count & (s->count + 1))) { /* grows at 0, 1, 3, 7, ... */
        struct fkv_report_source *grown =
            realloc(s->list, (size_t)(2 * s->count + 1) * sizeof *grown);
        if (!grown) return fkv_fail(err, "out of memory");
        s->list = grown;
    }
    source = &s->list[s->count++];
    *source = (struct fkv_report_source){strdup(kind), strdup(name), strdup(sha256), strdup(user)};
    return source->kind && source->name && source->sha256 && source->used_by
               ? FKV_OK
               : fkv_fail(err, "out of memory");
}

/* Who used what a file of sources lists, by the file's name. */
static void user_of(const char *file, char user[300]) {
    const char *end = strrchr(file, '_');
    if (!end)
        strcpy(user, "capture");
    else if (!strcmp(file, "runs_sources.csv"))
        strcpy(user, "runs");
    else
        snprintf(user, 300, "probe %.*s", (int)(end - file), file);
}

static int read_file(struct fkv_report *r, const char *name, struct fkv_report_sources *s,
                     struct fkv_error *err) {
    char user[300];
    struct fkv_table table;
    struct fkv_error why;
    const bool read = !fkv_report_table_read(r, name, &table, &why);
    const int64_t known = s->count,
                  rows = read && fkv_table_has(&table, fkv_sources_header) ? table.rows : -1;
    int status = FKV_OK;
    if (!read)
        fkv_text_list_add(&r->outline->left_out, "%s", why.message);
    else if (rows < 0)
        fkv_text_list_add(&r->outline->left_out, "%s/%s: expected columns %s", r->folder, name,
                          fkv_sources_header);
    user_of(name, user);
    for (int64_t row = 0; !status && row < rows; row++)
        status = add(s, known, fkv_table_text_of(&table, row, "kind"),
                     fkv_table_text_of(&table, row, "name"),
                     fkv_table_text_of(&table, row, "sha256"), user, err);
    fkv_table_free(&table);
    return status;
}

static int read_ratios(struct fkv_report *r, struct fkv_report_sources *s, struct fkv_error *err) {
    char path[4096];
    size_t i;
    json_t *text, *table;
    int status = FKV_OK;
    if (!fkv_report_has(r, "gamma.json")) return FKV_OK;
    if (fkv_report_path(r, "gamma.json", path, err)) return FKV_FAILED;
    if (!(table = fkv_json_load(path, LARGEST, NULL))) return FKV_OK;
    const char *model = json_string_value(json_object_get(table, "model_sha256"));
    const int64_t known = s->count;
    if (model && *model) status = add(s, known, "model", "", model, "ratios", err);
    json_array_foreach(json_object_get(table, "text_sha256"), i, text) {
        const char *hash = json_string_value(text);
        if (!status && hash && *hash) status = add(s, known, "text", "", hash, "ratios", err);
    }
    json_decref(table);
    return status;
}

int fkv_report_sources_read(struct fkv_report *r, struct fkv_report_sources *out,
                            struct fkv_error *err) {
    int status = FKV_OK;
    *out = (struct fkv_report_sources){0};
    if (fkv_report_has(r, "sources.csv")) status = read_file(r, "sources.csv", out, err);
    for (int i = 0; !status && i < r->files.count; i++)
        if (fkv_sources_named(r->files.text[i]) && strcmp(r->files.text[i], "sources.csv"))
            status = read_file(r, r->files.text[i], out, err);
    if (!status) status = read_ratios(r, out, err);
    if (status) fkv_report_sources_free(out);
    return status;
}
