/* What `generate` continues: the one prompt of the command line, or those of a file. */
#ifndef FKV_REPLAY_GENERATE_PROMPTS_H
#define FKV_REPLAY_GENERATE_PROMPTS_H

#include "engine/command_line.h"
#include "kernels/base/json.h"

struct fkv_prompt {
    json_t *id; /* as the file has it; NULL without one */
    char *text;
    int32_t *tokens; /* [count], at least one */
    size_t count;
};

struct fkv_prompts {
    struct fkv_prompt *all; /* [count] */
    size_t count, capacity;
    size_t longest; /* in tokens */
};

/* Adds a text; `where` names it in messages, `id` may be NULL. */
int fkv_prompts_add(struct fkv_prompts *p, const struct fkv_tokenizer *tokenizer, int32_t vocab,
                    const char *text, json_t *id, const char *where, struct fkv_error *err);
/* Adds each line's field "prompt", with its field "id" where there is one, up to `most` prompts in
 * all (0: all); blank lines are none. */
int fkv_prompts_read(struct fkv_prompts *p, const struct fkv_tokenizer *tokenizer, int32_t vocab,
                     const char *path, int64_t most, struct fkv_error *err);
void fkv_prompts_free(struct fkv_prompts *p); /* safe on a zeroed struct and twice */

/* Of every id and text, in order. */
int fkv_prompts_sha256(const struct fkv_prompts *p, fkv_sha256_hex out, struct fkv_error *err);

#endif
