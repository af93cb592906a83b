/* The column `nll` of a recording: what tests compare, and no command reads. */
#ifndef FKV_TESTS_CAPTURED_NLL_H
#define FKV_TESTS_CAPTURED_NLL_H

#include "capture/store/capture_reader.h"
#include "capture/store/reader.h"
#include "tests/unit/support.h"

/* nll [n_tokens], or false where the file has none. */
static inline bool captured_nll(struct fkv_capture *c, int32_t index, float *nll) {
    const hsize_t n = (hsize_t)fkv_capture_recording(c, index)->n_tokens;
    int32_t *tokens = malloc(n * sizeof *tokens);
    bool found;
    assert_ok(fkv_capture_read_tokens(c, index, tokens, &found, &err)); /* opens c->group */
    free(tokens);
    assert_ok(fkv_hdf_get(c->group, "nll", H5T_NATIVE_FLOAT, 1, &n, nll, &found, &err));
    return found;
}

#endif
