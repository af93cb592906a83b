/* What a tool does before anything else. */
#ifndef FKV_BASE_START_H
#define FKV_BASE_START_H

/* From here on a program that ends with status 0 has written all of its standard output: where that
 * could not be, it says so and ends with FKV_EXIT_FAILED. A wrong command line ends it with
 * FKV_EXIT_USAGE.
 *
 * Starts the program anew with GOMP_SPINCOUNT set, unless the user chose how threads wait
 * (OMP_WAIT_POLICY or GOMP_SPINCOUNT). libgomp reads its environment before main and has no call
 * for it, and by default its threads spin for milliseconds at the end of every loop: on a machine
 * that does anything else too, that made everything two to ten times slower. Returns if there is
 * nothing to do, or if it cannot be done.
 *
 * Threads: see fkv_host_limit_threads. */
void fkv_start(char **argv);

#endif
