/* Owns report.html as a whole (report.h): what is in the folder, which section shows what, and in
 * which order. A section is a row of `sections`. Each writes into memory first, and one that wrote
 * nothing does not appear, so that nobody has to say beforehand what a section needs. */
#include "analyze/report/report.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analyze/report/parts.h"
#include "analyze/tables/sources.h"
#include "kernels/base/atomic_file.h"

enum { PATH = 4096, PATTERNS = 12 };

static const char *const spectrum_csv[] = {"spectrum.csv", NULL},
                         *const error_csv[] = {"error.csv", NULL},
                         *const gamma_csv[] = {"gamma.csv", NULL};

static const struct section {
    const char *id, *title, *lead;
    int (*write)(struct fkv_report *r, FILE *out,
                 struct fkv_error *err); /* its own tables; may be NULL */
    const char
        *patterns[PATTERNS]; /* names of the figures and tables that follow, in this order; one that
                                starts with * is tried when no section has a better one */
    const char *const
        *own; /* tables that `write` stands for: too long to be shown, and there is a better form */
} sections[] = {
    {"spectra",
     "Power spectra",
     "Power of the orthonormal DCT-II along tokens, mean over channels. The permuted null says "
     "what the same vectors give in random order.",
     fkv_report_spectra,
     {"spectrum_key.*", "spectrum_value.*", "spectrum_key_rotated.*", "spectrum_query.*",
      "spectrum[._]*"},
     spectrum_csv},
    {"errors",
     "Reconstruction error",
     "What keeping only the lowest coefficients loses, segment by segment.",
     fkv_report_errors,
     {"error_key.*", "error_value.*", "error_key_rotated.*", "error_query.*", "error_heatmap*",
      "error[._]*"},
     error_csv},
    {"ratios",
     "Ratios per head",
     "A retaining ratio for every layer and head, chosen from what each would lose.",
     fkv_report_ratios,
     {"gamma.*", "gamma_heatmap.*", "gamma_histogram.*"},
     gamma_csv},
    {"perplexity",
     "Perplexity",
     "What the cache policies cost the model, over ratios and over the tokens since a compression.",
     NULL,
     {"runs_perplexity.*", "runs_*", "perplexity.*"},
     NULL},
    {"rounds",
     "Compression upon compression",
     "What each round of compression found and kept: caches are mostly re-compressed, while "
     "spectra are of fresh states.",
     NULL,
     {"*_rounds.*"},
     NULL},
    {"probes",
     "Probes",
     "The cache changed once, and what that did to the tokens after it.",
     NULL,
     {"*_policies.*", "*_decomposition.*", "*_bands.*", "*_filters.*", "*_noise.*", "*_layers.*",
      "*_heads_delta_nll.*", "*_heads_kl.*", "*_heads.*", "*_classes.*"},
     NULL},
    {"link",
     "Energy against damage",
     "Does the energy that a change removes say what it costs?",
     NULL,
     {"link_retained*", "link_heads*", "link_ranking*", "link_*"},
     NULL},
    {"memory",
     "Memory horizon",
     "What becomes of a token in a cache that is compressed again and again: the schedule alone, "
     "no model.",
     NULL,
     {"impulse[._]*"},
     NULL},
    {"others", "Other figures and tables", NULL, NULL, {"*.svg", "*.csv"}, NULL},
};
enum { SECTIONS = sizeof sections / sizeof *sections };

/* ---- lists ---- */

int fkv_text_list_add(struct fkv_text_list *list, struct fkv_error *err, const char *format, ...) {
    char **grown = realloc(list->text, ((size_t)list->count + 1) * sizeof *grown);
    va_list arguments;
    if (grown) list->text = grown;
    va_start(arguments, format);
    bool made = grown && vasprintf(&list->text[list->count], format, arguments) >= 0;
    va_end(arguments);
    if (!made) return fkv_fail(err, "out of memory");
    list->count++;
    return FKV_OK;
}

void fkv_text_list_free(struct fkv_text_list *list) {
    for (int i = 0; i < list->count; i++) free(list->text[i]);
    free(list->text);
    *list = (struct fkv_text_list){0};
}

void fkv_report_outline_free(struct fkv_report_outline *o) {
    free(o->path);
    fkv_text_list_free(&o->sections);
    fkv_text_list_free(&o->summary);
    fkv_text_list_free(&o->left_out);
    *o = (struct fkv_report_outline){0};
}

/* ---- the folder ---- */

int fkv_report_path(const struct fkv_report *r, const char *name, char path[PATH],
                    struct fkv_error *err) {
    if (snprintf(path, PATH, "%s/%s", r->folder, name) < PATH) return FKV_OK;
    return fkv_fail(err, "%s: the path is too long", r->folder);
}

bool fkv_report_has(const struct fkv_report *r, const char *name) {
    for (int i = 0; i < r->files.count; i++)
        if (!strcmp(r->files.text[i], name)) return true;
    return false;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Plain files only, without hidden ones and those that a writer has not finished. */
static int list_files(struct fkv_report *r, struct fkv_error *err) {
    DIR *directory = opendir(r->folder);
    int status = directory ? FKV_OK : fkv_fail_errno(err, "%s", r->folder);
    if (status) return status;
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        char path[PATH];
        struct stat info;
        if (*entry->d_name == '.') continue;
        status = fkv_report_path(r, entry->d_name, path, err);
        if (!status && !stat(path, &info) && S_ISREG(info.st_mode))
            status = fkv_text_list_add(&r->files, err, "%s", entry->d_name);
    }
    closedir(directory);
    if (r->files.count)
        qsort(r->files.text, (size_t)r->files.count, sizeof *r->files.text, by_text);
    r->shown = calloc((size_t)r->files.count + 1, sizeof *r->shown);
    return status || r->shown ? status : fkv_fail(err, "out of memory");
}

static int open_results(struct fkv_report *r, struct fkv_error *err) {
    char path[PATH], format[64] = "";
    bool found;
    if (fkv_report_path(r, "results.h5", path, err)) return FKV_FAILED;
    if (!fkv_report_has(r, "results.h5"))
        return fkv_fail(err,
                        "%s: expected results.h5, which freqkv-analyze spectrum, error and gamma "
                        "write, found none",
                        r->folder);
    if (fkv_h5_open(path, &r->results, err)) return FKV_FAILED;
    if (fkv_h5_get_string(r->results, "/", "format", format, sizeof format, &found, err))
        return fkv_error_prefix(err, "%s", path);
    if (strcmp(format, "freqkv-results"))
        return fkv_fail(err, "%s: attribute format: expected \"freqkv-results\", found %s%.60s%s",
                        path, *format ? "\"" : "", *format ? format : "none", *format ? "\"" : "");
    return fkv_report_facts_read(r, err) ? fkv_error_prefix(err, "%s", path) : FKV_OK;
}

/* A page of somebody else's is not ours to replace. */
static int check_target(const char *path, struct fkv_error *err) {
    char head[1024] = "";
    FILE *f = fopen(path, "r");
    if (!f && errno == ENOENT) return FKV_OK;
    if (!f) return fkv_fail_errno(err, "%s", path);
    size_t bytes = fread(head, 1, sizeof head - 1, f);
    fclose(f);
    head[bytes] = 0;
    if (strstr(head, "name='generator' content='freqkv-analyze report")) return FKV_OK;
    return fkv_fail(err, "%s: exists, and freqkv-analyze report did not make it; move it away",
                    path);
}

/* ---- sections ---- */

static bool matches(const struct section *s, const char *name, bool loosely) {
    for (int i = 0; i < PATTERNS && s->patterns[i]; i++)
        if ((*s->patterns[i] == '*') == loosely && !fnmatch(s->patterns[i], name, 0)) return true;
    return false;
}

/* The section that a file belongs to: by how its name starts, else by how it ends. */
static const struct section *home_of(const char *name) {
    if (fkv_sources_named(name)) return NULL; /* the provenance tells them */
    for (int loosely = 0; loosely < 2; loosely++)
        for (int i = 0; i < SECTIONS; i++)
            if (matches(&sections[i], name, loosely)) return &sections[i];
    return NULL;
}

static bool listed(const char *name, const char *const *names) {
    while (names && *names && strcmp(*names, name)) names++;
    return names && *names;
}

/* The section's files whose names end so, in the order of its patterns. */
static int show(struct fkv_report *r, const struct section *s, const char *suffix,
                int (*one)(struct fkv_report *r, FILE *out, const char *name,
                           struct fkv_error *err),
                FILE *out, struct fkv_error *err) {
    for (int p = 0; p < PATTERNS && s->patterns[p]; p++)
        for (int i = 0; i < r->files.count; i++) {
            const char *name = r->files.text[i], *dot = strrchr(name, '.');
            if (r->shown[i] || !dot || strcmp(dot, suffix) || fnmatch(s->patterns[p], name, 0) ||
                home_of(name) != s)
                continue;
            r->shown[i] = true;
            if (!listed(name, s->own) && one(r, out, name, err)) return FKV_FAILED;
        }
    return FKV_OK;
}

static int write_section(struct fkv_report *r, const struct section *s, char **text,
                         struct fkv_error *err) {
    size_t bytes;
    FILE *out = open_memstream(text, &bytes);
    if (!out) return fkv_fail(err, "out of memory");
    int status = s->write ? s->write(r, out, err) : FKV_OK;
    if (!status) status = show(r, s, ".svg", fkv_report_figure, out, err);
    if (!status) status = show(r, s, ".csv", fkv_report_table, out, err);
    return fclose(out) && !status ? fkv_fail(err, "out of memory") : status;
}

static void put_section(FILE *out, const char *id, const char *title, const char *lead,
                        const char *text) {
    fprintf(out, "<section id='%s' aria-labelledby='%s-title'>\n<h2 id='%s-title'>%s</h2>\n", id,
            id, id, title);
    if (lead) fprintf(out, "<p>%s</p>\n", lead);
    fprintf(out, "%s</section>\n", text);
}

static void put_summary(FILE *out, const struct fkv_report_outline *o) {
    fputs("<section id='summary' aria-labelledby='summary-title'>\n<h2 id='summary-title'>In "
          "words</h2>\n<p>Computed from the numbers below.</p>\n<ul>\n",
          out);
    for (int i = 0; i < o->summary.count; i++) {
        fputs("<li>", out);
        fkv_html(out, o->summary.text[i]);
        fputs("</li>\n", out);
    }
    fputs("</ul>\n</section>\n", out);
}

static void put_page(FILE *out, struct fkv_report *r, char *const text[SECTIONS],
                     const char *provenance, const char *data) {
    fkv_html_open(out, r);
    fkv_svg_glyphs(out, &r->glyphs);
    fputs("<nav aria-label='Contents'><ol>\n", out);
    if (r->outline->summary.count) fputs("<li><a href='#summary'>In words</a></li>\n", out);
    for (int i = 0; i < SECTIONS; i++)
        if (*text[i])
            fprintf(out, "<li><a href='#%s'>%s</a></li>\n", sections[i].id, sections[i].title);
    fputs("<li><a href='#provenance'>Provenance</a></li>\n</ol></nav>\n<main id='main'>\n", out);
    if (r->outline->summary.count) put_summary(out, r->outline);
    for (int i = 0; i < SECTIONS; i++)
        if (*text[i])
            put_section(out, sections[i].id, sections[i].title, sections[i].lead, text[i]);
    put_section(out, "provenance", "Provenance", NULL, provenance);
    fputs("</main>\n", out);
    fkv_html_close(out, data);
}

static int list_sections(struct fkv_report *r, char *const text[SECTIONS], struct fkv_error *err) {
    struct fkv_text_list *list = &r->outline->sections;
    if (r->outline->summary.count && fkv_text_list_add(list, err, "summary")) return FKV_FAILED;
    for (int i = 0; i < SECTIONS; i++)
        if (*text[i] && fkv_text_list_add(list, err, "%s", sections[i].id)) return FKV_FAILED;
    return fkv_text_list_add(list, err, "provenance");
}

static int save(struct fkv_report *r, char *const text[SECTIONS], const char *provenance,
                const char *data, struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_atomic_open(&f, r->outline->path, err)) return FKV_FAILED;
    put_page(f.stream, r, text, provenance, data);
    r->outline->bytes = ftell(f.stream);
    return fkv_atomic_commit(&f, err);
}

static int write_page(struct fkv_report *r, struct fkv_error *err) {
    const struct section last = {
        .write = fkv_report_provenance}; /* knows what the others used and left out */
    char *text[SECTIONS] = {0}, *provenance = NULL, *data = NULL;
    int status = fkv_report_summary(r, err);
    if (!status) status = fkv_report_data(r, &data, err);
    for (int i = 0; !status && i < SECTIONS; i++)
        status = write_section(r, &sections[i], &text[i], err);
    if (!status) status = write_section(r, &last, &provenance, err);
    if (!status) status = list_sections(r, text, err);
    if (!status) status = save(r, text, provenance, data, err);
    for (int i = 0; i < SECTIONS; i++) free(text[i]);
    free(provenance);
    free(data);
    r->outline->figures = r->figures;
    return status;
}

int fkv_report_write(const char *folder, struct fkv_report_outline *out, struct fkv_error *err) {
    struct fkv_report r = {.folder = folder, .outline = out};
    char path[PATH];
    *out = (struct fkv_report_outline){0};
    int status = fkv_report_path(&r, "report.html", path, err);
    if (!status && !(out->path = strdup(path))) status = fkv_fail(err, "out of memory");
    if (!status) status = list_files(&r, err);
    if (!status) status = open_results(&r, err);
    if (!status) status = check_target(path, err);
    if (!status) status = write_page(&r, err);
    if (r.results) fkv_h5_close(r.results);
    fkv_report_facts_free(&r);
    fkv_text_list_free(&r.files);
    fkv_text_list_free(&r.glyphs);
    free(r.shown);
    if (status) fkv_report_outline_free(out);
    return status;
}
