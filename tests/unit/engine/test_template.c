/* Chat templates against what jinja2 makes of them (tests/golden/templates.json), and bounds. */
#include "engine/text/template.h"
#include "kernels/base/json.h"
#include "tests/unit/support.h"

/* The text, malloc'd; NULL and a message. */
static char *render(const char *source, const json_t *variables, const char *date,
                    struct fkv_error *err) {
    struct fkv_template *t;
    char *text;
    size_t bytes;
    *err = (struct fkv_error){0};
    if (fkv_template_parse(source, strlen(source), "t", &t, err)) {
        assert_true(err->message[0]);
        return NULL;
    }
    const int status = fkv_template_render(t, variables, date, &text, &bytes, err);
    fkv_template_close(t);
    if (status) {
        assert_null(text);
        assert_true(err->message[0]);
        return NULL;
    }
    assert_int_equal(strlen(text), bytes);
    return text;
}

static json_t *golden(void) {
    json_t *all = fkv_json_load("tests/golden/templates.json", 1 << 24, &err);
    assert_ok(all ? FKV_OK : FKV_FAILED);
    return all;
}

/* `text` null: it must be refused. */
static void check(const char *source, const json_t *variables, const char *date,
                  const json_t *text) {
    char *found = render(source, variables, date, &err);
    if (json_is_null(text) && found)
        fail_msg("%s\nexpected a refusal, found \"%s\"", source, found);
    if (json_is_string(text) && !found) fail_msg("%s\n%s", source, err.message);
    if (json_is_string(text) && strcmp(found, json_string_value(text)) != 0)
        fail_msg("%s\nexpected \"%s\"\nfound    \"%s\"", source, json_string_value(text), found);
    free(found);
}

TEST(what_jinja_makes_of_cases) {
    json_t *all = golden(), *one;
    const char *date = json_string_value(json_object_get(all, "date"));
    size_t i;
    json_array_foreach(json_object_get(all, "cases"), i, one) {
        check(json_string_value(json_object_get(one, "template")),
              json_object_get(all, "variables"), date, json_object_get(one, "text"));
    }
    assert_true(i > 90);
    json_decref(all);
}

TEST(what_jinja_makes_of_families) {
    json_t *all = golden(), *family, *text;
    const char *date = json_string_value(json_object_get(all, "date"));
    size_t i, k = 0;
    json_array_foreach(json_object_get(all, "families"), i, family) {
        json_array_foreach(json_object_get(family, "texts"), k, text) {
            check(json_string_value(json_object_get(family, "template")),
                  json_array_get(json_object_get(all, "chats"), k), date, text);
        }
    }
    assert_true(i >= 8 && k == 28);
    json_decref(all);
}

TEST(what_is_outside_is_refused) {
    json_t *all = golden(), *one, *null = json_null();
    size_t i;
    json_array_foreach(json_object_get(all, "outside"), i, one) {
        check(json_string_value(one), json_object_get(all, "variables"), NULL, null);
    }
    json_decref(all);
}

static void assert_says(const char *source, const char *part) {
    json_t *none = json_object();
    char *found = render(source, none, NULL, &err);
    json_decref(none);
    if (found) fail_msg("%.200s\nexpected a refusal, found \"%.200s\"", source, found);
    if (!strstr(err.message, part))
        fail_msg("%.200s\nexpected \"%s\", found \"%s\"", source, part, err.message);
}

TEST(refusals_name_the_line) {
    assert_says("a\n{{ b.c }}", "t:2: expected something that has \"c\"");
    assert_says("{% if true %}\n\n{{ 'x' | wrap(3) }}{% endif %}",
                "t:3: expected a filter that is known behind |, found wrap");
    assert_says("\n{% import 'x' as y %}", "t:2: expected if, for, set, macro, break, continue or "
                                           "generation, found \"import\"");
    assert_says("{{ raise_exception('two\nlines') }}", "the template refuses the messages: two");
    assert_says("{{ strftime_now('%d') }}", "found strftime_now (it needs a date)");
    assert_says("{{ 'a'.startswith(b) }}",
                "startswith: expected a string, found something undefined");
    assert_says("{% if true %}", "t:1: expected endif, found the end");
}

/* `unit` so many times. */
static char *repeat(const char *before, const char *unit, int count, const char *after) {
    char *text = malloc(strlen(before) + strlen(unit) * (size_t)count + strlen(after) + 1);
    char *at = stpcpy(text, before);
    for (int i = 0; i < count; i++) at = stpcpy(at, unit);
    strcpy(at, after);
    return text;
}

TEST(what_goes_on_or_deep_is_refused) {
    static const char *const nested[][3] = {
        {"{{ ", "(", ""},        {"{{ ", "[", ""},         {"{{ ", "not ", "1 }}"},
        {"{{ ", "-", "1 }}"},    {"{{ ", "{'a':", "1 }}"}, {"", "{% if 1 %}", ""},
        {"{{ 1", " + 1", " }}"}, {"{{ 'a'", ".b", " }}"},  {"{{ 1", " if 1 else 1", " }}"}};
    for (size_t i = 0; i < sizeof nested / sizeof *nested; i++) {
        char *source = repeat(nested[i][0], nested[i][1], 3000, nested[i][2]);
        assert_says(source, "");
        free(source);
    }
    assert_says("{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}"
                "{% set n.x = n.x + n.x %}{% endfor %}",
                "too many steps or bytes");
    assert_says("{% for i in range(9999) %}{% for i in range(9999) %}{% endfor %}{% endfor %}",
                "too many steps or bytes");
    assert_says("{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x] %}"
                "{% endfor %}",
                "less deep");
    assert_says("{% set n = namespace(x=[1]) %}{% for i in range(14) %}"
                "{% set n.x = [n.x,n.x,n.x,n.x,n.x,n.x,n.x,n.x] %}{% endfor %}",
                "too many steps or bytes");
    assert_says("{% set n = namespace() %}{% set n.x = n %}", "found a namespace");
    assert_says("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "less deep");
    assert_says("{{ range(1000000) }}", "at most 100000 numbers");
    assert_says("{{ 9223372036854775807 + 1 }}", "smaller numbers");
    assert_says("{{ 9223372036854775808 }}", "a smaller number");
}

TEST(bytes_that_are_no_text_are_refused) {
    struct fkv_template *t;
    assert_refused(fkv_template_parse("a\xff", 2, "t", &t, &err), "UTF-8");
    assert_refused(fkv_template_parse("a\0b", 3, "t", &t, &err), "UTF-8");
    assert_null(t);
    fkv_template_close(t);
}
