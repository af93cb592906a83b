/* Any bytes as a chat template: refused in words when it is parsed or rendered, or a text within
 * the bounds of a rendering. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/template.h"
#include "kernels/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char variables_json[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" be brief \"}, {\"role\": \"user\", "
    "\"content\": \"h\\u00e9llo\"}, {\"role\": \"assistant\", \"content\": [1, null, true]}], "
    "\"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"tools\": "
    "null}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static json_t *variables;
    struct fkv_error err = {0};
    struct fkv_template *t;
    char *text;
    size_t text_bytes;
    if (!variables &&
        !(variables = fkv_json_parse(variables_json, sizeof variables_json - 1, "fuzz", &err)))
        abort();
    if (fkv_template_parse((const char *)data, bytes, "fuzz", &t, &err)) {
        if (!err.message[0]) abort();
        return 0;
    }
    if (fkv_template_render(t, variables, bytes % 2 ? "2026-07-04" : NULL, &text, &text_bytes,
                            &err)) {
        if (!err.message[0] || text) abort();
    } else if (text_bytes > FKV_TEMPLATE_EFFORT || strlen(text) != text_bytes) {
        abort();
    }
    free(text);
    fkv_template_close(t);
    return 0;
}
