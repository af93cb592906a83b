/* Feeds prompts and scores what follows. The answer is fed as it should be, which gives its
 * probability; as long as each of its tokens is also the most likely one, that is greedy decoding
 * as well. Where one is not, decoding goes its own way from a snapshot of the prompt. */
#include "replay/tasks/needle_score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/bytes.h"
#include "kernels/base/json.h"

void fkv_needle_result_free(struct fkv_needle_result *r) {
    free(r->found);
    *r = (struct fkv_needle_result){0};
}

double fkv_needle_round(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.9g", value);
    return strtod(text, NULL);
}

/* Targets [first, first + count) of tokens to be scored; target t is predicted by token t - 1. */
struct targets {
    int64_t first, count;
    double *nll;   /* [count] */
    int32_t *top1; /* [count]; may be NULL */
};

/* Feeds tokens [from, to) in blocks, and scores those of `targets` [target_count] that they
 * predict. */
static int feed(struct fkv_session *s, const int32_t *tokens, int64_t from, int64_t to,
                const struct targets *targets, int target_count, struct fkv_error *err) {
    const int32_t block = fkv_session_block(s);
    for (int64_t at = from, rows; at < to; at += rows) {
        rows = to - at < block ? to - at : block;
        if (fkv_session_feed(s, tokens + at, (int32_t)rows, err)) return FKV_FAILED;
        for (int i = 0; i < target_count; i++) {
            const struct targets *t = &targets[i];
            const int64_t low = t->first > at + 1 ? t->first : at + 1,
                          end = t->first + t->count < at + rows + 1 ? t->first + t->count
                                                                    : at + rows + 1;
            if (low < end && fkv_session_score(s, (int32_t)(low - 1 - at), (int32_t)(end - low),
                                               tokens + low, t->nll + (low - t->first),
                                               t->top1 ? t->top1 + (low - t->first) : NULL, err))
                return FKV_FAILED;
        }
    }
    return FKV_OK;
}

static int sum_finite(const double *nll, int64_t count, double *sum, struct fkv_error *err) {
    *sum = 0;
    for (int64_t i = 0; i < count; i++) *sum += nll[i];
    return isfinite(*sum) ? FKV_OK : fkv_fail(err, "logits are not finite");
}

/* ---- recall ---- */

static int score_recall(struct fkv_session *s, const struct fkv_needle_cell *cell,
                        const int32_t *tokens, struct fkv_needle_result *out,
                        struct fkv_error *err) {
    const int64_t count = cell->answer - 1;
    double *nll = malloc(2 * (size_t)count * sizeof *nll), first = 0, second = 0;
    if (!nll) return fkv_fail(err, "out of memory for a passage");
    const struct targets targets[] = {
        {.first = cell->position + 1, .count = count, .nll = nll},
        {.first = cell->length - count, .count = count, .nll = nll + count}};
    int status = feed(s, tokens, 0, cell->length - 1, targets, 2, err);
    if (!status) status = sum_finite(nll, count, &first, err);
    if (!status) status = sum_finite(nll + count, count, &second, err);
    out->first = fkv_needle_round(first / (double)count);
    out->second = fkv_needle_round(second / (double)count);
    free(nll);
    return status;
}

/* ---- needle ---- */

/* Decodes after the prompt, which `prompt` holds; found[0] is there. */
static int decode(struct fkv_session *s, const struct fkv_snapshot *prompt, int32_t *found,
                  int32_t count, struct fkv_error *err) {
    if (fkv_session_restore(s, prompt, err)) return FKV_FAILED;
    for (int32_t i = 1; i < count; i++) {
        double nll;
        if (fkv_session_feed(s, &found[i - 1], 1, err) ||
            fkv_session_score(s, 0, 1, &found[i - 1], &nll, &found[i], err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* The text that `ids` [count] add to the prompt, without a last character that is not complete;
 * control characters become spaces, so that it stands on one line; where it is no UTF-8, bytes
 * beyond ASCII become question marks. malloc'd. */
static int text_of(const struct fkv_needle_task *task, const struct fkv_needle_cell *cell,
                   const int32_t *prompt, const int32_t *ids, int32_t count, char **out,
                   struct fkv_error *err) {
    struct fkv_tokenizer_stream *stream;
    const char *text = "";
    size_t bytes = 0;
    char *memory = NULL;
    FILE *f = open_memstream(&memory, &bytes);
    if (!f) return fkv_fail(err, "out of memory for an answer");
    int status =
        fkv_tokenizer_stream_open(task->tokenizer, prompt, (size_t)cell->length, &stream, err);
    if (!status) {
        size_t piece;
        for (int32_t i = 0; i < count && !status; i++) {
            status = fkv_tokenizer_stream_push(stream, ids[i], &text, &piece, err);
            if (!status) fwrite(text, 1, piece, f);
        }
        if (!status) status = fkv_tokenizer_stream_finish(stream, &text, &piece, err);
        if (!status) fwrite(text, 1, fkv_utf8_complete(text, piece), f);
        fkv_tokenizer_stream_close(stream);
    }
    if (fclose(f) && !status) status = fkv_fail(err, "out of memory for an answer");
    if (status) {
        free(memory);
        return FKV_FAILED;
    }
    json_t *valid = json_stringn(memory, bytes);
    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char)memory[i] < ' ' || memory[i] == 127) memory[i] = ' ';
        if (!valid && (unsigned char)memory[i] > 127) memory[i] = '?';
    }
    json_decref(valid);
    *out = memory;
    return FKV_OK;
}

/* nll, found [cell->answer]: of the answer fed as it should be, and what greedy decoding gives. */
static int answer(struct fkv_session *s, const struct fkv_needle_cell *cell, const int32_t *tokens,
                  double *nll, int32_t *found, struct fkv_error *err) {
    const int32_t count = cell->answer;
    const int64_t length = cell->length;
    const int32_t *right = tokens + length;
    const struct targets targets = {.first = length, .count = count, .nll = nll, .top1 = found};
    struct fkv_snapshot *prompt = NULL;
    int status = feed(s, tokens, 0, length, &targets, 1, err);
    if (!status && count > 1) status = fkv_session_snapshot(s, &prompt, err);
    if (!status) status = feed(s, tokens, length, length + count - 1, &targets, 1, err);
    int32_t same = 0;
    while (!status && same < count && found[same] == right[same]) same++;
    if (!status && same < count - 1) status = decode(s, prompt, found, count, err);
    fkv_snapshot_free(prompt);
    return status;
}

static int score_needle(struct fkv_session *s, const struct fkv_needle_task *task,
                        const struct fkv_needle_cell *cell, const int32_t *tokens,
                        struct fkv_needle_result *out, struct fkv_error *err) {
    const int32_t count = cell->answer;
    double *nll = malloc((size_t)count * sizeof *nll), sum;
    int32_t *found = malloc((size_t)count * sizeof *found);
    int status = nll && found ? answer(s, cell, tokens, nll, found, err)
                              : fkv_fail(err, "out of memory for an answer");
    if (!status) status = sum_finite(nll, count, &sum, err);
    if (!status) status = text_of(task, cell, tokens, found, count, &out->found, err);
    if (!status) {
        out->exact = !memcmp(found, tokens + cell->length, (size_t)count * sizeof *found);
        out->logprob = fkv_needle_round(-sum);
    }
    free(nll);
    free(found);
    return status;
}

int fkv_needle_score(struct fkv_session *s, const struct fkv_needle_task *task,
                     const struct fkv_needle_cell *cell, const int32_t *tokens,
                     struct fkv_needle_result *out, struct fkv_error *err) {
    *out = (struct fkv_needle_result){0};
    fkv_session_reset(s, 0);
    /* Where a passage returns, the prompt is what comes before it. */
    const int64_t prompt = cell->length - (task->kind == FKV_RECALL ? cell->answer : 0);
    const int32_t whole = prompt <= INT32_MAX ? (int32_t)prompt : 0;
    if (task->block)
        fkv_session_set_prefill(s, 0, task->block, cell->length);
    else
        fkv_session_set_prefill(s, 0, whole, prompt);
    return task->kind == FKV_RECALL ? score_recall(s, cell, tokens, out, err)
                                    : score_needle(s, task, cell, tokens, out, err);
}
