/* "pre_tokenizer" of tokenizer.json. Most of its types are a pattern and what becomes of its
 * matches. */
#include <string.h>

#include "engine/text/tokenizer/parts.h"
#include "kernels/base/json.h"

static int read_behavior(const json_t *step, const char *where, bool required,
                         enum fkv_tok_behavior *behavior, struct fkv_error *err) {
    static const char *const names[] = {
        [FKV_TOK_REMOVED] = "Removed",
        [FKV_TOK_ISOLATED] = "Isolated",
        [FKV_TOK_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [FKV_TOK_MERGED_WITH_NEXT] = "MergedWithNext",
        [FKV_TOK_CONTIGUOUS] = "Contiguous",
    };
    const char *name = names[FKV_TOK_ISOLATED];
    if (fkv_json_get_string(step, where, "behavior", required, &name, err)) return FKV_FAILED;
    for (int i = FKV_TOK_REMOVED; i <= FKV_TOK_CONTIGUOUS; i++) {
        *behavior = i;
        if (!strcmp(name, names[i])) return FKV_OK;
    }
    return fkv_fail(err,
                    "%s.behavior: expected Removed, Isolated, MergedWithPrevious, MergedWithNext "
                    "or Contiguous, found %.80s",
                    where, name);
}

static int read_byte_level(struct fkv_tokenizer *t, const json_t *step, const char *where,
                           struct fkv_error *err) {
    bool space_before = true, split = true;
    if (fkv_json_get_bool(step, where, "add_prefix_space", true, &space_before, err) ||
        fkv_json_get_bool(step, where, "use_regex", false, &split, err))
        return FKV_FAILED;
    return fkv_tok_add_byte_level(t, space_before, split, where, err);
}

static int read_digits(struct fkv_tokenizer *t, const json_t *step, const char *where,
                       struct fkv_error *err) {
    bool each = false;
    if (fkv_json_get_bool(step, where, "individual_digits", false, &each, err)) return FKV_FAILED;
    return fkv_tok_add_split(t, "\\p{N}", each ? FKV_TOK_ISOLATED : FKV_TOK_CONTIGUOUS, false,
                             where, err);
}

static int read_split(struct fkv_tokenizer *t, const json_t *step, const char *where,
                      struct fkv_error *err) {
    struct fkv_tok_splitter *s = fkv_tok_add_splitter(t, fkv_tok_split, where, err);
    if (!s) return FKV_FAILED;
    if (read_behavior(step, where, true, &s->behavior, err) ||
        fkv_json_get_bool(step, where, "invert", false, &s->invert, err))
        return FKV_FAILED;
    return fkv_tok_read_pattern(step, where, &s->pattern, err);
}

static int read_punctuation(struct fkv_tokenizer *t, const json_t *step, const char *where,
                            struct fkv_error *err) {
    enum fkv_tok_behavior behavior;
    if (read_behavior(step, where, false, &behavior, err)) return FKV_FAILED;
    return fkv_tok_add_split(t, FKV_TOK_PUNCTUATION, behavior, false, where, err);
}

static int read_metaspace(struct fkv_tokenizer *t, const json_t *step, const char *where,
                          struct fkv_error *err) {
    bool split = true;
    struct fkv_tok_splitter *s = fkv_tok_add_splitter(t, fkv_tok_metaspace, where, err);
    if (!s || fkv_tok_read_character(t, step, where, "replacement", &s->mark, err) ||
        fkv_tok_read_scheme(step, where, &s->prefix, &s->first_only, err) ||
        fkv_json_get_bool(step, where, "split", false, &split, err))
        return FKV_FAILED;
    s->behavior = FKV_TOK_MERGED_WITH_NEXT;
    return split ? fkv_tok_compile_text(s->mark, where, &s->pattern, err) : FKV_OK;
}

static const struct {
    const char *type;
    int (*read)(struct fkv_tokenizer *t, const json_t *step, const char *where,
                struct fkv_error *err);
    const char *removed; /* without `read`: a pattern whose matches go, or what is between them */
    bool invert;
} rows[] = {
    {"ByteLevel", read_byte_level, NULL, false},
    {"Digits", read_digits, NULL, false},
    {"Split", read_split, NULL, false},
    {"Punctuation", read_punctuation, NULL, false},
    {"Metaspace", read_metaspace, NULL, false},
    {"WhitespaceSplit", NULL, "\\s", false},
    /* A word of Rust's regex crate has U+200C and U+200D, and no superscripts. */
    {"Whitespace", NULL,
     "(?:(?![\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}])[\\w\\x{200c}\\x{200d}])+|"
     "(?:[^\\w\\s\\x{200c}\\x{200d}]|[\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}])+",
     true},
};
enum { ROWS = sizeof rows / sizeof *rows };

int fkv_tok_read_splitter(struct fkv_tokenizer *t, const json_t *step, const char *type,
                          const char *where, struct fkv_error *err) {
    for (int i = 0; i < ROWS; i++) {
        if (strcmp(type, rows[i].type)) continue;
        if (rows[i].read) return rows[i].read(t, step, where, err);
        return fkv_tok_add_split(t, rows[i].removed, FKV_TOK_REMOVED, rows[i].invert, where, err);
    }
    return fkv_fail(err,
                    "%s.type: expected ByteLevel, Digits, Split, Punctuation, Whitespace, "
                    "WhitespaceSplit, Metaspace or a Sequence of them, found %.80s",
                    where, type);
}
