/* Opening a tokenizer and encoding with it. The steps: see parts.h; decoding: see decode.c. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/checkpoint/gguf.h"
#include "engine/text/tokenizer/parts.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/json.h"
#include "kernels/base/path.h"

enum { MAX_FILE = 256 << 20 };

static const char without[] = "--token-ids works without a tokenizer";

/* DIRECTORY/NAME into `path`; whether there is such a file. */
static bool find_file(char path[FKV_PATH], const char *directory, const char *name) {
    return !fkv_path_print(path, NULL, "%s/%s", directory, name) && access(path, F_OK) == 0;
}

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) || S_ISDIR(info.st_mode);
}

bool fkv_tokenizer_exists(const char *model) {
    char path[FKV_PATH];
    struct fkv_gguf *g;
    if (is_folder(model))
        return find_file(path, model, "tokenizer.json") ||
               find_file(path, model, "tokenizer.model");
    if (fkv_gguf_open(model, &g, NULL)) return false;
    const bool exists = fkv_gguf_has(g, "tokenizer.ggml.model");
    fkv_gguf_close(g);
    return exists;
}

/* The bytes of a file -> the parts of `t`. */
typedef int read_file(struct fkv_tokenizer *t, const void *data, size_t bytes,
                      const json_t *settings, const char *where, struct fkv_error *err);

static int read_json(struct fkv_tokenizer *t, const void *data, size_t bytes,
                     const json_t *settings, const char *where, struct fkv_error *err) {
    json_t *document = fkv_json_parse(data, bytes, where, err);
    if (!document) return FKV_FAILED;
    int status = fkv_tok_read(t, document, where, err);
    json_decref(document);
    if (!status && settings) fkv_tok_settings_compare(settings, t);
    return status;
}

static int make(read_file *read, const void *data, size_t bytes, const json_t *settings,
                const char *where, struct fkv_tokenizer **out, struct fkv_error *err) {
    *out = NULL;
    struct fkv_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return fkv_fail(err, "%s: out of memory", where);
    if (read(t, data, bytes, settings, where, err) ||
        fkv_sha256_memory(data, bytes, t->sha256, err)) {
        fkv_tokenizer_close(t);
        return FKV_FAILED;
    }
    *out = t;
    return FKV_OK;
}

int fkv_tokenizer_parse(const char *json, size_t bytes, const char *where,
                        struct fkv_tokenizer **out, struct fkv_error *err) {
    return make(read_json, json, bytes, NULL, where, out, err);
}

int fkv_tokenizer_parse_sentencepiece(const void *model, size_t bytes, const char *where,
                                      struct fkv_tokenizer **out, struct fkv_error *err) {
    return make(fkv_tok_read_sentencepiece, model, bytes, NULL, where, out, err);
}

int fkv_tokenizer_of_gguf(const struct fkv_gguf *g, struct fkv_tokenizer **out,
                          struct fkv_error *err) {
    *out = NULL;
    struct fkv_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return fkv_fail(err, "%s: out of memory", fkv_gguf_path(g));
    if (fkv_tok_read_gguf(t, g, err)) {
        fkv_tokenizer_close(t);
        return FKV_FAILED;
    }
    *out = t;
    return FKV_OK;
}

static int open_file(const char *path, struct fkv_tokenizer **out, struct fkv_error *err) {
    struct fkv_gguf *g;
    if (fkv_gguf_open(path, &g, err)) return FKV_FAILED;
    const int status = fkv_tokenizer_of_gguf(g, out, err);
    fkv_gguf_close(g);
    return status;
}

static int open_folder(const char *directory, struct fkv_tokenizer **out, struct fkv_error *err) {
    char path[FKV_PATH], *data;
    size_t bytes;
    const bool json = find_file(path, directory, "tokenizer.json");
    if (!json && !find_file(path, directory, "tokenizer.model"))
        return fkv_fail(err,
                        "%s/tokenizer.json: no such file, and no tokenizer.model (make it with "
                        "transformers: "
                        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER))",
                        directory);
    if (fkv_read_file(path, MAX_FILE, &data, &bytes, err)) return FKV_FAILED;
    json_t *settings = fkv_tok_settings_open(directory);
    int status =
        make(json ? read_json : fkv_tok_read_sentencepiece, data, bytes, settings, path, out, err);
    json_decref(settings);
    free(data);
    return status;
}

int fkv_tokenizer_open(const char *model, struct fkv_tokenizer **out, struct fkv_error *err) {
    *out = NULL;
    if (!(is_folder(model) ? open_folder : open_file)(model, out, err)) return FKV_OK;
    const struct fkv_error why = *err;
    return fkv_fail(err, "%s; %s", why.message, without);
}

void fkv_tokenizer_close(struct fkv_tokenizer *t) {
    if (!t) return;
    free(t->normalized.tokens);
    free(t->plain.tokens);
    free(t->kind);
    free(t->merges.slots);
    fkv_tok_strings_free(&t->strings);
    for (int i = 0; i < t->normalizer_count; i++) pcre2_code_free(t->normalizers[i].pattern);
    for (int i = 0; i < t->splitter_count; i++) pcre2_code_free(t->splitters[i].pattern);
    for (size_t i = 0; i < t->kept_count; i++) free(t->kept[i]);
    free(t->kept);
    free(t);
}

/* A section without plain added tokens: normalized, cut at normalized added tokens, the rest
 * tokenized. */
static int encode_section(struct fkv_tok_encoding *w, struct fkv_tok_text text, bool at_start) {
    const struct fkv_tokenizer *t = w->t;
    struct fkv_tok_normalizing n = {.matcher = &w->matcher, .err = w->err};
    if (fkv_tok_normalize(t, &n, &text, w->normal)) return FKV_FAILED;
    at_start &= !n.start_cut;
    struct fkv_tok_cut cut;
    fkv_tok_cut_start(&cut, &t->normalized, text);
    struct fkv_tok_text section;
    for (int32_t id; fkv_tok_cut_next(&cut, &section, &id);)
        if (id >= 0 ? fkv_tok_push(&w->out, id, w->err)
                    : fkv_tok_section(w, section, at_start && section.at == text.at))
            return FKV_FAILED;
    return FKV_OK;
}

static int encode_text(struct fkv_tok_encoding *w, struct fkv_tok_text text, bool special) {
    const struct fkv_tokenizer *t = w->t;
    for (int i = 0; special && i < t->before_count; i++)
        if (fkv_tok_push(&w->out, t->before[i], w->err)) return FKV_FAILED;
    struct fkv_tok_cut cut;
    fkv_tok_cut_start(&cut, &t->plain, text);
    struct fkv_tok_text section;
    for (int32_t id; fkv_tok_cut_next(&cut, &section, &id);)
        if (id >= 0 ? fkv_tok_push(&w->out, id, w->err)
                    : encode_section(w, section, section.at == text.at))
            return FKV_FAILED;
    for (int i = 0; special && i < t->after_count; i++)
        if (fkv_tok_push(&w->out, t->after[i], w->err)) return FKV_FAILED;
    return FKV_OK;
}

int fkv_tokenizer_encode(const struct fkv_tokenizer *t, const char *text, size_t bytes,
                         bool special, int32_t **ids, size_t *count, struct fkv_error *err) {
    size_t bad;
    *ids = NULL;
    *count = 0;
    if (!fkv_utf8_valid(text, bytes, &bad)) return fkv_fail(err, "invalid UTF-8 at byte %zu", bad);
    struct fkv_tok_encoding w = {.t = t, .err = err};
    w.cache = calloc(FKV_TOK_CACHE_SLOTS, sizeof *w.cache);
    w.out.at = fkv_grow(NULL, &w.out.capacity, bytes / 4 + 16, sizeof *w.out.at);
    int status = w.cache && w.out.at
                     ? fkv_tok_matcher_open(&w.matcher, err)
                     : fkv_fail(err, "out of memory for a text of %zu bytes", bytes);
    if (!status) status = encode_text(&w, (struct fkv_tok_text){text, bytes}, special);
    if (!status) {
        *ids = w.out.at;
        *count = w.out.count;
        w.out.at = NULL;
    }
    free(w.out.at);
    for (int i = 0; i < 2; i++) free(w.normal[i].at);
    for (int i = 0; i < t->splitter_count; i++) free(w.made[i].at);
    free(w.symbols);
    free(w.heap);
    free(w.cache);
    fkv_tok_matcher_close(&w.matcher);
    return status;
}

int32_t fkv_tokenizer_bos(const struct fkv_tokenizer *t) {
    return t->before_count ? t->before[0] : -1;
}

int32_t fkv_tokenizer_vocabulary(const struct fkv_tokenizer *t) { return t->strings.ids; }

const char *fkv_tokenizer_sha256(const struct fkv_tokenizer *t) { return t->sha256; }

const char *fkv_tokenizer_note(const struct fkv_tokenizer *t) { return t->note; }
