/* Tests: `value is NAME`. */
#include "engine/text/template/parts.h"

enum type {
    MAPPING = 1 << JSON_OBJECT,
    LIST = 1 << JSON_ARRAY,
    STRING = 1 << JSON_STRING,
    INTEGER = 1 << JSON_INTEGER,
    REAL = 1 << JSON_REAL,
    YES = 1 << JSON_TRUE,
    NO = 1 << JSON_FALSE,
    NONE = 1 << JSON_NULL,
    UNDEFINED = NONE << 1,
    FUNCTION = NONE << 2,
    NAMESPACE = NONE << 3,
};

static enum type type_of(const struct fkv_tpl_value *v) {
    if (v->kind == FKV_TPL_PLAIN) return 1 << json_typeof(v->json);
    return v->kind == FKV_TPL_UNDEFINED  ? UNDEFINED
           : v->kind == FKV_TPL_FUNCTION ? FUNCTION
                                         : NAMESPACE;
}

static const struct {
    const char *name;
    int types; /* for which it holds */
} tests[] = {
    {"defined", ~UNDEFINED},
    {"undefined", UNDEFINED},
    {"none", NONE},
    {"string", STRING},
    {"number", INTEGER | REAL | YES | NO},
    {"integer", INTEGER},
    {"float", REAL},
    {"boolean", YES | NO},
    {"true", YES},
    {"false", NO},
    {"mapping", MAPPING},
    {"sequence", MAPPING | LIST | STRING | UNDEFINED},
    {"iterable", MAPPING | LIST | STRING | UNDEFINED},
    {"callable", FUNCTION},
};
enum { TESTS = sizeof tests / sizeof *tests };

int fkv_tpl_test(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                 struct fkv_tpl_arguments *arguments, bool *out) {
    for (int i = 0; i < TESTS; i++)
        if (!strcmp(tests[i].name, name)) {
            *out = tests[i].types & type_of(v);
            return fkv_tpl_bind(r, name, arguments, "", 0);
        }
    const bool odd = !strcmp(name, "odd");
    int64_t value;
    if (odd || !strcmp(name, "even")) {
        if (fkv_tpl_want_integer(r, name, v, &value)) return FKV_FAILED;
        *out = (value % 2 != 0) == odd;
        return FKV_OK;
    }
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
