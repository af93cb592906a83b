/* The root attributes of RUN.h5 that say what made it, for writing a file and for recognising one.
 */
#ifndef FKV_REPLAY_PERPLEXITY_RUN_ATTRIBUTES_H
#define FKV_REPLAY_PERPLEXITY_RUN_ATTRIBUTES_H

#include "replay/perplexity/experiment.h"

/* `same`: has to agree in the file of a run that is not made again. */
struct fkv_run_text {
    const char *name, *value;
    bool same;
};
struct fkv_run_integer {
    const char *name;
    int64_t value;
    bool same;
};
enum { FKV_RUN_TEXTS = 23, FKV_RUN_INTEGERS = 13 };

/* Values are borrowed from the experiment. */
void fkv_run_attributes(const struct fkv_experiment *e, struct fkv_run_text texts[FKV_RUN_TEXTS],
                        struct fkv_run_integer integers[FKV_RUN_INTEGERS]);

/* The name of the dataset of final hidden states. */
extern const char fkv_run_final_states[];

#endif
