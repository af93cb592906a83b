/* Owns what a report reads of the sources of findings: the files that other commands left
 * (sources.h), and gamma.json, which holds the hashes of the texts its ratios were chosen on. A
 * text that several used is one row. Files that are none of ours are named among those left out; a
 * gamma.json that is none says nothing here. */
#include <stdlib.h>
#include <string.h>

#include "analyze/report/parts.h"
#include "analyze/tables/sources.h"
#include "kernels/base/json.h"

enum { LARGEST = 64 << 20 };

void fkv_report_sources_free(struct fkv_report_sources *s) {
    for (int64_t i = 0; i < s->count; i++)
        free(s->one[i].kind), free(s->one[i].name), free(s->one[i].sha256), free(s->one[i].of);
    free(s->one);
    *s = (struct fkv_report_sources){0};
}

/* Among the first `count`; by hash where there is one: gamma.json knows no names. */
static struct fkv_report_source *find(struct fkv_report_sources *s, int64_t count, const char *kind,
                                      const char *name, const char *sha256) {
    for (int64_t i = 0; i < count; i++) {
        struct fkv_report_source *one = &s->one[i];
        bool same =
            *sha256 ? !strcmp(one->sha256, sha256) : !*one->sha256 && !strcmp(one->name, name);
        if (same && !strcmp(one->kind, kind) && (!*name || !*one->name || !strcmp(one->name, name)))
            return one;
    }
    return NULL;
}

/* One more use of a source, once. */
static int add_use(struct fkv_report_source *one, const char *of, struct fkv_error *err) {
    size_t n = strlen(of);
    for (const char *at = one->of; (at = strstr(at, of)); at += n)
        if ((at == one->of || at[-1] == ' ') && (!at[n] || at[n] == ',')) return FKV_OK;
    char *joined;
    if (asprintf(&joined, "%s, %s", one->of, of) < 0) return fkv_fail(err, "out of memory");
    free(one->of);
    one->of = joined;
    return FKV_OK;
}

/* `known`: how many there were before this file, which has each once; a corpus of many texts is not
 * compared with itself. */
static int add(struct fkv_report_sources *s, int64_t known, const char *kind, const char *name,
               const char *sha256, const char *of, struct fkv_error *err) {
    struct fkv_report_source *one = find(s, known, kind, name, sha256);
    if (one) return add_use(one, of, err);
    if (!(s->count & (s->count + 1))) { /* room for 1, 3, 7, ... */
        struct fkv_report_source *grown =
            realloc(s->one, (size_t)(2 * s->count + 1) * sizeof *grown);
        if (!grown) return fkv_fail(err, "out of memory");
        s->one = grown;
    }
    one = &s->one[s->count++];
    *one = (struct fkv_report_source){strdup(kind), strdup(name), strdup(sha256), strdup(of)};
    return one->kind && one->name && one->sha256 && one->of ? FKV_OK
                                                            : fkv_fail(err, "out of memory");
}

/* Whose sources a file holds, by its name. */
static void name_use(const char *file, char of[300]) {
    const char *end = strrchr(file, '_');
    if (!end)
        strcpy(of, "capture");
    else if (!strcmp(file, "runs_sources.csv"))
        strcpy(of, "runs");
    else
        snprintf(of, 300, "probe %.*s", (int)(end - file), file);
}

static int read_file(struct fkv_report *r, const char *name, struct fkv_report_sources *s,
                     struct fkv_error *err) {
    char path[4096], of[300];
    struct fkv_table table;
    struct fkv_error why;
    if (fkv_report_path(r, name, path, err)) return FKV_FAILED;
    if (fkv_table_read(path, &table, &why))
        return fkv_text_list_add(&r->outline->left_out, err, "%s", why.message);
    int kind = fkv_table_column(&table, "kind"), title = fkv_table_column(&table, "name"),
        sha256 = fkv_table_column(&table, "sha256"), status = FKV_OK;
    if (kind < 0 || title < 0 || sha256 < 0)
        status = fkv_text_list_add(&r->outline->left_out, err, "%s: expected columns %s", path,
                                   fkv_sources_header);
    name_use(name, of);
    int64_t known = s->count;
    for (int64_t row = 0; !status && kind >= 0 && title >= 0 && sha256 >= 0 && row < table.rows;
         row++)
        status =
            add(s, known, fkv_table_text(&table, row, kind), fkv_table_text(&table, row, title),
                fkv_table_text(&table, row, sha256), of, err);
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
