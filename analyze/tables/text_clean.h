/* Text that may hold anything, as text that every format takes. */
#ifndef FKV_ANALYZE_TABLES_TEXT_CLEAN_H
#define FKV_ANALYZE_TABLES_TEXT_CLEAN_H

/* A malloc'd copy that is valid UTF-8 without control characters: what is not becomes '?', a line
 * break or tab a space. NULL without memory. */
char *fkv_text_clean(const char *text);

#endif
