/* The loops of the transform, included once per instruction set, which supplies: vec of LANES
 * floats; vec_set, vec_zero, vec_load, vec_load_f16, vec_load_bf16, vec_store, vec_fma (a b + c),
 * vec_fnma (c - a b), vec_sum; AT_ONCE, how many outputs of an odd butterfly are formed from one
 * reading of its inputs (as many as have room in registers); DCT_TABLE and DCT_NAME. */
#include <string.h>

#include "kernels/dct/butterflies.h"

/* The rows x[step * r], r < length, of one column -> y [length], by way of spare [length]. */
static void run_part(const struct fkv_dct_part *part, int32_t column, const struct pair *x,
                     size_t step, struct pair *y, struct pair *spare) {
    if (!part->stages) *y = *x; /* of one row */
    for (int32_t i = 0; i < part->stages; i++) {
        struct pair *to = (part->stages - i) % 2 ? y : spare;
        run_stage(&part->stage[i], column, x, step, to);
        x = to;
        step = 1;
    }
}

/* A block in scratch */
struct block {
    struct pair *rows;      /* [n]: [columns][first part's length] */
    struct pair *u, *v, *w; /* [the longer part's length] each; FFTW's: v [1], no w */
};

static struct block lay_block(const struct fkv_dct *d, float *scratch) {
    struct pair *rows = (struct pair *)(void *)scratch, *u = rows + d->n,
                *v = u + fkv_dct_longer(d);
    return (struct block){rows, u, v, d->awkward ? NULL : v + fkv_dct_longer(d)};
}

/* Column `column` of the first part, from x [length] */
static void run_column(const struct fkv_dct *d, const struct block *b, int32_t column,
                       const struct pair *x) {
    const struct fkv_dct_part *first = &d->part[0];
    run_part(first, column, x, 1, b->rows + (size_t)column * (size_t)first->length, b->w);
}

/* Row `row` of the first part's results, along the second: rows row + length * t of the DFT -> y */
static void run_row(const struct fkv_dct *d, const struct block *b, int32_t row, struct pair *y) {
    if (d->awkward)
        fkv_dft_run(d->awkward, (float *)b->rows, (float *)y);
    else
        run_part(&d->part[1], 0, b->rows + row, (size_t)d->part[0].length, y, b->w);
}

/* Two rows of the spectrum that coefficients come from together: t = first + step * i in u[i], n -
 * t in v[mirror - i], begin <= i < end. */
struct mirrored {
    const struct pair *u, *v;
    int32_t first, step, mirror, begin, end;
};

static struct mirrored run_mirrored(const struct fkv_dct *d, const struct block *b, int32_t row) {
    const int32_t step = d->part[0].length, length = d->part[1].length;
    const bool alone = !row || 2 * row == step;
    struct mirrored r = {b->u, alone ? b->u : b->v, row, step, length - (row != 0), !row, length};
    if (alone) r.end = r.mirror / 2 + 1;
    run_row(d, b, row, b->u);
    if (!alone) run_row(d, b, step - row, b->v);
    return r;
}

/* ---- in and out ---- */

INLINE struct pair load_row(const float *x, int32_t width) {
    if (width >= WIDTH) return (struct pair){vec_load(x), vec_load(x + LANES)};
    float row[WIDTH] = {0};
    memcpy(row, x, (size_t)width * sizeof *row);
    return (struct pair){vec_load(row), vec_load(row + LANES)};
}

INLINE void store_row(float *x, int32_t width, struct pair a) {
    float row[WIDTH], *to = width < WIDTH ? row : x;
    vec_store(to, a.re);
    vec_store(to + LANES, a.im);
    if (width < WIDTH) memcpy(x, row, (size_t)width * sizeof *row);
}

/* The token at place r of Makhoul's order */
INLINE int32_t token_at(int32_t r, int32_t n) { return 2 * r < n ? 2 * r : 2 * (n - r) - 1; }

/* Rows far apart are found by no hardware prefetcher. The row that follows in the next column is
 * asked for while one is read or written, into the second level, which has room for more requests
 * than the first. */
INLINE int32_t next_of(int32_t r, int32_t n) { return r + 1 < n ? r + 1 : r; }

enum { LINE = 64, ROW = WIDTH * sizeof(float) };

INLINE void prefetch_row(const void *row, size_t bytes) {
    for (size_t at = 0; at < bytes; at += LINE) __builtin_prefetch((const char *)row + at, 0, 2);
}

/* Coefficients t and u = n - t of both channels */
struct four {
    struct pair t, u;
};

/* From rows t and u of the spectrum */
INLINE struct four unpack(struct pair vt, struct pair vu, const float *last) {
    vec c = vec_set(last[0]), s = vec_set(last[1]);
    vec ar = vt.re + vu.re, ai = vt.im - vu.im, br = vt.im + vu.im, bi = vu.re - vt.re;
    return (struct four){{vec_fma(s, ai, c * ar), vec_fma(s, bi, c * br)},
                         {vec_fnma(c, ai, s * ar), vec_fnma(c, bi, s * br)}};
}

/* Back to rows t and u of the spectrum, with real and imaginary parts exchanged */
INLINE struct four pack(struct pair yt, struct pair yu, const float *last) {
    vec c = vec_set(last[0]), s = vec_set(last[1]);
    vec ar = vec_fma(s, yu.re, c * yt.re), ai = vec_fnma(c, yu.re, s * yt.re);
    vec br = vec_fma(s, yu.im, c * yt.im), bi = vec_fnma(c, yu.im, s * yt.im);
    return (struct four){{ai + br, ar - bi}, {br - ai, ar + bi}};
}

/* ---- forward and inverse ---- */

static void dct_forward(const struct fkv_dct *d, const float *x, size_t x_stride, int32_t channels,
                        float *y, size_t y_stride, float *scratch) {
    const int32_t n = d->n, length = d->part[0].length, columns = d->part[0].columns;
    const struct block b = lay_block(d, scratch);
    vec first = vec_set(d->last[0]);
    for (int32_t width = channels; width > 0; width -= WIDTH, x += WIDTH, y += WIDTH) {
        for (int32_t q = 0; q < columns; q++) {
            for (int32_t r = 0; r < length; r++) {
                const int32_t at = q + columns * r;
                prefetch_row(x + (size_t)token_at(next_of(at, n), n) * x_stride, ROW);
                b.u[r] = load_row(x + (size_t)token_at(at, n) * x_stride, width);
            }
            run_column(d, &b, q, b.u);
        }
        for (int32_t row = 0; 2 * row <= length; row++) {
            const struct mirrored r = run_mirrored(d, &b, row);
            if (!row) store_row(y, width, (struct pair){first * r.u->re, first * r.u->im});
            for (int32_t i = r.begin; i < r.end; i++) {
                const int32_t t = r.first + r.step * i;
                struct four out = unpack(r.u[i], r.v[r.mirror - i], d->last + 2 * (size_t)t);
                prefetch_row(y + (size_t)(t + 1) * y_stride, ROW);
                prefetch_row(y + (size_t)(n - t - 1) * y_stride, ROW);
                store_row(y + (size_t)t * y_stride, width, out.t);
                store_row(y + (size_t)(n - t) * y_stride, width, out.u);
            }
        }
    }
}

/* Columns `column` and, unless they are one, columns - column: row t of one beside row n - t */
INLINE void pack_columns(const struct fkv_dct *d, const float *y, size_t y_stride, int32_t width,
                         int32_t column, struct pair *u, struct pair *v) {
    const int32_t n = d->n, length = d->part[0].length, columns = d->part[0].columns,
                  mirror = length - (column != 0);
    if (!column) {
        vec first = vec_set(d->last[0]);
        struct pair mean = load_row(y, width);
        u[0] = (struct pair){first * mean.im, first * mean.re};
    }
    for (int32_t i = !column; i < length; i++) {
        const int32_t t = column + columns * i;
        prefetch_row(y + (size_t)(t + 1) * y_stride, ROW);
        prefetch_row(y + (size_t)(n - t - 1) * y_stride, ROW);
        struct four in =
            pack(load_row(y + (size_t)t * y_stride, width),
                 load_row(y + (size_t)(n - t) * y_stride, width), d->last + 2 * (size_t)t);
        u[i] = in.t;
        v[mirror - i] = in.u;
    }
}

static void dct_inverse(const struct fkv_dct *d, const float *y, size_t y_stride, int32_t channels,
                        float *x, size_t x_stride, float *scratch) {
    const int32_t n = d->n, length = d->part[0].length, columns = d->part[0].columns;
    const struct block b = lay_block(d, scratch);
    for (int32_t width = channels; width > 0; width -= WIDTH, x += WIDTH, y += WIDTH) {
        for (int32_t q = 0; 2 * q <= columns; q++) {
            const bool alone = !q || 2 * q == columns;
            pack_columns(d, y, y_stride, width, q, b.u, alone ? b.u : b.v);
            run_column(d, &b, q, b.u);
            if (!alone) run_column(d, &b, columns - q, b.v);
        }
        for (int32_t row = 0; row < length; row++) {
            run_row(d, &b, row, b.u);
            for (int32_t i = 0; i < d->part[1].length; i++) {
                const int32_t at = row + length * i;
                prefetch_row(x + (size_t)token_at(next_of(at, n), n) * x_stride, ROW);
                store_row(x + (size_t)token_at(at, n) * x_stride, width,
                          (struct pair){b.u[i].im, b.u[i].re});
            }
        }
    }
}

/* ---- power ---- */

enum {
    RUN = 64,    /* rows summed in float before they go to the sum in double, about */
    SAMPLES = 64 /* rows that give the level */
};

/* Sums over tokens of a block: of the rows less `level`, and of its squares */
struct moments {
    struct pair level, sum, squares; /* the sums since the last `flush` */
    int32_t rows;                    /* that are in them */
    double total[2][WIDTH];
};

/* Channels [channel, channel + width) of row j, widened */
INLINE struct pair load_stored(const struct fkv_dct_rows *rows, enum fkv_dtype dtype, int32_t j,
                               size_t channel, int32_t width) {
    size_t at = (size_t)(rows->order ? rows->order[j] : j) * rows->stride + channel;
    if (dtype == FKV_F32) return load_row((const float *)rows->x + at, width);
    const uint16_t *x = (const uint16_t *)rows->x + at;
    uint16_t row[WIDTH] = {0};
    if (width < WIDTH) x = memcpy(row, x, (size_t)width * sizeof *row);
    if (dtype == FKV_F16) return (struct pair){vec_load_f16(x), vec_load_f16(x + LANES)};
    return (struct pair){vec_load_bf16(x), vec_load_bf16(x + LANES)};
}

INLINE void prefetch_stored(const struct fkv_dct_rows *rows, enum fkv_dtype dtype, int32_t j,
                            size_t channel) {
    const size_t bytes = fkv_dtype_bytes(dtype),
                 at = (size_t)(rows->order ? rows->order[j] : j) * rows->stride + channel;
    prefetch_row((const char *)rows->x + at * bytes, WIDTH * bytes);
}

/* About the mean of each channel: that of rows spread over the tokens, to the bit where all are
 * equal. */
INLINE struct pair find_level(const struct fkv_dct_rows *rows, enum fkv_dtype dtype, int32_t n,
                              size_t channel, int32_t width) {
    const int32_t count = n < SAMPLES ? n : SAMPLES;
    double sum[WIDTH] = {0};
    float row[WIDTH];
    for (int32_t i = 0; i < count; i++) {
        struct pair x = load_stored(rows, dtype, (int32_t)((int64_t)i * n / count), channel, width);
        vec_store(row, x.re);
        vec_store(row + LANES, x.im);
        for (int c = 0; c < WIDTH; c++) sum[c] += row[c];
    }
    for (int c = 0; c < WIDTH; c++) row[c] = (float)(sum[c] / count);
    return (struct pair){vec_load(row), vec_load(row + LANES)};
}

static void flush(struct moments *m) {
    float part[2][WIDTH];
    vec_store(part[0], m->sum.re);
    vec_store(part[0] + LANES, m->sum.im);
    vec_store(part[1], m->squares.re);
    vec_store(part[1] + LANES, m->squares.im);
    for (int i = 0; i < WIDTH; i++) m->total[0][i] += part[0][i], m->total[1][i] += part[1][i];
    m->sum = m->squares = (struct pair){vec_zero(), vec_zero()};
    m->rows = 0;
}

/* The first part of the rows less their level */
INLINE void take_rows_of(const struct fkv_dct *d, const struct fkv_dct_rows *rows,
                         enum fkv_dtype dtype, size_t channel, int32_t width, const struct block *b,
                         struct moments *m) {
    const int32_t n = d->n, length = d->part[0].length, columns = d->part[0].columns;
    const struct pair level = find_level(rows, dtype, n, channel, width);
    *m = (struct moments){.level = level};
    for (int32_t q = 0; q < columns; q++) {
        struct pair sum = m->sum, squares = m->squares;
        for (int32_t r = 0; r < length; r++) {
            const int32_t at = q + columns * r;
            prefetch_stored(rows, dtype, token_at(next_of(at, n), n), channel);
            struct pair x =
                pair_sub(load_stored(rows, dtype, token_at(at, n), channel, width), level);
            b->u[r] = x;
            sum = pair_add(sum, x);
            squares =
                (struct pair){vec_fma(x.re, x.re, squares.re), vec_fma(x.im, x.im, squares.im)};
        }
        m->sum = sum, m->squares = squares;
        if ((m->rows += length) >= RUN) flush(m);
        run_column(d, b, q, b->u);
    }
    flush(m);
}

static void take_rows(const struct fkv_dct *d, const struct fkv_dct_rows *rows, size_t channel,
                      int32_t width, const struct block *b, struct moments *m) {
    if (rows->dtype == FKV_F32)
        take_rows_of(d, rows, FKV_F32, channel, width, b, m);
    else if (rows->dtype == FKV_F16)
        take_rows_of(d, rows, FKV_F16, channel, width, b, m);
    else
        take_rows_of(d, rows, FKV_BF16, channel, width, b, m);
}

INLINE vec squares(struct pair y) { return vec_fma(y.re, y.re, y.im * y.im); }

/* of each channel times its factor */
INLINE vec squares_times(struct pair y, struct pair factor) {
    return vec_fma(y.re * y.re, factor.re, y.im * y.im * factor.im);
}

/* Channels [channel, channel + width) of the rows. What the level leaves of the mean falls on t = 0
 * alone, and that coefficient comes from the mean in double. */
static void add_block(const struct fkv_dct *d, const struct fkv_dct_rows *rows, size_t channel,
                      int32_t width, double *power, double *normalised, float *scratch) {
    const int32_t n = d->n;
    const struct block b = lay_block(d, scratch);
    struct moments m;
    float level[WIDTH], factor[WIDTH];
    take_rows(d, rows, channel, width, &b, &m);
    vec_store(level, m.level.re);
    vec_store(level + LANES, m.level.im);
    for (int c = 0; c < WIDTH; c++) {
        const double rest = m.total[0][c] / n, energy = m.total[1][c] - n * rest * rest,
                     mean = level[c] + rest;
        factor[c] = c < width && energy > 0 ? (float)(n / energy) : 0;
        if (c >= width) continue;
        power[0] += n * mean * mean;
        if (normalised) normalised[0] += n * mean * mean * (double)factor[c];
    }
    const struct pair factors = {vec_load(factor), vec_load(factor + LANES)};
    for (int32_t row = 0; 2 * row <= d->part[0].length; row++) {
        const struct mirrored r = run_mirrored(d, &b, row);
        for (int32_t i = r.begin; i < r.end; i++) {
            const int32_t t = r.first + r.step * i, u = n - t;
            struct four y = unpack(r.u[i], r.v[r.mirror - i], d->last + 2 * (size_t)t);
            power[t] += (double)vec_sum(squares(y.t));
            if (t != u) power[u] += (double)vec_sum(squares(y.u));
            if (!normalised) continue;
            normalised[t] += (double)vec_sum(squares_times(y.t, factors));
            if (t != u) normalised[u] += (double)vec_sum(squares_times(y.u, factors));
        }
    }
}

static void dct_add_power(const struct fkv_dct *d, const struct fkv_dct_rows *rows,
                          int32_t channels, double *power, double *normalised, float *scratch) {
    for (int32_t c = 0; c < channels; c += WIDTH)
        add_block(d, rows, (size_t)c, channels - c < WIDTH ? channels - c : WIDTH, power,
                  normalised, scratch);
}

const struct fkv_dct_set DCT_TABLE = {DCT_NAME, LANES, dct_forward, dct_inverse, dct_add_power};
