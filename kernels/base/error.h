/* Errors as values. A function that can fail returns 0 or FKV_FAILED and takes a `struct fkv_error
 * *` last; whoever first notices the failure writes the one message a user can act on (file, field,
 * expected, found) and everyone above passes the value on, adding context with fkv_error_prefix
 * where they know more ("document 3: ..."). Only main() turns it into an exit status. */
#ifndef FKV_BASE_ERROR_H
#define FKV_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

enum { FKV_OK = 0, FKV_FAILED = -1 };

struct fkv_error {
    char message[1024]; /* no trailing newline; "" when nothing failed */
    bool of_option;     /* the value of a command-line option is at fault */
};

/* Exit statuses of every tool: done, the work failed, the command line was wrong. */
enum { FKV_EXIT_DONE = 0, FKV_EXIT_FAILED = 1, FKV_EXIT_USAGE = 2 };

/* Writes the message (as fkv_print_short does) and returns FKV_FAILED, so that `return
 * fkv_fail(err, ...)` reads well. `err` may be NULL. */
int fkv_fail(struct fkv_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As fkv_fail, where the value of an option is refused, however late that is noticed. */
int fkv_fail_option(struct fkv_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* FKV_EXIT_USAGE where an option is at fault, else FKV_EXIT_FAILED. */
int fkv_exit_status(const struct fkv_error *err);

/* As fkv_fail, with ": " and strerror(errno) appended. */
int fkv_fail_errno(struct fkv_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts "context: " before a message that is already there; returns FKV_FAILED. */
int fkv_error_prefix(struct fkv_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* printf into out [size], size above 64. A text that is too long loses its middle, which " ... "
 * stands for, and no character of UTF-8 in part: the ends name the file and say what is wrong with
 * it. For people, never to open a file by. */
void fkv_print_short(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
