/* Linear operators along tokens, [L, n]: what the policy `linear` puts in the place of FreqKV's.
 * Result j is sum_i m[j][i] x_i, and takes slot j. The definitions: operators.c and klt.c. */
#ifndef FKV_ENGINE_CACHE_OPERATORS_H
#define FKV_ENGINE_CACHE_OPERATORS_H

#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

/* What a file holds, for every policy setup and session that is made with it. A file of matrices
 * (format `OP.h5`), or the autocovariance of a capture. */
struct fkv_operator_data {
    char text[96]; /* what stands for it in files: basename "@" first 16 digits of sha256; a
                      capture's after "klt:" */
    fkv_sha256_hex sha256;
    /* Matrices. */
    int32_t layers, kv_heads; /* 1, 1: one for all heads */
    int32_t retained, n;      /* L and n of all */
    float *key;               /* [layers, kv_heads, retained, n]; NULL: a capture's */
    float *value;             /* the same shape; the same pointer: one for keys and values. Owned */
    /* A capture's. */
    int32_t lags;
    double *key_covariance;   /* [lags], by lag, of keys before RoPE; 1 at 0. Owned */
    double *value_covariance; /* [lags]. Owned */
};

enum fkv_operator_kind {
    FKV_OPERATOR_DCT_BAND, /* `parameter`: its first coefficient */
    FKV_OPERATOR_MEANPOOL,
    FKV_OPERATOR_DECIMATE,
    FKV_OPERATOR_RANDOM, /* `parameter`: its seed */
    FKV_OPERATOR_HAAR,
};

/* An operator that has a name. */
struct fkv_operator {
    enum fkv_operator_kind kind;
    int64_t parameter;
};

/* "dct", "dct-band:3", "random", "random:7", ... Refuses what is none, and names all. */
int fkv_operator_parse(const char *text, struct fkv_operator *out, struct fkv_error *err);
/* matrix [retained, n], 1 <= retained <= n; of a band, first coefficient + retained <= n. Fails
 * without memory. */
int fkv_operator_fill(const struct fkv_operator *o, int32_t n, int32_t retained, float *matrix,
                      struct fkv_error *err);

/* klt.c: the operator fitted to an autocovariance [n], the first n lags -> matrix [retained, n].
 * Needs OpenBLAS: a plain build refuses it. */
int fkv_operator_fit(const double *covariance, int32_t n, int32_t retained, float *matrix,
                     struct fkv_error *err);

#endif
