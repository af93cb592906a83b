/* Owns what becomes of text from files and command lines before it is drawn or put into a page
 * (text_clean.h). */
#include "analyze/tables/text_clean.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Is this one of the 66 code points that are never characters (U+FDD0 to U+FDEF, and the last two
 * of each plane)? They are valid UTF-8, and cairo refuses them. */
static bool is_noncharacter(uint32_t code) {
    return (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) == 0xfffe;
}

/* The length of the valid UTF-8 character at p (RFC 3629), or 0. */
static int utf8_length(const unsigned char *p) {
    if (*p < 0x80) return *p >= 0x20 && *p != 0x7f;
    int n = *p >= 0xc2 && *p <= 0xdf   ? 2
            : (*p & 0xf0) == 0xe0      ? 3
            : *p >= 0xf0 && *p <= 0xf4 ? 4
                                       : 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f)))
        return 0; /* overlong, surrogate */
    if (n == 4 && ((*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))) return 0;
    uint32_t code = n ? *p & (0xffu >> (n + 1)) : 0;
    for (int i = 1; i < n; i++) code = code << 6 | (p[i] & 0x3fu);
    return is_noncharacter(code) ? 0 : n;
}

char *fkv_text_clean(const char *text) {
    size_t bytes = strlen(text), n = 0;
    char *out = malloc(bytes + 1);
    if (!out) return NULL;
    for (size_t i = 0; i < bytes;) {
        int length = utf8_length((const unsigned char *)text + i);
        if (length) {
            memcpy(out + n, text + i, (size_t)length);
            n += (size_t)length, i += (size_t)length;
        } else {
            out[n++] = text[i] == '\n' || text[i] == '\t' ? ' ' : '?';
            i++;
        }
    }
    out[n] = 0;
    return out;
}
