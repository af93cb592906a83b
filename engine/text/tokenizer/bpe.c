/* One word -> ids by byte-pair merges.
 *
 * The order is that of Hugging Face tokenizers: the pair of lowest rank first, leftmost first among
 * equals, until no pair of neighbours is a merge. Candidates wait in a binary heap; one whose
 * neighbours have changed since is noticed when it comes up and dropped. That is O(n log n) for a
 * word of n characters, and sentencepiece models, which do not split their text, may hand over a
 * whole book as one word. A bucket per rank was considered and dropped: merges may create pairs of
 * lower rank than their own, so buckets must be revisited and sorted, and once words are short
 (split.c) and repeat (the cache here) the heap no longer shows in a profile. */
#include <string.h>

#include "engine/text/tokenizer/parts.h"

static bool sooner(struct fkv_tok_candidate a, struct fkv_tok_candidate b) {
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void sift_down(struct fkv_tok_candidate *heap, size_t count, size_t i) {
    struct fkv_tok_candidate moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && sooner(heap[child + 1], heap[child])) child++;
        if (!sooner(heap[child], moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

static void sift_up(struct fkv_tok_candidate *heap, size_t i) {
    struct fkv_tok_candidate moved = heap[i];
    for (; i && sooner(moved, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = moved;
}

/* Appends the pair that starts at symbol `at` to the heap's array, if it is a merge. There is
 * always enough space: a word of n symbols has n - 1 pairs at first, and each of at most n - 1
 * merges adds two. */
static bool add_candidate(struct fkv_tok_encoding *w, int64_t at) {
    const struct fkv_tok_symbol *s = w->symbols;
    if (at < 0 || s[at].next < 0) return false;
    const struct fkv_tok_merge *merge = fkv_tok_merge(&w->t->merges, s[at].id, s[s[at].next].id);
    if (merge) w->heap[w->heap_count++] = (struct fkv_tok_candidate){merge->rank, merge->id, at};
    return merge != NULL;
}

static int reserve_heap(struct fkv_tok_encoding *w) {
    struct fkv_tok_candidate *heap =
        fkv_grow(w->heap, &w->heap_capacity, 3 * w->symbol_count, sizeof *heap);
    if (!heap)
        return fkv_fail(w->err, "out of memory for a word of %zu characters", w->symbol_count);
    w->heap = heap;
    return FKV_OK;
}

static int merge_symbols(struct fkv_tok_encoding *w) {
    if (reserve_heap(w)) return FKV_FAILED;
    struct fkv_tok_symbol *s = w->symbols;
    w->heap_count = 0;
    for (size_t i = 0; i < w->symbol_count; i++) add_candidate(w, (int64_t)i);
    for (size_t i = w->heap_count / 2; i-- > 0;) sift_down(w->heap, w->heap_count, i);
    while (w->heap_count) {
        struct fkv_tok_candidate best = w->heap[0];
        w->heap[0] = w->heap[--w->heap_count];
        if (w->heap_count) sift_down(w->heap, w->heap_count, 0);
        struct fkv_tok_symbol *left = &s[best.at];
        if (left->id < 0 || left->next < 0) continue;
        struct fkv_tok_symbol *right = &s[left->next];
        const struct fkv_tok_merge *merge = fkv_tok_merge(&w->t->merges, left->id, right->id);
        if (!merge || merge->id != best.id) continue;
        left->id = best.id;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) s[left->next].previous = best.at;
        if (add_candidate(w, left->previous)) sift_up(w->heap, w->heap_count - 1);
        if (add_candidate(w, best.at)) sift_up(w->heap, w->heap_count - 1);
    }
    for (size_t i = 0; i < w->symbol_count; i++)
        if (s[i].id >= 0 && fkv_tok_push(&w->out, s[i].id, w->err)) return FKV_FAILED;
    return FKV_OK;
}

static void add_symbol(struct fkv_tok_encoding *w, int32_t id) {
    int64_t at = (int64_t)w->symbol_count++;
    w->symbols[at] = (struct fkv_tok_symbol){id, at - 1, -1};
    if (at) w->symbols[at - 1].next = at;
}

/* An unknown character's bytes as "<0xNN>" tokens, if the vocabulary has them all. */
static bool add_bytes(struct fkv_tok_encoding *w, const char *at, size_t bytes) {
    if (!w->t->byte_fallback) return false;
    for (size_t i = 0; i < bytes; i++)
        if (w->t->fallback[(uint8_t)at[i]] < 0) return false;
    for (size_t i = 0; i < bytes; i++) add_symbol(w, w->t->fallback[(uint8_t)at[i]]);
    return true;
}

/* Characters as symbols. An unknown token is held back until the next known character, which lets
 * runs fuse; bytes do not release it. */
static void add_characters(struct fkv_tok_encoding *w, const char *at, size_t bytes) {
    const struct fkv_tokenizer *t = w->t;
    bool held = false;
    for (size_t i = 0, n; i < bytes; i += n) {
        n = fkv_utf8_bytes(at[i]);
        uint32_t c = (uint8_t)at[i];
        if (n == 2) c = (c & 0x1f) << 6 | (at[i + 1] & 0x3f);
        int32_t id = n <= 2 ? t->first[c] : fkv_tok_find(&t->strings, at + i, n);
        if (id >= 0) {
            if (held) add_symbol(w, t->unknown);
            held = false;
            add_symbol(w, id);
        } else if (!add_bytes(w, at + i, n) && t->unknown >= 0) {
            if (held && !t->fuse_unknown) add_symbol(w, t->unknown);
            held = true;
        }
    }
    if (held) add_symbol(w, t->unknown);
}

static int tokenize(struct fkv_tok_encoding *w, const char *at, size_t bytes) {
    const struct fkv_tokenizer *t = w->t;
    if (t->ignore_merges) {
        int32_t id = fkv_tok_find(&t->strings, at, bytes);
        if (id >= 0) return fkv_tok_push(&w->out, id, w->err);
    }
    struct fkv_tok_symbol *symbols =
        fkv_grow(w->symbols, &w->symbol_capacity, bytes, sizeof *symbols);
    if (!symbols) return fkv_fail(w->err, "out of memory for a word of %zu bytes", bytes);
    w->symbols = symbols;
    w->symbol_count = 0;
    add_characters(w, at, bytes);
    return w->symbol_count ? merge_symbols(w) : FKV_OK; /* all unknown, and no unknown token */
}

static int cached(struct fkv_tok_encoding *w, const char *at, size_t bytes) {
    if (!bytes) return FKV_OK;
    bool short_word = bytes <= FKV_TOK_CACHE_WORD;
    struct fkv_tok_cached *kept =
        &w->cache[short_word ? fkv_tok_hash(at, bytes) % FKV_TOK_CACHE_SLOTS : 0];
    if (short_word && kept->bytes == bytes && !memcmp(kept->word, at, bytes)) {
        for (int i = 0; i < kept->count; i++)
            if (fkv_tok_push(&w->out, kept->ids[i], w->err)) return FKV_FAILED;
        return FKV_OK;
    }
    size_t before = w->out.count;
    if (tokenize(w, at, bytes)) return FKV_FAILED;
    size_t count = w->out.count - before;
    if (short_word && count <= FKV_TOK_CACHE_IDS) {
        kept->bytes = (uint8_t)bytes;
        kept->count = (uint8_t)count;
        memcpy(kept->word, at, bytes);
        if (count) memcpy(kept->ids, w->out.at + before, count * sizeof *kept->ids);
    }
    return FKV_OK;
}

/* A sentencepiece model takes the whole text as one word. But almost every such model was trained
 * so that no token continues past a space (U+2581): then no merge ever joins what lies on both
 * sides, and cutting there gives the same ids from short words, which the cache serves. */
int fkv_tok_word(struct fkv_tok_encoding *w, struct fkv_tok_text text) {
    if (!w->t->words_start_at_spaces) return cached(w, text.at, text.bytes);
    const struct fkv_tok_text mark = fkv_tok_mark;
    const char *word = text.at, *end = text.at + text.bytes, *marks_end = text.at;
    for (const char *hit = word; (hit = memmem(hit, (size_t)(end - hit), mark.at, mark.bytes));
         hit += mark.bytes) {
        if (hit != marks_end) {
            if (cached(w, word, (size_t)(hit - word))) return FKV_FAILED;
            word = hit;
        }
        marks_end = hit + mark.bytes;
    }
    return cached(w, word, (size_t)(end - word));
}
