/* Expressions -> values. */
#include "engine/text/template/parts.h"

static const struct fkv_tpl_value *find(const struct fkv_tpl_run *r, const char *name) {
    for (const struct fkv_tpl_scope *s = r->scope; s; s = s->above)
        for (const struct fkv_tpl_variable *v = s->variables; v; v = v->next)
            if (!strcmp(v->name, name)) return &v->value;
    return NULL;
}

static int evaluate_name(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_value *out) {
    const struct fkv_tpl_value *variable = find(r, name);
    if (variable)
        *out = fkv_tpl_share(variable);
    else if (fkv_tpl_is_function(r, name))
        out->kind = FKV_TPL_FUNCTION;
    return FKV_OK;
}

static int evaluate_item(struct fkv_tpl_run *r, const struct fkv_tpl_value *v,
                         const struct fkv_tpl_value *index, struct fkv_tpl_value *out) {
    int64_t i, length;
    if (v->kind == FKV_TPL_UNDEFINED || fkv_tpl_is_string(index))
        return fkv_tpl_attribute(
            r, v, fkv_tpl_is_string(index) ? json_string_value(index->json) : "an item", out);
    if (!fkv_tpl_is_integer(index, &i) || !(fkv_tpl_is_string(v) || json_is_array(v->json)))
        return FKV_OK; /* as Jinja has it: undefined */
    if (fkv_tpl_length(r, v, &length)) return FKV_FAILED;
    if (i < 0) i += length;
    if (i < 0 || i >= length) return FKV_OK;
    if (fkv_tpl_is_string(v)) return fkv_tpl_slice(r, v, &i, &(int64_t){i + 1}, NULL, out);
    return fkv_tpl_plain(r, json_incref(json_array_get(v->json, (size_t)i)), out);
}

/* Part of a slice; *at is `value`, or NULL where it is left out or none. */
static int evaluate_bound(struct fkv_tpl_run *r, const struct fkv_tpl_node *node, int64_t *value,
                          const int64_t **at) {
    struct fkv_tpl_value v = {0};
    *at = NULL;
    if (!node) return FKV_OK;
    if (fkv_tpl_evaluate(r, node, &v)) return FKV_FAILED;
    int status = FKV_OK;
    if (!json_is_null(v.json)) {
        status = fkv_tpl_want_integer(r, "a slice", &v, value);
        *at = value;
    }
    fkv_tpl_value_free(&v);
    return status;
}

static int evaluate_slice(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                          const struct fkv_tpl_value *v, struct fkv_tpl_value *out) {
    int64_t values[3];
    const int64_t *at[3];
    if (evaluate_bound(r, node->right, &values[0], &at[0]) ||
        evaluate_bound(r, node->other, &values[1], &at[1]) ||
        evaluate_bound(r, node->third, &values[2], &at[2]))
        return FKV_FAILED;
    return fkv_tpl_slice(r, v, at[0], at[1], at[2], out);
}

static int evaluate_list(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                         struct fkv_tpl_value *out) {
    int status = fkv_tpl_plain(r, json_array(), out);
    for (const struct fkv_tpl_node *item = node->items; item && !status; item = item->next) {
        struct fkv_tpl_value v = {0};
        status = fkv_tpl_evaluate(r, item, &v);
        if (!status) status = fkv_tpl_put_part(r, out->json, NULL, &v);
        fkv_tpl_value_free(&v);
    }
    return status;
}

static int evaluate_dict(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                         struct fkv_tpl_value *out) {
    int status = fkv_tpl_plain(r, json_object(), out);
    for (const struct fkv_tpl_node *item = node->items; item && !status; item = item->next->next) {
        struct fkv_tpl_value key = {0}, v = {0};
        status = fkv_tpl_evaluate(r, item, &key);
        if (!status && !fkv_tpl_is_string(&key))
            status = FKV_TPL_REFUSE(r, "expected a string as key, found %s", fkv_tpl_type(&key));
        if (!status) status = fkv_tpl_evaluate(r, item->next, &v);
        if (!status) status = fkv_tpl_put_part(r, out->json, json_string_value(key.json), &v);
        fkv_tpl_value_free(&key);
        fkv_tpl_value_free(&v);
    }
    return status;
}

/* ---- operators ---- */

/* ==, !=, in, not in; <, <=, >, >=. */
static int compare(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *a,
                   const struct fkv_tpl_value *b, bool *holds) {
    int order;
    const bool equal = *name == '=' || *name == '!', negated = *name == '!' || *name == 'n';
    if (equal || negated || *name == 'i') {
        const int status = equal ? fkv_tpl_equal(r, a, b, holds) : fkv_tpl_contains(r, b, a, holds);
        *holds ^= negated;
        return status;
    }
    if (fkv_tpl_order(r, a, b, &order)) return FKV_FAILED;
    *holds = (order < 0 && *name == '<') || (order > 0 && *name == '>') || (!order && name[1]);
    return FKV_OK;
}

static int evaluate_compare(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                            struct fkv_tpl_value *out) {
    struct fkv_tpl_value left = {0}, right = {0};
    bool holds = true;
    int status = fkv_tpl_evaluate(r, node->left, &left);
    for (const struct fkv_tpl_node *n = node->items; n && !status && holds; n = n->next) {
        status = fkv_tpl_evaluate(r, n->right, &right);
        if (!status) status = compare(r, n->name, &left, &right, &holds);
        fkv_tpl_value_free(&left);
        left = right;
        right = (struct fkv_tpl_value){0};
    }
    fkv_tpl_value_free(&left);
    return status ? status : fkv_tpl_plain(r, json_boolean(holds), out);
}

/* Python's // and %, of which the latter has the divisor's sign. */
static int divide(struct fkv_tpl_run *r, bool rest, int64_t a, int64_t b, int64_t *out) {
    if (!b || b == -1) {
        *out = rest ? 0 : -a;
        return b && a != INT64_MIN ? FKV_OK : FKV_TPL_REFUSE(r, "expected another divisor");
    }
    const bool down = a % b && (a < 0) != (b < 0);
    *out = rest ? a % b + (down ? b : 0) : a / b - down;
    return FKV_OK;
}

static int calculate(struct fkv_tpl_run *r, const char *name, int64_t a, int64_t b,
                     struct fkv_tpl_value *out) {
    int64_t result = 0;
    bool over = false;
    switch (*name) {
    case '+': over = __builtin_add_overflow(a, b, &result); break;
    case '-': over = __builtin_sub_overflow(a, b, &result); break;
    case '*': over = __builtin_mul_overflow(a, b, &result); break;
    default:
        if (!strcmp(name, "/"))
            return b ? fkv_tpl_plain(r, json_real((double)a / (double)b), out)
                     : FKV_TPL_REFUSE(r, "expected another divisor");
        if (divide(r, *name == '%', a, b, &result)) return FKV_FAILED;
    }
    if (over) return FKV_TPL_REFUSE(r, "expected smaller numbers");
    return fkv_tpl_plain(r, json_integer(result), out);
}

static int join_lists(struct fkv_tpl_run *r, const struct fkv_tpl_value *a,
                      const struct fkv_tpl_value *b, struct fkv_tpl_value *out) {
    if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP * (json_array_size(a->json) + json_array_size(b->json))))
        return FKV_FAILED;
    if (fkv_tpl_plain(r, json_copy(a->json), out)) return FKV_FAILED;
    return json_array_extend(out->json, b->json) ? FKV_TPL_REFUSE(r, "out of memory") : FKV_OK;
}

static int put_both(struct fkv_tpl_run *r, const struct fkv_tpl_value *a,
                    const struct fkv_tpl_value *b, struct fkv_tpl_value *out) {
    struct fkv_bytes text = {0};
    int status = fkv_tpl_print(r, a, &text);
    if (!status) status = fkv_tpl_print(r, b, &text);
    return fkv_tpl_take_text(r, status, &text, out);
}

static int operate(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *a,
                   const struct fkv_tpl_value *b, struct fkv_tpl_value *out) {
    int64_t x, y;
    const bool plus = *name == '+';
    if (*name == '~' || (plus && fkv_tpl_is_string(a) && fkv_tpl_is_string(b)))
        return put_both(r, a, b, out);
    if (plus && json_is_array(a->json) && json_is_array(b->json)) return join_lists(r, a, b, out);
    if (fkv_tpl_is_integer(a, &x) && fkv_tpl_is_integer(b, &y))
        return calculate(r, name, x, y, out);
    return FKV_TPL_REFUSE(r, "expected two whole numbers%s for %s, found %s and %s",
                          plus ? ", strings or lists" : "", name, fkv_tpl_type(a), fkv_tpl_type(b));
}

static int evaluate_binary(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                           struct fkv_tpl_value *out) {
    struct fkv_tpl_value a = {0}, b = {0};
    int status = fkv_tpl_evaluate(r, node->left, &a);
    if (!status) status = fkv_tpl_evaluate(r, node->right, &b);
    r->line = node->line;
    if (!status) status = operate(r, node->name, &a, &b, out);
    fkv_tpl_value_free(&a);
    fkv_tpl_value_free(&b);
    return status;
}

static int evaluate_logic(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                          struct fkv_tpl_value *out) {
    if (fkv_tpl_evaluate(r, node->left, out)) return FKV_FAILED;
    if (fkv_tpl_truth(out) == (node->kind == FKV_TPL_OR)) return FKV_OK;
    fkv_tpl_value_free(out);
    return fkv_tpl_evaluate(r, node->right, out);
}

static int evaluate_choice(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                           struct fkv_tpl_value *out) {
    bool holds;
    if (fkv_tpl_holds(r, node->right, &holds)) return FKV_FAILED;
    if (!holds && !node->other) return FKV_OK;
    return fkv_tpl_evaluate(r, holds ? node->left : node->other, out);
}

/* ---- expressions of one value and its arguments ---- */

int fkv_tpl_evaluate_arguments(struct fkv_tpl_run *r, const struct fkv_tpl_node *first,
                               struct fkv_tpl_arguments *arguments) {
    *arguments = (struct fkv_tpl_arguments){0};
    for (const struct fkv_tpl_node *n = first; n; n = n->next) {
        arguments->names[arguments->count] = n->name;
        if (fkv_tpl_evaluate(r, n->left, &arguments->at[arguments->count++])) return FKV_FAILED;
    }
    return FKV_OK;
}

void fkv_tpl_arguments_free(struct fkv_tpl_arguments *arguments) {
    for (int i = 0; i < FKV_TPL_MAX_ARGUMENTS; i++) fkv_tpl_value_free(&arguments->at[i]);
}

static int apply(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                 const struct fkv_tpl_value *v, struct fkv_tpl_value *out) {
    struct fkv_tpl_arguments arguments;
    bool holds = false;
    int status = fkv_tpl_evaluate_arguments(r, node->items, &arguments);
    r->line = node->line;
    if (!status && node->kind == FKV_TPL_FILTER)
        status = fkv_tpl_filter(r, node->name, v, &arguments, out);
    else if (!status && !(status = fkv_tpl_test(r, node->name, v, &arguments, &holds)))
        status = fkv_tpl_plain(r, json_boolean(holds), out);
    fkv_tpl_arguments_free(&arguments);
    return status;
}

static int negate(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_tpl_value *out) {
    int64_t value;
    if (!fkv_tpl_is_integer(v, &value))
        return FKV_TPL_REFUSE(r, "expected a whole number behind -, found %s", fkv_tpl_type(v));
    return calculate(r, "-", 0, value, out);
}

/* Expressions that begin with the value of node->left. */
static int evaluate_left(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                         struct fkv_tpl_value *out) {
    struct fkv_tpl_value v = {0}, index = {0};
    int status = fkv_tpl_evaluate(r, node->left, &v);
    if (!status && node->kind == FKV_TPL_ITEM) status = fkv_tpl_evaluate(r, node->right, &index);
    r->line = node->line;
    if (!status) switch (node->kind) {
        case FKV_TPL_ATTRIBUTE: status = fkv_tpl_attribute(r, &v, node->name, out); break;
        case FKV_TPL_ITEM: status = evaluate_item(r, &v, &index, out); break;
        case FKV_TPL_SLICE: status = evaluate_slice(r, node, &v, out); break;
        case FKV_TPL_NOT: status = fkv_tpl_plain(r, json_boolean(!fkv_tpl_truth(&v)), out); break;
        case FKV_TPL_MINUS: status = negate(r, &v, out); break;
        default: status = apply(r, node, &v, out); break;
        }
    fkv_tpl_value_free(&v);
    fkv_tpl_value_free(&index);
    return status;
}

int fkv_tpl_evaluate(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                     struct fkv_tpl_value *out) {
    *out = (struct fkv_tpl_value){0};
    r->line = node->line;
    if (r->depth >= FKV_TPL_RUN_DEPTH)
        return FKV_TPL_REFUSE(r, "expected expressions and macros less deep");
    if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP)) return FKV_FAILED;
    r->depth++;
    int status;
    switch (node->kind) {
    case FKV_TPL_CONST: status = fkv_tpl_plain(r, json_incref(node->value), out); break;
    case FKV_TPL_NAME: status = evaluate_name(r, node->name, out); break;
    case FKV_TPL_LIST: status = evaluate_list(r, node, out); break;
    case FKV_TPL_DICT: status = evaluate_dict(r, node, out); break;
    case FKV_TPL_AND:
    case FKV_TPL_OR: status = evaluate_logic(r, node, out); break;
    case FKV_TPL_COMPARE: status = evaluate_compare(r, node, out); break;
    case FKV_TPL_BINARY: status = evaluate_binary(r, node, out); break;
    case FKV_TPL_CHOICE: status = evaluate_choice(r, node, out); break;
    case FKV_TPL_CALL: status = fkv_tpl_call(r, node, out); break;
    default: status = evaluate_left(r, node, out); break;
    }
    r->depth--;
    if (status) fkv_tpl_value_free(out);
    return status;
}

int fkv_tpl_holds(struct fkv_tpl_run *r, const struct fkv_tpl_node *node, bool *holds) {
    struct fkv_tpl_value v;
    const int status = fkv_tpl_evaluate(r, node, &v);
    *holds = fkv_tpl_truth(&v);
    fkv_tpl_value_free(&v);
    return status;
}
