/* Ids -> text, one id at a time. The tokens' strings are pieces, and every decoder step of the
 * file maps a list of pieces to a list of pieces. A step here takes its pieces in chunks as they
 * come and hands on at once what no later chunk can change:
 *
 *   Replace, Metaspace  all but the end of a piece that may begin a match
 *   ByteFallback        a run of bytes is one piece if it is UTF-8, else each is a piece: a run
 *                       waits for its end, but not where the next step joins pieces anyway
 *   Fuse                everything: the chunks of all pieces are the chunks of one
 *   Strip               all but the characters at the end that may have to go
 *   ByteLevel           nothing before a piece ends: one character that stands for no byte keeps it
 *                       whole
 *
 * So an id costs what its own string is long, however long the text has become, and whole texts
 * are decoded the same way. Unlike Hugging Face's, which puts U+FFFD where bytes are no UTF-8,
 * the bytes come out as they are: cutting a text between tokens loses nothing. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"

struct step {
    const struct fkv_tok_decoder *how;
    struct fkv_bytes held; /* of the piece under way, not handed on yet */
    struct fkv_bytes run;  /* ByteFallback: the bytes of a run; ByteLevel: a piece as bytes */
    bool begun;            /* Metaspace: a piece is over; ByteFallback: this one is no byte */
    bool loose;            /* ByteFallback: the next step joins pieces */
    bool inside;           /* Strip: the start of the piece is over */
    int64_t copies;        /* Strip: characters taken at the start, then held at the end */
    size_t matched;        /* Strip: bytes of one more such character */
};

struct fkv_tokenizer_stream {
    const struct fkv_tokenizer *t;
    struct step steps[FKV_TOK_MAX_STEPS];
    bool spaced;          /* without steps: a token has come, the next one follows a space */
    size_t skip;          /* bytes of the prompt's text that are still to be left out */
    struct fkv_bytes out; /* [handed] given out by the last call, then what came since */
    size_t handed;
    struct fkv_error *err; /* of the call under way */
};

/* ---- steps ---- */

static int put(struct fkv_tokenizer_stream *s, int i, const char *at, size_t bytes);
static int end(struct fkv_tokenizer_stream *s, int i);

/* The longest end of `text` that begins `from` without being all of it. */
static size_t begun_match(struct fkv_tok_text text, struct fkv_tok_text from) {
    size_t keep = text.bytes < from.bytes ? text.bytes : from.bytes - 1;
    while (keep && memcmp(text.at + text.bytes - keep, from.at, keep)) keep--;
    return keep;
}

static int replace(struct fkv_tokenizer_stream *s, int i, const char *at, size_t bytes) {
    struct step *step = &s->steps[i];
    const struct fkv_tok_decoder *d = step->how;
    const struct fkv_tok_text space = {" ", d->drop_first && !step->begun ? 0 : 1},
                              to = d->kind == FKV_TOK_DECODE_METASPACE ? space : d->to;
    if (fkv_bytes_append(&step->held, at, bytes, s->err)) return FKV_FAILED;
    struct fkv_tok_text rest = {step->held.at, step->held.count};
    for (const char *hit; (hit = memmem(rest.at, rest.bytes, d->from.at, d->from.bytes));) {
        if (put(s, i + 1, rest.at, (size_t)(hit - rest.at)) || put(s, i + 1, to.at, to.bytes))
            return FKV_FAILED;
        rest.bytes -= (size_t)(hit - rest.at) + d->from.bytes;
        rest.at = hit + d->from.bytes;
    }
    size_t keep = begun_match(rest, d->from);
    if (put(s, i + 1, rest.at, rest.bytes - keep)) return FKV_FAILED;
    memmove(step->held.at, rest.at + rest.bytes - keep, keep);
    step->held.count = keep;
    return FKV_OK;
}

enum { BYTE_TOKEN = 6 }; /* bytes of "<0xNN>" */

static bool is_byte(struct fkv_bytes s, char *byte) {
    if (s.count != BYTE_TOKEN || memcmp(s.at, "<0x", 3) || s.at[5] != '>') return false;
    const int32_t value = fkv_hex(s.at + 3, 2);
    *byte = (char)value;
    return value >= 0;
}

static int end_run(struct fkv_tokenizer_stream *s, int i) {
    struct fkv_bytes *run = &s->steps[i].run;
    size_t bad, count = run->count, step = fkv_utf8_valid(run->at, count, &bad) ? count : 1;
    run->count = 0;
    for (size_t at = 0; at < count; at += step)
        if (put(s, i + 1, run->at + at, step) || end(s, i + 1)) return FKV_FAILED;
    return FKV_OK;
}

static int put_fallback(struct fkv_tokenizer_stream *s, int i, const char *at, size_t bytes) {
    struct step *step = &s->steps[i];
    if (step->begun) return put(s, i + 1, at, bytes);
    if (fkv_bytes_append(&step->held, at, bytes, s->err)) return FKV_FAILED;
    if (step->held.count <= BYTE_TOKEN) return FKV_OK;
    step->begun = true;
    if (end_run(s, i)) return FKV_FAILED;
    return put(s, i + 1, step->held.at, step->held.count);
}

static int end_fallback(struct fkv_tokenizer_stream *s, int i) {
    struct step *step = &s->steps[i];
    char byte;
    int status;
    if (step->begun)
        status = end(s, i + 1);
    else if (!is_byte(step->held, &byte))
        status = end_run(s, i) || put(s, i + 1, step->held.at, step->held.count) || end(s, i + 1);
    else
        status =
            step->loose ? put(s, i + 1, &byte, 1) : fkv_bytes_append(&step->run, &byte, 1, s->err);
    step->begun = false;
    step->held.count = 0;
    return status ? FKV_FAILED : FKV_OK;
}

/* What Strip holds at the end of a piece is text after all. */
static int release(struct fkv_tokenizer_stream *s, int i) {
    struct step *step = &s->steps[i];
    const struct fkv_tok_text from = step->how->from;
    for (; step->copies; step->copies--)
        if (put(s, i + 1, from.at, from.bytes)) return FKV_FAILED;
    size_t bytes = step->matched;
    step->matched = 0;
    return put(s, i + 1, from.at, bytes);
}

/* One byte of the character that goes. A whole one is taken at the start, held at the end; one
 * more than may go there is text. */
static int strip_match(struct fkv_tokenizer_stream *s, int i) {
    struct step *step = &s->steps[i];
    const struct fkv_tok_text from = step->how->from;
    if (++step->matched < from.bytes) return FKV_OK;
    step->matched = 0;
    if (step->copies < (step->inside ? step->how->stop : step->how->start))
        return step->copies++, FKV_OK;
    return put(s, i + 1, from.at, from.bytes);
}

static int put_strip(struct fkv_tokenizer_stream *s, int i, const char *at, size_t bytes) {
    struct step *step = &s->steps[i];
    const struct fkv_tok_text from = step->how->from;
    for (const char *stop = at + bytes; at < stop;) {
        if (!step->inside && (step->copies == step->how->start || *at != from.at[step->matched])) {
            step->inside = true; /* a character begun at the start may be one of the end's */
            step->copies = 0;
        }
        if (*at == from.at[step->matched]) {
            if (strip_match(s, i)) return FKV_FAILED;
            at++;
            continue;
        }
        if (release(s, i)) return FKV_FAILED;
        const char *next = memchr(at, from.at[0], (size_t)(stop - at));
        if (!next) next = stop;
        if (put(s, i + 1, at, (size_t)(next - at))) return FKV_FAILED;
        at = next;
    }
    return FKV_OK;
}

static int end_strip(struct fkv_tokenizer_stream *s, int i) {
    struct step *step = &s->steps[i];
    /* A character that is not whole ends the piece: nothing goes. */
    if (!step->inside || !step->matched) step->copies = 0;
    int status = release(s, i);
    step->inside = false;
    return status ? FKV_FAILED : end(s, i + 1);
}

/* Tokens of GPT-2's stand-ins become bytes; others (added tokens with spaces, say) stay. */
static int end_byte_level(struct fkv_tokenizer_stream *s, int i) {
    struct step *step = &s->steps[i];
    const struct fkv_tok_text piece = {step->held.at, step->held.count};
    size_t bytes;
    step->run.count = 0; /* a copy, in a buffer for what it becomes */
    if (fkv_bytes_append(&step->run, piece.at, piece.bytes, s->err)) return FKV_FAILED;
    step->held.count = 0;
    if (fkv_tok_to_raw(piece, step->run.at, &bytes)) return put(s, i + 1, step->run.at, bytes);
    return put(s, i + 1, piece.at, piece.bytes);
}

/* What the last step gives is text, less the prompt's. */
static int put_out(struct fkv_tokenizer_stream *s, const char *at, size_t bytes) {
    size_t skip = bytes < s->skip ? bytes : s->skip;
    s->skip -= skip;
    return fkv_bytes_append(&s->out, at + skip, bytes - skip, s->err);
}

/* A chunk of the piece under way comes to step i. */
static int put(struct fkv_tokenizer_stream *s, int i, const char *at, size_t bytes) {
    if (!bytes) return FKV_OK;
    if (i == s->t->decoder_count) return put_out(s, at, bytes);
    switch (s->steps[i].how->kind) {
    case FKV_TOK_DECODE_BYTE_FALLBACK: return put_fallback(s, i, at, bytes);
    case FKV_TOK_DECODE_FUSE: return put(s, i + 1, at, bytes);
    case FKV_TOK_DECODE_STRIP: return put_strip(s, i, at, bytes);
    case FKV_TOK_DECODE_BYTE_LEVEL: return fkv_bytes_append(&s->steps[i].held, at, bytes, s->err);
    case FKV_TOK_DECODE_REPLACE:
    case FKV_TOK_DECODE_METASPACE: break;
    }
    return replace(s, i, at, bytes);
}

/* The piece that comes to step i is over. */
static int end(struct fkv_tokenizer_stream *s, int i) {
    if (i == s->t->decoder_count) return FKV_OK;
    struct step *step = &s->steps[i];
    switch (step->how->kind) {
    case FKV_TOK_DECODE_BYTE_FALLBACK: return end_fallback(s, i);
    case FKV_TOK_DECODE_FUSE: return FKV_OK;
    case FKV_TOK_DECODE_STRIP: return end_strip(s, i);
    case FKV_TOK_DECODE_BYTE_LEVEL: return end_byte_level(s, i);
    case FKV_TOK_DECODE_REPLACE:
    case FKV_TOK_DECODE_METASPACE: break;
    }
    if (put(s, i + 1, step->held.at, step->held.count)) return FKV_FAILED;
    step->held.count = 0;
    step->begun = true;
    return end(s, i + 1);
}

/* No more pieces come: runs end, and what was joined is one whole piece. */
static int end_all(struct fkv_tokenizer_stream *s) {
    for (int i = 0; i < s->t->decoder_count; i++) {
        int kind = s->steps[i].how->kind, status = FKV_OK;
        if (kind == FKV_TOK_DECODE_BYTE_FALLBACK) status = end_run(s, i);
        if (kind == FKV_TOK_DECODE_FUSE || kind == FKV_TOK_DECODE_BYTE_LEVEL)
            status = end(s, i + 1);
        if (status) return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- tokens ---- */

/* What a token is spelt as: for a normalized added token its normalized text, "<x>" as U+2581
 * "<x>". */
static struct fkv_tok_text spelling(const struct fkv_tokenizer *t, int32_t id) {
    struct fkv_tok_text text = fkv_tok_string(&t->strings, id);
    if (text.at && t->kind[id] & FKV_TOK_NORMALIZED)
        for (int i = 0; i < t->normalized.count; i++)
            if (t->normalized.tokens[i].id == id) return t->normalized.tokens[i].content;
    return text;
}

/* Without decoder steps Hugging Face puts spaces between tokens. */
static int put_token(struct fkv_tokenizer_stream *s, int32_t id) {
    const struct fkv_tokenizer *t = s->t;
    struct fkv_tok_text text = spelling(t, id);
    if (!text.at) return fkv_fail(s->err, "id %d is not in the vocabulary", (int)id);
    if (t->kind[id] & FKV_TOK_SPECIAL) return FKV_OK;
    if (!t->decoder_count && s->spaced && put(s, 0, " ", 1)) return FKV_FAILED;
    s->spaced = true;
    if (put(s, 0, text.at, text.bytes)) return FKV_FAILED;
    return end(s, 0);
}

static int put_tokens(struct fkv_tokenizer_stream *s, const int32_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (put_token(s, ids[i])) return fkv_error_prefix(s->err, "token %zu", i);
    return FKV_OK;
}

static void start(struct fkv_tokenizer_stream *s, const struct fkv_tokenizer *t,
                  struct fkv_error *err) {
    *s = (struct fkv_tokenizer_stream){.t = t, .err = err};
    for (int i = 0; i < t->decoder_count; i++) {
        const struct fkv_tok_decoder *next = i + 1 < t->decoder_count ? &t->decoders[i + 1] : NULL;
        s->steps[i].how = &t->decoders[i];
        s->steps[i].loose = !next || next->kind == FKV_TOK_DECODE_FUSE;
    }
}

static void stop(struct fkv_tokenizer_stream *s) {
    for (int i = 0; i < s->t->decoder_count; i++) {
        free(s->steps[i].held.at);
        free(s->steps[i].run.at);
    }
    free(s->out.at);
}

int fkv_tokenizer_decode(const struct fkv_tokenizer *t, const int32_t *ids, size_t count,
                         char **text, size_t *bytes, struct fkv_error *err) {
    struct fkv_tokenizer_stream s;
    start(&s, t, err);
    int status = put_tokens(&s, ids, count);
    if (!status) status = end_all(&s);
    if (!status) status = fkv_bytes_append(&s.out, "", 1, err);
    if (!status) {
        *text = s.out.at;
        *bytes = s.out.count - 1;
        s.out.at = NULL;
    }
    stop(&s);
    return status;
}

int fkv_tokenizer_stream_open(const struct fkv_tokenizer *t, const int32_t *prompt, size_t count,
                              struct fkv_tokenizer_stream **out, struct fkv_error *err) {
    char *text;
    size_t before; /* what a token of the prompt leaves to be seen is the prompt's text, too */
    *out = NULL;
    if (fkv_tokenizer_decode(t, prompt, count, &text, &before, err)) return FKV_FAILED;
    free(text);
    struct fkv_tokenizer_stream *s = malloc(sizeof *s);
    if (!s) return fkv_fail(err, "out of memory for a text");
    start(s, t, err);
    s->skip = before;
    /* Even an empty text has an address. */
    if (fkv_bytes_append(&s->out, "", 0, err) || put_tokens(s, prompt, count)) {
        fkv_tokenizer_stream_close(s);
        return FKV_FAILED;
    }
    *out = s;
    return FKV_OK;
}

/* Starts a call: what it makes comes behind what the last one kept back. */
static void take_back(struct fkv_tokenizer_stream *s, struct fkv_error *err) {
    s->err = err;
    s->out.count -= s->handed;
    if (s->out.count) memmove(s->out.at, s->out.at + s->handed, s->out.count);
    s->handed = 0;
}

int fkv_tokenizer_stream_push(struct fkv_tokenizer_stream *s, int32_t id, const char **text,
                              size_t *bytes, struct fkv_error *err) {
    take_back(s, err);
    if (put_token(s, id)) return FKV_FAILED;
    *text = s->out.at;
    *bytes = s->handed = fkv_utf8_complete(s->out.at, s->out.count);
    return FKV_OK;
}

int fkv_tokenizer_stream_finish(struct fkv_tokenizer_stream *s, const char **text, size_t *bytes,
                                struct fkv_error *err) {
    take_back(s, err);
    if (end_all(s)) return FKV_FAILED;
    *text = s->out.at;
    *bytes = s->handed = s->out.count;
    return FKV_OK;
}

void fkv_tokenizer_stream_close(struct fkv_tokenizer_stream *s) {
    if (!s) return;
    stop(s);
    free(s);
}
