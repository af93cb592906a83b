/* Owns what people point at by mistake: tables of what to look for, what it is and what to do. A
 * table is gone through in order, and its first row that fits a folder counts. */
#include "engine/checkpoint/mistaken.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/base/json.h"
#include "kernels/base/path.h"

struct mistake {
    const char *look_for; /* pattern (FNM_EXTMATCH) of a name in the folder, or of the file's own */
    const char *what;
    const char *remedy;
    bool names_it; /* the remedy ends with the path of what was found */
};

#define RESAVE "load it with transformers and save it: from_pretrained(FOLDER).save_pretrained(NEW)"
#define FETCH "take the safetensors files of the model: hf download NAME"
#define AS_ADAPTER "give the model that it was made for as --model, and this folder as --adapter"
#define TO_SAFETENSORS                                                                             \
    "convert it in Python: safetensors.torch.save_file(torch.load(FILE), NAME.safetensors)"

/* Folders without config.json. */
static const struct mistake no_config[] = {
    {"adapter_config.json", "an adapter", AS_ADAPTER, false},
    {"adapters.safetensors", "an adapter of MLX", "adapters of PEFT alone can be read", false},
    {"models--*", "the hub's cache", "give what is in snapshots/ of a model in it, as of", true},
    {"capture.h5", "a capture", "give the model that it was made with", false},
    {"*.gguf", "a folder around a GGUF file", "give the file:", true},
    {"consolidated*", "weights in their authors' own form",
     RESAVE " (after its script convert_..._weights_to_hf.py), or take the form for transformers",
     false},
    {"*.nemo", "a model of NeMo", FETCH, false},
    {"saved_model.pb", "a model of TensorFlow", FETCH, false},
    {"*.onnx", "an ONNX export", FETCH, false},
    {"*.@(safetensors|bin)", "weights without config.json",
     "put the model's config.json beside them", false},
    {"tokenizer*", "a tokenizer", FETCH, false},
    {0},
};

/* Folders with config.json, but without model.safetensors, its index, or its shards. */
static const struct mistake no_weights[] = {
    {"adapter_model.*", "an adapter", AS_ADAPTER, false},
    {"openvino_model.*", "an OpenVINO export", FETCH, false},
    {"pytorch_model*.bin", "weights as PyTorch writes them", RESAVE, false},
    {"consolidated*", "weights in their authors' own form", FETCH, false},
    {"*.gguf", "a folder around a GGUF file", "give the file:", true},
    {"tf_model*.h5", "weights for TensorFlow",
     "load them with transformers 4 and save them: from_pretrained(FOLDER, from_tf=True)"
     ".save_pretrained(NEW)",
     false},
    {"flax_model*.msgpack", "weights for Flax",
     "load them with transformers 4 and save them: from_pretrained(FOLDER, from_flax=True)"
     ".save_pretrained(NEW)",
     false},
    {"@(onnx|*.onnx*)", "an ONNX export", FETCH, false},
    {"weights*.npz", "weights for MLX", FETCH, false},
    {"*.mlpackage", "a Core ML export", FETCH, false},
    {"*.@(pt*|bin)", "weights as PyTorch writes them", RESAVE, false},
    {"*.safetensors", "weights under another name", "name them model.safetensors; found", true},
    {0},
};

/* Files given as a model, by their own name. */
static const struct mistake model_files[] = {
    {"adapter_*", "a file of an adapter",
     "give the model that it was made for as --model, and as --adapter the folder", true},
    {"@(*.safetensors|*.json|tokenizer.model|pytorch_model*)", "one file of a model",
     "give the folder:", true},
    {"*.@(zip|tar*|tgz)", "an archive", "unpack it first", false},
    {"*.onnx", "an ONNX export", FETCH, false},
    {"@(ggml*.bin|*.ggml*)", "a file of the time before GGUF", "take a GGUF file of the model",
     false},
    {"*.h5", "an HDF5 file", "give the folder of a model", false},
    {"*.pt*", "weights as PyTorch writes them", RESAVE, false},
    {0},
};

/* Folders without adapter_config.json, given as an adapter. */
static const struct mistake no_adapter_config[] = {
    {"config.json", "a whole model", "give it as --model, without --adapter", false},
    {"adapters.*", "an adapter of MLX", "adapters of PEFT alone can be read", false},
    {"*.gguf", "an adapter for llama.cpp", "give the folder of PEFT that it was made from", false},
    {"pytorch_lora_weights.*", "an adapter of diffusers", "adapters of PEFT alone can be read",
     false},
    {"adapter_model.*", "an adapter without adapter_config.json", "put it beside the weights",
     false},
    {"pytorch_model*", "a state of a training", "save the adapter with PEFT's save_pretrained()",
     false},
    {0},
};

/* Folders with adapter_config.json that lack adapter_model.safetensors. */
static const struct mistake no_adapter_weights[] = {
    {"adapter_model.bin", "an adapter as PyTorch writes it", TO_SAFETENSORS, false},
    {"adapters.*", "an adapter of MLX", "adapters of PEFT alone can be read", false},
    {"*.gguf", "an adapter for llama.cpp", "give the folder of PEFT that it was made from", false},
    {"*.safetensors", "weights under another name", "name them adapter_model.safetensors; found",
     true},
    {"*", "adapter_config.json without weights", "put adapter_model.safetensors beside it", false},
    {0},
};

/* What would be left out of an adapter that is otherwise whole. */
static const struct mistake adapter_extras[] = {
    {"trainable_params.bin",
     "an adapter with LongLoRA's embedding and norms as PyTorch writes them",
     TO_SAFETENSORS ", as trainable_params.safetensors", false},
    {0},
};

/* Files given as an adapter, by their own name. */
static const struct mistake adapter_files[] = {
    {"*.gguf", "an adapter for llama.cpp", "give the folder of PEFT that it was made from", false},
    {"*.@(safetensors|json)", "one file of an adapter", "give the folder:", true},
    {"*", "a file", "give the folder that holds adapter_config.json", false},
    {0},
};

/* Quantized weights: quant_method of quantization_config. */
static const struct {
    const char *method, *what;
} quantized[] = {
    {"fp8", "FP8 weights"},
    {"fbgemm_fp8", "FP8 weights"},
    {"gptq", "GPTQ weights"},
    {"awq", "AWQ weights"},
    {"bitsandbytes", "bitsandbytes weights"},
    {"compressed-tensors", "compressed-tensors weights (of vLLM)"},
    {"mxfp4", "MXFP4 weights"},
    {NULL, "quantized weights"}, /* any other */
};
#define UNQUANTIZED "take the model from before its quantization, or a GGUF file of it"

/* ---- looking ---- */

static bool exists(const char *folder, const char *name) {
    char path[FKV_PATH];
    struct stat found;
    return !fkv_path_print(path, NULL, "%s/%s", folder, name) && !lstat(path, &found);
}

/* The first name in the folder that the pattern matches and that `has` (NULL: nothing) is in, in
 * the order of names. */
static bool find_entry(const char *folder, const char *pattern, const char *has, char name[256]) {
    struct dirent **entries;
    const int n = scandir(folder, &entries, NULL, alphasort);
    bool found = false;
    for (int i = 0; i < n; i++) {
        char inner[FKV_PATH];
        const char *entry = entries[i]->d_name;
        if (!found && strcmp(entry, ".") && strcmp(entry, "..") &&
            !fnmatch(pattern, entry, FNM_EXTMATCH) &&
            (!has ||
             (!fkv_path_print(inner, NULL, "%s/%s", folder, entry) && exists(inner, has)))) {
            snprintf(name, 256, "%s", entry);
            found = true;
        }
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    return found;
}

static int refuse(const char *path, const char *kind, const struct mistake *m, const char *named,
                  struct fkv_error *err) {
    return fkv_fail(err, "%s: expected %s, found %s; %s%s%s", path, kind, m->what, m->remedy,
                    m->names_it ? " " : "", m->names_it ? named : "");
}

static int look_in_folder(const char *folder, const char *kind, const struct mistake *table,
                          struct fkv_error *err) {
    char name[256], path[FKV_PATH];
    for (const struct mistake *m = table; m->look_for; m++)
        if (find_entry(folder, m->look_for, NULL, name)) {
            if (fkv_path_print(path, err, "%s/%s", folder, name)) return FKV_FAILED;
            return refuse(folder, kind, m, path, err);
        }
    return FKV_OK;
}

static int look_at_name(const char *file, const char *kind, const struct mistake *table,
                        struct fkv_error *err) {
    const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
    char folder[FKV_PATH];
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - file) : 1, slash ? file : ".");
    for (const struct mistake *m = table; m->look_for; m++)
        if (!fnmatch(m->look_for, name, FNM_EXTMATCH)) return refuse(file, kind, m, folder, err);
    return FKV_OK;
}

/* ---- the hub ---- */

/* ORGANISATION/NAME, as a hub has it? */
static bool is_hub_name(const char *path) {
    const char *slash = strchr(path, '/');
    return slash && slash != path && slash[1] && !strchr(slash + 1, '/') && *path != '.' &&
           *path != '~' && path[strcspn(path, " \t\\:")] == 0;
}

/* The snapshot that a root in the hub's cache has: of refs/main where it says one, else the first;
 * "" where there is none. */
static void find_snapshot(const char *root, char path[FKV_PATH]) {
    char name[256] = "";
    if (!fkv_path_print(path, NULL, "%s/refs/main", root)) {
        FILE *f = fopen(path, "r");
        if (f && !fgets(name, sizeof name, f)) name[0] = 0;
        if (f) fclose(f);
        name[strcspn(name, " \r\n/")] = 0;
    }
    char folder[FKV_PATH];
    if (fkv_path_print(folder, NULL, "%s/snapshots", root)) *folder = 0;
    if ((!*name || !exists(folder, name)) && !find_entry(folder, "[!.]*", NULL, name)) *name = 0;
    if (!*name || fkv_path_print(path, NULL, "%s/%s", folder, name)) *path = 0;
}

/* Where huggingface_hub keeps what it has fetched. */
static void find_in_cache(const char *hub_name, char path[FKV_PATH]) {
    const char *cache = getenv("HF_HUB_CACHE"), *hf = getenv("HF_HOME"), *home = getenv("HOME");
    char base[FKV_PATH], root[FKV_PATH];
    const int slash = (int)strcspn(hub_name, "/");
    const int status =
        cache ? fkv_path_print(base, NULL, "%s", cache)
        : hf  ? fkv_path_print(base, NULL, "%s/hub", hf)
              : fkv_path_print(base, NULL, "%s/.cache/huggingface/hub", home ? home : "");
    *path = 0;
    if (!status && !fkv_path_print(root, NULL, "%s/models--%.*s--%s", base, slash, hub_name,
                                   hub_name + slash + 1))
        find_snapshot(root, path);
}

static int refuse_absent(const char *path, const char *option, struct fkv_error *err) {
    char snapshot[FKV_PATH];
    if (!is_hub_name(path))
        return fkv_fail(err,
                        "%s: no such folder; %s is a folder%s on this machine (for one of the hub: "
                        "hf download NAME, which prints the folder)",
                        path, option, strcmp(option, "--model") ? "" : " or a .gguf file");
    find_in_cache(path, snapshot);
    if (*snapshot)
        return fkv_fail(err,
                        "%s: no such folder; the hub's model of that name is in %s: give %s %s",
                        path, "the cache", option, snapshot);
    return fkv_fail(err,
                    "%s: no such folder; if it is a name on the hub: hf download %s, which prints "
                    "the folder to give",
                    path, path);
}

/* A root of the hub's cache, or a folder above those that are meant, which hold `file`. */
static int look_above(const char *folder, const char *kind, const char *file,
                      struct fkv_error *err) {
    char path[FKV_PATH], name[256];
    const struct mistake snapshot = {.what = "the root of a model in the hub's cache",
                                     .remedy = "give the snapshot:",
                                     .names_it = true},
                         above = {.what = "a folder above one", .remedy = "give", .names_it = true},
                         empty = {.what = "an empty folder", .remedy = FETCH " --local-dir FOLDER"},
                         cut = {.what = "the root of a model in the hub's cache without a snapshot",
                                .remedy = FETCH};
    if (exists(folder, "snapshots")) {
        find_snapshot(folder, path);
        return refuse(folder, kind, *path ? &snapshot : &cut, path, err);
    }
    if (find_entry(folder, "*", file, name)) {
        if (fkv_path_print(path, err, "%s/%s", folder, name)) return FKV_FAILED;
        return refuse(folder, kind, &above, path, err);
    }
    return find_entry(folder, "[!.]*", NULL, name) ? FKV_OK : refuse(folder, kind, &empty, "", err);
}

/* ---- git-lfs ---- */

int fkv_mistaken_pointer(const char *path, struct fkv_error *err) {
    static const char first[] = "version https://git-lfs.github.com/spec/";
    char start[sizeof first] = "";
    struct stat info;
    if (stat(path, &info) || !S_ISREG(info.st_mode) || info.st_size > 1024) return FKV_OK;
    FILE *f = fopen(path, "rb");
    if (!f) return FKV_OK;
    const bool pointer =
        fread(start, 1, sizeof first - 1, f) == sizeof first - 1 && !strcmp(start, first);
    fclose(f);
    if (!pointer) return FKV_OK;
    return fkv_fail(err,
                    "%s: expected the file itself, found a pointer of git-lfs to it; run git lfs "
                    "pull in its folder, or hf download NAME",
                    path);
}

/* The files of the folder that the pattern matches. */
static int look_for_pointers(const char *folder, const char *pattern, struct fkv_error *err) {
    struct dirent **entries;
    const int n = scandir(folder, &entries, NULL, alphasort);
    int status = FKV_OK;
    for (int i = 0; i < n; i++) {
        char path[FKV_PATH];
        if (!status && !fnmatch(pattern, entries[i]->d_name, 0) &&
            !fkv_path_print(path, NULL, "%s/%s", folder, entries[i]->d_name))
            status = fkv_mistaken_pointer(path, err);
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    return status;
}

/* ---- what files of a model say ---- */

enum { MAX_JSON_BYTES = 64 << 20 };

/* FOLDER/name as JSON, or NULL: what is wrong with it is said where it is read. */
static json_t *load_json(const char *folder, const char *name, char path[FKV_PATH]) {
    struct fkv_error ignored;
    if (fkv_path_print(path, &ignored, "%s/%s", folder, name)) return NULL;
    return fkv_json_load(path, MAX_JSON_BYTES, &ignored);
}

static int look_for_quantization(const char *folder, struct fkv_error *err) {
    char path[FKV_PATH];
    json_t *root = load_json(folder, "config.json", path);
    const json_t *config = json_object_get(root, "quantization_config"),
                 *mlx = json_object_get(json_object_get(root, "quantization"), "bits");
    const char *method = json_string_value(json_object_get(config, "quant_method"));
    int status = FKV_OK, i = 0;
    while (quantized[i].method && (!method || strcmp(quantized[i].method, method))) i++;
    if (json_is_object(config))
        status = fkv_fail(
            err, "%s: field \"quantization_config\": expected none, found %.64s: %s; " UNQUANTIZED,
            path, method ? method : "one", quantized[i].what);
    else if (mlx)
        status = fkv_fail(err,
                          "%s: field \"quantization\": expected none, found %lld bits: weights for "
                          "MLX; " UNQUANTIZED,
                          path, (long long)json_integer_value(mlx));
    json_decref(root);
    return status;
}

static int look_for_missing_shards(const char *folder, struct fkv_error *err) {
    char path[FKV_PATH];
    json_t *root = load_json(folder, "model.safetensors.index.json", path),
           *map = json_object_get(root, "weight_map");
    const char *missing = NULL;
    for (void *at = json_object_iter(map); at && !missing; at = json_object_iter_next(map, at)) {
        const char *shard = json_string_value(json_object_iter_value(at));
        if (shard && *shard && *shard != '/' && !strstr(shard, "..") && !exists(folder, shard))
            missing = shard;
    }
    int status = FKV_OK;
    if (missing)
        status = fkv_fail(err,
                          "%s: expected the shards that it names, found no %.200s; the download is "
                          "not whole: run hf download NAME again",
                          path, missing);
    json_decref(root);
    return status;
}

/* ---- answers ---- */

int fkv_mistaken_model(const char *path, const char *expected, struct fkv_error *err) {
    struct stat info;
    char shard[256];
    if (stat(path, &info))
        return errno == ENOENT ? refuse_absent(path, "--model", err)
                               : fkv_fail_errno(err, "%s: cannot open", path);
    if (!S_ISDIR(info.st_mode))
        return fkv_mistaken_pointer(path, err) || look_at_name(path, expected, model_files, err)
                   ? FKV_FAILED
                   : FKV_OK;
    if (!exists(path, "config.json"))
        return look_in_folder(path, expected, no_config, err) ||
                       look_above(path, expected, "config.json", err)
                   ? FKV_FAILED
                   : FKV_OK;
    if (look_for_pointers(path, "config.json", err) ||
        look_for_pointers(path, "*.safetensors", err) || look_for_quantization(path, err))
        return FKV_FAILED;
    if (exists(path, "model.safetensors")) return FKV_OK;
    if (exists(path, "model.safetensors.index.json")) return look_for_missing_shards(path, err);
    if (find_entry(path, "model-*-of-*.safetensors", NULL, shard)) return FKV_OK;
    return look_in_folder(path, expected, no_weights, err);
}

int fkv_mistaken_adapter(const char *path, struct fkv_error *err) {
    static const char kind[] = "an adapter's folder";
    struct stat info;
    if (stat(path, &info))
        return errno == ENOENT ? refuse_absent(path, "--adapter", err)
                               : fkv_fail_errno(err, "%s: cannot open", path);
    if (!S_ISDIR(info.st_mode)) return look_at_name(path, kind, adapter_files, err);
    if (!exists(path, "adapter_config.json"))
        return look_in_folder(path, kind, no_adapter_config, err) ||
                       look_above(path, kind, "adapter_config.json", err)
                   ? FKV_FAILED
                   : FKV_OK;
    if (look_for_pointers(path, "*.safetensors", err) || look_for_pointers(path, "*.json", err))
        return FKV_FAILED;
    if (!exists(path, "adapter_model.safetensors"))
        return look_in_folder(path, kind, no_adapter_weights, err);
    return exists(path, "trainable_params.safetensors")
               ? FKV_OK
               : look_in_folder(path, kind, adapter_extras, err);
}
