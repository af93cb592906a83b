/* Owns how paths are put together (path.h). Memory of one size on the caller's stack, for the
 * system takes no longer ones. */
#include "kernels/base/path.h"

#include <stdarg.h>
#include <stdio.h>

int fkv_path_print(char path[FKV_PATH], struct fkv_error *err, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(path, FKV_PATH, format, arguments);
    va_end(arguments);
    if (length >= 0 && length < FKV_PATH) return FKV_OK;
    return fkv_fail(err, "%s: the path is too long: expected at most %d bytes, found %d", path,
                    FKV_PATH - 1, length);
}
