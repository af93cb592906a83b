/* The products of attention's panels in bfloat16 on AMX: a tile is sixteen rows of 64 bytes, and
 * one instruction adds to sixteen by sixteen float32 sums the products of 32 pairs of numbers each.
 *
 * Both products of a panel are words [rows, words] times words [words, panel], where a word is two
 * numbers: the second operand is what tiles ask for, as query rows are lanes (simd_panel.h). The
 * first takes its rows from keys as they are stored; of values a row is a channel, so they are
 * turned over once for all panels of a unit. What is left of sixteen rows or words is a tile of
 * that size. Tiles are a thread's registers, which other users (oneDNN) set up anew, as is done
 * here at every call. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/simd.h"

#define INLINE static inline __attribute__((always_inline))

enum { SIDE = 16, LINE = 64, WHOLE = 2 * SIDE, PANEL_LINE = FKV_PANEL_BF16_ROWS * sizeof(float) };
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
enum { TILES = 7 };

/* Tiles of `rows` rows, with `rest` words at the end. */
static void set_up(int32_t rows, int32_t rest) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t line[SIDE]; /* bytes of a row */
        uint8_t rows[SIDE];
    } tiles = {.palette = 1};
    for (int t = 0; t < TILES; t++) tiles.line[t] = LINE, tiles.rows[t] = (uint8_t)rows;
    tiles.rows[RIGHT] = SIDE;
    tiles.rows[LAST_RIGHT] = (uint8_t)rest;
    tiles.line[LAST_LEFT] = (uint16_t)(rest * (int)sizeof(float));
    if (!rest) tiles.line[LAST_RIGHT] = tiles.rows[LAST_LEFT] = 0;
    _tile_loadconfig(&tiles);
}

/* The first operand: row r and words [16 i, 16 i + 16) begin at r * row + i * step bytes. */
struct left {
    const char *at;
    size_t row, step;
};

/* out [rows of the tiles, panel] += left [.., words] right [words, panel] */
INLINE void multiply_tiles(struct left left, const char *right, int32_t words, float *out) {
    _tile_loadd(SUM_0, out, PANEL_LINE);
    _tile_loadd(SUM_1, out + SIDE, PANEL_LINE);
    _tile_loadd(SUM_2, out + 2 * SIDE, PANEL_LINE);
    for (; words >= SIDE; words -= SIDE, left.at += left.step, right += SIDE * PANEL_LINE) {
        _tile_loadd(LEFT, left.at, left.row);
        _tile_loadd(RIGHT, right, PANEL_LINE);
        _tile_dpbf16ps(SUM_0, LEFT, RIGHT);
        _tile_loadd(RIGHT, right + LINE, PANEL_LINE);
        _tile_dpbf16ps(SUM_1, LEFT, RIGHT);
        _tile_loadd(RIGHT, right + 2 * LINE, PANEL_LINE);
        _tile_dpbf16ps(SUM_2, LEFT, RIGHT);
    }
    if (words) {
        _tile_loadd(LAST_LEFT, left.at, left.row);
        _tile_loadd(LAST_RIGHT, right, PANEL_LINE);
        _tile_dpbf16ps(SUM_0, LAST_LEFT, LAST_RIGHT);
        _tile_loadd(LAST_RIGHT, right + LINE, PANEL_LINE);
        _tile_dpbf16ps(SUM_1, LAST_LEFT, LAST_RIGHT);
        _tile_loadd(LAST_RIGHT, right + 2 * LINE, PANEL_LINE);
        _tile_dpbf16ps(SUM_2, LAST_LEFT, LAST_RIGHT);
    }
    _tile_stored(SUM_0, out, PANEL_LINE);
    _tile_stored(SUM_1, out + SIDE, PANEL_LINE);
    _tile_stored(SUM_2, out + 2 * SIDE, PANEL_LINE);
}

/* out [rows, panel] += left [rows, words] right [words, panel] */
static void multiply(struct left left, int32_t rows, const float *right, int32_t words,
                     float *out) {
    const int32_t rest = words % SIDE;
    if (rows >= SIDE) set_up(SIDE, rest);
    for (; rows >= SIDE; rows -= SIDE) {
        multiply_tiles(left, (const char *)right, words, out);
        left.at += SIDE * left.row, out += SIDE * FKV_PANEL_BF16_ROWS;
    }
    if (rows) {
        set_up(rows, rest);
        multiply_tiles(left, (const char *)right, words, out);
    }
    _tile_release();
}

void fkv_amx_score(const void *key, int32_t keys, int32_t words, const float *q, const float *bias,
                   float *score) {
    for (int32_t k = 0; k < keys; k++)
        for (int32_t i = 0; i < FKV_PANEL_BF16_ROWS; i++)
            score[k * FKV_PANEL_BF16_ROWS + i] = bias ? bias[k] : 0;
    const struct left left = {key, (size_t)words * sizeof(float), LINE};
    multiply(left, keys, q, words, score);
}

void fkv_amx_mix(const float *weight, int32_t keys, const void *value, int32_t head_dim,
                 const float *shrink, float *out) {
    for (int32_t c = 0; c < head_dim; c++)
        for (int32_t i = 0; i < FKV_PANEL_BF16_ROWS; i++)
            out[c * FKV_PANEL_BF16_ROWS + i] *= shrink[i];
    const struct left left = {value, LINE, (size_t)head_dim * LINE};
    multiply(left, head_dim, weight, (keys + 1) / 2, out);
}

/* Sixteen rows of sixteen words -> its columns: pairs of rows side by side, then pairs of these,
 * then the four quarters. */
INLINE void turn_over(__m512i r[SIDE]) {
    __m512i t[SIDE];
    for (int i = 0; i < SIDE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < SIDE; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
        t[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        t[j + 8] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

void fkv_amx_pack_values(const uint16_t *value, int32_t keys, int32_t head_dim, void *to) {
    uint32_t *line = to;
    for (int32_t k = 0; k < keys; k += WHOLE)
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
