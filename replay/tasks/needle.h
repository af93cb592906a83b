/* Prompts that ask a model to find something in a long text, as token ids.
 *
 * needle   BOS, text, needle, text, question: the answer is asked for.
 * recall   BOS, text, and a passage of that text once more at its end.
 *
 * A prompt has exactly `length` tokens, BOS included; the answer follows them. To make that exact,
 * and to leave needle and question whole, parts are encoded each by itself and their ids joined:
 * a part is encoded after a full stop, whose ids are dropped, so that it has the ids it would have
 * within a text. A needle stands where a sentence of the text ends. */
#ifndef FKV_REPLAY_TASKS_NEEDLE_H
#define FKV_REPLAY_TASKS_NEEDLE_H

#include "engine/text/tokenizer.h"
#include "replay/corpus.h"

enum fkv_needle_kind { FKV_NEEDLE, FKV_RECALL };
extern const char *const fkv_needle_kinds[]; /* their names */

/* The texts, and where sentences end in them. */
struct fkv_haystack {
    const int32_t *tokens; /* [count]; the corpus's */
    int64_t count;
    int64_t *ends; /* [end_count] of tokens that a sentence, or a document, ends before; ascending,
                      the first is 0; owned */
    int64_t end_count;
};
/* Refuses texts in which no sentence ends. The corpus must be without BOS and outlive it. */
int fkv_haystack_open(const struct fkv_corpus *corpus, const struct fkv_tokenizer *tokenizer,
                      struct fkv_haystack *out, struct fkv_error *err);
void fkv_haystack_close(struct fkv_haystack *h); /* harmless on a zeroed struct */

#define FKV_NEEDLE_KEY "{key}" /* stands for the digits in the texts below */
enum { FKV_NEEDLE_MOST_DIGITS = 18 };

struct fkv_needle_task {
    enum fkv_needle_kind kind;
    const struct fkv_haystack *haystack;
    const struct fkv_tokenizer *tokenizer;
    int32_t vocab;                          /* of the model: ids are below it */
    int32_t bos;                            /* first token of a prompt; -1: none */
    const char *needle, *question, *answer; /* as they follow the text, with their white space */
    int32_t digits;                         /* of a key */
    int32_t passage;                        /* tokens of recall's */
    int64_t seed;                           /* below 2^31 */
    int32_t block; /* prompts are prefilled in blocks of it, at whose ends a selecting policy acts;
                      0: in one block, as prompts are elsewhere */
};

/* One prompt: length, depth and repeat are given, the rest is found. */
struct fkv_needle_cell {
    int64_t length; /* tokens of the prompt */
    double depth;   /* 0: at the start of the text, 1: at its end */
    int64_t repeat; /* draws key and offset, the same for all lengths and depths */
    char key[FKV_NEEDLE_MOST_DIGITS + 1];
    int64_t offset;   /* of the prompt's text in the haystack, where a sentence ends */
    int64_t position; /* of the needle, or of the passage, in the prompt */
    int32_t answer;   /* tokens of the answer; of recall, of the passage */
};

/* Fills in what is found of the cell. *tokens [length + answer]: the prompt and its answer; of
 * recall [length], as the passage ends the prompt. malloc'd, the caller frees; NULL: not wanted.
 * Refused: a length that does not hold the parts, texts that are too short for it. */
int fkv_needle_build(const struct fkv_needle_task *task, struct fkv_needle_cell *cell,
                     int32_t **tokens, struct fkv_error *err);

#endif
