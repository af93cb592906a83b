/* See baseline_run.h. */
#include "replay/perplexity/baseline_run.h"

#include <stdlib.h>

void fkv_baseline_run_free(struct fkv_baseline_run *run) {
    free(run->nll);
    free(run->top1);
    free(run->final_states);
    *run = (struct fkv_baseline_run){0};
}

const char *fkv_baseline_run_missing(const struct fkv_baseline_run *run) {
    if (run->final_states) return "";
    return run->top1 ? "KL is not known: the baseline was run without --final-states"
                     : "KL and the same top token are not known: the baseline's file holds neither "
                       "final states nor top tokens";
}
