/* Owns lists of texts. */
#include "analyze/report/text_list.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fkv_text_list_add(struct fkv_text_list *list, struct fkv_error *err, const char *format, ...) {
    char **grown = realloc(list->text, ((size_t)list->count + 1) * sizeof *grown);
    va_list arguments;
    if (grown) list->text = grown;
    va_start(arguments, format);
    bool made = grown && vasprintf(&list->text[list->count], format, arguments) >= 0;
    va_end(arguments);
    if (!made) return fkv_fail(err, "out of memory");
    list->count++;
    return FKV_OK;
}

int fkv_text_list_add_once(struct fkv_text_list *list, const char *text, struct fkv_error *err) {
    for (int i = 0; i < list->count; i++)
        if (!strcmp(list->text[i], text)) return FKV_OK;
    return *text ? fkv_text_list_add(list, err, "%s", text) : FKV_OK;
}

void fkv_text_list_free(struct fkv_text_list *list) {
    for (int i = 0; i < list->count; i++) free(list->text[i]);
    free(list->text);
    *list = (struct fkv_text_list){0};
}
