/* The output projection as captures keep it: G_h = W' W for each captured layer and each query head
 * of the captured KV heads, W = W_O[:, h] (dim, head_dim).
 *
 * Weights are read where the checkpoint is mapped, in their own format: a device's copy would have
 * to come back, and the mapping is open as long as the model is. A head is one thread's: a few rows
 * at a time are widened to float32 and their products added to the upper triangle, so the order of
 * the sums does not depend on threads and a resumed run writes the same bytes. float32 sums over
 * some thousand rows are good to about 1e-6 of the largest element. BLAS is left alone: it would
 * want a matrix in float32, and this takes a 7B model's 0.5 billion weights about 4 seconds of one
 * core. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "capture/recorder.h"
#include "capture/store/capture_writer.h"

enum {
    ROWS = 4
}; /* per pass over the triangle: fewer wait for its memory, more run out of registers */

/* x [ROWS, d] -> gram [d, d] += x' x, upper triangle */
static void add_products(const float *restrict x, int32_t d, float *restrict gram) {
    for (int32_t a = 0; a < d; a++, gram += d)
        for (int32_t b = a; b < d; b++)
            gram[b] += x[a] * x[b] + x[d + a] * x[d + b] + x[2 * d + a] * x[2 * d + b] +
                       x[3 * d + a] * x[3 * d + b];
}

/* Columns [first, first + d) of a row of `weights` -> x [d]: the blocks that hold them are expanded
 * to `blocks` [d + 2 * FKV_WEIGHT_MOST_BLOCK]. */
static void read_columns(const struct fkv_tensor *weights, int64_t row, size_t first, size_t d,
                         float *blocks, float *x) {
    const size_t cols = (size_t)weights->shape[1], block = fkv_weight_block(weights->format),
                 begin = first / block * block, end = (first + d + block - 1) / block * block,
                 offset = fkv_weight_bytes(weights->format, (size_t)row * cols + begin);
    fkv_weight_expand(weights->format, (const char *)weights->data + offset, end - begin, blocks);
    memcpy(x, blocks + (first - begin), d * sizeof *x);
}

/* Columns [head * d, (head + 1) * d) of weights (rows, cols); x [ROWS, d] is scratch, and `blocks`
 * as in read_columns. */
static void gram_of_head(const struct fkv_tensor *weights, int32_t head, int32_t d, float *blocks,
                         float *x, float *gram) {
    const int64_t rows = weights->shape[0];
    const size_t first = (size_t)head * (size_t)d;
    memset(gram, 0, (size_t)d * (size_t)d * sizeof *gram);
    for (int64_t r = 0; r < rows; r += ROWS) {
        for (int64_t i = 0; i < ROWS; i++) {
            if (r + i < rows)
                read_columns(weights, r + i, first, (size_t)d, blocks, x + i * d);
            else
                memset(x + i * d, 0, (size_t)d * sizeof *x);
        }
        add_products(x, d, gram);
    }
    for (int32_t a = 0; a < d; a++)
        for (int32_t b = 0; b < a; b++) gram[a * d + b] = gram[b * d + a];
}

/* gram [layers, heads, d, d] of what `info` says is captured; weights [layer_count] */
static int make_gram(const struct fkv_capture_info *info, const struct fkv_tensor *weights,
                     int threads, float *gram, struct fkv_error *err) {
    const int32_t heads = fkv_capture_state_heads(info, FKV_STATE_QUERY), d = info->head_dim;
    bool failed = false;
#pragma omp parallel num_threads(threads)
    {
        float *x = malloc(((size_t)(ROWS + 1) * (size_t)d + 2 * FKV_WEIGHT_MOST_BLOCK) * sizeof *x);
#pragma omp for collapse(2) schedule(dynamic)
        for (int32_t layer = 0; layer < info->layer_count; layer++)
            for (int32_t h = 0; h < heads; h++) {
                const int32_t head = fkv_capture_head_number(info, FKV_STATE_QUERY, h);
                float *to = gram + (size_t)(layer * heads + h) * (size_t)d * (size_t)d;
                if (x) gram_of_head(&weights[layer], head, d, x + ROWS * d, x, to);
#pragma omp atomic
                failed |= !x;
            }
        free(x);
    }
    return failed ? fkv_fail(err, "out of memory") : FKV_OK;
}

int fkv_recorder_write_gram(const struct fkv_recorder *r, struct fkv_capture_writer *w,
                            struct fkv_error *err) {
    const struct fkv_capture_info *info = &r->info;
    const int64_t bytes = fkv_capture_output_gram_bytes(info);
    const int threads =
        r->engine->device.threads ? r->engine->device.threads : omp_get_max_threads();
    if (!bytes || fkv_capture_has_output_gram(w)) return FKV_OK;
    struct fkv_tensor *weights = malloc((size_t)info->layer_count * sizeof *weights);
    float *gram = malloc((size_t)bytes);
    int status =
        weights && gram ? FKV_OK : fkv_fail(err, "out of memory for the output projection");
    for (int32_t i = 0; i < info->layer_count && status == FKV_OK; i++)
        status = fkv_checkpoint_find(r->engine->model->checkpoint, FKV_OUTPUT, info->layer_index[i],
                                     &weights[i], err);
    if (status == FKV_OK) status = make_gram(info, weights, threads, gram, err);
    if (status == FKV_OK) status = fkv_capture_write_output_gram(w, gram, err);
    free(gram);
    free(weights);
    return status;
}
