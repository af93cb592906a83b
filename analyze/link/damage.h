/* What the changes of a probe did to tokens of one class; over all tokens: probe_damage.h. */
#ifndef FKV_ANALYZE_LINK_DAMAGE_H
#define FKV_ANALYZE_LINK_DAMAGE_H

#include "capture/store/probe_damage.h"

/* Mean delta nll of a change over the tokens of class `c` (analyze/link/token_classes.h). *se: its
 * standard error; may be NULL. *tokens: how many there are. scratch [2, units] */
struct fkv_interval fkv_damage_of_class(const struct fkv_damage *d, int32_t change, int c,
                                        double *se, int64_t *tokens, double *scratch);

#endif
