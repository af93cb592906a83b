/* Patterns of tokenizer.json are written for Oniguruma, in its Ruby dialect; PCRE2 runs them.
 *
 * The two agree on most of what patterns are made of. Where the same text means something else to
 * them it is written anew for PCRE2 (\s, \w, \h, \b, {n,m}+, sets within sets and others below) or
 * refused by name (&& within sets). What PCRE2 does not know it refuses itself.
 *
 * A match that takes too many steps is an error, with the limit that Oniguruma has, too. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"

enum { MAX_STEPS = 10000000, MAX_HEAP_KIB = 64 << 10, JIT_STACK = 16 << 20, MAX_DEPTH = 64 };

/* Within a set: what \w matches; everything but White_Space. */
#define WORD                                                                                       \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}"     \
    "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define NO_SPACES                                                                                  \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"      \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{"   \
    "10ffff}"

/* An escape or a POSIX name: what stands for it outside and inside of a set; NULL: refused. */
static const struct spelling {
    const char *written, *outside, *inside;
} escapes[] =
    {
        {"s", "[" FKV_TOK_SPACES "]", FKV_TOK_SPACES},
        {"S", "[^" FKV_TOK_SPACES "]", NO_SPACES},
        {"w", "[" WORD "]", WORD},
        {"W", "[^" WORD "]", NULL},
        {"h", "[0-9a-fA-F]", "0-9a-fA-F"},
        {"H", "[^0-9a-fA-F]", NULL},
        {"v", "\\x0b", "\\x0b"},
        {"b", "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))", "\\b"},
        {"B", "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))", NULL},
        {"Q", NULL, NULL}, /* begins a quotation for PCRE2 only */
        {"E", NULL, NULL},
        {"C", NULL, NULL},
},
  classes[] = {
      {"[:space:]", NULL, FKV_TOK_SPACES}, {"[:word:]", NULL, WORD},
      {"[:punct:]", NULL, "\\p{P}\\p{S}"}, {"[:digit:]", NULL, "\\p{Nd}"},
      {"[:upper:]", NULL, "\\p{Lu}"},      {"[:xdigit:]", NULL, "0-9a-fA-F"},
};
enum { ESCAPES = sizeof escapes / sizeof *escapes, CLASSES = sizeof classes / sizeof *classes };

struct translation {
    const char *at; /* what is to be read */
    struct fkv_bytes out;
    size_t atom;              /* where the last character, set or group begins in out */
    size_t groups[MAX_DEPTH]; /* the same of the groups that are open */
    int depth;
    bool inside; /* of a set */
    int sets;    /* open sets within it */
    const char *where;
    struct fkv_error *err;
};

static int put(struct translation *t, const char *text, size_t bytes) {
    return fkv_bytes_append(&t->out, text, bytes, t->err);
}

static int copy(struct translation *t, size_t bytes) {
    t->at += bytes;
    return put(t, t->at - bytes, bytes);
}

static int refuse(const struct translation *t, const char *what) {
    return fkv_fail(t->err, "%s: expected a pattern without %s, found %.100s", t->where, what,
                    t->at);
}

/* Puts `inside` or `outside` for `bytes` of the pattern. */
static int respell(struct translation *t, const struct spelling *s, size_t bytes) {
    const char *text = t->inside ? s->inside : s->outside;
    if (!text) return refuse(t, t->inside ? "this within a set" : "this");
    t->at += bytes;
    return put(t, text, strlen(text));
}

static int escape(struct translation *t) {
    for (int i = 0; i < ESCAPES; i++)
        if (t->at[1] == *escapes[i].written) return respell(t, &escapes[i], 2);
    if (t->at[1] == 'u' && strspn(t->at + 2, "0123456789abcdefABCDEF") >= 4) {
        if (put(t, "\\x{", 3) || put(t, t->at + 2, 4) || put(t, "}", 1)) return FKV_FAILED;
        t->at += 6;
        return FKV_OK;
    }
    if (t->at[1] && strchr("pPxogk", t->at[1]) && t->at[2] == '{' && strchr(t->at, '}'))
        return copy(t, (size_t)(strchr(t->at, '}') - t->at) + 1);
    return copy(t, t->at[1] ? 2 : 1);
}

/* One item within a set, or its end. */
static int set_item(struct translation *t) {
    if (*t->at == '\\') return escape(t);
    if (!strncmp(t->at, "[:", 2)) {
        for (int i = 0; i < CLASSES; i++)
            if (!strncmp(t->at, classes[i].written, strlen(classes[i].written)))
                return respell(t, &classes[i], strlen(classes[i].written));
        return refuse(t, "this POSIX class");
    }
    if (!strncmp(t->at, "&&", 2)) return refuse(t, "an intersection of sets");
    if (!strncmp(t->at, "[^", 2) || !strncmp(t->at, "[]", 2) || (*t->at == '[' && t->at[-1] == '-'))
        return refuse(t, "such a set within a set");
    if (*t->at == '[' || (*t->at == ']' && t->sets)) { /* a set within adds what it holds */
        t->sets += *t->at++ == '[' ? 1 : -1;
        return FKV_OK;
    }
    t->inside = *t->at != ']';
    return copy(t, 1);
}

static int set_start(struct translation *t) {
    size_t bytes = t->at[1] == '^' ? 2 : 1;
    t->inside = true;
    return copy(t, t->at[bytes] == ']' ? bytes + 1 : bytes);
}

/* {n}, {n,}, {n,m} or {,m}: its bytes, or 0 where a brace is a character. */
static size_t interval(const char *at) {
    size_t low = strspn(at + 1, "0123456789"), comma = at[1 + low] == ',',
           high = comma ? strspn(at + 2 + low, "0123456789") : 0;
    return low + high && at[1 + low + comma + high] == '}' ? low + comma + high + 2 : 0;
}

/* PCRE2 reads {n,m}+ as possessive, Oniguruma as one or more times {n,m}. */
static int repeat(struct translation *t, size_t bytes) {
    bool again = t->at[bytes] == '+';
    if (t->at[bytes] == '?' && !memchr(t->at, ',', bytes))
        return refuse(t, "\"?\" after a fixed count");
    if (again) {
        if (put(t, "(?:", 3)) return FKV_FAILED;
        char *atom = t->out.at + t->atom;
        memmove(atom + 3, atom, t->out.count - 3 - t->atom);
        memcpy(atom, "(?:", 3);
    }
    if (t->at[1] == ',') {
        if (put(t, "{0", 2)) return FKV_FAILED;
        t->at++;
        bytes--;
    }
    return copy(t, bytes) || (again && put(t, ")", 1)) ? FKV_FAILED : FKV_OK;
}

static int item(struct translation *t) {
    size_t bytes = *t->at == '{' ? interval(t->at) : 0;
    if (bytes) return repeat(t, bytes);
    if (strchr("*+?|", *t->at)) return copy(t, 1);
    if (*t->at == ')') {
        if (t->depth) t->atom = t->groups[--t->depth];
        return copy(t, 1);
    }
    t->atom = t->out.count;
    if (*t->at == '(') {
        if (t->depth == MAX_DEPTH) return refuse(t, "so many groups in groups");
        if (t->at[1] == '*') return refuse(t, "(*");
        if (t->at[1] == '?' && t->at[2 + strspn(t->at + 2, "ix-")] == 'm') return refuse(t, "(?m)");
        t->groups[t->depth++] = t->atom;
        return copy(t, t->at[1] == '?' ? 2 : 1);
    }
    if (*t->at == '[') return set_start(t);
    return *t->at == '\\' ? escape(t) : copy(t, fkv_utf8_bytes(*t->at));
}

/* `written` is for the message. */
static int compile(const char *written, const char *regex, size_t bytes, uint32_t options,
                   const char *where, pcre2_code **out, struct fkv_error *err) {
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[128];
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return fkv_fail(err, "%s: out of memory", where);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    *out = pcre2_compile((PCRE2_SPTR)regex, bytes, PCRE2_UTF | options, &code, &at, context);
    pcre2_compile_context_free(context);
    if (*out) {
        pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without a JIT it is interpreted */
        return FKV_OK;
    }
    pcre2_get_error_message(code, why, sizeof why);
    return fkv_fail(err, "%s: PCRE2 does not take the pattern (%s): %.300s", where,
                    (const char *)why, written);
}

int fkv_tok_compile(const char *regex, const char *where, pcre2_code **out, struct fkv_error *err) {
    struct translation t = {.at = regex, .where = where, .err = err};
    int status = put(&t, "", 0);
    while (*t.at && !status) status = t.inside ? set_item(&t) : item(&t);
    if (!status)
        status =
            compile(regex, t.out.at, t.out.count, PCRE2_UCP | PCRE2_MULTILINE, where, out, err);
    free(t.out.at);
    return status;
}

int fkv_tok_compile_text(struct fkv_tok_text text, const char *where, pcre2_code **out,
                         struct fkv_error *err) {
    return compile(text.at, text.at, text.bytes, PCRE2_LITERAL, where, out, err);
}

int fkv_tok_matcher_open(struct fkv_tok_matcher *m, struct fkv_error *err) {
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    m->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK, NULL); /* NULL where there is no JIT */
    if (!m->data || !m->context) return fkv_fail(err, "out of memory for matching");
    pcre2_set_match_limit(m->context, MAX_STEPS);
    pcre2_set_heap_limit(m->context, MAX_HEAP_KIB);
    if (m->stack) pcre2_jit_stack_assign(m->context, NULL, m->stack);
    return FKV_OK;
}

void fkv_tok_matcher_close(struct fkv_tok_matcher *m) {
    pcre2_jit_stack_free(m->stack);
    pcre2_match_context_free(m->context);
    pcre2_match_data_free(m->data);
    *m = (struct fkv_tok_matcher){0};
}

struct fkv_tok_spans fkv_tok_spans_start(const pcre2_code *pattern, struct fkv_tok_matcher *matcher,
                                         struct fkv_tok_text text) {
    return (struct fkv_tok_spans){
        .pattern = pattern, .matcher = matcher, .text = text, .last_stop = SIZE_MAX};
}

/* The next match; an empty one right behind the match before it does not count. */
static int search(struct fkv_tok_spans *s, struct fkv_error *err) {
    while (s->search <= s->text.bytes) {
        int code = pcre2_match(s->pattern, (PCRE2_SPTR)s->text.at, s->text.bytes, s->search,
                               PCRE2_NO_UTF_CHECK, s->matcher->data, s->matcher->context);
        if (code == PCRE2_ERROR_NOMATCH) break;
        if (code < 0)
            return fkv_fail(err,
                            "a pattern of the tokenizer takes too many steps at byte %zu of a "
                            "section of %zu bytes (PCRE2 error %d)",
                            s->search, s->text.bytes, code);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(s->matcher->data);
        size_t start = span[0], stop = span[1];
        if (start < s->done || stop < start) /* \K within a lookaround */
            return fkv_fail(err, "a pattern of the tokenizer matches backwards");
        if (start == stop && stop == s->last_stop) {
            s->search += s->search < s->text.bytes ? fkv_utf8_bytes(s->text.at[s->search]) : 1;
            continue;
        }
        s->search = s->last_stop = stop;
        s->found = (struct fkv_tok_span){start, stop, true};
        return FKV_OK;
    }
    s->search = SIZE_MAX;
    return FKV_OK;
}

int fkv_tok_spans_next(struct fkv_tok_spans *s, struct fkv_tok_span *span, bool *more,
                       struct fkv_error *err) {
    if (!s->found.match && s->text.bytes && search(s, err)) return FKV_FAILED;
    size_t stop = s->found.match ? s->found.start : s->text.bytes;
    *more = true;
    if (s->done < stop) {
        *span = (struct fkv_tok_span){s->done, stop, false};
        s->done = stop;
        return FKV_OK;
    }
    *more = s->found.match;
    *span = s->found;
    s->found.match = false;
    if (*more) s->done = span->stop;
    return FKV_OK;
}
