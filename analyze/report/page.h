/* The page as HTML: values, tables, and what stands around the sections. */
#ifndef FKV_ANALYZE_REPORT_PAGE_H
#define FKV_ANALYZE_REPORT_PAGE_H

#include <stdio.h>

#include "analyze/report/folder.h"

/* Any bytes as text: escaped, and what is not UTF-8 replaced. */
void fkv_html_text(FILE *out, const char *text);
/* Markup in which every %s stands for a text, written as fkv_html_text does. */
void fkv_html(FILE *out, const char *markup, ...) __attribute__((format(printf, 2, 3)));
/* <ul> with these texts. attributes: of the list, from a blank on; may be "". */
void fkv_html_list(FILE *out, const char *attributes, const struct fkv_text_list *list);
/* Four digits, all of a whole number, or a dash for what is not finite. */
void fkv_html_number(FILE *out, double x);
/* 0.5 -> "50.0%", or a dash for what is not finite. */
void fkv_html_percent(FILE *out, double share);

/* Opens a table: its number and caption (text), and a box that scrolls, by keyboard too, where the
 * table is wider than the page. The caller writes <thead> and opens <tbody>. */
void fkv_html_table(FILE *out, struct fkv_report *r, const char *caption);
/* Closes <tbody>, table and box. */
void fkv_html_table_end(FILE *out);

/* Everything before the contents: policy, style, heading. */
void fkv_html_open(FILE *out, const struct fkv_report_facts *f);
/* Everything behind the sections. data: the JSON that the page's script draws from, or NULL. */
void fkv_html_close(FILE *out, const char *data);

#endif
