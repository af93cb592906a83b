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

static void print_quoted(const char *text, FILE *f) {
    fputc('"', f);
    for (; *text; text++) {
        if (*text == '"') fputc('"', f);
        fputc(*text, f);
    }
    fputc('"', f);
}

/* The cells that are known before the prompt is fed, with the comma after them. */
static void print_known(const struct fkv_needle_sheet *sheet, int64_t i, FILE *f) {
    const struct fkv_policy_setup *setup = sheet->setup;
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

char *fkv_needle_line(const struct fkv_needle_sheet *sheet, int64_t i,
                      const struct fkv_needle_result *result, size_t *bytes) {
    char *line = NULL;
    FILE *f = open_memstream(&line, bytes);
    if (!f) return NULL;
    if (i < 0) {
        fputs(names[sheet->kind], f);
    } else if (sheet->kind == FKV_RECALL) {
        print_known(sheet, i, f);
        fprintf(f, "%.9g,%.9g,%.9g\n", result->first, result->second,
                result->first - result->second);
    } else {
        print_known(sheet, i, f);
        fprintf(f, "%d,%.9g,%.9g,", result->exact, result->logprob,
                result->logprob / sheet->cells[i].answer);
        print_quoted(result->found, f);
        fputc('\n', f);
    }
    if (!fclose(f)) return line;
    free(line);
    return NULL;
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

static int check_line(const struct fkv_needle_sheet *sheet, int64_t i, const char *line,
                      size_t bytes, const char *where, struct fkv_needle_result *result,
                      struct fkv_error *err) {
    size_t expected_bytes;
    if (i >= 0 && (strlen(line) != bytes || !read_result(sheet, line, result)))
        return fkv_fail(err, "%s: expected a row of this run, found \"%.200s\"", where, line);
    char *expected = fkv_needle_line(sheet, i, result, &expected_bytes);
    if (!expected) return fkv_fail(err, "%s: out of memory", where);
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

/* The start of line i, which an interruption left: dropped, unless this program cannot have written
 * it. */
static int check_torn(const struct fkv_needle_sheet *sheet, int64_t i, const char *line,
                      size_t bytes, const char *where, struct fkv_error *err) {
    char *start = NULL;
    size_t known = 0;
    FILE *f = open_memstream(&start, &known);
    if (!f) return fkv_fail(err, "%s: out of memory", where);
    if (i < 0)
        fputs(names[sheet->kind], f);
    else
        print_known(sheet, i, f);
    int status = fclose(f) ? fkv_fail(err, "%s: out of memory", where) : FKV_OK;
    if (!status && memcmp(line, start, bytes < known ? bytes : known))
        status =
            fkv_fail(err,
                     "%s: expected the start of a line, \"%.80s\", found \"%.80s\", which this "
                     "program did not write: remove it to go on",
                     where, start, line);
    free(start);
    return status;
}

int fkv_needle_rows_read(FILE *f, const char *where, const struct fkv_needle_sheet *sheet,
                         struct fkv_needle_result *results, struct fkv_needle_rows *found,
                         struct fkv_error *err) {
    char *line = NULL, line_name[512];
    size_t capacity = 0;
    ssize_t bytes;
    int status = FKV_OK;
    *found = (struct fkv_needle_rows){0};
    while (!status && (bytes = getline(&line, &capacity, f)) > 0) {
        const int64_t i = found->lines - 1; /* of its cell */
        snprintf(line_name, sizeof line_name, "%.400s:%lld", where, (long long)found->lines + 1);
        if (i == sheet->count) {
            status = fkv_fail(err, "%s: expected a row for each of the %lld prompts, found more",
                              line_name, (long long)sheet->count);
        } else if (line[bytes - 1] != '\n') { /* the last one, which an interruption left */
            status = check_torn(sheet, i, line, (size_t)bytes, line_name, err);
            found->torn = bytes;
        } else {
            status = check_line(sheet, i, line, (size_t)bytes, line_name,
                                i < 0 ? NULL : &results[i], err);
            found->lines++;
            found->bytes += bytes;
        }
    }
    free(line);
    if (!status && ferror(f)) status = fkv_fail_errno(err, "%s: cannot read", where);
    return status;
}
