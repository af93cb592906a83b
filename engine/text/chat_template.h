/* A model's chat template: from a folder's chat_template.jinja, else from the field chat_template
 * of its tokenizer_config.json (a text, or named ones, of which "default" is taken); from a GGUF
 * file's key tokenizer.chat_template. It sees what transformers gives it: messages,
 * add_generation_prompt (true), tools and documents (none), and the special tokens that are set as
 * bos_token, eos_token, unk_token, pad_token. */
#ifndef FKV_ENGINE_TEXT_CHAT_TEMPLATE_H
#define FKV_ENGINE_TEXT_CHAT_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>

#include "kernels/base/error.h"

struct fkv_chat_template; /* immutable */

/* A model without one, or with one that is outside of what engine/text/template reads, is
 * refused. */
int fkv_chat_template_open(const char *model, struct fkv_chat_template **out,
                           struct fkv_error *err);
void fkv_chat_template_close(struct fkv_chat_template *c); /* NULL is fine */

/* `messages`: a list of {"role": TEXT, "content": ...}. `more`, an object or NULL: variables that
 * are set besides, and in place of those above. `date`: of strftime_now, "YYYY-MM-DD" or NULL.
 * *text [*bytes] is malloc'd, the caller's, with a NUL behind it. */
int fkv_chat_template_render(const struct fkv_chat_template *c, const json_t *messages,
                             const json_t *more, const char *date, char **text, size_t *bytes,
                             struct fkv_error *err);

#endif
