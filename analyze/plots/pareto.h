/* Tables that freqkv-replay compare wrote. */
#ifndef FKV_ANALYZE_PLOTS_PARETO_H
#define FKV_ANALYZE_PLOTS_PARETO_H

#include <stdbool.h>

#include "analyze/tables/table.h"

/* Whether the columns say that it is one. */
bool fkv_pareto_table(const struct fkv_table *t);

#endif
