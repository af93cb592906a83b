/* RUN.h5 as freqkv-replay ppl writes it (layout: replay/perplexity/run_file.c), for figures and for
 * joining with captures. */
#ifndef FKV_CAPTURE_STORE_RUN_H
#define FKV_CAPTURE_STORE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/statistics/bootstrap.h"
#include "kernels/base/path.h"

/* Per token of a document; of a joined protocol, per token of all windows one after the other, and
 * there is one of these. NULL: the run has none. */
struct fkv_run_columns {
    int64_t count;
    float *nll, *round, *since, *baseline_nll, *kl,
        *agree; /* [count], NaN where nothing was scored; owned. round, since: of the run's actions,
                   compressions or evictions. agree: 1 where policy and baseline have one argmax */
};

struct fkv_run_document {
    char name[FKV_DOCUMENT_NAME];
    fkv_sha256_hex text_sha256;
    int64_t count;        /* tokens */
    int32_t *tokens;      /* [count]; owned */
    uint8_t *token_class; /* [count] as fkv_class_names of analyze has them; NULL: the file has
                             none. Owned */
};

struct fkv_run_actions { /* a row per compression (or eviction on a schedule), layer, KV head and
                            state; compressions where a mixture does both */
    int64_t count;
    bool evictions;
    int32_t *layer, *head, *round; /* [count]; round from 1; owned */
    uint8_t *state;                /* [count] 0 key, 1 value; owned */
    double *before, *kept;         /* [count] energies; owned */
};

struct fkv_run {
    char *path; /* owned */
    char model_name[256], policy[64], protocol[64], baseline_invalid[512];
    char policy_options[256],
        policy_label[256]; /* all own options; the policy with those that are not the default */
    char backend[32], compute[16], cache_dtype[16];
    fkv_sha256_hex model_sha256, config_sha256, tokenizer_sha256, corpus_sha256;
    int32_t layers, kv_heads, head_dim, window, sinks;
    int32_t compressible; /* n: slots that an action works on */
    int32_t low_pass;     /* 1: it keeps the L lowest of n coefficients */
    int32_t tokens_limit, score_from;
    char se_unit[64]; /* what mean_nll_se and delta_nll_se rest on; "" where there are none */
    bool joined;
    int64_t windows, *window_start; /* [windows] in the joined texts; NULL unless joined; owned */
    double gamma, mean_nll, mean_nll_se, delta_nll, delta_nll_se,
        mean_kl;              /* NaN where there is none */
    double cache_bytes_peak;  /* NaN where the file does not say */
    double ms_per_token;      /* of the policy's feeds, wall time; NaN likewise */
    double compression_share; /* of that time; NaN likewise */
    int32_t *retained;        /* [layers, kv_heads] L, or NULL where the policy has none; owned */
    int64_t window_tokens;    /* of a window of a joined protocol; 0: there are none */
    int32_t documents, column_sets;
    struct fkv_run_document *document; /* [documents]; owned */
    struct fkv_run_columns *columns;   /* [column_sets]; owned */
    struct fkv_run_actions actions;
};

int fkv_run_read(const char *path, struct fkv_run *run, struct fkv_error *err);
void fkv_run_free(struct fkv_run *run); /* harmless on a zeroed struct and a second time */

/* Tokens of a set of columns that were scored. */
int64_t fkv_run_scored(const struct fkv_run_columns *columns);
/* The units of a run's tokens (bootstrap.h): blocks of 256 scored tokens of a document. Windows
 * of joined texts overlap and do not keep documents apart: one unit. The documents of `units` are
 * the sets of columns. */
int fkv_run_units(const struct fkv_run *run, struct fkv_units *units, struct fkv_error *err);

/* The ratio of a run as it was asked for (0.1, where L / n is 0.0984), of a table their mean; NaN
 * where the policy has none. */
double fkv_run_gamma(const struct fkv_run *run);

/* The root attribute "format" of an HDF5 file, "" where it has none. */
int fkv_run_format(const char *path, char format[64], struct fkv_error *err);

/* "freqkv, window 512, recent 256, whole": the policy with its options, its window, and the
 * settings in which the runs [count] differ, but for its ratio. A ratio per layer and head is
 * named, and by its table ("ratios per head 1a2b3c4d") where another run's has the same mean. */
enum { FKV_RUN_LABEL = 480 };
void fkv_run_label(const struct fkv_run *runs, int32_t count, int32_t i, char label[FKV_RUN_LABEL]);

/* FKV_OK when two runs are points of one curve: same model, policy with all its options, settings
 * and tokens; else a message that names both files and what differs. */
int fkv_runs_compare(const struct fkv_run *a, const struct fkv_run *b, struct fkv_error *err);

#endif
