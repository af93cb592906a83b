/* See targets.h. */
#include "replay/perplexity/targets.h"

#include <math.h>
#include <stdlib.h>

void fkv_sums_add(struct fkv_sums *to, const struct fkv_sums *from) {
    to->count += from->count;
    to->nll += from->nll;
    to->baseline_nll += from->baseline_nll;
    to->kl += from->kl;
    to->agree += from->agree;
}

double fkv_mean(double sum, int64_t count) { return count ? sum / (double)count : NAN; }

int64_t fkv_document_of(const struct fkv_corpus *corpus, int64_t d, int64_t token) {
    while (token >= corpus->documents[d].offset + corpus->documents[d].count) d++;
    return d;
}

/* Passes come in the order of the stream, so that a document is met first after all before it. */
int64_t fkv_perplexity_documents(const struct fkv_corpus *corpus, const struct fkv_plan *plan) {
    int64_t count = 0, latest = -1;
    for (int64_t p = 0; p < plan->count; p++) {
        const struct fkv_pass *pass = &plan->passes[p];
        if (pass->until == pass->from) continue;
        int64_t first = fkv_document_of(corpus, pass->document, pass->start + pass->from + 1);
        int64_t last = fkv_document_of(corpus, first, pass->start + pass->until);
        for (int64_t d = first; d <= last; d++)
            count += d > latest && corpus->documents[d].count > 0;
        if (last > latest) latest = last;
    }
    return count;
}

enum fkv_se_unit fkv_perplexity_se_unit(const struct fkv_corpus *corpus,
                                        const struct fkv_plan *plan) {
    int64_t blocks = (plan->scored + FKV_BOOTSTRAP_BLOCK - 1) / FKV_BOOTSTRAP_BLOCK;
    int64_t documents = fkv_perplexity_documents(corpus, plan);
    return fkv_se_unit_of(documents, blocks > documents ? blocks : documents,
                          fkv_plan_overlaps(plan));
}

/* Fills scored_before and first_block. Windows that overlap have no blocks: only a plan whose
 * passes follow each other can number its targets. */
static int number_targets(struct fkv_targets *targets, struct fkv_error *err) {
    const struct fkv_corpus *corpus = targets->corpus;
    int64_t *count = targets->first_block; /* of targets, to begin with */
    for (int64_t p = 0; p < targets->plan->count; p++) {
        const struct fkv_pass *pass = &targets->plan->passes[p];
        int64_t target = pass->start + pass->from + 1, end = pass->start + pass->until + 1;
        if (target == end) continue;
        int64_t d = fkv_document_of(corpus, pass->document, target);
        targets->scored_before[p] = count[d];
        for (; target < end; d++) {
            int64_t until = corpus->documents[d].offset + corpus->documents[d].count;
            if (until > end) until = end;
            count[d] += until - target;
            target = until;
        }
    }
    for (int64_t d = 0; d < corpus->document_count; d++) {
        int64_t blocks = (count[d] + FKV_BOOTSTRAP_BLOCK - 1) / FKV_BOOTSTRAP_BLOCK;
        targets->first_block[d] = targets->block_count;
        targets->block_count += blocks;
    }
    if (fkv_plan_overlaps(targets->plan)) return FKV_OK;
    targets->blocks = calloc((size_t)targets->block_count, sizeof *targets->blocks);
    return targets->blocks
               ? FKV_OK
               : fkv_fail(err, "out of memory for %lld blocks", (long long)targets->block_count);
}

int fkv_targets_open(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                     struct fkv_sums *documents, struct fkv_targets *targets,
                     struct fkv_error *err) {
    *targets = (struct fkv_targets){
        .corpus = corpus,
        .plan = plan,
        .documents = documents,
        .first_block = calloc((size_t)corpus->document_count, sizeof *targets->first_block),
        .scored_before = calloc((size_t)plan->count, sizeof *targets->scored_before)};
    int status = targets->first_block && targets->scored_before
                     ? number_targets(targets, err)
                     : fkv_fail(err, "out of memory for %lld passes", (long long)plan->count);
    if (status) fkv_targets_close(targets);
    return status;
}

void fkv_targets_close(struct fkv_targets *targets) {
    free(targets->blocks);
    free(targets->first_block);
    free(targets->scored_before);
    *targets = (struct fkv_targets){0};
}

void fkv_targets_add(struct fkv_targets *targets, int64_t d, int64_t scored,
                     const struct fkv_sums *target) {
    if (targets->blocks)
        fkv_sums_add(&targets->blocks[targets->first_block[d] + scored / FKV_BOOTSTRAP_BLOCK],
                     target);
    fkv_sums_add(&targets->documents[d], target);
}

/* nll, kl, delta, counts [units] <- the units' sums. */
static void fill_units(const struct fkv_targets *targets, const struct fkv_units *units,
                       const int64_t *blocks, double *nll, double *kl, double *delta,
                       double *counts) {
    for (int64_t d = 0; d < targets->corpus->document_count; d++) {
        const bool whole = !fkv_units_are_blocks(units);
        const struct fkv_sums *sums =
            whole ? &targets->documents[d] : targets->blocks + targets->first_block[d];
        for (int64_t b = 0; b < blocks[d] && (b == 0 || !whole); b++) {
            int64_t unit = fkv_unit_at(units, d, b);
            nll[unit] = sums[b].nll;
            kl[unit] = sums[b].kl;
            delta[unit] = sums[b].nll - sums[b].baseline_nll;
            counts[unit] = (double)sums[b].count;
        }
    }
}

int fkv_targets_errors(const struct fkv_targets *targets, struct fkv_target_errors *errors,
                       struct fkv_error *err) {
    const int64_t documents = targets->corpus->document_count;
    struct fkv_units units = {0};
    int64_t *blocks = malloc((size_t)documents * sizeof *blocks);
    double *sums = NULL;
    int status =
        blocks ? FKV_OK : fkv_fail(err, "out of memory for %lld documents", (long long)documents);
    for (int64_t d = 0; d < documents && !status; d++) {
        int64_t end = d + 1 < documents ? targets->first_block[d + 1] : targets->block_count;
        blocks[d] = end - targets->first_block[d];
    }
    if (!status) status = fkv_units_make(blocks, documents, !targets->blocks, &units, err);
    if (!status && !(sums = malloc(4 * (size_t)units.count * sizeof *sums)))
        status = fkv_fail(err, "out of memory for %lld units", (long long)units.count);
    if (!status) {
        double *kl = sums + units.count, *delta = kl + units.count, *counts = delta + units.count;
        fill_units(targets, &units, blocks, sums, kl, delta, counts);
        fkv_ratio_interval(&units, sums, counts, &errors->nll_se);
        fkv_ratio_interval(&units, kl, counts, &errors->kl_se);
        errors->delta_nll = fkv_ratio_interval(&units, delta, counts, &errors->delta_nll_se);
    }
    fkv_units_free(&units);
    free(blocks);
    free(sums);
    return status;
}
