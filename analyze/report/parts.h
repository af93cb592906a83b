/* What the sections of a report share: the folder that is read, the page that is written. Private
 * to report*.c. */
#ifndef FKV_ANALYZE_REPORT_PARTS_H
#define FKV_ANALYZE_REPORT_PARTS_H

#include <stdbool.h>
#include <stdio.h>

#include "analyze/report/report.h"
#include "analyze/tables/table.h"
#include "capture/store/capture.h"
#include "capture/store/h5.h"

/* ---- the folder ---- */

/* Shares of the energy of every head of one state, at gamma 0.5; [layers, heads] each, owned. */
struct fkv_report_shares {
    enum fkv_state state;
    int32_t layers, heads, n;
    int32_t *layer_index, *head_index; /* [layers], [heads]; owned */
    double *dc;                        /* of t = 0 in all energy */
    double *half,
        *half_null; /* below L, without DC: of the state, of its permuted null (NULL without one) */
    double *half_dc; /* below L, DC included */
};

struct fkv_report {
    const char *folder;
    struct fkv_h5_reader *results;
    char model[256], capture_sha256[128], version[64];
    double segment_length, skip_sinks, documents, segments, tokens_left_out; /* NaN when not said */
    struct fkv_text_list files;    /* names in the folder, sorted */
    bool *shown;                   /* [files.count]: some section has it; owned */
    struct fkv_text_list glyphs;   /* that the figures share */
    struct fkv_text_list commands; /* each once, in order of appearance */
    struct fkv_report_shares shares[FKV_STATES];
    int states;
    int figures, tables;
    struct fkv_report_outline *outline;
};

int fkv_report_path(const struct fkv_report *r, const char *name, char path[4096],
                    struct fkv_error *err);
bool fkv_report_has(const struct fkv_report *r, const char *name);
/* Remembers a command line for the provenance, once. */
int fkv_report_command(struct fkv_report *r, const char *command, struct fkv_error *err);
/* Fills model, hashes, numbers, shares and commands from results.h5. (report/facts.c) */
int fkv_report_facts_read(struct fkv_report *r, struct fkv_error *err);
void fkv_report_facts_free(struct fkv_report *r);

/* x [count] may hold NaN, which are left out; all NaN when nothing is left. */
struct fkv_spread {
    double median, mean, least, largest;
    int count;
};
int fkv_spread_of(const double *x, int64_t count, struct fkv_spread *out, struct fkv_error *err);

/* What the ratios per head lose beside a uniform one, means over heads, from gamma.csv; gamma.count
 * 0 where there is none. (report/ratios.c) */
enum { FKV_REPORT_LOSSES = 4 }; /* keys, values, the objective, the objective projected */
struct fkv_report_losses {
    struct fkv_spread gamma;
    const char *label[FKV_REPORT_LOSSES];
    double table[FKV_REPORT_LOSSES], uniform[FKV_REPORT_LOSSES];
};
int fkv_report_losses_read(struct fkv_report *r, struct fkv_report_losses *out,
                           struct fkv_error *err);

/* ---- the page (report/page.c) ---- */

/* Text that may hold anything, as HTML: escaped, and what is not UTF-8 replaced. */
void fkv_html(FILE *out, const char *text);
void fkv_html_number(FILE *out, double x); /* four digits, all of a whole number, or a dash */
void fkv_html_percent(FILE *out, double share);
/* Around a table: its number and caption (text), and a box that scrolls by keyboard where the table
 * is wider than the page. */
void fkv_html_table(FILE *out, struct fkv_report *r, const char *caption);
void fkv_html_table_end(FILE *out);
/* Everything before the contents and behind the sections; data (JSON) may be NULL. */
void fkv_html_open(FILE *out, const struct fkv_report *r);
void fkv_html_close(FILE *out, const char *data);

/* report.css and report.js, 0 at the end; embedded when the toolkit is built (embed.cmake). */
extern const unsigned char fkv_report_css[];
extern const unsigned char fkv_report_js[];

/* ---- figures (report/svg.c, report/figures.c) ---- */

struct fkv_svg {
    char *markup;          /* <svg> to </svg>, ready for HTML, with ids of its own; owned */
    char *title, *command; /* "" where there is none; owned */
};
/* Refuses what fkv_figure_write does not write: then the file is not ours, or was changed. `prefix`
 * makes ids unique on a page. `alt` is what it shows, in words. Glyphs are put into, and found in,
 * a list for the whole page. */
int fkv_svg_read(const char *path, const char *prefix, const char *alt,
                 struct fkv_text_list *glyphs, struct fkv_svg *out, struct fkv_error *err);
void fkv_svg_glyphs(FILE *out, const struct fkv_text_list *glyphs);
void fkv_svg_free(struct fkv_svg *s); /* harmless on a zeroed struct and a second time */

/* A file of the folder as a figure; as a table behind a fold. What cannot be shown is named in
 * outline->left_out. */
int fkv_report_figure(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err);
int fkv_report_table(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err);

/* ---- sections: each writes its own tables, nothing where there is no data; figures follow ---- */

int fkv_report_summary(struct fkv_report *r, struct fkv_error *err); /* fills outline->summary */
/* The part of it that is about runs and probes. */
int fkv_report_say_damage(struct fkv_report *r, struct fkv_error *err);
int fkv_report_spectra(struct fkv_report *r, FILE *out, struct fkv_error *err);
int fkv_report_errors(struct fkv_report *r, FILE *out, struct fkv_error *err);
int fkv_report_ratios(struct fkv_report *r, FILE *out, struct fkv_error *err);
int fkv_report_provenance(struct fkv_report *r, FILE *out, struct fkv_error *err);
/* Part of it, from the files of sources (sources.h) and gamma.json: entries of a list for hashes of
 * models and tokenizers, and a table of texts. */
struct fkv_report_sources {
    struct fkv_report_source {
        char *kind, *name, *sha256,
            *of; /* owned; of: "capture", "runs", "probe NAME", "ratios", joined by commas */
    } * one;     /* [count]; owned */
    int64_t count;
};
int fkv_report_sources_read(struct fkv_report *r, struct fkv_report_sources *out,
                            struct fkv_error *err);
void fkv_report_sources_free(
    struct fkv_report_sources *s); /* harmless on a zeroed struct and a second time */
/* The JSON inside the page; *text malloc'd, NULL where there is no spectrum.csv. */
int fkv_report_data(struct fkv_report *r, char **text, struct fkv_error *err);

extern const char *const fkv_report_state[FKV_STATES]; /* "keys before RoPE", ... */

#endif
