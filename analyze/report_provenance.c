/* Owns the section that says where everything came from: model, capture, texts, commands, and the hashes of the data files, so that a reader can tell whether a folder is the one the page was made from. */
#include <math.h>
#include <string.h>

#include "analyze/report_parts.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"

enum { LARGEST = 64 << 20 };

/* name NULL: one more of the entry before. */
static void entry(FILE *out, const char *name, const char *value, bool code) {
    if (!*value) return;
    if (name) fprintf(out, "<dt>%s</dt>", name);
    fprintf(out, "<dd>%s", code ? "<code>" : "");
    fkv_html(out, value);
    fprintf(out, "%s</dd>\n", code ? "</code>" : "");
}

/* The model's hash and the texts', which gamma.json knows. A gamma.json that is none of ours says nothing here. */
static int table_entries(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    char path[4096];
    const char *model = NULL;
    size_t i;
    json_t *text, *table;
    if (!fkv_report_has(r, "gamma.json")) return FKV_OK;
    if (fkv_report_path(r, "gamma.json", path, err)) return FKV_FAILED;
    if (!(table = fkv_json_load(path, LARGEST, NULL))) return FKV_OK;
    model = json_string_value(json_object_get(table, "model_sha256"));
    if (model) entry(out, "model\u2019s SHA-256", model, true);
    json_array_foreach(json_object_get(table, "text_sha256"), i, text) if (json_is_string(text))
        entry(out, i ? NULL : "texts\u2019 SHA-256", json_string_value(text), true);
    json_decref(table);
    return FKV_OK;
}

static bool is_data(const char *name) {
    static const char *const suffixes[] = {".h5", ".csv", ".json"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof suffixes / sizeof *suffixes; i++)
        if (!strcmp(dot, suffixes[i])) return true;
    return false;
}

static int file_table(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    fkv_html_table(out, r, "Data files beside this page, as they were when it was made.");
    fputs(
        "<thead><tr><th scope='col' class='text'>file</th><th scope='col' class='text'>SHA-256</th></tr></thead>\n<tbody>\n",
        out);
    for (int i = 0; i < r->files.count; i++) {
        char path[4096];
        const char *paths[] = {path};
        fkv_sha256_hex hash;
        if (!is_data(r->files.text[i])) continue;
        if (fkv_report_path(r, r->files.text[i], path, err) || fkv_sha256_files(paths, 1, hash, err)) return FKV_FAILED;
        fputs("<tr><th scope='row'>", out);
        fkv_html(out, r->files.text[i]);
        fprintf(out, "</th><td class='text hash'>%s</td></tr>\n", hash);
    }
    fkv_html_table_end(out);
    return FKV_OK;
}

int fkv_report_provenance(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    char text[256];
    fputs("<dl>\n", out);
    entry(out, "model", r->model, false);
    entry(out, "capture\u2019s SHA-256", r->capture_sha256, true);
    if (table_entries(r, out, err)) return FKV_FAILED;
    snprintf(text, sizeof text,
             "%.0f segment%s of %.0f tokens from %.0f document%s, after %.0f sinks; %.0f tokens left out", r->segments,
             r->segments == 1 ? "" : "s", r->segment_length, r->documents, r->documents == 1 ? "" : "s", r->skip_sinks,
             r->tokens_left_out);
    if (isfinite(r->segments + r->segment_length + r->documents + r->skip_sinks + r->tokens_left_out))
        entry(out, "cut", text, false);
    entry(out, "software", r->version, false);
    for (int i = 0; i < r->commands.count; i++) entry(out, i ? NULL : "commands", r->commands.text[i], true);
    fputs("</dl>\n", out);
    if (file_table(r, out, err)) return FKV_FAILED;
    if (r->outline->left_out.count) fputs("<p class='note'>Not shown:</p>\n<ul class='note'>\n", out);
    for (int i = 0; i < r->outline->left_out.count; i++) {
        fputs("<li>", out);
        fkv_html(out, r->outline->left_out.text[i]);
        fputs("</li>\n", out);
    }
    if (r->outline->left_out.count) fputs("</ul>\n", out);
    return FKV_OK;
}
