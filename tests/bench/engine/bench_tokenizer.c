/* bench_tokenizer DIR TEXT...: seconds to open DIR/tokenizer.json; MB/s and tokens/s to encode and
 * decode each text, best of five. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/text/tokenizer.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/progress.h"

static double least(double a, double b) { return a < b ? a : b; }

static int bench(const struct fkv_tokenizer *t, const char *path, struct fkv_error *err) {
    char *text, *decoded;
    size_t bytes, count = 0, decoded_bytes;
    double encode = 1e9, decode = 1e9;
    if (fkv_read_file(path, (size_t)1 << 32, &text, &bytes, err)) return FKV_FAILED;
    int status = FKV_OK;
    for (int i = 0; i < 5 && !status; i++) {
        int32_t *ids;
        double start = fkv_seconds();
        status = fkv_tokenizer_encode(t, text, bytes, true, &ids, &count, err);
        if (status) break;
        encode = least(encode, fkv_seconds() - start);
        start = fkv_seconds();
        status = fkv_tokenizer_decode(t, ids, count, &decoded, &decoded_bytes, err);
        decode = least(decode, fkv_seconds() - start);
        if (!status) free(decoded);
        free(ids);
    }
    free(text);
    if (status) return status;
    printf(
        "%10zu bytes %9zu tokens  encode %7.1f ms %6.1f MB/s %6.2f Mtok/s  decode %7.1f ms  %s\n",
        bytes, count, encode * 1e3, (double)bytes / encode / 1e6, (double)count / encode / 1e6,
        decode * 1e3, path);
    return FKV_OK;
}

int main(int argc, char **argv) {
    struct fkv_error err = {0};
    struct fkv_tokenizer *t = NULL;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenizer DIR TEXT...\n");
        return 2;
    }
    double open = 1e9;
    int status = FKV_OK;
    for (int i = 0; i < 5 && !status; i++) {
        fkv_tokenizer_close(t);
        double start = fkv_seconds();
        status = fkv_tokenizer_open(argv[1], &t, &err);
        open = least(open, fkv_seconds() - start);
    }
    if (!status)
        printf("open %.1f ms, vocabulary %d\n", open * 1e3, (int)fkv_tokenizer_vocabulary(t));
    for (int i = 2; i < argc && !status; i++) status = bench(t, argv[i], &err);
    fkv_tokenizer_close(t);
    if (status) fprintf(stderr, "bench_tokenizer: %s\n", err.message);
    return status ? 1 : 0;
}
