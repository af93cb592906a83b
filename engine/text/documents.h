/* What the user gave to read, as token ids, one document after the other: text files, folders of
 * .txt files, rows of JSON, .npy and raw ids. Documents come in the order given (folders: by name),
 * so that a run can be repeated and resumed. Only one document is in memory at a time. */
#ifndef FKV_ENGINE_TEXT_DOCUMENTS_H
#define FKV_ENGINE_TEXT_DOCUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/text/tokenizer.h"

struct fkv_document {
    char *name;      /* file name without folder; "corpus.jsonl:17" (line) for jsonl */
    int32_t *tokens; /* BOS first if the tokenizer adds it (never for token ids) */
    size_t count;    /* at least 2 */
    fkv_sha256_hex
        text_sha256; /* of the text's bytes (token ids: of the ids as little-endian int32) */
};
void fkv_document_free(struct fkv_document *d);

struct fkv_documents_options {
    const char *const *texts; /* --text paths; "-": standard input */
    int text_count;
    const char
        *text_format; /* "text", "txt" or "jsonl" for every one; NULL: by the name of the file */
    const char *text_field;       /* of a row; NULL: "text", or "article" where there is none */
    const char *const *token_ids; /* --token-ids paths */
    int token_ids_count;
    const char *token_dtype; /* "uint16" or "uint32" for raw ids; NULL: uint16, if the vocabulary
                                fits */
    int64_t max_documents;   /* 0: all */
    int32_t vocab;           /* ids >= vocab are refused, with document and position */
    bool special;            /* let the tokenizer add BOS */
};

struct fkv_documents; /* an iterator */
/* Checks that every path exists and is readable and counts what it can. `tokenizer` may be NULL
 * when only token ids are given; it must outlive the iterator. */
int fkv_documents_open(const struct fkv_documents_options *options,
                       const struct fkv_tokenizer *tokenizer, struct fkv_documents **out,
                       struct fkv_error *err);
/* *more is false after the last one. The caller frees the document. Empty texts, invalid UTF-8 and
 * texts of fewer than two tokens are errors that name the document; a row of a .jsonl that is that
 * short is left out and counted. */
int fkv_documents_next(struct fkv_documents *d, struct fkv_document *document, bool *more,
                       struct fkv_error *err);
/* What a user should know of what has been read, one line without its end; "" for nothing: entries
 * of folders and rows that were left out; the first ids of a file and their text. */
enum { FKV_DOCUMENTS_NOTE = 384 };
void fkv_documents_note(const struct fkv_documents *d, char note[FKV_DOCUMENTS_NOTE]);
int64_t fkv_documents_bytes(const struct fkv_documents *d); /* size of all inputs: for estimates
                                                               before the first document is read */
int64_t fkv_documents_bytes_read(
    const struct fkv_documents *d);                /* of those, already passed: for progress */
void fkv_documents_close(struct fkv_documents *d); /* NULL is fine */

/* The ids of one .npy (1-D, integers) or raw little-endian file, from memory; for the fuzzers and
 * for next. malloc'd, the caller frees. Raw: `width` 2, 4 or 0 (not said); `vocab` INT32_MAX where
 * it is not known. */
int fkv_raw_parse(const void *data, size_t bytes, size_t width, int32_t vocab, const char *where,
                  int32_t **ids, size_t *count, struct fkv_error *err);
int fkv_npy_parse(const void *data, size_t bytes, const char *where, int32_t **ids, size_t *count,
                  struct fkv_error *err);
/* The ids of `n` integers of `width` bytes, 8 at most, for the two above: malloc'd, the caller
 * frees. What is negative or no int32 is refused. (documents_raw.c) */
int fkv_read_ids(const uint8_t *data, size_t n, size_t width, bool big, bool negative_possible,
                 const char *where, int32_t **ids, size_t *count, struct fkv_error *err);
/* The text of one row: of `field`, or of "text" or "article" where it is NULL; null is an empty
 * text. malloc'd with a NUL added, the caller frees. (rows.c) */
int fkv_jsonl_text(const char *line, size_t bytes, const char *field, const char *where,
                   char **text, size_t *text_bytes, struct fkv_error *err);

#endif
