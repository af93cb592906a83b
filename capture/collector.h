/* What happens to states as they leave the engine: a tap per state hands rows to the store, or, for spectra only, gathers segments and adds up their power. */
#ifndef FKV_CAPTURE_COLLECTOR_H
#define FKV_CAPTURE_COLLECTOR_H

#include "capture/store/capture.h"
#include "engine/session.h"

struct fkv_collector;

/* `info` and `model` must outlive it. Segments (info->spectra_only): `length` tokens each, after the first `skip_sinks`. `block`: most rows of an event. */
int fkv_collector_open(const struct fkv_capture_info *info, const struct fkv_model *model, int32_t length,
                       int32_t skip_sinks, int32_t block, struct fkv_collector **out, struct fkv_error *err);
void fkv_collector_close(struct fkv_collector *c); /* NULL is fine */
/* Bytes that one takes; recordings of up to `n_tokens`. */
int64_t fkv_collector_bytes(const struct fkv_capture_info *info, int64_t n_tokens, int32_t length, int32_t block);

void fkv_collector_attach(struct fkv_collector *c, struct fkv_session *session);
/* A recording has begun in `w`: what the taps see from now on belongs to it. */
void fkv_collector_begin(struct fkv_collector *c, struct fkv_capture_writer *w);
/* All its tokens have been fed: writes the sums, where sums are wanted. */
int fkv_collector_end(struct fkv_collector *c, struct fkv_error *err);

#endif
