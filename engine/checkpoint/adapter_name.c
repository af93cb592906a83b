/* Owns how PEFT and others write the names of an adapter's tensors.
 *
 * PEFT writes base_model.model.MODULE.lora_A.weight, where MODULE is the name of a module in the
 * Hugging Face model; dumps of training states keep the adapter's name in it
 * (lora_A.default.weight), and other tools leave the prefix out. Parameters of an embedding have no
 * ".weight". Whole tensors are named as in the model, or with what PEFT puts around modules
 * (base_layer, modules_to_save.NAME). */
#include "engine/checkpoint/adapter_name.h"

#include <stdio.h>
#include <string.h>

bool fkv_skip_prefix(const char **at, const char *prefix) {
    const size_t n = strlen(prefix);
    if (strncmp(*at, prefix, n)) return false;
    *at += n;
    return true;
}

bool fkv_cut_ending(char *text, const char *ending) {
    const size_t n = strlen(text), m = strlen(ending);
    if (n < m || strcmp(text + n - m, ending)) return false;
    text[n - m] = 0;
    return true;
}

bool fkv_adapter_name_parse(const char *text, struct fkv_adapter_name *out) {
    static const struct {
        const char *marker, *ending;
        enum fkv_adapter_kind kind;
        bool bias, embedding;
    } markers[] = {{".lora_A", ".weight", FKV_ADAPTER_A, false, false},
                   {".lora_B", ".weight", FKV_ADAPTER_B, false, false},
                   {".lora_B", ".bias", FKV_ADAPTER_B, true, false},
                   {".lora_embedding_A", "", FKV_ADAPTER_A, false, true},
                   {".lora_embedding_B", "", FKV_ADAPTER_B, false, true}};
    *out = (struct fkv_adapter_name){.kind = FKV_ADAPTER_WHOLE};
    if (!fkv_skip_prefix(&text, "base_model.model.")) fkv_skip_prefix(&text, "base_model.");
    out->model = fkv_skip_prefix(&text, "model.");
    fkv_skip_prefix(&text, "model.");
    if (strlen(text) >= sizeof out->module) return false;
    strcpy(out->module, text);
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
        char *marker = strstr(out->module, markers[i].marker);
        if (!marker || !fkv_cut_ending(marker, markers[i].ending)) continue;
        const char *label = marker + strlen(markers[i].marker);
        if (strlen(label) >= sizeof out->label) return false;
        strcpy(out->label, label);
        *marker = 0;
        out->labelled = true;
        out->kind = markers[i].kind;
        out->bias = markers[i].bias;
        out->embedding = markers[i].embedding;
        return true;
    }
    out->bias = fkv_cut_ending(out->module, ".bias");
    if (!out->bias && !fkv_cut_ending(out->module, ".weight")) return false;
    char *wrapper = strstr(out->module, ".modules_to_save");
    if (wrapper) *wrapper = 0;
    fkv_cut_ending(out->module, ".base_layer");
    return true;
}

bool fkv_adapter_name_is(const char *tensor, const char *module, bool bias) {
    char name[FKV_ADAPTER_NAME];
    if (!tensor) return false;
    fkv_skip_prefix(&tensor, "model.");
    snprintf(name, sizeof name, "%s", tensor);
    return fkv_cut_ending(name, bias ? ".bias" : ".weight") && !strcmp(name, module);
}
