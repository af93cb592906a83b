/* Reading prompts. All are read, and their tokens checked, before anything is continued. */
#include "replay/generate/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/atomic_file.h"

void fkv_prompts_free(struct fkv_prompts *p) {
    for (size_t i = 0; i < p->count; i++) {
        json_decref(p->all[i].id);
        free(p->all[i].text);
        free(p->all[i].tokens);
    }
    free(p->all);
    *p = (struct fkv_prompts){0};
}

int fkv_prompts_add(struct fkv_prompts *p, const struct fkv_tokenizer *tokenizer, int32_t vocab,
                    const char *text, json_t *id, const char *where, struct fkv_error *err) {
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 16;
        struct fkv_prompt *larger = realloc(p->all, capacity * sizeof *larger);
        if (!larger) return fkv_fail(err, "%s: out of memory", where);
        p->all = larger;
        p->capacity = capacity;
    }
    struct fkv_prompt *prompt = &p->all[p->count++];
    *prompt = (struct fkv_prompt){.id = json_incref(id), .text = strdup(text)};
    if (!prompt->text) return fkv_fail(err, "%s: out of memory", where);
    if (fkv_tokenizer_encode(tokenizer, text, strlen(text), true, &prompt->tokens, &prompt->count,
                             err))
        return fkv_error_prefix(err, "%s", where);
    if (!prompt->count) return fkv_fail(err, "%s: the prompt has no tokens", where);
    for (size_t i = 0; i < prompt->count; i++)
        if (prompt->tokens[i] >= vocab)
            return fkv_fail(err, "%s: token %zu: expected an id below the model's %d, found %d",
                            where, i, vocab, prompt->tokens[i]);
    if (prompt->count > p->longest) p->longest = prompt->count;
    return FKV_OK;
}

static int add_line(struct fkv_prompts *p, const struct fkv_tokenizer *tokenizer, int32_t vocab,
                    const char *line, size_t bytes, const char *where, struct fkv_error *err) {
    const char *text;
    json_t *row = fkv_json_parse(line, bytes, where, err);
    if (!row) return FKV_FAILED;
    int status = json_is_object(row)
                     ? fkv_json_get_string(row, where, "prompt", true, &text, err)
                     : fkv_fail(err, "%s: expected an object with a field \"prompt\"", where);
    if (!status)
        status = fkv_prompts_add(p, tokenizer, vocab, text, json_object_get(row, "id"), where, err);
    json_decref(row);
    return status;
}

int fkv_prompts_read(struct fkv_prompts *p, const struct fkv_tokenizer *tokenizer, int32_t vocab,
                     const char *path, int64_t most, struct fkv_error *err) {
    char *data, where[512];
    size_t bytes;
    if (fkv_read_file(path, (size_t)1 << 32, &data, &bytes, err)) return FKV_FAILED;
    int status = FKV_OK, line = 0;
    const size_t limit = most ? (size_t)most : SIZE_MAX;
    for (char *at = data, *end = data + bytes, *next; at < end && p->count < limit && !status;
         at = next) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        next = newline ? newline + 1 : end;
        snprintf(where, sizeof where, "%s:%d", path, ++line);
        if (strspn(at, " \t\r") < length)
            status = add_line(p, tokenizer, vocab, at, length, where, err);
    }
    free(data);
    if (!status && !p->count) status = fkv_fail(err, "%s: no prompts", path);
    return status;
}

int fkv_prompts_sha256(const struct fkv_prompts *p, fkv_sha256_hex out, struct fkv_error *err) {
    fkv_sha256_hex *each = malloc((p->count + 1) * sizeof *each);
    if (!each) return fkv_fail(err, "out of memory for %zu prompts", p->count);
    int status = FKV_OK;
    for (size_t i = 0; i < p->count && !status; i++) {
        json_t *one = json_pack("{s:s, s:O*}", "prompt", p->all[i].text, "id", p->all[i].id);
        char *text =
            one ? json_dumps(one, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
        status = text ? fkv_sha256_memory(text, strlen(text), each[i], err)
                      : fkv_fail(err, "out of memory for %zu prompts", p->count);
        free(text);
        json_decref(one);
    }
    if (!status) status = fkv_sha256_memory(each, p->count * sizeof *each, out, err);
    free(each);
    return status;
}
