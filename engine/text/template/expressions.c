/* Tokens -> expressions, by recursive descent in Jinja's order: `a if b else c`, or, and, not,
 * comparisons, + -, ~, * / // %, unary minus, then what follows a value: attributes, items, calls,
 * filters and tests. */
#include <errno.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "engine/text/template/parts.h"

static bool at_operator(const struct fkv_tpl_parser *p, const char *text) {
    return fkv_tpl_at(p, FKV_TPL_OPERATOR, text);
}

static bool skip_operator(struct fkv_tpl_parser *p, const char *text) {
    return fkv_tpl_skip(p, FKV_TPL_OPERATOR, text);
}

static bool at_word(const struct fkv_tpl_parser *p, const char *text) {
    return fkv_tpl_at(p, FKV_TPL_WORD, text);
}

/* A node at the next token that begins with `left`; NULL and a message. */
static struct fkv_tpl_node *put_left(struct fkv_tpl_parser *p, enum fkv_tpl_kind kind,
                                     struct fkv_tpl_node *left) {
    struct fkv_tpl_node *node = fkv_tpl_node(p, kind, p->at->line);
    if (node) node->left = left;
    return node;
}

static struct fkv_tpl_node *fail(struct fkv_tpl_parser *p, const char *what) {
    fkv_tpl_unexpected(p, what);
    return NULL;
}

/* ---- literals ---- */

static struct fkv_tpl_node *constant(struct fkv_tpl_parser *p, int line, json_t *value) {
    struct fkv_tpl_node *node = fkv_tpl_node(p, FKV_TPL_CONST, line);
    if (value && json_array_append(p->t->constants, value)) node = NULL; /* the list owns it */
    json_decref(value);
    if (!value || !node) {
        FKV_TPL_FAIL(p->err, p->t, line, "out of memory");
        return NULL;
    }
    node->value = value;
    return node;
}

/* A character for the escape at `at`, which stands behind a backslash; how many bytes it has, 0:
 * it is none of Python's, and the backslash stays. */
static size_t read_escape(const char *at, const char *end, char *out, size_t *made) {
    static const char names[] = "nrtbfav\\'\"", values[] = "\n\r\t\b\f\a\v\\'\"";
    const char *name = *at ? strchr(names, *at) : NULL;
    *made = 1;
    if (name) {
        *out = values[name - names];
        return 1;
    }
    if (*at == '\n') {
        *made = 0;
        return 1;
    }
    const int digits = *at == 'x' ? 2 : *at == 'u' ? 4 : 0;
    if (!digits || end - at <= digits) return 0;
    const int32_t c = fkv_hex(at + 1, digits);
    if (c <= 0 || (c >= 0xd800 && c < 0xe000)) return 0;
    *made = (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)out);
    return (size_t)digits + 1;
}

/* Strings that follow one another are one. An escape never makes more bytes than it has. */
static struct fkv_tpl_node *parse_string(struct fkv_tpl_parser *p) {
    const int line = p->at->line;
    size_t count = 0, bytes = 0;
    for (const struct fkv_tpl_token *t = p->at; t->kind == FKV_TPL_STRING; t++) bytes += t->bytes;
    char *text = malloc(bytes + 1);
    for (; text && p->at->kind == FKV_TPL_STRING; p->at++) {
        const char *at = p->at->at, *end = at + p->at->bytes;
        while (at < end) {
            size_t made, read = *at == '\\' ? read_escape(at + 1, end, text + count, &made) : 0;
            if (*at == '\\' && !read && strchr("xuUN01234567", at[1])) {
                free(text);
                return fail(p, "another escape than this one");
            }
            if (!read) {
                text[count++] = *at++;
                continue;
            }
            count += made;
            at += read + 1;
        }
    }
    json_t *value = text ? json_stringn(text, count) : NULL;
    free(text);
    return constant(p, line, value);
}

static struct fkv_tpl_node *parse_number(struct fkv_tpl_parser *p) {
    const bool whole = p->at->kind == FKV_TPL_INTEGER;
    const int line = p->at->line;
    const char *text = fkv_tpl_take(p);
    if (!text) return NULL;
    errno = 0;
    json_t *value = whole ? json_integer(strtoll(text, NULL, 10)) : json_real(strtod(text, NULL));
    if (!errno) return constant(p, line, value);
    json_decref(value);
    FKV_TPL_FAIL(p->err, p->t, line, "expected a smaller number, found %.40s", text);
    return NULL;
}

/* (a, b), [a, b], up to `close`; with `single`, one expression without a comma is itself. */
static struct fkv_tpl_node *parse_list(struct fkv_tpl_parser *p, const char *close, bool single) {
    struct fkv_tpl_node *list = fkv_tpl_node(p, FKV_TPL_LIST, p->at->line);
    if (!list) return NULL;
    p->at++;
    for (struct fkv_tpl_node **last = &list->items; !skip_operator(p, close);) {
        if (list->items) {
            single = false;
            if (fkv_tpl_expect(p, FKV_TPL_OPERATOR, ",")) return NULL;
            if (skip_operator(p, close)) break;
        }
        if (!(*last = fkv_tpl_expression(p))) return NULL;
        last = &(*last)->next;
        if (single && skip_operator(p, close)) return list->items;
    }
    return list;
}

static struct fkv_tpl_node *parse_dict(struct fkv_tpl_parser *p) {
    struct fkv_tpl_node *dict = fkv_tpl_node(p, FKV_TPL_DICT, p->at->line), **last;
    if (!dict) return NULL;
    p->at++;
    for (last = &dict->items; !skip_operator(p, "}");) {
        if (dict->items && fkv_tpl_expect(p, FKV_TPL_OPERATOR, ",")) return NULL;
        if (dict->items && skip_operator(p, "}")) break;
        if (!(*last = fkv_tpl_expression(p)) || fkv_tpl_expect(p, FKV_TPL_OPERATOR, ":") ||
            !((*last)->next = fkv_tpl_expression(p)))
            return NULL;
        last = &(*last)->next->next;
    }
    return dict;
}

static struct fkv_tpl_node *parse_word(struct fkv_tpl_parser *p) {
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    const int line = p->at->line;
    for (int i = 0; i < 6; i++)
        if (fkv_tpl_skip(p, FKV_TPL_WORD, words[i]))
            return constant(p, line, i < 4 ? json_boolean(i < 2) : json_null());
    struct fkv_tpl_node *node = fkv_tpl_node(p, FKV_TPL_NAME, line);
    return node && (node->name = fkv_tpl_take_name(p)) ? node : NULL;
}

static struct fkv_tpl_node *parse_primary(struct fkv_tpl_parser *p) {
    switch (p->at->kind) {
    case FKV_TPL_STRING: return parse_string(p);
    case FKV_TPL_INTEGER:
    case FKV_TPL_REAL: return parse_number(p);
    case FKV_TPL_WORD: return parse_word(p);
    default: break;
    }
    if (at_operator(p, "(")) return parse_list(p, ")", true);
    if (at_operator(p, "[")) return parse_list(p, "]", false);
    return at_operator(p, "{") ? parse_dict(p) : fail(p, "an expression");
}

/* ---- what follows a value ---- */

/* (a, b=c), where there is a bracket. */
static int parse_arguments(struct fkv_tpl_parser *p, struct fkv_tpl_node **first) {
    int count = 0;
    if (!skip_operator(p, "(")) return FKV_OK;
    while (!skip_operator(p, ")")) {
        if (count && fkv_tpl_expect(p, FKV_TPL_OPERATOR, ",")) return FKV_FAILED;
        if (count && skip_operator(p, ")")) break;
        if (++count > FKV_TPL_MAX_ARGUMENTS) return fkv_tpl_unexpected(p, "8 arguments at most");
        if (!(*first = fkv_tpl_node(p, FKV_TPL_ARGUMENT, p->at->line))) return FKV_FAILED;
        if (p->at->kind == FKV_TPL_WORD && p->at[1].kind == FKV_TPL_OPERATOR &&
            p->at[1].bytes == 1 && *p->at[1].at == '=') {
            if (!((*first)->name = fkv_tpl_take_name(p))) return FKV_FAILED;
            p->at++;
        }
        if (!((*first)->left = fkv_tpl_expression(p))) return FKV_FAILED;
        first = &(*first)->next;
    }
    return FKV_OK;
}

/* [a] or [a:b:c], behind the bracket. */
static struct fkv_tpl_node *parse_item(struct fkv_tpl_parser *p, struct fkv_tpl_node *left) {
    struct fkv_tpl_node *node = put_left(p, FKV_TPL_ITEM, left);
    if (!node) return NULL;
    struct fkv_tpl_node **const parts[] = {&node->right, &node->other, &node->third};
    for (int i = 0; i < 3; i++) {
        if (!at_operator(p, ":") && !at_operator(p, "]") && !(*parts[i] = fkv_tpl_expression(p)))
            return NULL;
        if (skip_operator(p, "]"))
            return i || node->right ? node : fail(p, "an index before the ]");
        if (i == 2 || !skip_operator(p, ":")) break;
        node->kind = FKV_TPL_SLICE;
    }
    return fail(p, "]");
}

/* What may follow a value without a filter or a test between. */
static struct fkv_tpl_node *parse_postfix(struct fkv_tpl_parser *p, struct fkv_tpl_node *left) {
    while (left) {
        if (at_operator(p, ".")) {
            left = put_left(p, FKV_TPL_ATTRIBUTE, left);
            p->at++;
            if (left && !(left->name = fkv_tpl_take_name(p))) return NULL;
        } else if (skip_operator(p, "[")) {
            left = parse_item(p, left);
        } else if (at_operator(p, "(")) {
            left = put_left(p, FKV_TPL_CALL, left);
            if (left && parse_arguments(p, &left->items)) return NULL;
        } else {
            break;
        }
    }
    return left;
}

/* is NAME, is not NAME; an argument may stand without brackets. */
static struct fkv_tpl_node *parse_test(struct fkv_tpl_parser *p, struct fkv_tpl_node *left) {
    const bool negated = fkv_tpl_skip(p, FKV_TPL_WORD, "not");
    struct fkv_tpl_node *node = put_left(p, FKV_TPL_TEST, left);
    if (!node || !(node->name = fkv_tpl_take_name(p))) return NULL;
    const bool bare = p->at->kind == FKV_TPL_STRING || p->at->kind == FKV_TPL_INTEGER ||
                      p->at->kind == FKV_TPL_REAL || at_operator(p, "[") || at_operator(p, "{") ||
                      (p->at->kind == FKV_TPL_WORD && !at_word(p, "else") && !at_word(p, "or") &&
                       !at_word(p, "and") && !at_word(p, "is") && !at_word(p, "if") &&
                       !at_word(p, "in") && !at_word(p, "not"));
    if (bare) {
        node->items = fkv_tpl_node(p, FKV_TPL_ARGUMENT, p->at->line);
        if (!node->items || !(node->items->left = parse_postfix(p, parse_primary(p)))) return NULL;
    } else if (parse_arguments(p, &node->items)) {
        return NULL;
    }
    return negated ? put_left(p, FKV_TPL_NOT, node) : node;
}

static struct fkv_tpl_node *parse_filters(struct fkv_tpl_parser *p, struct fkv_tpl_node *left) {
    while (left) {
        if (at_operator(p, "|")) {
            left = put_left(p, FKV_TPL_FILTER, left);
            p->at++;
            if (!left || !(left->name = fkv_tpl_take_name(p)) || parse_arguments(p, &left->items))
                return NULL;
        } else if (fkv_tpl_skip(p, FKV_TPL_WORD, "is")) {
            left = parse_test(p, left);
        } else {
            break;
        }
    }
    return left;
}

/* ---- operators ---- */

/* The filters of `-x|f` are those of -x. */
static struct fkv_tpl_node *parse_unary(struct fkv_tpl_parser *p, bool filters) {
    const int line = p->at->line;
    if (++p->depth > FKV_TPL_DEPTH) return fail(p, "an expression less deep");
    struct fkv_tpl_node *node;
    if (skip_operator(p, "-")) {
        if ((node = fkv_tpl_node(p, FKV_TPL_MINUS, line)) && !(node->left = parse_unary(p, false)))
            return NULL;
    } else {
        node = parse_postfix(p, parse_primary(p));
    }
    p->depth--;
    return filters ? parse_filters(p, node) : node;
}

/* Operators of one rank, strongest last; between words and signs stand `not` and comparisons. */
static const struct {
    enum fkv_tpl_kind kind;
    const char *names[5];
} ranks[] = {
    {FKV_TPL_OR, {"or"}},         {FKV_TPL_AND, {"and"}},  {FKV_TPL_COMPARE, {NULL}},
    {FKV_TPL_BINARY, {"+", "-"}}, {FKV_TPL_BINARY, {"~"}}, {FKV_TPL_BINARY, {"*", "/", "//", "%"}},
};
enum { COMPARISON = 2, RANKS = sizeof ranks / sizeof *ranks };

static struct fkv_tpl_node *parse_not(struct fkv_tpl_parser *p);

static struct fkv_tpl_node *parse_rank(struct fkv_tpl_parser *p, int rank) {
    if (rank == COMPARISON) return parse_not(p);
    if (rank == RANKS) return parse_unary(p, true);
    const enum fkv_tpl_token_kind token = rank < COMPARISON ? FKV_TPL_WORD : FKV_TPL_OPERATOR;
    struct fkv_tpl_node *left = parse_rank(p, rank + 1);
    for (int i = 0; left && ranks[rank].names[i];) {
        if (!fkv_tpl_at(p, token, ranks[rank].names[i])) {
            i++;
            continue;
        }
        left = put_left(p, ranks[rank].kind, left);
        if (!left || !(left->name = fkv_tpl_take(p)) || !(left->right = parse_rank(p, rank + 1)))
            return NULL;
        i = 0;
    }
    return left;
}

/* The comparison at the next token, "" for none. */
static const char *take_comparison(struct fkv_tpl_parser *p) {
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (int i = 0; i < 6; i++)
        if (skip_operator(p, operators[i])) return operators[i];
    if (fkv_tpl_skip(p, FKV_TPL_WORD, "in")) return "in";
    if (!at_word(p, "not") || p->at[1].kind != FKV_TPL_WORD || p->at[1].bytes != 2 ||
        memcmp(p->at[1].at, "in", 2) != 0)
        return "";
    p->at += 2;
    return "not in";
}

static struct fkv_tpl_node *parse_comparison(struct fkv_tpl_parser *p) {
    struct fkv_tpl_node *left = parse_rank(p, COMPARISON + 1), *node = NULL, **last = NULL;
    for (const char *name; left && *(name = take_comparison(p)); last = &(*last)->next) {
        if (!node) {
            if (!(node = put_left(p, FKV_TPL_COMPARE, left))) return NULL;
            last = &node->items;
        }
        if (!(*last = fkv_tpl_node(p, FKV_TPL_BINARY, p->at->line)) ||
            !((*last)->right = parse_rank(p, COMPARISON + 1)))
            return NULL;
        (*last)->name = name;
    }
    return node ? node : left;
}

static struct fkv_tpl_node *parse_not(struct fkv_tpl_parser *p) {
    const int line = p->at->line;
    if (!fkv_tpl_skip(p, FKV_TPL_WORD, "not")) return parse_comparison(p);
    if (++p->depth > FKV_TPL_DEPTH) return fail(p, "an expression less deep");
    struct fkv_tpl_node *node = fkv_tpl_node(p, FKV_TPL_NOT, line);
    if (!node || !(node->left = parse_not(p))) return NULL;
    p->depth--;
    return node;
}

struct fkv_tpl_node *fkv_tpl_disjunction(struct fkv_tpl_parser *p) {
    return parse_rank(p, 0);
}

struct fkv_tpl_node *fkv_tpl_expression(struct fkv_tpl_parser *p) {
    if (++p->depth > FKV_TPL_DEPTH) return fail(p, "an expression less deep");
    struct fkv_tpl_node *left = fkv_tpl_disjunction(p);
    while (left && fkv_tpl_skip(p, FKV_TPL_WORD, "if")) {
        left = put_left(p, FKV_TPL_CHOICE, left);
        if (!left || !(left->right = fkv_tpl_disjunction(p))) return NULL;
        if (fkv_tpl_skip(p, FKV_TPL_WORD, "else") && !(left->other = fkv_tpl_expression(p)))
            return NULL;
    }
    p->depth--;
    return left;
}

struct fkv_tpl_node *fkv_tpl_expressions(struct fkv_tpl_parser *p) {
    struct fkv_tpl_node *first = fkv_tpl_expression(p);
    if (!first || !at_operator(p, ",")) return first;
    struct fkv_tpl_node *list = fkv_tpl_node(p, FKV_TPL_LIST, first->line), **last = &first->next;
    if (!list) return NULL;
    list->items = first;
    while (skip_operator(p, ",") && p->at->kind != FKV_TPL_CLOSE && p->at->kind != FKV_TPL_END) {
        if (!(*last = fkv_tpl_expression(p))) return NULL;
        last = &(*last)->next;
    }
    return list;
}
