/* Runs over one model, corpus and plan that differ in their policies: a single run, the points of a
 * sweep, the rows of a comparison. Everything that can be refused is refused before the first token
 * is fed. A point whose run file is there is not run again: run files appear whole or not at all,
 * and say what made them. */
#ifndef FKV_REPLAY_PERPLEXITY_POINTS_H
#define FKV_REPLAY_PERPLEXITY_POINTS_H

#include "kernels/base/path.h"
#include "replay/perplexity/experiment.h"
#include "replay/replay.h"

struct fkv_point {
    struct fkv_policy_options policy; /* its texts are borrowed, or in `name` */
    char name[96];                    /* for messages; "": a single run */
    char path[FKV_PATH];              /* of its run file; "": none */
    bool done;                        /* by an earlier run, whose results these are */
    double results[FKV_RESULTS];
};

/* Where points get full attention from, that differences are taken to. */
enum fkv_baseline_from {
    FKV_NO_BASELINE,
    FKV_BASELINE_BESIDE, /* computed with every point */
    FKV_BASELINE_RUN,    /* a run file: baseline_path */
    FKV_BASELINE_FIRST   /* point 0, which is full attention and keeps its final hidden states */
};

struct fkv_points {
    const struct fkv_replay *replay; /* without --out there are no files */
    const struct fkv_corpus *corpus; /* as fkv_points_read has it */
    struct fkv_plan *plan;
    int64_t tokens, score_from; /* --tokens and --score-from; 0: not given */
    const char *prefix;         /* of names in messages: "gamma "; "": none */
    const char *option;         /* the same where a setup is refused: "--sweep gamma=" */
    enum fkv_baseline_from from;
    const char *baseline_path;
    bool final_states;        /* run files keep them */
    bool resume;              /* files that are there are taken over; else they are in the way */
    struct fkv_point *points; /* [count]; borrowed */
    int count;

    /* filled in by fkv_points_open and fkv_points_check */
    struct fkv_session_options session;
    int32_t lanes;
    fkv_sha256_hex model_sha256, corpus_sha256; /* "" without files */
    struct fkv_baseline_run baseline;           /* owned */
    int pending;                                /* points to run */
    int64_t other_fed;                          /* tokens that are fed besides */
    bool estimated;
    struct fkv_needs needs;
};

/* Reads the texts of a parsed plan into `corpus`, and plans its passes. */
int fkv_points_read(struct fkv_points *p, struct fkv_corpus *corpus, struct fkv_error *err);
/* Refuses a policy that acts at the ends of prefill blocks under a protocol that has none. */
int fkv_points_check_blocks(const struct fkv_plan *plan, const struct fkv_policy *policy,
                            struct fkv_error *err);

/* Chooses lanes and sessions, hashes what files name, and reads the baseline's file. After a
 * failure, too, the caller closes it. */
int fkv_points_open(struct fkv_points *p, struct fkv_error *err);
void fkv_points_close(struct fkv_points *p); /* harmless on a zeroed struct */

/* Sets every point's policy up, takes over what is there, and checks what the others need;
 * `other` (may be NULL): tokens fed and bytes on top. */
int fkv_points_check(struct fkv_points *p, const struct fkv_needs *other, struct fkv_error *err);

/* The setup of point i; the caller frees it. */
int fkv_points_setup(const struct fkv_points *p, int i, struct fkv_policy_setup *setup,
                     struct fkv_error *err);
/* The experiment at point i, without what it found. */
struct fkv_experiment fkv_points_experiment(const struct fkv_points *p, int i,
                                            const struct fkv_policy_setup *setup);

/* Runs point i, writes its file, fills in its results, and with `report` prints what it found; with
 * dry_run says how long all of them will take, and runs nothing. A point that is done is left
 * alone.
 */
int fkv_points_run(struct fkv_points *p, int i, bool report, struct fkv_error *err);

#endif
