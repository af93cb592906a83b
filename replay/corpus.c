/* Reads a whole corpus into memory before anything runs: 4 bytes a token (40 MB for a hundred
 * novels) buys the exact number of passes, and with it the needs, the refusals and the ETA that a
 * run prints beforehand; and windows that run across documents need no second code path. */
#include "replay/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/token_class.h"

/* Grows an array for `more` elements after `count` ones; the size at least doubles. */
static int grow(void **array, size_t element, int64_t count, int64_t more, int64_t *capacity,
                struct fkv_error *err) {
    if (count + more <= *capacity) return FKV_OK;
    int64_t larger_capacity = 2 * *capacity > count + more ? 2 * *capacity : count + more;
    void *larger = realloc(*array, (size_t)larger_capacity * element);
    if (!larger)
        return fkv_fail(err, "out of memory for %lld tokens of text", (long long)(count + more));
    *array = larger;
    *capacity = larger_capacity;
    return FKV_OK;
}

int fkv_corpus_read(const struct fkv_engine_options *options, const struct fkv_engine *engine,
                    bool special, int64_t limit, struct fkv_corpus *corpus, struct fkv_error *err) {
    *corpus = (struct fkv_corpus){0};
    struct fkv_documents *documents;
    if (fkv_engine_documents(options, engine->tokenizer, engine->model->config.vocab, special,
                             &documents, err))
        return FKV_FAILED;
    int64_t token_capacity = 0, document_capacity = 0;
    bool more = true;
    int status = FKV_OK;
    while (!status) {
        struct fkv_document next = {0};
        status = fkv_documents_next(documents, &next, &more, err);
        if (status || !more) break;
        int64_t count = limit && (int64_t)next.count > limit ? limit : (int64_t)next.count;
        status = grow((void **)&corpus->tokens, sizeof *corpus->tokens, corpus->token_count, count,
                      &token_capacity, err);
        if (!status)
            status = grow((void **)&corpus->documents, sizeof *corpus->documents,
                          corpus->document_count, 1, &document_capacity, err);
        if (!status) {
            struct fkv_corpus_document *document = &corpus->documents[corpus->document_count++];
            *document = (struct fkv_corpus_document){
                .name = next.name, .offset = corpus->token_count, .count = count};
            memcpy(document->text_sha256, next.text_sha256, sizeof document->text_sha256);
            memcpy(corpus->tokens + corpus->token_count, next.tokens,
                   (size_t)count * sizeof *corpus->tokens);
            corpus->token_count += count;
            next.name = NULL;
        }
        fkv_document_free(&next);
    }
    char note[FKV_DOCUMENTS_NOTE];
    fkv_documents_note(documents, note);
    if (!status && *note && !options->quiet) fprintf(stderr, "note: %s\n", note);
    fkv_documents_close(documents);
    if (status) fkv_corpus_free(corpus);
    return status;
}

int fkv_corpus_sha256(const struct fkv_corpus *corpus, fkv_sha256_hex out, struct fkv_error *err) {
    size_t documents = (size_t)corpus->document_count;
    struct {
        int64_t count;
        char tokens[64]; /* their hash */
    } *all = calloc(documents, sizeof *all);
    if (!all) return fkv_fail(err, "out of memory for %zu documents", documents);
    int status = FKV_OK;
    for (size_t d = 0; d < documents && !status; d++) {
        const struct fkv_corpus_document *document = &corpus->documents[d];
        status = fkv_sha256_memory(corpus->tokens + document->offset,
                                   (size_t)document->count * sizeof *corpus->tokens, out, err);
        all[d].count = document->count;
        memcpy(all[d].tokens, out, sizeof all[d].tokens);
    }
    if (!status) status = fkv_sha256_memory(all, documents * sizeof *all, out, err);
    free(all);
    return status;
}

int fkv_corpus_classify(struct fkv_corpus *corpus, const struct fkv_engine *engine,
                        struct fkv_error *err) {
    struct fkv_token_classifier *c = NULL;
    if (!engine->tokenizer) return FKV_OK;
    if (!(corpus->classes = calloc((size_t)corpus->token_count, 1)))
        return fkv_fail(err, "out of memory for token classes");
    int status = fkv_token_classifier_open(engine->tokenizer, &c, err);
    for (int64_t d = 0; d < corpus->document_count && !status; d++) {
        const struct fkv_corpus_document *document = &corpus->documents[d];
        const int32_t *tokens = corpus->tokens + document->offset;
        uint8_t *at = corpus->classes + document->offset;
        status = fkv_token_class_text(c, tokens, (size_t)document->count, at, err) ||
                 fkv_token_class_context(tokens, (size_t)document->count, at, err);
    }
    fkv_token_classifier_close(c);
    return status;
}

void fkv_corpus_free(struct fkv_corpus *corpus) {
    for (int64_t i = 0; i < corpus->document_count; i++) free(corpus->documents[i].name);
    free(corpus->documents);
    free(corpus->tokens);
    free(corpus->classes);
    *corpus = (struct fkv_corpus){0};
}
