/* Tables that freqkv-replay needle wrote. */
#ifndef FKV_ANALYZE_PLOTS_NEEDLE_H
#define FKV_ANALYZE_PLOTS_NEEDLE_H

#include <stdbool.h>

#include "analyze/tables/table.h"

/* Whether the columns say that it is one. */
bool fkv_needle_table(const struct fkv_table *t);

#endif
