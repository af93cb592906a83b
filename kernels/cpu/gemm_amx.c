/* See gemm_amx.h. A block of 32 rows x 32 weight rows is four tiles of sums, two of input and two
 * of weights. Both operands are packed to tiles that stand one after the other: inputs once per
 * product, while they are rounded; weights, whose words are turned over, once per call, DEPTH
 * columns at a time, which stay in the second-level cache. */
#include "kernels/cpu/gemm_amx.h"

#if defined(__x86_64__)
#include "kernels/cpu/simd_amx.h"

enum { TILE = SIDE * LINE, BLOCK = 2 * SIDE, DEPTH = 48 * PAIRS };

static int32_t tiles_for(int32_t n, int32_t side) { return (n + side - 1) / side; }

size_t fkv_amx_packed_bytes(int32_t rows, int32_t cols) {
    return (size_t)(2 * tiles_for(rows, BLOCK)) * (size_t)tiles_for(cols, PAIRS) * TILE;
}

size_t fkv_amx_scratch_bytes(int32_t n, int32_t cols) {
    return fkv_amx_packed_bytes(n, cols < DEPTH ? cols : DEPTH);
}

/* The first n of 32 lanes. */
INLINE __mmask32 first_lanes(int32_t n) {
    return n >= PAIRS ? ~(__mmask32)0 : n <= 0 ? 0 : (__mmask32)((1u << n) - 1);
}

void fkv_amx_pack_rows(const float *in, int32_t rows, int32_t cols, int32_t row, void *packed) {
    const int32_t across = tiles_for(cols, PAIRS);
    char *to = (char *)packed + (size_t)(row / SIDE) * (size_t)across * TILE;
    for (int32_t r = 0; r < rows; r++) {
        const float *from = in + (size_t)r * (size_t)cols;
        for (int32_t c = 0; c < cols; c += PAIRS) {
            const __mmask32 there = first_lanes(cols - c);
            const __m512 low = _mm512_maskz_loadu_ps((__mmask16)there, from + c),
                         high = _mm512_maskz_loadu_ps((__mmask16)(there >> SIDE), from + c + SIDE);
            _mm512_storeu_si512(to + (size_t)(c / PAIRS) * TILE + (size_t)r * LINE,
                                (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

/* Columns [c, c + depth) of w [n, cols] as tiles [n / 16, depth / 32]: a row of a tile has a pair
 * of columns of sixteen weight rows. */
static void pack_weights(const uint16_t *w, int32_t n, int32_t cols, int32_t c, int32_t depth,
                         char *to) {
    for (int32_t j = 0; j < n; j += SIDE)
        for (int32_t d = 0; d < depth; d += PAIRS, to += TILE) {
            __m512i r[SIDE];
            for (int32_t i = 0; i < SIDE; i++)
                r[i] = _mm512_maskz_loadu_epi16(first_lanes(j + i < n ? depth - d : 0),
                                                w + (size_t)(j + i < n ? j + i : 0) * (size_t)cols +
                                                    c + d);
            turn_over(r);
            for (int32_t i = 0; i < SIDE; i++) _mm512_storeu_si512(to + i * LINE, r[i]);
        }
}

/* y [32, 32] = the product of `depth` tiles each of two rows of tiles, or += that. */
static void multiply_block(const char *in[2], const char *w[2], int32_t depth, bool add, float *y,
                           size_t stride) {
    const size_t line = stride * sizeof *y;
    if (add) {
        _tile_loadd(0, y, line);
        _tile_loadd(1, y + SIDE, line);
        _tile_loadd(2, y + SIDE * stride, line);
        _tile_loadd(3, y + SIDE * stride + SIDE, line);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t at = 0; at < (size_t)depth * TILE; at += TILE) {
        _tile_loadd(4, in[0] + at, LINE);
        _tile_loadd(6, w[0] + at, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w[1] + at, LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, in[1] + at, LINE);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, y, line);
    _tile_stored(1, y + SIDE, line);
    _tile_stored(2, y + SIDE * stride, line);
    _tile_stored(3, y + SIDE * stride + SIDE, line);
}

/* The same at an edge: of the block only [m, n] is there. */
static void multiply_edge(const char *in[2], const char *w[2], int32_t depth, bool add, float *y,
                          size_t stride, int32_t m, int32_t n) {
    float block[BLOCK * BLOCK];
    multiply_block(in, w, depth, false, block, BLOCK);
    for (int32_t i = 0; i < m; i++)
        for (int32_t j = 0; j < n; j++) {
            float *to = y + (size_t)i * stride + (size_t)j;
            *to = block[i * BLOCK + j] + (add ? *to : 0);
        }
}

void fkv_amx_multiply(const void *packed, int32_t rows, const uint16_t *w, int32_t n, int32_t cols,
                      bool add, float *y, size_t stride, void *scratch) {
    const size_t across = (size_t)tiles_for(cols, PAIRS);
    const struct tile_setup tiles = tiles_of(SIDE);
    _tile_loadconfig(&tiles);
    for (int32_t c = 0; c < cols; c += DEPTH, add = true) {
        const int32_t depth = cols - c < DEPTH ? cols - c : DEPTH, deep = tiles_for(depth, PAIRS);
        pack_weights(w, n, cols, c, depth, scratch);
        for (int32_t i = 0; i < rows; i += BLOCK)
            for (int32_t j = 0; j < n; j += BLOCK) {
                const char *a = (const char *)packed +
                                ((size_t)(i / SIDE) * across + (size_t)(c / PAIRS)) * TILE,
                           *b = (const char *)scratch + (size_t)(j / SIDE) * (size_t)deep * TILE;
                const char *in[2] = {a, a + across * TILE}, *by[2] = {b, b + (size_t)deep * TILE};
                float *to = y + (size_t)i * stride + (size_t)j;
                if (rows - i >= BLOCK && n - j >= BLOCK)
                    multiply_block(in, by, deep, add, to, stride);
                else
                    multiply_edge(in, by, deep, add, to, stride,
                                  rows - i < BLOCK ? rows - i : BLOCK,
                                  n - j < BLOCK ? n - j : BLOCK);
            }
    }
    _tile_release();
}

#else
/* Never called: see fkv_isa. */
size_t fkv_amx_packed_bytes(int32_t rows, int32_t cols) { return (void)rows, (void)cols, 0; }
size_t fkv_amx_scratch_bytes(int32_t n, int32_t cols) { return (void)n, (void)cols, 0; }
void fkv_amx_pack_rows(const float *in, int32_t rows, int32_t cols, int32_t row, void *packed) {
    (void)in, (void)rows, (void)cols, (void)row, (void)packed;
}
void fkv_amx_multiply(const void *packed, int32_t rows, const uint16_t *w, int32_t n, int32_t cols,
                      bool add, float *y, size_t stride, void *scratch) {
    (void)packed, (void)rows, (void)w, (void)n, (void)cols, (void)add, (void)y, (void)stride;
    (void)scratch;
}
#endif
