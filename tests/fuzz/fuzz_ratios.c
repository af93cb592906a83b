/* Any bytes as --gamma: after "@" as gamma.json, else as the option's text. What is accepted keeps
 * between one and all but one of n slots of every head. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/cache/ratios.h"

enum { LAYERS = 2, KV_HEADS = 3, N = 508 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static int file = -1;
    char text[256] = {0};
    struct fkv_error err = {0};
    struct fkv_ratios ratios;
    if (file < 0 && (file = memfd_create("gamma.json", 0)) < 0) abort();
    if (bytes && data[0] == '@') {
        if (ftruncate(file, 0) || pwrite(file, data + 1, bytes - 1, 0) != (ssize_t)bytes - 1)
            abort();
        snprintf(text, sizeof text, "@/proc/self/fd/%d", file);
    } else {
        memcpy(text, data, bytes < sizeof text ? bytes : sizeof text - 1);
    }
    if (fkv_ratios_read(text, LAYERS, KV_HEADS, &ratios, &err)) {
        if (!err.message[0]) abort();
        return 0;
    }
    int32_t *retained;
    double mean;
    if (!fkv_ratios_retained(&ratios, N, &retained, &mean, &err)) {
        if (!(mean > 0 && mean <= 1)) abort();
        for (int i = 0; i < LAYERS * KV_HEADS; i++)
            if (retained[i] < 1 || retained[i] >= N) abort();
        free(retained);
    }
    fkv_ratios_free(&ratios);
    return 0;
}
