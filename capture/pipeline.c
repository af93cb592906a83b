/* A queue of orders in the order of their handing over, and a ring for their rows; see pipeline.h.
 * Both are first in, first out, so the ring needs no more than a lane to go on at and a count of
 * the bytes in use: an order frees what it took. Rows that do not fit before the ring's end start
 * at its beginning, and the rest counts as theirs.
 *
 * One mutex guards queue, ring and error. It is held for a few instructions at a time, never while
 * something is converted, waited for or written. */
#include "capture/pipeline.h"
#include "capture/store/capture_writer.h"
#include "kernels/base/host.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* The writer is called for TOGETHER orders, for a recording's end, and when the feed waits for it,
 * and rests when there are no more or a recording is whole. Who calls it lends it a processor that
 * computing's next loop leaves free: two threads on one would keep all others waiting at the end of
 * every loop. Called for each order, a 1M model's capture took 4% longer; going on after a
 * recording's end, in the middle of a loop, 1 to 3%. */
enum { ORDERS = 256, TOGETHER = 32, ALIGNMENT = 64 };

enum order_kind { CHECK, BEGIN, ROWS, SUMS, END };

struct order {
    enum order_kind kind;
    enum fkv_state state;
    int32_t lane, layer, rows;
    int64_t t, index;
    size_t at, taken; /* in the ring: where the rows lie, and how much they took */
    uint64_t ticket;
    struct fkv_recording recording;
    struct fkv_spectra_sums sums; /* owned */
    int32_t *tokens;              /* owned; these are the recording's, [n_tokens] */
    uint8_t *classes;
    float *nll;
};

struct lane {
    struct fkv_capture_writer *writer;
    char name[FKV_DOCUMENT_NAME]; /* of the document, for errors */
};

struct fkv_pipeline {
    const struct fkv_capture_info *info;
    const struct fkv_model *model;
    struct lane *lanes; /* [count]; the writer thread's */
    int32_t count;
    uint8_t *ring;
    size_t ring_bytes;
    pthread_t thread;
    bool running;
    uint64_t ticket; /* the last one; the feeding thread's */
    bool fetched;

    pthread_mutex_t mutex;
    pthread_cond_t filled, freed; /* there are orders enough; one was done */
    struct order orders[ORDERS];
    int first, waiting, ends; /* in orders; recordings' ends among them */
    size_t next, used;        /* in the ring */
    int64_t open, committed;  /* recordings handed over and not whole; whole ones */
    bool awake, blocked;      /* the writer has a processor; the feed waits for it */
    bool closing, failed;
    struct fkv_error error;
};

static void free_order(struct order *o) {
    fkv_spectra_sums_free(&o->sums);
    free(o->tokens);
    free(o->classes);
    free(o->nll);
}

/* ---- the writer ---- */

static int carry_out(struct fkv_pipeline *p, const struct order *o, struct fkv_error *err) {
    struct lane *lane = &p->lanes[o->lane];
    struct fkv_capture_writer *w = lane->writer;
    bool failed = false;
    switch (o->kind) {
    case CHECK:
        failed = fkv_capture_check(p->lanes[0].writer, o->index, &o->recording, err);
        return failed ? fkv_error_prefix(err, "%s", o->recording.name) : FKV_OK;
    case BEGIN:
        memcpy(lane->name, o->recording.name, sizeof lane->name);
        failed = fkv_capture_begin(w, o->index, &o->recording, o->tokens, err) ||
                 (o->classes && fkv_capture_write_token_class(w, o->classes, err));
        break;
    case ROWS:
        failed = p->model->ops->fetch_wait(p->model->backend, o->ticket, err) ||
                 fkv_capture_write_rows(w, o->state, o->layer, o->t, o->rows, p->ring + o->at, err);
        break;
    case SUMS: failed = fkv_capture_write_sums(w, o->state, &o->sums, err); break;
    case END: failed = fkv_capture_write_nll(w, o->nll, err) || fkv_capture_commit(w, err); break;
    }
    return failed ? fkv_error_prefix(err, "%s", lane->name) : FKV_OK;
}

/* What follows up to write_orders has the mutex held. */

static void rest_writer(struct fkv_pipeline *p) {
    if (p->awake) fkv_host_lend(-1);
    p->awake = false;
}

static void call_writer(struct fkv_pipeline *p) {
    const bool due = p->waiting > 0 && (p->waiting >= TOGETHER || p->ends > 0 || p->blocked);
    if (p->awake || !due) return;
    p->awake = true;
    fkv_host_lend(1);
    pthread_cond_signal(&p->filled);
}

/* False: there are no more and will be none. */
static bool wait_for_orders(struct fkv_pipeline *p) {
    if (!p->waiting) rest_writer(p);
    call_writer(p);
    while (!p->awake && !p->closing) pthread_cond_wait(&p->filled, &p->mutex);
    return p->waiting > 0;
}

static void *write_orders(void *context) {
    struct fkv_pipeline *p = context;
    pthread_mutex_lock(&p->mutex);
    while (wait_for_orders(p)) {
        struct order *o = &p->orders[p->first]; /* the feed does not touch it while it is waiting */
        struct fkv_error err;
        const bool failed = p->failed;
        if (o->kind == END) { /* mostly waits for the disk */
            p->ends--;
            rest_writer(p);
        }
        pthread_mutex_unlock(&p->mutex);
        int status = failed ? FKV_OK : carry_out(p, o, &err);
        free_order(o);
        pthread_mutex_lock(&p->mutex);
        if (status) {
            p->failed = true;
            p->error = err;
        }
        if (o->kind == END) {
            p->open--;
            p->committed += !p->failed;
        }
        p->used -= o->taken;
        p->first = (p->first + 1) % ORDERS;
        p->waiting--;
        pthread_cond_signal(&p->freed);
    }
    rest_writer(p);
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* ---- handing over ---- */

/* Where `bytes` would stand, and with what is lost at the ring's end in *taken; false: not enough
 * is free now.
 */
static bool find_free_bytes(struct fkv_pipeline *p, size_t bytes, size_t *at, size_t *taken) {
    if (p->used == 0) p->next = 0;
    const size_t rest = p->ring_bytes - p->next;
    *at = bytes <= rest ? p->next : 0;
    *taken = bytes <= rest ? bytes : rest + bytes;
    return *taken <= p->ring_bytes - p->used;
}

/* Waits until the ring has free bytes for an order with `bytes` of rows, and takes it; FKV_FAILED
 * with the writer's error. */
static int take_free_bytes(struct fkv_pipeline *p, bool begins, size_t bytes, struct order *o,
                           struct fkv_error *err) {
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (bytes > p->ring_bytes)
        return fkv_fail(err, "rows of %zu bytes, but room for %zu on their way", bytes,
                        p->ring_bytes);
    pthread_mutex_lock(&p->mutex);
    while (!p->failed && (p->waiting == ORDERS || !find_free_bytes(p, bytes, &o->at, &o->taken) ||
                          (begins && p->open >= 2 * (int64_t)p->count))) {
        p->blocked = true;
        call_writer(p);
        pthread_cond_wait(&p->freed, &p->mutex);
    }
    p->blocked = false;
    const int status = p->failed ? fkv_fail(err, "%s", p->error.message) : FKV_OK;
    if (status == FKV_OK) {
        p->next = o->at + bytes;
        p->used += o->taken;
        p->open += begins;
    }
    pthread_mutex_unlock(&p->mutex);
    return status;
}

static void hand_over(struct fkv_pipeline *p, const struct order *o) {
    pthread_mutex_lock(&p->mutex);
    p->orders[(p->first + p->waiting) % ORDERS] = *o;
    p->waiting++;
    p->ends += o->kind == END;
    call_writer(p);
    pthread_mutex_unlock(&p->mutex);
}

/* An order without rows; takes over what it owns. */
static int post(struct fkv_pipeline *p, struct order *o, struct fkv_error *err) {
    if (take_free_bytes(p, o->kind == BEGIN, 0, o, err)) {
        free_order(o);
        return FKV_FAILED;
    }
    hand_over(p, o);
    return FKV_OK;
}

int fkv_pipeline_check(struct fkv_pipeline *p, int64_t index, const struct fkv_recording *recording,
                       struct fkv_error *err) {
    struct order o = {.kind = CHECK, .index = index, .recording = *recording};
    return post(p, &o, err);
}

int fkv_pipeline_begin(struct fkv_pipeline *p, int32_t lane, int64_t index,
                       const struct fkv_recording *recording, const int32_t *tokens,
                       const uint8_t *classes, struct fkv_error *err) {
    const size_t n = (size_t)recording->n_tokens;
    struct order o = {.kind = BEGIN, .lane = lane, .index = index, .recording = *recording};
    o.tokens = malloc(n * sizeof *tokens);
    o.classes = classes ? malloc(n) : NULL;
    if (!o.tokens || (classes && !o.classes)) {
        free_order(&o);
        return fkv_fail(err, "out of memory");
    }
    memcpy(o.tokens, tokens, n * sizeof *tokens);
    if (classes) memcpy(o.classes, classes, n);
    return post(p, &o, err);
}

int fkv_pipeline_rows(struct fkv_pipeline *p, int32_t lane, const struct fkv_pipeline_rows *r,
                      struct fkv_error *err) {
    struct order o = {.kind = ROWS,
                      .lane = lane,
                      .state = r->state,
                      .layer = r->layer,
                      .t = r->t,
                      .rows = r->rows};
    const size_t bytes = (size_t)r->rows * (size_t)r->width * fkv_dtype_bytes(p->info->dtype);
    if (take_free_bytes(p, false, bytes, &o, err) ||
        p->model->ops->fetch(p->model->backend, r->states, r->offset, r->stride, r->rows, r->width,
                             p->info->dtype, p->ring + o.at, &o.ticket, err))
        return FKV_FAILED;
    p->ticket = o.ticket;
    p->fetched = true;
    hand_over(p, &o);
    return FKV_OK;
}

int fkv_pipeline_sums(struct fkv_pipeline *p, int32_t lane, enum fkv_state state,
                      struct fkv_spectra_sums *sums, struct fkv_error *err) {
    struct order o = {.kind = SUMS, .lane = lane, .state = state, .sums = *sums};
    *sums = (struct fkv_spectra_sums){0};
    return post(p, &o, err);
}

int fkv_pipeline_end(struct fkv_pipeline *p, int32_t lane, int64_t n_tokens, const float *nll,
                     struct fkv_error *err) {
    struct order o = {.kind = END, .lane = lane};
    if (!(o.nll = malloc((size_t)n_tokens * sizeof *nll))) return fkv_fail(err, "out of memory");
    memcpy(o.nll, nll, (size_t)n_tokens * sizeof *nll);
    return post(p, &o, err);
}

/* ---- life ---- */

/* Signals are the feeding thread's. */
static int start(struct fkv_pipeline *p, struct fkv_error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    p->running = pthread_create(&p->thread, NULL, write_orders, p) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return p->running ? FKV_OK : fkv_fail(err, "cannot start a thread for writing");
}

int fkv_pipeline_open(struct fkv_capture_writer *first, const struct fkv_capture_info *info,
                      const struct fkv_model *model, int32_t lanes, size_t ring_bytes,
                      struct fkv_pipeline **out, struct fkv_error *err) {
    struct fkv_pipeline *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return fkv_fail(err, "out of memory");
    *p = (struct fkv_pipeline){.info = info, .model = model, .ring_bytes = ring_bytes};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->filled, NULL);
    pthread_cond_init(&p->freed, NULL);
    void *ring = NULL;
    p->lanes = calloc((size_t)lanes, sizeof *p->lanes);
    int status = p->lanes ? FKV_OK : fkv_fail(err, "out of memory");
    for (; status == FKV_OK && p->count < lanes; p->count++) {
        p->lanes[p->count].writer = first;
        if (p->count) status = fkv_capture_share(first, &p->lanes[p->count].writer, err);
    }
    if (status == FKV_OK && p->ring_bytes)
        status = model->ops->host_create(model->backend, p->ring_bytes, &ring, err);
    p->ring = ring;
    if (status == FKV_OK) status = start(p, err);
    if (status) {
        fkv_pipeline_close(p, NULL, NULL);
        return FKV_FAILED;
    }
    *out = p;
    return FKV_OK;
}

int fkv_pipeline_close(struct fkv_pipeline *p, int64_t *committed, struct fkv_error *err) {
    if (!p) return FKV_OK;
    if (p->running) {
        pthread_mutex_lock(&p->mutex);
        p->closing = true;
        pthread_cond_signal(&p->filled);
        pthread_mutex_unlock(&p->mutex);
        pthread_join(p->thread, NULL);
    }
    /* Rows whose orders were dropped may still be on their way into the ring. */
    if (p->fetched) p->model->ops->fetch_wait(p->model->backend, p->ticket, NULL);
    p->model->ops->host_release(p->model->backend, p->ring);
    for (int32_t i = 1; i < p->count; i++) fkv_capture_abandon(p->lanes[i].writer);
    const int status = p->failed ? fkv_fail(err, "%s", p->error.message) : FKV_OK;
    if (committed) *committed = p->committed;
    pthread_cond_destroy(&p->filled);
    pthread_cond_destroy(&p->freed);
    pthread_mutex_destroy(&p->mutex);
    free(p->lanes);
    free(p);
    return status;
}
