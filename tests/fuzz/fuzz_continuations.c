/* Any bytes as the OUT.jsonl that an earlier run of `generate` left: refused in words, or whole
 * lines of this run and at most one that is torn. */
#include <stdlib.h>
#include <string.h>

#include "replay/generate/continuations.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char tokenizer_json[] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": "
                                     "1, \"<0xC3>\": 2}, \"merges\": []},"
                                     " \"decoder\": {\"type\": \"Sequence\", \"decoders\": "
                                     "[{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}}";

/* Two prompts, the second with an id and a stop string; two tokens each. */
static const struct fkv_continuing *run(void) {
    static struct fkv_tokenizer *tokenizer;
    static struct fkv_prompts prompts;
    static struct fkv_policy_setup setup;
    static struct fkv_continuing c;
    const struct fkv_config config = {.layers = 1, .kv_heads = 1, .trained_context = 64};
    const struct fkv_policy_options policy = {.name = "freqkv", .window = 12, .sinks = -1};
    struct fkv_error err;
    if (tokenizer) return &c;
    json_t *first = json_pack("{s:s}", "prompt", "ab"),
           *second = json_pack("{s:s, s:i, s:s}", "prompt", "b", "id", 7, "stop", "ba");
    if (fkv_tokenizer_parse(tokenizer_json, sizeof tokenizer_json - 1, "fuzz.json", &tokenizer,
                            &err))
        abort();
    struct fkv_prompt_reader reader = {.tokenizer = tokenizer, .vocab = 3};
    if (fkv_prompts_add(&prompts, &reader, first, "fuzz", &err) ||
        fkv_prompts_add(&prompts, &reader, second, "fuzz", &err) ||
        fkv_policy_setup(&policy, &config, 16, &setup, &err))
        abort();
    json_decref(first);
    json_decref(second);
    c = (struct fkv_continuing){.prompts = &prompts,
                                .tokenizer = tokenizer,
                                .setup = &setup,
                                .tokens = 2,
                                .seed = 1,
                                .temperature = 0.5};
    return &c;
}

static int read_bytes(const uint8_t *data, size_t bytes, struct fkv_continued *found) {
    struct fkv_error err = {0};
    FILE *f = fmemopen((void *)data, bytes, "r");
    if (!f) abort();
    int status = fkv_continuations_read(f, "fuzz.jsonl", run(), found, &err);
    fclose(f);
    if (status && !err.message[0]) abort();
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_continued found, again;
    if (!bytes || read_bytes(data, bytes, &found)) return 0;
    if (found.file.bytes + found.file.torn != (int64_t)bytes || found.file.lines > 2) abort();
    if (!found.file.bytes) return 0;
    if (data[found.file.bytes - 1] != '\n' || read_bytes(data, (size_t)found.file.bytes, &again))
        abort();
    if (again.file.lines != found.file.lines || again.file.torn) abort();
    return 0;
}
