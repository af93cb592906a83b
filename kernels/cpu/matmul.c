/* Matrix products with the checkpoint's weights, read where they are mapped, in their own format: y
 * = W x for a block of rows x.
 *
 * Few rows: the dot kernels of simd.h read the weights directly, SLICE weight rows per unit of work
 * and ROWS_AT_ONCE inputs at a time, which stay in the second-level cache. For one row the time is
 * that of reading the weights from memory once. Block formats (kernels/weights) are expanded
 * EXPANDED weight rows at a time, which stay in a near cache, and read as float32. There the
 * expansion is what takes the time: one core of an EPYC (Zen 4) reads 4.5e9 values a second of
 * Q8_0, Q4_0 and Q4_K, 3.3e9 of Q5_K, 2.4e9 of Q6_K, and 7e9 of bfloat16.
 *
 * Many rows: PANEL weight rows at a time are expanded to float32 in the thread's scratch and
 * multiplied with OpenBLAS' sgemm. The panels are spread over our own threads and each sgemm runs
 * on its thread alone. float32 weights on a 4-byte boundary need no panel.
 *
 * What few means is measured (fkv_simd.dot_rows). One core of an EPYC 9004, OpenBLAS 0.3.21,
 * weights 4096 x 4096, GFLOP/s of the dots / of panel and sgemm: AVX-512 (against OpenBLAS' own
 * choice, Cooperlake) bf16 16 rows 86/25, 64 rows 99/58, 512 rows 91/78; f32 16 rows 52/28, 96 rows
 * 67/65, 512 rows 75/82. AVX2 (against its Haswell kernels) bf16 8 rows 40/32, 16 rows 48/51, 64
 * rows 55/80; f32 8 rows 34/35.
 *
 * Units are handed out dynamically: no output depends on which thread made it, and a thread that
 * loses its core for a while leaves its share to the others.
 *
 * Without OpenBLAS (FKV_PLAIN, a machine with nothing but a compiler) every product goes the first
 * way. */
#ifndef FKV_PLAIN
#include <cblas.h>
#endif

#include "kernels/cpu/cpu.h"

enum { ROWS_AT_ONCE = 16, SLICE = 64, PANEL = 256, EXPANDED = 2 };

int32_t fkv_cpu_widest(const struct fkv_limits *l) {
    int32_t widest = l->attention.heads * l->attention.head_dim;
    if (widest < l->dim) widest = l->dim;
    return widest < l->hidden ? l->hidden : widest;
}

size_t fkv_cpu_multiply_scratch(const struct fkv_limits *l) {
    size_t widest = (size_t)fkv_cpu_widest(l), panel = PANEL * widest,
           tile = ROWS_AT_ONCE * SLICE + EXPANDED * widest;
    return panel > tile ? panel : tile;
}

static const char *weight_row(const struct fkv_weight *w, int32_t row) {
    return (const char *)fkv_cpu_weight(w) +
           (size_t)row * fkv_weight_bytes(w->format, (size_t)w->cols);
}

/* out [rows, first .. first+n) += bias [first .. first+n), n <= PANEL */
static void add_bias(const struct fkv_weight *bias, int32_t first, int32_t n, float *out,
                     size_t stride, int32_t rows) {
    float values[PANEL];
    const char *from =
        (const char *)fkv_cpu_weight(bias) + fkv_weight_bytes(bias->format, (size_t)first);
    fkv_weight_expand(bias->format, from, (size_t)n, values);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t i = 0; i < n; i++) out[(size_t)r * stride + (size_t)(first + i)] += values[i];
}

/* Output rows [first, first+n), n <= SLICE, by dot products with `weights` [n, cols], in what `dot`
 * reads. */
static void multiply_rows(fkv_dot_function *dot, const void *weights,
                          const struct fkv_cpu_product *p, int32_t first, int32_t n,
                          const float *in, int32_t rows, float *tile) {
    size_t cols = (size_t)p->w->cols, stride = (size_t)p->w->rows;
    for (int32_t r = 0; r < rows; r += ROWS_AT_ONCE) {
        int32_t m = rows - r < ROWS_AT_ONCE ? rows - r : ROWS_AT_ONCE;
        float *out = p->out + (size_t)r * stride + (size_t)first;
        if (!p->add) {
            dot(weights, cols, n, in + (size_t)r * cols, cols, m, p->w->cols, out, stride);
            continue;
        }
        dot(weights, cols, n, in + (size_t)r * cols, cols, m, p->w->cols, tile, SLICE);
        for (int32_t i = 0; i < m; i++)
            for (int32_t j = 0; j < n; j++)
                out[(size_t)i * stride + (size_t)j] += tile[i * SLICE + j];
    }
}

/* Output rows [first, first+n), n <= SLICE, from the stored weights. */
static void multiply_slice(const struct fkv_simd *simd, const struct fkv_cpu_product *p,
                           int32_t first, int32_t n, const float *in, int32_t rows,
                           float *scratch) {
    const struct fkv_weight *w = p->w;
    float *expanded = scratch + ROWS_AT_ONCE * SLICE;
    if (fkv_weight_is_dtype(w->format)) {
        multiply_rows(simd->dot[w->format], weight_row(w, first), p, first, n, in, rows, scratch);
        return;
    }
    for (int32_t i = 0; i < n; i += EXPANDED) {
        int32_t m = n - i < EXPANDED ? n - i : EXPANDED;
        fkv_weight_expand(w->format, weight_row(w, first + i), (size_t)m * (size_t)w->cols,
                          expanded);
        multiply_rows(simd->dot[FKV_F32], expanded, p, first + i, m, in, rows, scratch);
    }
}

#ifndef FKV_PLAIN
/* Output rows [first, first+n), n <= PANEL, by sgemm. */
static void multiply_panel(const struct fkv_cpu_product *p, int32_t first, int32_t n,
                           const float *in, int32_t rows, float *panel) {
    const struct fkv_weight *w = p->w;
    const char *from = weight_row(w, first);
    const float *expanded = (const float *)(const void *)from;
    if (w->format != FKV_WEIGHT_F32 || (uintptr_t)from % sizeof(float)) {
        fkv_weight_expand(w->format, from, (size_t)n * (size_t)w->cols, panel);
        expanded = panel;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n, w->cols, 1, in, w->cols, expanded,
                w->cols, p->add ? 1 : 0, p->out + first, w->rows);
}
#endif

/* Whether every product of the step is one for the dot kernels. */
static bool few_rows(const struct fkv_backend *b, const struct fkv_cpu_product *products, int count,
                     int32_t rows) {
#ifdef FKV_PLAIN
    (void)b, (void)products, (void)count, (void)rows;
    return true;
#else
    bool few = true;
    for (int i = 0; i < count; i++) {
        const enum fkv_weight_format format = products[i].w->format;
        few &= rows <= b->simd->dot_rows[fkv_weight_is_dtype(format) ? format : FKV_WEIGHT_F32];
    }
    return few;
#endif
}

void fkv_cpu_multiply(struct fkv_backend *b, const struct fkv_cpu_product *products, int count,
                      const float *in, int32_t rows) {
    int32_t height = few_rows(b, products, count, rows) ? SLICE : PANEL,
            begin[FKV_CPU_MOST_PRODUCTS + 1] = {0};
    int64_t operations = 0;
    for (int i = 0; i < count; i++) {
        begin[i + 1] = begin[i] + (products[i].w->rows + height - 1) / height;
        operations += (int64_t)rows * products[i].w->rows * products[i].w->cols;
    }
#pragma omp parallel num_threads(fkv_cpu_threads(b, operations))
    {
        fkv_cpu_products_alone();
#pragma omp for schedule(dynamic)
        for (int32_t unit = 0; unit < begin[count]; unit++) {
            int i = 0;
            while (unit >= begin[i + 1]) i++;
            const struct fkv_cpu_product *p = &products[i];
            int32_t first = (unit - begin[i]) * height,
                    n = p->w->rows - first < height ? p->w->rows - first : height;
#ifndef FKV_PLAIN
            if (height == PANEL)
                multiply_panel(p, first, n, in, rows, fkv_cpu_scratch(b));
            else
#endif
                multiply_slice(b->simd, p, first, n, in, rows, fkv_cpu_scratch(b));
            if (p->bias && p->bias->data)
                add_bias(p->bias, first, n, p->out, (size_t)p->w->rows, rows);
        }
    }
}
