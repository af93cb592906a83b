/* What the readers of RUN.h5 in this room share; layout: run_file.c. */
#ifndef FKV_REPLAY_PERPLEXITY_RUN_FILE_H
#define FKV_REPLAY_PERPLEXITY_RUN_FILE_H

#include "capture/store/h5.h"
#include "replay/perplexity/experiment.h"

/* Refuses a file whose root attributes say that another experiment made it: with the attribute,
 * what was expected and what was found. `skipped`: an attribute that may differ; NULL: none. */
int fkv_run_file_check(struct fkv_h5_reader *r, const char *path, const struct fkv_experiment *e,
                       const char *skipped, struct fkv_error *err);

#endif
