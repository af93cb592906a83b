/* Reading prompts. All are read, rendered and encoded before anything is continued. */
#include "replay/generate/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/atomic_file.h"
#include "replay/generate/truncate.h"

enum { MOST_TOKENS = 1 << 30 };

void fkv_prompts_free(struct fkv_prompts *p) {
    for (size_t i = 0; i < p->count; i++) {
        json_decref(p->all[i].id);
        json_decref(p->all[i].stop_list);
        fkv_stops_free(&p->all[i].stops);
        free(p->all[i].text);
        free(p->all[i].tokens);
    }
    free(p->all);
    *p = (struct fkv_prompts){0};
}

void fkv_prompt_reader_close(struct fkv_prompt_reader *r) {
    fkv_chat_template_close(r->chat_template);
    json_decref(r->chat_options);
    json_decref(r->stops);
    *r = (struct fkv_prompt_reader){0};
}

/* ---- a prompt's text ---- */

static int render(struct fkv_prompt_reader *r, const json_t *messages, char **text,
                  struct fkv_error *err) {
    size_t bytes;
    if (!r->chat_template && fkv_chat_template_open(r->model, &r->chat_template, err))
        return FKV_FAILED;
    return fkv_chat_template_render(r->chat_template, messages, r->chat_options, r->date, text,
                                    &bytes, err);
}

static int render_user(struct fkv_prompt_reader *r, const char *content, char **text,
                       struct fkv_error *err) {
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", content);
    int status =
        messages ? render(r, messages, text, err) : fkv_fail(err, "out of memory for a prompt");
    json_decref(messages);
    return status;
}

/* Field "prompt", cut and, where the row is a chat, rendered. */
static int make_text(struct fkv_prompt *prompt, struct fkv_prompt_reader *r, const char *text,
                     struct fkv_error *err) {
    char *cut;
    if (r->truncate ? fkv_truncate_middle(r->tokenizer, text, r->truncate, &cut, err)
                    : !(cut = strdup(text)) && fkv_fail(err, "out of memory for a prompt"))
        return FKV_FAILED;
    if (!prompt->chat) {
        prompt->text = cut;
        return FKV_OK;
    }
    const int status = render_user(r, cut, &prompt->text, err);
    free(cut);
    return status;
}

/* Field "messages". */
static int make_chat(struct fkv_prompt *prompt, struct fkv_prompt_reader *r, const json_t *messages,
                     struct fkv_error *err) {
    prompt->chat = true;
    if (r->truncate)
        return fkv_fail(err, "field \"messages\": expected \"prompt\" with --truncate, which cuts "
                             "texts and no messages");
    return render(r, messages, &prompt->text, err);
}

static int append_text(struct fkv_prompt *prompt, const char *more, struct fkv_error *err) {
    const size_t bytes = strlen(prompt->text);
    char *longer = realloc(prompt->text, bytes + strlen(more) + 1);
    if (!longer) return fkv_fail(err, "out of memory for a prompt");
    strcpy(longer + bytes, more);
    prompt->text = longer;
    return FKV_OK;
}

static int read_text(struct fkv_prompt *prompt, struct fkv_prompt_reader *r, const json_t *row,
                     const char *where, struct fkv_error *err) {
    const json_t *messages = json_object_get(row, "messages");
    const char *text = NULL, *prefix = NULL;
    prompt->chat = r->chat;
    if (fkv_json_get_string(row, where, "prompt", !messages, &text, err) ||
        fkv_json_get_string(row, where, "answer_prefix", false, &prefix, err) ||
        fkv_json_get_bool(row, where, "chat", false, &prompt->chat, err))
        return FKV_FAILED;
    if (text && messages)
        return fkv_fail(err, "%s: expected \"prompt\" or \"messages\", found both", where);
    if (messages ? make_chat(prompt, r, messages, err) : make_text(prompt, r, text, err))
        return fkv_error_prefix(err, "%s", where);
    return prefix ? append_text(prompt, prefix, err) : FKV_OK;
}

static int encode(struct fkv_prompt *prompt, const struct fkv_prompt_reader *r, const char *where,
                  struct fkv_error *err) {
    if (fkv_tokenizer_encode(r->tokenizer, prompt->text, strlen(prompt->text), !prompt->chat,
                             &prompt->tokens, &prompt->count, err))
        return fkv_error_prefix(err, "%s", where);
    if (!prompt->count) return fkv_fail(err, "%s: the prompt has no tokens", where);
    for (size_t i = 0; i < prompt->count; i++)
        if (prompt->tokens[i] >= r->vocab)
            return fkv_fail(err, "%s: token %zu: expected an id below the model's %d, found %d",
                            where, i, r->vocab, prompt->tokens[i]);
    return FKV_OK;
}

/* ---- what ends it ---- */

/* A string, or all of a list. */
static int add_stops(struct fkv_prompt *prompt, const struct fkv_prompt_reader *r,
                     const json_t *stops, const char *where, struct fkv_error *err) {
    const size_t count = json_is_array(stops) ? json_array_size(stops) : stops ? 1 : 0;
    for (size_t i = 0; i < count; i++) {
        json_t *stop = json_is_array(stops) ? json_array_get(stops, i) : (json_t *)stops;
        if (!json_is_string(stop))
            return fkv_fail(err, "%s: field \"stop\": expected a string or a list of strings",
                            where);
        if (!prompt->stop_list) prompt->stop_list = json_array();
        if (json_array_append(prompt->stop_list, stop))
            return fkv_fail(err, "%s: out of memory", where);
        if (fkv_stops_add(&prompt->stops, r->tokenizer, json_string_value(stop), err))
            return fkv_error_prefix(err, "%s", where);
    }
    return FKV_OK;
}

int fkv_prompts_add(struct fkv_prompts *p, struct fkv_prompt_reader *reader, const json_t *row,
                    const char *where, struct fkv_error *err) {
    if (!json_is_object(row))
        return fkv_fail(err, "%s: expected an object with a field \"prompt\"", where);
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 16;
        struct fkv_prompt *larger = realloc(p->all, capacity * sizeof *larger);
        if (!larger) return fkv_fail(err, "%s: out of memory", where);
        p->all = larger;
        p->capacity = capacity;
    }
    struct fkv_prompt *prompt = &p->all[p->count++];
    *prompt = (struct fkv_prompt){.id = json_incref(json_object_get(row, "id"))};
    if (read_text(prompt, reader, row, where, err) || encode(prompt, reader, where, err) ||
        fkv_json_get_int(row, where, "max_tokens", false, 1, MOST_TOKENS, &prompt->most, err) ||
        add_stops(prompt, reader, reader->stops, "--stop", err) ||
        add_stops(prompt, reader, json_object_get(row, "stop"), where, err))
        return FKV_FAILED;
    if (prompt->count > p->longest) p->longest = prompt->count;
    return FKV_OK;
}

/* ---- a file ---- */

int fkv_prompts_read(struct fkv_prompts *p, struct fkv_prompt_reader *reader, const char *path,
                     int64_t most, struct fkv_error *err) {
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
        if (strspn(at, " \t\r") >= length) continue;
        json_t *row = fkv_json_parse(at, length, where, err);
        status = row ? fkv_prompts_add(p, reader, row, where, err) : FKV_FAILED;
        json_decref(row);
    }
    free(data);
    if (!status && !p->count) status = fkv_fail(err, "%s: no prompts", path);
    return status;
}

int64_t fkv_prompt_most(const struct fkv_prompt *prompt, int64_t tokens) {
    return prompt->most ? prompt->most : tokens;
}

int64_t fkv_prompts_reach(const struct fkv_prompts *p, int64_t tokens) {
    int64_t reach = 0;
    for (size_t i = 0; i < p->count; i++) {
        const int64_t all = (int64_t)p->all[i].count + fkv_prompt_most(&p->all[i], tokens);
        if (all > reach) reach = all;
    }
    return reach;
}

/* What tells a prompt apart; nothing of what it does not have. */
static json_t *identity(const struct fkv_prompt *prompt) {
    json_t *o = json_pack("{s:s, s:O*, s:O*}", "prompt", prompt->text, "id", prompt->id, "stop",
                          prompt->stop_list);
    if (o && prompt->chat) json_object_set_new(o, "chat", json_true());
    if (o && prompt->most) json_object_set_new(o, "max_tokens", json_integer(prompt->most));
    return o;
}

int fkv_prompts_sha256(const struct fkv_prompts *p, fkv_sha256_hex out, struct fkv_error *err) {
    fkv_sha256_hex *each = malloc((p->count + 1) * sizeof *each);
    if (!each) return fkv_fail(err, "out of memory for %zu prompts", p->count);
    int status = FKV_OK;
    for (size_t i = 0; i < p->count && !status; i++) {
        json_t *one = identity(&p->all[i]);
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
