/* OUT.jsonl as a file that grows, and OUT.jsonl.run, which says what made it.
 *
 * Lines go out in the order of the prompts, as users had them: a continuation that is done waits
 * for those before it. What a kill can cost is therefore no more than what was computed beside
 * the oldest continuation under way (and is never more than a group, commands/generate.c). A line
 * is one write and one fdatasync, which also settles the file's size. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/atomic_file.h"
#include "replay/generate/continuations.h"
#include "replay/generate/continuations_line.h"

enum { MOST_IDENTITY = 1 << 28 };

struct fkv_continuations {
    int fd;
    char *path, *identity; /* of OUT.jsonl and OUT.jsonl.run */
    int64_t bytes;         /* of whole lines */
    bool created;          /* by this run */
};

/* ---- what made the lines ---- */

/* Every option of a policy, the defaults that were applied included. A new reference. */
static json_t *setup_json(const struct fkv_policy_setup *setup) {
    const bool window = setup->policy->takes_window;
    json_t *o = json_object(), *retained = setup->retained ? json_array() : json_null();
    for (int32_t h = 0; setup->retained && h < setup->layers * setup->kv_heads; h++)
        json_array_append_new(retained, json_integer(setup->retained[h]));
    json_object_set_new(o, "policy", json_string(setup->policy->name));
    json_object_set_new(o, "window", window ? json_integer(setup->window) : json_null());
    json_object_set_new(o, "sinks", window ? json_integer(setup->sinks) : json_null());
    fkv_own_to_json(setup->policy->options, setup->own, setup->own_texts, o);
    json_object_set_new(o, "gamma", fkv_json_number(setup->gamma));
    json_object_set_new(o, "retained", retained);
    return o;
}

/* The one token that ends a text (-1: none), or the list of several. */
static json_t *ends_json(const struct fkv_config *config) {
    if (config->end_count < 2) return json_integer(config->end_count ? config->ends[0] : -1);
    json_t *list = json_array();
    for (int32_t i = 0; i < config->end_count; i++)
        json_array_append_new(list, json_integer(config->ends[i]));
    return list;
}

/* What may differ: it changes no line, or rounds otherwise (kernels). */
static const char *const informative[] = {"software_version", "command", "model",
                                          "adapter",          "kernels", NULL};

json_t *fkv_continuing_identity(const struct fkv_continuing_run *run, struct fkv_error *err) {
    const struct fkv_continuing *lines = run->lines;
    const struct fkv_config *config = &run->model->config;
    fkv_sha256_hex model, prompts;
    if (fkv_model_sha256(run->model, model, err) ||
        fkv_prompts_sha256(lines->prompts, prompts, err))
        return NULL;
    json_t *o = json_pack(
        "{s:s, s:i, s:s, s:o, s:o, s:s, s:s, s:s, s:i, s:o, s:s, s:o, s:s, s:I, s:s}", "format",
        "freqkv-generate", "format_version", 1, "software_version", FKV_VERSION, "command",
        fkv_json_string(run->command), "model", fkv_json_string(run->model->name), "model_sha256",
        model, "config_sha256", config->sha256, "model_type", config->model_type, "trained_context",
        (int)config->trained_context, "rope_theta", fkv_json_number(config->rotations[0].theta),
        "rope_scaling", config->rotations[0].scaling, "eos", ends_json(config), "tokenizer_sha256",
        fkv_tokenizer_sha256(lines->tokenizer), "prompts", (json_int_t)lines->prompts->count,
        "prompts_sha256", prompts);
    json_t *how = json_pack(
        "{s:I, s:o, s:I, s:s, s:s, s:s, s:s, s:i}", "tokens", (json_int_t)lines->tokens,
        "temperature", fkv_json_number(lines->temperature), "seed", (json_int_t)lines->seed,
        "backend", run->backend, "compute", run->compute, "kernels", run->kernels, "cache_dtype",
        fkv_dtype_name(run->cache_dtype), "batch", (int)run->batch);
    json_t *setup = setup_json(lines->setup);
    int failed = !o || json_object_update(o, setup) || json_object_update(o, how);
    json_decref(setup);
    json_decref(how);
    if (!failed && run->model->adapter) { /* model_sha256 counts it, too */
        failed = json_object_set_new(o, "adapter", fkv_json_string(run->model->adapter_name)) ||
                 json_object_set_new(o, "adapter_sha256",
                                     json_string(fkv_model_adapter_sha256(run->model)));
    }
    if (!failed) return o;
    json_decref(o);
    fkv_fail(err, "out of memory for what makes a continuation");
    return NULL;
}

char *fkv_continuing_path(const char *path) {
    char *identity;
    return asprintf(&identity, "%s.run", path) < 0 ? NULL : identity;
}

static int check_identity(const char *path, const json_t *expected, struct fkv_error *err) {
    json_t *found = fkv_json_load(path, MOST_IDENTITY, err);
    if (!found) return FKV_FAILED;
    int status = fkv_continuations_same(path, expected, found, informative, err);
    json_decref(found);
    return status;
}

static int write_identity(const char *path, const json_t *identity, struct fkv_error *err) {
    struct fkv_atomic_file file;
    size_t bytes;
    char *text = fkv_continuation_text(identity, &bytes, err);
    if (!text) return FKV_FAILED;
    int status = fkv_atomic_open(&file, path, err);
    if (!status) {
        fwrite(text, 1, bytes, file.stream); /* commit says whether it went well */
        status = fkv_atomic_commit(&file, err);
    }
    free(text);
    return status;
}

/* ---- files of an earlier run ---- */

int fkv_continuations_find(const char *path, const struct fkv_continuing *c, const json_t *identity,
                           struct fkv_continued *found, struct fkv_error *err) {
    *found = (struct fkv_continued){0};
    char *description = fkv_continuing_path(path);
    if (!description) return fkv_fail(err, "%s: out of memory", path);
    int status = FKV_OK;
    FILE *f = fopen(path, "rb");
    if (!f && errno != ENOENT) status = fkv_fail_errno(err, "%s: cannot open", path);
    bool described = access(description, F_OK) == 0;
    if (f && !described)
        status = fkv_fail(
            err, "%s: not there, so nothing says what made %s; remove that or name another --out",
            description, path);
    if (!status && described) status = check_identity(description, identity, err);
    if (!status && f) status = fkv_continuations_read(f, path, c, found, err);
    if (f) fclose(f);
    free(description);
    return status;
}

/* ---- growing ---- */

/* Locks the file for this process. Refused: a file that another process holds, or that has grown
 * since it was read. On a file system without locks only the size is checked. */
static int lock(int fd, const char *path, int64_t expected, struct fkv_error *err) {
    struct stat now;
    if ((flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) ||
        (!fstat(fd, &now) && now.st_size != expected))
        return fkv_fail(err, "%s: another process writes it: wait for that, then --resume", path);
    return FKV_OK;
}

int fkv_continuations_open(const char *path, const json_t *identity,
                           const struct fkv_continued *found, struct fkv_continuations **out,
                           struct fkv_error *err) {
    struct fkv_continuations *file = calloc(1, sizeof *file);
    *out = NULL;
    if (!file) return fkv_fail(err, "%s: out of memory", path);
    file->fd = -1;
    file->bytes = found->bytes;
    file->path = strdup(path);
    file->identity = fkv_continuing_path(path);
    int status = file->path && file->identity ? FKV_OK : fkv_fail(err, "%s: out of memory", path);
    if (!status && access(file->identity, F_OK)) {
        status = write_identity(file->identity, identity, err);
        file->created = !status;
    }
    if (!status) {
        file->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (file->fd < 0) status = fkv_fail_errno(err, "%s: cannot write", path);
    }
    if (!status && lock(file->fd, path, found->bytes + found->torn, err)) {
        status = FKV_FAILED;
        file->created = false; /* the files are the other process's */
    }
    if (!status && ftruncate(file->fd, file->bytes))
        status = fkv_fail_errno(err, "%s: cannot cut to whole lines", path);
    if (!status) status = fkv_atomic_sync_folder(path, err);
    if (status) {
        fkv_continuations_close(file);
        return FKV_FAILED;
    }
    *out = file;
    return FKV_OK;
}

int fkv_continuations_append(struct fkv_continuations *file, const json_t *line,
                             struct fkv_error *err) {
    size_t bytes, done = 0;
    char *text = fkv_continuation_text(line, &bytes, err);
    if (!text) return FKV_FAILED;
    ssize_t wrote = 0;
    while (done < bytes && ((wrote = write(file->fd, text + done, bytes - done)) > 0 ||
                            (wrote < 0 && errno == EINTR)))
        if (wrote > 0) done += (size_t)wrote;
    int status = done == bytes && !fdatasync(file->fd)
                     ? FKV_OK
                     : fkv_fail_errno(err, "%s: cannot write", file->path);
    free(text);
    if (!status)
        file->bytes += (int64_t)bytes;
    else if (ftruncate(file->fd, file->bytes))
        return FKV_FAILED; /* the line is torn, as after a kill */
    return status;
}

void fkv_continuations_close(struct fkv_continuations *file) {
    if (!file) return;
    if (file->fd >= 0) close(file->fd);
    if (file->created && !file->bytes) {
        if (file->fd >= 0) unlink(file->path);
        unlink(file->identity);
    }
    free(file->path);
    free(file->identity);
    free(file);
}
