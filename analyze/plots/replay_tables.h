/* The columns by which tables of freqkv-replay are known. Each kind has figures of its own. */
#ifndef FKV_ANALYZE_PLOTS_REPLAY_TABLES_H
#define FKV_ANALYZE_PLOTS_REPLAY_TABLES_H

extern const char fkv_bench_columns[];  /* of freqkv-replay bench */
extern const char fkv_needle_columns[]; /* of freqkv-replay needle */
extern const char fkv_pareto_columns[]; /* of freqkv-replay compare */

#endif
