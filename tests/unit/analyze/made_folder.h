/* The fixture of tests that measure captures on disk: a folder of their own and a path in it. */
#ifndef FKV_TESTS_MADE_FOLDER_H
#define FKV_TESTS_MADE_FOLDER_H

#include "tests/unit/analyze/made_captures.h"

static char path[300]; /* BASE/capture, which is not there yet */

static inline int made_folder(void **state) {
    make_folder(state);
    snprintf(path, sizeof path, "%s/capture", folder);
    made_seed = test_random();
    return 0;
}

#endif
