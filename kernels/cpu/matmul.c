/* Matrix products with the checkpoint's weights, read where they are mapped, in their own dtype: y = W x for a block of rows x.
 *
 * Few rows (FEW_ROWS at most: decoding): the dot kernels of simd.h read the weights directly. The time is that of reading them from memory
 * once, so every thread streams one contiguous range of output rows, the same range every time.
 *
 * Many rows (prefill): PANEL weight rows at a time are expanded to float32 in the thread's scratch and multiplied with OpenBLAS' sgemm. The panels are
 * spread over our own threads and each sgemm runs on its thread alone (the OpenMP flavour does so inside a parallel region). float32 weights on a 4-byte
 * boundary need no panel copy.
 *
 * Without OpenBLAS (FKV_PLAIN, a machine with nothing but a compiler) any number of rows goes the first way, ROWS_AT_ONCE rows at a time so
 * that they stay in the second-level cache. */
#ifndef FKV_PLAIN
#include <cblas.h>
#endif

#include "kernels/cpu/cpu.h"

enum { FEW_ROWS = 16, ROWS_AT_ONCE = 16, SLICE = 32, PANEL = 256 };

size_t fkv_cpu_multiply_work(const struct fkv_limits *l) {
    size_t widest = (size_t)l->attention.heads * (size_t)l->attention.head_dim;
    if (widest < (size_t)l->dim) widest = (size_t)l->dim;
    if (widest < (size_t)l->hidden) widest = (size_t)l->hidden;
    size_t panel = PANEL * widest, tile = (size_t)ROWS_AT_ONCE * SLICE;
    return panel > tile ? panel : tile;
}

static const char *weight_row(const struct fkv_weight *w, int32_t row) {
    return (const char *)fkv_cpu_weight(w) + (size_t)row * (size_t)w->cols * fkv_dtype_bytes(w->dtype);
}

/* out [rows, first .. first+n) += bias [first .. first+n), n <= PANEL */
static void add_bias(const struct fkv_weight *bias, int32_t first, int32_t n, float *out, size_t stride, int32_t rows) {
    float values[PANEL];
    const char *from = (const char *)fkv_cpu_weight(bias) + (size_t)first * fkv_dtype_bytes(bias->dtype);
    fkv_to_f32(from, bias->dtype, (size_t)n, values);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t i = 0; i < n; i++) out[(size_t)r * stride + (size_t)(first + i)] += values[i];
}

/* Output rows [first, end) for all input rows, by dot products. */
static void multiply_range(const struct fkv_simd *simd, const struct fkv_cpu_product *p, int32_t first, int32_t end,
                           const float *in, int32_t rows, float *tile) {
    size_t cols = (size_t)p->w->cols, stride = (size_t)p->w->rows;
    for (int32_t r = 0; r < rows; r += ROWS_AT_ONCE) {
        int32_t m = rows - r < ROWS_AT_ONCE ? rows - r : ROWS_AT_ONCE;
        for (int32_t o = first; o < end; o += SLICE) {
            int32_t n = end - o < SLICE ? end - o : SLICE;
            float *out = p->out + (size_t)r * stride + (size_t)o;
            fkv_dot_function *dot = simd->dot[p->w->dtype];
            const float *x = in + (size_t)r * cols;
            if (!p->add) {
                dot(weight_row(p->w, o), cols, n, x, cols, m, p->w->cols, out, stride);
                continue;
            }
            dot(weight_row(p->w, o), cols, n, x, cols, m, p->w->cols, tile, SLICE);
            for (int32_t i = 0; i < m; i++)
                for (int32_t j = 0; j < n; j++) out[(size_t)i * stride + (size_t)j] += tile[i * SLICE + j];
        }
    }
    for (int32_t o = first; p->bias && p->bias->data && o < end; o += PANEL)
        add_bias(p->bias, o, end - o < PANEL ? end - o : PANEL, p->out, stride, rows);
}

/* Each thread takes the same share of every product's output rows, in whole groups of four (the width of a dot tile). */
static void multiply_few(struct fkv_backend *b, const struct fkv_cpu_product *products, int count, const float *in,
                         int32_t rows) {
#pragma omp parallel num_threads(b->threads)
    {
        int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        for (int i = 0; i < count; i++) {
            int64_t groups = (products[i].w->rows + 3) / 4;
            int64_t first = groups * me / all * 4, end = groups * (me + 1) / all * 4;
            if (end > products[i].w->rows) end = products[i].w->rows;
            multiply_range(b->simd, &products[i], (int32_t)first, (int32_t)end, in, rows, fkv_cpu_work(b));
        }
    }
}

#ifndef FKV_PLAIN
static void multiply_panel(const struct fkv_cpu_product *p, int32_t first, const float *in, int32_t rows,
                           float *panel) {
    const struct fkv_weight *w = p->w;
    int32_t n = w->rows - first < PANEL ? w->rows - first : PANEL;
    const char *from = weight_row(w, first);
    const float *expanded = (const float *)(const void *)from;
    if (w->dtype != FKV_F32 || (uintptr_t)from % sizeof(float)) {
        fkv_to_f32(from, w->dtype, (size_t)n * (size_t)w->cols, panel);
        expanded = panel;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n, w->cols, 1, in, w->cols, expanded, w->cols,
                p->add ? 1 : 0, p->out + first, w->rows);
    if (p->bias && p->bias->data) add_bias(p->bias, first, n, p->out, (size_t)w->rows, rows);
}

static void multiply_many(struct fkv_backend *b, const struct fkv_cpu_product *products, int count, const float *in,
                          int32_t rows) {
    int32_t begin[FKV_CPU_MOST_PRODUCTS + 1] = {0};
    for (int i = 0; i < count; i++) begin[i + 1] = begin[i] + (products[i].w->rows + PANEL - 1) / PANEL;
#pragma omp parallel for schedule(dynamic) num_threads(b->threads)
    for (int32_t unit = 0; unit < begin[count]; unit++) {
        int i = 0;
        while (unit >= begin[i + 1]) i++;
        multiply_panel(&products[i], (unit - begin[i]) * PANEL, in, rows, fkv_cpu_work(b));
    }
}
#endif

void fkv_cpu_multiply(struct fkv_backend *b, const struct fkv_cpu_product *products, int count, const float *in,
                      int32_t rows) {
#ifndef FKV_PLAIN
    if (rows > FEW_ROWS) {
        multiply_many(b, products, count, in, rows);
        return;
    }
#endif
    multiply_few(b, products, count, in, rows);
}
