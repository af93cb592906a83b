/* Plans of fused compression (compress_fused.cu): into which passes a length falls, how many
 * columns and threads a block has, and the tables on the device.
 *
 * Passes have radices up to 31 (dft.cuh): 4092 = 12 11 31, 2046 = 6 11 31, 1023 = 3 11 31, 3069 = 9
 * 11 31, 4096 = 16 16 16. Lengths with a larger prime factor (8188 = 4 23 89, 508 = 4 127) take
 * another method: 89 points leave no registers for anything else, and from shared memory they cost
 * 45 reads per number.
 *
 * Columns per block: 4 where a row of 4092 (32 bytes; 131 KB in all, of 227 on an H200 and 163 on
 * an A100) fits, 8 for short ones, 2 for long ones. For a 16-bit cache a thread then reads 8 bytes
 * at two places, and the four blocks that share a 32-byte sector run side by side (blockIdx.x), so
 * memory sees each sector once and the second-level cache four times. Threads: 512 for a block that
 * has a multiprocessor to itself, 256 where two share one, 128 registers each. Radix 31 has 528
 * butterflies for four columns of 4092, so a second round of 16; 544 threads would leave 96
 * registers (five warps on a quarter of them), where it spills throughout. Banks: rows of 32 bytes
 * at an odd distance, as in a last pass of odd radix, do not collide; where the last radix is 16,
 * every 16th row is followed by an empty one. Then every m but the last, which is 1, is a multiple
 * of 16, so that the numbers of a butterfly are at equal distances all the same. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/compress_fused.cuh"

static const int32_t LEAST_THREADS = 64;
enum {
    LARGEST_TURNED = 23,
    PADDED = 4 /* an empty row after 1 << PADDED rows, which is a last radix of 16 */
};

/* ---- passes ---- */

static const int32_t radices[] = {31, 29, 23, 19, 17, 13, 16, 15, 12, 11,
                                  10, 9,  8,  7,  6,  5,  4,  3,  2};

/* Odd radices last (banks), the largest of them at the very end, where nothing is turned; only
 * there 29 and 31 find the registers. false: a factor is too large, or too many are. */
static bool factorise(struct fkv_cuda_transform *t) {
    int32_t rest = t->length, found[FKV_CUDA_PASSES];
    t->passes = 0;
    for (int32_t radix : radices)
        for (; rest % radix == 0; rest /= radix) {
            if (t->passes == FKV_CUDA_PASSES || (t->passes && radix > LARGEST_TURNED)) return false;
            found[t->passes++] = radix;
        }
    if (rest > 1) return false;
    int32_t m = t->length, at = 0;
    for (int odd = 0; odd < 2; odd++)
        for (int32_t i = t->passes - 1; i >= 0; i--)
            if (found[i] % 2 == odd) {
                m /= found[i];
                t->pass[at].p = found[i];
                t->pass[at++].m = m;
            }
    t->padding = t->passes && t->pass[t->passes - 1].p == 1 << PADDED ? PADDED : 31;
    for (int32_t i = 0; i < t->passes; i++) {
        struct fkv_cuda_pass *pass = &t->pass[i];
        pass->stride = pass->m + (pass->m >> t->padding);
        pass->inverse =
            (uint32_t)((((uint64_t)1 << 32) + (uint64_t)pass->m - 1) / (uint64_t)pass->m);
    }
    return true;
}

static size_t rows_of(const struct fkv_cuda_transform *t) {
    return (size_t)t->length + (size_t)(t->length >> t->padding);
}

static size_t shared_bytes(const struct fkv_cuda_plan *f, int32_t log_columns) {
    size_t rows = rows_of(&f->forward), least = rows_of(&f->inverse);
    if (least > rows) rows = least;
    return (rows + FKV_CUDA_NEAR + (size_t)f->forward.length / FKV_CUDA_NEAR + 1) * sizeof(float2)
           << log_columns;
}

static int64_t pairs_of(const struct fkv_cuda_plan *f, int32_t log_columns) {
    return ((int64_t)f->inverse.length / 2 + 1) << log_columns;
}

static int32_t threads_for(const struct fkv_cuda_plan *f, int32_t log_columns) {
    int64_t numbers = (int64_t)f->forward.length << log_columns,
            threads = (numbers / 8 + 31) / 32 * 32;
    int64_t most = numbers <= 8192 ? FKV_CUDA_FUSED_THREADS / 2 : FKV_CUDA_FUSED_THREADS;
    threads = threads < LEAST_THREADS ? LEAST_THREADS : threads > most ? most : threads;
    return pairs_of(f, log_columns) <= FKV_CUDA_HELD * threads ? (int32_t)threads
                                                               : FKV_CUDA_FUSED_THREADS;
}

static bool holds(const struct fkv_cuda_plan *f, int32_t log_columns, size_t limit) {
    return shared_bytes(f, log_columns) <= limit &&
           pairs_of(f, log_columns) <= FKV_CUDA_HELD * threads_for(f, log_columns);
}

/* Where tables are within their common memory. Pointers are to the host's copy until it is filled,
 * then to the device's. */
struct layout {
    char *at; /* NULL: only measuring */
    size_t bytes;
};
static void *take(struct layout *l, size_t bytes) {
    void *at = l->at ? l->at + l->bytes : NULL;
    l->bytes += (bytes + 15) / 16 * 16;
    return at;
}

static void fill_transform(struct fkv_cuda_transform *t, struct layout *l) {
    for (int32_t i = 0; i < t->passes; i++) {
        int32_t p = t->pass[i].p, m = t->pass[i].m;
        float2 *turns = (float2 *)take(l, m > 1 ? (size_t)(p - 1) * (size_t)m * sizeof(float2) : 0);
        t->pass[i].turns = turns;
        for (int32_t k = 1; turns && m > 1 && k < p; k++)
            for (int32_t q = 0; q < m; q++) {
                double angle = -2 * acos(-1) * (double)((int64_t)q * k) / ((double)p * m);
                turns[(size_t)(k - 1) * (size_t)m + (size_t)q] =
                    make_float2((float)cos(angle), (float)sin(angle));
            }
    }
    uint16_t *frequency_row = (uint16_t *)take(l, (size_t)t->length * sizeof(uint16_t));
    t->frequency_row = frequency_row;
    for (int32_t f = 0; frequency_row && f < t->length; f++) {
        int32_t rest = f, row = 0;
        for (int32_t i = 0; i < t->passes; i++) {
            row += rest % t->pass[i].p * t->pass[i].m;
            rest /= t->pass[i].p;
        }
        frequency_row[f] = (uint16_t)(row + (row >> t->padding));
    }
}

static void fill(struct fkv_cuda_plan *f, double gain, struct layout *l) {
    int32_t retained = f->inverse.length;
    take(l, sizeof *f);
    fill_transform(&f->forward, l);
    fill_transform(&f->inverse, l);
    float *last_n = (float *)take(l, (size_t)retained * sizeof(float2));
    float *last_l = (float *)take(l, ((size_t)retained / 2 + 1) * sizeof(float2));
    f->last_n = (const float2 *)last_n;
    f->last_l = (const float2 *)last_l;
    if (!l->at) return;
    fkv_cuda_last_turns(f->forward.length, retained, gain, 0.5, last_n);
    fkv_cuda_last_turns(retained, retained / 2 + 1, 1, 1, last_l);
}

template <typename T> static void move(const T **pointer, const char *from, const char *to) {
    *pointer = (const T *)(to + ((const char *)*pointer - from));
}

static void move_tables(struct fkv_cuda_plan *f, const char *from, const char *to) {
    struct fkv_cuda_transform *transforms[] = {&f->forward, &f->inverse};
    for (struct fkv_cuda_transform *t : transforms) {
        for (int32_t i = 0; i < t->passes; i++) move(&t->pass[i].turns, from, to);
        move(&t->frequency_row, from, to);
    }
    move(&f->last_n, from, to);
    move(&f->last_l, from, to);
}

static int upload_plan(struct fkv_backend *b, struct fkv_cuda_plan *plan, double gain,
                       struct fkv_cuda_fused *f, struct fkv_error *err) {
    struct layout l = {};
    fill(plan, gain, &l);
    f->table_bytes = l.bytes;
    char *host = (char *)malloc(l.bytes);
    if (!host) return fkv_fail(err, "out of memory");
    int status = fkv_cuda_allocate(l.bytes, "tables of a DCT", &f->tables, err);
    if (!status) {
        l = {host, 0};
        fill(plan, gain, &l);
        move_tables(plan, host, f->tables);
        memcpy(host, plan, sizeof *plan);
        status = fkv_cuda_check(
                     cudaMemcpyAsync(f->tables, host, l.bytes, cudaMemcpyHostToDevice, b->stream),
                     "tables of a DCT", err) ||
                 fkv_cuda_wait(b, "tables of a DCT", err);
    }
    free(host);
    return status;
}

int fkv_cuda_fused_create(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                          struct fkv_cuda_fused **out, struct fkv_error *err) {
    struct fkv_cuda_plan plan = {};
    plan.forward.length = n;
    plan.inverse.length = retained;
    *out = NULL;
    if (n > UINT16_MAX / 2 || !factorise(&plan.forward) || !factorise(&plan.inverse)) return FKV_OK;
    /* Eight columns only where two such blocks share a multiprocessor. */
    plan.log_columns = holds(&plan, 3, b->shared_limit / 3) ? 3
                       : holds(&plan, 2, b->shared_limit)   ? 2
                                                            : 1;
    if (!holds(&plan, plan.log_columns, b->shared_limit)) return FKV_OK;
    struct fkv_cuda_fused *f = (struct fkv_cuda_fused *)calloc(1, sizeof *f);
    if (!f) return fkv_fail(err, "out of memory");
    f->log_columns = plan.log_columns;
    f->threads = threads_for(&plan, plan.log_columns);
    f->shared = shared_bytes(&plan, plan.log_columns);
    if (upload_plan(b, &plan, gain, f, err)) {
        fkv_cuda_fused_release(f);
        return FKV_FAILED;
    }
    *out = f;
    return FKV_OK;
}

void fkv_cuda_fused_release(struct fkv_cuda_fused *f) {
    if (!f) return;
    cudaFree(f->tables);
    free(f);
}

size_t fkv_cuda_fused_table_bytes(const struct fkv_cuda_fused *f) { return f->table_bytes; }

/* One part per block. */
int32_t fkv_cuda_fused_parts(const struct fkv_cuda_fused *f, int32_t head_dim) {
    int32_t columns = 1 << f->log_columns;
    return (head_dim / 2 + columns - 1) / columns;
}
