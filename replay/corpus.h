/* The texts of an experiment: every document's tokens one after the other in one stream, which is
 * what windows are cut from. */
#ifndef FKV_REPLAY_CORPUS_H
#define FKV_REPLAY_CORPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/command_line.h"

struct fkv_corpus_document {
    char *name;
    fkv_sha256_hex text_sha256;
    int64_t offset, count; /* tokens [offset, offset + count) of the stream */
};

struct fkv_corpus {
    int32_t *tokens; /* [token_count] */
    int64_t token_count;
    struct fkv_corpus_document *documents; /* [document_count], at least one */
    int64_t document_count;
    uint8_t *classes; /* [token_count], see engine/text/token_class.h; NULL: not asked for */
};

/* Reads all documents that the options name, at most `limit` tokens of each (0: all). `special`:
 * let the tokenizer add its BOS. */
int fkv_corpus_read(const struct fkv_engine_options *options, const struct fkv_engine *engine,
                    bool special, int64_t limit, struct fkv_corpus *corpus, struct fkv_error *err);
/* Of all tokens and of where documents end: the same for the same texts, tokenizer and limit. */
int fkv_corpus_sha256(const struct fkv_corpus *corpus, fkv_sha256_hex out, struct fkv_error *err);
/* Fills in corpus->classes; they stay NULL where the engine has no tokenizer. */
int fkv_corpus_classify(struct fkv_corpus *corpus, const struct fkv_engine *engine,
                        struct fkv_error *err);
void fkv_corpus_free(struct fkv_corpus *corpus); /* harmless on a zeroed struct */

#endif
