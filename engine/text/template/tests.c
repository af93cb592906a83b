/* Tests: `value is NAME`. */
#include "engine/text/template/parts.h"

static bool is_defined(const struct fkv_tpl_value *v) { return v->kind != FKV_TPL_UNDEFINED; }
static bool is_undefined(const struct fkv_tpl_value *v) { return v->kind == FKV_TPL_UNDEFINED; }
static bool is_none(const struct fkv_tpl_value *v) { return json_is_null(v->json); }
static bool is_boolean(const struct fkv_tpl_value *v) { return json_is_boolean(v->json); }
static bool is_true(const struct fkv_tpl_value *v) { return json_is_true(v->json); }
static bool is_false(const struct fkv_tpl_value *v) { return json_is_false(v->json); }
static bool is_integer(const struct fkv_tpl_value *v) { return json_is_integer(v->json); }
static bool is_real(const struct fkv_tpl_value *v) { return json_is_real(v->json); }

static bool is_number(const struct fkv_tpl_value *v) {
    return json_is_number(v->json) || json_is_boolean(v->json);
}

static bool is_mapping(const struct fkv_tpl_value *v) {
    return v->kind == FKV_TPL_PLAIN && json_is_object(v->json);
}

static bool is_sequence(const struct fkv_tpl_value *v) {
    return is_mapping(v) || json_is_array(v->json) || fkv_tpl_is_string(v) || is_undefined(v);
}

static bool is_callable(const struct fkv_tpl_value *v) { return v->kind == FKV_TPL_FUNCTION; }

static const struct {
    const char *name;
    bool (*holds)(const struct fkv_tpl_value *v);
} tests[] = {
    {"defined", is_defined},   {"undefined", is_undefined},
    {"none", is_none},         {"string", fkv_tpl_is_string},
    {"number", is_number},     {"integer", is_integer},
    {"float", is_real},        {"boolean", is_boolean},
    {"true", is_true},         {"false", is_false},
    {"mapping", is_mapping},   {"sequence", is_sequence},
    {"iterable", is_sequence}, {"callable", is_callable},
};
enum { TESTS = sizeof tests / sizeof *tests };

/* odd and even. */
static int test_parity(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                       bool *out) {
    int64_t value;
    if (fkv_tpl_want_integer(r, name, v, &value)) return FKV_FAILED;
    *out = (value % 2 != 0) == (*name == 'o');
    return FKV_OK;
}

int fkv_tpl_test(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                 struct fkv_tpl_arguments *arguments, bool *out) {
    for (int i = 0; i < TESTS; i++)
        if (!strcmp(tests[i].name, name)) {
            *out = tests[i].holds(v);
            return fkv_tpl_bind(r, name, arguments, "", 0);
        }
    if (!strcmp(name, "odd") || !strcmp(name, "even")) return test_parity(r, name, v, out);
    const bool equal = !strcmp(name, "equalto") || !strcmp(name, "eq") || !strcmp(name, "=="),
               other = !strcmp(name, "ne") || !strcmp(name, "!="), in = !strcmp(name, "in");
    if (!equal && !other && !in)
        return FKV_TPL_REFUSE(r, "expected a test that is known behind `is`, found %.80s", name);
    if (fkv_tpl_bind(r, name, arguments, "value", 1)) return FKV_FAILED;
    if (in) return fkv_tpl_contains(r, &arguments->at[0], v, out);
    if (fkv_tpl_equal(r, v, &arguments->at[0], out)) return FKV_FAILED;
    *out ^= other;
    return FKV_OK;
}
