/* Writing keys and values into the cache (append), rotating rows (rotate), and moving slots inside
 * the cache (gather) with the energies of what stays.
 *
 * append and rotate: a thread per pair of channels that turn together (i, i + head_dim / 2); a
 * 16-bit key is rounded once, after its rotation in float32. Bytes per row and head: 8 head_dim
 * read, 4 head_dim written (16 bits): 4096 rows of 32 heads of 128 are 0.2 GB, 42 us at 4.8 TB/s.
 * Some 170 instructions per pair, a sixth of them in double or a transcendental, are 50 us of issue
 * slots; indices are 32 bits wide, for a division of 64 would be 100 more.
 *
 * gather works in place: a slot is written where another one has still to be read. from[j] >= slot
 * + j and from ascends, so a stretch of slots that is read in full before any of it is written
 * never overwrites what a later stretch reads. A stretch goes through registers between two
 * barriers, and one block has all slots of a (cache head, keys or values, 32 pairs of channels).
 * That bounds the parallelism by heads, which is enough where layers act together; copying to
 * scratch and back would not be bounded, and costs twice the bytes. Heads that act together mostly
 * keep the same slots: a list equal to the one before is staged once. GROUP items go at a time,
 * which bounds the staging of lists that all differ.
 *
 * Energies are summed in double before anything moves, in an order that depends on the sizes alone.
 * Not checked: that slots are in the cache, and that lists ascend.
 *
 * All figures are arithmetic; to be measured on a GPU. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256, PAIRS = 32, GROUP = 64, PARTS = 16 };

/* ---- append and rotate ---- */
/* A pair of channels at x (head_dim / 2 apart) turned by an angle. */
struct pair {
    float low, high;
};
static __device__ struct pair turned(const float *x, int half, float cosine, float sine) {
    struct pair p = {x[0] * cosine - x[half] * sine, x[half] * cosine + x[0] * sine};
    return p;
}

/* `blocks` of them for every item. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    append_kernel(const float *k, const float *v, struct fkv_cuda_cache cache,
                  const struct fkv_append_item *items, int32_t blocks, int32_t kv_heads,
                  int32_t half, const double *inv_freq) {
    struct fkv_append_item item = items[(int32_t)blockIdx.x / blocks];
    uint32_t i = blockIdx.x % (uint32_t)blocks * THREADS +
                 threadIdx.x; /* below 2^32: rows of an item times half */
    int32_t row = (int32_t)(i / (uint32_t)half), c = (int32_t)(i % (uint32_t)half);
    if (row >= item.rows) return;
    size_t d = 2 * (size_t)half;
    size_t from =
        ((size_t)(item.row + row) * (size_t)kv_heads + (size_t)item.kv_head) * d + (size_t)c;
    size_t to = ((size_t)item.cache_head * (size_t)cache.capacity + (size_t)(item.slot + row)) * d +
                (size_t)c;
    float cosine, sine;
    fkv_cuda_turn(item.position + row, inv_freq[c], &cosine, &sine);
    struct pair key = turned(k + from, half, cosine, sine);
    T *key_to = (T *)cache.key + to, *value_to = (T *)cache.value + to;
    key_to[0] = fkv_cuda_from_float<T>(key.low);
    key_to[half] = fkv_cuda_from_float<T>(key.high);
    value_to[0] = fkv_cuda_from_float<T>(v[from]);
    value_to[half] = fkv_cuda_from_float<T>(v[from + (size_t)half]);
}

int fkv_cuda_append(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                    const struct fkv_buffer *k, const struct fkv_buffer *v,
                    const struct fkv_cache *cache, const struct fkv_append_item *items,
                    int32_t count, struct fkv_error *err) {
    const struct fkv_append_item *staged;
    const double *inv_freq;
    int32_t rows = 0, half = shape->head_dim / 2;
    for (int32_t i = 0; i < count; i++) rows = max(rows, items[i].rows);
    if (!rows) return FKV_OK;
    if (fkv_cuda_stage(b, items, count, &staged, err) ||
        fkv_cuda_frequencies(b, shape, &inv_freq, err))
        return FKV_FAILED;
    if (cache->quant)
        return fkv_cuda_append_rounded(b, shape, k, v, cache, staged, count, rows, inv_freq, err);
    int32_t blocks = (int32_t)(((int64_t)rows * half + THREADS - 1) / THREADS);
    return fkv_cuda_launch(b, "append",
                           fkv_cuda_pick(cache->dtype, append_kernel<float>, append_kernel<__half>,
                                         append_kernel<__nv_bfloat16>),
                           dim3((unsigned)count * (unsigned)blocks), dim3(THREADS), 0, err,
                           (const float *)k->data, (const float *)v->data, fkv_cuda_cache(cache),
                           staged, blocks, shape->kv_heads, half, inv_freq);
}

/* x and out from the first row on. */
static __global__ void __launch_bounds__(THREADS)
    rotate_kernel(const float *x, int64_t pairs, int32_t heads, int32_t half, double position,
                  const double *inv_freq, float gain, float *out) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= pairs) return;
    int32_t c = (int32_t)(i % half);
    int64_t at = i / half * 2 * half + c;
    float cosine, sine;
    fkv_cuda_turn(position + (double)(i / half / heads), inv_freq[c], &cosine, &sine);
    struct pair p = turned(x + at, half, cosine, sine);
    out[at] = gain * p.low;
    out[at + half] = gain * p.high;
}

int fkv_cuda_rotate(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                    const struct fkv_buffer *x, int32_t row, int32_t rows, int32_t heads,
                    double position, struct fkv_buffer *out, struct fkv_error *err) {
    const double *inv_freq;
    if (rows == 0) return FKV_OK;
    if (fkv_cuda_frequencies(b, shape, &inv_freq, err)) return FKV_FAILED;
    int64_t pairs = (int64_t)rows * heads * (shape->head_dim / 2);
    size_t first = (size_t)row * (size_t)heads * (size_t)shape->head_dim;
    return fkv_cuda_launch(
        b, "rotate", rotate_kernel, dim3((unsigned)((pairs + THREADS - 1) / THREADS)),
        dim3(THREADS), 0, err, (const float *)x->data + first, pairs, heads, shape->head_dim / 2,
        position, inv_freq, shape->rotary ? shape->gain : 1, (float *)out->data + first);
}

/* ---- gather ---- */
/* What the kernels of gather see of up to GROUP items, whose lists of slots are on the device. */
struct moving {
    struct fkv_cuda_cache cache;
    const struct fkv_gather_item *items;
    int32_t head_dim;
};

template <typename T>
__device__ inline T *head_of(const struct moving *m, const struct fkv_gather_item *item,
                             bool value) {
    return (T *)(value ? m->cache.value : m->cache.key) +
           (size_t)item->cache_head * (size_t)m->cache.capacity * (size_t)m->head_dim;
}

/* Block (part of PARTS, quantity, item): a part of one number of struct fkv_energy, in the order of
 * its fields -> parts [items, 4, PARTS]. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    part_energy_kernel(struct moving m, double *parts) {
    int32_t part = (int32_t)blockIdx.x % PARTS, quantity = (int32_t)blockIdx.x / PARTS % 4;
    const struct fkv_gather_item *item = m.items + (int32_t)blockIdx.x / PARTS / 4;
    bool kept = quantity % 2;
    const T *head = head_of<T>(&m, item, quantity / 2);
    int64_t slots = item->count == 0 ? 0
                    : kept           ? item->count
                                     : item->from[item->count - 1] - item->slot + 1;
    uint32_t d = (uint32_t)m.head_dim, last = (uint32_t)(slots * (part + 1) / PARTS) * d;
    double sum = 0;
    for (uint32_t i = (uint32_t)(slots * part / PARTS) * d + threadIdx.x; i < last; i += THREADS) {
        int32_t slot = (int32_t)(i / d);
        double x = fkv_cuda_to_float(
            head[(int64_t)(kept ? item->from[slot] : item->slot + slot) * m.head_dim + i % d]);
        sum += x * x;
    }
    sum = fkv_cuda_block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS)
    energy_kernel(const double *parts, int32_t count, double *energy) {
    int32_t i = (int32_t)(blockIdx.x * THREADS + threadIdx.x);
    if (i >= 4 * count) return;
    double sum = 0;
    for (int32_t part = 0; part < PARTS; part++) sum += parts[i * PARTS + part];
    energy[i] = sum;
}

/* Block (PAIRS of channels, keys or values, item); RUN slots at a time go through registers. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    move_kernel(struct moving m, int32_t columns, const double *inv_freq) {
    const int DEEP = 8, ROWS = THREADS / PAIRS, RUN = DEEP * ROWS;
    int32_t column = (int32_t)blockIdx.x % columns, half = m.head_dim / 2;
    bool value = (int32_t)blockIdx.x / columns % 2;
    const struct fkv_gather_item *item = m.items + (int32_t)blockIdx.x / columns / 2;
    int32_t c = column * PAIRS + (int32_t)threadIdx.x % PAIRS, row = (int32_t)threadIdx.x / PAIRS,
            count = item->count;
    bool turn = !value && item->shift != 0;
    T *head = head_of<T>(&m, item, value) + c;
    float cosine = 1, sine = 0;
    if (turn && c < half) fkv_cuda_turn(item->shift, inv_freq[c], &cosine, &sine);
    for (int32_t first = row; first - row < count; first += RUN) {
        T low[DEEP], high[DEEP];
#pragma unroll
        for (int i = 0; i < DEEP; i++)
            if (first + ROWS * i < count && c < half) {
                const T *from = head + (size_t)item->from[first + ROWS * i] * (size_t)m.head_dim;
                low[i] = from[0], high[i] = from[half];
            }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < DEEP; i++)
            if (first + ROWS * i < count && c < half) {
                T *to = head + (size_t)(item->slot + first + ROWS * i) * (size_t)m.head_dim;
                if (turn) {
                    float x = fkv_cuda_to_float(low[i]), y = fkv_cuda_to_float(high[i]);
                    low[i] = fkv_cuda_from_float<T>(x * cosine - y * sine);
                    high[i] = fkv_cuda_from_float<T>(y * cosine + x * sine);
                }
                to[0] = low[i], to[half] = high[i];
            }
        __syncthreads();
    }
}

/* Items with their lists on the device. */
static int stage_moves(struct fkv_backend *b, const struct fkv_gather_item *items, int32_t count,
                       const struct fkv_gather_item **staged, struct fkv_error *err) {
    struct fkv_gather_item group[GROUP];
    for (int32_t i = 0; i < count; i++) {
        group[i] = items[i];
        bool same = i && items[i].count == items[i - 1].count &&
                    !memcmp(items[i].from, items[i - 1].from,
                            (size_t)items[i].count * sizeof *items[i].from);
        if (same)
            group[i].from = group[i - 1].from;
        else if (fkv_cuda_stage(b, items[i].from, items[i].count, &group[i].from, err))
            return FKV_FAILED;
    }
    return fkv_cuda_stage(b, group, count, staged, err);
}

/* Up to GROUP items; their energies, where asked for, to `energy` on the device. */
static int gather_group(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                        const struct fkv_cache *cache, const struct fkv_gather_item *items,
                        int32_t count, const double *inv_freq, double *energy,
                        struct fkv_error *err) {
    struct moving m = {fkv_cuda_cache(cache), NULL, shape->head_dim};
    if (stage_moves(b, items, count, &m.items, err)) return FKV_FAILED;
    double *parts = (double *)b->scratch;
    if (energy && (fkv_cuda_launch(
                       b, "energies of a gather",
                       fkv_cuda_pick(cache->dtype, part_energy_kernel<float>,
                                     part_energy_kernel<__half>, part_energy_kernel<__nv_bfloat16>),
                       dim3((unsigned)count * 4 * PARTS), dim3(THREADS), 0, err, m, parts) ||
                   fkv_cuda_launch(b, "energies of a gather", energy_kernel,
                                   dim3((unsigned)(4 * count + THREADS - 1) / THREADS),
                                   dim3(THREADS), 0, err, (const double *)parts, count, energy)))
        return FKV_FAILED;
    int32_t columns = (shape->head_dim / 2 + PAIRS - 1) / PAIRS, turned = 0;
    if (fkv_cuda_launch(b, "gather",
                        fkv_cuda_pick(cache->dtype, move_kernel<float>, move_kernel<__half>,
                                      move_kernel<__nv_bfloat16>),
                        dim3((unsigned)count * 2 * (unsigned)columns), dim3(THREADS), 0, err, m,
                        columns, inv_freq))
        return FKV_FAILED;
    for (int32_t i = 0; i < count; i++)
        if (items[i].shift != 0) turned = max(turned, items[i].count);
    if (!cache->quant || cache->quant_before || !turned) return FKV_OK;
    return fkv_cuda_round_gathered(b, shape, cache, m.items, count, turned, err);
}

static_assert(sizeof(struct fkv_energy) == 4 * sizeof(double),
              "the kernels write its fields as four doubles");

size_t fkv_cuda_gather_staging(const struct fkv_limits *limits) {
    return (size_t)min(limits->items, (int32_t)GROUP) * (size_t)limits->slots * sizeof(int32_t);
}

size_t fkv_cuda_cache_scratch(const struct fkv_limits *limits) {
    return GROUP * 4 * PARTS * sizeof(double) + (size_t)limits->items * sizeof(struct fkv_energy);
}

int fkv_cuda_gather(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                    const struct fkv_cache *cache, const struct fkv_gather_item *items,
                    int32_t count, struct fkv_energy *energy, struct fkv_error *err) {
    const double *inv_freq;
    if (fkv_cuda_outside_step(b, "gather", err) || fkv_cuda_frequencies(b, shape, &inv_freq, err))
        return FKV_FAILED;
    double *all = (double *)b->scratch + GROUP * 4 * PARTS;
    for (int32_t i = 0; i < count; i += GROUP) {
        fkv_cuda_staging_restart(b); /* copied over only after the group before has run */
        if (gather_group(b, shape, cache, items + i, min(count - i, (int32_t)GROUP), inv_freq,
                         energy ? all + 4 * i : NULL, err))
            return FKV_FAILED;
    }
    if (!energy || !count) return FKV_OK;
    if (fkv_cuda_check(cudaMemcpyAsync(energy, all, (size_t)count * sizeof *energy,
                                       cudaMemcpyDeviceToHost, b->stream),
                       "gather", err))
        return FKV_FAILED;
    return fkv_cuda_wait(b, "gather", err);
}
