/* Surgery on a cache: an experiment reads the states of some slots, changes them and puts them
 * back, cuts a head short, or moves what follows. Keys go in and out un-rotated, in float32, with
 * the positions they are to stand at, which may be fractions; angles are formed in double.
 * Everything passes through the backend's read and write, so that an experiment is written once.
 *
 * Refused: policies that move slots. A compression un-rotates keys at their slot index, for
 * example, where surgery may have put them at another position. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session/session_internal.h"
#include "engine/session/surgery.h"

/* The head whose slots are meant, or NULL and a message. */
static struct fkv_head *find_head(struct fkv_session *s, const struct fkv_slots *at,
                                  struct fkv_error *err) {
    if (!s->setup.policy->allows_surgery) {
        fkv_fail(err, "surgery: expected policy %s, whose slots nothing else moves, found %s",
                 fkv_full_attention.name, s->setup.policy->name);
        return NULL;
    }
    if (at->layer < 0 || at->layer >= s->setup.layers || at->sequence < 0 ||
        at->sequence >= s->options.sequences || at->kv_head < 0 ||
        at->kv_head >= s->setup.kv_heads) {
        fkv_fail(err, "surgery: no head with layer %d, sequence %d, KV head %d", at->layer,
                 at->sequence, at->kv_head);
        return NULL;
    }
    struct fkv_head *head = session_head(s, at->layer, at->sequence, at->kv_head);
    if (at->first >= 0 && at->count >= 0 && at->count <= head->slots - at->first) return head;
    fkv_fail(err, "surgery: expected slots within the %d in use, found %d from slot %d on",
             head->slots, at->count, at->first);
    return NULL;
}

/* Turns keys [count, head_dim] by sign times the angles of their positions, in offset. */
static void turn_keys(const struct fkv_session *s, const struct fkv_slots *at, double sign,
                      float *keys) {
    const struct fkv_attention_shape *shape = session_attention(s, at->layer);
    size_t half = (size_t)shape->rotary / 2;
    for (int32_t j = 0; j < at->count; j++) {
        float *x = keys + (size_t)j * (size_t)shape->head_dim;
        for (size_t i = 0; i < half; i++) {
            double angle = sign * (at->position + j * at->step) * shape->inv_freq[i];
            double c = cos(angle), sine = sin(angle), a = x[i], b = x[i + half];
            x[i] = (float)(a * c - b * sine);
            x[i + half] = (float)(b * c + a * sine);
        }
    }
}

/* Byte range of the slots in `key` and `value`. */
static void locate(const struct fkv_session *s, const struct fkv_head *head,
                   const struct fkv_slots *at, size_t *offset, size_t *bytes) {
    size_t slot = session_slot_bytes(s);
    *offset = ((size_t)(head - s->heads) * (size_t)s->setup.capacity + (size_t)at->first) * slot;
    *bytes = (size_t)at->count * slot;
}

int fkv_session_read_slots(struct fkv_session *s, const struct fkv_slots *at, float *keys,
                           float *values, struct fkv_error *err) {
    const struct fkv_head *head = find_head(s, at, err);
    if (!head) return FKV_FAILED;
    size_t offset, bytes, count = (size_t)at->count * (size_t)s->model->config.head_dim;
    locate(s, head, at, &offset, &bytes);
    void *stored = malloc(bytes ? bytes : 1);
    if (!stored) return fkv_fail(err, "surgery: out of memory");
    int status = FKV_OK;
    if (keys && !(status = s->ops->read(s->backend, s->key, offset, stored, bytes, err))) {
        fkv_to_f32(stored, s->options.cache_dtype, count, keys);
        turn_keys(s, at, -1, keys);
    }
    if (values && !status &&
        !(status = s->ops->read(s->backend, s->value, offset, stored, bytes, err)))
        fkv_to_f32(stored, s->options.cache_dtype, count, values);
    free(stored);
    return status;
}

int fkv_session_write_slots(struct fkv_session *s, const struct fkv_slots *at, const float *keys,
                            const float *values, struct fkv_error *err) {
    const struct fkv_head *head = find_head(s, at, err);
    if (!head) return FKV_FAILED;
    size_t offset, bytes, count = (size_t)at->count * (size_t)s->model->config.head_dim;
    locate(s, head, at, &offset, &bytes);
    float *turned = malloc((count ? count : 1) * sizeof *turned);
    void *stored = malloc(bytes ? bytes : 1);
    int status = turned && stored ? FKV_OK : fkv_fail(err, "surgery: out of memory");
    if (keys && !status) {
        memcpy(turned, keys, count * sizeof *turned);
        turn_keys(s, at, 1, turned);
        fkv_from_f32(turned, s->options.cache_dtype, count, stored);
        status = s->ops->write(s->backend, s->key, offset, stored, bytes, err);
    }
    if (values && !status) {
        fkv_from_f32(values, s->options.cache_dtype, count, stored);
        status = s->ops->write(s->backend, s->value, offset, stored, bytes, err);
    }
    free(turned);
    free(stored);
    return status;
}

int fkv_session_set_bias(struct fkv_session *s, const struct fkv_slots *at, double bias,
                         struct fkv_error *err) {
    const struct fkv_head *head = find_head(s, at, err);
    if (!head) return FKV_FAILED;
    if (!s->bias) return fkv_fail(err, "surgery: the session was opened without biases");
    size_t index = (size_t)(head - s->heads);
    for (int32_t i = at->first; i < at->first + at->count; i++)
        s->bias[index * (size_t)s->setup.capacity + (size_t)i] = bias;
    s->bias_stale[index] = true;
    return FKV_OK;
}

int fkv_session_cut(struct fkv_session *s, const struct fkv_slots *at, double shift,
                    struct fkv_error *err) {
    struct fkv_head *head = find_head(s, at, err);
    if (!head) return FKV_FAILED;
    if (at->first)
        return fkv_fail(err, "surgery: a head is cut to slots from 0 on, found %d", at->first);
    if (s->bias) {
        size_t index = (size_t)(head - s->heads);
        for (int32_t i = at->count; i < head->slots; i++)
            s->bias[index * (size_t)s->setup.capacity + (size_t)i] = 0;
        s->bias_stale[index] = true;
    }
    head->slots = at->count;
    head->shift = shift;
    return FKV_OK;
}
