/* Finding a model's chat template and its special tokens. */
#include "engine/text/chat_template.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/checkpoint/gguf.h"
#include "engine/text/template.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/json.h"
#include "kernels/base/path.h"

enum { MAX_TEMPLATE = 4 << 20, MAX_CONFIG = 64 << 20 };

struct fkv_chat_template {
    struct fkv_template *template;
    json_t *tokens; /* {"bos_token": TEXT, ...} */
};

static const char *const token_names[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
enum { TOKENS = sizeof token_names / sizeof *token_names };

/* ---- a folder ---- */

/* FOLDER/NAME into `path`; whether there is such a file. */
static bool find_file(char path[FKV_PATH], const char *folder, const char *name) {
    return !fkv_path_print(path, NULL, "%s/%s", folder, name) && access(path, F_OK) == 0;
}

/* A token is its text or an object around it. Files that come later set what is not set yet. */
static void add_tokens(const json_t *file, json_t *tokens) {
    for (int i = 0; i < TOKENS; i++) {
        json_t *token = json_object_get(file, token_names[i]);
        if (json_is_object(token)) token = json_object_get(token, "content");
        if (json_is_string(token) && !json_object_get(tokens, token_names[i]))
            json_object_set(tokens, token_names[i], token);
    }
}

/* The text in the field chat_template of tokenizer_config.json; NULL and a message. */
static const json_t *find_text(const json_t *config, const char *path, struct fkv_error *err) {
    const json_t *field = json_object_get(config, "chat_template"), *one;
    size_t i;
    if (json_is_string(field)) return field;
    json_array_foreach((json_t *)field, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        const json_t *text = json_object_get(one, "template");
        if (name && !strcmp(name, "default") && json_is_string(text)) return text;
    }
    if (json_is_array(field))
        fkv_fail(err, "%s: field \"chat_template\": expected one named default, found others",
                 path);
    else
        fkv_fail(err,
                 "%s: field \"chat_template\": expected the model's chat template, found none, "
                 "and there is no chat_template.jinja",
                 path);
    return NULL;
}

static int open_folder(const char *folder, struct fkv_chat_template *c, struct fkv_error *err) {
    char path[FKV_PATH], config_path[FKV_PATH], *source;
    size_t bytes;
    json_t *config = NULL, *map = NULL;
    const bool has_config = find_file(config_path, folder, "tokenizer_config.json");
    if (has_config && !(config = fkv_json_load(config_path, MAX_CONFIG, err))) return FKV_FAILED;
    add_tokens(config, c->tokens);
    if (find_file(path, folder, "special_tokens_map.json") &&
        (map = fkv_json_load(path, MAX_CONFIG, NULL)))
        add_tokens(map, c->tokens);
    json_decref(map);
    int status;
    if (find_file(path, folder, "chat_template.jinja")) {
        status = fkv_read_file(path, MAX_TEMPLATE, &source, &bytes, err);
        if (!status) {
            status = fkv_template_parse(source, bytes, path, &c->template, err);
            free(source);
        }
    } else {
        const json_t *text = find_text(config, config_path, err);
        status = text ? fkv_template_parse(json_string_value(text), json_string_length(text),
                                           config_path, &c->template, err)
                      : FKV_FAILED;
    }
    json_decref(config);
    return status;
}

/* ---- a GGUF file ---- */

/* The spelling of the token whose id stands at tokenizer.ggml.bos_token_id and so on. */
static int add_gguf_tokens(const struct fkv_gguf *g, json_t *tokens, struct fkv_error *err) {
    static const char *const keys[TOKENS] = {
        "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id"};
    for (int i = 0; i < TOKENS; i++) {
        int64_t id = -1;
        struct fkv_gguf_array all;
        struct fkv_gguf_string token = {"", 0};
        if (fkv_gguf_get_array(g, "tokenizer.ggml.tokens", true, FKV_GGUF_STRING, &all, err) ||
            fkv_gguf_get_int(g, keys[i], false, 0, (int64_t)all.count - 1, &id, err))
            return FKV_FAILED;
        for (int64_t k = 0; k <= id; k++) token = fkv_gguf_next_string(&all);
        json_t *text = id >= 0 ? json_stringn(token.text, token.bytes) : NULL;
        if (text) json_object_set_new(tokens, token_names[i], text);
    }
    return FKV_OK;
}

static int open_gguf(const char *file, struct fkv_chat_template *c, struct fkv_error *err) {
    static const char key[] = "tokenizer.chat_template";
    struct fkv_gguf *g;
    struct fkv_gguf_string text;
    char where[FKV_PATH];
    if (fkv_gguf_open(file, &g, err)) return FKV_FAILED;
    fkv_print_short(where, sizeof where, "%s: key %s", file, key);
    int status = fkv_gguf_get_string(g, key, true, &text, err);
    if (!status) status = fkv_template_parse(text.text, text.bytes, where, &c->template, err);
    if (!status) status = add_gguf_tokens(g, c->tokens, err);
    fkv_gguf_close(g);
    return status;
}

/* ---- both ---- */

int fkv_chat_template_open(const char *model, struct fkv_chat_template **out,
                           struct fkv_error *err) {
    struct stat info;
    *out = NULL;
    struct fkv_chat_template *c = calloc(1, sizeof *c);
    if (!c || !(c->tokens = json_object())) {
        free(c);
        return fkv_fail(err, "%s: out of memory", model);
    }
    const bool folder = stat(model, &info) || S_ISDIR(info.st_mode);
    if ((folder ? open_folder : open_gguf)(model, c, err)) {
        fkv_chat_template_close(c);
        return FKV_FAILED;
    }
    *out = c;
    return FKV_OK;
}

void fkv_chat_template_close(struct fkv_chat_template *c) {
    if (!c) return;
    fkv_template_close(c->template);
    json_decref(c->tokens);
    free(c);
}

static int check_messages(const json_t *messages, struct fkv_error *err) {
    const json_t *message;
    size_t i;
    if (!json_array_size(messages))
        return fkv_fail(err, "field \"messages\": expected a list of messages");
    json_array_foreach((json_t *)messages, i, message) {
        if (!json_is_string(json_object_get(message, "role")) ||
            !json_object_get(message, "content"))
            return fkv_fail(err,
                            "field \"messages\": expected objects with the fields \"role\" and "
                            "\"content\", found something else at %zu",
                            i);
    }
    return FKV_OK;
}

int fkv_chat_template_render(const struct fkv_chat_template *c, const json_t *messages,
                             const json_t *more, const char *date, char **text, size_t *bytes,
                             struct fkv_error *err) {
    *text = NULL;
    if (check_messages(messages, err)) return FKV_FAILED;
    json_t *variables = json_pack("{s:O, s:b, s:n, s:n}", "messages", messages,
                                  "add_generation_prompt", 1, "tools", "documents");
    int status = !variables || json_object_update(variables, c->tokens) ||
                         (more && json_object_update(variables, (json_t *)more))
                     ? fkv_fail(err, "out of memory for messages")
                     : FKV_OK;
    if (!status) status = fkv_template_render(c->template, variables, date, text, bytes, err);
    json_decref(variables);
    return status;
}
