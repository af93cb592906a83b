/* Snapshots of a session: the slots in use, the state of every head, what queries choose by, and
 * what slots are selected by. Free slots are not copied. */
#include <stdlib.h>
#include <string.h>

#include "engine/session/session_internal.h"

struct fkv_snapshot {
    struct fkv_session *session;
    struct fkv_buffer *key, *value; /* the heads' used slots, one after the other */
    struct fkv_head *heads;         /* [layers, sequences, kv_heads] */
    double *bias;    /* [layers, sequences, kv_heads, capacity]; NULL where the session has none */
    float *choosing; /* [choosing.kept_floats]; NULL where queries do not choose */
    struct fkv_buffer *paid; /* as the session's selecting.paid; NULL where it has none */
    int32_t *summed;         /* [layers, sequences, kv_heads]; NULL likewise */
};

/* Copies every head's used slots (as `heads` says) between the session's cache and the packed
 * buffers. */
static int copy_slots(struct fkv_session *s, const struct fkv_head *heads, struct fkv_buffer *cache,
                      struct fkv_buffer *packed, bool restore, struct fkv_error *err) {
    size_t slot = session_slot_bytes(s), at = 0;
    for (int32_t i = 0; i < session_head_count(s); i++) {
        size_t bytes = (size_t)heads[i].slots * slot,
               offset = (size_t)i * (size_t)s->setup.capacity * slot;
        struct fkv_buffer *to = restore ? cache : packed, *from = restore ? packed : cache;
        if (bytes && s->ops->copy(s->backend, to, restore ? offset : at, from,
                                  restore ? at : offset, bytes, err))
            return FKV_FAILED;
        at += bytes;
    }
    return FKV_OK;
}

/* The sums of attention by which slots are selected. */
static size_t paid_bytes(const struct fkv_session *s) {
    if (!s->selecting.paid) return 0;
    return (size_t)session_head_count(s) * (size_t)s->setup.capacity * sizeof(float);
}

static int copy_sums(struct fkv_session *s, const struct fkv_snapshot *snapshot, bool restore,
                     struct fkv_error *err) {
    const size_t bytes = paid_bytes(s), count = (size_t)session_head_count(s);
    struct fkv_buffer *to = restore ? s->selecting.paid : snapshot->paid,
                      *from = restore ? snapshot->paid : s->selecting.paid;
    if (!bytes) return FKV_OK;
    memcpy(restore ? s->selecting.summed : snapshot->summed,
           restore ? snapshot->summed : s->selecting.summed, count * sizeof *snapshot->summed);
    return s->ops->copy(s->backend, to, 0, from, 0, bytes, err);
}

static int create_sums(struct fkv_session *s, struct fkv_snapshot *snapshot,
                       struct fkv_error *err) {
    const size_t bytes = paid_bytes(s);
    if (!bytes) return FKV_OK;
    snapshot->summed = malloc((size_t)session_head_count(s) * sizeof *snapshot->summed);
    if (!snapshot->summed) return fkv_fail(err, "out of memory");
    return s->ops->buffer_create(s->backend, bytes, &snapshot->paid, err);
}

int fkv_session_snapshot(struct fkv_session *s, struct fkv_snapshot **out, struct fkv_error *err) {
    *out = NULL;
    size_t slots = 0, heads = (size_t)session_head_count(s);
    for (size_t i = 0; i < heads; i++) slots += (size_t)s->heads[i].slots;
    size_t bytes = slots * session_slot_bytes(s);
    struct fkv_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot) return fkv_fail(err, "snapshot: out of memory");
    snapshot->session = s;
    size_t bias_bytes = heads * (size_t)s->setup.capacity * sizeof *s->bias;
    if (s->bias && (snapshot->bias = malloc(bias_bytes)))
        memcpy(snapshot->bias, s->bias, bias_bytes);
    const size_t choosing_bytes = s->choosing.kept_floats * sizeof(float);
    if (choosing_bytes && (snapshot->choosing = malloc(choosing_bytes)))
        memcpy(snapshot->choosing, s->choosing.kept, choosing_bytes);
    if (!(snapshot->heads = malloc(heads * sizeof *snapshot->heads)) ||
        (s->bias && !snapshot->bias) || (choosing_bytes && !snapshot->choosing)) {
        fkv_snapshot_free(snapshot);
        return fkv_fail(err, "snapshot: out of memory");
    }
    memcpy(snapshot->heads, s->heads, heads * sizeof *s->heads);
    if (s->ops->buffer_create(s->backend, bytes ? bytes : 1, &snapshot->key, err) ||
        s->ops->buffer_create(s->backend, bytes ? bytes : 1, &snapshot->value, err) ||
        copy_slots(s, s->heads, s->key, snapshot->key, false, err) ||
        copy_slots(s, s->heads, s->value, snapshot->value, false, err) ||
        create_sums(s, snapshot, err) || copy_sums(s, snapshot, false, err)) {
        fkv_snapshot_free(snapshot);
        return fkv_error_prefix(err, "snapshot");
    }
    *out = snapshot;
    return FKV_OK;
}

int fkv_session_restore(struct fkv_session *s, const struct fkv_snapshot *snapshot,
                        struct fkv_error *err) {
    if (snapshot->session != s)
        return fkv_fail(err, "restore: the snapshot was taken of another session");
    memcpy(s->heads, snapshot->heads, (size_t)session_head_count(s) * sizeof *s->heads);
    s->last_rows = 0;
    if (snapshot->choosing)
        memcpy(s->choosing.kept, snapshot->choosing, s->choosing.kept_floats * sizeof(float));
    if (s->bias) {
        size_t heads = (size_t)session_head_count(s);
        memcpy(s->bias, snapshot->bias, heads * (size_t)s->setup.capacity * sizeof *s->bias);
        memset(s->bias_stale, true, heads * sizeof *s->bias_stale);
    }
    if (copy_slots(s, s->heads, s->key, snapshot->key, true, err) ||
        copy_slots(s, s->heads, s->value, snapshot->value, true, err) ||
        copy_sums(s, snapshot, true, err))
        return fkv_error_prefix(err, "restore");
    return FKV_OK;
}

void fkv_snapshot_free(struct fkv_snapshot *snapshot) {
    if (!snapshot) return;
    const struct fkv_session *s = snapshot->session;
    s->ops->buffer_release(s->backend, snapshot->key);
    s->ops->buffer_release(s->backend, snapshot->value);
    free(snapshot->heads);
    free(snapshot->bias);
    free(snapshot->choosing);
    s->ops->buffer_release(s->backend, snapshot->paid);
    free(snapshot->summed);
    free(snapshot);
}
