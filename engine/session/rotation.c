/* The rotations of a session: by which frequencies each layer turns its queries and keys.
 *
 * Where they depend on the length (rope.h) they are chosen here, once, by the positions that the
 * session can reach: a policy with a window keeps them, or their differences, below it; the others
 * reach as many as the session takes tokens. */
#include "engine/session/session_internal.h"

int64_t fkv_session_reach(const struct fkv_policy_setup *setup, int64_t max_tokens) {
    return setup->policy->takes_window && setup->window < max_tokens ? setup->window : max_tokens;
}

void session_choose_rotations(struct fkv_session *s) {
    const struct fkv_config *c = &s->model->config;
    struct fkv_attention_shape *none = &s->attention[FKV_MOST_ROTATIONS];
    if (!s->options.positions)
        s->options.positions = fkv_session_reach(&s->setup, s->options.max_tokens);
    for (int32_t r = 0; r < c->rotation_count; r++) {
        fkv_rope_frequencies(&c->rotations[r], s->options.positions, s->inv_freq[r]);
        s->attention[r] = s->model->attention;
        s->attention[r].inv_freq = s->inv_freq[r];
        s->attention[r].rotary = c->rotations[r].channels;
        s->attention[r].gain = (float)c->rotations[r].attention_factor;
    }
    *none = s->model->attention;
    none->inv_freq = NULL;
    none->rotary = 0;
    none->gain = 1;
}

int32_t session_rotation(const struct fkv_session *s, int32_t layer) {
    const int32_t rotation = s->model->config.layer[layer].rotation;
    return rotation == FKV_NO_ROTATION ? FKV_MOST_ROTATIONS : rotation;
}

const struct fkv_attention_shape *session_attention(const struct fkv_session *s, int32_t layer) {
    return &s->attention[session_rotation(s, layer)];
}

int64_t fkv_session_rotation_positions(const struct fkv_session *s) {
    return fkv_config_rotates_by_length(&s->model->config) ? s->options.positions : 0;
}
