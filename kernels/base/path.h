/* Paths put together. One that does not fit is refused: cut short it would name another file. */
#ifndef FKV_BASE_PATH_H
#define FKV_BASE_PATH_H

#include "kernels/base/error.h"

enum {
    FKV_PATH = 4096,        /* what Linux takes, the NUL included (PATH_MAX) */
    FKV_DOCUMENT_NAME = 288 /* a file's name, of 255 bytes at most, ":" and the number of a line */
};

int fkv_path_print(char path[FKV_PATH], struct fkv_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
