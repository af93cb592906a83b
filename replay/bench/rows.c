/* Rows of BENCH.csv. A row's numbers are always those that its text has, so that a run that goes on
 * reports the same as one that was not interrupted. */
#include "replay/bench/rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/host.h"

static const char known_names[] = "policy,label,window,gamma,model,machine,length,decoded,repeats";

static const struct {
    const char *name, *format;
} columns[FKV_BENCH_NUMBERS] = {
    [FKV_BENCH_PREFILL] = {"prefill_s", "%.6g"},
    [FKV_BENCH_PREFILL_LOW] = {"prefill_s_low", "%.6g"},
    [FKV_BENCH_PREFILL_HIGH] = {"prefill_s_high", "%.6g"},
    [FKV_BENCH_DECODE] = {"decode_ms", "%.6g"},
    [FKV_BENCH_DECODE_LOW] = {"decode_ms_low", "%.6g"},
    [FKV_BENCH_DECODE_HIGH] = {"decode_ms_high", "%.6g"},
    [FKV_BENCH_COMPRESSION_SHARE] = {"compression_share", "%.4g"},
    [FKV_BENCH_COMPRESSIONS] = {"compressions", "%.9g"},
    [FKV_BENCH_CACHE_BYTES_PEAK] = {"cache_bytes_peak", "%.0f"},
    [FKV_BENCH_LAST_SLOTS] = {"last_slots", "%.9g"},
};

void fkv_bench_machine(const struct fkv_device_info *device, char out[FKV_BENCH_MACHINE]) {
    char processor[128];
    fkv_host_processor(processor);
    if (device->space == FKV_DEVICE)
        snprintf(out, FKV_BENCH_MACHINE, "%.95s", device->kernels);
    else
        snprintf(out, FKV_BENCH_MACHINE, "%s, %d thread%s, %.95s", processor, device->threads,
                 device->threads == 1 ? "" : "s", device->kernels);
}

/* ---- numbers ---- */

static double rounded(int column, double value) {
    char text[64];
    snprintf(text, sizeof text, columns[column].format, value);
    return strtod(text, NULL);
}

static int by_size(const void *left, const void *right) {
    const double *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

/* Sorts; of an even count the mean of the middle two. */
static double median(double *values, int32_t count) {
    qsort(values, (size_t)count, sizeof *values, by_size);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

int fkv_bench_row_fill(struct fkv_bench_row *row, struct fkv_bench_times *times,
                       struct fkv_error *err) {
    const int32_t count = row->repeats;
    double *values = malloc((size_t)count * sizeof *values), *number = row->number;
    if (!values) return fkv_fail(err, "out of memory for %d repeats", count);
    for (int32_t i = 0; i < count; i++) values[i] = times[i].prefill;
    number[FKV_BENCH_PREFILL] = median(values, count);
    number[FKV_BENCH_PREFILL_LOW] = values[0];
    number[FKV_BENCH_PREFILL_HIGH] = values[count - 1];
    for (int32_t i = 0; i < count; i++) values[i] = 1e3 * times[i].decode / row->decoded;
    number[FKV_BENCH_DECODE] = median(values, count);
    number[FKV_BENCH_DECODE_LOW] = values[0];
    number[FKV_BENCH_DECODE_HIGH] = values[count - 1];
    for (int32_t i = 0; i < count; i++)
        values[i] = times[i].compressing / (times[i].prefill + times[i].decode);
    number[FKV_BENCH_COMPRESSION_SHARE] = median(values, count);
    number[FKV_BENCH_COMPRESSIONS] = times->compressions; /* the same in every repeat */
    number[FKV_BENCH_CACHE_BYTES_PEAK] = (double)times->cache_bytes_peak;
    number[FKV_BENCH_LAST_SLOTS] = times->slots;
    for (int i = 0; i < FKV_BENCH_NUMBERS; i++) number[i] = rounded(i, number[i]);
    free(values);
    return FKV_OK;
}

/* ---- lines ---- */

/* What is known of a row before it is measured, or all names. */
static void print_start(const void *rows, int64_t i, FILE *f) {
    const struct fkv_bench_row *all = rows;
    if (i < 0) {
        fputs(known_names, f);
        for (int k = 0; k < FKV_BENCH_NUMBERS; k++) fprintf(f, ",%s", columns[k].name);
        fputc('\n', f);
        return;
    }
    const struct fkv_bench_row *row = &all[i];
    const struct fkv_policy_setup *setup = row->setup;
    fprintf(f, "%s,", setup->policy->name);
    fkv_lines_put_quoted(setup->label, f);
    fputc(',', f);
    if (setup->policy->takes_window) fprintf(f, "%d", setup->window);
    fputc(',', f);
    if (isfinite(setup->gamma)) fprintf(f, "%.9g", setup->gamma);
    fputc(',', f);
    fkv_lines_put_quoted(row->model, f);
    fputc(',', f);
    fkv_lines_put_quoted(row->machine, f);
    fprintf(f, ",%" PRId64 ",%d,%d", row->length, row->decoded, row->repeats);
}

void fkv_bench_print_line(const void *rows, int64_t i, FILE *f) {
    const struct fkv_bench_row *all = rows;
    print_start(rows, i, f);
    if (i < 0) return;
    for (int k = 0; k < FKV_BENCH_NUMBERS; k++) {
        fputc(',', f);
        fprintf(f, columns[k].format, all[i].number[k]);
    }
    fputc('\n', f);
}

/* ---- lines of an earlier run ---- */

/* The numbers that end a whole line; false where they are none of this program's. */
static bool read_numbers(const char *at, struct fkv_bench_row *row) {
    for (int i = 0; i < FKV_BENCH_NUMBERS; i++) {
        char text[64], *end;
        if (*at++ != ',') return false;
        row->number[i] = strtod(at, &end);
        snprintf(text, sizeof text, columns[i].format, row->number[i]);
        if (!isfinite(row->number[i]) || strlen(text) != (size_t)(end - at) ||
            memcmp(text, at, strlen(text)))
            return false;
        at = end;
    }
    return !strcmp(at, "\n");
}

/* Rows to be read into. */
struct reading {
    struct fkv_bench_row *rows; /* [count] */
    int64_t count;
};

/* A line that is not whole may end anywhere. */
static int check_line(void *context, int64_t line, const char *text, size_t bytes, bool whole,
                      const char *where, struct fkv_error *err) {
    const struct reading *r = context;
    size_t known;
    if (line > r->count)
        return fkv_fail(err, "%s: expected %" PRId64 " rows, found more", where, r->count);
    char *start = fkv_lines_printed(print_start, r->rows, line - 1, &known, err);
    if (!start) return FKV_FAILED;
    int status = FKV_OK;
    if ((whole && bytes < known) || memcmp(text, start, bytes < known ? bytes : known))
        status = fkv_fail(err,
                          "%s: expected a line that starts with \"%.*s\", found \"%.*s\": made by "
                          "another run; give its options, or another --out",
                          where, (int)strcspn(start, "\n"), start, (int)strcspn(text, "\n"), text);
    else if (whole && line &&
             (strlen(text) != bytes || !read_numbers(text + known, &r->rows[line - 1])))
        status = fkv_fail(err, "%s: expected %d numbers after \"%s\", found \"%.200s\"", where,
                          FKV_BENCH_NUMBERS, start, text + known);
    free(start);
    return status;
}

int fkv_bench_rows_read(FILE *f, const char *where, struct fkv_bench_row *rows, int64_t count,
                        struct fkv_lines_found *found, struct fkv_error *err) {
    struct reading r = {rows, count};
    return fkv_lines_read(f, where, check_line, &r, found, err);
}

/* ---- reports ---- */

json_t *fkv_bench_row_json(const struct fkv_bench_row *row) {
    const struct fkv_policy_setup *setup = row->setup;
    json_t *o = json_object();
    json_object_set_new(o, "policy", json_string(setup->policy->name));
    json_object_set_new(o, "label", fkv_json_string(setup->label));
    json_object_set_new(o, "window",
                        setup->policy->takes_window ? json_integer(setup->window) : json_null());
    json_object_set_new(o, "gamma", fkv_json_number(setup->gamma));
    json_object_set_new(o, "length", json_integer(row->length));
    for (int i = 0; i < FKV_BENCH_NUMBERS; i++)
        json_object_set_new(o, columns[i].name,
                            i == FKV_BENCH_CACHE_BYTES_PEAK
                                ? json_integer((json_int_t)row->number[i])
                                : fkv_json_number(row->number[i]));
    return o;
}

void fkv_bench_print(const struct fkv_bench_row *rows, int64_t count) {
    printf("%8s  %-30s %6s %6s %10s %9s %9s %8s %10s %10s\n", "length", "policy", "window", "gamma",
           "prefill s", "tokens/s", "decode ms", "compr. %", "cache peak", "last slots");
    for (int64_t i = 0; i < count; i++) {
        const struct fkv_bench_row *row = &rows[i];
        const struct fkv_policy_setup *setup = row->setup;
        const double *number = row->number;
        char window[16] = "-", gamma[16] = "-", bytes[16];
        if (setup->policy->takes_window) snprintf(window, sizeof window, "%d", setup->window);
        if (isfinite(setup->gamma)) snprintf(gamma, sizeof gamma, "%.4g", setup->gamma);
        fkv_format_bytes(bytes, (int64_t)number[FKV_BENCH_CACHE_BYTES_PEAK]);
        printf("%8" PRId64 "  %-30.30s %6s %6s %10.3f %9.1f %9.3f %8.2f %10s %10.1f\n", row->length,
               setup->label, window, gamma, number[FKV_BENCH_PREFILL],
               (double)(row->length - row->decoded) / number[FKV_BENCH_PREFILL],
               number[FKV_BENCH_DECODE], 100 * number[FKV_BENCH_COMPRESSION_SHARE], bytes,
               number[FKV_BENCH_LAST_SLOTS]);
    }
}
