/* Builds prompts. A length that the texts do not fill is refused rather than filled by repeating
 * them: a text that returns is a task of its own here.
 *
 * Key and offset come from one generator per repeat, started at mix(seed * 2^32 + repeat): first
 * the digits (the first of them is not 0), then a number in [0, 1) that picks one of the sentences
 * from which the texts are long enough. */
#include "replay/tasks/needle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/statistics/random.h"

const char *const fkv_needle_kinds[] = {"needle", "recall", NULL};

/* ---- where sentences end ---- */

/* What the text so far ends with. */
enum ending { ENDS_OTHERWISE, ENDS_SENTENCE };

static size_t ends_with_one_of(const char *text, size_t bytes, const char *const *endings) {
    for (int i = 0; endings[i]; i++) {
        const size_t n = strlen(endings[i]);
        if (n <= bytes && !memcmp(text + bytes - n, endings[i], n)) return n;
    }
    return 0;
}

/* Looks at a token's text; quotes and brackets that close after a full stop belong to it, in the
 * same token or in one of their own. */
static enum ending ending_after(enum ending before, const char *text, size_t bytes) {
    static const char *const stops[] = {".", "!", "?", "\u3002", "\uff01", "\uff1f", NULL};
    static const char *const closing[] = {"\"", "'", ")", "]", "\u201d", "\u2019", "\u300d", NULL};
    size_t n;
    while ((n = ends_with_one_of(text, bytes, closing))) bytes -= n;
    if (!bytes) return before;
    return ends_with_one_of(text, bytes, stops) ? ENDS_SENTENCE : ENDS_OTHERWISE;
}

static bool starts_with_space(const char *text, size_t bytes) {
    return bytes && strchr(" \n\r\t", text[0]);
}

/* Adds the ends of sentences of one document: before a token that starts with white space, where
 * the text before it ends with a stop. Returns how many it found, or -1 and a message. */
static int64_t add_ends(struct fkv_haystack *h, const struct fkv_corpus_document *document,
                        const struct fkv_tokenizer *tokenizer, struct fkv_error *err) {
    struct fkv_tokenizer_stream *stream;
    const int64_t first = document->offset, before = h->end_count;
    const char *text;
    size_t bytes;
    enum ending ending = ENDS_OTHERWISE;
    h->ends[h->end_count++] = first;
    if (fkv_tokenizer_stream_open(tokenizer, h->tokens + first, 1, &stream, err)) return -1;
    int status = FKV_OK;
    for (int64_t t = first + 1; t < first + document->count && !status; t++) {
        status = fkv_tokenizer_stream_push(stream, h->tokens[t], &text, &bytes, err);
        if (status || !bytes) continue; /* its text comes with a later token's */
        if (ending == ENDS_SENTENCE && starts_with_space(text, bytes)) h->ends[h->end_count++] = t;
        ending = ending_after(ending, text, bytes);
    }
    fkv_tokenizer_stream_close(stream);
    return status ? -1 : h->end_count - before - 1;
}

int fkv_haystack_open(const struct fkv_corpus *corpus, const struct fkv_tokenizer *tokenizer,
                      struct fkv_haystack *out, struct fkv_error *err) {
    *out = (struct fkv_haystack){.tokens = corpus->tokens, .count = corpus->token_count};
    out->ends = malloc((size_t)corpus->token_count * sizeof *out->ends);
    if (!out->ends) return fkv_fail(err, "out of memory for sentences");
    int64_t found = 0;
    for (int64_t d = 0; d < corpus->document_count; d++) {
        const int64_t more = add_ends(out, &corpus->documents[d], tokenizer, err);
        if (more < 0) {
            fkv_haystack_close(out);
            return fkv_error_prefix(err, "%s", corpus->documents[d].name);
        }
        found += more;
    }
    if (found) return FKV_OK;
    fkv_haystack_close(out);
    return fkv_fail(err, "%s: expected sentences that end with . ! or ?, found none",
                    corpus->documents[0].name);
}

void fkv_haystack_close(struct fkv_haystack *h) {
    free(h->ends);
    *h = (struct fkv_haystack){0};
}

/* ---- parts ---- */

struct ids {
    int32_t *ids; /* [count]; owned */
    size_t count;
};

/* The text with the key in place of every "{key}", malloc'd; NULL: out of memory. */
static char *insert_key(const char *text, const char *key) {
    const size_t mark = strlen(FKV_NEEDLE_KEY), digits = strlen(key);
    char *out = malloc(strlen(text) * (digits + 1) + 1), *to = out;
    for (const char *from = text; out && *from;) {
        if (strncmp(from, FKV_NEEDLE_KEY, mark)) {
            *to++ = *from++;
            continue;
        }
        memcpy(to, key, digits);
        to += digits;
        from += mark;
    }
    if (out) *to = 0;
    return out;
}

/* ids of a + b as they follow a full stop. */
static int encode_after_stop(const struct fkv_needle_task *task, const char *a, const char *b,
                             struct ids *stop, struct ids *whole, struct fkv_error *err) {
    const size_t bytes = 1 + strlen(a) + strlen(b);
    char *text = malloc(bytes + 1);
    if (!text) return fkv_fail(err, "out of memory for a prompt");
    snprintf(text, bytes + 1, ".%s%s", a, b);
    int status =
        fkv_tokenizer_encode(task->tokenizer, text, bytes, false, &whole->ids, &whole->count, err);
    if (!status)
        status =
            fkv_tokenizer_encode(task->tokenizer, ".", 1, false, &stop->ids, &stop->count, err);
    free(text);
    return status;
}

/* Whether b begins with all of a. */
static bool begins_with(const struct ids *b, const struct ids *a) {
    return a->count <= b->count && !memcmp(a->ids, b->ids, a->count * sizeof *a->ids);
}

static void drop_first(struct ids *ids, size_t count) {
    ids->count -= count;
    memmove(ids->ids, ids->ids + count, ids->count * sizeof *ids->ids);
}

/* The ids of `text` with the key, after those of `before`, which must be a part of theirs. */
static int encode_part(const struct fkv_needle_task *task, const char *option, const char *before,
                       const char *text, const char *key, struct ids *out, struct fkv_error *err) {
    struct ids stop = {0}, context = {0}, unused = {0};
    char *first = insert_key(before, key), *second = insert_key(text, key);
    *out = (struct ids){0};
    int status = first && second ? FKV_OK : fkv_fail(err, "out of memory for a prompt");
    if (!status) status = encode_after_stop(task, first, second, &stop, out, err);
    if (!status && *first) status = encode_after_stop(task, first, "", &unused, &context, err);
    const struct ids *prefix = context.ids ? &context : &stop;
    if (!status && !begins_with(out, prefix))
        status =
            fkv_fail_option(err,
                            "%s: its start and the text before it share a token: begin it with "
                            "a space or a new line, and end the text before it without one",
                            option);
    if (!status) drop_first(out, prefix->count);
    if (!status && !out->count)
        status = fkv_fail_option(err, "%s: expected a text, found none", option);
    for (size_t i = 0; i < out->count && !status; i++)
        if (out->ids[i] >= task->vocab)
            status = fkv_fail_option(err, "%s: expected ids below the model's %d, found %d", option,
                                     task->vocab, out->ids[i]);
    free(first);
    free(second);
    free(stop.ids);
    free(context.ids);
    free(unused.ids);
    if (status) free(out->ids), *out = (struct ids){0};
    return status;
}

struct parts {
    struct ids needle, question, answer; /* none of recall */
};

static void free_parts(struct parts *p) {
    free(p->needle.ids);
    free(p->question.ids);
    free(p->answer.ids);
}

static int encode_parts(const struct fkv_needle_task *task, const char *key, struct parts *p,
                        struct fkv_error *err) {
    *p = (struct parts){0};
    if (task->kind == FKV_RECALL) return FKV_OK;
    if (!encode_part(task, "--needle", "", task->needle, key, &p->needle, err) &&
        !encode_part(task, "--question", "", task->question, key, &p->question, err) &&
        !encode_part(task, "--answer", task->question, task->answer, key, &p->answer, err))
        return FKV_OK;
    free_parts(p);
    return FKV_FAILED;
}

/* ---- prompts ---- */

static void draw_key(const struct fkv_needle_task *task, struct fkv_random *random,
                     char key[FKV_NEEDLE_MOST_DIGITS + 1]) {
    for (int32_t i = 0; i < task->digits; i++)
        key[i] = (char)('0' + (i ? fkv_random_below(random, 10) : 1 + fkv_random_below(random, 9)));
    key[task->digits] = 0;
}

/* The end of a sentence, within [from, to] of the haystack, that is nearest to `wanted`; of two the
 * earlier. `from` is one. */
static int64_t nearest_end(const struct fkv_haystack *h, int64_t from, int64_t to, double wanted) {
    int64_t nearest = from;
    for (int64_t i = 0; i < h->end_count && h->ends[i] <= to; i++)
        if (h->ends[i] >= from &&
            fabs((double)h->ends[i] - wanted) < fabs((double)nearest - wanted))
            nearest = h->ends[i];
    return nearest;
}

/* Where the prompt's text starts in the haystack: at a sentence that `tokens` follow. */
static int choose_offset(const struct fkv_haystack *h, int64_t tokens, double draw, int64_t *offset,
                         struct fkv_error *err) {
    int64_t fit = 0;
    while (fit < h->end_count && h->ends[fit] + tokens <= h->count) fit++;
    if (!fit)
        return fkv_fail(err, "expected texts of at least %lld tokens, found %lld",
                        (long long)tokens, (long long)h->count);
    *offset = h->ends[(int64_t)(draw * (double)fit)];
    return FKV_OK;
}

static int32_t *append(int32_t *to, const int32_t *ids, size_t count) {
    memcpy(to, ids, count * sizeof *to);
    return to + count;
}

/* BOS, text up to the position, needle, text, question, answer; without parts, the passage. */
static int32_t *join(const struct fkv_needle_task *task, const struct fkv_needle_cell *cell,
                     const struct parts *p, int64_t text) {
    const int32_t *from = task->haystack->tokens + cell->offset;
    const size_t bos = task->bos >= 0, before = (size_t)cell->position - bos,
                 passage = task->kind == FKV_RECALL ? (size_t)task->passage : 0;
    int32_t *tokens = malloc(((size_t)cell->length + p->answer.count) * sizeof *tokens);
    if (!tokens) return NULL;
    int32_t *to = append(tokens, &task->bos, bos);
    to = append(to, from, before);
    if (p->needle.count) to = append(to, p->needle.ids, p->needle.count);
    to = append(to, from + before, (size_t)text - before);
    to = append(to, from + before, passage);
    if (p->question.count) to = append(to, p->question.ids, p->question.count);
    if (p->answer.count) append(to, p->answer.ids, p->answer.count);
    return tokens;
}

int fkv_needle_build(const struct fkv_needle_task *task, struct fkv_needle_cell *cell,
                     int32_t **tokens, struct fkv_error *err) {
    const int64_t bos = task->bos >= 0, passage = task->kind == FKV_RECALL ? task->passage : 0;
    struct fkv_random random = {
        fkv_random_mix((uint64_t)task->seed << 32 | (uint64_t)cell->repeat)};
    struct parts p;
    draw_key(task, &random, cell->key);
    const double draw = fkv_random_uniform(&random);
    if (encode_parts(task, cell->key, &p, err)) return FKV_FAILED;
    const int64_t parts = bos + (int64_t)(p.needle.count + p.question.count) + passage,
                  text = cell->length - parts, last = text - passage;
    int status = FKV_OK;
    if (last < 1)
        status = fkv_fail_option(err,
                                 "--lengths: expected more than %lld tokens, which all but "
                                 "the text take, found %lld",
                                 (long long)(parts + passage), (long long)cell->length);
    else if (choose_offset(task->haystack, text, draw, &cell->offset, err))
        status =
            fkv_error_prefix(err, "--lengths: a prompt of %lld tokens", (long long)cell->length);
    if (!status) {
        const int64_t from = cell->offset;
        cell->position = bos - from +
                         nearest_end(task->haystack, from, from + last,
                                     (double)from + cell->depth * (double)last);
        cell->answer = passage ? task->passage : (int32_t)p.answer.count;
        if (tokens && !(*tokens = join(task, cell, &p, text)))
            status = fkv_fail(err, "out of memory for a prompt");
    }
    free_parts(&p);
    return status;
}
