/* Lines of OUT.jsonl: making one, and telling whether one that is there is a line of this run.
 * The latter makes the line again from its token_ids and compares bytes: nothing that stands in
 * a line can then be another run's, and nothing but ids has to be believed. */
#include "replay/generate/continuations.h"

#include <stdlib.h>
#include <string.h>

/* The text that follows the prompt's, up to a stop string; no id may stand behind that. */
static int make_text(const struct fkv_continuing *c, const struct fkv_prompt *prompt,
                     const struct fkv_generation *g, struct fkv_stopped_text *text,
                     struct fkv_error *err) {
    if (fkv_stopped_text_open(text, c->tokenizer, prompt->tokens, prompt->count, &prompt->stops,
                              err))
        return FKV_FAILED;
    for (int64_t i = 0; i < g->count; i++) {
        if (text->stopped)
            return fkv_fail(err, "expected no id behind a stop string, found one at %lld",
                            (long long)i);
        if (fkv_stopped_text_push(text, g->ids[i], err))
            return fkv_error_prefix(err, "token %lld", (long long)i);
    }
    return fkv_stopped_text_finish(text, err);
}

static const char *what_ended(const struct fkv_prompt *prompt, const struct fkv_generation *g,
                              bool stopped) {
    if (stopped || (g->stopped && prompt->stops.id_count)) return "stop";
    return g->ended ? "eos" : "length";
}

json_t *fkv_continuation_json(const struct fkv_continuing *c, size_t i,
                              const struct fkv_generation *g, struct fkv_error *err) {
    const struct fkv_prompt *prompt = &c->prompts->all[i];
    struct fkv_stopped_text text = {0};
    if (make_text(c, prompt, g, &text, err)) {
        fkv_stopped_text_close(&text);
        return NULL;
    }
    json_t *o = json_object(), *ids = json_array();
    json_t *string = json_stringn(text.bytes ? text.text : "", text.bytes);
    for (int64_t k = 0; k < g->count; k++) json_array_append_new(ids, json_integer(g->ids[k]));
    if (prompt->id) json_object_set(o, "id", prompt->id);
    json_object_set_new(o, "prompt", json_string(prompt->text));
    json_object_set_new(o, "text", string ? string : json_null()); /* bytes that are no UTF-8 */
    json_object_set_new(o, "token_ids", ids);
    json_object_set_new(o, "prompt_tokens", json_integer((json_int_t)prompt->count));
    json_object_set_new(o, "tokens", json_integer(g->count));
    json_object_set_new(o, "stopped", json_string(what_ended(prompt, g, text.stopped)));
    fkv_stopped_text_close(&text);
    json_object_set_new(o, "policy", json_string(c->setup->policy->name));
    json_object_set_new(
        o, "window", c->setup->policy->takes_window ? json_integer(c->setup->window) : json_null());
    json_object_set_new(o, "gamma", fkv_json_number(c->setup->gamma));
    json_object_set_new(o, "seed", json_integer(c->seed));
    json_object_set_new(o, "temperature", fkv_json_number(c->temperature));
    return o;
}

/* ---- lines of an earlier run ---- */

/* The ids of a line; their number and what ended them must go together. */
static int read_generation(const json_t *line, const char *where, int64_t most,
                           struct fkv_generation *g, struct fkv_error *err) {
    const json_t *ids = json_object_get(line, "token_ids");
    const char *stopped;
    *g = (struct fkv_generation){0};
    if (!json_is_object(line)) return fkv_fail(err, "%s: expected an object", where);
    if (!json_is_array(ids))
        return fkv_fail(err, "%s: field \"token_ids\": expected a list", where);
    if (fkv_json_get_string(line, where, "stopped", true, &stopped, err)) return FKV_FAILED;
    g->count = (int64_t)json_array_size(ids);
    g->ended = !strcmp(stopped, "eos");
    g->stopped = !strcmp(stopped, "stop");
    g->complete = true;
    if (g->ended ? g->count >= most : g->stopped ? g->count > most : g->count != most)
        return fkv_fail(err,
                        "%s: field \"token_ids\": expected %s%lld, as --tokens or max_tokens has "
                        "it, found %lld",
                        where,
                        g->ended     ? "less than "
                        : g->stopped ? "at most "
                                     : "",
                        (long long)most, (long long)g->count);
    g->ids = malloc((size_t)(g->count ? g->count : 1) * sizeof *g->ids);
    if (!g->ids) return fkv_fail(err, "%s: out of memory", where);
    for (int64_t i = 0; i < g->count; i++) {
        const json_t *id = json_array_get(ids, (size_t)i);
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value > INT32_MAX)
            return fkv_fail(err,
                            "%s: field \"token_ids\": expected ids, found something else at %lld",
                            where, (long long)i);
        g->ids[i] = (int32_t)value;
    }
    return FKV_OK;
}

static int check_bytes(const json_t *expected, const json_t *found, const char *at, size_t bytes,
                       const char *where, struct fkv_error *err) {
    size_t expected_bytes;
    char *text = fkv_lines_text(expected, &expected_bytes, err);
    if (!text) return FKV_FAILED;
    bool same = bytes == expected_bytes && !memcmp(text, at, bytes);
    free(text);
    if (same) return FKV_OK;
    if (fkv_lines_same(where, expected, found, NULL, err)) return FKV_FAILED;
    return fkv_fail(
        err, "%s: expected the line as it was written, found the same fields written otherwise",
        where);
}

/* Line i, its newline included. */
static int check_whole(const struct fkv_continuing *c, size_t i, const char *at, size_t bytes,
                       const char *where, struct fkv_continued *found, struct fkv_error *err) {
    struct fkv_generation g = {0};
    json_t *line = fkv_json_parse_with_nul(at, bytes, where, err); /* a token may be the byte 0 */
    if (!line) return FKV_FAILED;
    int status =
        read_generation(line, where, fkv_prompt_most(&c->prompts->all[i], c->tokens), &g, err);
    json_t *expected = status ? NULL : fkv_continuation_json(c, i, &g, err);
    if (!status && !expected) status = fkv_error_prefix(err, "%s: field \"token_ids\"", where);
    if (!status) status = check_bytes(expected, line, at, bytes, where, err);
    if (!status) {
        found->prompt_tokens += (int64_t)c->prompts->all[i].count;
        found->tokens += g.count;
    }
    json_decref(expected);
    json_decref(line);
    fkv_generation_free(&g);
    return status;
}

/* The start of line i, which an interrupted run left: dropped, unless this program cannot have
 * written it. */
static int check_torn(const struct fkv_continuing *c, size_t i, const char *at, size_t bytes,
                      const char *where, struct fkv_error *err) {
    const char *start = c->prompts->all[i].id ? "{\"id\":" : "{\"prompt\":";
    const size_t known = strlen(start);
    if (strncmp(at, start, bytes < known ? bytes : known))
        return fkv_fail(err,
                        "%s: expected the start of a line, %s, found \"%.40s\", which this "
                        "program did not write: remove it to go on",
                        where, start, at);
    return FKV_OK;
}

/* What lines are compared with, and counted into. */
struct reading {
    const struct fkv_continuing *c;
    struct fkv_continued *found;
};

static int check_line(void *context, int64_t i, const char *text, size_t bytes, bool whole,
                      const char *where, struct fkv_error *err) {
    const struct reading *r = context;
    const size_t count = r->c->prompts->count;
    if ((size_t)i == count)
        return fkv_fail(err, "%s: expected one line for each of the %zu prompts, found more", where,
                        count);
    return whole ? check_whole(r->c, (size_t)i, text, bytes, where, r->found, err)
                 : check_torn(r->c, (size_t)i, text, bytes, where, err);
}

int fkv_continuations_read(FILE *f, const char *where, const struct fkv_continuing *c,
                           struct fkv_continued *found, struct fkv_error *err) {
    struct reading r = {c, found};
    *found = (struct fkv_continued){0};
    return fkv_lines_read(f, where, check_line, &r, &found->file, err);
}

/* ---- the file ---- */

json_t *fkv_continuing_identity(const struct fkv_continuing *c, const struct fkv_replay *replay,
                                int32_t batch, int64_t rope_positions, struct fkv_error *err) {
    const struct fkv_identity identity = {"freqkv-generate", replay, c->setup, batch,
                                          rope_positions};
    fkv_sha256_hex prompts;
    if (fkv_prompts_sha256(c->prompts, prompts, err)) return NULL;
    json_t *o = fkv_identity_json(&identity, err);
    if (!o) return NULL;
    json_object_set_new(o, "prompts", json_integer((json_int_t)c->prompts->count));
    json_object_set_new(o, "prompts_sha256", json_string(prompts));
    json_object_set_new(o, "tokens", json_integer(c->tokens));
    json_object_set_new(o, "temperature", fkv_json_number(c->temperature));
    json_object_set_new(o, "seed", json_integer(c->seed));
    return o;
}

int fkv_continuations_find(const char *path, const struct fkv_continuing *c, const json_t *identity,
                           struct fkv_continued *found, struct fkv_error *err) {
    FILE *f;
    *found = (struct fkv_continued){0};
    if (fkv_lines_find(path, identity, &f, err)) return FKV_FAILED;
    int status = f ? fkv_continuations_read(f, path, c, found, err) : FKV_OK;
    if (f) fclose(f);
    return status;
}
