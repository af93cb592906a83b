/* tokenizer.json apart from its model: normalizer, pre-tokenizer, added tokens, post-processor,
 * decoder. Steps we do not know are refused by name and field, as a text tokenized almost right is
 * worse than none. "truncation" and "padding" are not for reading whole texts and are ignored. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"
#include "kernels/base/json.h"

typedef int read_step(struct fkv_tokenizer *t, const json_t *step, const char *type,
                      const char *where, struct fkv_error *err);

/* Calls `read` for a step or for each in a Sequence of them; null is no step. */
static int read_steps(struct fkv_tokenizer *t, const json_t *node, const char *list,
                      const char *where, int depth, read_step *read, struct fkv_error *err) {
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

static int read_text(const json_t *object, const char *where, const char *field,
                     struct fkv_tok_text *text, struct fkv_error *err) {
    const char *found = NULL;
    if (fkv_json_get_string(object, where, field, true, &found, err)) return FKV_FAILED;
    *text = (struct fkv_tok_text){found, strlen(found)};
    return FKV_OK;
}

static int read_character(const json_t *object, const char *where, const char *field,
                          struct fkv_tok_text *text, struct fkv_error *err) {
    if (read_text(object, where, field, text, err)) return FKV_FAILED;
    if (text->bytes && text->bytes == fkv_tok_char_bytes(text->at[0])) return FKV_OK;
    return fkv_fail(err, "%s.%s: expected one character, found \"%.40s\"", where, field, text->at);
}

/* Replace, as a normalizer and as a decoder: {"pattern": {"String": from}, "content": to} */
static int read_replace(const json_t *step, const char *where, struct fkv_tok_text *from,
                        struct fkv_tok_text *to, struct fkv_error *err) {
    const json_t *pattern = json_object_get(step, "pattern");
    const char *string = json_string_value(json_object_get(pattern, "String"));
    if (!string || !*string)
        return fkv_fail(err, "%s.pattern: expected a String that is not empty", where);
    *from = (struct fkv_tok_text){string, strlen(string)};
    return read_text(step, where, "content", to, err);
}

static int read_normalizer(struct fkv_tokenizer *t, const json_t *step, const char *type,
                           const char *where, struct fkv_error *err) {
    if (t->normalizer_count == FKV_TOK_MAX_STEPS)
        return fkv_fail(err, "%s: more than %d steps", where, FKV_TOK_MAX_STEPS);
    struct fkv_tok_normalizer *n = &t->normalizers[t->normalizer_count++];
    if (!strcmp(type, "Prepend")) {
        n->kind = FKV_TOK_PREPEND;
        return read_text(step, where, "prepend", &n->to, err);
    }
    if (!strcmp(type, "Replace")) {
        n->kind = FKV_TOK_REPLACE;
        return read_replace(step, where, &n->from, &n->to, err);
    }
    n->kind = FKV_TOK_NFC;
    return !strcmp(type, "NFC")
               ? FKV_OK
               : fkv_fail(err, "%s.type: expected Prepend, Replace or NFC, found %s", where, type);
}

static int read_scheme(const json_t *step, const char *where, bool *prefix, bool *first_only,
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

static int read_metaspace(struct fkv_tokenizer *t, const json_t *step, const char *where,
                          struct fkv_error *err) {
    t->splitting = FKV_TOK_METASPACE;
    t->split_spaces = true;
    return read_character(step, where, "replacement", &t->replacement, err) ||
                   read_scheme(step, where, &t->prefix_space, &t->first_only, err) ||
                   fkv_json_get_bool(step, where, "split", false, &t->split_spaces, err)
               ? FKV_FAILED
               : FKV_OK;
}

static int read_split(struct fkv_tokenizer *t, const json_t *step, const char *where,
                      struct fkv_error *err) {
    const char *behavior = NULL;
    bool invert = false;
    if (fkv_json_get_string(step, where, "behavior", true, &behavior, err) ||
        fkv_json_get_bool(step, where, "invert", false, &invert, err))
        return FKV_FAILED;
    if (strcmp(behavior, "Isolated"))
        return fkv_fail(err, "%s.behavior: expected Isolated, found %s", where, behavior);
    if (invert) return fkv_fail(err, "%s.invert: expected false, found true", where);
    char field[560];
    fkv_print_short(field, sizeof field, "%s.pattern", where);
    const char *regex = NULL;
    if (fkv_json_get_string(json_object_get(step, "pattern"), field, "Regex", true, &regex, err))
        return FKV_FAILED;
    return fkv_tok_pattern(regex, field, &t->pattern, err);
}

static int read_byte_level(struct fkv_tokenizer *t, const json_t *step, const char *where,
                           struct fkv_error *err) {
    bool use_regex = true;
    if (fkv_json_get_bool(step, where, "add_prefix_space", true, &t->prefix_space, err) ||
        fkv_json_get_bool(step, where, "use_regex", false, &use_regex, err))
        return FKV_FAILED;
    if (t->pattern && use_regex)
        return fkv_fail(err, "%s.use_regex: expected false after a Split, found true", where);
    if (t->pattern && t->prefix_space)
        return fkv_fail(err, "%s.add_prefix_space: expected false after a Split, found true",
                        where);
    t->splitting = FKV_TOK_BYTE_LEVEL;
    return use_regex ? fkv_tok_pattern(NULL, where, &t->pattern, err) : FKV_OK;
}

static int read_pre_tokenizer(struct fkv_tokenizer *t, const json_t *step, const char *type,
                              const char *where, struct fkv_error *err) {
    bool byte_level = !strcmp(type, "ByteLevel");
    if (t->splitting != FKV_TOK_WHOLE || (t->pattern && !byte_level))
        return fkv_fail(
            err, "%s: expected Metaspace, ByteLevel, or Split and ByteLevel, found %s after them",
            where, type);
    if (byte_level) return read_byte_level(t, step, where, err);
    if (!strcmp(type, "Metaspace")) return read_metaspace(t, step, where, err);
    if (!strcmp(type, "Split")) return read_split(t, step, where, err);
    return fkv_fail(err, "%s.type: expected Metaspace, Split or ByteLevel, found %s", where, type);
}

static int read_added_token(const json_t *object, const char *where, struct fkv_tok_added *token,
                            struct fkv_error *err) {
    int64_t id = 0;
    if (fkv_json_get_int(object, where, "id", true, 0, FKV_TOK_MAX_IDS - 1, &id, err) ||
        read_text(object, where, "content", &token->content, err) ||
        fkv_json_get_bool(object, where, "single_word", true, &token->single_word, err) ||
        fkv_json_get_bool(object, where, "lstrip", true, &token->lstrip, err) ||
        fkv_json_get_bool(object, where, "rstrip", true, &token->rstrip, err) ||
        fkv_json_get_bool(object, where, "normalized", true, &token->normalized, err) ||
        fkv_json_get_bool(object, where, "special", true, &token->special, err))
        return FKV_FAILED;
    token->id = (int32_t)id;
    return token->content.bytes ? FKV_OK : fkv_fail(err, "%s.content: empty", where);
}

/* The text that normalized tokens are found by: their own, normalized like any other. */
static int normalize_content(struct fkv_tokenizer *t, struct fkv_tok_added *token,
                             const char *where, struct fkv_error *err) {
    struct fkv_tok_bytes buffer[2] = {0};
    int status =
        fkv_tok_normalize(t->normalizers, t->normalizer_count, &token->content, buffer, err);
    if (!status && !token->content.bytes)
        status = fkv_fail(err, "%s.content: normalizes to nothing", where);
    char *copy = status ? NULL : malloc(token->content.bytes);
    if (copy) memcpy(copy, token->content.at, token->content.bytes);
    token->content.at = copy;
    free(buffer[0].at);
    free(buffer[1].at);
    return status || copy ? status : fkv_fail(err, "%s: out of memory", where);
}

/* Hugging Face tokenizers pay no heed to "id": a token of the vocabulary has its id there, others
 * are numbered on. Files agree with that; one that does not would be read differently by us and by
 * them, and is refused. */
static int read_added(struct fkv_tokenizer *t, const json_t *list, size_t vocabulary,
                      const char *where, struct fkv_error *err) {
    size_t count = json_array_size(list);
    t->plain.tokens = calloc(count + 1, sizeof *t->plain.tokens);
    t->normalized.tokens = calloc(count + 1, sizeof *t->normalized.tokens);
    t->kind = calloc((size_t)t->strings.ids, 1);
    if (!t->plain.tokens || !t->normalized.tokens || !t->kind)
        return fkv_fail(err, "%s: out of memory", where);
    int32_t next = (int32_t)vocabulary;
    bool *seen = calloc((size_t)t->strings.ids, sizeof *seen);
    int status = seen ? FKV_OK : fkv_fail(err, "%s: out of memory", where);
    for (size_t i = 0; i < count && !status; i++) {
        char field[512];
        fkv_print_short(field, sizeof field, "%s: added_tokens[%zu]", where, i);
        struct fkv_tok_added token = {0};
        status = read_added_token(json_array_get(list, i), field, &token, err);
        if (status) break;
        int32_t known = fkv_tok_find(&t->strings, token.content.at, token.content.bytes),
                id = known < 0 ? next : known;
        if (token.id != id || seen[id] || (known < 0 && t->strings.length[id] >= 0)) {
            status = fkv_fail(err, "%s (\"%.80s\"): expected id %d, not given before, found %d",
                              field, token.content.at, (int)id, (int)token.id);
            break;
        }
        seen[id] = true;
        if (id >= next) next = id + 1;
        t->kind[id] = (uint8_t)((token.special ? FKV_TOK_SPECIAL : 0) |
                                (token.normalized ? FKV_TOK_NORMALIZED : 0));
        if (known < 0) status = fkv_tok_strings_set(&t->strings, id, token.content, err);
        struct fkv_tok_added_set *set = token.normalized ? &t->normalized : &t->plain;
        if (!status && token.normalized) status = normalize_content(t, &token, field, err);
        if (!status) set->tokens[set->count++] = token;
    }
    free(seen);
    fkv_tok_added_sort(&t->plain);
    fkv_tok_added_sort(&t->normalized);
    return status;
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
    if (t->decoder_count == FKV_TOK_MAX_STEPS)
        return fkv_fail(err, "%s: more than %d steps", where, FKV_TOK_MAX_STEPS);
    struct fkv_tok_decoder *d = &t->decoders[t->decoder_count++];
    int kind = 0, kinds = sizeof names / sizeof *names;
    while (kind < kinds && strcmp(type, names[kind])) kind++;
    if (kind == kinds)
        return fkv_fail(err,
                        "%s.type: expected Replace, ByteFallback, Fuse, Strip, ByteLevel or "
                        "Metaspace, found %s",
                        where, type);
    d->kind = kind;
    bool first_only;
    switch (d->kind) {
    case FKV_TOK_DECODE_REPLACE: return read_replace(step, where, &d->from, &d->to, err);
    case FKV_TOK_DECODE_STRIP:
        return read_character(step, where, "content", &d->from, err) ||
                       fkv_json_get_int(step, where, "start", true, 0, INT32_MAX, &d->start, err) ||
                       fkv_json_get_int(step, where, "stop", true, 0, INT32_MAX, &d->stop, err)
                   ? FKV_FAILED
                   : FKV_OK;
    case FKV_TOK_DECODE_METASPACE:
        return read_character(step, where, "replacement", &d->from, err) ||
                       read_scheme(step, where, &d->drop_first, &first_only, err)
                   ? FKV_FAILED
                   : FKV_OK;
    default: return FKV_OK;
    }
}

int fkv_tok_read(struct fkv_tokenizer *t, json_t *document, const char *where,
                 struct fkv_error *err) {
    t->document = document;
    const json_t *added = json_object_get(document, "added_tokens"),
                 *model = json_object_get(document, "model");
    char field[5][480];
    static const char *const parts[] = {"normalizer", "pre_tokenizer", "model", "post_processor",
                                        "decoder"};
    for (int i = 0; i < 5; i++)
        fkv_print_short(field[i], sizeof field[i], "%s: %s", where, parts[i]);
    if (!json_is_object(model))
        return fkv_fail(err, "%s: expected an object with vocab and merges", field[2]);
    if (added && !json_is_null(added) && !json_is_array(added))
        return fkv_fail(err, "%s: added_tokens: expected a list", where);
    if (read_steps(t, json_object_get(document, parts[0]), "normalizers", field[0], 0,
                   read_normalizer, err) ||
        read_steps(t, json_object_get(document, parts[1]), "pretokenizers", field[1], 0,
                   read_pre_tokenizer, err))
        return FKV_FAILED;
    if (t->pattern && t->splitting != FKV_TOK_BYTE_LEVEL)
        return fkv_fail(err, "%s: expected ByteLevel after the Split, found nothing", field[1]);
    if (fkv_tok_read_model(t, model, json_array_size(added), field[2], err) ||
        read_added(t, added, json_object_size(json_object_get(model, "vocab")), where, err) ||
        read_steps(t, json_object_get(document, parts[3]), "processors", field[3], 0,
                   read_post_processor, err) ||
        read_steps(t, json_object_get(document, parts[4]), "decoders", field[4], 0, read_decoder,
                   err))
        return FKV_FAILED;
    while (t->strings.ids && t->strings.length[t->strings.ids - 1] < 0) t->strings.ids--;
    json_object_del(document, "model");
    return FKV_OK;
}
