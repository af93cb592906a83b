/* The one place where messages are put together. Text is formatted aside and then copied, so a message may quote the one it replaces. */
#include "kernels/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_message(struct fkv_error *err, const char *text) {
    if (!err) return;
    snprintf(err->message, sizeof err->message, "%s", text);
    err->of_option = false;
}

int fkv_fail(struct fkv_error *err, const char *format, ...) {
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    set_message(err, text);
    return FKV_FAILED;
}

int fkv_fail_option(struct fkv_error *err, const char *format, ...) {
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    set_message(err, text);
    if (err) err->of_option = true;
    return FKV_FAILED;
}

int fkv_exit_status(const struct fkv_error *err) { return err->of_option ? FKV_EXIT_USAGE : FKV_EXIT_FAILED; }

int fkv_fail_errno(struct fkv_error *err, const char *format, ...) {
    int reason = errno;
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return fkv_fail(err, "%s: %s", text, strerror(reason));
}

int fkv_error_prefix(struct fkv_error *err, const char *format, ...) {
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!err) return FKV_FAILED;
    bool of_option = err->of_option;
    fkv_fail(err, "%s: %s", text, err->message);
    err->of_option = of_option;
    return FKV_FAILED;
}
