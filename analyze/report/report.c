/* Owns report.html as a whole: which section shows what, and in which order. A section is a row of
 * `sections`. Each is written into memory first, and one that wrote nothing does not appear: so no
 * list says which data a section needs. */
#include "analyze/report/report.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/report/folder.h"
#include "analyze/report/page.h"
#include "analyze/report/sections.h"
#include "analyze/tables/sources.h"
#include "kernels/base/atomic_file.h"

enum { PATTERNS = 12 };

static const struct section {
    const char *id;
    const char *title;
    const char *lead; /* the first paragraph; may be NULL */
    /* Writes what comes before figures and tables of the folder; may be NULL. */
    int (*write)(struct fkv_report *r, FILE *out, struct fkv_error *err);
    /* Names of the figures and tables that follow, in this order. One that starts with * is tried
     * when no section has one without. */
    const char *patterns[PATTERNS];
    /* A CSV file that is too long to be shown: `write` shows its numbers. May be NULL. */
    const char *not_shown;
} sections[] = {
    {"spectra",
     "Power spectra",
     "Power of the orthonormal DCT-II along tokens, mean over channels. The permuted null says "
     "what the same vectors give in random order.",
     fkv_report_spectra,
     {"spectrum_key.*", "spectrum_value.*", "spectrum_key_rotated.*", "spectrum_query.*",
      "spectrum[._]*"},
     "spectrum.csv"},
    {"errors",
     "Reconstruction error",
     "What keeping only the lowest coefficients loses, segment by segment.",
     fkv_report_errors,
     {"error_key.*", "error_value.*", "error_key_rotated.*", "error_query.*", "error_heatmap*",
      "error[._]*"},
     "error.csv"},
    {"ratios",
     "Ratios per head",
     "A retaining ratio for every layer and head, chosen from what each would lose.",
     fkv_report_ratios,
     {"gamma.*", "gamma_heatmap.*", "gamma_histogram.*"},
     "gamma.csv"},
    {"perplexity",
     "Perplexity",
     "What the cache policies cost the model, over ratios and over the tokens since a compression.",
     NULL,
     {"*_pareto.*", "runs_perplexity.*", "runs_*", "perplexity.*"},
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

/* Refuses to replace a page that this tool did not make. */
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

/* ---- files of a section ---- */

/* By how the file's name starts, or, `loosely`, by how it ends. */
static bool matches(const struct section *s, const char *name, bool loosely) {
    for (int i = 0; i < PATTERNS && s->patterns[i]; i++)
        if ((*s->patterns[i] == '*') == loosely && !fnmatch(s->patterns[i], name, 0)) return true;
    return false;
}

/* The section that a file belongs to, or NULL. */
static const struct section *section_of(const char *name) {
    if (fkv_sources_named(name)) return NULL; /* the provenance has these */
    for (int loosely = 0; loosely < 2; loosely++)
        for (int i = 0; i < SECTIONS; i++)
            if (matches(&sections[i], name, loosely)) return &sections[i];
    return NULL;
}

/* Shows the section's files with this suffix, in the order of its patterns. */
static void show_files(struct fkv_report *r, const struct section *s, const char *suffix,
                       void (*show_file)(struct fkv_report *r, FILE *out, const char *name),
                       FILE *out) {
    for (int p = 0; p < PATTERNS && s->patterns[p]; p++)
        for (int i = 0; i < r->files.count; i++) {
            const char *name = r->files.text[i], *dot = strrchr(name, '.');
            if (r->taken[i] || !dot || strcmp(dot, suffix) || fnmatch(s->patterns[p], name, 0) ||
                section_of(name) != s)
                continue;
            r->taken[i] = true;
            if (!s->not_shown || strcmp(name, s->not_shown)) show_file(r, out, name);
        }
}

/* *text is malloc'd, "" where the section has nothing to show. */
static int write_section(struct fkv_report *r, const struct section *s, char **text,
                         struct fkv_error *err) {
    size_t bytes;
    FILE *out = open_memstream(text, &bytes);
    if (!out) return fkv_fail(err, "out of memory");
    int status = s->write ? s->write(r, out, err) : FKV_OK;
    show_files(r, s, ".svg", fkv_report_figure, out);
    show_files(r, s, ".csv", fkv_report_table, out);
    return fclose(out) && !status ? fkv_fail(err, "out of memory") : status;
}

/* ---- the page ---- */

static void put_section(FILE *out, const char *id, const char *title, const char *lead,
                        const char *text) {
    fprintf(out, "<section id='%s' aria-labelledby='%s-title'>\n<h2 id='%s-title'>%s</h2>\n", id,
            id, id, title);
    if (lead) fprintf(out, "<p>%s</p>\n", lead);
    fprintf(out, "%s</section>\n", text);
}

static void put_summary(FILE *out, const struct fkv_report_outline *o) {
    fputs("<section id='summary' aria-labelledby='summary-title'>\n<h2 id='summary-title'>In "
          "words</h2>\n<p>Computed from the numbers below.</p>\n",
          out);
    fkv_html_list(out, "", &o->summary);
    fputs("</section>\n", out);
}

static void put_page(FILE *out, const struct fkv_report *r, char *const text[SECTIONS],
                     const char *provenance, const char *data) {
    fkv_html_open(out, &r->facts);
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
    struct fkv_report_outline *o = r->outline;
    if (o->summary.count) fkv_text_list_add(&o->sections, "summary");
    for (int i = 0; i < SECTIONS; i++)
        if (*text[i]) fkv_text_list_add(&o->sections, "%s", sections[i].id);
    fkv_text_list_add(&o->sections, "provenance");
    const bool failed =
        o->sections.failed || o->summary.failed || o->left_out.failed || r->commands.failed;
    return failed ? fkv_fail(err, "out of memory") : FKV_OK;
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
    const struct section last = {.write = fkv_report_provenance}; /* reads what the others added */
    char *text[SECTIONS] = {0}, *provenance = NULL, *data = NULL;
    int status = fkv_report_summary(r, err);
    if (!status) status = fkv_report_spectra_json(r, &data, err);
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
    struct fkv_report r;
    char path[4096];
    *out = (struct fkv_report_outline){0};
    if (fkv_report_open(folder, out, &r, err)) return FKV_FAILED;
    int status = fkv_report_path(&r, "report.html", path, err);
    if (!status && !(out->path = strdup(path))) status = fkv_fail(err, "out of memory");
    if (!status) status = check_target(path, err);
    if (!status) status = write_page(&r, err);
    fkv_report_close(&r);
    if (status) fkv_report_outline_free(out);
    return status;
}
