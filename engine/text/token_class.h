/* What kind of token each token of a document is, so that findings can be split by it: one byte per
 * token. Of the lower four bits at most one is set (none: white space, special tokens); the higher
 * ones are independent. */
#ifndef FKV_ENGINE_TEXT_TOKEN_CLASS_H
#define FKV_ENGINE_TEXT_TOKEN_CLASS_H

#include <stddef.h>
#include <stdint.h>

#include "engine/text/tokenizer.h"

enum fkv_token_class {
    /* by text */
    FKV_TOKEN_DIGIT = 1, /* holds a digit and no letter */
    FKV_TOKEN_PUNCTUATION =
        2, /* neither letter nor digit, but something visible: punctuation, symbols */
    FKV_TOKEN_WORD_START =
        4, /* holds a letter, and what stands before its text is no letter and no digit */
    FKV_TOKEN_CONTINUATION = 8, /* holds a letter, and follows a letter or digit without a space */
    /* by the document's ids alone */
    FKV_TOKEN_RARE = 16, /* its id makes up fewer than 1 in 10,000 of the document's tokens, or
                            occurs once (which is all that is rare in a short one) */
    FKV_TOKEN_COPIED =
        32, /* it and the token before it stood side by side earlier in the document */
    FKV_TOKEN_FIRST = 64, /* the first occurrence of its id in the document */
};

struct fkv_token_classifier; /* what a tokenizer's tokens look like, each looked at once */
int fkv_token_classifier_open(const struct fkv_tokenizer *tokenizer,
                              struct fkv_token_classifier **out, struct fkv_error *err);
void fkv_token_classifier_close(struct fkv_token_classifier *c); /* NULL is fine */

/* tokens [n], a whole document -> classes [n]: the bits by text; others are cleared. */
int fkv_token_class_text(struct fkv_token_classifier *c, const int32_t *tokens, size_t n,
                         uint8_t *classes, struct fkv_error *err);
/* Sets the bits by ids in classes [n]. */
int fkv_token_class_context(const int32_t *tokens, size_t n, uint8_t *classes,
                            struct fkv_error *err);

#endif
