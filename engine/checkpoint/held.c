/* Why a copy: what the page cache maps, in pages of 4 KiB that are scattered over the memory, is
 * read slower than memory of one piece in huge pages. A file of 270 MB on a virtual machine (EPYC,
 * Zen 4), GB/s on one core and on two: mapped 17 and 24, copied 27 and 29. Decoding is bound by
 * this; blocks of many rows are not. The copy takes as long as decoding two to five tokens, ten
 * times that where the virtual machine has to be given the memory first.
 *
 * Why rounded: products in bfloat16 round weights of another dtype each time they read them, which
 * in decoding takes longer than the product. Rounded beforehand they are the same bits, and half of
 * float32 to read. Block formats stay: they take a quarter to a half of what they would in
 * bfloat16. */
#include "engine/checkpoint/held.h"

enum { LINE = 64 }; /* every weight begins with a cache line */

enum fkv_weight_format fkv_held_rounded(enum fkv_weight_format stored) {
    return stored == FKV_WEIGHT_F32 || stored == FKV_WEIGHT_F16 ? FKV_WEIGHT_BF16 : stored;
}

void fkv_held_create(const struct fkv_backend_ops *ops, struct fkv_backend *backend, int64_t bytes,
                     int32_t weights, int64_t most, struct fkv_held *out) {
    struct fkv_error unused;
    *out = (struct fkv_held){.ops = ops, .backend = backend};
    bytes += (int64_t)weights * LINE;
    if (most >= 0 && bytes > most) return;
    if (ops->buffer_create(backend, (size_t)bytes, &out->buffer, &unused)) out->buffer = NULL;
}

void fkv_held_release(struct fkv_held *h) {
    if (h->buffer) h->ops->buffer_release(h->backend, h->buffer);
    *h = (struct fkv_held){0};
}

/* n values of a dtype at `from` -> bfloat16 at `offset` of the copy */
static int round_values(const struct fkv_held *h, const char *from, enum fkv_dtype dtype, size_t n,
                        size_t offset, struct fkv_error *err) {
    enum { SOME = 4096 };
    float values[SOME];
    uint16_t rounded[SOME];
    for (size_t at = 0; at < n; at += SOME) {
        const size_t count = n - at < SOME ? n - at : SOME;
        fkv_to_f32(from + at * fkv_dtype_bytes(dtype), dtype, count, values);
        fkv_from_f32(values, FKV_BF16, count, rounded);
        if (h->ops->write(h->backend, h->buffer, offset + at * sizeof *rounded, rounded,
                          count * sizeof *rounded, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_held_add(struct fkv_held *h, const void *from, enum fkv_weight_format stored,
                 struct fkv_weight *w, struct fkv_error *err) {
    const size_t n = (size_t)w->rows * (size_t)w->cols, bytes = fkv_weight_bytes(w->format, n);
    w->data = h->buffer;
    w->offset = h->used;
    h->used += (bytes + LINE - 1) / LINE * LINE;
    if (w->format != stored)
        return round_values(h, from, (enum fkv_dtype)stored, n, w->offset, err);
    return h->ops->write(h->backend, h->buffer, w->offset, from, bytes, err);
}
