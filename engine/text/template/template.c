/* Opening a template, and the memory of its nodes. */
#include <stdlib.h>

#include "engine/text/template/parts.h"

struct fkv_tpl_block {
    struct fkv_tpl_block *next;
    max_align_t data[];
};

void *fkv_tpl_alloc(struct fkv_template *t, size_t bytes) {
    struct fkv_tpl_block *block = calloc(1, sizeof *block + bytes);
    if (!block) return NULL;
    block->next = t->blocks;
    t->blocks = block;
    return block->data;
}

/* A copy of the source as Jinja reads it: lines end in \n, and the last line's end goes. */
static void copy_source(char *out, const char *source, size_t bytes) {
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (source[i] == '\r' && i + 1 < bytes && source[i + 1] == '\n') continue;
        out[count++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (count && out[count - 1] == '\n') count--;
    out[count] = 0;
}

static int parse(struct fkv_template *t, struct fkv_error *err) {
    struct fkv_tpl_tokens tokens = {0};
    int status = fkv_tpl_lex(t->source, t->where, &tokens, err);
    if (!status) {
        struct fkv_tpl_parser parser = {.t = t, .at = tokens.at, .err = err};
        status = fkv_tpl_parse_statements(&parser, &t->body);
    }
    free(tokens.at);
    return status;
}

int fkv_template_parse(const char *source, size_t bytes, const char *where,
                       struct fkv_template **out, struct fkv_error *err) {
    *out = NULL;
    size_t bad;
    if (!fkv_utf8_valid(source, bytes, &bad) || memchr(source, 0, bytes))
        return fkv_fail(err, "%s: expected a template in UTF-8, found other bytes", where);
    struct fkv_template *t = calloc(1, sizeof *t);
    if (t) {
        t->source = malloc(bytes + 1);
        t->where = strdup(where);
        t->constants = json_array();
    }
    if (!t || !t->source || !t->where || !t->constants) {
        fkv_template_close(t);
        return fkv_fail(err, "%s: out of memory", where);
    }
    copy_source(t->source, source, bytes);
    if (parse(t, err)) {
        fkv_template_close(t);
        return FKV_FAILED;
    }
    *out = t;
    return FKV_OK;
}

void fkv_template_close(struct fkv_template *t) {
    if (!t) return;
    for (struct fkv_tpl_block *b = t->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    json_decref(t->constants);
    free(t->source);
    free(t->where);
    free(t);
}
