/* Weight formats: every block format gives the values of ggml's definition to the bit
 * (golden/weights.bin, which golden/make_weights.py makes with the `gguf` package), in every
 * instruction set, and products with it are products with those values. */
#include <math.h>
#include <stdio.h>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "tests/unit/support.h"

struct set {
    fkv_expand_table *expand;
    fkv_block_dot_table *dot;
};

/* The sets of this processor, the plain one first; returns their number. */
static int sets(struct set found[3]) {
    int n = 0;
    found[n++] = (struct set){&fkv_expand_plain, &fkv_block_dot_plain};
#if defined(__x86_64__)
    if (fkv_isa() >= FKV_ISA_AVX2) found[n++] = (struct set){&fkv_expand_avx2, &fkv_block_dot_avx2};
    if (fkv_isa() >= FKV_ISA_AVX512)
        found[n++] = (struct set){&fkv_expand_avx512, &fkv_block_dot_avx512};
#endif
    return n;
}

/* A product is the sum of values times x: rounded once per term and addition. */
static void assert_dot(float found, const float *values, const float *x, size_t n) {
    double sum = 0, size = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)values[i] * x[i], size += fabs((double)values[i] * x[i]);
    assert_close(found, sum, (double)n * 0x1p-24 * size, 0);
}

/* One format's golden blocks and values. */
struct golden {
    enum fkv_weight_format format;
    size_t count; /* blocks */
    unsigned char blocks[1024];
    float values[1024];
};

static enum fkv_weight_format format_named(const char *name) {
    for (int i = 0; i < FKV_WEIGHT_FORMATS; i++)
        if (!strcmp(fkv_weight_name((enum fkv_weight_format)i), name))
            return (enum fkv_weight_format)i;
    fail_msg("no format %s", name);
    return FKV_WEIGHT_F32;
}

static bool read_golden(FILE *f, struct golden *g) {
    char name[9] = {0};
    uint32_t count;
    if (fread(name, 1, 8, f) != 8) return false;
    assert_int_equal(fread(&count, sizeof count, 1, f), 1);
    g->format = format_named(name);
    g->count = count;
    const size_t values = count * fkv_weight_block(g->format),
                 bytes = fkv_weight_bytes(g->format, values);
    assert_in_range(values, 1, 1024);
    assert_int_equal(fread(g->blocks, 1, bytes, f), bytes);
    assert_int_equal(fread(g->values, sizeof(float), values, f), values);
    return true;
}

TEST(every_format_gives_ggmls_values) {
    FILE *f = fopen("tests/golden/weights.bin", "rb");
    assert_non_null(f);
    struct golden g;
    struct set all[3];
    const int set_count = sets(all);
    int formats = 0;
    for (; read_golden(f, &g); formats++) {
        const size_t n = g.count * fkv_weight_block(g.format);
        unsigned char odd[1025]; /* at an odd address */
        float found[1024], x[1024];
        test_fill(x, n, 0, 1);
        memcpy(odd + 1, g.blocks, sizeof g.blocks);
        for (int s = 0; s < set_count; s++) {
            (*all[s].expand)[g.format](odd + 1, g.count, found);
            assert_arrays_close(found, g.values, n, 0, 0);
            assert_dot((*all[s].dot)[g.format](odd + 1, g.count, x), g.values, x, n);
        }
        fkv_weight_expand(g.format, g.blocks, n, found);
        assert_arrays_close(found, g.values, n, 0, 0);
        assert_dot(fkv_weight_dot(g.format, g.blocks, n, x), g.values, x, n);
    }
    fclose(f);
    assert_int_equal(formats, FKV_WEIGHT_FORMATS - 3);
}

TEST(the_three_dtypes_expand_as_states_do) {
    float x[64], stored[64], found[64], expected[64];
    test_fill(x, 64, 0, 1);
    for (int t = FKV_F32; t <= FKV_BF16; t++) {
        const enum fkv_weight_format format = (enum fkv_weight_format)t;
        fkv_from_f32(x, (enum fkv_dtype)t, 64, stored);
        fkv_to_f32(stored, (enum fkv_dtype)t, 64, expected);
        fkv_weight_expand(format, stored, 64, found);
        assert_memory_equal(found, expected, sizeof found);
        assert_int_equal(fkv_weight_bytes(format, 64), 64 * fkv_dtype_bytes((enum fkv_dtype)t));
    }
}

/* ---- products ---- */

enum { OUT = 150, IN = 512, MOST_ROWS = 70 };

/* Random blocks [OUT, IN]: the golden ones in random order. */
static void fill_blocks(const struct golden *g, unsigned char *to) {
    const size_t size = fkv_weight_bytes(g->format, fkv_weight_block(g->format)),
                 count = (size_t)OUT * IN / fkv_weight_block(g->format);
    for (size_t i = 0; i < count; i++)
        memcpy(to + i * size, g->blocks + size * (size_t)test_between(2, (int)g->count - 1), size);
}

static struct fkv_buffer *adopted(const struct fkv_backend_ops *ops, struct fkv_backend *b,
                                  const void *data, size_t bytes) {
    struct fkv_buffer *buffer;
    assert_ok(ops->buffer_adopt(b, data, bytes, &buffer, &err));
    return buffer;
}

static void open_backend(const char *name, enum fkv_compute compute,
                         const struct fkv_backend_ops **ops, struct fkv_backend **b) {
    const struct fkv_limits limits = {
        .rows = MOST_ROWS,
        .dim = IN,
        .hidden = IN,
        .vocab = 1,
        .slots = 1,
        .items = 1,
        .attention = {.dim = IN, .heads = 1, .kv_heads = 1, .head_dim = 16}};
    const struct fkv_backend_options options = {.threads = 2, .compute = compute};
    assert_ok(fkv_backend_find(name, ops, NULL, &err));
    assert_ok((*ops)->open(&options, b, &err));
    assert_ok((*ops)->reserve(*b, &limits, &err));
}

/* What a test of products needs: the golden file, a matrix in a format of it, and its values. */
struct products {
    FILE *golden;
    enum fkv_weight_format format;
    unsigned char *blocks;   /* [OUT, IN] in the format */
    float *values;           /* [OUT, IN] */
    double largest;          /* of their sizes */
    float *x;                /* [MOST_ROWS, IN] */
    float *found, *expected; /* [MOST_ROWS, OUT + IN] */
};

static struct products open_products(void) {
    struct products p = {.golden = fopen("tests/golden/weights.bin", "rb"),
                         .blocks = malloc(sizeof(float) * OUT * IN),
                         .values = malloc(sizeof(float) * OUT * IN),
                         .x = malloc(sizeof(float) * MOST_ROWS * IN),
                         .found = malloc(sizeof(float) * MOST_ROWS * (OUT + IN)),
                         .expected = malloc(sizeof(float) * MOST_ROWS * (OUT + IN))};
    assert_true(p.golden && p.blocks && p.values && p.x && p.found && p.expected);
    return p;
}

/* The matrix of the next format; false: that was the last. */
static bool next_format(struct products *p) {
    struct golden g;
    if (!read_golden(p->golden, &g)) return false;
    p->format = g.format;
    fill_blocks(&g, p->blocks);
    fkv_weight_expand(g.format, p->blocks, (size_t)OUT * IN, p->values);
    p->largest = 0;
    for (int i = 0; i < OUT * IN; i++) p->largest = fmax(p->largest, fabs((double)p->values[i]));
    return true;
}

static void close_products(struct products *p) {
    fclose(p->golden);
    free(p->blocks), free(p->values), free(p->x), free(p->found), free(p->expected);
}

/* W x [rows, IN] -> out [rows, OUT], and the first rows of W by their ids -> embedded [rows, IN] */
static void run(const char *name, enum fkv_compute compute, enum fkv_weight_format format,
                const void *blocks, const float *x, int32_t rows, float *out, float *embedded) {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *b;
    struct fkv_buffer *to, *table;
    const size_t bytes = sizeof(float) * (size_t)rows * OUT, row = sizeof(float) * IN;
    int32_t tokens[MOST_ROWS];
    for (int32_t i = 0; i < rows; i++) tokens[i] = (7 * i) % OUT;
    open_backend(name, compute, &ops, &b);
    struct fkv_weight w = {.format = format, .rows = OUT, .cols = IN};
    w.data = adopted(ops, b, blocks, fkv_weight_bytes(format, (size_t)OUT * IN));
    struct fkv_buffer *in = adopted(ops, b, x, (size_t)rows * row);
    assert_ok(ops->buffer_create(b, bytes, &to, &err));
    assert_ok(ops->buffer_create(b, (size_t)rows * row, &table, &err));
    memset(out, 0, bytes);
    assert_ok(ops->write(b, to, 0, out, bytes, &err));
    assert_ok(ops->project_residual(b, &(struct fkv_residual_weights){.w = w, .multiplier = 1}, in,
                                    rows, to, &err));
    assert_ok(ops->embed(b, &w, 1, tokens, rows, table, &err));
    assert_ok(ops->read(b, to, 0, out, bytes, &err));
    assert_ok(ops->read(b, table, 0, embedded, (size_t)rows * row, &err));
    ops->buffer_release(b, w.data), ops->buffer_release(b, in);
    ops->buffer_release(b, to), ops->buffer_release(b, table);
    ops->close(b);
}

TEST(products_are_those_with_the_expanded_values) {
    static const int32_t rows[] = {1, 2, 3, 16, 17, MOST_ROWS};
    struct products p = open_products();
    while (next_format(&p))
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            const size_t n = (size_t)rows[r], out = n * OUT;
            test_fill(p.x, n * IN, 0, 1);
            run("reference", FKV_COMPUTE_NATIVE, FKV_WEIGHT_F32, p.values, p.x, rows[r], p.expected,
                p.expected + out);
            run("cpu", FKV_COMPUTE_F32, p.format, p.blocks, p.x, rows[r], p.found, p.found + out);
            assert_arrays_close(p.found, p.expected, out, 1e-5 * sqrt(IN) * p.largest, 0);
            assert_arrays_close(p.found + out, p.expected + out, n * IN, 0, 0);
            run("reference", FKV_COMPUTE_NATIVE, p.format, p.blocks, p.x, rows[r], p.found,
                p.found + out);
            assert_memory_equal(p.found, p.expected, sizeof(float) * n * (OUT + IN));
        }
    close_products(&p);
}

TEST(products_in_bfloat16_are_those_with_the_rounded_values) {
    static const int32_t rows[] = {1, 3, MOST_ROWS};
    if (fkv_isa() < FKV_ISA_AVX512_BF16 || !fkv_gemm_has_bf16()) {
        printf("skipped: no products of bfloat16 here\n");
        return;
    }
    struct products p = open_products();
    uint16_t *rounded = malloc(sizeof(uint16_t) * OUT * IN);
    assert_non_null(rounded);
    while (next_format(&p)) {
        fkv_round_bf16_avx512(p.values, (size_t)OUT * IN, rounded);
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            const size_t out = (size_t)rows[r] * OUT;
            test_fill(p.x, (size_t)rows[r] * IN, 0, 1);
            run("cpu", FKV_COMPUTE_BF16, FKV_WEIGHT_BF16, rounded, p.x, rows[r], p.expected,
                p.expected + out);
            run("cpu", FKV_COMPUTE_BF16, p.format, p.blocks, p.x, rows[r], p.found, p.found + out);
            assert_memory_equal(p.found, p.expected, sizeof(float) * out);
        }
    }
    close_products(&p);
    free(rounded);
}

/* silu(gate x) * (up x) [rows, OUT], each matrix in a format of its own */
static void run_gated(const enum fkv_weight_format format[2], const void *const data[2],
                      const float *x, int32_t rows, float *out) {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *b;
    struct fkv_buffer *to;
    const size_t bytes = sizeof(float) * (size_t)rows * OUT;
    struct fkv_weight w[2];
    open_backend("cpu", FKV_COMPUTE_F32, &ops, &b);
    for (int i = 0; i < 2; i++) {
        w[i] = (struct fkv_weight){.format = format[i], .rows = OUT, .cols = IN};
        w[i].data = adopted(ops, b, data[i], fkv_weight_bytes(format[i], (size_t)OUT * IN));
    }
    struct fkv_buffer *in = adopted(ops, b, x, sizeof(float) * (size_t)rows * IN);
    assert_ok(ops->buffer_create(b, bytes, &to, &err));
    assert_ok(ops->norm_gate_up(
        b, &(struct fkv_gate_up_weights){.gate = w[0], .up = w[1], .activation = FKV_SILU}, in,
        rows, to, &err));
    assert_ok(ops->read(b, to, 0, out, bytes, &err));
    for (int i = 0; i < 2; i++) ops->buffer_release(b, w[i].data);
    ops->buffer_release(b, in), ops->buffer_release(b, to);
    ops->close(b);
}

TEST(a_gate_and_its_matrix_may_differ_in_format) {
    static const int32_t rows[] = {1, 3, MOST_ROWS};
    struct products p = open_products();
    while (next_format(&p)) {
        const enum fkv_weight_format format[2] = {FKV_WEIGHT_F32, p.format};
        const void *const data[2] = {p.values, p.blocks};
        const double size = sqrt(IN) * p.largest;
        for (int r = 0; r < 3; r++) {
            test_fill(p.x, (size_t)rows[r] * IN, 0, 1);
            for (int kinds = 0; kinds < 4; kinds++) {
                const int gate = kinds / 2, up = kinds % 2;
                run_gated((enum fkv_weight_format[]){format[gate], format[up]},
                          (const void *[]){data[gate], data[up]}, p.x, rows[r],
                          kinds ? p.found : p.expected);
                if (kinds)
                    assert_arrays_close(p.found, p.expected, (size_t)rows[r] * OUT,
                                        1e-4 * size * (size + 1), 0);
            }
        }
    }
    close_products(&p);
}
