/* freqkv-analyze merge: captures of one model, made in shards or on several machines, into one. The
 * store does the work. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "analyze/commands/command.h"
#include "capture/store/capture_merge.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/arguments.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"

struct options {
    struct fkv_common_options common;
    const char **captures; /* [count]; owned */
    int count;
    bool dry_run;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->common; break;
    case FKV_LETTER_DRY_RUN: o->dry_run = true; break;
    case ARGP_KEY_ARG: o->captures[o->count++] = arg; break;
    case ARGP_KEY_END:
        if (!o->count) argp_error(state, "CAPTURE is missing");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "Makes one capture of several: shards, or machines that captured different texts.\n\n"
    "Example:\n"
    "  freqkv-analyze merge shard-0 shard-1 --out whole\n"
    "\v"
    "All must be of one model and tokenizer, with equal layers, heads, states, dtype and "
    "options. Recordings are copied whole in the order given; a text and offset that occurs "
    "twice is refused. --out is a new folder.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options_list[] = {
    FKV_DRY_RUN_ROW(0),
    {0},
};

static const struct argp_child children[] = {{&fkv_common_argp, 0, NULL, 0}, {0}};
static const struct argp parser = {options_list, parse, "CAPTURE... --out CAPTURE", doc, children,
                                   NULL,         NULL};

static int64_t tokens_of(const struct fkv_capture *c) {
    int64_t tokens = 0;
    for (int32_t i = 0; i < fkv_capture_count(c); i++)
        tokens += fkv_capture_recording(c, i)->n_tokens;
    return tokens;
}

static int report(const struct options *o, struct fkv_error *err) {
    struct fkv_capture *merged;
    if (fkv_capture_open(o->common.out, &merged, err)) return FKV_FAILED;
    const int32_t recordings = fkv_capture_count(merged);
    const int64_t tokens = tokens_of(merged);
    int status = FKV_OK;
    if (o->common.json) {
        json_t *object =
            json_pack("{s:s, s:s, s:i, s:i, s:I}", "out", o->common.out, "capture_sha256",
                      fkv_capture_sha256(merged), "captures", o->count, "recordings", recordings,
                      "tokens", (json_int_t)tokens);
        status = object
                     ? fkv_json_print(object, err)
                     : fkv_fail(err, "%s: the path is not UTF-8, which JSON needs", o->common.out);
    } else {
        printf("%s: %d recordings, %lld tokens from %d captures\n", o->common.out, recordings,
               (long long)tokens, o->count);
    }
    fkv_capture_close(merged);
    return status;
}

struct needs {
    int64_t recordings, tokens, bytes, free;
};

/* What is there to copy; refuses what the disk cannot hold. */
static int add_up(const struct options *o, struct needs *needs, struct fkv_error *err) {
    int64_t gram = 0; /* copied once */
    struct stat file;
    for (int i = 0; i < o->count; i++) {
        struct fkv_capture *c;
        if (fkv_capture_open(o->captures[i], &c, err)) return FKV_FAILED;
        needs->recordings += fkv_capture_count(c);
        needs->tokens += tokens_of(c);
        needs->bytes += fkv_capture_file_bytes(c);
        if (fkv_capture_output_gram(c) && !stat(fkv_capture_output_gram(c), &file))
            gram = file.st_size;
        fkv_capture_close(c);
    }
    needs->bytes += gram;
    if (fkv_host_disk_free(o->common.out, &needs->free, err)) return FKV_FAILED;
    if (needs->bytes <= needs->free) return FKV_OK;
    return fkv_fail(err, "%s: the recordings need %s on disk, and %s are free", o->common.out,
                    fkv_bytes_text(needs->bytes).text, fkv_bytes_text(needs->free).text);
}

static int announce(const struct options *o, struct fkv_error *err) {
    struct needs needs = {0};
    if (add_up(o, &needs, err)) return FKV_FAILED;
    if (o->dry_run && o->common.json)
        return fkv_json_print(
            json_pack("{s:I, s:I, s:I, s:I}", "recordings", (json_int_t)needs.recordings, "tokens",
                      (json_int_t)needs.tokens, "disk_bytes", (json_int_t)needs.bytes, "disk_free",
                      (json_int_t)needs.free),
            err);
    if (o->dry_run || !o->common.quiet)
        fprintf(o->dry_run ? stdout : stderr, "%lld recordings, %lld tokens; %s of %s on disk\n",
                (long long)needs.recordings, (long long)needs.tokens,
                fkv_bytes_text(needs.bytes).text, fkv_bytes_text(needs.free).text);
    return FKV_OK;
}

int fkv_command_merge(int argc, char **argv) {
    struct options o = {.captures = calloc((size_t)argc, sizeof *o.captures)};
    struct fkv_error err = {0};
    int status = o.captures ? FKV_OK : fkv_fail(&err, "out of memory");
    if (!status) {
        argp_parse(&parser, argc, argv, 0, NULL, &o);
        status = announce(&o, &err);
    }
    if (!status && !o.dry_run) status = fkv_capture_merge(o.captures, o.count, o.common.out, &err);
    if (!status && !o.dry_run) status = report(&o, &err);
    free(o.captures);
    return status ? fkv_command_failed("merge", &o.common, &err) : FKV_EXIT_DONE;
}
