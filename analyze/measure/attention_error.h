/* What attention makes of a segment whose keys and values are low-passed (definitions.md,
 * "Attention-output error"). */
#ifndef FKV_ANALYZE_MEASURE_ATTENTION_ERROR_H
#define FKV_ANALYZE_MEASURE_ATTENTION_ERROR_H

#include "analyze/measure/gamma.h"
#include "analyze/measure/spectrum.h"
#include "capture/store/capture_reader.h"

enum { FKV_ATTENTION_QUERIES = 256 }; /* after a segment, as far as the recording goes */

/* FKV_OK where the capture holds what is needed: keys, values and queries as stored states,
 * inv_freq, and tokens after a segment; else a message that says what to capture. */
int fkv_attention_error_check(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                              struct fkv_error *err);

/* error [layers, kv_heads, FKV_RATIO_STEPS + 1]: ||o' - o|| / ||o|| with K and V of a segment
 * replaced together by their L = floor(k n / 64) lowest coefficients; NaN where L is 0. projected,
 * likewise: ||W_O (o' - o)|| / ||W_O o||; NULL where the capture holds no output projection
 * (fkv_capture_output_gram). The capture has passed the check. m->progress counts segments times
 * layers. */
int fkv_attention_error_measure(struct fkv_measurement *m, double *error, double *projected,
                                struct fkv_error *err);

#endif
