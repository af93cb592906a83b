/* A list of texts that grows. */
#ifndef FKV_ANALYZE_REPORT_TEXT_LIST_H
#define FKV_ANALYZE_REPORT_TEXT_LIST_H

#include "kernels/base/error.h"

struct fkv_text_list {
    char **text; /* [count]; owned, as each text is */
    int count;
};
/* Appends a copy of what printf would write. */
int fkv_text_list_add(struct fkv_text_list *list, struct fkv_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends a copy of `text`, unless it is empty or in the list already. */
int fkv_text_list_add_once(struct fkv_text_list *list, const char *text, struct fkv_error *err);
/* Harmless on a zeroed struct and a second time. */
void fkv_text_list_free(struct fkv_text_list *list);

#endif
