/* The columns of a run file while the run goes on. They are kept in memory and written once,
 * because a run file appears whole or not at all. */
#include "replay/perplexity/recorded.h"

#include <math.h>
#include <stdlib.h>

int64_t fkv_recorded_length(const struct fkv_corpus *corpus, const struct fkv_plan *plan) {
    return plan->protocol->joined ? plan->count * plan->longest : corpus->token_count;
}

int64_t fkv_recorded_index(const struct fkv_plan *plan, int64_t pass, int32_t position) {
    return (plan->protocol->joined ? pass * plan->longest : plan->passes[pass].start) + position;
}

static bool has_evictions(const struct fkv_policy *policy) {
    return policy->counts_evictions || policy->evicts_every_token;
}

static int column_count(const struct fkv_recorded_options *o) {
    return 5 + (has_evictions(o->policy) ? 2 : 0) + (o->baseline ? 3 : 0);
}

int64_t fkv_recorded_bytes(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                           const struct fkv_recorded_options *o) {
    return fkv_recorded_length(corpus, plan) * (column_count(o) + o->dim) * (int64_t)sizeof(float);
}

int fkv_recorded_open(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                      const struct fkv_recorded_options *o, struct fkv_recorded *recorded,
                      struct fkv_error *err) {
    *recorded = (struct fkv_recorded){.count = fkv_recorded_length(corpus, plan), .dim = o->dim};
    const size_t count = (size_t)recorded->count, all = count * (size_t)(column_count(o) + o->dim);
    float *columns = malloc(all * sizeof *columns);
    if (!columns)
        return fkv_fail(err, "out of memory for what %lld tokens leave in the run file",
                        (long long)count);
    for (size_t i = 0; i < all; i++) columns[i] = NAN;
    recorded->nll = columns; /* owns them all */
    const struct {
        float **column;
        bool there;
    } rest[] = {{&recorded->top1, true},
                {&recorded->round, true},
                {&recorded->slots_used, true},
                {&recorded->since, true},
                {&recorded->evictions, has_evictions(o->policy)},
                {&recorded->since_eviction, has_evictions(o->policy)},
                {&recorded->baseline_nll, o->baseline},
                {&recorded->kl, o->baseline},
                {&recorded->agree, o->baseline},
                {&recorded->final_states, o->dim > 0}};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        if (rest[i].there) *rest[i].column = columns += count;
    return FKV_OK;
}

void fkv_recorded_free(struct fkv_recorded *recorded) {
    free(recorded->nll);
    free(recorded->actions);
    *recorded = (struct fkv_recorded){0};
}

int fkv_recorded_add_action(struct fkv_recorded *r, const struct fkv_recorded_action *action,
                            struct fkv_error *err) {
    if (r->action_count == r->action_capacity) {
        int64_t capacity = r->action_capacity ? 2 * r->action_capacity : 1024;
        struct fkv_recorded_action *larger = realloc(r->actions, (size_t)capacity * sizeof *larger);
        if (!larger)
            return fkv_fail(err, "out of memory for %lld actions of the policy",
                            (long long)capacity);
        r->actions = larger;
        r->action_capacity = capacity;
    }
    r->actions[r->action_count++] = *action;
    return FKV_OK;
}

static int by_place(const void *left, const void *right) {
    const struct fkv_recorded_action *a = left, *b = right;
    if (a->pass != b->pass) return a->pass < b->pass ? -1 : 1;
    if (a->token != b->token) return a->token < b->token ? -1 : 1;
    if (a->layer != b->layer) return a->layer < b->layer ? -1 : 1;
    return (a->kv_head > b->kv_head) - (a->kv_head < b->kv_head);
}

void fkv_recorded_sort(struct fkv_recorded *r) {
    if (r->action_count) qsort(r->actions, (size_t)r->action_count, sizeof *r->actions, by_place);
}
