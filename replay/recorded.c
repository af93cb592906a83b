/* The columns of a run file while the run goes on. They are kept in memory and written once, because a run file appears whole or not at all. */
#include "replay/recorded.h"

#include <math.h>
#include <stdlib.h>

static int64_t column_length(const struct fkv_corpus *corpus, const struct fkv_plan *plan) {
    return plan->protocol->joined ? plan->count * plan->longest : corpus->token_count;
}

static int column_count(bool baseline) { return baseline ? 7 : 4; }

int64_t fkv_recorded_bytes(const struct fkv_corpus *corpus, const struct fkv_plan *plan, bool baseline) {
    return column_length(corpus, plan) * column_count(baseline) * (int64_t)sizeof(float);
}

int fkv_recorded_open(const struct fkv_corpus *corpus, const struct fkv_plan *plan, bool baseline,
                      struct fkv_recorded *recorded, struct fkv_error *err) {
    *recorded = (struct fkv_recorded){.count = column_length(corpus, plan)};
    size_t count = (size_t)recorded->count, all = count * (size_t)column_count(baseline);
    float *columns = malloc(all * sizeof *columns);
    if (!columns) return fkv_fail(err, "out of memory for what %lld tokens leave in the run file", (long long)count);
    for (size_t i = 0; i < all; i++) columns[i] = NAN;
    recorded->nll = columns; /* owns them all */
    recorded->round = columns + count;
    recorded->slots_used = columns + 2 * count;
    recorded->since = columns + 3 * count;
    if (baseline) {
        recorded->baseline_nll = columns + 4 * count;
        recorded->kl = columns + 5 * count;
        recorded->agree = columns + 6 * count;
    }
    return FKV_OK;
}

void fkv_recorded_free(struct fkv_recorded *recorded) {
    free(recorded->nll);
    free(recorded->compressions);
    *recorded = (struct fkv_recorded){0};
}

int fkv_recorded_compression(struct fkv_recorded *r, const struct fkv_compression *compression, struct fkv_error *err) {
    if (r->compression_count == r->compression_room) {
        int64_t room = r->compression_room ? 2 * r->compression_room : 1024;
        struct fkv_compression *larger = realloc(r->compressions, (size_t)room * sizeof *larger);
        if (!larger) return fkv_fail(err, "out of memory for %lld compressions", (long long)room);
        r->compressions = larger;
        r->compression_room = room;
    }
    r->compressions[r->compression_count++] = *compression;
    return FKV_OK;
}

static int by_place(const void *left, const void *right) {
    const struct fkv_compression *a = left, *b = right;
    if (a->pass != b->pass) return a->pass < b->pass ? -1 : 1;
    if (a->token != b->token) return a->token < b->token ? -1 : 1;
    if (a->layer != b->layer) return a->layer < b->layer ? -1 : 1;
    return (a->kv_head > b->kv_head) - (a->kv_head < b->kv_head);
}

void fkv_recorded_sort(struct fkv_recorded *r) {
    if (r->compression_count) qsort(r->compressions, (size_t)r->compression_count, sizeof *r->compressions, by_place);
}
