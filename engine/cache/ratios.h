/* Retaining ratios as the user gives them: one number, one per layer, or a table per (layer, KV
 * head) from gamma.json (freqkv-gamma, format_version 1: n_layers, n_kv_heads, window, sinks,
 * gamma, retained, text_sha256); and tables of policies, which are the same with `policy`
 * (freqkv-policies). */
#ifndef FKV_ENGINE_CACHE_RATIOS_H
#define FKV_ENGINE_CACHE_RATIOS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

struct fkv_policy_name {
    char name[24];
};

struct fkv_ratios {
    char *where; /* "--gamma" or the file's path, which is opened by it; owned */
    int32_t layers, kv_heads;
    bool table, uniform;   /* from a file; one number for all */
    int32_t window, sinks; /* of the table; 0 and -1 when there is none */
    double *gamma;         /* [layers, kv_heads]; NaN: a head of a table of policies has none; owned
                            */
    int32_t *retained;     /* [layers, kv_heads] as the table says, or NULL; owned */
    struct fkv_policy_name *policy; /* [layers, kv_heads] of a table of policies, or NULL; owned */
    fkv_sha256_hex *texts;          /* the texts the table was chosen on; owned */
    int32_t text_count;
};

/* text: "0.5", "0.5,0.4,..." or "@gamma.json". */
int fkv_ratios_read(const char *text, int32_t layers, int32_t kv_heads, struct fkv_ratios *ratios,
                    struct fkv_error *err);
/* The same of a table alone: the file's path. */
int fkv_ratios_read_table(const char *path, int32_t layers, int32_t kv_heads,
                          struct fkv_ratios *ratios, struct fkv_error *err);
void fkv_ratios_free(struct fkv_ratios *ratios); /* safe on a zeroed struct and twice */

/* L of every head for n compressible slots (malloc'd, the caller frees) and their mean ratio. One
 * number: L = floor(gamma n + 1e-9). Tables: as `retained` says, which holds for n = window -
 * sinks; else (no `retained`, or some slots stay uncompressed as recent) gamma to the nearest 64th,
 * L = floor(k n / 64), so that few distinct sizes occur. 1 <= L < n or an error that names the
 * head. A head without a ratio evicts at every token: L = n - 1, and (n - 1) / n in the mean. */
int fkv_ratios_retained(const struct fkv_ratios *ratios, int32_t n, int32_t **retained,
                        double *mean, struct fkv_error *err);

#endif
