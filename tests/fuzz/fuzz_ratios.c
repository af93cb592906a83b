/* Any bytes as --gamma: after "@" as gamma.json, else as the option's text. What is accepted keeps
 * between one and all but one of n slots of every head. A file is POLICIES.json, too: what the
 * policy `mixed` accepts of it gives every head a policy, and answers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/cache/ratios.h"
#include "engine/cache/setup.h"

enum { LAYERS = 2, KV_HEADS = 3, N = 508 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* `path` as the table of the policy `mixed`. */
static void try_policies(const char *path) {
    static const struct fkv_config config = {
        .layers = LAYERS, .kv_heads = KV_HEADS, .trained_context = N + 4, .head_dim = 8};
    const struct fkv_policy_options o = {
        .name = "mixed", .sinks = -1, .own = {{.name = "table", .text = path}}};
    struct fkv_policy_setup setup;
    struct fkv_error err = {0};
    if (fkv_policy_setup(&o, &config, 1000, &setup, &err)) {
        if (!err.message[0]) abort();
        return;
    }
    int32_t *from = malloc((size_t)setup.capacity * sizeof *from);
    for (int32_t h = 0; h < LAYERS * KV_HEADS && from; h++) {
        struct fkv_head head = {.layer = h / KV_HEADS, .kv_head = h % KV_HEADS};
        const struct fkv_policy *policy = fkv_policy_of_head(&setup, h);
        if (!policy || !policy->mixes || setup.retained[h] < 1 ||
            setup.retained[h] >= setup.compressible)
            abort();
        head.slots = setup.policy->append_limit(&setup, &head);
        if (head.slots < 1 || head.slots > setup.capacity) abort();
        head.tokens = head.slots;
        struct fkv_action action = {.gather_from = from, .slots = head.slots};
        if (setup.policy->append_limit(&setup, &head) < 1)
            setup.policy->act(&setup, &head, &action);
        if (action.slots < 1 || action.slots > setup.capacity) abort();
    }
    free(from);
    fkv_policy_setup_free(&setup);
}

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
        try_policies(text + 1);
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
