/* What a cache policy costs by arithmetic: operations and bytes from a config alone, for models
 * that are not there. The conventions are those of FreqKV's tables 4 and 6 (arXiv 2505.00570):
 *
 *   products     2 operations per weight of a matrix and token, the head included
 *   attention    4 operations per channel, query and slot; the queries that come between two
 * actions all see the slots that the last of them sees (no saving for causality) compression  n
 * log2(n) operations per channel of keys and values, for n slots: what a fast transform takes. The
 * paper's figures for ratios above a half are larger by some thirty percent of that, 0.01 percent
 * of the total
 *
 *   selection    2 operations per channel, query and slot whose attention is looked at again, or
 * per channel and key that is looked at; where queries choose chunks, per channel, query and chunk,
 * and for two passes of a chunk over itself
 *
 * A selecting policy acts at the end of prefill blocks of the options' prefill_block tokens; 0: the
 * whole text is one, and it never acts.
 *
 * In a layer that slides by itself queries see its own window at most, and a cache policy with a
 * larger one does nothing (engine/cache/policies/sliding.c).
 *
 * Norms, rotation and softmax are left out: a ten-thousandth. */
#ifndef FKV_REPLAY_COST_COST_H
#define FKV_REPLAY_COST_COST_H

#include "engine/cache/setup.h"

/* A model as far as its costs go. */
struct fkv_model_size {
    struct fkv_config config;
    double product_weights; /* weights of matrices that a token passes */
    int64_t weight_bytes;
    int32_t state_bytes; /* of one cached number: as a 16-bit or 32-bit weight; 2 for others */
};

/* Reads a config.json, whose dtype says how weights are stored (float16 where it says nothing), a
 * folder with one, or a GGUF file. No weight is read. */
int fkv_model_size_read(const char *path, int32_t trained_context, struct fkv_model_size *size,
                        struct fkv_error *err);

struct fkv_cost_row {
    int64_t tokens;
    double gamma; /* mean over heads; NaN where the policy takes no ratio */
    double operations, compression_operations; /* the first includes the second */
    double compressions;                       /* mean over heads */
    int64_t cache_bytes;                       /* most that slots in use take */
    int64_t peak_bytes; /* weights, storage of the cache, activations of a block of 512 tokens */
};

/* The costs of a text of `tokens` tokens under a policy. */
int fkv_cost_work_out(const struct fkv_model_size *size, const struct fkv_policy_options *policy,
                      int64_t tokens, struct fkv_cost_row *row, struct fkv_error *err);

#endif
