/* A source -> tokens. White space goes as transformers sets Jinja up:
 *
 *   a `-` inside of a tag  takes all white space on its side
 *   trim_blocks            a line's end behind {% %} or {# #} goes
 *   lstrip_blocks          blanks go that stand alone before {% or {# on its line
 *   a `+` inside of a tag  keeps what these two would take */
#include "engine/text/template/parts.h"

struct lexer {
    const char *source, *where;
    size_t bytes, at;
    int line;         /* of `at` */
    bool strip, trim; /* what the tag before `at` takes: all white space, the end of its line */
    struct fkv_tpl_tokens *tokens;
    struct fkv_error *err;
};

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int fail(struct lexer *l, int line, const char *what) {
    return fkv_fail(l->err, "%s:%d: %s", l->where, line, what);
}

static int push(struct lexer *l, enum fkv_tpl_token_kind kind, int line, const char *at,
                size_t bytes) {
    struct fkv_tpl_tokens *t = l->tokens;
    struct fkv_tpl_token *larger = fkv_grow(t->at, &t->capacity, t->count + 1, sizeof *larger);
    if (!larger) return fail(l, line, "out of memory");
    t->at = larger;
    t->at[t->count++] = (struct fkv_tpl_token){kind, line, at, bytes};
    return FKV_OK;
}

/* Moves `at` over bytes and counts their lines. */
static void advance(struct lexer *l, size_t bytes) {
    for (size_t end = l->at + bytes; l->at < end; l->at++)
        if (l->source[l->at] == '\n') l->line++;
}

static bool starts(const struct lexer *l, const char *text) {
    const size_t bytes = strlen(text);
    return bytes <= l->bytes - l->at && !memcmp(l->source + l->at, text, bytes);
}

/* Where the next tag begins, from `at` on; the source's end without one. */
static size_t find_tag(const struct lexer *l) {
    for (size_t i = l->at; i + 1 < l->bytes; i++)
        if (l->source[i] == '{' && strchr("{%#", l->source[i + 1]) && l->source[i + 1]) return i;
    return l->bytes;
}

/* What the tag before takes of a text. */
static void take_after_tag(struct lexer *l) {
    if (l->strip)
        while (l->at < l->bytes && is_space(l->source[l->at])) advance(l, 1);
    else if (l->trim && l->at < l->bytes && l->source[l->at] == '\n')
        advance(l, 1);
    l->strip = l->trim = false;
}

/* The text up to the tag at `stop`. */
static int lex_text(struct lexer *l, size_t stop) {
    const size_t start = l->at;
    const int line = l->line;
    size_t end = stop;
    if (stop < l->bytes) {
        const char sign = stop + 2 < l->bytes ? l->source[stop + 2] : 0;
        if (sign == '-') {
            while (end > start && is_space(l->source[end - 1])) end--;
        } else if (sign != '+' && l->source[stop + 1] != '{') {
            size_t blank = end;
            while (blank > start && l->source[blank - 1] != '\n' && is_space(l->source[blank - 1]))
                blank--;
            if (!blank || l->source[blank - 1] == '\n') end = blank;
        }
    }
    advance(l, stop - l->at);
    return end > start ? push(l, FKV_TPL_TEXT, line, l->source + start, end - start) : FKV_OK;
}

/* The end of a tag at `at`, after its sign; false: it is not there. `at` is then behind it. */
static bool close_tag(struct lexer *l, const char *close, bool takes_line) {
    const size_t before = l->at;
    const char sign = l->at < l->bytes ? l->source[l->at] : 0;
    const bool minus = sign == '-', plus = sign == '+' && takes_line;
    l->at += minus || plus;
    if (!starts(l, close)) {
        l->at = before;
        return false;
    }
    l->at += 2;
    l->strip = minus;
    l->trim = takes_line && !plus;
    return true;
}

static int lex_comment(struct lexer *l) {
    const int line = l->line;
    advance(l, 2);
    while (l->at < l->bytes) {
        if (close_tag(l, "#}", true)) return FKV_OK;
        advance(l, 1);
    }
    return fail(l, line, "expected #} for the comment that begins here, found the end");
}

static int lex_string(struct lexer *l) {
    const size_t start = l->at + 1;
    const char quote = l->source[l->at];
    const int line = l->line;
    size_t end = start;
    while (end < l->bytes && l->source[end] != quote) end += l->source[end] == '\\' ? 2 : 1;
    if (end >= l->bytes) return fail(l, line, "expected a quote for the string that begins here");
    if (push(l, FKV_TPL_STRING, line, l->source + start, end - start)) return FKV_FAILED;
    advance(l, end + 1 - l->at);
    return FKV_OK;
}

static int lex_number(struct lexer *l) {
    const char *s = l->source;
    const size_t start = l->at;
    size_t end = start;
    enum fkv_tpl_token_kind kind = FKV_TPL_INTEGER;
    while (end < l->bytes && is_digit(s[end])) end++;
    if (end + 1 < l->bytes && s[end] == '.' && is_digit(s[end + 1])) {
        kind = FKV_TPL_REAL;
        for (end++; end < l->bytes && is_digit(s[end]); end++) continue;
    }
    if (end < l->bytes && is_letter(s[end])) return fail(l, l->line, "expected a number of digits");
    l->at = end;
    return push(l, kind, l->line, s + start, end - start);
}

static int lex_operator(struct lexer *l) {
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    const char *at = l->source + l->at;
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (starts(l, two[i])) bytes = 2;
    if (!bytes && *at && strchr("+-*/%~|.,:()[]{}<>=", *at)) bytes = 1;
    if (!bytes)
        return fkv_fail(l->err, "%s:%d: expected an expression, found the byte 0x%02x", l->where,
                        l->line, (unsigned char)*at);
    l->at += bytes;
    return push(l, FKV_TPL_OPERATOR, l->line, at, bytes);
}

static int lex_inside(struct lexer *l) {
    const char c = l->source[l->at];
    if (c == '\'' || c == '"') return lex_string(l);
    if (is_digit(c)) return lex_number(l);
    if (!is_letter(c)) return lex_operator(l);
    const size_t start = l->at;
    while (l->at < l->bytes && (is_letter(l->source[l->at]) || is_digit(l->source[l->at]))) l->at++;
    return push(l, FKV_TPL_WORD, l->line, l->source + start, l->at - start);
}

/* A tag {{ }} or {% %} at `at`. Its end does not count inside of brackets. */
static int lex_tag(struct lexer *l) {
    const bool block = l->source[l->at + 1] == '%';
    const char *close = block ? "%}" : "}}";
    const int line = l->line;
    int open = 0;
    if (push(l, block ? FKV_TPL_BEGIN : FKV_TPL_OPEN, line, l->source + l->at, 2))
        return FKV_FAILED;
    l->at += 2;
    if (l->at < l->bytes && (l->source[l->at] == '-' || l->source[l->at] == '+')) l->at++;
    while (l->at < l->bytes) {
        const char c = l->source[l->at];
        if (is_space(c)) {
            advance(l, 1);
            continue;
        }
        const int end = l->line;
        if (!open && close_tag(l, close, block))
            return push(l, block ? FKV_TPL_END : FKV_TPL_CLOSE, end, close, 2);
        if (c && strchr("([{", c)) open++;
        if (c && strchr(")]}", c) && open) open--;
        if (lex_inside(l)) return FKV_FAILED;
    }
    return fkv_fail(l->err, "%s:%d: expected %s for the tag that begins here, found the end",
                    l->where, line, close);
}

int fkv_tpl_lex(const char *source, size_t bytes, const char *where, struct fkv_tpl_tokens *tokens,
                struct fkv_error *err) {
    struct lexer l = {
        .source = source, .bytes = bytes, .where = where, .line = 1, .tokens = tokens, .err = err};
    while (l.at < bytes) {
        take_after_tag(&l);
        const size_t tag = find_tag(&l);
        if (lex_text(&l, tag)) return FKV_FAILED;
        if (l.at == bytes) break;
        if (source[tag + 1] == '#' ? lex_comment(&l) : lex_tag(&l)) return FKV_FAILED;
    }
    return push(&l, FKV_TPL_FINISH, l.line, source + bytes, 0);
}
