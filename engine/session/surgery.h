/* Surgery: experiments change the cache of a policy that allows it (full attention), whose slots
 * nothing else moves. Snapshots undo it. */
#ifndef FKV_ENGINE_SESSION_SURGERY_H
#define FKV_ENGINE_SESSION_SURGERY_H

#include "engine/session/session.h"

/* Slots [first, first+count) of one head; the key of slot first + j stands at position + j * step.
 */
struct fkv_slots {
    int32_t layer;
    int32_t sequence;
    int32_t kv_head;
    int32_t first;
    int32_t count;
    double position;
    double step;
};
/* The states of the slots -> keys, values [count, head_dim] float32, keys un-rotated; either may be
 * NULL. */
int fkv_session_read_slots(struct fkv_session *s, const struct fkv_slots *at, float *keys,
                           float *values, struct fkv_error *err);
/* The same, rotated to their positions, into slots that are in use. */
int fkv_session_write_slots(struct fkv_session *s, const struct fkv_slots *at, const float *keys,
                            const float *values, struct fkv_error *err);
/* What attention adds to the scores of these slots; 0 for tokens as they come. The session must
 * have been opened with `biases`. */
int fkv_session_set_bias(struct fkv_session *s, const struct fkv_slots *at, double bias,
                         struct fkv_error *err);
/* The head keeps slots [0, at->count); tokens that follow stand at their slot index plus `shift`.
 */
int fkv_session_cut(struct fkv_session *s, const struct fkv_slots *at, double shift,
                    struct fkv_error *err);

#endif
