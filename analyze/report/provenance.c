/* Owns the section that says where everything came from: model, capture, texts, commands, and the
 * hashes of the data files, so that a reader can tell whether a folder is the one the page was made
 * from. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/report/page.h"
#include "analyze/report/sections.h"
#include "analyze/report/sources.h"
#include "kernels/base/hash.h"

enum { MOST_TEXTS = 60 };

/* One entry of the list of facts; nothing where `value` is empty. name NULL: another value of the
 * entry before. */
static void entry(FILE *out, const char *name, const char *value, bool code) {
    if (!*value) return;
    if (name) fprintf(out, "<dt>%s</dt>", name);
    fkv_html(out, code ? "<dd><code>%s</code></dd>\n" : "<dd>%s</dd>\n", value);
}

/* Hashes of models and tokenizers. */
static void hash_entries(FILE *out, const struct fkv_report_sources *s) {
    static const char *const names[][2] = {{"model", "model\u2019s SHA-256"},
                                           {"tokenizer", "tokenizer\u2019s SHA-256"}};
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0, shown = 0; i < s->count; i++)
            if (!strcmp(s->list[i].kind, names[k][0]) && *s->list[i].sha256)
                entry(out, shown++ ? NULL : names[k][1], s->list[i].sha256, true);
}

static void text_table(struct fkv_report *r, FILE *out, const struct fkv_report_sources *s) {
    int64_t texts = 0, shown = 0;
    char caption[160];
    for (int64_t i = 0; i < s->count; i++) texts += !strcmp(s->list[i].kind, "text");
    if (!texts) return;
    snprintf(caption, sizeof caption, "Texts%s. What they were used for stands behind them.",
             texts > MOST_TEXTS ? ", of which the first are shown; the files of sources have all"
                                : "");
    fkv_html_table(out, r, caption);
    fputs("<thead><tr><th scope='col' class='text'>text</th><th scope='col' "
          "class='text'>SHA-256</th><th scope='col' class='text'>of</th></tr></thead>\n<tbody>\n",
          out);
    for (int64_t i = 0; i < s->count && shown < MOST_TEXTS; i++) {
        if (strcmp(s->list[i].kind, "text")) continue;
        shown++;
        fkv_html(out,
                 "<tr><th scope='row'>%s</th><td class='text hash'>%s</td>"
                 "<td class='text'>%s</td></tr>\n",
                 *s->list[i].name ? s->list[i].name : "\u2013",
                 *s->list[i].sha256 ? s->list[i].sha256 : "\u2013", s->list[i].used_by);
    }
    fkv_html_table_end(out);
}

/* Whether the file holds numbers: not a figure, not a page. */
static bool is_data(const char *name) {
    static const char *const suffixes[] = {".h5", ".csv", ".json"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof suffixes / sizeof *suffixes; i++)
        if (!strcmp(dot, suffixes[i])) return true;
    return false;
}

static int file_table(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    fkv_html_table(out, r, "Data files beside this page, as they were when it was made.");
    fputs("<thead><tr><th scope='col' class='text'>file</th><th scope='col' "
          "class='text'>SHA-256</th></tr></thead>\n<tbody>\n",
          out);
    for (int i = 0; i < r->files.count; i++) {
        char path[4096];
        const char *paths[] = {path};
        fkv_sha256_hex hash;
        if (!is_data(r->files.text[i])) continue;
        if (fkv_report_path(r, r->files.text[i], path, err) ||
            fkv_sha256_files(paths, 1, hash, err))
            return FKV_FAILED;
        fkv_html(out, "<tr><th scope='row'>%s</th><td class='text hash'>%s</td></tr>\n",
                 r->files.text[i], hash);
    }
    fkv_html_table_end(out);
    return FKV_OK;
}

/* How the capture was cut into segments; nothing where results.h5 does not say. */
static void cut_entry(FILE *out, const struct fkv_report_facts *f) {
    char text[256];
    if (!isfinite(f->segments + f->segment_length + f->documents + f->skip_sinks +
                  f->tokens_left_out))
        return;
    snprintf(text, sizeof text,
             "%.0f segment%s of %.0f tokens from %.0f document%s, after %.0f sinks; %.0f tokens "
             "left out",
             f->segments, f->segments == 1 ? "" : "s", f->segment_length, f->documents,
             f->documents == 1 ? "" : "s", f->skip_sinks, f->tokens_left_out);
    entry(out, "cut", text, false);
}

int fkv_report_provenance(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    struct fkv_report_sources sources;
    if (fkv_report_sources_read(r, &sources, err)) return FKV_FAILED;
    fputs("<dl>\n", out);
    entry(out, "model", r->facts.model, false);
    entry(out, "capture\u2019s SHA-256", r->facts.capture_sha256, true);
    hash_entries(out, &sources);
    cut_entry(out, &r->facts);
    entry(out, "software", r->facts.version, false);
    for (int i = 0; i < r->commands.count; i++)
        entry(out, i ? NULL : "commands", r->commands.text[i], true);
    fputs("</dl>\n", out);
    text_table(r, out, &sources);
    fkv_report_sources_free(&sources);
    if (file_table(r, out, err)) return FKV_FAILED;
    if (!r->outline->left_out.count) return FKV_OK;
    fputs("<p class='note'>Not shown:</p>\n", out);
    fkv_html_list(out, " class='note'", &r->outline->left_out);
    return FKV_OK;
}
