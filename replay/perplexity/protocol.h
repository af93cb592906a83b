/* Evaluation protocols. A protocol is one row of fkv_protocols[]: it turns a corpus into a list of
 * passes, each fed from an empty cache. */
#ifndef FKV_REPLAY_PERPLEXITY_PROTOCOL_H
#define FKV_REPLAY_PERPLEXITY_PROTOCOL_H

#include "replay/corpus.h"

/* Row i of a pass feeds stream token start + i and predicts stream token start + i + 1. Row 0 may
 * feed `first` instead: then start may be one before the document, and `first` is fed for that
 * token. */
struct fkv_pass {
    int64_t start;
    int64_t document;    /* of the first token fed */
    int32_t rows;        /* fed, from an empty cache */
    int32_t from, until; /* rows [from, until) are scored */
    int32_t first;       /* -1: the stream's own token */
};

struct fkv_plan {
    const struct fkv_protocol *protocol;
    char name[32];           /* as the user wrote it: "stride:256" */
    int32_t parameter;       /* the s, c or b; 0 without one */
    int32_t block;           /* feeds end after every so many tokens of a pass; 0: anywhere */
    struct fkv_pass *passes; /* [count]; owned */
    int64_t count;
    int64_t rows;         /* fed, all passes */
    int64_t scored;       /* rows scored, all passes */
    int32_t longest;      /* rows of the longest pass */
    struct fkv_cost cost; /* of rows and slots, where it was measured; else 0 */
};

struct fkv_protocol_setting {
    int64_t tokens; /* --tokens; 0: default */
    int64_t
        score_from; /* only targets at this position of their pass or later are scored; 0: all */
    int32_t trained_context;
    int32_t tokenizer_bos; /* what the tokenizer puts in front, or -1 */
    int32_t bos, eos;      /* the model's, or -1 */
};

struct fkv_protocol {
    const char *name;
    const char *parameter; /* its name after the colon, for messages; NULL: there is none */
    bool special;          /* documents start with the tokenizer's BOS */
    bool joined; /* windows run across documents and may overlap: --tokens is their length and not a
                    limit on documents */
    int (*plan)(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                struct fkv_plan *plan, struct fkv_error *err);
};

extern const struct fkv_protocol fkv_protocols[]; /* a row without a name ends it */

/* Reads "stride:256" and the like into plan->protocol, name and parameter. */
int fkv_protocol_parse(const char *text, struct fkv_plan *plan, struct fkv_error *err);
/* Fills a parsed plan with the passes over `corpus`. A corpus that gives nothing to score is
 * refused, with its longest document's name. */
int fkv_protocol_plan(const struct fkv_corpus *corpus, const struct fkv_protocol_setting *setting,
                      struct fkv_plan *plan, struct fkv_error *err);
/* Is any token scored in more than one pass? Then blocks of tokens are no independent units. */
bool fkv_plan_overlaps(const struct fkv_plan *plan);
void fkv_plan_free(struct fkv_plan *plan); /* harmless on a zeroed struct */

#endif
