/* Token strings <-> ids and pairs of ids -> merges: open addressing with linear probing, at most
 * half full, sized once when the file is read. Llama-3's 280,000 merges take 16 MiB and a look-up
 * is one or two cache lines. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"

/* Eight bytes at a time through a multiply and an xor-shift: enough for look-ups, no defence
 * against crafted collisions. */
uint64_t fkv_tok_hash(const char *at, size_t bytes) {
    uint64_t h = bytes * 0x9e3779b97f4a7c15u;
    for (; bytes >= 8; at += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t word = 0;
    memcpy(&word, at, bytes);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    return h ^ h >> 32;
}

static size_t slots_for(size_t count) {
    size_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    return slots;
}

int fkv_tok_strings_init(struct fkv_tok_strings *s, int32_t ids, size_t vocabulary,
                         struct fkv_error *err) {
    size_t slots = slots_for(vocabulary);
    s->ids = ids;
    s->start = calloc((size_t)ids, sizeof *s->start);
    s->length = malloc((size_t)ids * sizeof *s->length);
    s->slots = malloc(slots * sizeof *s->slots);
    s->slot_mask = slots - 1;
    if (!s->start || !s->length || !s->slots)
        return fkv_fail(err, "out of memory for a vocabulary of %d", (int)ids);
    memset(s->length, 0xff, (size_t)ids * sizeof *s->length);
    memset(s->slots, 0xff, slots * sizeof *s->slots);
    return FKV_OK;
}

int fkv_tok_strings_set(struct fkv_tok_strings *s, int32_t id, struct fkv_tok_text text,
                        struct fkv_error *err) {
    s->start[id] = s->bytes.count;
    s->length[id] = (int32_t)text.bytes;
    return fkv_bytes_append(&s->bytes, text.at, text.bytes, err);
}

void fkv_tok_strings_index(struct fkv_tok_strings *s, int32_t id) {
    size_t slot = fkv_tok_hash(s->bytes.at + s->start[id], (size_t)s->length[id]) & s->slot_mask;
    while (s->slots[slot] >= 0) slot = (slot + 1) & s->slot_mask;
    s->slots[slot] = id;
}

int32_t fkv_tok_find(const struct fkv_tok_strings *s, const char *at, size_t bytes) {
    for (size_t slot = fkv_tok_hash(at, bytes) & s->slot_mask;; slot = (slot + 1) & s->slot_mask) {
        int32_t id = s->slots[slot];
        if (id < 0 ||
            ((size_t)s->length[id] == bytes && !memcmp(s->bytes.at + s->start[id], at, bytes)))
            return id;
    }
}

struct fkv_tok_text fkv_tok_string(const struct fkv_tok_strings *s, int32_t id) {
    if (id < 0 || id >= s->ids || s->length[id] < 0) return (struct fkv_tok_text){NULL, 0};
    return (struct fkv_tok_text){s->bytes.at + s->start[id], (size_t)s->length[id]};
}

void fkv_tok_strings_free(struct fkv_tok_strings *s) {
    free(s->bytes.at);
    free(s->start);
    free(s->length);
    free(s->slots);
    *s = (struct fkv_tok_strings){0};
}

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t pair_slot(const struct fkv_tok_merges *m, uint64_t pair) {
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 32) & m->mask;
}

int fkv_tok_merges_init(struct fkv_tok_merges *m, size_t count, struct fkv_error *err) {
    size_t slots = slots_for(count);
    m->mask = slots - 1;
    m->slots = malloc(slots * sizeof *m->slots);
    if (!m->slots) return fkv_fail(err, "out of memory for %zu merges", count);
    memset(m->slots, 0xff, slots * sizeof *m->slots);
    return FKV_OK;
}

/* A pair given twice keeps its last rank, as in Hugging Face tokenizers. */
void fkv_tok_merges_set(struct fkv_tok_merges *m, int32_t left, int32_t right, int32_t rank,
                        int32_t id) {
    uint64_t pair = pair_of(left, right);
    size_t slot = pair_slot(m, pair);
    while (m->slots[slot].pair != UINT64_MAX && m->slots[slot].pair != pair)
        slot = (slot + 1) & m->mask;
    m->slots[slot] = (struct fkv_tok_merge){pair, rank, id};
}

const struct fkv_tok_merge *fkv_tok_merge(const struct fkv_tok_merges *m, int32_t left,
                                          int32_t right) {
    uint64_t pair = pair_of(left, right);
    for (size_t slot = pair_slot(m, pair);; slot = (slot + 1) & m->mask) {
        if (m->slots[slot].pair == pair) return &m->slots[slot];
        if (m->slots[slot].pair == UINT64_MAX) return NULL;
    }
}
