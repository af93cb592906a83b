/* Taps that record states as they leave the engine: one per state hands rows to the pipeline, or,
 * for spectra only, copies them into segments and adds up their power. Rows stay in the backend's
 * memory until they are written or have become sums. */
#ifndef FKV_CAPTURE_COLLECTOR_H
#define FKV_CAPTURE_COLLECTOR_H

#include "capture/pipeline.h"
#include "engine/session/session.h"

struct fkv_collector;

struct fkv_collector_options {
    int32_t sequences; /* side by side; sequence i of the session records into lane i of the
                          pipeline */
    int32_t length, skip_sinks; /* of segments (info->spectra_only): `length` tokens each, after the
                                   first `skip_sinks` */
    int32_t block;              /* most rows of an event */
};

/* `info`, `model` and `pipeline` must outlive it. */
int fkv_collector_open(const struct fkv_capture_info *info, const struct fkv_model *model,
                       struct fkv_pipeline *pipeline, const struct fkv_collector_options *options,
                       struct fkv_collector **out, struct fkv_error *err);
/* NULL is fine. */
void fkv_collector_close(struct fkv_collector *c);
/* Bytes that a collector takes of the backend's memory. */
int64_t fkv_collector_bytes(const struct fkv_capture_info *info,
                            const struct fkv_collector_options *options);
/* Bytes that it takes of the host's memory, for sums that are being written. */
int64_t fkv_collector_host_bytes(const struct fkv_capture_info *info,
                                 const struct fkv_collector_options *options);
/* What it asks of the backend in addition. */
struct fkv_demand fkv_collector_demand(const struct fkv_capture_info *info,
                                       const struct fkv_collector_options *options);
/* Bytes of the largest rows that it hands to the pipeline. */
int64_t fkv_collector_largest_rows(const struct fkv_capture_info *info, int32_t rows);
/* Bytes of all rows of a recording. */
int64_t fkv_collector_all_rows(const struct fkv_capture_info *info, int64_t n_tokens);

/* Taps the session. */
void fkv_collector_attach(struct fkv_collector *c, struct fkv_session *session);
/* A recording has begun in this sequence. */
int fkv_collector_begin(struct fkv_collector *c, int32_t sequence, struct fkv_error *err);
/* All n_tokens tokens of the recording have been fed: of spectra only, reads the sums and hands
 * them to the pipeline. */
int fkv_collector_end(struct fkv_collector *c, int32_t sequence, int64_t n_tokens,
                      struct fkv_error *err);

#endif
