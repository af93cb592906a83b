/* freqkv-replay tokens: the ids that every other command would feed, one line per document. Needs
 * no weights, and a tokenizer for texts only. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/command_line.h"
#include "kernels/base/json.h"
#include "kernels/base/path.h"
#include "replay/commands/commands.h"

static const char doc[] =
    "Prints the token ids of texts, space-separated, one line per document, as ppl feeds "
    "them: with BOS where the tokenizer adds it.\n\n"
    "Example:\n"
    "  freqkv-replay tokens --model data/litbank-1m --text data/the_tide_mill.txt\n"
    "\v" FKV_SEE_MANUAL;

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct fkv_engine_options *o = state->input;
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = o; return 0;
    case ARGP_KEY_END:
        if (!o->text_count && !o->token_ids_count)
            argp_error(state, "--text or --token-ids is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&fkv_engine_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {NULL, parse, NULL, doc, children, NULL, NULL};

static void print_line(const struct fkv_document *document) {
    for (size_t i = 0; i < document->count; i++) printf(i ? " %d" : "%d", document->tokens[i]);
    putchar('\n');
}

static void add_json(json_t *rows, const struct fkv_document *document) {
    json_t *row = json_object(), *ids = json_array();
    for (size_t i = 0; i < document->count; i++)
        json_array_append_new(ids, json_integer(document->tokens[i]));
    json_object_set_new(row, "name", fkv_json_string(document->name));
    json_object_set_new(row, "tokens", ids);
    json_array_append_new(rows, row);
}

/* To the terminal and to the list. */
static void add_note(const struct fkv_engine_options *o, json_t *notes, const char *note) {
    if (!*note) return;
    if (!o->quiet) fprintf(stderr, "note: %s\n", note);
    json_array_append_new(notes, fkv_json_string(note));
}

/* The model's, or the tokenizer's where that is larger or config.json does not say. */
static int32_t vocabulary(const char *model, const struct fkv_tokenizer *tokenizer) {
    char path[FKV_PATH];
    int64_t size = 0;
    const int32_t own = tokenizer ? fkv_tokenizer_vocabulary(tokenizer) : INT32_MAX;
    if (fkv_path_print(path, NULL, "%s/config.json", model)) return own;
    json_t *config = fkv_json_load(path, 1 << 20, NULL);
    if (config) fkv_json_get_int(config, path, "vocab_size", false, 1, INT32_MAX, &size, NULL);
    json_decref(config);
    return size && (!tokenizer || size > own) ? (int32_t)size : own;
}

static int print_documents(const struct fkv_engine_options *o,
                           const struct fkv_tokenizer *tokenizer, struct fkv_error *err) {
    const int32_t vocab = vocabulary(o->model, tokenizer);
    struct fkv_documents *documents;
    if (fkv_engine_documents(o, tokenizer, vocab, true, &documents, err)) return FKV_FAILED;
    json_t *rows = o->json ? json_array() : NULL, *notes = json_array();
    bool more = true;
    int status;
    for (;;) {
        struct fkv_document document = {0};
        status = fkv_documents_next(documents, &document, &more, err);
        if (status || !more) break;
        if (o->json)
            add_json(rows, &document);
        else
            print_line(&document);
        fkv_document_free(&document);
    }
    char note[FKV_DOCUMENTS_NOTE];
    fkv_documents_note(documents, note);
    fkv_documents_close(documents);
    if (!status && tokenizer) add_note(o, notes, fkv_tokenizer_note(tokenizer));
    if (!status) add_note(o, notes, note);
    if (!status && o->json)
        return fkv_json_print(json_pack("{s:o, s:o}", "documents", rows, "notes", notes), err);
    json_decref(rows);
    json_decref(notes);
    return status;
}

int fkv_command_tokens(int argc, char **argv) {
    static struct fkv_engine_options options; /* thousands of paths: too much for a stack */
    struct fkv_error err = {0};
    struct fkv_tokenizer *tokenizer = NULL;
    fkv_engine_options_default(&options);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &options);
    if (fkv_tokenizer_open(options.model, &tokenizer, &err) && options.text_count)
        return fkv_tool_failed("freqkv-replay tokens", &err);
    int status = print_documents(&options, tokenizer, &err);
    fkv_tokenizer_close(tokenizer);
    return status ? fkv_tool_failed("freqkv-replay tokens", &err) : FKV_EXIT_DONE;
}
