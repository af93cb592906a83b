/* Tables that freqkv-replay bench wrote. */
#ifndef FKV_ANALYZE_PLOTS_BENCH_H
#define FKV_ANALYZE_PLOTS_BENCH_H

#include <stdbool.h>

#include "analyze/tables/table.h"

/* Whether the columns say that it is one. */
bool fkv_bench_table(const struct fkv_table *t);

#endif
