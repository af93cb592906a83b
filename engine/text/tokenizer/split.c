/* Pre-tokenizers: a section between added tokens -> words for BPE. The steps of the list form a
 * chain: each gets a piece of text, and gives what it makes of it to the next one at once; behind
 * the last one pieces are words. A step that changes its text writes it to a buffer of its own. */
#include "engine/text/tokenizer/parts.h"

static int hand_on(struct fkv_tok_encoding *w, int i, struct fkv_tok_text piece, bool first) {
    if (!piece.bytes) return FKV_OK;
    if (i == w->t->splitter_count) return fkv_tok_word(w, piece);
    return w->t->splitters[i].apply(w, i, piece, first);
}

int fkv_tok_section(struct fkv_tok_encoding *w, struct fkv_tok_text section, bool first) {
    return hand_on(w, 0, section, first);
}

/* Whether a span becomes one piece with the span before it. */
static bool joins(enum fkv_tok_behavior behavior, bool match_before, bool match) {
    switch (behavior) {
    case FKV_TOK_MERGED_WITH_PREVIOUS: return match && !match_before;
    case FKV_TOK_MERGED_WITH_NEXT: return match_before && !match;
    case FKV_TOK_CONTIGUOUS: return match_before == match;
    case FKV_TOK_REMOVED:
    case FKV_TOK_ISOLATED: break;
    }
    return false;
}

int fkv_tok_split(struct fkv_tok_encoding *w, int i, struct fkv_tok_text piece, bool first) {
    const struct fkv_tok_splitter *s = &w->t->splitters[i];
    struct fkv_tok_spans spans = fkv_tok_spans_start(s->pattern, &w->matcher, piece);
    struct fkv_tok_span held = {0}, next; /* what is held may still grow */
    bool holding = false, match = false, more;
    do {
        if (fkv_tok_spans_next(&spans, &next, &more, w->err)) return FKV_FAILED;
        bool next_match = next.match != s->invert;
        if (more && holding && joins(s->behavior, match, next_match)) {
            held.stop = next.stop;
        } else {
            struct fkv_tok_text made = {piece.at + held.start, held.stop - held.start};
            bool removed = s->behavior == FKV_TOK_REMOVED && match;
            if (holding && !removed && hand_on(w, i + 1, made, first && !held.start))
                return FKV_FAILED;
            held = next;
            holding = true;
        }
        match = next_match;
    } while (more);
    return FKV_OK;
}

int fkv_tok_space_before(struct fkv_tok_encoding *w, int i, struct fkv_tok_text piece, bool first) {
    struct fkv_bytes *made = &w->made[i];
    if (piece.at[0] == ' ') return hand_on(w, i + 1, piece, first);
    made->count = 0;
    if (fkv_bytes_append(made, " ", 1, w->err) ||
        fkv_bytes_append(made, piece.at, piece.bytes, w->err))
        return FKV_FAILED;
    return hand_on(w, i + 1, (struct fkv_tok_text){made->at, made->count}, first);
}

int fkv_tok_bytes_as_characters(struct fkv_tok_encoding *w, int i, struct fkv_tok_text piece,
                                bool first) {
    struct fkv_bytes *made = &w->made[i];
    char *grown = fkv_grow(made->at, &made->capacity, 2 * piece.bytes, 1);
    if (!grown) return fkv_fail(w->err, "out of memory for %zu bytes of text", 2 * piece.bytes);
    made->at = grown;
    made->count = 0;
    for (size_t k = 0; k < piece.bytes; k++) {
        uint32_t c = fkv_tok_byte_char((uint8_t)piece.at[k]);
        if (c >= 0x80) made->at[made->count++] = (char)(0xc0 | c >> 6);
        made->at[made->count++] = (char)(c < 0x80 ? c : 0x80 | (c & 0x3f));
    }
    return hand_on(w, i + 1, (struct fkv_tok_text){made->at, made->count}, first);
}

int fkv_tok_metaspace(struct fkv_tok_encoding *w, int i, struct fkv_tok_text piece, bool first) {
    const struct fkv_tok_splitter *s = &w->t->splitters[i];
    const struct fkv_tok_text blank = {" ", 1}, mark = s->mark;
    struct fkv_bytes *made = &w->made[i];
    bool prefix = s->prefix && (first || !s->first_only) && !fkv_tok_starts_with(piece, blank) &&
                  !fkv_tok_starts_with(piece, mark);
    made->count = 0;
    if (prefix && fkv_bytes_append(made, mark.at, mark.bytes, w->err)) return FKV_FAILED;
    if (fkv_tok_replace(piece, blank, mark, made, w->err)) return FKV_FAILED;
    piece = (struct fkv_tok_text){made->at, made->count};
    return s->pattern ? fkv_tok_split(w, i, piece, first) : hand_on(w, i + 1, piece, first);
}
