/* The protocols of the field, each as its own tool defines it, so that numbers can be compared with
 * published ones:
 *
 *   whole    one pass per document
 *   stride   LongLoRA's and FreqKV's eval.py: overlapping windows over the joined corpus, every
 *            window's T - 1 targets scored
 *   chunks   llama.cpp's perplexity: disjoint chunks, BOS over the first token, the second half
 *            scored
 *   rolling  lm-eval's get_rolling_token_windows with one token of context
 *   blocks   as whole, in feeds that end after every b tokens: the prefill blocks at whose ends a
 *            selecting policy acts; no other does
 *
 * A pass is plain data (struct fkv_pass), so that the
 * runner knows none of these names. Chunks are cut within documents: a chunk across two of them
 * would need a BOS in its middle that no tool gives it. */
#include "replay/perplexity/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/parse.h"

static int add_pass(struct fkv_plan *plan, struct fkv_pass pass,
                    const struct fkv_protocol_setting *setting, struct fkv_error *err) {
    /* the target of row i is token i + 1 of its pass */
    if (setting->score_from > pass.from + 1)
        pass.from =
            setting->score_from - 1 < pass.until ? (int32_t)(setting->score_from - 1) : pass.until;
    if ((plan->count & (plan->count - 1)) == 0) { /* full at every power of two */
        size_t capacity = plan->count ? 2 * (size_t)plan->count : 1;
        struct fkv_pass *larger = realloc(plan->passes, capacity * sizeof *larger);
        if (!larger) return fkv_fail(err, "out of memory for %zu passes", capacity);
        plan->passes = larger;
    }
    plan->passes[plan->count++] = pass;
    plan->rows += pass.rows;
    plan->scored += pass.until - pass.from;
    if (pass.rows > plan->longest) plan->longest = pass.rows;
    return FKV_OK;
}

static int plan_whole(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                      struct fkv_plan *plan, struct fkv_error *err) {
    for (int64_t d = 0; d < corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &corpus->documents[d];
        struct fkv_pass pass = {
            document->offset, d, (int32_t)document->count, 0, (int32_t)document->count - 1, -1};
        if (add_pass(plan, pass, setting, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int plan_blocks(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                       struct fkv_plan *plan, struct fkv_error *err) {
    plan->block = plan->parameter;
    return plan_whole(corpus, setting, plan, err);
}

static int plan_stride(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                       struct fkv_plan *plan, struct fkv_error *err) {
    int64_t length = setting->tokens ? setting->tokens : setting->trained_context;
    int64_t d = 0;
    for (int64_t start = 0; start + length <= corpus->token_count; start += plan->parameter) {
        while (start >= corpus->documents[d].offset + corpus->documents[d].count) d++;
        struct fkv_pass pass = {start, d, (int32_t)length, 0, (int32_t)length - 1, -1};
        if (add_pass(plan, pass, setting, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int plan_chunks(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                       struct fkv_plan *plan, struct fkv_error *err) {
    int32_t size = plan->parameter;
    for (int64_t d = 0; d < corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &corpus->documents[d];
        for (int64_t k = 0; k < document->count / size; k++) {
            struct fkv_pass pass = {document->offset + k * size, d, size, size / 2, size - 1,
                                    setting->tokenizer_bos};
            if (add_pass(plan, pass, setting, err)) return FKV_FAILED;
        }
    }
    return FKV_OK;
}

static int plan_rolling(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                        struct fkv_plan *plan, struct fkv_error *err) {
    int32_t prefix = setting->tokenizer_bos >= 0 ? setting->tokenizer_bos
                     : setting->bos >= 0         ? setting->bos
                                                 : setting->eos;
    if (prefix < 0)
        return fkv_fail(err, "--protocol rolling: expected a bos_token_id or eos_token_id in "
                             "config.json to start the "
                             "first window with, found neither");
    int64_t context = setting->trained_context;
    for (int64_t d = 0; d < corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &corpus->documents[d];
        /* a BOS of the document's own is the prefix, not text that is scored: token ids may come
         * without one */
        bool own = document->count && corpus->tokens[document->offset] == setting->tokenizer_bos;
        int64_t text = document->offset + own, count = document->count - own;
        if (!count) continue;
        int64_t scored = count < context ? count : context;
        struct fkv_pass pass = {text - 1,         d, (int32_t)scored, 0, (int32_t)scored,
                                own ? -1 : prefix};
        if (add_pass(plan, pass, setting, err)) return FKV_FAILED;
        while (scored < count) {
            int64_t fresh = count - scored < context ? count - scored : context;
            scored += fresh;
            pass = (struct fkv_pass){.start = text + scored - context - 1,
                                     .document = d,
                                     .rows = (int32_t)context,
                                     .from = (int32_t)(context - fresh),
                                     .until = (int32_t)context,
                                     .first = -1};
            if (add_pass(plan, pass, setting, err)) return FKV_FAILED;
        }
    }
    return FKV_OK;
}

const struct fkv_protocol fkv_protocols[] = {
    {"whole", NULL, true, false, plan_whole},  {"stride", "s", false, true, plan_stride},
    {"chunks", "c", true, false, plan_chunks}, {"rolling", NULL, true, false, plan_rolling},
    {"blocks", "b", true, false, plan_blocks}, {NULL, NULL, false, false, NULL},
};

int fkv_protocol_parse(const char *text, struct fkv_plan *plan, struct fkv_error *err) {
    *plan = (struct fkv_plan){0};
    size_t length = strcspn(text, ":");
    for (const struct fkv_protocol *p = fkv_protocols; p->name; p++) {
        if (strlen(p->name) != length || strncmp(text, p->name, length)) continue;
        int64_t parameter = 0;
        if (!p->parameter && text[length])
            return fkv_fail_option(err, "--protocol: %s takes no parameter, found \"%s\"", p->name,
                                   text);
        if (p->parameter && !text[length])
            return fkv_fail_option(err, "--protocol: expected %s:%s, found \"%s\"", p->name,
                                   p->parameter, text);
        /* a chunk of fewer than 4 tokens has no second half to score */
        if (p->parameter && fkv_parse_int(text + length + 1, "--protocol",
                                          p->plan == plan_chunks ? 4 : 1, 1 << 30, &parameter, err))
            return FKV_FAILED;
        plan->protocol = p;
        plan->parameter = (int32_t)parameter;
        snprintf(plan->name, sizeof plan->name, p->parameter ? "%s:%d" : "%s", p->name,
                 plan->parameter);
        return FKV_OK;
    }
    return fkv_fail_option(
        err, "--protocol: expected whole, stride:s, chunks:c, rolling or blocks:b, found \"%s\"",
        text);
}

int fkv_protocol_plan(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                      struct fkv_plan *plan, struct fkv_error *err) {
    const struct fkv_corpus_document *longest = &corpus->documents[0];
    for (int64_t d = 0; d < corpus->document_count; d++) {
        if (corpus->documents[d].count > longest->count) longest = &corpus->documents[d];
        if (corpus->documents[d].count > (1 << 30))
            return fkv_fail(err, "%s: expected at most 2^30 tokens, found %lld",
                            corpus->documents[d].name, (long long)corpus->documents[d].count);
    }
    if (plan->protocol->plan(corpus, setting, plan, err)) return FKV_FAILED;
    if (!plan->scored)
        return fkv_fail(err,
                        "--protocol %s%s leaves nothing to score: the longest document (%s) has "
                        "%lld tokens, all together %lld",
                        plan->name, setting->score_from ? " with --score-from" : "", longest->name,
                        (long long)longest->count, (long long)corpus->token_count);
    return FKV_OK;
}

bool fkv_plan_overlaps(const struct fkv_plan *plan) {
    for (int64_t i = 1; i < plan->count; i++) {
        const struct fkv_pass *before = &plan->passes[i - 1], *pass = &plan->passes[i];
        if (pass->start + pass->from < before->start + before->until) return true;
    }
    return false;
}

void fkv_plan_free(struct fkv_plan *plan) {
    free(plan->passes);
    plan->passes = NULL;
    plan->count = 0;
}
