/* Generation: prompts continued token by token under a session's policy, several side by side. */
#ifndef FKV_REPLAY_GENERATE_GENERATE_H
#define FKV_REPLAY_GENERATE_GENERATE_H

#include <stdbool.h>

#include "engine/session/session.h"
#include "engine/text/tokenizer.h"
#include "kernels/statistics/random.h"
#include "replay/generate/stops.h"

/* logits [vocab] -> an id. Temperature 0: the first argmax, nothing is drawn. Else one number u in
 * [0, 1) is drawn, and the id is the first whose cumulative softmax(logits / temperature), in
 * float64 and id order, exceeds u. -1 when a logit is NaN or none is finite. */
int32_t fkv_sample(const float *logits, int32_t vocab, double temperature,
                   struct fkv_random *random);

struct fkv_generation {
    const int32_t *prompt; /* [prompt_count], at least one; the caller's */
    int64_t prompt_count;
    int64_t number;                /* of the prompt, for messages */
    int64_t most;                  /* so many ids at most; 0: the options' tokens */
    const struct fkv_stops *stops; /* the caller's; may be NULL */
    int32_t *ids; /* [count] what was generated: neither EOS nor a token that stops, but all ids
                     that a stop string is a part of */
    int64_t count, capacity;
    bool ended;    /* by EOS */
    bool stopped;  /* by what `stops` has */
    bool complete; /* nothing more comes */
};
void fkv_generation_free(struct fkv_generation *g); /* harmless on a zeroed struct */

struct fkv_generation_times {
    double prefill_seconds, decode_seconds; /* wall time, to the end of what was issued; with
                                               sampling, without watching */
};

/* Called after every draw: g has an id more, is complete, or both. Returning FKV_FAILED stops
 * everything with its message. */
typedef int fkv_generation_watcher(void *context, const struct fkv_generation *g,
                                   struct fkv_error *err);

struct fkv_generation_options {
    int64_t tokens;                        /* most per prompt that has none of its own */
    const struct fkv_tokenizer *tokenizer; /* of stop strings; may be NULL where there are none */
    double temperature;
    uint64_t seed;
    int32_t lanes;                 /* prompts side by side: the session's sequences */
    int32_t block;                 /* the session's: most tokens of a feed, at least `lanes` */
    fkv_generation_watcher *watch; /* may be NULL */
    void *context;
};

/* Continues every prompt of generations [count] from an empty cache: feeds it in blocks, then
 * decodes ids until one ends it, each fed back; the last one is not fed. The generator starts at
 * `seed` for every prompt, so that a continuation depends neither on its neighbours nor on how
 * many there are. Adds to `times`. What was generated is the caller's to free, after a failure
 * too. */
int fkv_generate(struct fkv_session *s, struct fkv_generation *generations, int64_t count,
                 const struct fkv_generation_options *options, struct fkv_generation_times *times,
                 struct fkv_error *err);

#endif
