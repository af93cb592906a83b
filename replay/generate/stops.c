/* Stop strings are looked for in the text that no later id can change (fkv_tokenizer_stream), from
 * where one that ends in what is new can begin. */
#include "replay/generate/stops.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/bytes.h"

/* Whether the text is the spelling of one special token: those are left out of decoded text. */
static int find_special(const struct fkv_tokenizer *tokenizer, const char *text, int32_t *id,
                        struct fkv_error *err) {
    int32_t *ids;
    size_t count, bytes = 1;
    char *shown = NULL;
    *id = -1;
    if (fkv_tokenizer_encode(tokenizer, text, strlen(text), false, &ids, &count, err))
        return FKV_FAILED;
    int status = FKV_OK;
    if (count == 1) status = fkv_tokenizer_decode(tokenizer, ids, 1, &shown, &bytes, err);
    if (!status && count == 1 && !bytes) *id = ids[0];
    if (!status) free(shown);
    free(ids);
    return status;
}

int fkv_stops_add(struct fkv_stops *s, const struct fkv_tokenizer *tokenizer, const char *text,
                  struct fkv_error *err) {
    int32_t id;
    if (!*text) return fkv_fail(err, "expected a stop string, found an empty one");
    if (find_special(tokenizer, text, &id, err)) return FKV_FAILED;
    if (id >= 0) {
        int32_t *ids = realloc(s->ids, (s->id_count + 1) * sizeof *ids);
        if (!ids) return fkv_fail(err, "out of memory for stop strings");
        s->ids = ids;
        s->ids[s->id_count++] = id;
        return FKV_OK;
    }
    char **strings = realloc(s->strings, (s->count + 1) * sizeof *strings);
    if (strings) s->strings = strings;
    if (!strings || !(strings[s->count] = strdup(text)))
        return fkv_fail(err, "out of memory for stop strings");
    s->count++;
    return FKV_OK;
}

bool fkv_stops_has_id(const struct fkv_stops *s, int32_t id) {
    for (size_t i = 0; i < s->id_count; i++)
        if (s->ids[i] == id) return true;
    return false;
}

void fkv_stops_free(struct fkv_stops *s) {
    for (size_t i = 0; i < s->count; i++) free(s->strings[i]);
    free(s->strings);
    free(s->ids);
    *s = (struct fkv_stops){0};
}

int fkv_stopped_text_open(struct fkv_stopped_text *t, const struct fkv_tokenizer *tokenizer,
                          const int32_t *prompt, size_t count, const struct fkv_stops *stops,
                          struct fkv_error *err) {
    *t = (struct fkv_stopped_text){.stops = stops};
    return fkv_tokenizer_stream_open(tokenizer, prompt, count, &t->stream, err);
}

void fkv_stopped_text_close(struct fkv_stopped_text *t) {
    fkv_tokenizer_stream_close(t->stream);
    free(t->text);
    *t = (struct fkv_stopped_text){0};
}

/* Cuts the text at the first stop string of which a part is at `from` or later. */
static void find_stop(struct fkv_stopped_text *t, size_t from) {
    size_t end = t->bytes;
    for (size_t i = 0; i < t->stops->count; i++) {
        const size_t length = strlen(t->stops->strings[i]),
                     start = from < length ? 0 : from - length + 1;
        const char *found = memmem(t->text + start, t->bytes - start, t->stops->strings[i], length);
        if (!found) continue;
        t->stopped = true;
        if ((size_t)(found - t->text) < end) end = (size_t)(found - t->text);
    }
    t->bytes = end;
}

/* How many bytes at the text's end begin a stop string. */
static size_t begun(const struct fkv_stopped_text *t) {
    size_t most = 0;
    for (size_t i = 0; i < t->stops->count; i++) {
        const size_t length = strlen(t->stops->strings[i]);
        size_t bytes = length - 1 < t->bytes ? length - 1 : t->bytes;
        while (bytes > most && memcmp(t->text + t->bytes - bytes, t->stops->strings[i], bytes) != 0)
            bytes--;
        if (bytes > most) most = bytes;
    }
    return most;
}

static int append(struct fkv_stopped_text *t, const char *text, size_t bytes,
                  struct fkv_error *err) {
    const size_t from = t->bytes;
    if (bytes > t->capacity - t->bytes) {
        const size_t capacity = 2 * t->capacity + bytes + 256;
        char *larger = realloc(t->text, capacity);
        if (!larger) return fkv_fail(err, "out of memory for the text of a continuation");
        t->text = larger;
        t->capacity = capacity;
    }
    if (!bytes) return FKV_OK;
    memcpy(t->text + t->bytes, text, bytes);
    t->bytes += bytes;
    find_stop(t, from);
    t->settled = t->stopped ? t->bytes : t->bytes - begun(t);
    return FKV_OK;
}

int fkv_stopped_text_push(struct fkv_stopped_text *t, int32_t id, struct fkv_error *err) {
    const char *text;
    size_t bytes;
    if (t->stopped) return FKV_OK;
    return fkv_tokenizer_stream_push(t->stream, id, &text, &bytes, err) ||
                   append(t, text, bytes, err)
               ? FKV_FAILED
               : FKV_OK;
}

int fkv_stopped_text_finish(struct fkv_stopped_text *t, struct fkv_error *err) {
    const char *text;
    size_t bytes;
    if (t->stopped) return FKV_OK;
    if (fkv_tokenizer_stream_finish(t->stream, &text, &bytes, err) || append(t, text, bytes, err))
        return FKV_FAILED;
    if (!t->stopped) t->bytes = fkv_utf8_complete(t->text, t->bytes);
    t->settled = t->bytes;
    return FKV_OK;
}
