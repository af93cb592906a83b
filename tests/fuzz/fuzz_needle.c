/* Any bytes as the OUT.csv that an earlier run of `needle` left: refused in words, or whole lines
 * of this run and at most one that is torn. The first byte says which task's. */
#include <stdlib.h>
#include <string.h>

#include "replay/tasks/needle_rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { CELLS = 2 };

static const struct fkv_needle_cell cells[CELLS] = {
    {.length = 64, .depth = 0, .key = "12", .offset = 7, .position = 1, .answer = 3},
    {.length = 64, .depth = 0.5, .key = "12", .offset = 7, .position = 33, .answer = 3}};

static const struct fkv_policy_setup *setup(void) {
    static struct fkv_policy_setup setup;
    const struct fkv_config config = {.layers = 1, .kv_heads = 1, .trained_context = 64};
    const struct fkv_policy_options policy = {.name = "freqkv", .window = 12, .sinks = -1};
    struct fkv_error err;
    if (!setup.policy && fkv_policy_setup(&policy, &config, 16, &setup, &err)) abort();
    return &setup;
}

static int read_bytes(const uint8_t *data, size_t bytes, enum fkv_needle_kind kind,
                      struct fkv_lines_found *found) {
    struct fkv_needle_result results[CELLS] = {{0}};
    const struct fkv_needle_sheet sheet = {kind, setup(), cells, CELLS, results};
    struct fkv_error err = {0};
    FILE *f = fmemopen((void *)data, bytes, "r");
    if (!f) abort();
    int status = fkv_needle_rows_read(f, "fuzz.csv", &sheet, found, &err);
    fclose(f);
    for (int i = 0; i < CELLS; i++) fkv_needle_result_free(&results[i]);
    if (status && !err.message[0]) abort();
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_lines_found found, again;
    if (bytes < 2) return 0;
    const enum fkv_needle_kind kind = data[0] & 1 ? FKV_RECALL : FKV_NEEDLE;
    data++, bytes--;
    if (read_bytes(data, bytes, kind, &found)) return 0;
    if (found.bytes + found.torn != (int64_t)bytes || found.lines > 1 + CELLS) abort();
    if (!found.bytes) return 0;
    if (data[found.bytes - 1] != '\n' || read_bytes(data, (size_t)found.bytes, kind, &again))
        abort();
    if (again.lines != found.lines || again.torn) abort();
    return 0;
}
