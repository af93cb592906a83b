/* Files of text, compressed or not, as streams of their text. */
#ifndef FKV_ENGINE_TEXT_COMPRESSED_H
#define FKV_ENGINE_TEXT_COMPRESSED_H

#include <stddef.h>
#include <stdio.h>

#include "kernels/base/error.h"

/* Opens a file to read; one of gzip or zstd, known by its first bytes, is unpacked on the way, and
 * one that is damaged or cut short fails to be read (EBADMSG). Pipes are read as they are. NULL and
 * a message on failure; the caller closes the stream. */
FILE *fkv_text_open(const char *path, struct fkv_error *err);

/* Length of a name without the ending .gz or .zst. */
size_t fkv_text_name_bytes(const char *name);

#endif
