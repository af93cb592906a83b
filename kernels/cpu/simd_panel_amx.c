/* The products of attention's panels in bfloat16 on AMX: one instruction adds to sixteen by sixteen
 * float32 sums the products of 32 pairs of numbers each.
 *
 * Both products of a panel are words [rows, words] times words [words, panel], where a word is two
 * numbers: the second operand is what tiles ask for, as query rows are lanes (simd_panel.h). The
 * first takes its rows from keys as they are stored; of values a row is a channel, so they are
 * turned over once for all panels of a unit. What is left of sixteen rows or words is a tile of
 * that size. */
#if defined(__x86_64__)

#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_amx.h"

enum { PANEL_LINE = FKV_PANEL_BF16_ROWS * sizeof(float) };
_Static_assert(FKV_PANEL_BF16_ROWS == 3 * SIDE, "three tiles of sums");

/* The tiles: sums of each third of the panel, operands, operands of the words left at the end. (gcc
 * pastes their numbers into instructions, so these are no enum.) */
#define SUM_0 0
#define SUM_1 1
#define SUM_2 2
#define LEFT 3
#define RIGHT 4
#define LAST_LEFT 5
#define LAST_RIGHT 6

/* Tiles of `rows` rows, with `rest` words at the end. */
static void set_up(int32_t rows, int32_t rest) {
    struct tile_setup s = tiles_of(rows);
    s.rows[RIGHT] = SIDE;
    s.rows[LAST_RIGHT] = (uint8_t)rest;
    s.line[LAST_LEFT] = (uint16_t)(rest * (int)sizeof(float));
    if (!rest) s.line[LAST_RIGHT] = s.rows[LAST_LEFT] = 0;
    _tile_loadconfig(&s);
}

/* The first operand: row r and words [16 i, 16 i + 16) begin at r * row + i * step bytes. */
struct left {
    const char *at;
    size_t row, step;
};

/* All sums += a tile of `left` times each third of a tile's words of the panel. */
#define ADD_PRODUCTS(a, b, left, right)                                                            \
    _tile_loadd(a, (left).at, (left).row);                                                         \
    _tile_loadd(b, right, PANEL_LINE);                                                             \
    _tile_dpbf16ps(SUM_0, a, b);                                                                   \
    _tile_loadd(b, (right) + LINE, PANEL_LINE);                                                    \
    _tile_dpbf16ps(SUM_1, a, b);                                                                   \
    _tile_loadd(b, (right) + 2 * LINE, PANEL_LINE);                                                \
    _tile_dpbf16ps(SUM_2, a, b)

/* out [rows of the tiles, panel] = left [.., words] right [words, panel], or += that */
INLINE void multiply_tiles(struct left left, const char *right, int32_t words, bool add,
                           float *out) {
    if (add) {
        _tile_loadd(SUM_0, out, PANEL_LINE);
        _tile_loadd(SUM_1, out + SIDE, PANEL_LINE);
        _tile_loadd(SUM_2, out + 2 * SIDE, PANEL_LINE);
    } else {
        _tile_zero(SUM_0);
        _tile_zero(SUM_1);
        _tile_zero(SUM_2);
    }
    for (; words >= SIDE; words -= SIDE, left.at += left.step, right += SIDE * PANEL_LINE) {
        ADD_PRODUCTS(LEFT, RIGHT, left, right);
    }
    if (words) {
        ADD_PRODUCTS(LAST_LEFT, LAST_RIGHT, left, right);
    }
    _tile_stored(SUM_0, out, PANEL_LINE);
    _tile_stored(SUM_1, out + SIDE, PANEL_LINE);
    _tile_stored(SUM_2, out + 2 * SIDE, PANEL_LINE);
}

/* out [rows, panel] = left [rows, words] right [words, panel], or += that */
static void multiply(struct left left, int32_t rows, const float *right, int32_t words, bool add,
                     float *out) {
    const int32_t rest = words % SIDE;
    if (rows >= SIDE) set_up(SIDE, rest);
    for (; rows >= SIDE; rows -= SIDE) {
        multiply_tiles(left, (const char *)right, words, add, out);
        left.at += SIDE * left.row, out += SIDE * FKV_PANEL_BF16_ROWS;
    }
    if (rows) {
        set_up(rows, rest);
        multiply_tiles(left, (const char *)right, words, add, out);
    }
    _tile_release();
}

void fkv_amx_score(const void *key, int32_t keys, int32_t words, const float *q, const float *bias,
                   float *score) {
    for (int32_t k = 0; bias && k < keys; k++)
        for (int32_t i = 0; i < FKV_PANEL_BF16_ROWS; i++)
            score[k * FKV_PANEL_BF16_ROWS + i] = bias[k];
    const struct left left = {key, (size_t)words * sizeof(float), LINE};
    multiply(left, keys, q, words, bias, score);
}

void fkv_amx_mix(const float *weight, int32_t keys, const void *value, int32_t head_dim,
                 const float *shrink, float *out) {
    for (int32_t c = 0; c < head_dim; c++)
        for (int32_t i = 0; i < FKV_PANEL_BF16_ROWS; i++)
            out[c * FKV_PANEL_BF16_ROWS + i] *= shrink[i];
    const struct left left = {value, LINE, (size_t)head_dim * LINE};
    multiply(left, head_dim, weight, (keys + 1) / 2, true, out);
}

void fkv_amx_pack_values(const uint16_t *value, int32_t keys, int32_t head_dim, void *to) {
    uint32_t *line = to;
    for (int32_t k = 0; k < keys; k += PAIRS)
        for (int32_t c = 0; c < head_dim; c += SIDE) {
            const int32_t width = head_dim - c < SIDE ? head_dim - c : SIDE;
            const __mmask16 there = (__mmask16)((1u << width) - 1);
            __m512i r[SIDE];
            for (int i = 0; i < SIDE; i++) {
                const int32_t slot = k + 2 * i;
                const uint16_t *from = value + (size_t)slot * (size_t)head_dim + c;
                const __mmask16 first = slot < keys ? there : 0,
                                second = slot + 1 < keys ? there : 0;
                r[i] = _mm512_or_si512(
                    _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, from)),
                    _mm512_slli_epi32(
                        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, from + head_dim)),
                        16));
            }
            turn_over(r);
            for (int32_t i = 0; i < width; i++, line += SIDE) _mm512_storeu_si512(line, r[i]);
        }
}

#else
typedef int fkv_simd_panel_amx_is_for_x86;
#endif
