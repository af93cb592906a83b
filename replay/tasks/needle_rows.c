/* Rows of OUT.csv: making one, and telling whether one that is there is a row of this run. The
 * latter makes the row again from the few cells that were measured and compares bytes, so nothing
 * of another run passes for one of this. */
#include "replay/tasks/needle_rows.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    [FKV_NEEDLE] = "task,policy,window,gamma,length,depth,repeat,offset,position,key,answer_tokens,"
                   "exact,logprob,logprob_per_token,found\n",
    [FKV_RECALL] = "task,policy,window,gamma,length,depth,repeat,offset,position,tokens,first_nll,"
                   "second_nll,gain\n"};

/* The cells that are known before the prompt is fed, with the comma after them. */
static void print_start(const void *context, int64_t i, FILE *f) {
    const struct fkv_needle_sheet *sheet = context;
    const struct fkv_policy_setup *setup = sheet->setup;
    if (i < 0) {
        fputs(names[sheet->kind], f);
        return;
    }
    const struct fkv_needle_cell *c = &sheet->cells[i];
    fprintf(f, "%s,%s,", fkv_needle_kinds[sheet->kind], setup->policy->name);
    if (setup->policy->takes_window) fprintf(f, "%d", setup->window);
    fputc(',', f);
    if (isfinite(setup->gamma)) fprintf(f, "%.9g", setup->gamma);
    fprintf(f, ",%lld,%.9g,%lld,%lld,%lld,", (long long)c->length, c->depth, (long long)c->repeat,
            (long long)c->offset, (long long)c->position);
    if (sheet->kind == FKV_RECALL)
        fprintf(f, "%d,", c->answer - 1); /* as they are scored */
    else
        fprintf(f, "%s,%d,", c->key, c->answer);
}

void fkv_needle_print_line(const void *context, int64_t i, FILE *f) {
    const struct fkv_needle_sheet *sheet = context;
    print_start(sheet, i, f);
    if (i < 0) return;
    const struct fkv_needle_result *r = &sheet->results[i];
    if (sheet->kind == FKV_RECALL) {
        fprintf(f, "%.9g,%.9g,%.9g\n", r->first, r->second, r->first - r->second);
        return;
    }
    fprintf(f, "%d,%.9g,%.9g,", r->exact, r->logprob, r->logprob / sheet->cells[i].answer);
    fkv_lines_put_quoted(r->found, f);
    fputc('\n', f);
}

/* ---- rows of an earlier run ---- */

/* Steps behind the next `cells` cells. NULL: there are fewer. */
static const char *skip_cells(const char *at, int cells) {
    for (; at && cells; cells--) {
        at = strchr(at, ',');
        if (at) at++;
    }
    return at;
}

/* The text of a quoted cell that ends the line, malloc'd; NULL: it is none. */
static char *read_quoted(const char *at) {
    char *text = malloc(strlen(at) + 1), *to = text;
    if (!text || *at++ != '"') {
        free(text);
        return NULL;
    }
    for (; *at && (*at != '"' || at[1] == '"'); at++) {
        at += *at == '"';
        *to++ = *at;
    }
    *to = 0;
    if (!strcmp(at, "\"\n")) return text;
    free(text);
    return NULL;
}

/* The measured cells of a row; false where they are none. */
static bool read_result(const struct fkv_needle_sheet *sheet, const char *line,
                        struct fkv_needle_result *r) {
    const bool recall = sheet->kind == FKV_RECALL;
    const char *at = skip_cells(line, recall ? 10 : 11);
    char *end;
    if (!at || isspace((unsigned char)*at)) return false;
    if (recall) {
        r->first = strtod(at, &end);
        if (*end++ != ',') return false;
        r->second = strtod(end, &end);
        return isfinite(r->first) && isfinite(r->second);
    }
    if ((*at != '0' && *at != '1') || at[1] != ',') return false;
    r->exact = *at == '1';
    r->logprob = strtod(at + 2, &end);
    at = *end == ',' ? skip_cells(end + 1, 1) : NULL;
    r->found = at && isfinite(r->logprob) ? read_quoted(at) : NULL;
    return r->found;
}

static int check_row(const struct fkv_needle_sheet *sheet, int64_t i, const char *line,
                     size_t bytes, const char *where, struct fkv_error *err) {
    size_t expected_bytes;
    if (i >= 0 && (strlen(line) != bytes || !read_result(sheet, line, &sheet->results[i])))
        return fkv_fail(err, "%s: expected a row of this run, found \"%.200s\"", where, line);
    char *expected = fkv_lines_printed(fkv_needle_print_line, sheet, i, &expected_bytes, err);
    if (!expected) return FKV_FAILED;
    int status = FKV_OK;
    if (expected_bytes != bytes || memcmp(expected, line, bytes))
        status =
            fkv_fail(err,
                     "%s: expected \"%.*s\", found \"%.*s\": made by another run; give its "
                     "options, or another --out",
                     where, (int)strcspn(expected, "\n"), expected, (int)strcspn(line, "\n"), line);
    free(expected);
    return status;
}

/* The start of a row, which an interruption left: dropped, unless this program cannot have written
 * it. */
static int check_torn(const struct fkv_needle_sheet *sheet, int64_t i, const char *line,
                      size_t bytes, const char *where, struct fkv_error *err) {
    size_t known;
    char *start = fkv_lines_printed(print_start, sheet, i, &known, err);
    if (!start) return FKV_FAILED;
    int status = FKV_OK;
    if (memcmp(line, start, bytes < known ? bytes : known))
        status =
            fkv_fail(err,
                     "%s: expected the start of a line, \"%.80s\", found \"%.80s\", which this "
                     "program did not write: remove it to go on",
                     where, start, line);
    free(start);
    return status;
}

static int check_line(void *context, int64_t line, const char *text, size_t bytes, bool whole,
                      const char *where, struct fkv_error *err) {
    const struct fkv_needle_sheet *sheet = context;
    if (line > sheet->count)
        return fkv_fail(err, "%s: expected a row for each of the %lld prompts, found more", where,
                        (long long)sheet->count);
    return whole ? check_row(sheet, line - 1, text, bytes, where, err)
                 : check_torn(sheet, line - 1, text, bytes, where, err);
}

int fkv_needle_rows_read(FILE *f, const char *where, const struct fkv_needle_sheet *sheet,
                         struct fkv_lines_found *found, struct fkv_error *err) {
    return fkv_lines_read(f, where, check_line, (void *)sheet, found, err);
}
