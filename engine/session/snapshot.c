/* Snapshots of a session: the slots in use, the state of every head, what queries choose by, and
 * what slots are selected by. Free slots are not copied. */
#include <stdlib.h>
#include <string.h>

#include "engine/session/session_internal.h"

struct fkv_snapshot {
    struct fkv_session *session;
    struct fkv_buffer *key, *value; /* the heads' used slots, one after the other */
    struct fkv_buffer *paid;        /* as the session's selecting.paid; NULL where it has none */
    char *memory;                   /* as copy_memory has it */
};

/* Copies what lasts from feed to feed in the host's memory to `memory`, one after the other, or
 * back. Returns its bytes; memory NULL: no more than that. */
static size_t copy_memory(struct fkv_session *s, char *memory, bool restore) {
    const size_t heads = (size_t)session_head_count(s);
    const struct {
        void *memory; /* NULL: the session has none */
        size_t bytes;
    } parts[] = {
        {s->heads, heads * sizeof *s->heads},
        {s->bias, heads * (size_t)s->setup.capacity * sizeof *s->bias},
        {s->choosing.kept, s->choosing.kept_floats * sizeof *s->choosing.kept},
        {s->selecting.summed, heads * sizeof *s->selecting.summed},
    };
    size_t at = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].memory) continue;
        if (memory)
            memcpy(restore ? parts[i].memory : memory + at, restore ? memory + at : parts[i].memory,
                   parts[i].bytes);
        at += parts[i].bytes;
    }
    return at;
}

/* Copies every head's used slots between the session's cache and the packed buffers. */
static int copy_slots(struct fkv_session *s, struct fkv_buffer *cache, struct fkv_buffer *packed,
                      bool restore, struct fkv_error *err) {
    size_t slot = session_slot_bytes(s), at = 0;
    for (int32_t i = 0; i < session_head_count(s); i++) {
        size_t bytes = (size_t)s->heads[i].slots * slot,
               offset = (size_t)i * (size_t)s->setup.capacity * slot;
        struct fkv_buffer *to = restore ? cache : packed, *from = restore ? packed : cache;
        if (bytes && s->ops->copy(s->backend, to, restore ? offset : at, from,
                                  restore ? at : offset, bytes, err))
            return FKV_FAILED;
        at += bytes;
    }
    return FKV_OK;
}

/* Bytes of the sums of attention by which slots are selected. */
static size_t paid_bytes(const struct fkv_session *s) {
    if (!s->selecting.paid) return 0;
    return (size_t)session_head_count(s) * (size_t)s->setup.capacity * sizeof(float);
}

/* The heads come first: they say which slots are in use. */
static int copy_all(struct fkv_session *s, const struct fkv_snapshot *snapshot, bool restore,
                    struct fkv_error *err) {
    struct fkv_buffer *paid = s->selecting.paid;
    copy_memory(s, snapshot->memory, restore);
    if (copy_slots(s, s->key, snapshot->key, restore, err) ||
        copy_slots(s, s->value, snapshot->value, restore, err))
        return FKV_FAILED;
    return paid ? s->ops->copy(s->backend, restore ? paid : snapshot->paid, 0,
                               restore ? snapshot->paid : paid, 0, paid_bytes(s), err)
                : FKV_OK;
}

int fkv_session_snapshot(struct fkv_session *s, struct fkv_snapshot **out, struct fkv_error *err) {
    *out = NULL;
    size_t slots = 0;
    for (int32_t i = 0; i < session_head_count(s); i++) slots += (size_t)s->heads[i].slots;
    const size_t bytes = slots ? slots * session_slot_bytes(s) : 1, paid = paid_bytes(s);
    struct fkv_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot) return fkv_fail(err, "snapshot: out of memory");
    snapshot->session = s;
    snapshot->memory = malloc(copy_memory(s, NULL, false));
    int status = snapshot->memory ? FKV_OK : fkv_fail(err, "out of memory");
    if (status || s->ops->buffer_create(s->backend, bytes, &snapshot->key, err) ||
        s->ops->buffer_create(s->backend, bytes, &snapshot->value, err) ||
        (paid && s->ops->buffer_create(s->backend, paid, &snapshot->paid, err)) ||
        copy_all(s, snapshot, false, err)) {
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
    s->last_rows = 0;
    if (s->bias) memset(s->bias_stale, true, (size_t)session_head_count(s) * sizeof(bool));
    return copy_all(s, snapshot, true, err) ? fkv_error_prefix(err, "restore") : FKV_OK;
}

void fkv_snapshot_free(struct fkv_snapshot *snapshot) {
    if (!snapshot) return;
    const struct fkv_session *s = snapshot->session;
    s->ops->buffer_release(s->backend, snapshot->key);
    s->ops->buffer_release(s->backend, snapshot->value);
    s->ops->buffer_release(s->backend, snapshot->paid);
    free(snapshot->memory);
    free(snapshot);
}
