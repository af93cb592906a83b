/* BENCH.csv: a line of names, then a row per length and policy, in this order. The file grows as
 * lines_file.h says. */
#ifndef FKV_REPLAY_BENCH_ROWS_H
#define FKV_REPLAY_BENCH_ROWS_H

#include "replay/bench/measure.h"
#include "replay/lines_file.h"

/* What a row says of its repeats, in the order of its columns. */
enum fkv_bench_number {
    FKV_BENCH_PREFILL, /* seconds; median, least and most of the repeats */
    FKV_BENCH_PREFILL_LOW,
    FKV_BENCH_PREFILL_HIGH,
    FKV_BENCH_DECODE, /* milliseconds per token; the same */
    FKV_BENCH_DECODE_LOW,
    FKV_BENCH_DECODE_HIGH,
    FKV_BENCH_COMPRESSION_SHARE, /* of prefill and decoding; median */
    FKV_BENCH_COMPRESSIONS,      /* mean per head */
    FKV_BENCH_CACHE_BYTES_PEAK,
    FKV_BENCH_LAST_SLOTS, /* that the last token saw, mean over heads */
    FKV_BENCH_NUMBERS
};

/* "AMD EPYC 9R14, 2 threads, avx512, oneDNN 2.6.3"; of a device its name. */
enum { FKV_BENCH_MACHINE = 320 };
void fkv_bench_machine(const struct fkv_device_info *device, char out[FKV_BENCH_MACHINE]);

struct fkv_bench_row {
    const struct fkv_policy_setup *setup;
    const char *model;   /* its name */
    const char *machine; /* processor, threads, instruction set and library */
    int64_t length;
    int32_t decoded, repeats;
    double number[FKV_BENCH_NUMBERS]; /* with as many digits as its column has */
};

/* The numbers of a row <- times [row->repeats], which are sorted. */
int fkv_bench_row_fill(struct fkv_bench_row *row, struct fkv_bench_times *times,
                       struct fkv_error *err);

/* A fkv_line_printer over rows [count]. */
void fkv_bench_print_line(const void *rows, int64_t i, FILE *f);

/* Reads lines from `f`, called `where` in messages, into rows [count], whose other fields are set:
 * each line must be one that this run writes, but for its numbers. */
int fkv_bench_rows_read(FILE *f, const char *where, struct fkv_bench_row *rows, int64_t count,
                        struct fkv_lines_found *found, struct fkv_error *err);

/* A row as an object, keys as the columns; a new reference. */
json_t *fkv_bench_row_json(const struct fkv_bench_row *row);
/* The table for people, to stdout. */
void fkv_bench_print(const struct fkv_bench_row *rows, int64_t count);

#endif
