/* Generation: one prompt continued token by token under a session's policy. */
#ifndef FKV_REPLAY_GENERATE_H
#define FKV_REPLAY_GENERATE_H

#include <stdbool.h>

#include "engine/session.h"
#include "engine/tokenizer.h"
#include "replay/random.h"

/* logits [vocab] -> an id. Temperature 0: the first argmax, nothing is drawn. Else one number u in [0, 1) is drawn, and the id is the first whose
 * cumulative softmax(logits / temperature), in float64 and id order, exceeds u. -1 when a logit is NaN or none is finite. */
int32_t fkv_sample(const float *logits, int32_t vocab, double temperature, struct fkv_random *random);

struct fkv_generation {
    int32_t *ids; /* [count] what was generated, EOS not included */
    int64_t count, room;
    bool ended; /* by EOS */
    double prefill_seconds, decode_seconds;
};
void fkv_generation_free(struct fkv_generation *g); /* harmless on a zeroed struct */

/* Called after every generated token. Returning FKV_FAILED stops the generation with its message. */
typedef int fkv_generation_watcher(void *context, const struct fkv_generation *g, struct fkv_error *err);

/* From an empty cache: feeds prompt [count] in blocks, then decodes up to `tokens` ids, each fed back alone; the last one is not fed. The generator starts at
 * `seed` for every prompt, so that a prompt's continuation does not depend on its neighbours. `watch` may be NULL. */
int fkv_generate(struct fkv_session *s, const int32_t *prompt, int64_t count, int64_t tokens, double temperature,
                 uint64_t seed, fkv_generation_watcher *watch, void *context, struct fkv_generation *g,
                 struct fkv_error *err);

#endif
