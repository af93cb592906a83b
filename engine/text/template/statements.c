/* Tokens -> statements, and what the parsers of statements and expressions share. */
#include "engine/text/template/parts.h"

/* ---- tokens ---- */

bool fkv_tpl_at(const struct fkv_tpl_parser *p, enum fkv_tpl_token_kind kind, const char *text) {
    return p->at->kind == kind &&
           (!text || (p->at->bytes == strlen(text) && !memcmp(p->at->at, text, p->at->bytes)));
}

bool fkv_tpl_skip(struct fkv_tpl_parser *p, enum fkv_tpl_token_kind kind, const char *text) {
    if (!fkv_tpl_at(p, kind, text)) return false;
    p->at++;
    return true;
}

int fkv_tpl_unexpected(struct fkv_tpl_parser *p, const char *what) {
    const struct fkv_tpl_token *token = p->at;
    if (token->kind == FKV_TPL_FINISH)
        return FKV_TPL_FAIL(p->err, p->t, token->line, "expected %s, found the end", what);
    return FKV_TPL_FAIL(p->err, p->t, token->line, "expected %s, found \"%.*s\"", what,
                        (int)(token->bytes < 60 ? token->bytes : 60), token->at);
}

int fkv_tpl_expect(struct fkv_tpl_parser *p, enum fkv_tpl_token_kind kind, const char *text) {
    static const char *const names[] = {[FKV_TPL_CLOSE] = "}}", [FKV_TPL_END] = "%}"};
    return fkv_tpl_skip(p, kind, text) ? FKV_OK : fkv_tpl_unexpected(p, text ? text : names[kind]);
}

const char *fkv_tpl_take(struct fkv_tpl_parser *p) {
    char *text = fkv_tpl_alloc(p->t, p->at->bytes + 1);
    if (!text) {
        FKV_TPL_FAIL(p->err, p->t, p->at->line, "out of memory");
        return NULL;
    }
    memcpy(text, p->at->at, p->at->bytes);
    p->at++;
    return text;
}

const char *fkv_tpl_take_name(struct fkv_tpl_parser *p) {
    if (p->at->kind == FKV_TPL_WORD) return fkv_tpl_take(p);
    fkv_tpl_unexpected(p, "a name");
    return NULL;
}

struct fkv_tpl_node *fkv_tpl_node(struct fkv_tpl_parser *p, enum fkv_tpl_kind kind, int line) {
    struct fkv_tpl_node *node = fkv_tpl_alloc(p->t, sizeof *node);
    if (!node) {
        FKV_TPL_FAIL(p->err, p->t, line, "out of memory");
        return NULL;
    }
    node->kind = kind;
    node->line = line;
    return node;
}

/* ---- statements ---- */

static int parse_body(struct fkv_tpl_parser *p, struct fkv_tpl_node **first);

/* A name as a node of its own. */
static struct fkv_tpl_node *parse_name(struct fkv_tpl_parser *p, enum fkv_tpl_kind kind) {
    struct fkv_tpl_node *node = fkv_tpl_node(p, kind, p->at->line);
    return node && (node->name = fkv_tpl_take_name(p)) ? node : NULL;
}

/* {% WORD %}, which ends a body; the parser stands at WORD. */
static int end_statement(struct fkv_tpl_parser *p, const char *word) {
    if (fkv_tpl_expect(p, FKV_TPL_WORD, word)) return FKV_FAILED;
    return fkv_tpl_expect(p, FKV_TPL_END, NULL);
}

/* %} BODY {% ; the parser then stands at the word that ended the body. */
static int parse_inner(struct fkv_tpl_parser *p, struct fkv_tpl_node **items) {
    if (fkv_tpl_expect(p, FKV_TPL_END, NULL)) return FKV_FAILED;
    return parse_body(p, items);
}

/* What follows {% else. */
static int parse_else(struct fkv_tpl_parser *p, struct fkv_tpl_node **other) {
    *other = fkv_tpl_node(p, FKV_TPL_BODY, p->at->line);
    return *other ? parse_inner(p, &(*other)->items) : FKV_FAILED;
}

static int parse_if(struct fkv_tpl_parser *p, struct fkv_tpl_node *node) {
    for (struct fkv_tpl_node *at = node;; at = at->other) {
        if (!(at->right = fkv_tpl_expressions(p)) || parse_inner(p, &at->items)) return FKV_FAILED;
        if (!fkv_tpl_at(p, FKV_TPL_WORD, "elif")) {
            if (fkv_tpl_skip(p, FKV_TPL_WORD, "else") && parse_else(p, &at->other))
                return FKV_FAILED;
            return end_statement(p, "endif");
        }
        at->other = fkv_tpl_node(p, FKV_TPL_IF, p->at->line);
        if (!at->other) return FKV_FAILED;
        p->at++;
    }
}

static int parse_for(struct fkv_tpl_parser *p, struct fkv_tpl_node *node) {
    struct fkv_tpl_node **last = &node->more;
    do {
        if (!(*last = parse_name(p, FKV_TPL_NAME))) return FKV_FAILED;
        last = &(*last)->next;
    } while (fkv_tpl_skip(p, FKV_TPL_OPERATOR, ","));
    if (fkv_tpl_expect(p, FKV_TPL_WORD, "in") || !(node->left = fkv_tpl_disjunction(p)))
        return FKV_FAILED;
    if (fkv_tpl_skip(p, FKV_TPL_WORD, "if") && !(node->right = fkv_tpl_expression(p)))
        return FKV_FAILED;
    if (parse_inner(p, &node->items)) return FKV_FAILED;
    if (fkv_tpl_skip(p, FKV_TPL_WORD, "else") && parse_else(p, &node->other)) return FKV_FAILED;
    return end_statement(p, "endfor");
}

static int parse_set(struct fkv_tpl_parser *p, struct fkv_tpl_node *node) {
    struct fkv_tpl_node *target = parse_name(p, FKV_TPL_NAME);
    if (!target) return FKV_FAILED;
    if (fkv_tpl_skip(p, FKV_TPL_OPERATOR, ".")) {
        struct fkv_tpl_node *attribute = parse_name(p, FKV_TPL_ATTRIBUTE);
        if (!attribute) return FKV_FAILED;
        attribute->left = target;
        target = attribute;
    }
    node->left = target;
    if (fkv_tpl_skip(p, FKV_TPL_OPERATOR, "="))
        return (node->right = fkv_tpl_expressions(p)) ? fkv_tpl_expect(p, FKV_TPL_END, NULL)
                                                      : FKV_FAILED;
    if (!fkv_tpl_at(p, FKV_TPL_END, NULL)) return fkv_tpl_unexpected(p, "= or %}");
    return parse_inner(p, &node->items) ? FKV_FAILED : end_statement(p, "endset");
}

static int parse_macro(struct fkv_tpl_parser *p, struct fkv_tpl_node *node) {
    struct fkv_tpl_node **last = &node->more;
    int count = 0;
    if (!(node->name = fkv_tpl_take_name(p)) || fkv_tpl_expect(p, FKV_TPL_OPERATOR, "("))
        return FKV_FAILED;
    while (!fkv_tpl_at(p, FKV_TPL_OPERATOR, ")")) {
        if (count && fkv_tpl_expect(p, FKV_TPL_OPERATOR, ",")) return FKV_FAILED;
        if (++count > FKV_TPL_MAX_ARGUMENTS) return fkv_tpl_unexpected(p, "8 parameters at most");
        if (!(*last = parse_name(p, FKV_TPL_ARGUMENT))) return FKV_FAILED;
        if (fkv_tpl_skip(p, FKV_TPL_OPERATOR, "=") && !((*last)->left = fkv_tpl_expression(p)))
            return FKV_FAILED;
        last = &(*last)->next;
    }
    p->at++;
    return parse_inner(p, &node->items) ? FKV_FAILED : end_statement(p, "endmacro");
}

static int parse_generation(struct fkv_tpl_parser *p, struct fkv_tpl_node *node) {
    return parse_inner(p, &node->items) ? FKV_FAILED : end_statement(p, "endgeneration");
}

static int parse_jump(struct fkv_tpl_parser *p, struct fkv_tpl_node *node) {
    (void)node;
    return fkv_tpl_expect(p, FKV_TPL_END, NULL);
}

static const struct {
    const char *word;
    enum fkv_tpl_kind kind;
    int (*parse)(struct fkv_tpl_parser *p, struct fkv_tpl_node *node); /* behind the word */
} statements[] = {
    {"if", FKV_TPL_IF, parse_if},
    {"for", FKV_TPL_FOR, parse_for},
    {"set", FKV_TPL_SET, parse_set},
    {"macro", FKV_TPL_MACRO, parse_macro},
    {"break", FKV_TPL_BREAK, parse_jump},
    {"continue", FKV_TPL_CONTINUE, parse_jump},
    {"generation", FKV_TPL_SCOPE, parse_generation},
};
enum { STATEMENTS = sizeof statements / sizeof *statements };

/* Words at which a body ends; who began it checks that it is the right one. */
static bool ends_body(const struct fkv_tpl_parser *p) {
    return fkv_tpl_at(p, FKV_TPL_WORD, "else") || fkv_tpl_at(p, FKV_TPL_WORD, "elif") ||
           (p->at->kind == FKV_TPL_WORD && p->at->bytes > 3 && !memcmp(p->at->at, "end", 3));
}

static struct fkv_tpl_node *parse_tag(struct fkv_tpl_parser *p) {
    int i = 0;
    while (i < STATEMENTS && !fkv_tpl_at(p, FKV_TPL_WORD, statements[i].word)) i++;
    if (i == STATEMENTS) {
        fkv_tpl_unexpected(p, "if, for, set, macro, break, continue or generation");
        return NULL;
    }
    struct fkv_tpl_node *node = fkv_tpl_node(p, statements[i].kind, p->at->line);
    p->at++;
    return node && !statements[i].parse(p, node) ? node : NULL;
}

static struct fkv_tpl_node *parse_print(struct fkv_tpl_parser *p) {
    struct fkv_tpl_node *node = fkv_tpl_node(p, FKV_TPL_PRINT, p->at->line);
    if (!node || !(node->left = fkv_tpl_expressions(p)) || fkv_tpl_expect(p, FKV_TPL_CLOSE, NULL))
        return NULL;
    return node;
}

static struct fkv_tpl_node *parse_text(struct fkv_tpl_parser *p) {
    struct fkv_tpl_node *node = fkv_tpl_node(p, FKV_TPL_DATA, p->at->line);
    if (!node) return NULL;
    node->text = p->at->at;
    node->bytes = p->at->bytes;
    p->at++;
    return node;
}

/* Statements up to the end or to a word that ends a body, at which the parser then stands. */
static int parse_body(struct fkv_tpl_parser *p, struct fkv_tpl_node **first) {
    if (++p->depth > FKV_TPL_DEPTH) return fkv_tpl_unexpected(p, "statements less deep");
    while (p->at->kind != FKV_TPL_FINISH) {
        const bool tag = fkv_tpl_skip(p, FKV_TPL_BEGIN, NULL);
        if (tag && ends_body(p)) break;
        *first = tag                                   ? parse_tag(p)
                 : fkv_tpl_skip(p, FKV_TPL_OPEN, NULL) ? parse_print(p)
                                                       : parse_text(p);
        if (!*first) return FKV_FAILED;
        first = &(*first)->next;
    }
    p->depth--;
    return FKV_OK;
}

int fkv_tpl_parse_statements(struct fkv_tpl_parser *p, struct fkv_tpl_node **body) {
    *body = fkv_tpl_node(p, FKV_TPL_BODY, 1);
    if (!*body || parse_body(p, &(*body)->items)) return FKV_FAILED;
    return p->at->kind == FKV_TPL_FINISH ? FKV_OK : fkv_tpl_unexpected(p, "another statement");
}
