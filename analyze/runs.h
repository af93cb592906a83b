/* RUN.h5 as freqkv-replay ppl writes it (layout: replay/run_file.c), for figures and for joining with captures. */
#ifndef FKV_ANALYZE_RUNS_H
#define FKV_ANALYZE_RUNS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/path.h"

/* Per token of a document; of a joined protocol, per token of all windows one after the other, and there is one of these. NULL: the run has none. */
struct fkv_run_columns {
    int64_t count;
    float *nll, *round, *since, *baseline_nll, *kl; /* [count], NaN where nothing was scored; owned */
};

struct fkv_run_document {
    char name[FKV_DOCUMENT_NAME];
    fkv_sha256_hex text_sha256;
};

struct fkv_run_compressions { /* a row per compression, layer, KV head and state */
    int64_t count;
    int32_t *layer, *head, *round; /* [count]; round from 1; owned */
    uint8_t *state;                /* [count] 0 key, 1 value; owned */
    double *before, *kept;         /* [count] energies; owned */
};

struct fkv_run {
    char *path; /* owned */
    char model_name[256], policy[64], protocol[64], baseline_invalid[512];
    fkv_sha256_hex model_sha256, corpus_sha256;
    int32_t layers, kv_heads, head_dim, window, sinks, mass_bias;
    bool joined;
    double gamma, mean_nll, mean_nll_se, delta_nll, delta_nll_se, mean_kl; /* NaN where there is none */
    int32_t *retained; /* [layers, kv_heads] L, or NULL where the policy has none; owned */
    int32_t documents, column_sets;
    struct fkv_run_document *document; /* [documents]; owned */
    struct fkv_run_columns *columns;   /* [column_sets]; owned */
    struct fkv_run_compressions compressions;
};

int fkv_run_read(const char *path, struct fkv_run *run, struct fkv_error *err);
void fkv_run_free(struct fkv_run *run); /* harmless on a zeroed struct and a second time */

/* The ratio of a run as it was asked for (0.1, where L / n is 0.0984), of a table their mean; NaN where the policy has none. */
double fkv_run_gamma(const struct fkv_run *run);

/* The root attribute "format" of an HDF5 file, "" where it has none. */
int fkv_run_format(const char *path, char format[64], struct fkv_error *err);

/* FKV_OK when two runs are points of one curve: same model, texts, protocol, window, sinks; else a message that names both files. */
int fkv_runs_compare(const struct fkv_run *a, const struct fkv_run *b, struct fkv_error *err);

#endif
