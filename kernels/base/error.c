/* Writing messages. Text is formatted in other memory and then copied, so a
 * message may quote the one it replaces.
 *
 * A message begins with a path, as a rule, and ends with what is wrong. Where both together are too
 * long the middle goes: what is left names the file by its last part and still says why. */
#include "kernels/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a character of UTF-8 begins, at `at` or before it; bytes that are no UTF-8 count each for
 * itself. */
static size_t character_start(const char *text, size_t at) {
    for (size_t back = 0; back < 4 && back <= at; back++)
        if (((unsigned char)text[at - back] & 0xc0) != 0x80) return at - back;
    return at;
}

static void shorten(const char *text, size_t length, char *out, size_t size) {
    static const char gap[] = " ... ";
    if (length < size) {
        memcpy(out, text, length + 1);
        return;
    }
    size_t left = size - sizeof gap, head = character_start(text, left / 3),
           tail = length - (left - left / 3);
    while (tail < length && tail > character_start(text, tail)) tail++;
    memcpy(out, text, head);
    memcpy(out + head, gap, sizeof gap - 1);
    memcpy(out + head + sizeof gap - 1, text + tail, length - tail + 1);
}

static void print_short(char *out, size_t size, const char *format, va_list arguments) {
    char *text = NULL;
    va_list again;
    va_copy(again, arguments);
    int length = vasprintf(&text, format, arguments);
    if (length < 0)
        vsnprintf(out, size, format, again); /* out of memory: cut, but said */
    else
        shorten(text, (size_t)length, out, size);
    if (length >= 0) free(text);
    va_end(again);
}

void fkv_print_short(char *out, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_short(out, size, format, arguments);
    va_end(arguments);
}

/* Text may quote the message that it replaces: it is formatted aside, then copied. */
static int fail(struct fkv_error *err, bool of_option, const char *format, va_list arguments) {
    char text[sizeof err->message];
    if (!err) return FKV_FAILED;
    print_short(text, sizeof text, format, arguments);
    strcpy(err->message, text);
    err->of_option = of_option;
    return FKV_FAILED;
}

int fkv_fail(struct fkv_error *err, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(err, false, format, arguments);
    va_end(arguments);
    return FKV_FAILED;
}

int fkv_fail_option(struct fkv_error *err, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(err, true, format, arguments);
    va_end(arguments);
    return FKV_FAILED;
}

int fkv_exit_status(const struct fkv_error *err) {
    return err->of_option ? FKV_EXIT_USAGE : FKV_EXIT_FAILED;
}

int fkv_fail_errno(struct fkv_error *err, const char *format, ...) {
    int reason = errno;
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    print_short(text, sizeof text, format, arguments);
    va_end(arguments);
    return fkv_fail(err, "%s: %s", text, strerror(reason));
}

int fkv_error_prefix(struct fkv_error *err, const char *format, ...) {
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    print_short(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!err) return FKV_FAILED;
    bool of_option = err->of_option;
    fkv_fail(err, "%s: %s", text, err->message);
    err->of_option = of_option;
    return FKV_FAILED;
}
