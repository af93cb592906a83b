/* "normalizer" of tokenizer.json. */
#include <string.h>
#include <utf8proc.h>

#include "engine/text/tokenizer/parts.h"
#include "kernels/base/json.h"

static int read_strip(struct fkv_tokenizer *t, struct fkv_tok_normalizer *n, const json_t *step,
                      const char *where, struct fkv_error *err) {
    (void)t;
    if (fkv_json_get_bool(step, where, "strip_left", true, &n->left, err)) return FKV_FAILED;
    return fkv_json_get_bool(step, where, "strip_right", true, &n->right, err);
}

static int read_replace(struct fkv_tokenizer *t, struct fkv_tok_normalizer *n, const json_t *step,
                        const char *where, struct fkv_error *err) {
    if (fkv_tok_read_pattern(step, where, &n->pattern, err)) return FKV_FAILED;
    return fkv_tok_read_text(t, step, where, "content", &n->to, err);
}

static int read_prepend(struct fkv_tokenizer *t, struct fkv_tok_normalizer *n, const json_t *step,
                        const char *where, struct fkv_error *err) {
    return fkv_tok_read_text(t, step, where, "prepend", &n->to, err);
}

static const struct {
    const char *type;
    fkv_tok_normalize_step *apply;
    int form;
    int (*read)(struct fkv_tokenizer *t, struct fkv_tok_normalizer *n, const json_t *step,
                const char *where, struct fkv_error *err); /* its parameters; NULL: it has none */
} rows[] = {
    {"NFC", fkv_tok_normal_form, UTF8PROC_COMPOSE, NULL},
    {"NFD", fkv_tok_normal_form, UTF8PROC_DECOMPOSE, NULL},
    {"NFKC", fkv_tok_normal_form, UTF8PROC_COMPAT | UTF8PROC_COMPOSE, NULL},
    {"NFKD", fkv_tok_normal_form, UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE, NULL},
    {"Lowercase", fkv_tok_lowercase, 0, NULL},
    {"Strip", fkv_tok_strip, 0, read_strip},
    {"StripAccents", fkv_tok_strip_accents, 0, NULL},
    {"Replace", fkv_tok_replace_matches, 0, read_replace},
    {"Prepend", fkv_tok_prepend, 0, read_prepend},
};
enum { ROWS = sizeof rows / sizeof *rows };

int fkv_tok_read_normalizer(struct fkv_tokenizer *t, const json_t *step, const char *type,
                            const char *where, struct fkv_error *err) {
    int i = 0;
    while (i < ROWS && strcmp(type, rows[i].type)) i++;
    if (i == ROWS)
        return fkv_fail(err,
                        "%s.type: expected NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, "
                        "Replace, Prepend or a Sequence of them, found %.80s",
                        where, type);
    struct fkv_tok_normalizer *n = fkv_tok_add_normalizer(t, rows[i].apply, where, err);
    if (!n) return FKV_FAILED;
    n->form = rows[i].form;
    return rows[i].read ? rows[i].read(t, n, step, where, err) : FKV_OK;
}
