/* See start.h. 1000 turns are about 20 microseconds: longer than the gap between two loops of a
 * decode step, shorter than a time slice. Measured on two cores of a Xeon (Emerald Rapids), 128
 * tokens of a 135M model, alone and two programs at once: 2.1 and 4.5 s; with 500 turns 2.5 and 4.3
 * s, with 2000 1.9 and 4.8 s, with 16000 2.4 and 9.9 s. libgomp's own 300000, on an EPYC 9004 with
 * a dozen other jobs, 48 tokens: 25 to 39 s, with 2000 2.5 to 3.0 s. Starting twice costs 10 ms of
 * processor time.
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
        !setenv("GOMP_SPINCOUNT", "1000", 1))
        execv("/proc/self/exe", argv); /* comes back only where it cannot */
    fkv_host_limit_threads();
}
