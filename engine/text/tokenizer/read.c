/* tokenizer.json apart from its model: normalizer, pre-tokenizer, added tokens, post-processor,
 * decoder. Steps we do not know are refused by name and field, as a text tokenized almost right is
 * worse than none. "truncation" and "padding" are not for reading whole texts and are ignored. */
#include <string.h>

#include "engine/text/tokenizer/parts.h"
#include "kernels/base/json.h"

/* Calls `read` for a step or for each in a Sequence of them; null is no step. */
static int read_steps(struct fkv_tokenizer *t, const json_t *node, const char *list,
                      const char *where, int depth, fkv_tok_read_step *read,
                      struct fkv_error *err) {
    if (!node || json_is_null(node)) return FKV_OK;
    const char *type = NULL;
    if (fkv_json_get_string(node, where, "type", true, &type, err)) return FKV_FAILED;
    if (strcmp(type, "Sequence")) return read(t, node, type, where, err);
    const json_t *steps = json_object_get(node, list);
    if (!json_is_array(steps) || depth > 4)
        return fkv_fail(err, "%s.%s: expected a list of steps", where, list);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        char inner[512];
        fkv_print_short(inner, sizeof inner, "%s.%s[%zu]", where, list, i);
        if (read_steps(t, json_array_get(steps, i), list, inner, depth + 1, read, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_tok_read_text(struct fkv_tokenizer *t, const json_t *object, const char *where,
                      const char *field, struct fkv_tok_text *text, struct fkv_error *err) {
    const char *found = NULL;
    if (fkv_json_get_string(object, where, field, true, &found, err)) return FKV_FAILED;
    return fkv_tok_keep(t, (struct fkv_tok_text){found, strlen(found)}, text, err);
}

int fkv_tok_read_character(struct fkv_tokenizer *t, const json_t *object, const char *where,
                           const char *field, struct fkv_tok_text *text, struct fkv_error *err) {
    if (fkv_tok_read_text(t, object, where, field, text, err)) return FKV_FAILED;
    if (text->bytes && text->bytes == fkv_utf8_bytes(text->at[0])) return FKV_OK;
    return fkv_fail(err, "%s.%s: expected one character, found \"%.40s\"", where, field, text->at);
}

int fkv_tok_read_pattern(const json_t *step, const char *where, pcre2_code **pattern,
                         struct fkv_error *err) {
    const json_t *object = json_object_get(step, "pattern");
    const char *string = json_string_value(json_object_get(object, "String")),
               *regex = json_string_value(json_object_get(object, "Regex"));
    char field[560];
    fkv_print_short(field, sizeof field, "%s.pattern", where);
    if (regex) return fkv_tok_compile(regex, field, pattern, err);
    if (!string || !*string)
        return fkv_fail(err, "%s: expected a Regex, or a String that is not empty", field);
    return fkv_tok_compile_text((struct fkv_tok_text){string, strlen(string)}, field, pattern, err);
}

int fkv_tok_read_scheme(const json_t *step, const char *where, bool *prefix, bool *first_only,
                        struct fkv_error *err) {
    bool add = true; /* how files before prepend_scheme said it */
    if (fkv_json_get_bool(step, where, "add_prefix_space", false, &add, err)) return FKV_FAILED;
    const char *scheme = add ? "always" : "never";
    if (fkv_json_get_string(step, where, "prepend_scheme", false, &scheme, err)) return FKV_FAILED;
    *prefix = strcmp(scheme, "never");
    *first_only = !strcmp(scheme, "first");
    if (!*prefix || *first_only || !strcmp(scheme, "always")) return FKV_OK;
    return fkv_fail(err, "%s.prepend_scheme: expected first, always or never, found %s", where,
                    scheme);
}

static int read_added_token(struct fkv_tokenizer *t, const json_t *object, const char *where,
                            struct fkv_tok_added *token, struct fkv_error *err) {
    int64_t id = 0;
    if (fkv_json_get_int(object, where, "id", true, 0, FKV_TOK_MAX_IDS - 1, &id, err) ||
        fkv_tok_read_text(t, object, where, "content", &token->content, err) ||
        fkv_json_get_bool(object, where, "single_word", true, &token->single_word, err) ||
        fkv_json_get_bool(object, where, "lstrip", true, &token->lstrip, err) ||
        fkv_json_get_bool(object, where, "rstrip", true, &token->rstrip, err) ||
        fkv_json_get_bool(object, where, "normalized", true, &token->normalized, err) ||
        fkv_json_get_bool(object, where, "special", true, &token->special, err))
        return FKV_FAILED;
    token->id = (int32_t)id;
    return token->content.bytes ? FKV_OK : fkv_fail(err, "%s.content: empty", where);
}

static int read_added(struct fkv_tokenizer *t, const json_t *list, const char *where,
                      struct fkv_error *err) {
    if (fkv_tok_start_added(t, json_array_size(list), err)) return FKV_FAILED;
    for (size_t i = 0; i < json_array_size(list); i++) {
        char field[512];
        fkv_print_short(field, sizeof field, "%s: added_tokens[%zu]", where, i);
        struct fkv_tok_added token = {0};
        if (read_added_token(t, json_array_get(list, i), field, &token, err) ||
            fkv_tok_add_added(t, token, field, err))
            return FKV_FAILED;
    }
    fkv_tok_end_added(t);
    return FKV_OK;
}

/* One item of a template: {"Sequence": {"id": "A"}} or {"SpecialToken": {"id": NAME}} with NAME's
 * ids in "special_tokens". */
static int read_template_item(struct fkv_tokenizer *t, const json_t *item, const json_t *named,
                              bool *text, const char *where, struct fkv_error *err) {
    if (json_is_object(json_object_get(item, "Sequence"))) {
        if (*text) return fkv_fail(err, "%s: the text occurs twice", where);
        *text = true;
        return FKV_OK;
    }
    const char *name =
        json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
    if (!name) return fkv_fail(err, "%s: expected a Sequence or a SpecialToken", where);
    const json_t *ids = json_object_get(json_object_get(named, name), "ids");
    if (!json_is_array(ids))
        return fkv_fail(err, "%s: special_tokens has no ids for \"%.80s\"", where, name);
    int32_t *list = *text ? t->after : t->before;
    int *count = *text ? &t->after_count : &t->before_count;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *value = json_array_get(ids, i);
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= t->strings.ids || t->strings.length[id] < 0)
            return fkv_fail(err, "%s: \"%.80s\" has an id that is not in the vocabulary", where,
                            name);
        if (*count == FKV_TOK_MAX_TEMPLATE)
            return fkv_fail(err, "%s: more than %d special tokens", where, FKV_TOK_MAX_TEMPLATE);
        list[(*count)++] = (int32_t)id;
    }
    return FKV_OK;
}

static int read_post_processor(struct fkv_tokenizer *t, const json_t *step, const char *type,
                               const char *where, struct fkv_error *err) {
    if (!strcmp(type, "ByteLevel")) return FKV_OK; /* it moves offsets, which we do not keep */
    if (strcmp(type, "TemplateProcessing"))
        return fkv_fail(err, "%s.type: expected TemplateProcessing or ByteLevel, found %s", where,
                        type);
    const json_t *single = json_object_get(step, "single");
    if (!json_is_array(single)) return fkv_fail(err, "%s.single: expected a list", where);
    if (t->before_count || t->after_count) return fkv_fail(err, "%s: a second template", where);
    bool text = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        char field[560];
        fkv_print_short(field, sizeof field, "%s.single[%zu]", where, i);
        if (read_template_item(t, json_array_get(single, i),
                               json_object_get(step, "special_tokens"), &text, field, err))
            return FKV_FAILED;
    }
    return text ? FKV_OK : fkv_fail(err, "%s.single: the text does not occur", where);
}

static int read_decoder(struct fkv_tokenizer *t, const json_t *step, const char *type,
                        const char *where, struct fkv_error *err) {
    static const char *const names[] = {"Replace", "ByteFallback", "Fuse",
                                        "Strip",   "ByteLevel",    "Metaspace"};
    int kind = 0, kinds = sizeof names / sizeof *names;
    while (kind < kinds && strcmp(type, names[kind])) kind++;
    if (kind == kinds)
        return fkv_fail(err,
                        "%s.type: expected Replace, ByteFallback, Fuse, Strip, ByteLevel or "
                        "Metaspace, found %s",
                        where, type);
    struct fkv_tok_decoder *d = fkv_tok_add_decoder(t, where, err);
    if (!d) return FKV_FAILED;
    d->kind = kind;
    bool first_only;
    const char *from =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "String"));
    switch (d->kind) {
    case FKV_TOK_DECODE_REPLACE:
        if (!from || !*from)
            return fkv_fail(err, "%s.pattern: expected a String that is not empty", where);
        if (fkv_tok_keep(t, (struct fkv_tok_text){from, strlen(from)}, &d->from, err))
            return FKV_FAILED;
        return fkv_tok_read_text(t, step, where, "content", &d->to, err);
    case FKV_TOK_DECODE_STRIP:
        if (fkv_tok_read_character(t, step, where, "content", &d->from, err) ||
            fkv_json_get_int(step, where, "start", true, 0, INT32_MAX, &d->start, err))
            return FKV_FAILED;
        return fkv_json_get_int(step, where, "stop", true, 0, INT32_MAX, &d->stop, err);
    case FKV_TOK_DECODE_METASPACE:
        if (fkv_tok_read_character(t, step, where, "replacement", &d->from, err)) return FKV_FAILED;
        return fkv_tok_read_scheme(step, where, &d->drop_first, &first_only, err);
    default: return FKV_OK;
    }
}

/* A part of the document that is a step, or a Sequence with the list `list` of them. */
static int read_part(struct fkv_tokenizer *t, const json_t *document, const char *part,
                     const char *list, fkv_tok_read_step *read, const char *where,
                     struct fkv_error *err) {
    char field[480];
    fkv_print_short(field, sizeof field, "%s: %s", where, part);
    return read_steps(t, json_object_get(document, part), list, field, 0, read, err);
}

int fkv_tok_read(struct fkv_tokenizer *t, const json_t *document, const char *where,
                 struct fkv_error *err) {
    const json_t *added = json_object_get(document, "added_tokens"),
                 *model = json_object_get(document, "model");
    char field[480];
    fkv_print_short(field, sizeof field, "%s: model", where);
    if (!json_is_object(model))
        return fkv_fail(err, "%s: expected an object with vocab and merges", field);
    if (added && !json_is_null(added) && !json_is_array(added))
        return fkv_fail(err, "%s: added_tokens: expected a list", where);
    if (read_part(t, document, "normalizer", "normalizers", fkv_tok_read_normalizer, where, err) ||
        read_part(t, document, "pre_tokenizer", "pretokenizers", fkv_tok_read_splitter, where,
                  err) ||
        fkv_tok_read_model(t, model, added, field, err) || read_added(t, added, where, err) ||
        read_part(t, document, "post_processor", "processors", read_post_processor, where, err))
        return FKV_FAILED;
    return read_part(t, document, "decoder", "decoders", read_decoder, where, err);
}
