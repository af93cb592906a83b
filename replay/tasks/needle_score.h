/* What a model makes of a prompt of needle.h, under a session's policy. */
#ifndef FKV_REPLAY_TASKS_NEEDLE_SCORE_H
#define FKV_REPLAY_TASKS_NEEDLE_SCORE_H

#include "engine/session/session.h"
#include "replay/tasks/needle.h"

/* Numbers have the nine digits that a row of the CSV file holds, so that a resumed run has the
 * same. */
struct fkv_needle_result {
    bool exact;     /* needle: greedy decoding gives the answer's tokens */
    double logprob; /* needle: of the answer's tokens, summed, nats */
    char *found;    /* needle: text of as many tokens, decoded greedily; owned */
    double first;   /* recall: nll of the passage where it stands in the text, nats per token */
    double second;  /* recall: of the same tokens where it returns */
};
void fkv_needle_result_free(struct fkv_needle_result *r); /* harmless on a zeroed struct */
/* The value with nine digits. */
double fkv_needle_round(double value);

/* Feeds the prompt to an empty sequence 0. tokens as fkv_needle_build made them. Of a passage all
 * tokens but the first are scored: nothing announces that one when the passage returns. */
int fkv_needle_score(struct fkv_session *s, const struct fkv_needle_task *task,
                     const struct fkv_needle_cell *cell, const int32_t *tokens,
                     struct fkv_needle_result *out, struct fkv_error *err);

#endif
