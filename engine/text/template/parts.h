/* What templates are made of; included by the files of this folder only.
 *
 *   lexer.c        a source -> tokens, with its rules for white space
 *   statements.c   tokens -> statements
 *   expressions.c  tokens -> expressions
 *   template.c     opening, memory of nodes
 *   values.c       values: truth, order, text, JSON
 *   strings.c      Python's methods of strings
 *   evaluate.c     expressions -> values
 *   calls.c        functions, filters and methods by name, macros
 *   filters.c, tests.c
 *   render.c       statements -> text */
#ifndef FKV_ENGINE_TEXT_TEMPLATE_PARTS_H
#define FKV_ENGINE_TEXT_TEMPLATE_PARTS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "engine/text/bytes.h"
#include "engine/text/template.h"

/* ---- lexer.c ---- */

enum fkv_tpl_token_kind {
    FKV_TPL_TEXT,   /* between tags */
    FKV_TPL_OPEN,   /* {{ */
    FKV_TPL_CLOSE,  /* }} */
    FKV_TPL_BEGIN,  /* {% */
    FKV_TPL_END,    /* %} */
    FKV_TPL_WORD,   /* a name or a keyword */
    FKV_TPL_STRING, /* between its quotes, escapes not yet replaced */
    FKV_TPL_INTEGER,
    FKV_TPL_REAL,
    FKV_TPL_OPERATOR, /* one or two characters */
    FKV_TPL_FINISH,   /* of the source */
};
struct fkv_tpl_token {
    enum fkv_tpl_token_kind kind;
    int line;
    const char *at; /* [bytes] in the source */
    size_t bytes;
};
struct fkv_tpl_tokens {
    struct fkv_tpl_token *at; /* [count], malloc'd; the last is FKV_TPL_FINISH */
    size_t count, capacity;
};
/* A NUL ends the source. */
int fkv_tpl_lex(const char *source, const char *where, struct fkv_tpl_tokens *tokens,
                struct fkv_error *err);

/* ---- nodes ---- */

enum fkv_tpl_kind {
    /* expressions: which fields count */
    FKV_TPL_CONST,     /* value */
    FKV_TPL_NAME,      /* name */
    FKV_TPL_ATTRIBUTE, /* left, name */
    FKV_TPL_ITEM,      /* left [ right ] */
    FKV_TPL_SLICE,     /* left [ right : other : third ], each of the three may be NULL */
    FKV_TPL_LIST,      /* items */
    FKV_TPL_DICT,      /* items: a key, its value, ... */
    FKV_TPL_NOT,       /* left */
    FKV_TPL_MINUS,     /* left */
    FKV_TPL_AND,       /* left, right */
    FKV_TPL_OR,        /* left, right */
    FKV_TPL_COMPARE,   /* left, items: each a FKV_TPL_BINARY with name and right */
    FKV_TPL_BINARY,    /* left, name (the operator), right */
    FKV_TPL_CHOICE,    /* left if right else other; other may be NULL */
    FKV_TPL_CALL,      /* left, items: arguments */
    FKV_TPL_FILTER,    /* left, name, items: arguments */
    FKV_TPL_TEST,      /* left, name, items: arguments */
    FKV_TPL_ARGUMENT,  /* left, name (NULL: by position); of a macro: left is the default or NULL */
    /* statements */
    FKV_TPL_DATA,  /* text [bytes] */
    FKV_TPL_PRINT, /* left */
    FKV_TPL_IF,    /* right: condition, items, other: FKV_TPL_BODY or another FKV_TPL_IF */
    FKV_TPL_FOR,   /* more: targets, left: what, right: filter or NULL, items, other: else */
    FKV_TPL_SET,   /* left: FKV_TPL_NAME or FKV_TPL_ATTRIBUTE, right: value, or NULL and items */
    FKV_TPL_MACRO, /* name, more: FKV_TPL_ARGUMENTs, items */
    FKV_TPL_BODY,  /* items */
    FKV_TPL_SCOPE, /* items, whose variables end with it */
    FKV_TPL_BREAK,
    FKV_TPL_CONTINUE,
};
struct fkv_tpl_node {
    enum fkv_tpl_kind kind;
    int line;
    const char *name; /* with a NUL */
    const char *text; /* [bytes] */
    size_t bytes;
    json_t *value;
    struct fkv_tpl_node *left, *right, *other, *third;
    struct fkv_tpl_node *items, *more; /* lists */
    struct fkv_tpl_node *next;         /* in the list that it is a part of */
};

/* ---- template.c ---- */

struct fkv_tpl_block; /* of memory */
struct fkv_template {
    char *source;      /* lines end in \n alone */
    char *where;       /* names it in messages */
    json_t *constants; /* a list that owns the values of nodes */
    struct fkv_tpl_block *blocks;
    struct fkv_tpl_node *body; /* FKV_TPL_BODY */
};
/* Zeroed memory that lives as long as the template; NULL: out of memory. */
void *fkv_tpl_alloc(struct fkv_template *t, size_t bytes);

#define FKV_TPL_FAIL(err, t, line, ...)                                                            \
    (fkv_fail(err, __VA_ARGS__), fkv_error_prefix(err, "%s:%d", (t)->where, (line)))

/* ---- statements.c, expressions.c ---- */

enum { FKV_TPL_DEPTH = 60 }; /* of expressions and statements inside each other */
struct fkv_tpl_parser {
    struct fkv_template *t;
    const struct fkv_tpl_token *at; /* the next one */
    int depth;
    struct fkv_error *err;
};
int fkv_tpl_parse_statements(struct fkv_tpl_parser *p, struct fkv_tpl_node **body);
/* An expression; NULL and a message. */
struct fkv_tpl_node *fkv_tpl_expression(struct fkv_tpl_parser *p);
/* The same, or several with commas between them, as a list. */
struct fkv_tpl_node *fkv_tpl_expressions(struct fkv_tpl_parser *p);
/* The same without `a if b else c` at its top: what stands before a filter of `for`. */
struct fkv_tpl_node *fkv_tpl_disjunction(struct fkv_tpl_parser *p);

struct fkv_tpl_node *fkv_tpl_node(struct fkv_tpl_parser *p, enum fkv_tpl_kind kind, int line);
bool fkv_tpl_at(const struct fkv_tpl_parser *p, enum fkv_tpl_token_kind kind, const char *text);
bool fkv_tpl_skip(struct fkv_tpl_parser *p, enum fkv_tpl_token_kind kind, const char *text);
int fkv_tpl_expect(struct fkv_tpl_parser *p, enum fkv_tpl_token_kind kind, const char *text);
/* A copy of the next token's text, of any token and of a word only; NULL and a message. */
const char *fkv_tpl_take(struct fkv_tpl_parser *p);
const char *fkv_tpl_take_name(struct fkv_tpl_parser *p);
/* "expected WHAT, found ..." at the next token. */
int fkv_tpl_unexpected(struct fkv_tpl_parser *p, const char *what);

/* ---- rendering ---- */

enum fkv_tpl_value_kind {
    FKV_TPL_UNDEFINED,
    FKV_TPL_PLAIN,     /* json: what JSON has; never changed, so that it may be shared */
    FKV_TPL_NAMESPACE, /* json: an object that `set` changes; never part of another value */
    FKV_TPL_FUNCTION,  /* node: a macro, or NULL and one of ours by its name */
};
struct fkv_tpl_value {
    enum fkv_tpl_value_kind kind;
    json_t *json; /* a reference of its own */
    const struct fkv_tpl_node *node;
};
enum { FKV_TPL_MAX_ARGUMENTS = 8 };
struct fkv_tpl_arguments {
    struct fkv_tpl_value at[FKV_TPL_MAX_ARGUMENTS]; /* [count] */
    const char *names[FKV_TPL_MAX_ARGUMENTS];       /* NULL: by position */
    int count;
};

struct fkv_tpl_variable {
    const char *name; /* the template's or that of the object of variables */
    struct fkv_tpl_value value;
    struct fkv_tpl_variable *next;
};
struct fkv_tpl_scope {
    struct fkv_tpl_variable *variables;
    struct fkv_tpl_scope *above;
};

struct fkv_tpl_run {
    const struct fkv_template *t;
    const char *date; /* or NULL */
    struct fkv_tpl_scope *scope;
    struct fkv_tpl_scope *outermost;
    struct fkv_bytes *out;
    enum { FKV_TPL_ON, FKV_TPL_BREAKS, FKV_TPL_CONTINUES } jump;
    size_t effort;
    int depth;
    int line; /* of what is computed, for messages */
    struct fkv_error *err;
};
enum { FKV_TPL_RUN_DEPTH = 400 };

#define FKV_TPL_REFUSE(r, ...) FKV_TPL_FAIL((r)->err, (r)->t, (r)->line, __VA_ARGS__)

/* Adds to the effort. */
int fkv_tpl_spend(struct fkv_tpl_run *r, size_t effort);
int fkv_tpl_put(struct fkv_tpl_run *r, struct fkv_bytes *text, const char *at, size_t bytes);

/* ---- values.c ---- */

void fkv_tpl_value_free(struct fkv_tpl_value *v); /* leaves it undefined */
struct fkv_tpl_value fkv_tpl_share(const struct fkv_tpl_value *v);
/* A value of a new reference; NULL is refused as out of memory. */
int fkv_tpl_plain(struct fkv_tpl_run *r, json_t *json, struct fkv_tpl_value *out);
int fkv_tpl_string_value(struct fkv_tpl_run *r, const char *at, size_t bytes,
                         struct fkv_tpl_value *out);
/* The string of a text, where `status` says that it is whole. Frees the text; returns the status.
 */
int fkv_tpl_take_text(struct fkv_tpl_run *r, int status, struct fkv_bytes *text,
                      struct fkv_tpl_value *out);

const char *fkv_tpl_type(const struct fkv_tpl_value *v); /* for messages: "a string" */
bool fkv_tpl_is_string(const struct fkv_tpl_value *v);
bool fkv_tpl_is_integer(const struct fkv_tpl_value *v, int64_t *value); /* true and false are */
bool fkv_tpl_is_number(const struct fkv_tpl_value *v, double *value);
bool fkv_tpl_truth(const struct fkv_tpl_value *v);
int fkv_tpl_equal(struct fkv_tpl_run *r, const struct fkv_tpl_value *a,
                  const struct fkv_tpl_value *b, bool *equal);
/* *order < 0, 0, > 0; of numbers and of strings. */
int fkv_tpl_order(struct fkv_tpl_run *r, const struct fkv_tpl_value *a,
                  const struct fkv_tpl_value *b, int *order);
int fkv_tpl_contains(struct fkv_tpl_run *r, const struct fkv_tpl_value *all,
                     const struct fkv_tpl_value *one, bool *contains);
int fkv_tpl_length(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, int64_t *length);
/* As it is printed, behind what `text` has. */
int fkv_tpl_print(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_bytes *text);
/* As JSON, `indent` spaces per level; negative: on one line. `text` is empty. */
int fkv_tpl_json(struct fkv_tpl_run *r, const json_t *json, int indent, struct fkv_bytes *text);
/* What a loop over it goes through, as a list: items, keys or characters. */
int fkv_tpl_items(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_tpl_value *out);
/* v.name or v["name"]; undefined where there is none. */
int fkv_tpl_attribute(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, const char *name,
                      struct fkv_tpl_value *out);
/* Puts a value into a mapping, or behind a list where `key` is NULL. Refused are values that are no
 * JSON, or nested too deep. */
int fkv_tpl_put_part(struct fkv_tpl_run *r, json_t *all, const char *key,
                     const struct fkv_tpl_value *v);
/* Appends a new reference; NULL is refused as out of memory. */
int fkv_tpl_append(struct fkv_tpl_run *r, json_t *list, json_t *item);

/* ---- strings.c: of UTF-8 ---- */

struct fkv_tpl_span {
    const char *at;
    size_t bytes;
};
struct fkv_tpl_span fkv_tpl_span(const json_t *string);
size_t fkv_tpl_characters(struct fkv_tpl_span s);
/* v [start : stop : step] as Python has it; NULL: left out. */
int fkv_tpl_slice(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, const int64_t *start,
                  const int64_t *stop, const int64_t *step, struct fkv_tpl_value *out);
int fkv_tpl_join(struct fkv_tpl_run *r, const json_t *list, struct fkv_tpl_span separator,
                 struct fkv_tpl_value *out);

/* ---- evaluate.c, calls.c, filters.c, tests.c, render.c ---- */

/* A value handed out is the caller's to free, after a failure too. */
int fkv_tpl_evaluate(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                     struct fkv_tpl_value *out);
/* Whether the value of `node` counts as true. */
int fkv_tpl_holds(struct fkv_tpl_run *r, const struct fkv_tpl_node *node, bool *holds);
/* A node's arguments; freed by the caller, after a failure too. */
int fkv_tpl_evaluate_arguments(struct fkv_tpl_run *r, const struct fkv_tpl_node *first,
                               struct fkv_tpl_arguments *arguments);
void fkv_tpl_arguments_free(struct fkv_tpl_arguments *arguments);
/* Puts arguments by name behind those by position, in the order of `names` ("a b c"), of which the
 * first `required` must be there; what is left out is undefined. `what` names the callee. */
int fkv_tpl_bind(struct fkv_tpl_run *r, const char *what, struct fkv_tpl_arguments *arguments,
                 const char *names, int required);
/* The string of an argument. */
int fkv_tpl_want_string(struct fkv_tpl_run *r, const char *what, const struct fkv_tpl_value *v,
                        struct fkv_tpl_span *span);
int fkv_tpl_want_integer(struct fkv_tpl_run *r, const char *what, const struct fkv_tpl_value *v,
                         int64_t *value);

/* What a function, filter or method does (table in calls.c). v: what stands before the | or the
 * dot; of a function it is undefined. The arguments are bound. */
typedef int fkv_tpl_callee(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                           struct fkv_tpl_arguments *a, struct fkv_tpl_value *out);
/* strings.c: v is a string */
fkv_tpl_callee fkv_tpl_call_strip, fkv_tpl_call_ends, fkv_tpl_call_case, fkv_tpl_call_replace,
    fkv_tpl_call_split, fkv_tpl_call_join_list;
/* filters.c: v is a string; a list; any value */
fkv_tpl_callee fkv_tpl_call_int;
fkv_tpl_callee fkv_tpl_call_end, fkv_tpl_call_join, fkv_tpl_call_each;
fkv_tpl_callee fkv_tpl_call_same, fkv_tpl_call_length, fkv_tpl_call_default, fkv_tpl_call_tojson,
    fkv_tpl_call_items;

bool fkv_tpl_is_function(const struct fkv_tpl_run *r, const char *name);
int fkv_tpl_call(struct fkv_tpl_run *r, const struct fkv_tpl_node *node, struct fkv_tpl_value *out);
int fkv_tpl_filter(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                   struct fkv_tpl_arguments *arguments, struct fkv_tpl_value *out);
int fkv_tpl_test(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                 struct fkv_tpl_arguments *arguments, bool *out);

/* Sets a variable of the innermost scope. Takes the value, after a failure too. */
int fkv_tpl_set(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_value *v);
/* Calls a macro. */
int fkv_tpl_call_macro(struct fkv_tpl_run *r, const struct fkv_tpl_node *macro,
                       struct fkv_tpl_arguments *arguments, struct fkv_tpl_value *out);

#endif
