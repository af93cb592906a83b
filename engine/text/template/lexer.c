/* A source -> tokens. White space goes as transformers sets Jinja up:
 *
 *   a `-` inside of a tag  takes all white space on its side
 *   trim_blocks            a line's end behind {% %} or {# #} goes
 *   lstrip_blocks          blanks go that stand alone before {% or {# on its line
 *   a `+` inside of a tag  keeps what these two would take */
#include "engine/text/template/parts.h"

#define SPACES " \t\n\v\f\r"
#define DIGITS "0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"

struct lexer {
    const char *source, *at; /* a NUL ends it */
    const char *where;
    int line;         /* of `at` */
    bool strip, trim; /* what the tag before `at` takes: all white space, the end of its line */
    struct fkv_tpl_tokens *tokens;
    struct fkv_error *err;
};

static bool is_one_of(char c, const char *set) { return c && strchr(set, c); }

static int fail(struct lexer *l, int line, const char *what) {
    return fkv_fail(l->err, "%s:%d: %s", l->where, line, what);
}

/* A token, which begins on `line`, of the text from `start` to `end`. */
static int push(struct lexer *l, enum fkv_tpl_token_kind kind, int line, const char *start,
                const char *end) {
    struct fkv_tpl_tokens *t = l->tokens;
    struct fkv_tpl_token *larger = fkv_grow(t->at, &t->capacity, t->count + 1, sizeof *larger);
    if (!larger) return fail(l, line, "out of memory");
    t->at = larger;
    t->at[t->count++] = (struct fkv_tpl_token){kind, line, start, (size_t)(end - start)};
    return FKV_OK;
}

/* Moves `at` to `end` and counts the lines between. */
static void advance(struct lexer *l, const char *end) {
    for (; l->at < end; l->at++)
        if (*l->at == '\n') l->line++;
}

static bool starts(const struct lexer *l, const char *text) {
    return !strncmp(l->at, text, strlen(text));
}

/* Where the next tag begins, from `at` on; the source's end without one. */
static const char *find_tag(const struct lexer *l) {
    const char *tag = l->at + strcspn(l->at, "{");
    while (*tag && !is_one_of(tag[1], "{%#")) tag += 1 + strcspn(tag + 1, "{");
    return tag;
}

/* What the tag before takes of a text. */
static void take_after_tag(struct lexer *l) {
    if (l->strip)
        advance(l, l->at + strspn(l->at, SPACES));
    else if (l->trim && *l->at == '\n')
        advance(l, l->at + 1);
    l->strip = l->trim = false;
}

/* The text up to the tag at `stop`. */
static int lex_text(struct lexer *l, const char *stop) {
    const char *start = l->at, *end = stop, *blank = stop;
    const int line = l->line;
    const char kind = *stop ? stop[1] : 0, sign = kind ? stop[2] : 0;
    if (sign == '-') {
        while (end > start && is_one_of(end[-1], SPACES)) end--;
    } else if (kind && kind != '{' && sign != '+') {
        while (blank > start && blank[-1] != '\n' && is_one_of(blank[-1], SPACES)) blank--;
        if (blank == l->source || blank[-1] == '\n') end = blank;
    }
    advance(l, stop);
    return end > start ? push(l, FKV_TPL_TEXT, line, start, end) : FKV_OK;
}

/* The end of a tag at `at`, after its sign; false: it is not there. `at` is then behind it. */
static bool close_tag(struct lexer *l, const char *close, bool takes_line) {
    const bool minus = *l->at == '-', plus = *l->at == '+' && takes_line;
    l->at += minus || plus;
    if (!starts(l, close)) {
        l->at -= minus || plus;
        return false;
    }
    l->at += 2;
    l->strip = minus;
    l->trim = takes_line && !plus;
    return true;
}

static int lex_comment(struct lexer *l) {
    const int line = l->line;
    for (l->at += 2; *l->at; advance(l, l->at + 1))
        if (close_tag(l, "#}", true)) return FKV_OK;
    return fail(l, line, "expected #} for the comment that begins here, found the end");
}

static int lex_string(struct lexer *l) {
    const char *start = l->at + 1, *end = start;
    const int line = l->line;
    while (*end && *end != *l->at) end += *end == '\\' && end[1] ? 2 : 1;
    if (!*end) return fail(l, line, "expected a quote for the string that begins here");
    advance(l, end + 1);
    return push(l, FKV_TPL_STRING, line, start, end);
}

static int lex_number(struct lexer *l) {
    const char *start = l->at, *end = start + strspn(start, DIGITS);
    const bool real = *end == '.' && is_one_of(end[1], DIGITS);
    if (real) end += 1 + strspn(end + 1, DIGITS);
    if (is_one_of(*end, LETTERS)) return fail(l, l->line, "expected a number of digits");
    l->at = end;
    return push(l, real ? FKV_TPL_REAL : FKV_TPL_INTEGER, l->line, start, end);
}

static int lex_operator(struct lexer *l) {
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    const char *start = l->at;
    for (size_t i = 0; i < sizeof two / sizeof *two && l->at == start; i++)
        if (starts(l, two[i])) l->at += 2;
    if (l->at == start && is_one_of(*start, "+-*/%~|.,:()[]{}<>=")) l->at++;
    if (l->at > start) return push(l, FKV_TPL_OPERATOR, l->line, start, l->at);
    return fkv_fail(l->err, "%s:%d: expected an expression, found the byte 0x%02x", l->where,
                    l->line, (unsigned char)*start);
}

static int lex_inside(struct lexer *l) {
    const char *start = l->at;
    if (is_one_of(*start, "'\"")) return lex_string(l);
    if (is_one_of(*start, DIGITS)) return lex_number(l);
    if (!is_one_of(*start, LETTERS)) return lex_operator(l);
    l->at += strspn(start, LETTERS DIGITS);
    return push(l, FKV_TPL_WORD, l->line, start, l->at);
}

/* A tag {{ }} or {% %} at `at`. Its end does not count inside of brackets. */
static int lex_tag(struct lexer *l) {
    const bool block = l->at[1] == '%';
    const char *close = block ? "%}" : "}}";
    const int line = l->line;
    int open = 0;
    if (push(l, block ? FKV_TPL_BEGIN : FKV_TPL_OPEN, line, l->at, l->at + 2)) return FKV_FAILED;
    l->at += 2;
    l->at += is_one_of(*l->at, "-+");
    for (;;) {
        advance(l, l->at + strspn(l->at, SPACES));
        if (!*l->at) break;
        if (!open && close_tag(l, close, block))
            return push(l, block ? FKV_TPL_END : FKV_TPL_CLOSE, l->line, close, close + 2);
        if (is_one_of(*l->at, "([{")) open++;
        if (is_one_of(*l->at, ")]}") && open) open--;
        if (lex_inside(l)) return FKV_FAILED;
    }
    return fkv_fail(l->err, "%s:%d: expected %s for the tag that begins here, found the end",
                    l->where, line, close);
}

int fkv_tpl_lex(const char *source, const char *where, struct fkv_tpl_tokens *tokens,
                struct fkv_error *err) {
    struct lexer l = {
        .source = source, .at = source, .where = where, .line = 1, .tokens = tokens, .err = err};
    while (*l.at) {
        take_after_tag(&l);
        if (lex_text(&l, find_tag(&l))) return FKV_FAILED;
        if (*l.at && (l.at[1] == '#' ? lex_comment(&l) : lex_tag(&l))) return FKV_FAILED;
    }
    return push(&l, FKV_TPL_FINISH, l.line, l.at, l.at);
}
