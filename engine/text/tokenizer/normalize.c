/* Normalizers: every step makes a text of a text. utf8proc knows the normal forms, the categories
 * and lower case; characters of later Unicode versions than its own stay as they are. */
#include <stdlib.h>
#include <utf8proc.h>

#include "engine/text/tokenizer/parts.h"

/* Below U+0300 every character is its own NFC, whatever its neighbours; ASCII is in all forms. */
int fkv_tok_normal_form(const struct fkv_tok_normalizer *n, struct fkv_tok_text text,
                        struct fkv_tok_normalizing *w) {
    const uint8_t least = n->form == UTF8PROC_COMPOSE ? 0xcc : 0x80; /* a lead byte */
    size_t i = 0;
    while (i < text.bytes && (uint8_t)text.at[i] < least) i++;
    if (i == text.bytes) return fkv_bytes_append(w->out, text.at, text.bytes, w->err);
    utf8proc_uint8_t *made;
    utf8proc_ssize_t bytes =
        utf8proc_map((const utf8proc_uint8_t *)text.at, (utf8proc_ssize_t)text.bytes, &made,
                     UTF8PROC_STABLE | n->form);
    if (bytes < 0) return fkv_fail(w->err, "normalization failed: %s", utf8proc_errmsg(bytes));
    int status = fkv_bytes_append(w->out, (const char *)made, (size_t)bytes, w->err);
    free(made);
    return status;
}

/* U+0130 is the one character whose lower case is two. */
int fkv_tok_lowercase(const struct fkv_tok_normalizer *n, struct fkv_tok_text text,
                      struct fkv_tok_normalizing *w) {
    (void)n;
    for (size_t i = 0; i < text.bytes; i += fkv_utf8_bytes(text.at[i])) {
        utf8proc_uint8_t lower[5] = "i\xcc\x87";
        int32_t c = fkv_utf8_at(text.at + i, text.bytes - i);
        size_t bytes = c == 0x130 ? 3 : (size_t)utf8proc_encode_char(utf8proc_tolower(c), lower);
        if (fkv_bytes_append(w->out, (const char *)lower, bytes, w->err)) return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_tok_strip(const struct fkv_tok_normalizer *n, struct fkv_tok_text text,
                  struct fkv_tok_normalizing *w) {
    size_t bytes, start = 0, stop = text.bytes;
    while (n->left && start < stop && fkv_tok_space_at(text, start, &bytes)) start += bytes;
    while (n->right && start < stop &&
           fkv_tok_space_at(text, fkv_utf8_before(text.at, stop), &bytes))
        stop -= bytes;
    w->start_cut |= start > 0;
    return fkv_bytes_append(w->out, text.at + start, stop - start, w->err);
}

/* Marks go, accents of precomposed characters stay: NFD or NFKD comes before. */
int fkv_tok_strip_accents(const struct fkv_tok_normalizer *n, struct fkv_tok_text text,
                          struct fkv_tok_normalizing *w) {
    (void)n;
    for (size_t i = 0, bytes; i < text.bytes; i += bytes) {
        bytes = fkv_utf8_bytes(text.at[i]);
        utf8proc_category_t k = utf8proc_category(fkv_utf8_at(text.at + i, text.bytes - i));
        bool mark = k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
        w->start_cut |= mark && !i;
        if (!mark && fkv_bytes_append(w->out, text.at + i, bytes, w->err)) return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_tok_replace_matches(const struct fkv_tok_normalizer *n, struct fkv_tok_text text,
                            struct fkv_tok_normalizing *w) {
    struct fkv_tok_spans spans = fkv_tok_spans_start(n->pattern, w->matcher, text);
    struct fkv_tok_span span;
    bool more;
    for (;;) {
        if (fkv_tok_spans_next(&spans, &span, &more, w->err)) return FKV_FAILED;
        if (!more) return FKV_OK;
        struct fkv_tok_text piece = {text.at + span.start, span.stop - span.start};
        if (span.match) piece = n->to;
        w->start_cut |= !span.start && !piece.bytes;
        if (fkv_bytes_append(w->out, piece.at, piece.bytes, w->err)) return FKV_FAILED;
    }
}

int fkv_tok_prepend(const struct fkv_tok_normalizer *n, struct fkv_tok_text text,
                    struct fkv_tok_normalizing *w) {
    if (fkv_bytes_append(w->out, n->to.at, n->to.bytes, w->err)) return FKV_FAILED;
    return fkv_bytes_append(w->out, text.at, text.bytes, w->err);
}

int fkv_tok_normalize(const struct fkv_tokenizer *t, struct fkv_tok_normalizing *w,
                      struct fkv_tok_text *text, struct fkv_bytes buffer[2]) {
    w->start_cut = false;
    for (int i = 0; i < t->normalizer_count && text->bytes; i++) {
        w->out = &buffer[i % 2];
        w->out->count = 0;
        if (t->normalizers[i].apply(&t->normalizers[i], *text, w) ||
            fkv_bytes_append(w->out, "", 0, w->err))
            return FKV_FAILED;
        *text = (struct fkv_tok_text){w->out->at, w->out->count};
    }
    return FKV_OK;
}
