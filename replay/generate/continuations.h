/* OUT.jsonl of `generate`: one line per prompt, in the order of the prompts, as users had them: a
 * continuation that is done waits for those before it. What a kill can cost is therefore no more
 * than what was computed beside the oldest continuation under way (and is never more than a group,
 * commands/generate.c). The file grows as lines_file.h says. */
#ifndef FKV_REPLAY_GENERATE_CONTINUATIONS_H
#define FKV_REPLAY_GENERATE_CONTINUATIONS_H

#include "replay/generate/generate.h"
#include "replay/generate/prompts.h"
#include "replay/identity.h"
#include "replay/lines_file.h"

/* What lines are made of and with. */
struct fkv_continuing {
    const struct fkv_prompts *prompts;
    const struct fkv_tokenizer *tokenizer;
    const struct fkv_policy_setup *setup;
    int64_t tokens, seed; /* as for the generation */
    double temperature;
};

/* The line of prompt i as an object, a new reference; NULL and a message. */
json_t *fkv_continuation_json(const struct fkv_continuing *c, size_t i,
                              const struct fkv_generation *g, struct fkv_error *err);

/* The object of OUT.jsonl.run, a new reference; NULL and a message. Hashes the model. `batch` and
 * `rope_positions` as in identity.h. */
json_t *fkv_continuing_identity(const struct fkv_continuing *c, const struct fkv_replay *replay,
                                int32_t batch, int64_t rope_positions, struct fkv_error *err);

/* What an earlier run left. */
struct fkv_continued {
    struct fkv_lines_found file;
    int64_t prompt_tokens; /* of the prompts of its whole lines */
    int64_t tokens;        /* generated */
};

/* Reads lines from `f`, called `where` in messages: each must be, byte for byte, what a prompt's
 * token_ids in it make a line of this run. */
int fkv_continuations_read(FILE *f, const char *where, const struct fkv_continuing *c,
                           struct fkv_continued *found, struct fkv_error *err);
/* Looks at OUT.jsonl and OUT.jsonl.run without changing them; neither there: nothing found.
 * Refuses what another run made. */
int fkv_continuations_find(const char *path, const struct fkv_continuing *c, const json_t *identity,
                           struct fkv_continued *found, struct fkv_error *err);

#endif
