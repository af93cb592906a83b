/* What the first bytes of a file say that it is, for files that were taken for text or for raw
 * token ids. */
#ifndef FKV_ENGINE_TEXT_FILE_TYPE_H
#define FKV_ENGINE_TEXT_FILE_TYPE_H

#include <stdbool.h>
#include <stddef.h>

/* A type by its magic bytes, with what to do about it: "a parquet file (...)". NULL: none that is
 * known. */
const char *fkv_file_type(const void *data, size_t bytes);

/* Does it begin as UTF-8 without control characters does? Too few bytes prove nothing: false. */
bool fkv_file_is_text(const void *data, size_t bytes);

/* The name of an encoding other than UTF-8, as iconv knows it: by its byte order mark, or because
 * every second byte is 0. NULL: none. */
const char *fkv_file_encoding(const void *data, size_t bytes);

#endif
