/* Carries a change out on the cache of a session that holds the prefix. */
#ifndef FKV_REPLAY_PROBE_EDIT_H
#define FKV_REPLAY_PROBE_EDIT_H

#include "engine/session/session.h"
#include "capture/store/probe.h"

struct fkv_editor;

/* Changes slots sinks .. prefix - 1 of sequence 0 of sessions of this model. The caller closes it.
 */
int fkv_editor_open(const struct fkv_model *model, int32_t prefix, int32_t sinks, int64_t seed,
                    struct fkv_editor **out, struct fkv_error *err);
/* NULL is fine. */
void fkv_editor_close(struct fkv_editor *editor);

/* Makes `change` to the cache of `session`, which holds the prefix, untouched, and was opened with
 * biases. Noise depends on seed, `window`, layer, KV head, state and band only, so the order of
 * changes does not matter. lost [2], keys and values: sums of squares taken out or put in, over the
 * energy without DC, of all heads touched together; of slots that are dropped, what they hold
 * beyond the mean of all. */
int fkv_editor_apply(struct fkv_editor *editor, struct fkv_session *session,
                     const struct fkv_probe_change *change, int64_t window, double lost[2],
                     struct fkv_error *err);

#endif
