/* Prompts that are too long lose their middle, as LongBench's pred.py does it. */
#ifndef FKV_REPLAY_GENERATE_TRUNCATE_H
#define FKV_REPLAY_GENERATE_TRUNCATE_H

#include "engine/text/tokenizer.h"

/* A text of more than `most` tokens, BOS included where the tokenizer adds one, becomes the decoded
 * text of its first most / 2 tokens and, directly behind it, that of its last most / 2; special
 * tokens are left out, and what is no whole character becomes U+FFFD. Encoded again, it may have
 * some tokens more or less than `most`. Else, *out is the text. malloc'd, the caller's. */
int fkv_truncate_middle(const struct fkv_tokenizer *tokenizer, const char *text, int64_t most,
                        char **out, struct fkv_error *err);

#endif
