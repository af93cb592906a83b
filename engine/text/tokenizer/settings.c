/* tokenizer_config.json, which stands beside a tokenizer: what it says about BOS and EOS.
 * tokenizer.json says the same by its template, and is what is followed; tokenizer.model says
 * nothing of it. */
#include <string.h>
#include <unistd.h>

#include "engine/text/tokenizer/parts.h"
#include "kernels/base/json.h"
#include "kernels/base/path.h"

enum { MAX_FILE = 64 << 20 };

/* "bos_token": its text, or an object around it. */
static const char *token_text(const json_t *settings, const char *field) {
    const json_t *token = json_object_get(settings, field);
    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

json_t *fkv_tok_settings_open(const char *directory) {
    char path[FKV_PATH];
    if (fkv_path_print(path, NULL, "%s/tokenizer_config.json", directory) || access(path, F_OK))
        return NULL;
    return fkv_json_load(path, MAX_FILE, NULL);
}

void fkv_tok_settings_compare(const json_t *settings, struct fkv_tokenizer *t) {
    const json_t *add = json_object_get(settings, "add_bos_token");
    const char *class = json_string_value(json_object_get(settings, "tokenizer_class")),
               *bos = token_text(settings, "bos_token");
    /* What transformers 4 takes a Llama tokenizer for that does not say. */
    bool llama = class && !strncmp(class, "LlamaTokenizer", 14),
         said = json_is_boolean(add) || (llama && bos), wanted = llama && bos;
    if (json_is_boolean(add)) wanted = json_is_true(add);
    struct fkv_tok_text first = {"", 0};
    if (t->before_count) first = fkv_tok_string(&t->strings, t->before[0]);
    int shown = (int)(first.bytes < 60 ? first.bytes : 60);
    if (said && wanted && !t->before_count)
        fkv_print_short(t->note, sizeof t->note,
                        "tokenizer_config.json puts BOS (%.60s) before a text, tokenizer.json puts "
                        "nothing: no BOS is added",
                        bos ? bos : "which it does not name");
    else if (said && !wanted && t->before_count)
        fkv_print_short(t->note, sizeof t->note,
                        "tokenizer_config.json puts no BOS before a text, tokenizer.json puts "
                        "%.*s: that is added",
                        shown, first.at);
    else if (bos && t->before_count &&
             (strlen(bos) != first.bytes || memcmp(bos, first.at, first.bytes)))
        fkv_print_short(t->note, sizeof t->note,
                        "tokenizer_config.json has %.60s as BOS, tokenizer.json puts %.*s before a "
                        "text: that is added",
                        bos, shown, first.at);
}
