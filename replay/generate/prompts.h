/* What `generate` continues: the one prompt of the command line, or those of a file. */
#ifndef FKV_REPLAY_GENERATE_PROMPTS_H
#define FKV_REPLAY_GENERATE_PROMPTS_H

#include <argp.h>

#include "engine/command_line.h"
#include "engine/text/chat_template.h"
#include "kernels/base/json.h"
#include "replay/generate/stops.h"

struct fkv_prompt {
    json_t *id;      /* as the file has it; NULL without one */
    char *text;      /* as it was encoded: cut, rendered, with the answer's beginning behind it */
    bool chat;       /* the text is a chat template's: it has its own BOS */
    int32_t *tokens; /* [count], at least one */
    size_t count;
    int64_t most;      /* tokens to generate; 0: as for all */
    json_t *stop_list; /* of strings, what `stops` was made of; NULL: none */
    struct fkv_stops stops;
};

struct fkv_prompts {
    struct fkv_prompt *all; /* [count] */
    size_t count, capacity;
    size_t longest; /* in tokens */
};

/* How rows become prompts. */
struct fkv_prompt_reader {
    const struct fkv_tokenizer *tokenizer;
    int32_t vocab;        /* ids are below it */
    const char *model;    /* whose chat template is used */
    bool chat;            /* rows are a user's message where they do not say */
    json_t *chat_options; /* an object: variables of the chat template; or NULL; owned */
    const char *date;     /* the chat template's, "YYYY-MM-DD", or NULL */
    int64_t truncate;     /* tokens of a text before it loses its middle; 0: all stay */
    json_t *stops;        /* a list of strings that stop every prompt; or NULL; owned */
    struct fkv_chat_template *chat_template; /* opened when the first row wants it */
};
void fkv_prompt_reader_close(struct fkv_prompt_reader *r); /* safe on a zeroed struct */
/* --stop, --truncate, --chat, --chat-set, --date; its input is the reader. */
extern const struct argp fkv_prompts_argp;

/* Adds a row; `where` names it in messages. Its fields:
 *   prompt         a text, or
 *   messages       [{"role", "content"}, ...], which are always rendered
 *   chat           whether the text is a user's message: true or false
 *   answer_prefix  a text behind the prompt, after rendering
 *   stop           a string or a list of strings, besides the reader's
 *   max_tokens     tokens to generate
 *   id             anything */
int fkv_prompts_add(struct fkv_prompts *p, struct fkv_prompt_reader *reader, const json_t *row,
                    const char *where, struct fkv_error *err);
/* Adds each line of a file, up to `most` prompts in all (0: all); blank lines are none. */
int fkv_prompts_read(struct fkv_prompts *p, struct fkv_prompt_reader *reader, const char *path,
                     int64_t most, struct fkv_error *err);
void fkv_prompts_free(struct fkv_prompts *p); /* safe on a zeroed struct and twice */

/* Tokens to generate behind a prompt; `tokens` are for all. */
int64_t fkv_prompt_most(const struct fkv_prompt *prompt, int64_t tokens);
/* The most tokens that a prompt and its continuation have together. */
int64_t fkv_prompts_reach(const struct fkv_prompts *p, int64_t tokens);

/* Of every id, text and what ends it, in order. */
int fkv_prompts_sha256(const struct fkv_prompts *p, fkv_sha256_hex out, struct fkv_error *err);

#endif
