/* Matrix products with the checkpoint's weights, read where they are mapped: y = W x for a block of
 * rows x. What the backend computes in says what both operands are rounded to; sums are float32.
 *
 * The unit of work is a panel of at most PANEL weight rows, and one thread's from start to end. A
 * matrix is cut into a multiple of four panels of equal height, so that two or four threads share
 * it evenly. Units are handed out dynamically: a thread that loses its core for a while leaves its
 * share to the others. Few rows are cut in more units: of three quarters every thread has an equal
 * run, of the rest it takes many at first and fewer and fewer later (OpenMP's guided schedule). A
 * long run of weights is read ahead by the processor, and at the end no thread waits long for
 * another. SmolLM2-135M in bfloat16, two cores of an EPYC (Zen 4): panels one by one take 1.11
 * times as long as all guided, and those 1.08 times as long as this. Cuts depend on shapes only, so
 * no output depends on the number of threads.
 *
 * Few rows: dot kernels read the weights directly (bfloat16: through scratch where they are of
 * another dtype), ROWS_AT_ONCE inputs at a time, which stay in the second-level cache. For one row
 * the time is that of reading the weights from memory once. One row and a block format
 * (kernels/weights): blocks are expanded in registers; more rows, or bfloat16: EXPANDED weight rows
 * at a time, which stay in a near cache. There the expansion is what takes the time: one core of an
 * EPYC (Zen 4) reads 13e9 values a second of Q8_0, Q4_0 and Q4_K, 10e9 of Q5_K and Q6_K, and as
 * many of bfloat16 as memory gives, 12e9.
 *
 * Many rows: the library of gemm.h, BLOCK rows at a time, into a tile of the thread's scratch,
 * which is then added or copied to its place, with the bias. Weights of another format, or at an
 * odd address, are converted to a panel in scratch first. The last CUT_PANELS panels of a step are
 * units of half a block each, so that no thread waits long for the last unit of another: a prefill
 * on two cores of a Xeon (Emerald Rapids) takes 0.98 of its time. In bfloat16 on AMX: gemm_amx.h
 * instead, all rows at once and straight to their place. There the last panels are cut in units of
 * AMX_PIECE weight rows, as every unit packs its weights. On two cores, with AMX by the tests'
 * stand-in, products of 512 rows of SmolLM2-135M spent 5 to 10% of their time waiting for the last
 * unit, and now 3.
 *
 * A gated product (the MLP's) has two matrices and a tile of each, which meet in the cache: neither
 * product is written to memory by itself.
 *
 * What few means comes from the instruction set, not from a timing, so that the same run gives the
 * same bytes on one processor. A library's product of m rows costs a + b m per weight: it converts
 * and packs the weight (a, a third to half a cycle), then multiplies at the full rate (b = 1/32
 * cycle with AVX-512, 1/16 with AVX2). The dot kernels cost c m. They need no packing, but widen
 * the weights while they multiply, for which c is a fifth to a third above b. So they win up to
 * a / (c - b) rows: at least 30 with AVX-512, 16 with AVX2, and for bfloat16 products, where b is
 * halved, 16. Near the crossover both are equal, so a wrong guess by half costs little. */
#include "kernels/base/progress.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_amx.h"
#include "kernels/cpu/meet.h"

enum { PANEL = 64, FEW_PANEL = 32, WIDEST_PANEL = FKV_AMX_PANEL, ROWS_AT_ONCE = 16 };
enum { BLOCK = 512, PIECE = BLOCK / 2, AMX_PIECE = FKV_AMX_PANEL / 3, CUT_PANELS = 4 };
enum { FEW_BF16 = 16, EXPANDED = 4 };
_Static_assert(AMX_PIECE % (2 * FKV_AMX_ROWS) == 0, "whole blocks of gemm_amx.c");

int32_t fkv_cpu_widest(const struct fkv_limits *l) {
    int32_t widest = l->attention.heads * l->attention.head_dim;
    if (widest < l->dim) widest = l->dim;
    return widest < l->hidden ? l->hidden : widest;
}

/* Floats of a tile and of a converted panel, each rounded up to a cache line. A unit has two of
 * both: a gated product's, and its gate's. */
static size_t tile_floats(int32_t rows) {
    return (size_t)(rows < BLOCK ? rows < ROWS_AT_ONCE ? ROWS_AT_ONCE : rows : BLOCK) *
           WIDEST_PANEL;
}
static size_t panel_floats(int32_t cols) { return ((size_t)cols * PANEL + 15) / 16 * 16; }
_Static_assert(WIDEST_PANEL <= 2 * PANEL, "a panel of bfloat16 takes half the room");

/* The library's own scratch is less than a panel; where it is more, `prepare` grows the scratch. */
size_t fkv_cpu_multiply_scratch(const struct fkv_limits *l) {
    return 2 * tile_floats(l->rows) + 3 * panel_floats(fkv_cpu_widest(l));
}

/* ---- planning ---- */

/* What the library multiplies at once: BLOCK rows, half of them, or what is left of all rows. */
enum { SIZES = 3 };
static int size_of(int32_t rows) { return rows == BLOCK ? 0 : rows == PIECE ? 1 : 2; }

/* One product of a step. */
struct part {
    const struct fkv_cpu_product *product;
    int32_t height, first_unit; /* rows of a panel; the units before it in the step */
    int32_t whole, pieces;      /* panels of one unit; units of each of the others; on AMX unused */
    const struct fkv_gemm_product *gemm[SIZES][2]; /* many rows: [size][of a panel, of the last] */
};

/* Products that share their input. */
struct step {
    struct fkv_backend *b;
    const void *in; /* [rows, cols] of `dtype` */
    enum fkv_dtype dtype;
    int32_t rows, units;
    bool few, tiles; /* neither: the library's */
    int count;
    struct part parts[FKV_CPU_MOST_PRODUCTS];
};

/* Rows of a panel: a multiple of 16, and the panels a multiple of four, where there are enough. */
static int32_t panel_height(int32_t rows) {
    int32_t panels = ((rows + PANEL - 1) / PANEL + 3) / 4 * 4;
    return ((rows + panels - 1) / panels + 15) / 16 * 16;
}

static bool few_rows(const struct fkv_backend *b, int32_t rows) {
    if (!b->gemm) return true;
    return rows <= (b->compute == FKV_COMPUTE_BF16 ? (int32_t)FEW_BF16 : b->simd->dot_rows);
}

/* Scratch for the part's tiles and panels, and `own` bytes for what multiplies them. */
static int grow_scratch(const struct step *s, const struct part *p, size_t own,
                        struct fkv_error *err) {
    const size_t floats = tile_floats(s->rows) + panel_floats(p->product->w->cols);
    return fkv_cpu_grow_scratch(s->b, 2 * floats + own / sizeof(float) + 1, err);
}

/* The library's products for every pair of a number of rows and a panel that there is. */
static int prepare(struct step *s, struct part *p, struct fkv_error *err) {
    const struct fkv_weight *w = p->product->w;
    const int32_t m[SIZES] = {s->rows < BLOCK ? 0 : BLOCK, s->rows < PIECE ? 0 : PIECE,
                              s->rows % BLOCK},
                  n[2] = {w->rows < p->height ? 0 : p->height, w->rows % p->height};
    size_t own = 0;
    for (int i = 0; i < SIZES; i++)
        for (int j = 0; j < 2; j++) {
            if (!m[i] || !n[j]) continue;
            const struct fkv_gemm_shape shape = {s->dtype, m[i], n[j], w->cols};
            if (fkv_gemm_prepare(s->b->gemm, &shape, &p->gemm[i][j], err)) return FKV_FAILED;
            const size_t bytes = fkv_gemm_scratch(p->gemm[i][j]);
            if (bytes > own) own = bytes;
        }
    return grow_scratch(s, p, own, err);
}

static int plan(struct step *s, const struct fkv_cpu_product *products, struct fkv_error *err) {
    for (int i = 0; i < s->count; i++) {
        struct part *p = &s->parts[i];
        p->product = &products[i];
        p->height = s->few     ? FEW_PANEL
                    : s->tiles ? FKV_AMX_PANEL
                               : panel_height(products[i].w->rows);
        p->first_unit = s->units;
        p->pieces = s->rows / BLOCK * 2 + (s->rows % BLOCK > 0);
        const int32_t weights = products[i].w->rows, panels = (weights + p->height - 1) / p->height,
                      cut = s->few || i < s->count - 1 ? 0
                            : panels < CUT_PANELS      ? panels
                                                       : CUT_PANELS;
        p->whole = panels - cut;
        const int32_t left = cut ? weights - p->whole * p->height : 0;
        s->units += p->whole + (s->tiles ? (left + AMX_PIECE - 1) / AMX_PIECE : cut * p->pieces);
        if (s->tiles
                ? grow_scratch(s, p, fkv_amx_scratch_bytes(FKV_AMX_PANEL, products[i].w->cols), err)
                : !s->few && prepare(s, p, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- units ---- */

/* A matrix of a unit: where the product with its rows goes, and the rows themselves if converted.
 */
struct side {
    const struct fkv_weight *w;
    float *tile, *panel;
};

/* Weight rows [first, first+n) of a part's matrix and, where it has one, of its gate, with rows
 * [row, end) of the input. */
struct unit {
    const struct part *part;
    int32_t first, n, row, end;
    int thread, count;
    struct side sides[2];
    float *own; /* scratch of what multiplies */
};

static struct unit take_unit(const struct step *s, int32_t index) {
    int i = s->count - 1;
    while (index < s->parts[i].first_unit) i--;
    const struct part *p = &s->parts[i];
    const struct fkv_cpu_product *product = p->product;
    const int32_t unit = index - p->first_unit, piece = unit - p->whole, rows = product->w->rows;
    struct unit u = {.part = p,
                     .first = unit * p->height,
                     .n = p->height,
                     .end = s->rows,
                     .thread = omp_get_thread_num(),
                     .count = product->gate ? 2 : 1,
                     .own = fkv_cpu_scratch(s->b)};
    if (piece >= 0 && s->tiles) {
        u.first = p->whole * p->height + piece * AMX_PIECE;
        u.n = AMX_PIECE;
    } else if (piece >= 0) {
        u.first = (p->whole + piece / p->pieces) * p->height;
        u.row = piece % p->pieces * PIECE;
        if (u.row < s->rows / BLOCK * BLOCK) u.end = u.row + PIECE;
    }
    if (u.n > rows - u.first) u.n = rows - u.first;
    for (int side = 0; side < u.count; side++) {
        u.sides[side].w = side ? product->gate : product->w;
        u.sides[side].tile = u.own;
        u.sides[side].panel = u.own + tile_floats(s->rows);
        u.own = u.sides[side].panel + panel_floats(product->w->cols);
    }
    return u;
}

static const char *weight_row(const struct fkv_weight *w, int32_t row) {
    return (const char *)fkv_cpu_weight(w) +
           (size_t)row * fkv_weight_bytes(w->format, (size_t)w->cols);
}

/* n values of any format, whole blocks at any address -> bfloat16 */
static void round_to_bf16(const struct fkv_backend *b, const char *from,
                          enum fkv_weight_format format, size_t n, uint16_t *to) {
    enum { SOME = 2 * FKV_WEIGHT_MOST_BLOCK };
    float some[SOME];
    for (size_t i = 0; i < n; i += SOME) {
        const size_t count = n - i < SOME ? n - i : SOME;
        fkv_weight_expand(format, from + fkv_weight_bytes(format, i), count, some);
        b->round_bf16(some, count, to + i);
    }
}

/* A side's rows [n, cols] in the dtype of the step: in place or converted. */
static const void *weights_of(const struct step *s, const struct unit *u, const struct side *side) {
    const struct fkv_weight *w = side->w;
    const char *from = weight_row(w, u->first);
    const size_t count = (size_t)u->n * (size_t)w->cols;
    const bool rounds =
        s->dtype == FKV_F32 && s->b->compute == FKV_COMPUTE_BF16 && w->format != FKV_WEIGHT_BF16;
    if ((int)w->format == (int)s->dtype && !rounds &&
        (uintptr_t)from % fkv_dtype_bytes(s->dtype) == 0)
        return from;
    if (s->dtype == FKV_F32) {
        fkv_weight_expand(w->format, from, count, side->panel);
        if (rounds) s->b->round_wide(side->panel, count, side->panel);
        return side->panel;
    }
    round_to_bf16(s->b, from, w->format, count, (uint16_t *)(void *)side->panel);
    return side->panel;
}

/* The tiles [m, n] of a unit to rows [row, row+m) of the output: added or copied, with the bias. */
static void place_tiles(const struct step *s, const struct unit *u, const float *bias, int32_t row,
                        int32_t m) {
    const struct fkv_cpu_product *p = u->part->product;
    const size_t stride = (size_t)p->w->rows;
    float *out = p->out + (size_t)row * stride + (size_t)u->first;
    if (p->gate) p->activate(u->sides[1].tile, u->sides[0].tile, (size_t)m * (size_t)u->n);
    s->b->simd->place(u->sides[u->count - 1].tile, bias, u->n, m, p->add, out, stride);
}

/* in rows [row, row+m), m <= ROWS_AT_ONCE -> the side's tile, by dot products with its weights:
 * converted, or NULL, then they are read as they are stored */
static void dot_tile(const struct step *s, const struct unit *u, const struct side *side,
                     const void *weights, int32_t row, int32_t m) {
    const struct fkv_weight *w = side->w;
    const size_t cols = (size_t)w->cols, n = (size_t)u->n;
    if (s->dtype == FKV_BF16)
        s->b->dot_bf16(weights, cols, u->n, (const uint16_t *)s->in + (size_t)row * cols, cols, m,
                       w->cols, side->tile, n);
    else
        s->b->simd->dot[weights ? FKV_F32 : fkv_weight_dtype(w)](
            weights ? weights : weight_row(w, u->first), cols, u->n,
            (const float *)s->in + (size_t)row * cols, cols, m, w->cols, side->tile, n);
}

/* The same of m <= BLOCK rows, by the library. */
static bool library_tile(const struct step *s, const struct unit *u, const struct side *side,
                         const void *weights, int32_t row, int32_t m) {
    const size_t at = (size_t)row * (size_t)side->w->cols * fkv_dtype_bytes(s->dtype);
    return fkv_gemm_multiply(u->part->gemm[size_of(m)][u->n < u->part->height], u->thread,
                             (const char *)s->in + at, weights, side->tile, u->own);
}

/* The bias of the unit's rows as float32, or zeros. */
static void load_bias(const struct unit *u, float *bias) {
    const struct fkv_weight *b = u->part->product->bias;
    memset(bias, 0, sizeof *bias * (size_t)u->n);
    if (b && b->data)
        fkv_weight_expand(b->format,
                          (const char *)fkv_cpu_weight(b) +
                              fkv_weight_bytes(b->format, (size_t)u->first),
                          (size_t)u->n, bias);
}

static bool multiply_unit(const struct step *s, const struct unit *u) {
    const int32_t height = s->few ? ROWS_AT_ONCE : BLOCK;
    const void *weights[2] = {NULL, NULL};
    float bias[WIDEST_PANEL];
    load_bias(u, bias);
    for (int i = 0; i < u->count; i++) {
        const bool stored =
            s->few && s->dtype == FKV_F32 && fkv_weight_is_dtype(u->sides[i].w->format);
        if (!stored) weights[i] = weights_of(s, u, &u->sides[i]);
    }
    for (int32_t row = u->row; row < u->end; row += height) {
        const int32_t m = u->end - row < height ? u->end - row : height;
        for (int i = 0; i < u->count; i++)
            if (s->few)
                dot_tile(s, u, &u->sides[i], weights[i], row, m);
            else if (!library_tile(s, u, &u->sides[i], weights[i], row, m))
                return false;
        place_tiles(s, u, bias, row, m);
    }
    return true;
}

/* On AMX: all rows straight to their place, or BLOCK rows at a time where there is a gate. */
static void multiply_on_amx(const struct step *s, const struct unit *u) {
    const struct fkv_cpu_product *p = u->part->product;
    const size_t stride = (size_t)p->w->rows;
    const int32_t cols = p->w->cols;
    float *out = p->out + u->first, bias[WIDEST_PANEL];
    load_bias(u, bias);
    if (!p->gate) {
        fkv_amx_multiply(s->in, s->rows, weights_of(s, u, &u->sides[0]), u->n, cols, p->add, out,
                         stride, u->own);
        if (!p->bias || !p->bias->data) return;
        for (int32_t i = 0; i < s->rows; i++)
            for (int32_t j = 0; j < u->n; j++) out[(size_t)i * stride + (size_t)j] += bias[j];
        return;
    }
    for (int32_t row = 0; row < s->rows; row += BLOCK) {
        const int32_t m = s->rows - row < BLOCK ? s->rows - row : BLOCK;
        for (int i = 0; i < u->count; i++)
            fkv_amx_multiply((const char *)s->in + fkv_amx_packed_bytes(row, cols), m,
                             weights_of(s, u, &u->sides[i]), u->n, cols, false, u->sides[i].tile,
                             (size_t)u->n, u->own);
        place_tiles(s, u, bias, row, m);
    }
}

/* One row of a block format, in float32: what is expanded stays in registers. */
static void multiply_one(const struct step *s, const struct unit *u) {
    float bias[WIDEST_PANEL];
    load_bias(u, bias);
    for (int side = 0; side < u->count; side++) {
        const struct fkv_weight *w = u->sides[side].w;
        for (int32_t i = 0; i < u->n; i++)
            u->sides[side].tile[i] =
                fkv_weight_dot(w->format, weight_row(w, u->first + i), (size_t)w->cols, s->in);
    }
    place_tiles(s, u, bias, 0, 1);
}

/* How many of its sides are in a block format. */
static int block_sides(const struct unit *u) {
    int count = 0;
    for (int side = 0; side < u->count; side++)
        count += !fkv_weight_is_dtype(u->sides[side].w->format);
    return count;
}

/* Few rows, where there is a block format: EXPANDED weight rows at a time. */
static bool multiply_blocks(const struct step *s, const struct unit *u) {
    if (s->rows == 1 && s->dtype == FKV_F32 && block_sides(u) == u->count) {
        multiply_one(s, u);
        return true;
    }
    for (int32_t i = 0; i < u->n; i += EXPANDED) {
        struct unit rows = *u;
        rows.first += i;
        rows.n = u->n - i < EXPANDED ? u->n - i : EXPANDED;
        if (!multiply_unit(s, &rows)) return false;
    }
    return true;
}

/* Rows [r, r + FKV_AMX_ROWS) of the input, normalised and rounded to bfloat16 where that is asked
 * for, to the backend's buffers: packed where products are by tiles. What is only on its way to be
 * rounded stays in the thread's scratch, which the cache holds. */
static void prepare_rows(const struct step *s, const struct fkv_cpu_input *in, int32_t cols,
                         int32_t r) {
    struct fkv_backend *b = s->b;
    const bool rounds = b->compute == FKV_COMPUTE_BF16;
    const int32_t rows = s->rows - r < FKV_AMX_ROWS ? s->rows - r : FKV_AMX_ROWS;
    const size_t width = (size_t)cols, at = (size_t)r * width, n = (size_t)rows * width;
    float *normed = rounds ? fkv_cpu_scratch(b) : b->normed + at;
    for (size_t i = 0; in->factors && i < n; i += width)
        b->simd->normalise(in->x + at + i, in->factors, cols, in->eps, normed + i);
    const float *x = in->factors ? normed : in->x + at;
    if (!rounds) return;
    if (s->tiles)
        fkv_amx_pack_rows(x, rows, cols, r, b->rounded);
    else if (s->dtype == FKV_F32)
        b->round_wide(x, n, (float *)b->rounded + at);
    else
        b->round_bf16(x, n, (uint16_t *)b->rounded + at);
}

/* Returns whether there was memory for it. */
static bool run_unit(const struct step *s, int32_t index) {
    const struct unit u = take_unit(s, index);
    if (s->tiles) {
        multiply_on_amx(s, &u);
        return true;
    }
    return s->few && block_sides(&u) ? multiply_blocks(s, &u) : multiply_unit(s, &u);
}

int fkv_cpu_multiply(struct fkv_backend *b, const struct fkv_cpu_product *products, int count,
                     const struct fkv_cpu_input *in, int32_t rows, struct fkv_error *err) {
    const int32_t cols = products->w->cols;
    const bool rounds = b->compute == FKV_COMPUTE_BF16, prepares = rounds || in->factors;
    struct step s = {.b = b,
                     .in = rounds        ? b->rounded
                           : in->factors ? b->normed
                                         : in->x,
                     .rows = rows,
                     .few = few_rows(b, rows),
                     .count = count};
    s.tiles = b->tiles && !s.few;
    s.dtype = rounds && (s.few || !b->widens) ? FKV_BF16 : FKV_F32;
    if (plan(&s, products, err)) return FKV_FAILED;
    int64_t weights = 0;
    for (int i = 0; i < count; i++)
        weights += (int64_t)products[i].w->rows * cols * (products[i].gate ? 2 : 1);
    const int64_t operations = (rows + FKV_READING) * weights;
    b->team = s.few ? fkv_crowd_threads(&b->crowd, b->threads) : b->threads;
    const int threads = fkv_cpu_threads(b, operations);
    const double start = fkv_seconds();
    int failed = 0;
    atomic_int arrived = 0;
    /* Few rows are prepared faster than threads meet. */
    for (int32_t r = 0; prepares && s.few && r < rows; r += FKV_AMX_ROWS)
        prepare_rows(&s, in, cols, r);
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        if (prepares && !s.few) {
#pragma omp for schedule(dynamic)
            for (int32_t r = 0; r < rows; r += FKV_AMX_ROWS) prepare_rows(&s, in, cols, r);
        }
        fkv_cpu_products_alone();
        const int32_t even = s.few ? s.units / 4 * 3 : 0; /* units that are shared out evenly */
#pragma omp for schedule(static) nowait
        for (int32_t i = 0; i < even; i++) failed |= !run_unit(&s, i);
        omp_set_schedule(s.few ? omp_sched_guided : omp_sched_dynamic, 1);
#pragma omp for schedule(runtime) nowait
        for (int32_t i = even; i < s.units; i++) failed |= !run_unit(&s, i);
        fkv_cpu_meet(b, &arrived, operations);
    }
    if (s.few && threads == b->team)
        fkv_crowd_add(&b->crowd, fkv_seconds() - start, (double)operations);
    return failed ? fkv_fail(err, "a product of %d rows failed: out of memory", rows) : FKV_OK;
}
