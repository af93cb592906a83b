/* Owns the reading of adapter_config.json and PEFT's rules of which pattern means which module.
 * Those rules are Python's `re`; PCRE2 runs them, with a bound on its steps.
 *
 *   target_modules   a string: a pattern of the whole name, or "all-linear". A list: the name, or
 *                    what it ends in after a dot; layers_to_transform and layers_pattern then leave
 *                    layers out.
 *   exclude_modules  the same, without layers.
 *   modules_to_save  a pattern of a part of the name between dots, and what is below that part.
 *   rank_pattern, alpha_pattern   a pattern of the name, or of what it ends in after a dot; the
 *                    first that matches counts.
 *
 * fan_in_fan_out says how a GPT-2 base stores its matrices; the matrices of the families here are
 * stored [out, in], and PEFT ignores it for those, too. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/checkpoint/adapter_config.h"

#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_PATTERN = 1 << 12,
    MOST_STEPS = 1000000,
    MOST_HEAP_KIB = 16 << 10,
    MOST_RANK = 1 << 16
};

/* ---- patterns ---- */

/* How the pattern of a field stands in the one that is matched, and whether it must reach the
 * name's end. */
struct rule {
    const char *before, *after;
    bool whole;
};
static const struct rule whole_name = {"", "", true}, ending = {"(?:.*\\.)?(?:", ")", true},
                         part = {"(?:^|.*\\.)(?:", ")(?:$|\\..*)", false},
                         layer = {"(?:^|.*?\\.)(?:", ")\\.(\\d+)\\.", false};

static int refuse_pattern(const struct fkv_adapter_config *c, const char *field,
                          const char *pattern, int code, struct fkv_error *err) {
    PCRE2_UCHAR why[128];
    pcre2_get_error_message(code, why, sizeof why);
    return fkv_fail(err, "%s: field \"%s\": the pattern %.100s: %s", c->where, field, pattern,
                    (const char *)why);
}

/* *match: whether the pattern matches from the name's start. *number, where it is not NULL: the
 * first group, a number. */
static int match_name(const struct fkv_adapter_config *c, const char *field, struct rule rule,
                      const char *pattern, const char *name, bool *match, int64_t *number,
                      struct fkv_error *err) {
    char text[MOST_PATTERN + 64];
    const int bytes = snprintf(text, sizeof text, "%s%s%s", rule.before, pattern, rule.after);
    int code;
    size_t at;
    *match = false;
    if (strlen(pattern) > MOST_PATTERN)
        return fkv_fail(err, "%s: field \"%s\": expected patterns of at most %d bytes, found %zu",
                        c->where, field, MOST_PATTERN, strlen(pattern));
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)text, (size_t)bytes, PCRE2_UTF, &code, &at, NULL);
    if (!compiled) return refuse_pattern(c, field, pattern, code, err);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    pcre2_match_data *found = pcre2_match_data_create_from_pattern(compiled, NULL);
    if (limits && found) {
        pcre2_set_match_limit(limits, MOST_STEPS);
        pcre2_set_heap_limit(limits, MOST_HEAP_KIB);
        code = pcre2_match(compiled, (PCRE2_SPTR)name, strlen(name), 0,
                           PCRE2_ANCHORED | (rule.whole ? PCRE2_ENDANCHORED : 0), found, limits);
    } else {
        code = PCRE2_ERROR_NOMEMORY;
    }
    *match = code > 0;
    if (*match && number) *number = strtoll(name + pcre2_get_ovector_pointer(found)[2], NULL, 10);
    pcre2_match_data_free(found);
    pcre2_match_context_free(limits);
    pcre2_code_free(compiled);
    return code < 0 && code != PCRE2_ERROR_NOMATCH ? refuse_pattern(c, field, pattern, code, err)
                                                   : FKV_OK;
}

/* ---- reading ---- */

/* What changes the weights in another way, each with the value that means "not used". */
static const struct unsupported {
    const char *field, *what;
} unsupported[] = {
    {"use_dora", "DoRA, which scales the columns of the sum"},
    {"use_qalora", "QALoRA, which pools the inputs"},
    {"use_bdlora", "block-diagonal LoRA"},
    {"layer_replication", "layers used more than once"},
    {"trainable_token_indices", "single rows of the embedding"},
    {"target_parameters", "parameters of experts"},
    {"alora_invocation_tokens", "an adapter that begins within the text"},
    {"arrow_config", "several adapters behind a router"},
    {"monteclora_config", "sampled weights"},
    {"kasa_config", "KaSA, which has a matrix between B and A"},
};
enum { UNSUPPORTED = sizeof unsupported / sizeof *unsupported };

/* What init_lora_weights begins with where the base was changed before the training. */
static const char *const changed_bases[] = {"pissa", "olora", "corda", "lora_ga", "loftq"};
enum { CHANGED_BASES = sizeof changed_bases / sizeof *changed_bases };

#define MERGED "; PEFT's merge_and_unload() and save_pretrained() make a model of it that loads"

/* null, false, an empty list or object */
static bool is_unset(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && !json_array_size(value)) ||
           (json_is_object(value) && !json_object_size(value));
}

static int refuse_unsupported(const json_t *root, const char *where, struct fkv_error *err) {
    const char *type = "nothing";
    if (fkv_json_get_string(root, where, "peft_type", false, &type, err)) return FKV_FAILED;
    if (strcmp(type, "LORA"))
        return fkv_fail(err, "%s: field \"peft_type\": expected LORA, found %.64s%s", where, type,
                        strcmp(type, "nothing") ? MERGED : " (is it an adapter of PEFT?)");
    for (int i = 0; i < UNSUPPORTED; i++)
        if (!is_unset(json_object_get(root, unsupported[i].field)))
            return fkv_fail(err, "%s: field \"%s\": expected none, found one (%s)%s", where,
                            unsupported[i].field, unsupported[i].what, MERGED);
    const char *start = json_string_value(json_object_get(root, "init_lora_weights"));
    for (int i = 0; start && i < CHANGED_BASES; i++)
        if (!strncasecmp(start, changed_bases[i], strlen(changed_bases[i])))
            return fkv_fail(err,
                            "%s: field \"init_lora_weights\": expected true, found %.64s, which "
                            "changes the base before the training; save the adapter with "
                            "path_initial_model_for_weight_conversion, or write true here where "
                            "--model is the changed base",
                            where, start);
    return FKV_OK;
}

/* One value of the type, a list of them, or nothing. */
static int check_values(const json_t *root, const char *where, const char *field, json_type type,
                        struct fkv_error *err) {
    const json_t *value = json_object_get(root, field);
    const char *what = type == JSON_STRING ? "string" : "number";
    bool good = is_unset(value) || json_typeof(value) == type || json_is_array(value);
    for (size_t i = 0; good && i < json_array_size(value); i++)
        good = json_typeof(json_array_get(value, i)) == type;
    if (good) return FKV_OK;
    return fkv_fail(err, "%s: field \"%s\": expected a %s or a list of %ss", where, field, what,
                    what);
}

/* An object of numbers above 0, or nothing. */
static int check_pattern_values(const json_t *root, const char *where, const char *field,
                                bool whole, struct fkv_error *err) {
    const json_t *value = json_object_get(root, field);
    if (is_unset(value)) return FKV_OK;
    if (!json_is_object(value))
        return fkv_fail(err, "%s: field \"%s\": expected an object of numbers", where, field);
    for (void *at = json_object_iter((json_t *)value); at;
         at = json_object_iter_next((json_t *)value, at)) {
        const json_t *number = json_object_iter_value(at);
        const double x = json_number_value(number);
        if (whole ? !json_is_integer(number) || x < 1 || x > MOST_RANK
                  : !json_is_number(number) || !(fabs(x) <= 1e9))
            return fkv_fail(err, "%s: field \"%s\": %.100s: expected a %s", where, field,
                            json_object_iter_key(at), whole ? "rank" : "number");
    }
    return FKV_OK;
}

int fkv_adapter_config_read(json_t *root, const char *where, struct fkv_adapter_config *c,
                            struct fkv_error *err) {
    int64_t rank = 8;
    *c = (struct fkv_adapter_config){
        .root = json_incref(root), .where = where, .base = "", .alpha = 8};
    if (!json_is_object(root)) return fkv_fail(err, "%s: expected a JSON object", where);
    if (refuse_unsupported(root, where, err) ||
        fkv_json_get_int(root, where, "r", false, 1, MOST_RANK, &rank, err) ||
        fkv_json_get_double(root, where, "lora_alpha", false, -1e9, 1e9, &c->alpha, err) ||
        fkv_json_get_bool(root, where, "use_rslora", false, &c->root_scale, err) ||
        fkv_json_get_bool(root, where, "ensure_weight_tying", false, &c->tied, err) ||
        fkv_json_get_string(root, where, "base_model_name_or_path", false, &c->base, err) ||
        check_values(root, where, "target_modules", JSON_STRING, err) ||
        check_values(root, where, "exclude_modules", JSON_STRING, err) ||
        check_values(root, where, "modules_to_save", JSON_STRING, err) ||
        check_values(root, where, "layers_to_transform", JSON_INTEGER, err) ||
        check_values(root, where, "layers_pattern", JSON_STRING, err) ||
        check_pattern_values(root, where, "rank_pattern", true, err) ||
        check_pattern_values(root, where, "alpha_pattern", false, err))
        return FKV_FAILED;
    c->rank = (int32_t)rank;
    return FKV_OK;
}

void fkv_adapter_config_free(struct fkv_adapter_config *c) {
    json_decref(c->root);
    *c = (struct fkv_adapter_config){0};
}

/* ---- questions ---- */

/* String i of a field that is a string or a list of strings; NULL behind the last. */
static const char *string_at(const struct fkv_adapter_config *c, const char *field, size_t i) {
    const json_t *value = json_object_get(c->root, field);
    if (json_is_array(value)) return json_string_value(json_array_get(value, i));
    return i ? NULL : json_string_value(value);
}

/* Whether `name` is `end`, or ends in it after a dot. */
static bool ends_in(const char *name, const char *end) {
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end) && (n == m || name[n - m - 1] == '.');
}

/* *exact: the name itself is one of a list, which layers_to_transform has no say in. */
static int names_module(const struct fkv_adapter_config *c, const char *field, const char *name,
                        bool *named, bool *exact, struct fkv_error *err) {
    const json_t *value = json_object_get(c->root, field);
    *named = *exact = false;
    if (json_is_string(value)) {
        *exact = true;
        return match_name(c, field, whole_name, json_string_value(value), name, named, NULL, err);
    }
    const char *end;
    for (size_t i = 0; (end = string_at(c, field, i)); i++) {
        *exact |= !strcmp(name, end);
        *named |= ends_in(name, end);
    }
    return FKV_OK;
}

/* *in: whether the layer of the module is one of layers_to_transform, where that says any. */
static int layer_is_in(const struct fkv_adapter_config *c, const char *name, bool *in,
                       struct fkv_error *err) {
    const json_t *layers = json_object_get(c->root, "layers_to_transform");
    const char *pattern = string_at(c, "layers_pattern", 0);
    int64_t number = -1;
    bool match = false;
    *in = true;
    if (!layers || json_is_null(layers) || (json_is_array(layers) && !json_array_size(layers)))
        return FKV_OK;
    if (!pattern || !*pattern) {
        const struct rule any = {".*?\\.[^.]*", "\\.(\\d+)\\.", false};
        if (match_name(c, "layers_pattern", any, "", name, &match, &number, err)) return FKV_FAILED;
    }
    for (size_t i = 0; !match && (pattern = string_at(c, "layers_pattern", i)); i++)
        if (match_name(c, "layers_pattern", layer, pattern, name, &match, &number, err))
            return FKV_FAILED;
    *in = match && json_is_integer(layers) && json_integer_value(layers) == number;
    for (size_t i = 0; match && i < json_array_size(layers); i++)
        *in |= json_integer_value(json_array_get(layers, i)) == number;
    return FKV_OK;
}

bool fkv_adapter_config_has_targets(const struct fkv_adapter_config *c) {
    return !is_unset(json_object_get(c->root, "target_modules"));
}

int fkv_adapter_config_targets(const struct fkv_adapter_config *c, const char *name, bool linear,
                               bool *targeted, struct fkv_error *err) {
    const char *all = json_string_value(json_object_get(c->root, "target_modules"));
    bool excluded, exact;
    *targeted = false;
    if (names_module(c, "exclude_modules", name, &excluded, &exact, err)) return FKV_FAILED;
    if (!excluded && fkv_adapter_config_saves(c, name, &excluded, err)) return FKV_FAILED;
    if (excluded) return FKV_OK;
    if (all && !strcasecmp(all, "all-linear")) {
        *targeted = linear;
        return FKV_OK;
    }
    if (names_module(c, "target_modules", name, targeted, &exact, err)) return FKV_FAILED;
    return *targeted && !exact ? layer_is_in(c, name, targeted, err) : FKV_OK;
}

int fkv_adapter_config_saves(const struct fkv_adapter_config *c, const char *name, bool *saved,
                             struct fkv_error *err) {
    const char *pattern;
    *saved = false;
    for (size_t i = 0; !*saved && (pattern = string_at(c, "modules_to_save", i)); i++)
        if (match_name(c, "modules_to_save", part, pattern, name, saved, NULL, err))
            return FKV_FAILED;
    return FKV_OK;
}

/* *value: that of the first pattern of the field that matches. */
static int find_pattern(const struct fkv_adapter_config *c, const char *field, const char *name,
                        double *value, struct fkv_error *err) {
    json_t *patterns = json_object_get(c->root, field);
    for (void *at = json_object_iter(patterns); at; at = json_object_iter_next(patterns, at)) {
        bool match;
        if (match_name(c, field, ending, json_object_iter_key(at), name, &match, NULL, err))
            return FKV_FAILED;
        if (!match) continue;
        *value = json_number_value(json_object_iter_value(at));
        break;
    }
    return FKV_OK;
}

int fkv_adapter_config_scale(const struct fkv_adapter_config *c, const char *name, int32_t *rank,
                             float *scale, struct fkv_error *err) {
    double r = c->rank, alpha = c->alpha;
    if (find_pattern(c, "rank_pattern", name, &r, err) ||
        find_pattern(c, "alpha_pattern", name, &alpha, err))
        return FKV_FAILED;
    *rank = (int32_t)r;
    *scale = (float)(alpha / (c->root_scale ? sqrt(r) : r));
    return FKV_OK;
}
