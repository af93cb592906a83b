/* Owns lists of texts. */
#include "analyze/report/text_list.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fkv_text_list_add(struct fkv_text_list *list, const char *format, ...) {
    char **grown = realloc(list->text, ((size_t)list->count + 1) * sizeof *grown);
    va_list arguments;
    if (grown) list->text = grown;
    va_start(arguments, format);
    bool made = grown && vasprintf(&list->text[list->count], format, arguments) >= 0;
    va_end(arguments);
    list->count += made;
    list->failed |= !made;
}

void fkv_text_list_add_once(struct fkv_text_list *list, const char *text) {
    for (int i = 0; text && i < list->count; i++)
        if (!strcmp(list->text[i], text)) return;
    if (text && *text) fkv_text_list_add(list, "%s", text);
}

void fkv_text_list_free(struct fkv_text_list *list) {
    for (int i = 0; i < list->count; i++) free(list->text[i]);
    free(list->text);
    *list = (struct fkv_text_list){0};
}
