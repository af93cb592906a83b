/* AMX's tiles by AVX512-BF16, included before the files named *_amx.c so that their tests run on a
 * processor without AMX. A tile's setup is checked as the processor checks it, and memory is
 * touched line by line, so that a sanitizer sees it. A product rounds as a tile's does: the two
 * products of a pair are added one after the other, and a subnormal number counts as 0. */
#ifndef FKV_TESTS_AMX_TILES_H
#define FKV_TESTS_AMX_TILES_H

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig stand_in_loadconfig
#define _tile_release stand_in_release
#define _tile_zero stand_in_zero
#define _tile_loadd stand_in_loadd
#define _tile_stored stand_in_stored
#define _tile_dpbf16ps stand_in_dpbf16ps

enum { STAND_IN_TILES = 8, STAND_IN_ROWS = 16, STAND_IN_LINE = 64 };

/* The operand of LDTILECFG, palette 1 (Intel's Software Developer's Manual, LDTILECFG). */
struct stand_in_setup {
    uint8_t palette, start, reserved[14];
    uint16_t line[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct stand_in_setup) == 64, "the operand of LDTILECFG");

/* A thread's tiles; palette 0: none are set up. */
static _Thread_local struct {
    struct stand_in_setup setup;
    unsigned char data[STAND_IN_TILES][STAND_IN_ROWS][STAND_IN_LINE];
} stand_in;

/* What would be a fault. */
static inline void stand_in_check(int holds) {
    if (!holds) abort();
}

static inline void stand_in_zero(int tile) {
    stand_in_check(stand_in.setup.rows[tile] != 0);
    memset(stand_in.data[tile], 0, sizeof stand_in.data[tile]);
}

static inline void stand_in_loadconfig(const void *setup) {
    struct stand_in_setup *s = &stand_in.setup;
    memcpy(s, setup, sizeof *s);
    stand_in_check(s->palette == 1 && s->start == 0);
    for (int t = 0; t < 16; t++) {
        stand_in_check(s->rows[t] <= STAND_IN_ROWS && s->line[t] <= STAND_IN_LINE);
        stand_in_check((s->rows[t] == 0) == (s->line[t] == 0));
        stand_in_check(t < STAND_IN_TILES || s->rows[t] == 0);
    }
    memset(stand_in.data, 0, sizeof stand_in.data);
}

static inline void stand_in_release(void) { memset(&stand_in, 0, sizeof stand_in); }

/* Rows beyond the tile's and bytes beyond its line become 0. */
static inline void stand_in_loadd(int tile, const void *from, size_t stride) {
    const struct stand_in_setup *s = &stand_in.setup;
    stand_in_zero(tile);
    for (int r = 0; r < s->rows[tile]; r++)
        memcpy(stand_in.data[tile][r], (const char *)from + (size_t)r * stride, s->line[tile]);
}

static inline void stand_in_stored(int tile, void *to, size_t stride) {
    const struct stand_in_setup *s = &stand_in.setup;
    stand_in_check(s->rows[tile] != 0);
    for (int r = 0; r < s->rows[tile]; r++)
        memcpy((char *)to + (size_t)r * stride, stand_in.data[tile][r], s->line[tile]);
}

/* sum [rows, columns] += a [rows, words] b [words, columns] */
static inline void stand_in_dpbf16ps(int sum, int a, int b) {
    const struct stand_in_setup *s = &stand_in.setup;
    const int words = s->line[a] / 4;
    stand_in_check(s->palette == 1 && s->rows[sum] == s->rows[a] && s->rows[b] == words &&
                   s->line[sum] == s->line[b] && s->rows[sum] && words && s->line[b]);
    for (int r = 0; r < s->rows[sum]; r++) {
        __m512 row = _mm512_loadu_ps(stand_in.data[sum][r]);
        for (int w = 0; w < words; w++) {
            int32_t word;
            memcpy(&word, &stand_in.data[a][r][4 * w], sizeof word);
            row = _mm512_dpbf16_ps(row, (__m512bh)_mm512_set1_epi32(word),
                                   (__m512bh)_mm512_loadu_si512(stand_in.data[b][w]));
        }
        _mm512_storeu_ps(stand_in.data[sum][r], row);
    }
}

#endif
