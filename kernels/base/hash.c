/* SHA-256 through libcrypto: it uses the processor's instructions for it, which matters for
 * checkpoints of many gigabytes. */
#include "kernels/base/hash.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 1 << 20 };

static int finish(EVP_MD_CTX *context, fkv_sha256_hex out, struct fkv_error *err) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned bytes = 0;
    if (!EVP_DigestFinal_ex(context, digest, &bytes) || bytes != 32)
        return fkv_fail(err, "SHA-256 failed");
    for (unsigned i = 0; i < bytes; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return FKV_OK;
}

int fkv_sha256_memory(const void *data, size_t bytes, fkv_sha256_hex out, struct fkv_error *err) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int status;
    if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL) ||
        !EVP_DigestUpdate(context, data, bytes))
        status = fkv_fail(err, "SHA-256 failed");
    else
        status = finish(context, out, err);
    EVP_MD_CTX_free(context);
    return status;
}

static int add_file(EVP_MD_CTX *context, const char *path, void *block, struct fkv_error *err) {
    FILE *f = fopen(path, "rb");
    if (!f) return fkv_fail_errno(err, "%s: cannot open", path);
    int status = FKV_OK;
    for (size_t got; status == FKV_OK && (got = fread(block, 1, BLOCK, f));)
        if (!EVP_DigestUpdate(context, block, got))
            status = fkv_fail(err, "%s: SHA-256 failed", path);
    if (ferror(f)) status = fkv_fail_errno(err, "%s: cannot read", path);
    fclose(f);
    return status;
}

int fkv_sha256_files(const char *const *paths, int count, fkv_sha256_hex out,
                     struct fkv_error *err) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    void *block = malloc(BLOCK);
    int status = FKV_OK;
    if (!context || !block || !EVP_DigestInit_ex(context, EVP_sha256(), NULL))
        status = fkv_fail(err, "SHA-256 failed");
    for (int i = 0; status == FKV_OK && i < count; i++)
        status = add_file(context, paths[i], block, err);
    if (status == FKV_OK) status = finish(context, out, err);
    free(block);
    EVP_MD_CTX_free(context);
    return status;
}
