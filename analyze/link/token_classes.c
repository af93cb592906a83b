/* Owns classes by ids where a file has none (token_classes.h). Ids are sorted with their indices
 * rather than hashed: runs of equal ids, and of equal pairs, then tell all three classes. */
#include "analyze/link/token_classes.h"

#include <stdlib.h>
#include <string.h>

const char *const fkv_class_names[FKV_CLASSES] = {"all",        "digit",           "punctuation",
                                                  "word start", "continuation",    "rare",
                                                  "copied",     "first occurrence"};

enum { RARE = 16, COPIED = 32, FIRST = 64, RARE_ONE_IN = 10000 };

struct keyed_token {
    uint64_t key;  /* an id, or a pair of ids */
    int64_t index; /* of the token */
};

static int by_key_and_index(const void *a, const void *b) {
    const struct keyed_token *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

int fkv_classes_by_ids(const int32_t *tokens, int64_t n, uint8_t *classes, struct fkv_error *err) {
    struct keyed_token *keyed = malloc(((size_t)n + 1) * sizeof *keyed);
    if (!keyed) return fkv_fail(err, "out of memory for the classes of %lld tokens", (long long)n);
    for (int64_t i = 0; i < n; i++)
        keyed[i] = (struct keyed_token){(uint32_t)tokens[i], i}, classes[i] = 0;
    qsort(keyed, (size_t)n, sizeof *keyed, by_key_and_index);
    for (int64_t first = 0, end; first < n; first = end) {
        for (end = first; end < n && keyed[end].key == keyed[first].key;) end++;
        bool rare = end - first == 1 || (end - first) * RARE_ONE_IN < n;
        for (int64_t i = first; i < end && rare; i++) classes[keyed[i].index] |= RARE;
        classes[keyed[first].index] |= FIRST;
    }
    for (int64_t i = 1; i < n; i++)
        keyed[i - 1] =
            (struct keyed_token){(uint64_t)(uint32_t)tokens[i - 1] << 32 | (uint32_t)tokens[i], i};
    qsort(keyed, n ? (size_t)n - 1 : 0, sizeof *keyed, by_key_and_index);
    for (int64_t i = 1; i < n - 1; i++)
        if (keyed[i].key == keyed[i - 1].key) classes[keyed[i].index] |= COPIED;
    free(keyed);
    return FKV_OK;
}

struct fkv_interval fkv_damage_of_class(const struct fkv_damage *d, int32_t change, int c,
                                        double *se, int64_t *tokens, double *scratch) {
    const struct fkv_probe *p = d->probe;
    double *sums = scratch, *counts = scratch + d->units.count;
    memset(scratch, 0, 2 * (size_t)d->units.count * sizeof *scratch);
    *tokens = 0;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        const float *nll = window->nll + (int64_t)change * p->score;
        for (int32_t i = 0; i < p->score; i++) { /* element i is about token P + 1 + i */
            if (c &&
                !(window->token_class && fkv_class_has(window->token_class[p->prefix + 1 + i], c)))
                continue;
            const int64_t unit = fkv_damage_unit(d, w, i);
            sums[unit] += (double)nll[i] - window->untouched_nll[i];
            counts[unit] += 1;
            ++*tokens;
        }
    }
    return fkv_ratio_interval(&d->units, sums, counts, se);
}
