/* See start.h. 2000 turns are tens of microseconds: longer than the gap between two loops of a
 * decode step, shorter than a time slice. Measured on two busy cores of an EPYC 9004, 600 tokens of
 * a 135M model through FreqKV: alone 4.9 to 8.3 s, two at once 8.3 to 9.9 s; with libgomp's own
 * 300000 turns 9.2 to 15 s and 29 to 32 s. The same machine with a dozen other jobs, 48 tokens: 2.5
 * and 3.0 s, with libgomp's own turns 25 and 39 s. Starting twice costs 10 ms of processor time.
 *
 * Standard output is looked at once, when everything has been printed: stdio keeps what a full disk
 * did not take until the very end, and --help ends in argp's own exit(). */
#include "kernels/base/start.h"

#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/error.h"
#include "kernels/base/host.h"

/* A failure has said why already. */
static void check_output(int status, void *context) {
    (void)context;
    errno = 0;
    bool lost = ferror(stdout);
    if (status || (!fflush(stdout) && !lost)) return;
    fprintf(stderr, "%s: standard output: cannot write: %s\n", program_invocation_short_name,
            strerror(errno ? errno : EIO));
    _exit(FKV_EXIT_FAILED);
}

void fkv_start(char **argv) {
    argp_err_exit_status = FKV_EXIT_USAGE;
    on_exit(check_output, NULL);
    if (!getenv("OMP_WAIT_POLICY") && !getenv("GOMP_SPINCOUNT") &&
        !setenv("GOMP_SPINCOUNT", "2000", 1))
        execv("/proc/self/exe", argv); /* comes back only where it cannot */
    fkv_host_limit_threads();
}
