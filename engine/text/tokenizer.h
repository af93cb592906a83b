/* tokenizer.json (Hugging Face `tokenizers`) with a BPE model: its normalizers, pre-tokenizers,
 * post-processors and decoders are run as the file lists them. What is not known (another model,
 * another step, a pattern in another dialect) is refused by name. Or tokenizer.model
 * (sentencepiece) with a BPE model; its unknown and control pieces in a text are recognised, as
 * transformers does, and unlike sentencepiece itself. Or a GGUF file's metadata, of the models gpt2
 * and llama. */
#ifndef FKV_ENGINE_TEXT_TOKENIZER_H
#define FKV_ENGINE_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

struct fkv_tokenizer; /* immutable */
struct fkv_gguf;

/* Whether the model, a folder or a GGUF file, has a tokenizer, of whatever kind. */
bool fkv_tokenizer_exists(const char *model);
/* Of a folder: tokenizer.json, or tokenizer.model where that is missing; tokenizer_config.json
 * decides whether a tokenizer.model adds BOS and EOS (BOS alone where it says nothing). Of a GGUF
 * file: what its metadata say. */
int fkv_tokenizer_open(const char *model, struct fkv_tokenizer **out, struct fkv_error *err);
/* The tokenizer in the metadata of a GGUF file, which may be closed then. */
int fkv_tokenizer_of_gguf(const struct fkv_gguf *g, struct fkv_tokenizer **out,
                          struct fkv_error *err);
/* The bytes of a tokenizer.json. */
int fkv_tokenizer_parse(const char *json, size_t bytes, const char *where,
                        struct fkv_tokenizer **out, struct fkv_error *err);
/* The bytes of a tokenizer.model. */
int fkv_tokenizer_parse_sentencepiece(const void *model, size_t bytes, const char *where,
                                      struct fkv_tokenizer **out, struct fkv_error *err);
void fkv_tokenizer_close(struct fkv_tokenizer *t); /* NULL is fine */

/* UTF-8 text of any length -> ids (malloc'd, the caller frees). Added tokens in the text are
 * recognised. With `special`, what the post-processor adds (BOS) is added. Invalid UTF-8 is an
 * error that names the byte. */
int fkv_tokenizer_encode(const struct fkv_tokenizer *t, const char *text, size_t bytes,
                         bool special, int32_t **ids, size_t *count, struct fkv_error *err);

/* Ids -> bytes (malloc'd, NUL added, the caller frees). Special tokens are left out. An id outside
 * the vocabulary is an error. */
int fkv_tokenizer_decode(const struct fkv_tokenizer *t, const int32_t *ids, size_t count,
                         char **text, size_t *bytes, struct fkv_error *err);

/* The text that follows a prompt's, as ids come one by one: an id costs what its own string is
 * long, and once the buffers have grown to the longest one nothing is allocated. What push and
 * finish give, put together, is the text of prompt and ids less the text of the prompt.
 *
 * push    *text [*bytes], valid until the next call: what no later id can change, whole
 *         characters only
 * finish  the rest; bytes of a character that was never completed come with it. Nothing follows
 *         it. */
struct fkv_tokenizer_stream;
int fkv_tokenizer_stream_open(const struct fkv_tokenizer *t, const int32_t *prompt, size_t count,
                              struct fkv_tokenizer_stream **out, struct fkv_error *err);
int fkv_tokenizer_stream_push(struct fkv_tokenizer_stream *s, int32_t id, const char **text,
                              size_t *bytes, struct fkv_error *err);
int fkv_tokenizer_stream_finish(struct fkv_tokenizer_stream *s, const char **text, size_t *bytes,
                                struct fkv_error *err);
void fkv_tokenizer_stream_close(
    struct fkv_tokenizer_stream *s); /* NULL is fine; t must live until then */

int32_t fkv_tokenizer_bos(const struct fkv_tokenizer *t); /* the id it adds in front, -1 if none */
int32_t fkv_tokenizer_vocabulary(const struct fkv_tokenizer *t); /* largest id + 1 */
/* Of the file, of a GGUF file of its keys tokenizer.ggml.*: 64 hex digits. */
const char *fkv_tokenizer_sha256(const struct fkv_tokenizer *t);
/* What a user should know of it, one line; "" for nothing: where tokenizer_config.json disagrees
 * with it about BOS, where a GGUF file does not name its pre-tokenizer. */
const char *fkv_tokenizer_note(const struct fkv_tokenizer *t);

#endif
