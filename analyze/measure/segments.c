/* Owns the cut of a capture into segments (segments.h). Recordings are sorted by document so that
 * the averages of measure/averages.c can finish one document before the next begins; documents keep
 * the order in which they first occur, recordings that of their offsets. */
#include "analyze/measure/segments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    const struct fkv_recording *recording;
    int32_t index, first; /* first: the lowest index of a recording of the same document */
};

static int by_identity(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    int order = strcmp(x->recording->text_sha256, y->recording->text_sha256);
    if (!order) order = strcmp(x->recording->name, y->recording->name);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static int by_document_and_offset(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    if (x->recording->offset != y->recording->offset)
        return x->recording->offset < y->recording->offset ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* A recording without a name is a document of its own. */
static int same_document(const struct fkv_recording *a, const struct fkv_recording *b) {
    return a->name[0] && !strcmp(a->name, b->name) && !strcmp(a->text_sha256, b->text_sha256);
}

static int64_t segments_in(const struct fkv_recording *r, const struct fkv_segment_plan *plan) {
    return r->n_tokens > plan->skip_sinks ? (r->n_tokens - plan->skip_sinks) / plan->n : 0;
}

static int refuse_empty(const struct fkv_recording *const *recordings, int32_t count,
                        const struct fkv_segment_plan *plan, struct fkv_error *err) {
    if (!count) return fkv_fail(err, "the capture holds no recording");
    const struct fkv_recording *longest = recordings[0];
    for (int32_t i = 1; i < count; i++)
        if (recordings[i]->n_tokens > longest->n_tokens) longest = recordings[i];
    const int64_t usable = longest->n_tokens - plan->skip_sinks;
    char advice[64] = "";
    if (usable > 0)
        snprintf(advice, sizeof advice, "; --length %lld or less would fit", (long long)usable);
    return fkv_fail(err,
                    "no segment of %d tokens after the first %d: the longest recording, \"%s\", "
                    "has %lld tokens%s",
                    plan->n, plan->skip_sinks, longest->name, (long long)longest->n_tokens, advice);
}

static void lay_out(struct fkv_segment_plan *plan, const struct entry *entries, int32_t count) {
    for (int32_t i = 0; i < count;) {
        int32_t end = i, start = plan->recordings;
        int64_t in_document = 0;
        for (; end < count && entries[end].first == entries[i].first; end++) {
            const struct fkv_recording *r = entries[end].recording;
            int64_t segments = segments_in(r, plan);
            if (r->n_tokens > plan->skip_sinks)
                plan->tokens_left_out += r->n_tokens - plan->skip_sinks - segments * plan->n;
            if (!segments) continue;
            plan->recording[plan->recordings++] = (struct fkv_planned_recording){
                entries[end].index, plan->documents, plan->segments, segments, 0};
            in_document += segments;
            plan->segments += segments;
        }
        for (int32_t k = start; k < plan->recordings; k++)
            plan->recording[k].share = 1.0 / (double)in_document;
        if (in_document) plan->documents++;
        i = end;
    }
}

int fkv_segment_plan_make(const struct fkv_recording *const *recordings, int32_t count, int32_t n,
                          int32_t skip_sinks, struct fkv_segment_plan *plan,
                          struct fkv_error *err) {
    *plan = (struct fkv_segment_plan){.n = n, .skip_sinks = skip_sinks};
    struct entry *entries = malloc((size_t)(count + 1) * sizeof *entries);
    plan->recording = malloc((size_t)(count + 1) * sizeof *plan->recording);
    if (!entries || !plan->recording) {
        free(entries);
        fkv_segment_plan_free(plan);
        return fkv_fail(err, "out of memory for %d recordings", count);
    }
    for (int32_t i = 0; i < count; i++) entries[i] = (struct entry){recordings[i], i, i};
    qsort(entries, (size_t)count, sizeof *entries, by_identity);
    for (int32_t i = 1; i < count; i++)
        if (same_document(entries[i - 1].recording, entries[i].recording))
            entries[i].first = entries[i - 1].first;
    qsort(entries, (size_t)count, sizeof *entries, by_document_and_offset);
    lay_out(plan, entries, count);
    free(entries);
    if (plan->segments) return FKV_OK;
    refuse_empty(recordings, count, plan, err);
    fkv_segment_plan_free(plan);
    return FKV_FAILED;
}

void fkv_segment_plan_free(struct fkv_segment_plan *plan) {
    free(plan->recording);
    memset(plan, 0, sizeof *plan);
}
