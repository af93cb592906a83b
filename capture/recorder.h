/* Recording: texts through a model into a capture. A text is cut into recordings of at most
 * max_tokens tokens, each with an empty cache, so that states are in the regime the model was
 * trained for; full attention.
 *
 * With --batch B, up to B recordings are open side by side. Their numbers and order are those of B
 * = 1 and their contents equal within rounding: what a matrix product makes of a row may depend, in
 * its last bit, on how many rows there are. A run that is killed leaves gaps where longer
 * recordings were still open.
 *
 * `resume` skips what is already in the folder and whole, after a check that it is of the same
 * text, and records all that is missing, gaps included, with whatever B. With B = 1 (and the same
 * threads) the result is that of an uninterrupted run to the byte. */
#ifndef FKV_CAPTURE_RECORDER_H
#define FKV_CAPTURE_RECORDER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "capture/collector.h"
#include "capture/store/capture_writer.h"
#include "engine/command_line.h"
#include "engine/session/session.h"

struct fkv_recorder_options {
    const char *out;
    uint32_t states;
    const int *layers, *heads; /* ascending; NULL: all */
    int layer_count, head_count;
    enum fkv_dtype dtype;
    int64_t max_tokens; /* per recording; 0: the trained context */
    bool resume, spectra_only;
    int32_t length, skip_sinks; /* of segments; length 0: the trained context without the sinks */
    int32_t shard, shards;      /* documents with index mod shards == shard */
    const volatile sig_atomic_t *stop; /* set by a signal: stop cleanly */
    int32_t block; /* most tokens of a recording per pass; 0: what suits the backend (the survey
                      fills it in) */
};

/* What recording will take, worked out before it starts. Exact when all texts fit in the sample
 * that was read, else extrapolated from it. */
struct fkv_recorder_needs {
    bool exact;
    int64_t documents, recordings, tokens;
    int64_t recordings_there;             /* of those, found in the folder */
    int64_t longest;                      /* tokens of the longest recording */
    char longest_name[FKV_DOCUMENT_NAME]; /* of its document, among those that were read */
    int64_t disk_bytes, disk_free;
    int64_t memory_bytes, memory_available; /* of the host; without the weights, which are mapped */
    int64_t ring_bytes;                     /* of those: rows on their way to the disk */
    int64_t device_bytes,
        device_free; /* of an accelerator, where the weights are already; else 0 */
    int64_t weight_bytes;
    double slots;         /* that tokens see, summed */
    struct fkv_cost cost; /* of a token and a slot, to compute */
    double reading;       /* seconds for reading and tokenizing the texts */
    double seconds;       /* about, in all */
};

struct fkv_recorder_summary {
    int64_t documents, recordings, recordings_there;
    int64_t tokens,
        tokens_left_out; /* left out: the last token of a text whose last piece is a single one */
    int64_t segments, segment_tokens_left_out;
    int64_t beyond_trained_context; /* recordings */
    double nll_sum;                 /* over tokens_scored */
    int64_t tokens_scored;
    double seconds;
};

struct fkv_recorder {
    const struct fkv_engine *engine;
    const struct fkv_engine_options *engine_options;
    struct fkv_recorder_options options; /* defaults resolved */
    struct fkv_capture_info info;        /* what the capture says of itself */
};

/* Borrows engine and options; the caller closes it. */
int fkv_recorder_open(const struct fkv_engine *engine,
                      const struct fkv_engine_options *engine_options,
                      const struct fkv_recorder_options *options, struct fkv_recorder **out,
                      struct fkv_error *err);
/* NULL is fine. */
void fkv_recorder_close(struct fkv_recorder *r);

/* Reads a sample of the texts, chooses the block and times it; FKV_FAILED when that fails. */
int fkv_recorder_survey(struct fkv_recorder *r, struct fkv_recorder_needs *needs,
                        struct fkv_error *err);
/* Refuses, naming the need, what cannot fit or cannot give what was asked for. */
int fkv_recorder_check(const struct fkv_recorder *r, const struct fkv_recorder_needs *needs,
                       struct fkv_error *err);
/* Records everything. An interrupted capture keeps its whole recordings. */
int fkv_recorder_run(struct fkv_recorder *r, const struct fkv_recorder_needs *needs,
                     struct fkv_recorder_summary *summary, struct fkv_error *err);

/* ---- shared by recorder*.c ---- */

/* Fills r->info. (recorder_info.c) */
int fkv_recorder_make_info(struct fkv_recorder *r, struct fkv_error *err);
/* Gram matrices of the output projection's columns (capture.h) into the capture, computed from the
 * mapped checkpoint, whatever backend holds the weights. Nothing where the capture has no use for
 * them or has them already. (recorder_gram.c) */
int fkv_recorder_write_gram(const struct fkv_recorder *r, struct fkv_capture_writer *w,
                            struct fkv_error *err);
/* Recordings side by side: what --batch says, but no more than there are. */
int32_t fkv_recorder_lanes(const struct fkv_recorder *r, const struct fkv_recorder_needs *needs);
/* Of a session that records n_tokens tokens in each of `sequences`. */
struct fkv_session_options fkv_recorder_session_options(const struct fkv_recorder *r,
                                                        int32_t sequences, int64_t n_tokens);
/* Of the collector of such a session. */
struct fkv_collector_options fkv_recorder_collector_options(const struct fkv_recorder *r,
                                                            int32_t sequences);
/* Bytes of rows on their way to the disk. */
size_t fkv_recorder_ring(const struct fkv_recorder *r, int32_t lanes, int64_t longest);

#endif
