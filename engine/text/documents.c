/* The inputs in the order given, one document at a time. Folders are listed when opened, so that
 * files that appear during a run change nothing. Rows of JSON are read line by line and may be
 * larger than memory; every other input is one document and is read whole.
 *
 * A text's bytes are taken as they are: no newline conversion, no stripping, the trailing newline
 * belongs to it. Only a byte order mark at its start goes. */
#include "engine/text/documents.h"

#include <dirent.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include "engine/text/bytes.h"
#include "engine/text/compressed.h"
#include "engine/text/file_type.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/path.h"

static const size_t MAX_FILE = (size_t)1 << 36;

struct source {
    enum { UNKNOWN, TEXT, JSONL, NPY, RAW } kind;
    char *path;
    int64_t bytes;
    bool guessed; /* neither a name nor an option says the kind */
};

struct fkv_documents {
    const struct fkv_tokenizer *tokenizer;
    struct source *sources;
    int count, current;
    size_t capacity;
    int64_t bytes, passed; /* of all sources, of those that are done */
    int64_t remaining;     /* documents still wanted; -1: all */
    int32_t vocab;
    bool special;
    size_t raw_width; /* bytes per raw id; 0: not said */
    FILE *lines;      /* the current .jsonl, NULL between sources */
    char *line;
    size_t line_capacity;
    int64_t line_number;
    int64_t given, left_out; /* documents; rows */
    int64_t others;          /* files and folders in the given folders that are not read */
    const char *text_field;
    char first_ids[160]; /* of the first file of ids, and their text; "": none yet */
};

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Endings for compression are passed over. */
static bool ends_with(const char *text, const char *ending) {
    size_t n = fkv_text_name_bytes(text), m = strlen(ending);
    return n > m && !strncasecmp(text + n - m, ending, m);
}

static int kind_of_text(const char *path, const char *format) {
    static const struct {
        const char *ending;
        int kind;
    } endings[] = {{".txt", TEXT},    {".text", TEXT},    {".md", TEXT},   {".raw", TEXT},
                   {".jsonl", JSONL}, {".ndjson", JSONL}, {".json", JSONL}};
    if (format) return strcmp(format, "jsonl") ? TEXT : JSONL;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (ends_with(path, endings[i].ending)) return endings[i].kind;
    return UNKNOWN;
}

static int add_source(struct fkv_documents *d, const char *path, int kind, int64_t bytes,
                      struct fkv_error *err) {
    if (access(path, R_OK)) return fkv_fail_errno(err, "%s: cannot read", path);
    struct source *grown = fkv_grow(d->sources, &d->capacity, (size_t)d->count + 1, sizeof *grown);
    if (grown) d->sources = grown;
    char *copy = strdup(path);
    if (!grown || !copy) {
        free(copy);
        return fkv_fail(err, "%s: out of memory", path);
    }
    d->sources[d->count++] = (struct source){.kind = kind, .path = copy, .bytes = bytes};
    d->bytes += bytes;
    return FKV_OK;
}

/* Hidden files are other programs' (macOS leaves ._story.txt). */
static int is_shown(const struct dirent *entry) { return *entry->d_name != '.'; }

/* By bytes, not by locale: the order must be the same everywhere. */
static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* A text of a folder; what else is there counts as other. */
static int add_entry(struct fkv_documents *d, const char *folder, const char *name,
                     struct fkv_error *err) {
    char path[FKV_PATH];
    struct stat st;
    if (ends_with(name, ".txt")) {
        if (fkv_path_print(path, err, "%s/%s", folder, name)) return FKV_FAILED;
        if (stat(path, &st)) return fkv_fail_errno(err, "%s: cannot read", path);
        if (S_ISREG(st.st_mode)) return add_source(d, path, TEXT, st.st_size, err);
    }
    d->others++;
    return FKV_OK;
}

static int add_folder(struct fkv_documents *d, const char *folder, struct fkv_error *err) {
    struct dirent **entries;
    int n = scandir(folder, &entries, is_shown, by_name), before = d->count, status = FKV_OK;
    if (n < 0) return fkv_fail_errno(err, "%s: cannot list", folder);
    for (int i = 0; i < n; i++) {
        if (!status) status = add_entry(d, folder, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    if (!status && d->count == before)
        return fkv_fail(err, "%s: a folder without .txt files; others are given one by one",
                        folder);
    return status;
}

/* What to do about a file whose name is none of a text. */
static int refuse_name(const char *path, struct fkv_error *err) {
    static const struct {
        const char *ending, *advice;
    } others[] = {
        {".parquet", "of parquet, notebooks/freqkv.py makes rows of JSON: texts_from_parquet"},
        {".arrow", "of Arrow, the datasets package makes rows of JSON: to_json"},
        {".bz2", "through a pipe: bzip2 -dc FILE | ... --text -"},
        {".xz", "through a pipe: xz -dc FILE | ... --text -"},
        {".npy", "token ids are --token-ids"},
        {".bin", "token ids are --token-ids"},
    };
    const char *advice = "--text-format says what it is: text, or jsonl (a row of JSON per line)";
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (ends_with(path, others[i].ending)) advice = others[i].advice;
    return fkv_fail(err,
                    "%s: expected .txt, .md, .raw, .jsonl, .json or a folder of .txt files; %s",
                    path, advice);
}

static int add_text(struct fkv_documents *d, const char *path, const char *format,
                    struct fkv_error *err) {
    struct stat st;
    if (!strcmp(path, "-")) path = "/dev/stdin";
    if (stat(path, &st)) return fkv_fail_errno(err, "%s: cannot read", path);
    if (S_ISDIR(st.st_mode)) return add_folder(d, path, err);
    int kind = kind_of_text(path, format);
    /* A pipe has no name. */
    const bool guessed = kind == UNKNOWN && (!S_ISREG(st.st_mode) || !strcmp(path, "/dev/stdin"));
    if (kind == UNKNOWN && !guessed) return refuse_name(path, err);
    if (add_source(d, path, guessed ? TEXT : kind, S_ISREG(st.st_mode) ? st.st_size : 0, err))
        return FKV_FAILED;
    d->sources[d->count - 1].guessed = guessed;
    return FKV_OK;
}

static int add_ids(struct fkv_documents *d, const char *path, struct fkv_error *err) {
    struct stat st;
    if (stat(path, &st)) return fkv_fail_errno(err, "%s: cannot read", path);
    if (S_ISDIR(st.st_mode))
        return fkv_fail(err, "%s: expected a file of token ids, found a folder", path);
    return add_source(d, path, ends_with(path, ".npy") ? NPY : RAW, st.st_size, err);
}

int fkv_documents_open(const struct fkv_documents_options *o, const struct fkv_tokenizer *tokenizer,
                       struct fkv_documents **out, struct fkv_error *err) {
    *out = NULL;
    const char *dtype = o->token_dtype;
    if (dtype && strcmp(dtype, "uint16") && strcmp(dtype, "uint32"))
        return fkv_fail_option(err, "--token-dtype: expected uint16 or uint32, found %s", dtype);
    if (o->text_count && !tokenizer)
        return fkv_fail(err, "%s: reading text needs a tokenizer", o->texts[0]);
    if (!o->text_count && !o->token_ids_count)
        return fkv_fail(err, "nothing to read: expected --text or --token-ids");
    struct fkv_documents *d = calloc(1, sizeof *d);
    if (!d) return fkv_fail(err, "out of memory");
    d->tokenizer = tokenizer;
    d->vocab = o->vocab;
    d->special = o->special;
    d->text_field = o->text_field;
    d->raw_width = !dtype ? 0 : strcmp(dtype, "uint16") ? 4 : 2;
    d->remaining = o->max_documents > 0 ? o->max_documents : -1;
    int status = FKV_OK;
    for (int i = 0; i < o->text_count && !status; i++)
        status = add_text(d, o->texts[i], o->text_format, err);
    for (int i = 0; i < o->token_ids_count && !status; i++)
        status = add_ids(d, o->token_ids[i], err);
    if (status)
        fkv_documents_close(d);
    else
        *out = d;
    return status;
}

void fkv_documents_close(struct fkv_documents *d) {
    if (!d) return;
    for (int i = 0; i < d->count; i++) free(d->sources[i].path);
    free(d->sources);
    if (d->lines) fclose(d->lines);
    free(d->line);
    free(d);
}

void fkv_document_free(struct fkv_document *document) {
    free(document->name);
    free(document->tokens);
    *document = (struct fkv_document){0};
}

int64_t fkv_documents_bytes(const struct fkv_documents *d) { return d->bytes; }

int64_t fkv_documents_bytes_read(const struct fkv_documents *d) {
    int64_t at = d->lines ? (int64_t)ftello(d->lines) : 0; /* -1 in a pipe */
    return d->passed + (at > 0 ? at : 0);
}

/* What holds for every document: two tokens at least, all in the vocabulary. */
static int check_tokens(const struct fkv_documents *d, const struct fkv_document *document,
                        const char *where, struct fkv_error *err) {
    if (document->count < 2)
        return fkv_fail(err, "%s: expected at least 2 tokens, found %zu", where, document->count);
    for (size_t i = 0; i < document->count; i++)
        if (document->tokens[i] >= d->vocab)
            return fkv_fail(err, "%s: token %zu: id %d is not in the model's vocabulary of %d",
                            where, i, (int)document->tokens[i], (int)d->vocab);
    return FKV_OK;
}

/* Refuses what is no text in UTF-8, by name where it has one. */
static int check_text(const char *text, size_t bytes, const char *where, struct fkv_error *err) {
    const char *encoding = fkv_file_encoding(text, bytes);
    if (encoding)
        return fkv_fail(err, "%s: expected UTF-8, found %s (iconv -f %s -t UTF-8)", where, encoding,
                        encoding);
    const char *type = fkv_file_is_text(text, bytes) ? NULL : fkv_file_type(text, bytes);
    return type ? fkv_fail(err, "%s: expected text, found %s", where, type) : FKV_OK;
}

static int from_text(const struct fkv_documents *d, const char *text, size_t bytes,
                     const char *where, struct fkv_document *document, struct fkv_error *err) {
    if (check_text(text, bytes, where, err)) return FKV_FAILED;
    if (fkv_sha256_memory(text, bytes, document->text_sha256, err)) return FKV_FAILED;
    if (fkv_tokenizer_encode(d->tokenizer, text, bytes, d->special, &document->tokens,
                             &document->count, err))
        return fkv_error_prefix(err, "%s", where);
    return FKV_OK;
}

/* A byte order mark at the start of a text: its bytes, or 0. */
static size_t mark_bytes(const char *text, size_t bytes) {
    return bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
}

/* The hash is of the ids as little-endian int32, whatever the file held and whatever this machine
 * is. */
static int from_ids(const struct fkv_documents *d, const char *data, size_t bytes,
                    const struct source *source, struct fkv_document *document,
                    struct fkv_error *err) {
    const char *where = source->path;
    if (source->kind == NPY
            ? fkv_npy_parse(data, bytes, where, &document->tokens, &document->count, err)
            : fkv_raw_parse(data, bytes, d->raw_width, d->vocab, where, &document->tokens,
                            &document->count, err))
        return FKV_FAILED;
    uint32_t *little = malloc((document->count + 1) * sizeof *little);
    if (!little)
        return fkv_fail(err, "%s: out of memory for %zu token ids", where, document->count);
    for (size_t i = 0; i < document->count; i++) little[i] = htole32((uint32_t)document->tokens[i]);
    int status =
        fkv_sha256_memory(little, document->count * sizeof *little, document->text_sha256, err);
    free(little);
    return status;
}

/* Control characters become blanks, and what is no UTF-8 (single bytes are tokens, too) a question
 * mark. */
static void show_plainly(char *text, size_t bytes) {
    size_t out = 0;
    for (size_t i = 0; i < bytes;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n =
            utf8proc_iterate((const uint8_t *)text + i, (utf8proc_ssize_t)(bytes - i), &c);
        if (n == 1) text[out++] = c < ' ' ? ' ' : text[i];
        if (n > 1) memmove(text + out, text + i, (size_t)n), out += (size_t)n;
        if (n < 1 && (!out || text[out - 1] != '?')) text[out++] = '?';
        i += n > 0 ? (size_t)n : 1;
    }
    text[out] = 0;
}

/* Ids say nothing to a reader, their text does. */
static void show_ids(struct fkv_documents *d, const struct fkv_document *document,
                     const char *path) {
    size_t count = document->count < 8 ? document->count : 8, bytes;
    char *text = NULL, ids[96] = "";
    if (!d->tokenizer || *d->first_ids) return;
    for (size_t i = 0; i < count; i++)
        snprintf(ids + strlen(ids), sizeof ids - strlen(ids), " %d", (int)document->tokens[i]);
    if (fkv_tokenizer_decode(d->tokenizer, document->tokens, count, &text, &bytes, NULL)) {
        fkv_print_short(d->first_ids, sizeof d->first_ids,
                        "%.40s begins with%s: not all of them are tokens of the tokenizer",
                        base_name(path), ids);
        return;
    }
    show_plainly(text, bytes);
    fkv_print_short(d->first_ids, sizeof d->first_ids, "%.40s begins with%s: \"%s\"",
                    base_name(path), ids, text);
    free(text);
}

static int read_source(const struct source *source, char **data, size_t *bytes,
                       struct fkv_error *err) {
    if (source->kind != TEXT) return fkv_read_file(source->path, MAX_FILE, data, bytes, err);
    FILE *stream = fkv_text_open(source->path, err);
    return stream ? fkv_read_stream(stream, source->path, MAX_FILE, data, bytes, err) : FKV_FAILED;
}

/* Is the first line a row of JSON with a text? */
static bool is_row(const struct fkv_documents *d, const char *data, size_t bytes) {
    const char *end = memchr(data, '\n', bytes);
    char *text = NULL;
    size_t text_bytes;
    const bool row = fkv_jsonl_text(data, end ? (size_t)(end - data) : bytes, d->text_field, "",
                                    &text, &text_bytes, NULL) == FKV_OK;
    free(text);
    return row;
}

static int whole_file(struct fkv_documents *d, const struct source *source,
                      struct fkv_document *document, struct fkv_error *err) {
    char *data;
    size_t bytes;
    if (read_source(source, &data, &bytes, err)) return FKV_FAILED;
    int status;
    if (source->kind == TEXT) {
        size_t mark = mark_bytes(data, bytes);
        if (bytes == mark)
            status = fkv_fail(err, "%s: the text is empty", source->path);
        else if (source->guessed && is_row(d, data + mark, bytes - mark))
            status = fkv_fail_option(err,
                                     "%s: its first line is a row of JSON: --text-format jsonl "
                                     "reads the text of each, --text-format text all as it is",
                                     source->path);
        else
            status = from_text(d, data + mark, bytes - mark, source->path, document, err);
    } else {
        status = from_ids(d, data, bytes, source, document, err);
    }
    if (!status) status = check_tokens(d, document, source->path, err);
    if (!status && source->kind != TEXT) show_ids(d, document, source->path);
    free(data);
    document->name = status ? NULL : strdup(base_name(source->path));
    return status || document->name ? status : fkv_fail(err, "%s: out of memory", source->path);
}

static bool blank(const char *line, size_t bytes) { return strspn(line, " \t\r\n") >= bytes; }

/* The next line that is not blank; *bytes 0 at the end of the file. */
static int next_line(struct fkv_documents *d, const char *path, size_t *bytes,
                     struct fkv_error *err) {
    *bytes = 0;
    if (!d->lines) {
        d->lines = fkv_text_open(path, err);
        d->line_number = 0;
        if (!d->lines) return FKV_FAILED;
    }
    for (ssize_t n; (n = getline(&d->line, &d->line_capacity, d->lines)) > 0;) {
        if (ferror(d->lines)) break; /* half a line before damage */
        d->line_number++;
        if (blank(d->line, (size_t)n)) continue;
        *bytes = (size_t)n;
        return FKV_OK;
    }
    return ferror(d->lines) ? fkv_read_failed(path, err) : FKV_OK;
}

/* The row's document; *left_out where its text has not two tokens. */
static int from_line(const struct fkv_documents *d, const char *path, size_t line_bytes,
                     struct fkv_document *document, bool *left_out, struct fkv_error *err) {
    char where[FKV_PATH + 24], *text = NULL, *line = d->line;
    size_t bytes;
    snprintf(where, sizeof where, "%s:%lld", path, (long long)d->line_number);
    if (d->line_number == 1) {
        const size_t mark = mark_bytes(line, line_bytes);
        line += mark;
        line_bytes -= mark;
        if (check_text(line, line_bytes, path, err)) return FKV_FAILED;
    }
    int status = fkv_jsonl_text(line, line_bytes, d->text_field, where, &text, &bytes, err);
    if (!status) status = from_text(d, text, bytes, where, document, err);
    free(text);
    *left_out = !status && (!bytes || document->count < 2);
    if (!status && !*left_out) status = check_tokens(d, document, where, err);
    if (!status && !(document->name = strdup(base_name(where))))
        status = fkv_fail(err, "%s: out of memory", where);
    return status;
}

static void next_source(struct fkv_documents *d) {
    if (d->lines) fclose(d->lines);
    d->lines = NULL;
    d->passed += d->sources[d->current++].bytes;
}

int fkv_documents_next(struct fkv_documents *d, struct fkv_document *document, bool *more,
                       struct fkv_error *err) {
    *document = (struct fkv_document){0};
    *more = false;
    int status = FKV_OK;
    while (!status && !*more && d->current < d->count && d->remaining) {
        const struct source *source = &d->sources[d->current];
        size_t bytes = 0;
        if (source->kind != JSONL) {
            status = whole_file(d, source, document, err);
            *more = !status;
            next_source(d);
            continue;
        }
        status = next_line(d, source->path, &bytes, err);
        if (!status && bytes) {
            bool left_out = false;
            status = from_line(d, source->path, bytes, document, &left_out, err);
            *more = !status && !left_out;
            d->left_out += left_out;
            if (left_out) fkv_document_free(document);
        } else {
            next_source(d);
        }
    }
    if (*more && d->remaining > 0) d->remaining--;
    d->given += *more;
    if (!status && !*more && !d->given && d->left_out)
        status = fkv_fail(err, "%s: no documents: of %lld rows none has a text of two tokens",
                          d->sources[0].path, (long long)d->left_out);
    else if (!status && !*more && !d->given)
        status = fkv_fail(err, "%s: no documents: the file has no rows", d->sources[0].path);
    if (status) fkv_document_free(document);
    return status;
}

void fkv_documents_note(const struct fkv_documents *d, char note[FKV_DOCUMENTS_NOTE]) {
    char rows[80] = "", others[96] = "";
    if (d->left_out)
        snprintf(rows, sizeof rows, "%lld %s left out: empty or of one token",
                 (long long)d->left_out, d->left_out == 1 ? "row is" : "rows are");
    if (d->others)
        snprintf(others, sizeof others,
                 "of a folder, %lld %s left out: only its .txt files are read",
                 (long long)d->others, d->others == 1 ? "entry is" : "entries are");
    const char *parts[] = {others, d->first_ids, rows};
    size_t used = 0;
    *note = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!*parts[i]) continue;
        snprintf(note + used, FKV_DOCUMENTS_NOTE - used, "%s%s", used ? "; " : "", parts[i]);
        used = strlen(note);
    }
}
