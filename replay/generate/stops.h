/* What ends a continuation besides EOS and its length: strings in its text, which may span tokens,
 * and special tokens, which text does not show. */
#ifndef FKV_REPLAY_GENERATE_STOPS_H
#define FKV_REPLAY_GENERATE_STOPS_H

#include <stdbool.h>

#include "engine/text/tokenizer.h"

struct fkv_stops {
    char **strings; /* [count] */
    size_t count;
    int32_t *ids; /* [id_count] */
    size_t id_count;
};

/* Adds a text that is not empty: where it is the spelling of one special token, its id, else the
 * string. */
int fkv_stops_add(struct fkv_stops *s, const struct fkv_tokenizer *tokenizer, const char *text,
                  struct fkv_error *err);
bool fkv_stops_has_id(const struct fkv_stops *s, int32_t id);
void fkv_stops_free(struct fkv_stops *s); /* safe on a zeroed struct and twice */

/* The text of a continuation as its ids come, up to the first stop string. */
struct fkv_stopped_text {
    const struct fkv_stops *stops;
    struct fkv_tokenizer_stream *stream;
    char *text; /* [bytes] */
    size_t bytes, capacity;
    size_t settled; /* of bytes: those before any stop string that may yet be completed */
    bool stopped;   /* a stop string followed: nothing more comes */
};
/* `prompt` [count] and `stops` are the caller's, who closes it, after a failure too. */
int fkv_stopped_text_open(struct fkv_stopped_text *t, const struct fkv_tokenizer *tokenizer,
                          const int32_t *prompt, size_t count, const struct fkv_stops *stops,
                          struct fkv_error *err);
int fkv_stopped_text_push(struct fkv_stopped_text *t, int32_t id, struct fkv_error *err);
/* No id follows. A last character that is not complete is left out. */
int fkv_stopped_text_finish(struct fkv_stopped_text *t, struct fkv_error *err);
void fkv_stopped_text_close(struct fkv_stopped_text *t); /* safe on a zeroed struct and twice */

#endif
