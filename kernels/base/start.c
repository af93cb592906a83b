/* See start.h. 2000 turns are tens of microseconds: longer than the gap between two loops of a decode step, shorter than a time slice. */
#include "kernels/base/start.h"

#include <stdlib.h>
#include <unistd.h>

void fkv_start(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || setenv("GOMP_SPINCOUNT", "2000", 1)) return;
    execv("/proc/self/exe", argv);
}
