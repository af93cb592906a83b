/* Which tokens are compared: the recordings of a capture, grouped into documents and cut into
 * segments of one length.
 *
 * A document is a name and the hash of its text; recordings of one document (successive stretches
 * of a long text, each with its own cache and sinks) belong together. Of each recording the first
 * `skip_sinks` tokens are skipped and the rest is cut into consecutive segments of n tokens; a
 * shorter rest is left out and counted. Averages weigh segments equally within a document, then
 * documents equally. */
#ifndef FKV_ANALYZE_MEASURE_SEGMENTS_H
#define FKV_ANALYZE_MEASURE_SEGMENTS_H

#include <stdint.h>

#include "capture/store/capture.h"

struct fkv_planned_recording {
    int32_t recording,
        document;            /* index in the capture; index among documents that have a segment */
    int64_t first, segments; /* number of its first segment, counted over the plan; how many */
    double share;            /* of one segment in its document: 1 / segments of the document */
};

/* Recordings that have a segment, those of one document side by side. */
struct fkv_segment_plan {
    int32_t n, skip_sinks, recordings, documents;
    int64_t segments, tokens_left_out;
    struct fkv_planned_recording *recording; /* [recordings]; owned */
};

/* `recordings` [count] -> plan. No segment at all is refused, naming the longest recording. */
int fkv_segment_plan_make(const struct fkv_recording *const *recordings, int32_t count, int32_t n,
                          int32_t skip_sinks, struct fkv_segment_plan *plan, struct fkv_error *err);
void fkv_segment_plan_free(
    struct fkv_segment_plan *plan); /* harmless on a zeroed struct and a second time */

#endif
