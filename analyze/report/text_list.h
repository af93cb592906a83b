/* A list of texts that grows. */
#ifndef FKV_ANALYZE_REPORT_TEXT_LIST_H
#define FKV_ANALYZE_REPORT_TEXT_LIST_H

#include <stdbool.h>

struct fkv_text_list {
    char **text; /* [count]; owned, as each text is */
    int count;
    bool failed; /* a text is missing, for lack of memory */
};
/* Appends a copy of what printf would write. */
void fkv_text_list_add(struct fkv_text_list *list, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Appends a copy of `text`, unless it is NULL, empty or in the list already. */
void fkv_text_list_add_once(struct fkv_text_list *list, const char *text);
/* Harmless on a zeroed struct and a second time. */
void fkv_text_list_free(struct fkv_text_list *list);

#endif
