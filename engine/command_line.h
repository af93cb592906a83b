/* The options that every tool with an engine shares, and opening what they name: backend, model,
 * tokenizer, documents. */
#ifndef FKV_ENGINE_COMMAND_LINE_H
#define FKV_ENGINE_COMMAND_LINE_H

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>

#include "engine/text/documents.h"
#include "engine/checkpoint/model.h"
#include "engine/cache/setup.h"
#include "engine/session/session.h"
#include "kernels/base/arguments.h"

struct fkv_engine_options {
    const char *model, *backend;          /* backend: "auto" */
    const char *adapter;                  /* NULL: none */
    int32_t trained_context;              /* 0: as the config says */
    struct fkv_rope_scaling rope_scaling; /* a NULL kind: the model's own */
    int device, threads;                  /* threads 0: the cores it may use */
    enum fkv_compute compute;
    enum fkv_dtype cache_dtype; /* where cache_dtype_given; ask fkv_engine_cache_dtype */
    bool cache_dtype_given;
    int32_t
        batch; /* documents side by side; a tool that has no use for more than one refuses them */
    const char *texts[1024], *token_ids[1024];
    int text_count, token_ids_count;
    int list, list_next; /* of the parser: the option whose list an argument at argv[list_next]
                            continues */
    const char *text_format, *text_field; /* NULL: by name, by default */
    const char *token_dtype;
    int64_t max_documents;  /* 0: all */
    bool without_tokenizer; /* where no text is named, the tool reads none: it needs no tokenizer */
    bool decodes;           /* the tool draws tokens one by one: a host then copies the weights */
    bool quiet, json;
};
void fkv_engine_options_default(struct fkv_engine_options *o);

/* Child parsers (struct argp_child): their input is a struct fkv_engine_options * and a struct
 * fkv_policy_options *. Give them in your own parser's ARGP_KEY_INIT through state->child_inputs,
 * and parse with ARGP_IN_ORDER, or `--text a.txt b.txt` does not work. A bad value ends the program
 * with FKV_EXIT_USAGE and a message, as argp does. */
extern const struct argp
    fkv_engine_argp; /* --model --adapter --trained-context --rope-scaling --text
                        --text-format --text-field --token-ids --token-dtype --max-documents
                        --backend --device --threads --compute
                        --cache-dtype --batch --quiet --json */
extern const struct argp fkv_policy_argp; /* --policy --window --budget --sinks --gamma and the own
                                             options of every policy */
/* Call before argp_parse: fills fkv_policy_argp's list from the table of policies, too. */
void fkv_policy_options_default(struct fkv_policy_options *o);
/* A note on `to` (NULL: nowhere) for each of --window, --sinks, --gamma that was given and that the
 * policy has no use for: loops over policies give all of them the same. */
void fkv_policy_note_unused(const struct fkv_policy_options *o, FILE *to);

/* A note on `to` (NULL: nowhere) of what a cache is rounded to; nothing where it is not. */
void fkv_policy_note_quant(const struct fkv_policy_options *o, FILE *to);

/* A note on `to` (NULL: nowhere) of the layers that slide over less than the policy's window and
 * that it leaves alone (sliding.c). */
void fkv_policy_note_left_alone(const struct fkv_policy_setup *setup,
                                const struct fkv_config *config, FILE *to);
/* A note on `to` (NULL: nowhere) of the layers that slide over less than so many slots, which a
 * change of all of them reaches nevertheless. */
void fkv_note_changed_beyond(const struct fkv_config *config, int64_t slots, FILE *to);

/* Where a tool says what a run will need: with --dry-run that is the result, else a note unless
 * --quiet. NULL: nowhere, or later as JSON. */
FILE *fkv_needs_stream(const struct fkv_engine_options *options, bool dry_run);

/* A note on stderr, unless --quiet, of each rotation that depends on the length: what was chosen
 * for so many positions (fkv_session_rotation_positions). */
void fkv_note_rotation(const struct fkv_engine_options *options, const struct fkv_config *config,
                       int64_t positions);

struct fkv_engine {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *backend;
    struct fkv_model *model;
    struct fkv_tokenizer
        *tokenizer; /* NULL when only token ids are read and the folder has none that can be read */
    struct fkv_device_info device; /* before the model was loaded */
};
int fkv_engine_open(const struct fkv_engine_options *o, struct fkv_engine *engine,
                    struct fkv_error *err);
void fkv_engine_close(struct fkv_engine *engine);
/* What sessions' caches hold: what --cache-dtype says; by default float32, but the weights' own
 * 16-bit dtype on a device that computes in it. */
enum fkv_dtype fkv_engine_cache_dtype(const struct fkv_engine_options *o,
                                      const struct fkv_engine *engine);
/* How products are computed, "f32" or "bf16": what --compute says; by default float32 on the CPU,
 * the weights' own dtype on a device. It changes numbers, so files say it and nothing is resumed or
 * joined across it. */
const char *fkv_engine_compute_name(const struct fkv_engine_options *o,
                                    const struct fkv_engine *engine);
/* One line that says what computes and in what ("computing in f32 on CPU, 2 threads, avx512, oneDNN
 * 2.6.3"), and a note where the user should know more. Nothing where `to` is NULL. */
void fkv_engine_announce(const struct fkv_engine_options *o, const struct fkv_engine *engine,
                         FILE *to);
/* "" without a tokenizer. */
const char *fkv_engine_tokenizer_sha256(const struct fkv_engine *engine);
/* The BOS that the tokenizer puts before a text; -1: it adds none, or there is no tokenizer. */
int32_t fkv_engine_added_bos(const struct fkv_engine *engine);
/* Sets options->block, the rows of a feed, for sessions that are fed `shares` blocks at a time (of
 * as many sequences): on a host 512 rows for each; on a device 4096 in all, or 512 for each where
 * that is more, and fewer where its free memory does not hold the session of `policy`, with
 * `baseline` one of full attention too, and `other_bytes` on top. Numbers depend on it by
 * rounding alone. (block.c) */
int fkv_engine_block(const struct fkv_engine *engine, const struct fkv_policy_options *policy,
                     bool baseline, int32_t shares, int64_t other_bytes,
                     struct fkv_session_options *options, struct fkv_error *err);
/* The documents that the options name (documents.h), in ids below `vocab`. `special`: with the
 * tokenizer's BOS where it adds one. `tokenizer` may be NULL where only token ids are given. */
int fkv_engine_documents(const struct fkv_engine_options *o, const struct fkv_tokenizer *tokenizer,
                         int32_t vocab, bool special, struct fkv_documents **out,
                         struct fkv_error *err);

#endif
