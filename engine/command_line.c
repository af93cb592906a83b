/* Parsing the options that every tool with an engine shares, and opening what they name; see
 * command_line.h. */
#include "engine/command_line.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/checkpoint/mistaken.h"
#include "kernels/backend_option.h"
#include "kernels/base/host.h"
#include "kernels/base/path.h"

void fkv_engine_options_default(struct fkv_engine_options *o) {
    *o = (struct fkv_engine_options){.backend = "auto", .device = FKV_ANY_DEVICE, .batch = 1};
}

enum {
    OPT_TOKEN_DTYPE = FKV_NO_LETTER,
    OPT_TEXT_FORMAT,
    OPT_TEXT_FIELD,
    OPT_MAX_DOCUMENTS,
    OPT_TRAINED_CONTEXT,
    OPT_ROPE_SCALING,
    OPT_ADAPTER,
    OPT_COMPUTE,
    OPT_CACHE_DTYPE
};

static const struct argp_option engine_options[] = {
    {0, 0, 0, 0, "Model and text:", 1},
    {"model", FKV_LETTER_MODEL, "PATH", 0, "a Hugging Face folder or a .gguf file", 1},
    {"adapter", OPT_ADAPTER, "DIR", 0, "a LoRA adapter of PEFT, merged while loading", 1},
    {"trained-context", OPT_TRAINED_CONTEXT, "T", 0, "tokens (default: as the config says)", 1},
    {"rope-scaling", OPT_ROPE_SCALING, "KIND:F", 0,
     "linear, yarn or dynamic by a factor, in the place of the model's own", 1},
    {"text", FKV_LETTER_TEXT, "PATH...", 0,
     "text, a folder of .txt, rows of JSON (.jsonl), or - (standard input)", 1},
    {"text-format", OPT_TEXT_FORMAT, "TYPE", 0, "text or jsonl (default: by the file's name)", 1},
    {"text-field", OPT_TEXT_FIELD, "NAME", 0, "of a row (default: text, or article)", 1},
    {"token-ids", FKV_LETTER_TOKEN_IDS, "PATH...", 0, "ids as .npy or raw little-endian integers",
     1},
    {"token-dtype", OPT_TOKEN_DTYPE, "TYPE", 0,
     "of raw ids: uint16 or uint32 (default: uint16 if it fits)", 1},
    {"max-documents", OPT_MAX_DOCUMENTS, "D", 0, "stop after D documents", 1},
    {0, 0, 0, 0, "Machine:", 8},
    FKV_BACKEND_ROW(8),
    FKV_DEVICE_ROW(8),
    FKV_THREADS_ROW(8),
    {"compute", OPT_COMPUTE, "TYPE", 0, "f32 or bf16 (default: f32; GPU: as the weights)", 8},
    {"cache-dtype", OPT_CACHE_DTYPE, "TYPE", 0, "f32, f16, bf16 (default: f32; GPU: the weights')",
     8},
    {"batch", FKV_LETTER_BATCH, "B", 0, "documents side by side (default 1)", 8},
    {0, 0, 0, 0, "Output:", 9},
    FKV_QUIET_ROW(9),
    FKV_JSON_ROW(9),
    {0},
};

/* Adds a path to the list that `key` stands for, and remembers where the next one would stand. */
static void add_path(struct fkv_engine_options *o, int key, const char *path,
                     struct argp_state *state) {
    const int most = (int)(sizeof o->texts / sizeof *o->texts);
    const bool text = key == FKV_LETTER_TEXT;
    int *count = text ? &o->text_count : &o->token_ids_count;
    if (*count == most)
        argp_error(state, "--%s: at most %d paths%s", text ? "text" : "token-ids", most,
                   text ? "; give a folder" : "");
    (text ? o->texts : o->token_ids)[(*count)++] = path;
    o->list = key;
    o->list_next = state->next;
}

static error_t parse_engine(int key, char *arg, struct argp_state *state) {
    struct fkv_engine_options *o = state->input;
    struct fkv_error err;
    switch (key) {
    case FKV_LETTER_MODEL: o->model = arg; return 0;
    case OPT_ADAPTER: o->adapter = arg; return 0;
    case OPT_TRAINED_CONTEXT:
        o->trained_context =
            (int32_t)fkv_integer_option(state, arg, "--trained-context", 1, 1 << 30);
        return 0;
    case OPT_ROPE_SCALING:
        if (fkv_rope_scaling_parse(arg, "--rope-scaling", &o->rope_scaling, &err))
            argp_error(state, "%s", err.message);
        return 0;
    case FKV_LETTER_TEXT:
    case FKV_LETTER_TOKEN_IDS: add_path(o, key, arg, state); return 0;
    case ARGP_KEY_ARG: /* a shell makes several of a pattern */
        if (!o->list || state->next - 1 != o->list_next)
            argp_error(state, "\"%s\" belongs to no option", arg);
        add_path(o, o->list, arg, state);
        return 0;
    case OPT_TEXT_FORMAT:
        if (strcmp(arg, "text") && strcmp(arg, "txt") && strcmp(arg, "jsonl"))
            argp_error(state, "--text-format: expected text or jsonl, found \"%s\"", arg);
        o->text_format = arg;
        return 0;
    case OPT_TEXT_FIELD: o->text_field = arg; return 0;
    case OPT_TOKEN_DTYPE:
        if (strcmp(arg, "uint16") && strcmp(arg, "uint32"))
            argp_error(state, "--token-dtype: expected uint16 or uint32, found \"%s\"", arg);
        o->token_dtype = arg;
        return 0;
    case OPT_MAX_DOCUMENTS:
        o->max_documents = fkv_integer_option(state, arg, "--max-documents", 1, INT64_MAX);
        return 0;
    case FKV_LETTER_BACKEND: o->backend = fkv_backend_option(state, arg); return 0;
    case FKV_LETTER_DEVICE: o->device = fkv_device_option(state, arg); return 0;
    case FKV_LETTER_THREADS: o->threads = fkv_threads_option(state, arg); return 0;
    case OPT_COMPUTE:
        if (strcmp(arg, "f32") && strcmp(arg, "bf16"))
            argp_error(state, "--compute: expected f32 or bf16, found \"%s\"", arg);
        o->compute = strcmp(arg, "f32") ? FKV_COMPUTE_BF16 : FKV_COMPUTE_F32;
        return 0;
    case OPT_CACHE_DTYPE:
        if (fkv_dtype_parse(arg, &o->cache_dtype))
            argp_error(state, "--cache-dtype: expected f32, f16 or bf16, found \"%s\"", arg);
        o->cache_dtype_given = true;
        return 0;
    case FKV_LETTER_BATCH:
        o->batch = (int32_t)fkv_integer_option(state, arg, "--batch", 1, 1 << 16);
        return 0;
    case FKV_LETTER_QUIET: o->quiet = true; return 0;
    case FKV_LETTER_JSON: o->json = true; return 0;
    case ARGP_KEY_END:
        if (!o->model)
            argp_error(state, "--model is missing: a Hugging Face folder or a .gguf file");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fkv_engine_argp = {.options = engine_options, .parser = parse_engine};

FILE *fkv_needs_stream(const struct fkv_engine_options *options, bool dry_run) {
    if (dry_run) return options->json ? NULL : stdout;
    return options->quiet ? NULL : stderr;
}

/* Where only token ids are read a tokenizer is a help (BOS, classes of tokens) and no need. */
static int open_tokenizer(const struct fkv_engine_options *o, struct fkv_engine *engine,
                          struct fkv_error *err) {
    const bool needed = o->text_count || (!o->token_ids_count && !o->without_tokenizer);
    if (!needed && !fkv_tokenizer_exists(o->model)) return FKV_OK;
    struct fkv_error why;
    char file[FKV_PATH];
    if (fkv_tokenizer_open(o->model, &engine->tokenizer, &why)) {
        if (!fkv_path_print(file, NULL, "%s/tokenizer.json", o->model))
            fkv_mistaken_pointer(file, &why); /* says more, where it is one */
        if (needed) return fkv_fail(err, "%s", why.message);
        if (!o->quiet) fprintf(stderr, "note: going on without a tokenizer: %s\n", why.message);
    } else if (!o->quiet && *fkv_tokenizer_note(engine->tokenizer)) {
        fprintf(stderr, "note: %s\n", fkv_tokenizer_note(engine->tokenizer));
    }
    return FKV_OK;
}

/* Configs of models tuned for a longer context often keep the old one beside the factor. Only
 * linear scaling does not say from which context it starts. */
static void note_stretched_context(const struct fkv_engine_options *o, const struct fkv_config *c) {
    const struct fkv_rope *rope = &c->rotations[0];
    const double stretched = rope->factor * (rope->original ? rope->original : c->trained_context);
    if (o->trained_context || o->rope_scaling.kind || stretched <= c->trained_context ||
        rope->by_length)
        return;
    fprintf(stderr,
            "note: rope_scaling is %s by %g; if the trained context of %d is the one from before "
            "it, give --trained-context %.0f\n",
            rope->kind, rope->factor, c->trained_context, stretched);
}

/* What --rope-scaling did to the model. */
static void note_rescaled(const struct fkv_engine_options *o, const struct fkv_model *m) {
    const struct fkv_config *own = fkv_checkpoint_config(m->checkpoint);
    const char *replaced = fkv_rope_scaling_name(&own->rotations[0]);
    if (!o->rope_scaling.kind) return;
    const char *kind = m->config.rotations[0].kind;
    if (m->config.rotations[0].by_length)
        fprintf(stderr, "note: --rope-scaling: %s beyond the trained context of %d tokens", kind,
                own->trained_context);
    else
        fprintf(stderr, "note: --rope-scaling: %s takes the trained context from %d to %d tokens",
                kind, own->trained_context, m->config.trained_context);
    if (replaced) fprintf(stderr, "; the model's own scaling, %s, is replaced", replaced);
    fputc('\n', stderr);
}

void fkv_note_rotation(const struct fkv_engine_options *o, const struct fkv_config *c,
                       int64_t positions) {
    for (int32_t r = 0; r < c->rotation_count && !o->quiet; r++) {
        char text[128];
        if (fkv_rope_describe(&c->rotations[r], positions, text))
            fprintf(
                stderr,
                "note: rotation %s, the most that a text here reaches; shorter texts turn alike\n",
                text);
    }
}

/* The last part of a path or of a hub's name, its letters small and what is neither letter nor
 * digit left out. */
static void plain_name(const char *path, char name[256]) {
    size_t end = strlen(path), used = 0;
    while (end && path[end - 1] == '/') end--;
    size_t start = end;
    while (start && path[start - 1] != '/') start--;
    for (size_t i = start; i < end && used < 255; i++)
        if (isalnum((unsigned char)path[i])) name[used++] = (char)tolower((unsigned char)path[i]);
    name[used] = 0;
}

/* What the adapter does that a user may not expect. Shapes fit by now; names may still differ. A
 * GGUF file's name begins with its model's. */
static void note_adapter(const struct fkv_model *m) {
    char made_for[256], base[256], bytes[16];
    if (!m->adapter) return;
    const char *plus = strrchr(m->name, '+'), *said = fkv_adapter_base(m->adapter);
    char name[256];
    snprintf(name, sizeof name, "%.*s", (int)(plus - m->name), m->name);
    plain_name(said, made_for);
    plain_name(name, base);
    if (*made_for && strncmp(base, made_for, strlen(made_for)))
        fprintf(stderr,
                "note: the adapter was made for %.200s, --model is %s; their shapes agree\n", said,
                name);
    const int32_t rows = fkv_adapter_rows_left_out(m->adapter);
    if (rows)
        fprintf(stderr,
                "note: the adapter's embedding has %d rows more than the base; they are left out "
                "(tokens that were added for the training)\n",
                rows);
    fkv_format_bytes(bytes, m->merged_bytes);
    if (m->merged_bytes && !(m->held.buffer && m->rounds))
        fprintf(stderr,
                "note: what the adapter changes is kept in float32 and takes %s of memory\n",
                bytes);
}

static void note_rounded(const struct fkv_model *m) {
    char bytes[16];
    if (!m->rounds) return;
    fkv_format_bytes(bytes, m->held_bytes);
    fprintf(stderr,
            m->held.buffer
                ? "note: weights are held in memory, matrices in bfloat16: %s\n"
                : "note: weights are rounded to bfloat16 at every product, which is slow in "
                  "decoding: holding them so takes %s, more than half of the memory there is\n",
            bytes);
}

/* expanded: the format of weights that are expanded. */
static void note_model(const struct fkv_engine_options *o, const struct fkv_model *m,
                       enum fkv_dtype expanded) {
    const char *note = fkv_checkpoint_note(m->checkpoint);
    if (m->expanded_from)
        fprintf(stderr, "note: weights in %s are expanded to %s on the GPU\n", m->expanded_from,
                fkv_dtype_name(expanded));
    note_rounded(m);
    if (*note) fprintf(stderr, "note: %s\n", note);
    note_stretched_context(o, &m->config);
    note_rescaled(o, m);
    note_adapter(m);
}

int fkv_engine_open(const struct fkv_engine_options *o, struct fkv_engine *engine,
                    struct fkv_error *err) {
    const struct fkv_backend_options backend = {
        .device = o->device, .threads = o->threads, .compute = o->compute};
    const struct fkv_model_options model = {.check_values = true,
                                            .adapter = o->adapter,
                                            .trained_context = o->trained_context,
                                            .rope_scaling = o->rope_scaling,
                                            .held = o->decodes,
                                            .rounded = o->compute == FKV_COMPUTE_BF16,
                                            .expanded = o->compute == FKV_COMPUTE_F32    ? FKV_F32
                                                        : o->compute == FKV_COMPUTE_BF16 ? FKV_BF16
                                                                                         : FKV_F16};
    struct fkv_error why;
    *engine = (struct fkv_engine){0};
    if (fkv_backend_find(o->backend, &engine->ops, &why, err)) return FKV_FAILED;
    if (why.message[0] && !o->quiet)
        fprintf(stderr, "note: computing on the CPU: %s\n", why.message);
    if (engine->ops->open(&backend, &engine->backend, err)) return FKV_FAILED;
    if (engine->ops->info(engine->backend, &engine->device, err) ||
        fkv_model_open(o->model, engine->ops, engine->backend, &model, &engine->model, err))
        goto failed;
    if (!o->quiet) note_model(o, engine->model, model.expanded);
    if (open_tokenizer(o, engine, err)) goto failed;
    return FKV_OK;
failed:
    fkv_engine_close(engine);
    return FKV_FAILED;
}

void fkv_engine_close(struct fkv_engine *engine) {
    fkv_tokenizer_close(engine->tokenizer);
    fkv_model_close(engine->model);
    if (engine->ops) engine->ops->close(engine->backend);
    *engine = (struct fkv_engine){0};
}

enum fkv_dtype fkv_engine_cache_dtype(const struct fkv_engine_options *o,
                                      const struct fkv_engine *engine) {
    if (o->cache_dtype_given) return o->cache_dtype;
    if (engine->device.space != FKV_DEVICE || o->compute == FKV_COMPUTE_F32) return FKV_F32;
    enum fkv_dtype weights = fkv_weight_dtype(&engine->model->layers[0].qkv.wq);
    return o->compute == FKV_COMPUTE_NATIVE || weights == FKV_BF16 ? weights : FKV_F32;
}

const char *fkv_engine_compute_name(const struct fkv_engine_options *o,
                                    const struct fkv_engine *engine) {
    if (o->compute == FKV_COMPUTE_BF16) return "bf16";
    if (o->compute == FKV_COMPUTE_F32 || engine->device.space == FKV_HOST) return "f32";
    return fkv_dtype_name(fkv_weight_dtype(&engine->model->layers[0].qkv.wq));
}

void fkv_engine_announce(const struct fkv_engine_options *o, const struct fkv_engine *engine,
                         FILE *to) {
    const struct fkv_device_info *d = &engine->device;
    if (!to) return;
    fprintf(to, "computing in %s on %s\n", fkv_engine_compute_name(o, engine), d->name);
    if (d->note[0]) fprintf(to, "note: %s\n", d->note);
}

const char *fkv_engine_tokenizer_sha256(const struct fkv_engine *engine) {
    return engine->tokenizer ? fkv_tokenizer_sha256(engine->tokenizer) : "";
}

int32_t fkv_engine_added_bos(const struct fkv_engine *engine) {
    const struct fkv_tokenizer *t = engine->tokenizer;
    return t ? fkv_tokenizer_bos(t) : -1;
}

int fkv_engine_documents(const struct fkv_engine_options *o, const struct fkv_tokenizer *tokenizer,
                         int32_t vocab, bool special, struct fkv_documents **out,
                         struct fkv_error *err) {
    const struct fkv_documents_options options = {.texts = o->texts,
                                                  .text_count = o->text_count,
                                                  .text_format = o->text_format,
                                                  .text_field = o->text_field,
                                                  .token_ids = o->token_ids,
                                                  .token_ids_count = o->token_ids_count,
                                                  .token_dtype = o->token_dtype,
                                                  .max_documents = o->max_documents,
                                                  .vocab = vocab,
                                                  .special = special};
    return fkv_documents_open(&options, tokenizer, out, err);
}
