/* Any bytes as a file in a folder of findings, under each name that the report reads in a way of
 * its own: tables, the JSON of ratios, figures. The page is written or refused in words, and what
 * came from the file is in it as text or as the bytes of an image: no element, no script, no other
 * address. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analyze/report/report.h"
#include "analyze/tables/table.h"
#include "capture/store/h5.h"
#include "kernels/base/atomic_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const char *const names[] = {"spectrum.csv",        "gamma.csv",   "runs_perplexity.csv",
                                    "a_policies.csv",      "a_bands.csv", "a_decomposition.csv",
                                    "link_predictors.csv", "table.csv",   "spectrum_key.svg",
                                    "gamma.json"};
enum { NAMES = sizeof names / sizeof *names, LARGEST = 1 << 24 };
static char folder[64], results[80], page[80];

static void fail(const struct fkv_error *err) {
    fprintf(stderr, "%s\n", err->message);
    abort();
}

/* A folder with the smallest results.h5 that has a spectrum. */
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static const int64_t dims[] = {2, 2, 4};
    static const int32_t index[] = {0, 1};
    static const double power[16] = {4, 3, 2, 1, 4, 3, 2, 1, 4, 3, 2, 1, 4, 3, 2, 1};
    struct fkv_error err;
    struct fkv_h5_writer *w;
    (void)argc, (void)argv;
    snprintf(folder, sizeof folder, "%s/fkv-fuzz-%ld.d",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (long)getpid());
    snprintf(results, sizeof results, "%s/results.h5", folder);
    snprintf(page, sizeof page, "%s/report.html", folder);
    if (mkdir(folder, 0700)) abort();
    if (fkv_h5_create(results, &w, &err) ||
        fkv_h5_put_string(w, "/", "format", "freqkv-results", &err) ||
        fkv_h5_put(w, "/spectrum/key/power", FKV_H5_F64, 3, dims, power, &err) ||
        fkv_h5_put(w, "/spectrum/key/layer_index", FKV_H5_I32, 1, dims, index, &err) ||
        fkv_h5_put(w, "/spectrum/key/head_index", FKV_H5_I32, 1, dims, index, &err) ||
        fkv_h5_commit(w, &err))
        fail(&err);
    return 0;
}

/* All rows lie within the table and every cell within its text. */
static void check_table(const char *path) {
    struct fkv_error err = {0};
    struct fkv_table t;
    if (fkv_table_read(path, &t, &err)) {
        if (!err.message[0]) abort();
        return;
    }
    if (t.columns < 1 || t.rows < 0) abort();
    for (int64_t row = -1; row < t.rows; row++)
        for (int c = 0; c < t.columns; c++) {
            const char *text = fkv_table_text(&t, row, c);
            if (text < t.text || strlen(text) > LARGEST) abort();
            if (row >= 0) fkv_table_number(&t, row, c);
        }
    for (int c = 0; c < t.columns; c++)
        if (fkv_table_column(&t, t.cell[c]) > c) abort();
    fkv_table_free(&t);
}

static int count(const char *text, const char *what) {
    int found = 0;
    for (; (text = strstr(text, what)); text++) found++;
    return found;
}

/* The page has its own script, the data for it where there is some, and an image per figure. */
static void check_page(bool data, int figures) {
    struct fkv_error err;
    char *text;
    size_t bytes;
    if (fkv_read_file(page, LARGEST, &text, &bytes, &err)) fail(&err);
    if (strlen(text) != bytes || strncmp(text, "<!DOCTYPE html>", 15) ||
        strcmp(text + bytes - 8, "</html>\n"))
        abort();
    if (count(text, "<script") != 1 + data || count(text, "</script") != 1 + data ||
        count(text, "<body") != 1 || count(text, "</body") != 1 || count(text, "<!--") ||
        count(text, "<img") != figures || count(text, " src='") != figures ||
        count(text, "<iframe") || count(text, "<foreignObject") || count(text, "<style") != 1)
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    char path[160];
    struct fkv_error err = {0};
    struct fkv_report_outline outline;
    int which = bytes ? (data[0] + 2) % NAMES : 0; /* the digit '0' is the first */
    snprintf(path, sizeof path, "%s/%s", folder, names[which]);
    FILE *f = fopen(path, "wb");
    if (!f || (bytes && fwrite(data + 1, 1, bytes - 1, f) != bytes - 1) || fclose(f)) abort();
    if (which < NAMES - 2) check_table(path);
    if (!fkv_report_write(folder, &outline, &err))
        check_page(which == 0, outline.figures);
    else if (!err.message[0])
        abort();
    fkv_report_outline_free(&outline);
    unlink(path);
    unlink(page);
    return 0;
}
