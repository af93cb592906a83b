/* Finding added tokens in a text as Hugging Face tokenizers do (there an Aho-Corasick automaton,
 * leftmost and longest match): at every position the tokens that begin with that byte are tried,
 * longest first. Added tokens begin with one or two distinct bytes ('<', '['), which are rare in
 * prose, so a table by first byte does the automaton's work.
 *
 * Two of its habits are kept on purpose: a match that `single_word` rejects is passed over whole,
 * so nothing is found inside it; and whitespace that `rstrip` takes is searched for further tokens
 * all the same. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"

/* By first byte, longest first; among normalized tokens that became equal, special ones and then
 * earlier ones win. */
static int compare(const void *a, const void *b) {
    const struct fkv_tok_added *x = a, *y = b;
    int bytes = (int)(uint8_t)x->content.at[0] - (int)(uint8_t)y->content.at[0];
    if (bytes) return bytes;
    if (x->content.bytes != y->content.bytes) return x->content.bytes > y->content.bytes ? -1 : 1;
    if (x->special != y->special) return x->special ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

void fkv_tok_added_sort(struct fkv_tok_added_set *set) {
    if (set->count) qsort(set->tokens, (size_t)set->count, sizeof *set->tokens, compare);
    for (int byte = 0, i = 0; byte <= 256; byte++) {
        while (i < set->count && (uint8_t)set->tokens[i].content.at[0] < byte) i++;
        set->first[byte] = i;
    }
}

static const struct fkv_tok_added *match(const struct fkv_tok_cut *cut, size_t at) {
    uint8_t byte = (uint8_t)cut->text.at[at];
    for (int i = cut->set->first[byte]; i < cut->set->first[byte + 1]; i++) {
        const struct fkv_tok_added *token = &cut->set->tokens[i];
        if (token->content.bytes <= cut->text.bytes - at &&
            !memcmp(cut->text.at + at, token->content.at, token->content.bytes))
            return token;
    }
    return NULL;
}

static bool stands_alone(struct fkv_tok_text text, size_t start, size_t stop) {
    if (start && fkv_tok_word_at(text, fkv_utf8_before(text.at, start))) return false;
    return stop == text.bytes || !fkv_tok_word_at(text, stop);
}

void fkv_tok_cut_start(struct fkv_tok_cut *cut, const struct fkv_tok_added_set *set,
                       struct fkv_tok_text text) {
    *cut = (struct fkv_tok_cut){.set = set, .text = text, .pending = -1};
}

/* Where the next added token counts from and to, with the whitespace it takes. */
static const struct fkv_tok_added *find(struct fkv_tok_cut *cut, size_t *start, size_t *stop) {
    struct fkv_tok_text text = cut->text;
    if (!cut->set->count) cut->scan = text.bytes;
    while (cut->scan < text.bytes) {
        const struct fkv_tok_added *token = match(cut, cut->scan);
        if (!token) {
            cut->scan++;
            continue;
        }
        *start = cut->scan;
        *stop = cut->scan += token->content.bytes;
        if (token->single_word && !stands_alone(text, *start, *stop)) continue;
        size_t bytes;
        if (token->lstrip) {
            while (*start && fkv_tok_space_at(text, fkv_utf8_before(text.at, *start), &bytes))
                *start -= bytes;
            if (*start < cut->done) *start = cut->done;
        }
        while (token->rstrip && *stop < text.bytes && fkv_tok_space_at(text, *stop, &bytes))
            *stop += bytes;
        return token;
    }
    return NULL;
}

bool fkv_tok_cut_next(struct fkv_tok_cut *cut, struct fkv_tok_text *section, int32_t *id) {
    *id = cut->pending;
    cut->pending = -1;
    if (*id >= 0) return true;
    size_t start, stop;
    const struct fkv_tok_added *token = find(cut, &start, &stop);
    if (!token) start = stop = cut->text.bytes;
    size_t from = cut->done;
    cut->done = stop;
    if (from < start) {
        *section = (struct fkv_tok_text){cut->text.at + from, start - from};
        if (token) cut->pending = token->id;
        return true;
    }
    if (token) *id = token->id;
    return token != NULL;
}
