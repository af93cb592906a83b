/* Decoding by its definition, as an oracle: every decoder step of tokenizer.json maps the whole
 * list of pieces of a text to another list of pieces. */
#ifndef FKV_TESTS_WHOLE_DECODE_H
#define FKV_TESTS_WHOLE_DECODE_H

#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"

struct pieces {
    struct fkv_bytes bytes;
    size_t *ends; /* [capacity] piece i lies from ends[i - 1] (or 0) to ends[i] in bytes */
    size_t count, capacity;
};

static struct fkv_tok_text piece(const struct pieces *p, size_t i) {
    size_t start = i ? p->ends[i - 1] : 0;
    return (struct fkv_tok_text){p->bytes.at ? p->bytes.at + start : "", p->ends[i] - start};
}

/* What was appended to bytes since the last piece becomes one. */
static int end_piece(struct pieces *p, struct fkv_error *err) {
    size_t *grown = fkv_grow(p->ends, &p->capacity, p->count + 1, sizeof *grown);
    if (!grown) return fkv_fail(err, "out of memory for %zu tokens", p->count + 1);
    p->ends = grown;
    p->ends[p->count++] = p->bytes.count;
    return FKV_OK;
}

static int replace(const struct fkv_tok_decoder *d, const struct pieces *in, struct pieces *out,
                   struct fkv_error *err) {
    for (size_t i = 0; i < in->count; i++)
        if (fkv_tok_replace(piece(in, i), d->from, d->to, &out->bytes, err) || end_piece(out, err))
            return FKV_FAILED;
    return FKV_OK;
}

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static bool is_byte(struct fkv_tok_text s, char *byte) {
    if (s.bytes != 6 || memcmp(s.at, "<0x", 3) || s.at[5] != '>' || hex(s.at[3]) < 0 ||
        hex(s.at[4]) < 0)
        return false;
    *byte = (char)(hex(s.at[3]) << 4 | hex(s.at[4]));
    return true;
}

/* A run of bytes is one piece if it is UTF-8, else each is a piece: as in Hugging Face's, which
 * matters to steps on single pieces. */
static int byte_fallback(const struct pieces *in, struct pieces *out, struct fkv_error *err) {
    for (size_t i = 0; i < in->count;) {
        size_t start = out->bytes.count, bad;
        char byte;
        while (i < in->count && is_byte(piece(in, i), &byte)) {
            if (fkv_bytes_append(&out->bytes, &byte, 1, err)) return FKV_FAILED;
            i++;
        }
        size_t end = out->bytes.count;
        if (end == start) {
            struct fkv_tok_text s = piece(in, i++);
            if (fkv_bytes_append(&out->bytes, s.at, s.bytes, err) || end_piece(out, err))
                return FKV_FAILED;
            continue;
        }
        size_t step = fkv_utf8_valid(out->bytes.at + start, end - start, &bad) ? end - start : 1;
        for (out->bytes.count = start; out->bytes.count < end;) {
            out->bytes.count += step;
            if (end_piece(out, err)) return FKV_FAILED;
        }
    }
    return FKV_OK;
}

static int fuse(const struct pieces *in, struct pieces *out, struct fkv_error *err) {
    return fkv_bytes_append(&out->bytes, in->bytes.at, in->bytes.count, err) || end_piece(out, err)
               ? FKV_FAILED
               : FKV_OK;
}

static int strip(const struct fkv_tok_decoder *d, const struct pieces *in, struct pieces *out,
                 struct fkv_error *err) {
    size_t n = d->from.bytes;
    for (size_t i = 0; i < in->count; i++) {
        struct fkv_tok_text s = piece(in, i);
        for (int64_t k = 0; k < d->start && s.bytes >= n && !memcmp(s.at, d->from.at, n); k++)
            s.at += n, s.bytes -= n;
        for (int64_t k = 0;
             k < d->stop && s.bytes >= n && !memcmp(s.at + s.bytes - n, d->from.at, n); k++)
            s.bytes -= n;
        if (fkv_bytes_append(&out->bytes, s.at, s.bytes, err) || end_piece(out, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* Tokens of GPT-2's stand-ins become bytes; others (added tokens with spaces, say) stay. */
static int byte_level(const struct pieces *in, struct pieces *out, struct fkv_error *err) {
    for (size_t i = 0; i < in->count; i++) {
        struct fkv_tok_text s = piece(in, i);
        size_t start = out->bytes.count, bytes;
        if (fkv_bytes_append(&out->bytes, s.at, s.bytes, err)) return FKV_FAILED;
        if (fkv_tok_to_raw(s, out->bytes.at + start, &bytes))
            out->bytes.count = start + bytes;
        else
            memcpy(out->bytes.at + start, s.at, s.bytes);
    }
    return end_piece(out, err);
}

static int metaspace(const struct fkv_tok_decoder *d, const struct pieces *in, struct pieces *out,
                     struct fkv_error *err) {
    for (size_t i = 0; i < in->count; i++) {
        struct fkv_tok_text space = {" ", i == 0 && d->drop_first ? 0 : 1};
        if (fkv_tok_replace(piece(in, i), d->from, space, &out->bytes, err) || end_piece(out, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int apply(const struct fkv_tok_decoder *d, const struct pieces *in, struct pieces *out,
                 struct fkv_error *err) {
    out->bytes.count = out->count = 0;
    switch (d->kind) {
    case FKV_TOK_DECODE_REPLACE: return replace(d, in, out, err);
    case FKV_TOK_DECODE_BYTE_FALLBACK: return byte_fallback(in, out, err);
    case FKV_TOK_DECODE_FUSE: return fuse(in, out, err);
    case FKV_TOK_DECODE_STRIP: return strip(d, in, out, err);
    case FKV_TOK_DECODE_BYTE_LEVEL: return byte_level(in, out, err);
    case FKV_TOK_DECODE_METASPACE: break;
    }
    return metaspace(d, in, out, err);
}

/* What a token is spelt as: for a normalized added token its normalized text, "<x>" as U+2581
 * "<x>". */
static struct fkv_tok_text spelling(const struct fkv_tokenizer *t, int32_t id) {
    struct fkv_tok_text text = fkv_tok_string(&t->strings, id);
    if (text.at && t->kind[id] & FKV_TOK_NORMALIZED)
        for (int i = 0; i < t->normalized.count; i++)
            if (t->normalized.tokens[i].id == id) return t->normalized.tokens[i].content;
    return text;
}

/* The tokens' spellings; without decoder steps Hugging Face puts spaces between them. */
static int gather(const struct fkv_tokenizer *t, const int32_t *ids, size_t count,
                  struct pieces *out, struct fkv_error *err) {
    for (size_t i = 0; i < count; i++) {
        struct fkv_tok_text s = spelling(t, ids[i]);
        if (!s.at)
            return fkv_fail(err, "token %zu: id %d is not in the vocabulary", i, (int)ids[i]);
        if (t->kind[ids[i]] & FKV_TOK_SPECIAL) continue;
        if (!t->decoder_count && out->count && fkv_bytes_append(&out->bytes, " ", 1, err))
            return FKV_FAILED;
        if (fkv_bytes_append(&out->bytes, s.at, s.bytes, err) || end_piece(out, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static inline int whole_decode(const struct fkv_tokenizer *t, const int32_t *ids, size_t count,
                               char **text, size_t *bytes, struct fkv_error *err) {
    struct pieces p[2] = {0};
    int status = gather(t, ids, count, &p[0], err);
    for (int i = 0; i < t->decoder_count && !status; i++)
        status = apply(&t->decoders[i], &p[i % 2], &p[(i + 1) % 2], err);
    struct fkv_bytes *result = &p[t->decoder_count % 2].bytes;
    if (!status) status = fkv_bytes_append(result, "", 1, err);
    if (!status) {
        *text = result->at;
        *bytes = result->count - 1;
        result->at = NULL;
    }
    for (int i = 0; i < 2; i++) {
        free(p[i].bytes.at);
        free(p[i].ends);
    }
    return status;
}

#endif
