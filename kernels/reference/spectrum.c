/* Linear maps along tokens, and power spectra.
 *
 * FreqKV's operator as one matrix: with the orthonormal basis psi_n(t, i) = c_t sqrt(2/n) cos(pi t
 * (i + 1/2) / n),
 *
 *   M[j][i] = gain sum_(t < L) psi_L(t, j) psi_n(t, i)
 *           = gain / sqrt(n L) (D(alpha - beta) + D(alpha + beta)),
 *   alpha = pi (j + 1/2) / L,  beta = pi (i + 1/2) / n,
 *   D(theta) = 1/2 + sum_(t=1)^(L-1) cos(t theta) = sin((L - 1/2) theta) / (2 sin(theta / 2)),
 *
 * by 2 cos a cos b = cos(a - b) + cos(a + b) and Dirichlet's kernel. Summing over t instead takes L
 * times as long and is less exact. */
#include <math.h>
#include <stdlib.h>

#include "kernels/reference/reference.h"

struct fkv_map {
    int32_t n, retained;
    double *key;   /* [retained, n] */
    double *value; /* the same shape; memory of `key` */
};

/* D(theta) for theta = pi numerator / (2 n L); the numerator is a whole number, so theta = 0 is
 * seen exactly. */
static double dirichlet(int64_t numerator, int32_t n, int32_t retained) {
    double theta = acos(-1) * (double)numerator / (2.0 * n * retained);
    return numerator ? sin((retained - 0.5) * theta) / (2 * sin(theta / 2)) : retained - 0.5;
}

/* A map with memory for so many matrices, 1 or 2. */
static int create_map(int32_t n, int32_t retained, int32_t matrices, struct fkv_map **out,
                      struct fkv_error *err) {
    *out = NULL;
    if (retained < 1 || retained > n)
        return fkv_fail(err, "map: expected 1 <= L <= n, found L = %d, n = %d", retained, n);
    const size_t count = (size_t)n * (size_t)retained;
    struct fkv_map *map = malloc(sizeof *map);
    double *memory = malloc((size_t)matrices * count * sizeof *memory);
    if (!map || !memory) {
        free(map);
        free(memory);
        return fkv_fail(err, "map: no memory for %d x %d", retained, n);
    }
    *map = (struct fkv_map){n, retained, memory, memory + (matrices > 1 ? count : 0)};
    *out = map;
    return FKV_OK;
}

int fkv_reference_map_matrix(struct fkv_backend *b, int32_t n, int32_t retained, const float *key,
                             const float *value, struct fkv_map **out, struct fkv_error *err) {
    (void)b;
    if (create_map(n, retained, key == value ? 1 : 2, out, err)) return FKV_FAILED;
    for (size_t i = 0; i < (size_t)n * (size_t)retained; i++) {
        (*out)->key[i] = key[i];
        (*out)->value[i] = value[i];
    }
    return FKV_OK;
}

int fkv_reference_map_dct(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                          struct fkv_map **out, struct fkv_error *err) {
    (void)b;
    if (create_map(n, retained, 1, out, err)) return FKV_FAILED;
    double scale = gain / sqrt((double)n * retained);
    for (int32_t j = 0; j < retained; j++)
        for (int32_t i = 0; i < n; i++) {
            int64_t alpha = (2 * (int64_t)j + 1) * n, beta = (2 * (int64_t)i + 1) * retained;
            (*out)->key[(size_t)j * (size_t)n + (size_t)i] =
                scale *
                (dirichlet(alpha - beta, n, retained) + dirichlet(alpha + beta, n, retained));
        }
    return FKV_OK;
}

void fkv_reference_map_release(struct fkv_backend *b, struct fkv_map *map) {
    (void)b;
    if (map) free(map->key);
    free(map);
}

/* Slots [slot, slot+count) of one head as doubles x [count, head_dim]; keys turned back from
 * position + i, values (turned = false) as they are. */
static void load_slots(const struct fkv_attention_shape *shape, const struct fkv_cache *cache,
                       const struct fkv_buffer *buffer, int32_t cache_head, int32_t slot,
                       int32_t count, bool turned, double position, double *x) {
    size_t d = (size_t)shape->head_dim, at = fkv_reference_slot(shape, cache, cache_head, slot);
    for (int32_t i = 0; i < count; i++) {
        double *row = x + (size_t)i * d;
        for (size_t c = 0; c < d; c++)
            row[c] = fkv_reference_load(buffer->data + cache->offset, cache->dtype,
                                        at + (size_t)i * d + c);
        if (turned) fkv_reference_turn(shape, -(position + i), row);
    }
}

static void store_row(const struct fkv_attention_shape *shape, const struct fkv_cache *cache,
                      struct fkv_buffer *buffer, int32_t cache_head, int32_t slot,
                      const double *row) {
    size_t at = fkv_reference_slot(shape, cache, cache_head, slot);
    for (size_t c = 0; c < (size_t)shape->head_dim; c++)
        fkv_reference_store(buffer->data + cache->offset, cache->dtype, at + c, row[c]);
}

static double sum_of_squares(const double *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += x[i] * x[i];
    return sum;
}

/* Keys (turned = true) or values of one head: y = M x. DCT_n is orthogonal and IDCT_L an isometry,
 * so a DCT map's rows are orthogonal, gain long, and `kept` is what the L lowest coefficients hold.
 * x [n + 1, head_dim] is scratch, its last row the output row. */
static void compress_state(const struct fkv_attention_shape *shape, const struct fkv_map *map,
                           const struct fkv_cache *cache, struct fkv_buffer *buffer,
                           const struct fkv_compress_item *item, bool turned, double *x,
                           double *before, double *kept) {
    size_t d = (size_t)shape->head_dim;
    double *row = x + (size_t)map->n * d;
    load_slots(shape, cache, buffer, item->cache_head, item->slot, map->n, turned, item->position,
               x);
    *before = sum_of_squares(x, (size_t)map->n * d);
    *kept = 0;
    for (int32_t j = 0; j < map->retained; j++) {
        const double *m = (turned ? map->key : map->value) + (size_t)j * (size_t)map->n,
                     length = sum_of_squares(m, (size_t)map->n);
        for (size_t c = 0; c < d; c++) row[c] = 0;
        for (size_t i = 0; i < (size_t)map->n; i++)
            for (size_t c = 0; c < d; c++) row[c] += m[i] * x[i * d + c];
        if (length > 0) *kept += sum_of_squares(row, d) / length;
        if (!turned || cache->quant_before) fkv_reference_round(cache->quant, d, row);
        if (turned) fkv_reference_turn(shape, item->position + j, row);
        if (turned && !cache->quant_before) fkv_reference_round(cache->quant, d, row);
        store_row(shape, cache, buffer, item->cache_head, item->slot + j, row);
    }
}

int fkv_reference_compress(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                           const struct fkv_map *map, const struct fkv_cache *cache,
                           const struct fkv_compress_item *items, int32_t count,
                           struct fkv_energy *energy, struct fkv_error *err) {
    double *x = fkv_reference_scratch(b, ((size_t)map->n + 1) * (size_t)shape->head_dim, err);
    if (!x) return FKV_FAILED;
    for (int32_t i = 0; i < count; i++) {
        struct fkv_energy e;
        compress_state(shape, map, cache, cache->key, &items[i], true, x, &e.key_before,
                       &e.key_kept);
        compress_state(shape, map, cache, cache->value, &items[i], false, x, &e.value_before,
                       &e.value_kept);
        if (energy) energy[i] = e;
    }
    return FKV_OK;
}

/* Keys are turned only by the shift: neither their length nor the order of the moves depends on
 * where they were. */
static void gather_state(const struct fkv_attention_shape *shape, const struct fkv_cache *cache,
                         struct fkv_buffer *buffer, const struct fkv_gather_item *item,
                         double shift, double *row, double *before, double *kept) {
    size_t d = (size_t)shape->head_dim;
    *before = *kept = 0;
    for (int32_t slot = item->slot; item->count && slot <= item->from[item->count - 1]; slot++) {
        load_slots(shape, cache, buffer, item->cache_head, slot, 1, false, 0, row);
        *before += sum_of_squares(row, d);
    }
    for (int32_t j = 0; j < item->count; j++) {
        load_slots(shape, cache, buffer, item->cache_head, item->from[j], 1, false, 0, row);
        *kept += sum_of_squares(row, d);
        if (shift != 0) fkv_reference_turn(shape, shift, row);
        if (shift != 0 && !cache->quant_before) fkv_reference_round(cache->quant, d, row);
        store_row(shape, cache, buffer, item->cache_head, item->slot + j, row);
    }
}

int fkv_reference_gather(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                         const struct fkv_cache *cache, const struct fkv_gather_item *items,
                         int32_t count, struct fkv_energy *energy, struct fkv_error *err) {
    double *row = fkv_reference_scratch(b, (size_t)shape->head_dim, err);
    if (!row) return FKV_FAILED;
    for (int32_t i = 0; i < count; i++) {
        struct fkv_energy e;
        gather_state(shape, cache, cache->key, &items[i], items[i].shift, row, &e.key_before,
                     &e.key_kept);
        gather_state(shape, cache, cache->value, &items[i], 0, row, &e.value_before, &e.value_kept);
        if (energy) energy[i] = e;
    }
    return FKV_OK;
}

/* Variance of channel x [n] (stride floats apart); exactly 0 for a constant one, which rounding in
 * the mean would hide. */
static double variance(const float *x, size_t stride, int32_t n) {
    double mean = 0, sum = 0;
    bool constant = true;
    for (size_t i = 0; i < (size_t)n; i++) {
        mean += x[i * stride] / (double)n;
        constant &= x[i * stride] == x[0];
    }
    for (size_t i = 0; i < (size_t)n; i++) sum += (x[i * stride] - mean) * (x[i * stride] - mean);
    return constant ? 0 : sum / n;
}

/* cos(pi m / 2n) over its period of 4n */
static void fill_cosine(int32_t n, double *cosine) {
    for (int64_t m = 0; m < 4 * (int64_t)n; m++) cosine[m] = cos(acos(-1) * (double)m / (2.0 * n));
}

/* The contract's `power`; first points at the first row's first channel. */
static void measure_power(const double *cosine, const float *first, size_t stride, int32_t n,
                          int32_t heads, int32_t head_dim, double *power, double *normalised) {
    for (int64_t i = 0; i < (int64_t)heads * n; i++) {
        power[i] = 0;
        if (normalised) normalised[i] = 0;
    }
    for (int64_t channel = 0; channel < (int64_t)heads * head_dim; channel++) {
        int64_t head = channel / head_dim;
        double spread = variance(first + channel, stride, n);
        for (int64_t t = 0; t < n; t++) {
            double y = 0;
            for (int64_t j = 0; j < n; j++)
                y += first[channel + j * (int64_t)stride] *
                     cosine[t * (2 * j + 1) % (4 * (int64_t)n)];
            double square = y * y * (t ? 2.0 : 1.0) / n / head_dim;
            power[head * n + t] += square;
            if (normalised && spread > 0) normalised[head * n + t] += square / spread;
        }
    }
}

int fkv_reference_power(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset,
                        size_t stride, int32_t n, int32_t heads, int32_t head_dim, double *power,
                        double *normalised, struct fkv_error *err) {
    double *cosine = fkv_reference_scratch(b, 4 * (size_t)n, err);
    if (!cosine) return FKV_FAILED;
    fill_cosine(n, cosine);
    measure_power(cosine, (const float *)(x->data + offset), stride, n, heads, head_dim, power,
                  normalised);
    return FKV_OK;
}

int fkv_reference_spectra_add(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset,
                              size_t stride, int32_t n, int32_t heads, int32_t head_dim,
                              struct fkv_buffer *sums, size_t at, struct fkv_error *err) {
    struct fkv_spectra_layout l = fkv_spectra_layout(heads, n, head_dim);
    size_t spectrum = (size_t)heads * (size_t)n, channels = (size_t)heads * (size_t)head_dim;
    double *cosine = fkv_reference_scratch(b, 4 * (size_t)n + 2 * spectrum, err),
           *sum = (double *)(sums->data + at);
    if (!cosine) return FKV_FAILED;
    double *power = cosine + 4 * (size_t)n, *normalised = power + spectrum;
    const float *first = (const float *)(x->data + offset);
    fill_cosine(n, cosine);
    measure_power(cosine, first, stride, n, heads, head_dim, power, normalised);
    for (size_t i = 0; i < spectrum; i++) {
        sum[l.power + i] += power[i];
        sum[l.squares + i] += power[i] * power[i];
        sum[l.normalised + i] += normalised[i];
    }
    for (size_t j = 0; j < (size_t)n; j++)
        for (size_t c = 0; c < channels; c++) {
            double value = first[j * stride + c];
            sum[l.means + c] += value / n;
            sum[l.energy + c / (size_t)head_dim] += value * value;
        }
    return FKV_OK;
}
