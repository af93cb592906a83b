/* What the files for AMX share. A tile is up to sixteen rows of up to 64 bytes, here of words: two
 * bfloat16 that a product adds up. Tiles are a thread's registers: whoever uses them (oneDNN does
 * too) sets them up first. */
#ifndef FKV_KERNELS_CPU_SIMD_AMX_H
#define FKV_KERNELS_CPU_SIMD_AMX_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* Rows of a tile and words of its rows; bytes of a row; numbers of a row. */
enum { SIDE = 16, LINE = 64, PAIRS = 32, TILES = 8 };

struct tile_setup {
    uint8_t palette, start, reserved[14];
    uint16_t line[SIDE]; /* bytes of a row */
    uint8_t rows[SIDE];
};

/* All tiles of `rows` rows of 64 bytes. */
INLINE struct tile_setup tiles_of(int32_t rows) {
    struct tile_setup s = {.palette = 1};
    for (int t = 0; t < TILES; t++) s.line[t] = LINE, s.rows[t] = (uint8_t)rows;
    return s;
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
    for (int i = 0; i < SIDE / 2; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

#endif
