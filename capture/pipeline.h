/* The queue between computing and the disk. The thread that feeds the model hands rows over while
 * they may still be on their way from the device; one other thread, the writer, owns HDF5 from the
 * first recording to the last: it waits for rows, checks and transposes them, writes, syncs and
 * renames. So recording costs the feed the conversion of its rows, and the disk's waits fall
 * together with computing.
 *
 * Memory is bounded: rows are kept in a ring of host memory that the backend made; a call that
 * finds too little of it free waits. The same holds for recordings that are handed over and not yet
 * whole, of which there are at most two per lane.
 *
 * An error of the writer ends the run: nothing is written after it, and every later call of the
 * feed fails with its message. Recordings that have their names by then keep them. An error of the
 * feed ends it the other way round: what was handed over before is still written. */
#ifndef FKV_CAPTURE_PIPELINE_H
#define FKV_CAPTURE_PIPELINE_H

#include "capture/store/capture.h"
#include "capture/store/capture_writer.h"
#include "engine/checkpoint/model.h"

struct fkv_pipeline;

/* Starts the writer thread, for recordings side by side in lanes 0, 1, ... [lanes] and a ring that
 * holds at least the largest rows. `info` and `model` must outlive it; `first` belongs to the
 * writer thread until the pipeline is closed. */
int fkv_pipeline_open(struct fkv_capture_writer *first, const struct fkv_capture_info *info,
                      const struct fkv_model *model, int32_t lanes, size_t ring_bytes,
                      struct fkv_pipeline **out, struct fkv_error *err);
/* Writes what was handed over, ends the thread and frees everything. *committed: recordings that
 * have become whole. FKV_FAILED with the writer's error, if it had one. NULL is fine. */
int fkv_pipeline_close(struct fkv_pipeline *p, int64_t *committed, struct fkv_error *err);

/* What follows is for the feeding thread; arguments may be reused as soon as a call returns. */

/* Recording `index` exists already: the writer checks that it is this one. */
int fkv_pipeline_check(struct fkv_pipeline *p, int64_t index, const struct fkv_recording *recording,
                       struct fkv_error *err);
/* Starts recording `index` in a free lane. tokens [n_tokens]; classes [n_tokens] or NULL.
 */
int fkv_pipeline_begin(struct fkv_pipeline *p, int32_t lane, int64_t index,
                       const struct fkv_recording *recording, const int32_t *tokens,
                       const uint8_t *classes, struct fkv_error *err);
/* Tokens [t, t+rows) of one captured layer and state: `width` floats each, `stride` apart, from
 * byte `offset` of `states` on, as [captured heads, head_dim]. */
struct fkv_pipeline_rows {
    enum fkv_state state;
    int32_t layer, rows, width;
    int64_t t;
    const struct fkv_buffer *states;
    size_t offset, stride;
};
int fkv_pipeline_rows(struct fkv_pipeline *p, int32_t lane, const struct fkv_pipeline_rows *rows,
                      struct fkv_error *err);
/* Takes the arrays of `sums` over, also where it fails. */
int fkv_pipeline_sums(struct fkv_pipeline *p, int32_t lane, enum fkv_state state,
                      struct fkv_spectra_sums *sums, struct fkv_error *err);
/* The recording in this lane is complete, the lane free. nll [n_tokens] */
int fkv_pipeline_end(struct fkv_pipeline *p, int32_t lane, int64_t n_tokens, const float *nll,
                     struct fkv_error *err);

#endif
