/* Classes of tokens as captures and probes store them, a byte of bits per token (defined in
 * engine/text/token_class.h, which the analyzer does not link). */
#ifndef FKV_ANALYZE_LINK_TOKEN_CLASSES_H
#define FKV_ANALYZE_LINK_TOKEN_CLASSES_H

#include <stdbool.h>
#include <stdint.h>

#include "capture/store/probe_damage.h"

/* Class 0 is all tokens; class c > 0 has bit 1 << (c - 1). */
enum { FKV_CLASSES = 8, FKV_CLASSES_BY_IDS = 5 }; /* from FKV_CLASSES_BY_IDS on, ids alone decide */
extern const char *const fkv_class_names[FKV_CLASSES];

static inline bool fkv_class_has(uint8_t bits, int c) { return c == 0 || (bits >> (c - 1) & 1); }

/* Bits of the classes that ids alone decide -> classes [n], from tokens [n] of one text: for files
 * without a tokenizer's classes. The rules are those of engine/text/token_class.h, applied to the
 * tokens at hand. */
int fkv_classes_by_ids(const int32_t *tokens, int64_t n, uint8_t *classes, struct fkv_error *err);

/* Mean delta nll of a probe's change over the tokens of class `c`; over all tokens:
 * probe_damage.h. *se: its standard error; may be NULL. *tokens: how many there are. scratch
 * [2, units] */
struct fkv_interval fkv_damage_of_class(const struct fkv_damage *d, int32_t change, int c,
                                        double *se, int64_t *tokens, double *scratch);

#endif
