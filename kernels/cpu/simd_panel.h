/* Attention of a panel of query rows (struct fkv_panel), once for every instruction set: included
 * by simd_loops.h for float32 and by simd_panel_avx512bf16.c, which first define what simd_loops.h
 * lists and
 *
 *   vec_max(a, b)         a > b ? a : b, so that b is had where one of them is NaN
 *   PANEL_VECS            vectors of rows in a panel
 *   PANEL_SUMS            slots of a tile of `score`, channels of a tile of `mix`: PANEL_SUMS x
 *                         PANEL_VECS sums must fit the registers
 *   PANEL_STEP            numbers in a word of 32 bits: 1 float32 or 2 bfloat16
 *   panel_fold(a, b, c)   c + the products of the words of a and b
 *   panel_word(e)         vectors e[0 .. PANEL_STEP) as one vector of words
 *   PANEL_EXP(x)          exp(x), x <= 0 or NaN; without it vec_exp, below
 *   PANEL_TABLE           the table to define
 *   PANEL_PACK            its pack_values
 *
 * Query rows are the lanes of all vectors. So keys and values are read as they are stored, one word
 * for all lanes at a time, and nothing of them is transposed; the largest score, the sum of the
 * weights and the rescaling of a row are vertical operations; a row's limits are a mask. Only the
 * queries are transposed, once, and what comes out. (Lanes along the slots ask for transposed keys
 * in every tile; lanes along the channels end every score with a sum across a vector.) */

enum { PANEL = PANEL_VECS * LANES };
typedef uint32_t vec_bits __attribute__((vector_size(4 * LANES)));

#ifndef PANEL_EXP
#define PANEL_EXP vec_exp

/* exp(x), x <= 0 or NaN; see simd_loops.h. */
INLINE vec vec_exp(vec x) {
    const vec magic = vec_set(0x1.8p23f);
    x = vec_max(vec_set(-88.0f), x);
    vec shifted = vec_fma(x, vec_set(1.44269504f), magic), k = shifted - magic;
    vec r = vec_fma(k, vec_set(-0.693359375f), x), e = vec_set(1.9875691500e-4f);
    r = vec_fma(k, vec_set(2.12194440e-4f), r);
    e = vec_fma(e, r, vec_set(1.3981999507e-3f));
    e = vec_fma(e, r, vec_set(8.3334519073e-3f));
    e = vec_fma(e, r, vec_set(4.1665795894e-2f));
    e = vec_fma(e, r, vec_set(1.6666665459e-1f));
    e = vec_fma(e, r, vec_set(5.0000001201e-1f));
    e = vec_fma(e, r, vec_set(1.0f));
    e = vec_fma(e, r, vec_set(1.0f));
    return e * (vec)(((vec_bits)shifted + 127) << 23);
}
#endif

INLINE vec vec_row(const float *x) { return vec_load(x, FKV_F32); }

/* The word at p, of whatever numbers, in all lanes. */
INLINE vec vec_word(const char *p) {
    float word;
    memcpy(&word, p, sizeof word);
    return vec_set(word);
}

/* score [n, PANEL] = bias [n] + key [n, words] q [words, PANEL]; n is a constant. */
INLINE void score_tile(int n, const char *key, int32_t words, const float *q, const float *bias,
                       float *score) {
    vec sum[PANEL_SUMS][PANEL_VECS];
    for (int i = 0; i < n; i++)
        for (int v = 0; v < PANEL_VECS; v++) sum[i][v] = bias ? vec_set(bias[i]) : vec_zero();
    for (int32_t c = 0; c < words; c++) {
        vec in[PANEL_VECS];
        for (int v = 0; v < PANEL_VECS; v++) in[v] = vec_row(q + (size_t)c * PANEL + v * LANES);
        for (int i = 0; i < n; i++) {
            vec word = vec_word(key + ((size_t)i * (size_t)words + (size_t)c) * sizeof(float));
            for (int v = 0; v < PANEL_VECS; v++) sum[i][v] = panel_fold(word, in[v], sum[i][v]);
        }
    }
    for (int i = 0; i < n; i++)
        for (int v = 0; v < PANEL_VECS; v++) vec_store(score + i * PANEL + v * LANES, sum[i][v]);
}

static void panel_score(const void *key, int32_t keys, int32_t words, const float *q,
                        const float *bias, float *score) {
    const char *from = key;
    int32_t i = 0;
    for (int n = PANEL_SUMS; n > 0; n /= 2)
        for (; i + n <= keys; i += n) {
            const char *row = from + (size_t)i * (size_t)words * sizeof(float);
            const float *add = bias ? bias + i : NULL;
            float *to = score + (size_t)i * PANEL;
            if (n == PANEL_SUMS)
                score_tile(PANEL_SUMS, row, words, q, add, to);
            else if (n == 4)
                score_tile(4, row, words, q, add, to);
            else if (n == 2)
                score_tile(2, row, words, q, add, to);
            else
                score_tile(1, row, words, q, add, to);
        }
}

static void panel_mask(float *score, int32_t keys, int32_t slot, const int32_t *low,
                       const int32_t *high) {
    for (int32_t k = 0; k < keys; k++, score += PANEL)
#pragma omp simd
        for (int i = 0; i < PANEL; i++)
            score[i] = slot + k >= low[i] && slot + k < high[i] ? score[i] : -INFINITY;
}

static void panel_soften(float *score, int32_t keys, float *largest, float *sum, float *shrink) {
    for (int v = 0; v < PANEL; v += LANES) {
        vec before = vec_row(largest + v), top = before;
        for (int32_t k = 0; k < keys; k++)
            top = vec_max(vec_row(score + (size_t)k * PANEL + v), top);
        vec_store(largest + v, top);
        /* A row that has seen nothing yet: any finite shift gives weight 0 to every -inf (and keeps
         * a NaN). */
        const vec shift = vec_max(vec_set(-FLT_MAX), top), scale = PANEL_EXP(before - shift);
        vec total = vec_row(sum + v) * scale;
        for (int32_t k = 0; k < keys; k += PANEL_STEP) {
            vec e[PANEL_STEP];
            for (int i = 0; i < PANEL_STEP; i++) {
                e[i] = k + i < keys
                           ? PANEL_EXP(vec_row(score + (size_t)(k + i) * PANEL + v) - shift)
                           : vec_zero();
                total = vec_add(total, e[i]);
            }
            vec_store(score + (size_t)(k / PANEL_STEP) * PANEL + v, panel_word(e));
        }
        vec_store(sum + v, total), vec_store(shrink + v, scale);
    }
}

/* out [n, PANEL] = out shrink + value [keys, n]' weight [keys, PANEL], n a constant. */
INLINE void mix_panel_tile(int n, const float *weight, int32_t words, const char *value,
                           int32_t head_dim, const float *shrink, float *out) {
    vec sum[PANEL_SUMS][PANEL_VECS];
    for (int i = 0; i < n; i++)
        for (int v = 0; v < PANEL_VECS; v++)
            sum[i][v] = vec_row(out + i * PANEL + v * LANES) * vec_row(shrink + v * LANES);
    for (int32_t k = 0; k < words;
         k++, weight += PANEL, value += (size_t)head_dim * sizeof(float)) {
        vec in[PANEL_VECS];
        for (int v = 0; v < PANEL_VECS; v++) in[v] = vec_row(weight + v * LANES);
        for (int i = 0; i < n; i++) {
            vec word = vec_word(value + (size_t)i * sizeof(float));
            for (int v = 0; v < PANEL_VECS; v++) sum[i][v] = panel_fold(word, in[v], sum[i][v]);
        }
    }
    for (int i = 0; i < n; i++)
        for (int v = 0; v < PANEL_VECS; v++) vec_store(out + i * PANEL + v * LANES, sum[i][v]);
}

static void panel_mix(const float *weight, int32_t keys, const void *value, int32_t head_dim,
                      const float *shrink, float *out) {
    const char *from = value;
    const int32_t words = (keys + PANEL_STEP - 1) / PANEL_STEP;
    int32_t c = 0;
    for (; c + PANEL_SUMS <= head_dim; c += PANEL_SUMS)
        mix_panel_tile(PANEL_SUMS, weight, words, from + (size_t)c * sizeof(float), head_dim,
                       shrink, out + (size_t)c * PANEL);
    for (; c + 2 <= head_dim; c += 2)
        mix_panel_tile(2, weight, words, from + (size_t)c * sizeof(float), head_dim, shrink,
                       out + (size_t)c * PANEL);
}

const struct fkv_panel PANEL_TABLE = {
    .rows = PANEL,
    .step = PANEL_STEP,
    .whole = PANEL_STEP,
    .pack_values = PANEL_PACK,
    .score = panel_score,
    .mask = panel_mask,
    .soften = panel_soften,
    .mix = panel_mix,
};
