/* Power spectra of a capture: of stored states, or of the sums that freqkv-capture --spectra-only
 * wrote. */
#ifndef FKV_ANALYZE_MEASURE_SPECTRUM_H
#define FKV_ANALYZE_MEASURE_SPECTRUM_H

#include "analyze/measure/findings.h"
#include "analyze/measure/segments.h"
#include "analyze/measure/workers.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/progress.h"

enum { FKV_NULL_DRAWS = 8, FKV_DEFAULT_SINKS = 4 };

/* The cut of a capture. length 0: the trained context - skip_sinks; skip_sinks -1: 4. A capture of
 * sums has one length and one skip, and another is refused. */
int fkv_spectrum_plan(struct fkv_capture *c, int32_t length, int32_t skip_sinks,
                      struct fkv_segment_plan *plan, struct fkv_error *err);

struct fkv_measurement {
    struct fkv_capture *capture;
    const struct fkv_segment_plan *plan;
    const struct fkv_workers *workers;
    bool null;       /* also measure permuted segments */
    bool power_only; /* of stored states nothing but power and rounding_floor; the rest stays 0 */
    struct fkv_progress *progress; /* in segments times layers, over all states; may be NULL */
    int64_t done;                  /* of it */
};
/* Fills *out (fkv_spectrum_free) with one state of the capture. */
int fkv_spectrum_measure(struct fkv_measurement *m, enum fkv_state state, struct fkv_spectrum *out,
                         struct fkv_error *err);

/* About how long that will take, from one segment of one layer. */
int fkv_spectrum_time(struct fkv_measurement *m, enum fkv_state state, double *seconds,
                      struct fkv_error *err);

/* The part of the above for captures of sums; *s is prepared: sizes set, memory there. */
int fkv_spectrum_from_sums(struct fkv_measurement *m, struct fkv_spectrum *s,
                           struct fkv_error *err);

/* The part of the above for stored states, likewise, and its time and memory; `heads` of one layer.
 */
int fkv_spectrum_from_states(struct fkv_measurement *m, struct fkv_spectrum *s,
                             struct fkv_error *err);
int fkv_spectrum_states_time(struct fkv_measurement *m, struct fkv_spectrum *s, double *seconds,
                             struct fkv_error *err);
int64_t fkv_spectrum_states_bytes(const struct fkv_capture_info *info, int32_t heads, bool null,
                                  const struct fkv_segment_plan *plan);

/* Bytes of memory that measuring this state takes at its peak, findings included. */
int64_t fkv_spectrum_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                           enum fkv_state state, bool null);
/* Bytes of a device's memory that measuring takes; 0 on the CPU, whose are counted above. */
int fkv_spectrum_device_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                              const struct fkv_workers *workers, enum fkv_state state,
                              int64_t *bytes, struct fkv_error *err);

/* Mean of ulp^2 / 12 over x [n], stored as `dtype`: the energy that rounding to it adds per
 * element, if its error is uniform over one unit in the last place (Bennett 1948). */
double fkv_rounding_energy(const void *x, int64_t n, enum fkv_dtype dtype);

#endif
