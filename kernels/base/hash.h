/* SHA-256 (FIPS 180-4, through OpenSSL's libcrypto) of memory and of files, as 64 lowercase hex
 * digits: how files say what they were made from. */
#ifndef FKV_BASE_HASH_H
#define FKV_BASE_HASH_H

#include <stddef.h>

#include "kernels/base/error.h"

typedef char fkv_sha256_hex[65];

int fkv_sha256_memory(const void *data, size_t bytes, fkv_sha256_hex out, struct fkv_error *err);

/* The hash of the files' contents one after the other (one file: what sha256sum prints). */
int fkv_sha256_files(const char *const *paths, int count, fkv_sha256_hex out,
                     struct fkv_error *err);

#endif
