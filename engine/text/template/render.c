/* Statements -> text. Scopes: the variables that were given, those of the template, and one for
 * each turn of a loop, each macro, each block of `set` and `generation`. */
#include <stdlib.h>

#include "engine/text/template/parts.h"

static int render_list(struct fkv_tpl_run *r, const struct fkv_tpl_node *first);

/* ---- scopes ---- */

static void open_scope(struct fkv_tpl_run *r, struct fkv_tpl_scope *scope) {
    *scope = (struct fkv_tpl_scope){.above = r->scope};
    r->scope = scope;
}

static void close_scope(struct fkv_tpl_run *r, struct fkv_tpl_scope *scope) {
    r->scope = scope->above;
    for (struct fkv_tpl_variable *v = scope->variables, *next; v; v = next) {
        next = v->next;
        fkv_tpl_value_free(&v->value);
        free(v);
    }
}

int fkv_tpl_set(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_value *v) {
    struct fkv_tpl_variable *variable = r->scope->variables;
    while (variable && strcmp(variable->name, name) != 0) variable = variable->next;
    if (!variable) {
        if (!(variable = calloc(1, sizeof *variable))) {
            fkv_tpl_value_free(v);
            return FKV_TPL_REFUSE(r, "out of memory");
        }
        variable->name = name;
        variable->next = r->scope->variables;
        r->scope->variables = variable;
    }
    fkv_tpl_value_free(&variable->value);
    variable->value = *v;
    *v = (struct fkv_tpl_value){0};
    return FKV_OK;
}

/* The text of a body as a value. */
static int render_value(struct fkv_tpl_run *r, const struct fkv_tpl_node *first,
                        struct fkv_tpl_value *out) {
    struct fkv_bytes text = {0}, *outer = r->out;
    r->out = &text;
    const int status = render_list(r, first);
    r->out = outer;
    return fkv_tpl_take_text(r, status, &text, out);
}

/* ---- macros ---- */

static int set_parameters(struct fkv_tpl_run *r, const struct fkv_tpl_node *macro,
                          struct fkv_tpl_arguments *a) {
    int i = 0, used = 0;
    for (const struct fkv_tpl_node *p = macro->more; p; p = p->next, i++) {
        struct fkv_tpl_value v = {0};
        int at = i < a->count && !a->names[i] ? i : -1;
        for (int k = 0; k < a->count && at < 0; k++)
            if (a->names[k] && !strcmp(a->names[k], p->name)) at = k;
        if (at >= 0)
            v = fkv_tpl_share(&a->at[at]);
        else if (p->left && fkv_tpl_evaluate(r, p->left, &v))
            return FKV_FAILED;
        used += at >= 0;
        if (fkv_tpl_set(r, p->name, &v)) return FKV_FAILED;
    }
    if (used == a->count) return FKV_OK;
    return FKV_TPL_REFUSE(r, "macro %.80s: expected its parameters, found other arguments",
                          macro->name);
}

int fkv_tpl_call_macro(struct fkv_tpl_run *r, const struct fkv_tpl_node *macro,
                       struct fkv_tpl_arguments *arguments, struct fkv_tpl_value *out) {
    struct fkv_tpl_scope scope, *caller = r->scope;
    r->scope = r->outermost;
    open_scope(r, &scope);
    int status = set_parameters(r, macro, arguments);
    if (!status) status = render_value(r, macro->items, out);
    close_scope(r, &scope);
    r->scope = caller;
    r->jump = FKV_TPL_ON;
    return status;
}

/* ---- loops ---- */

static int set_targets(struct fkv_tpl_run *r, const struct fkv_tpl_node *node, json_t *item) {
    struct fkv_tpl_value v = {FKV_TPL_PLAIN, NULL, NULL};
    size_t count = 0;
    for (const struct fkv_tpl_node *t = node->more; t; t = t->next) count++;
    if (count > 1 && json_array_size(item) != count)
        return FKV_TPL_REFUSE(r, "expected lists of %zu to go through, found another value", count);
    size_t i = 0;
    for (const struct fkv_tpl_node *t = node->more; t; t = t->next) {
        v = (struct fkv_tpl_value){FKV_TPL_PLAIN, count > 1 ? json_array_get(item, i++) : item,
                                   NULL};
        json_incref(v.json);
        if (fkv_tpl_set(r, t->name, &v)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* The variable `loop` at item i of all. */
static int set_loop(struct fkv_tpl_run *r, json_t *list, size_t i) {
    const json_int_t at = (json_int_t)i, count = (json_int_t)json_array_size(list);
    struct fkv_tpl_value v = {0};
    json_t *loop =
        json_pack("{s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:O*, s:O*}", "index", at + 1, "index0", at,
                  "revindex", count - at, "revindex0", count - at - 1, "first", !at, "last",
                  at + 1 == count, "length", count, "previtem",
                  i ? json_array_get(list, i - 1) : NULL, "nextitem", json_array_get(list, i + 1));
    return fkv_tpl_plain(r, loop, &v) ? FKV_FAILED : fkv_tpl_set(r, "loop", &v);
}

/* The items for which the loop's `if` holds. */
static int filter_items(struct fkv_tpl_run *r, const struct fkv_tpl_node *node, const json_t *all,
                        struct fkv_tpl_value *kept) {
    int status = fkv_tpl_plain(r, json_array(), kept);
    for (size_t i = 0; i < json_array_size(all) && !status; i++) {
        struct fkv_tpl_scope scope;
        bool holds = false;
        json_t *item = json_array_get(all, i);
        open_scope(r, &scope);
        status = set_targets(r, node, item);
        if (!status) status = fkv_tpl_holds(r, node->right, &holds);
        if (!status && holds) status = fkv_tpl_append(r, kept->json, json_incref(item));
        close_scope(r, &scope);
    }
    return status;
}

static int render_turns(struct fkv_tpl_run *r, const struct fkv_tpl_node *node, json_t *list) {
    int status = FKV_OK;
    for (size_t i = 0; i < json_array_size(list) && !status && r->jump != FKV_TPL_BREAKS; i++) {
        struct fkv_tpl_scope scope;
        r->jump = FKV_TPL_ON;
        open_scope(r, &scope);
        status = fkv_tpl_spend(r, 10 * FKV_TEMPLATE_STEP);
        if (!status) status = set_targets(r, node, json_array_get(list, i));
        if (!status) status = set_loop(r, list, i);
        if (!status) status = render_list(r, node->items);
        close_scope(r, &scope);
    }
    r->jump = FKV_TPL_ON;
    return status;
}

static int render_for(struct fkv_tpl_run *r, const struct fkv_tpl_node *node) {
    struct fkv_tpl_value v, all = {0}, kept = {0};
    if (fkv_tpl_evaluate(r, node->left, &v)) return FKV_FAILED;
    r->line = node->line;
    int status = fkv_tpl_items(r, &v, &all);
    fkv_tpl_value_free(&v);
    if (!status && node->right) status = filter_items(r, node, all.json, &kept);
    json_t *items = node->right ? kept.json : all.json;
    if (!status && json_array_size(items))
        status = render_turns(r, node, items);
    else if (!status && node->other)
        status = render_list(r, node->other->items);
    fkv_tpl_value_free(&all);
    fkv_tpl_value_free(&kept);
    return status;
}

/* ---- the other statements ---- */

static int render_if(struct fkv_tpl_run *r, const struct fkv_tpl_node *node) {
    for (; node && node->kind == FKV_TPL_IF; node = node->other) {
        bool holds;
        if (fkv_tpl_holds(r, node->right, &holds)) return FKV_FAILED;
        if (holds) break;
    }
    return node ? render_list(r, node->items) : FKV_OK;
}

static int set_attribute(struct fkv_tpl_run *r, const struct fkv_tpl_node *target,
                         const struct fkv_tpl_value *v) {
    struct fkv_tpl_value space;
    if (fkv_tpl_evaluate(r, target->left, &space)) return FKV_FAILED;
    const int status = space.kind == FKV_TPL_NAMESPACE
                           ? fkv_tpl_put_part(r, space.json, target->name, v)
                           : FKV_TPL_REFUSE(r, "expected a namespace to set %.80s of, found %s",
                                            target->name, fkv_tpl_type(&space));
    fkv_tpl_value_free(&space);
    return status;
}

static int render_scope(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                        struct fkv_tpl_value *out) {
    struct fkv_tpl_scope scope;
    open_scope(r, &scope);
    const int status = out ? render_value(r, node->items, out) : render_list(r, node->items);
    close_scope(r, &scope);
    return status;
}

static int render_set(struct fkv_tpl_run *r, const struct fkv_tpl_node *node) {
    struct fkv_tpl_value v = {0};
    int status = node->right ? fkv_tpl_evaluate(r, node->right, &v) : render_scope(r, node, &v);
    r->line = node->line;
    if (!status && node->left->kind == FKV_TPL_NAME) return fkv_tpl_set(r, node->left->name, &v);
    if (!status) status = set_attribute(r, node->left, &v);
    fkv_tpl_value_free(&v);
    return status;
}

static int render_print(struct fkv_tpl_run *r, const struct fkv_tpl_node *node) {
    struct fkv_tpl_value v;
    if (fkv_tpl_evaluate(r, node->left, &v)) return FKV_FAILED;
    r->line = node->line;
    const int status = fkv_tpl_print(r, &v, r->out);
    fkv_tpl_value_free(&v);
    return status;
}

static int render_node(struct fkv_tpl_run *r, const struct fkv_tpl_node *node) {
    struct fkv_tpl_value macro = {FKV_TPL_FUNCTION, NULL, node};
    switch (node->kind) {
    case FKV_TPL_DATA: return fkv_tpl_put(r, r->out, node->text, node->bytes);
    case FKV_TPL_PRINT: return render_print(r, node);
    case FKV_TPL_IF: return render_if(r, node);
    case FKV_TPL_FOR: return render_for(r, node);
    case FKV_TPL_SET: return render_set(r, node);
    case FKV_TPL_SCOPE: return render_scope(r, node, NULL);
    case FKV_TPL_MACRO: return fkv_tpl_set(r, node->name, &macro);
    case FKV_TPL_BREAK: r->jump = FKV_TPL_BREAKS; return FKV_OK;
    default: r->jump = FKV_TPL_CONTINUES; return FKV_OK;
    }
}

static int render_list(struct fkv_tpl_run *r, const struct fkv_tpl_node *first) {
    int status = FKV_OK;
    if (r->depth >= FKV_TPL_RUN_DEPTH)
        return FKV_TPL_REFUSE(r, "expected statements and macros less deep");
    r->depth++;
    for (const struct fkv_tpl_node *n = first; n && !status && r->jump == FKV_TPL_ON; n = n->next) {
        r->line = n->line;
        status = fkv_tpl_spend(r, FKV_TEMPLATE_STEP);
        if (!status) status = render_node(r, n);
    }
    r->depth--;
    return status;
}

static int render(struct fkv_tpl_run *r, const json_t *variables) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)variables, name, value) {
        struct fkv_tpl_value v = {FKV_TPL_PLAIN, json_incref(value), NULL};
        if (fkv_tpl_set(r, name, &v)) return FKV_FAILED;
    }
    if (render_list(r, r->t->body->items)) return FKV_FAILED;
    return fkv_tpl_put(r, r->out, "", 1);
}

int fkv_template_render(const struct fkv_template *t, const json_t *variables, const char *date,
                        char **text, size_t *bytes, struct fkv_error *err) {
    struct fkv_tpl_scope scope = {0};
    struct fkv_bytes out = {0};
    struct fkv_tpl_run run = {.t = t,
                              .date = date,
                              .scope = &scope,
                              .outermost = &scope,
                              .out = &out,
                              .line = 1,
                              .err = err};
    *text = NULL;
    const int status = render(&run, variables);
    close_scope(&run, &scope);
    if (status) {
        free(out.at);
        return FKV_FAILED;
    }
    *text = out.at;
    *bytes = out.count - 1;
    return FKV_OK;
}
