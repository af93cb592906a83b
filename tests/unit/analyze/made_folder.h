/* The fixture of tests that measure captures on disk: a folder of their own and a path in it. */
#ifndef FKV_TESTS_MADE_FOLDER_H
#define FKV_TESTS_MADE_FOLDER_H

#include "tests/unit/analyze/made_captures.h"

static char base[256]; /* fresh for each test */
static char path[300]; /* BASE/capture, which is not there yet */

static inline int made_folder(void **state) {
    (void)state;
    snprintf(path, sizeof path, "%s/capture", test_make_folder(base));
    made_seed = test_random();
    return 0;
}

static inline int made_folder_removed(void **state) {
    (void)state;
    test_remove_folder(base);
    return 0;
}

#endif
