/* freqkv-capture: the command line of the recorder, and how its needs and its summary are shown. */
#include <argp.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "capture/recorder.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "kernels/base/start.h"

const char *argp_program_version = "freqkv-capture " FKV_VERSION;

static const char doc[] =
    "Runs a model over texts and writes the keys and values of its attention layers, per "
    "head and before RoPE, to a folder of HDF5 files.\n\n"
    "Example:\n"
    "  freqkv-capture --model Llama-3.2-1B --text books/ --out books.capture\n"
    "\v"
    "A text longer than --max-tokens becomes several recordings, each with an empty cache. "
    "OUT/capture.h5 opens in h5py as one tree: documents/000000/key is [layers, KV heads, "
    "tokens, head_dim].\n\n" FKV_EXIT_HELP "\n\n"
    "Files, JSON keys and definitions: man freqkv-capture.";

enum {
    OPT_STATES = FKV_NO_LETTER,
    OPT_LAYERS,
    OPT_HEADS,
    OPT_DTYPE,
    OPT_MAX_TOKENS,
    OPT_SPECTRA_ONLY,
    OPT_SHARD
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Capture:", 2},
    {"out", FKV_LETTER_OUT, "CAPTURE", 0, "a new folder (with --resume an old one)", 2},
    {"states", OPT_STATES, "LIST", 0, "key,value (default), key_rotated, query", 2},
    {"layers", OPT_LAYERS, "LIST", 0, "layers to capture, as in 0-3,7 (default: all)", 2},
    {"heads", OPT_HEADS, "LIST", 0, "KV heads to capture (default: all)", 2},
    {"dtype", OPT_DTYPE, "TYPE", 0, "f16 (default), f32 or bf16", 2},
    {"max-tokens", OPT_MAX_TOKENS, "T", 0, "tokens per recording (default: trained context)", 2},
    {"resume", FKV_LETTER_RESUME, 0, 0, "go on in a folder whose run was interrupted", 2},
    {"spectra-only", OPT_SPECTRA_ONLY, 0, 0, "write sums of power spectra, no states", 2},
    {"length", FKV_LETTER_LENGTH, "N", 0, "spectra: segment length (default: context - S)", 2},
    {"skip-sinks", FKV_LETTER_SKIP_SINKS, "S", 0, "spectra: skip the first S tokens (default 4)",
     2},
    {"shard", OPT_SHARD, "I/K", 0, "only documents whose index modulo K is I", 2},
    FKV_DRY_RUN_ROW(2),
    {0},
};

struct command {
    struct fkv_engine_options engine;
    struct fkv_recorder_options recorder;
    const char *layers, *heads;
    bool dry_run;
};

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

/* ---- parsing ---- */

static uint32_t parse_states(struct argp_state *state, const char *text) {
    uint32_t states = 0;
    for (const char *at = text; *at;) {
        size_t bytes = strcspn(at, ",");
        int found = -1;
        for (int i = 0; i < FKV_STATES; i++)
            if (strlen(fkv_state_names[i]) == bytes && !strncmp(at, fkv_state_names[i], bytes))
                found = i;
        if (found < 0)
            argp_error(state, "--states: expected key, value, key_rotated or query, found \"%.*s\"",
                       (int)bytes, at);
        states |= 1u << found;
        at += bytes + (at[bytes] == ',');
    }
    if (!states) argp_error(state, "--states: expected at least one");
    return states;
}

static void parse_shard(struct argp_state *state, char *text, struct fkv_recorder_options *r) {
    char *slash = strchr(text, '/');
    if (!slash) argp_error(state, "--shard: expected I/K, found \"%s\"", text);
    *slash = 0;
    r->shards = (int32_t)fkv_integer_option(state, slash + 1, "--shard: K", 1, 1000000);
    r->shard = (int32_t)fkv_integer_option(state, text, "--shard: I", 0, r->shards - 1);
    *slash = '/';
}

/* A capture reads its texts twice: for its needs, and to record. */
static void refuse_pipe(const struct argp_state *state, const char *path) {
    struct stat st;
    const bool pipe = stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
    if (pipe || !strcmp(path, "-"))
        argp_error(state, "--text %s: a capture reads its texts twice: write it to a file", path);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct command *c = state->input;
    struct fkv_recorder_options *r = &c->recorder;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &c->engine; return 0;
    case FKV_LETTER_OUT: r->out = arg; return 0;
    case OPT_STATES: r->states = parse_states(state, arg); return 0;
    case OPT_LAYERS: c->layers = arg; return 0;
    case OPT_HEADS: c->heads = arg; return 0;
    case OPT_DTYPE:
        if (fkv_dtype_parse(arg, &r->dtype))
            argp_error(state, "--dtype: expected f16, f32 or bf16, found \"%s\"", arg);
        return 0;
    case OPT_MAX_TOKENS:
        r->max_tokens = fkv_integer_option(state, arg, "--max-tokens", 2, 1 << 28);
        return 0;
    case FKV_LETTER_RESUME: r->resume = true; return 0;
    case OPT_SPECTRA_ONLY: r->spectra_only = true; return 0;
    case FKV_LETTER_LENGTH:
        r->length = (int32_t)fkv_integer_option(state, arg, "--length", 1, 1 << 28);
        return 0;
    case FKV_LETTER_SKIP_SINKS:
        r->skip_sinks = (int32_t)fkv_integer_option(state, arg, "--skip-sinks", 0, 1 << 28);
        return 0;
    case OPT_SHARD: parse_shard(state, arg, r); return 0;
    case FKV_LETTER_DRY_RUN: c->dry_run = true; return 0;
    case ARGP_KEY_END:
        if (!r->out || !*r->out) argp_error(state, "--out is missing: the folder to write");
        if (!c->engine.text_count && !c->engine.token_ids_count)
            argp_error(state, "--text or --token-ids is missing");
        for (int i = 0; i < c->engine.text_count; i++) refuse_pipe(state, c->engine.texts[i]);
        if (!r->spectra_only && (r->length || r->skip_sinks >= 0))
            argp_error(state, "--length and --skip-sinks go with --spectra-only");
        if (r->skip_sinks < 0) r->skip_sinks = 4;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* --layers and --heads, once the model says how many there are. */
static int parse_selection(struct command *c, const struct fkv_config *config,
                           struct fkv_error *err) {
    int *layers = NULL, *heads = NULL;
    if (c->layers && fkv_parse_indices(c->layers, "--layers", config->layers, &layers,
                                       &c->recorder.layer_count, err))
        return FKV_FAILED;
    c->recorder.layers = layers;
    if (c->heads && fkv_parse_indices(c->heads, "--heads", config->kv_heads, &heads,
                                      &c->recorder.head_count, err))
        return FKV_FAILED;
    c->recorder.heads = heads;
    return FKV_OK;
}

/* ---- showing ---- */

static void print_needs(FILE *to, const struct fkv_recorder_needs *n) {
    char disk[16], free_disk[16], memory[16], free_memory[16], ring[16], weights[16], time[16];
    const char *about = n->exact ? "" : "about ";
    fkv_format_bytes(disk, n->disk_bytes);
    fkv_format_bytes(free_disk, n->disk_free);
    fkv_format_bytes(memory, n->memory_bytes);
    fkv_format_bytes(free_memory, n->memory_available);
    fkv_format_bytes(ring, n->ring_bytes);
    fkv_format_bytes(weights, n->weight_bytes);
    fkv_format_seconds(time, n->seconds);
    fprintf(to, "texts    %s%lld document%s, %lld recording%s, %lld tokens", about,
            (long long)n->documents, n->documents == 1 ? "" : "s", (long long)n->recordings,
            n->recordings == 1 ? "" : "s", (long long)n->tokens);
    if (n->recordings_there)
        fprintf(to, " (%lld recordings are there)", (long long)n->recordings_there);
    fprintf(to, "\ndisk     %s%s of %s free\n", about, disk, free_disk);
    fprintf(to,
            "memory   %s of %s available (%s of it for states on their way to disk), and %s of "
            "weights mapped\n",
            memory, free_memory, ring, weights);
    if (n->device_bytes) {
        fkv_format_bytes(memory, n->device_bytes);
        fkv_format_bytes(free_memory, n->device_free);
        fprintf(to, "device   %s of %s free, beside the weights\n", memory, free_memory);
    }
    fprintf(to, "time     about %s, corrected while running\n", time);
}

static json_t *needs_json(const struct fkv_recorder_needs *n, int trained_context) {
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "documents",
        (json_int_t)n->documents, "recordings", (json_int_t)n->recordings, "recordings_there",
        (json_int_t)n->recordings_there, "tokens", (json_int_t)n->tokens, "exact", (int)n->exact,
        "trained_context", trained_context, "disk_bytes", (json_int_t)n->disk_bytes, "disk_free",
        (json_int_t)n->disk_free, "memory_bytes", (json_int_t)n->memory_bytes, "ring_bytes",
        (json_int_t)n->ring_bytes, "memory_available", (json_int_t)n->memory_available,
        "device_bytes", (json_int_t)n->device_bytes, "device_free", (json_int_t)n->device_free,
        "weight_bytes", (json_int_t)n->weight_bytes, "seconds", fkv_json_number(n->seconds));
}

static double mean_nll(const struct fkv_recorder_summary *s) {
    return s->tokens_scored ? s->nll_sum / (double)s->tokens_scored : NAN;
}

static void print_summary(const struct command *c, const struct fkv_capture_info *info,
                          const struct fkv_recorder_summary *s) {
    char time[16];
    fkv_format_seconds(time, s->seconds);
    printf("capture     %s\n", c->recorder.out);
    printf("model       %s, %d of %d layers, %d of %d KV heads, head_dim %d\n", info->model_name,
           info->layer_count, info->n_layers, info->head_count, info->n_kv_heads, info->head_dim);
    printf("states     ");
    for (int i = 0; i < FKV_STATES; i++)
        if (fkv_capture_holds(info, i)) printf(" %s", fkv_state_names[i]);
    printf(info->spectra_only ? " (sums of spectra)\n" : ", %s\n", fkv_dtype_name(info->dtype));
    printf("documents   %lld\n", (long long)s->documents);
    printf("recordings  %lld", (long long)(s->recordings + s->recordings_there));
    if (s->recordings_there) printf(" (%lld were there)", (long long)s->recordings_there);
    printf("\ntokens      %lld", (long long)s->tokens);
    if (s->tokens_left_out) printf(" (%lld left out)", (long long)s->tokens_left_out);
    if (info->spectra_only)
        printf("\nsegments    %lld (%lld tokens in none)", (long long)s->segments,
               (long long)s->segment_tokens_left_out);
    if (s->tokens_scored) printf("\nmean nll    %.4f nats", mean_nll(s));
    printf("\ntime        %s", time);
    if (s->tokens_scored) printf(", %.0f tokens/s", (double)s->tokens / s->seconds);
    printf("\n");
}

static json_t *summary_json(const struct command *c, const struct fkv_capture_info *info,
                            const struct fkv_recorder_summary *s) {
    bool spectra = info->spectra_only;
    return json_pack(
        "{s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:o}", "capture",
        fkv_json_string(c->recorder.out), "model", fkv_json_string(info->model_name), "documents",
        (json_int_t)s->documents, "recordings", (json_int_t)(s->recordings + s->recordings_there),
        "recordings_there", (json_int_t)s->recordings_there, "tokens", (json_int_t)s->tokens,
        "tokens_left_out", (json_int_t)s->tokens_left_out, "segments",
        spectra ? json_integer((json_int_t)s->segments) : json_null(), "segment_tokens_left_out",
        spectra ? json_integer((json_int_t)s->segment_tokens_left_out) : json_null(),
        "beyond_trained_context", (json_int_t)s->beyond_trained_context, "mean_nll",
        fkv_json_number(mean_nll(s)), "seconds", fkv_json_number(s->seconds), "tokens_per_s",
        fkv_json_number(s->tokens_scored ? (double)s->tokens / s->seconds : NAN));
}

/* ---- recording ---- */

static int record(struct command *c, const struct fkv_engine *engine, struct fkv_recorder *r,
                  struct fkv_error *err) {
    struct fkv_recorder_needs needs;
    struct fkv_recorder_summary summary;
    const struct fkv_capture_info *info = &r->info;
    if (fkv_recorder_survey(r, &needs, err)) return FKV_FAILED;
    FILE *to = fkv_needs_stream(&c->engine, c->dry_run);
    fkv_engine_announce(&c->engine, engine, to);
    fkv_note_rotation(&c->engine, &engine->model->config, info->rope_positions);
    if (to) print_needs(to, &needs);
    if (c->dry_run && c->engine.json &&
        fkv_json_print(needs_json(&needs, info->trained_context), err))
        return FKV_FAILED;
    if (c->dry_run) return fkv_recorder_check(r, &needs, err);
    if (needs.longest > info->trained_context)
        fprintf(stderr,
                "warning: recordings of %lld tokens go beyond the trained context of %d and are "
                "marked so\n",
                (long long)needs.longest, info->trained_context);
    if (fkv_recorder_check(r, &needs, err) || fkv_recorder_run(r, &needs, &summary, err))
        return FKV_FAILED;
    if (c->engine.json) return fkv_json_print(summary_json(c, info, &summary), err);
    print_summary(c, info, &summary);
    return FKV_OK;
}

int main(int argc, char **argv) {
    static struct command c;
    struct fkv_engine engine;
    struct fkv_error err;
    const struct argp_child children[] = {{&fkv_engine_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {
        .options = options, .parser = parse, .doc = doc, .children = children};
    fkv_start(argv);
    fkv_engine_options_default(&c.engine);
    c.recorder =
        (struct fkv_recorder_options){.states = 1u << FKV_STATE_KEY | 1u << FKV_STATE_VALUE,
                                      .dtype = FKV_F16,
                                      .skip_sinks = -1,
                                      .shards = 1,
                                      .stop = &stop};
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &c);
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    if (fkv_engine_open(&c.engine, &engine, &err)) return fkv_tool_failed("freqkv-capture", &err);
    struct fkv_recorder *recorder = NULL;
    int status = FKV_EXIT_DONE;
    if (parse_selection(&c, &engine.model->config, &err) ||
        fkv_recorder_open(&engine, &c.engine, &c.recorder, &recorder, &err) ||
        record(&c, &engine, recorder, &err))
        status = fkv_tool_failed("freqkv-capture", &err);
    fkv_recorder_close(recorder);
    free((void *)c.recorder.layers);
    free((void *)c.recorder.heads);
    fkv_engine_close(&engine);
    return status;
}
