/* Decode steps beside other programs. Such a step is hundreds of loops of some ten microseconds,
 * each as long as its slowest thread, and threads that share a processor with another program are
 * slow all the time: they wait for each other, sleep and are woken. Half of them need not share.
 *
 * So where products take much longer than they did at best, half the threads are tried, and kept
 * for a while if that is faster. If it is not, the machine is slow in another way, and they are
 * tried again later and later. They are tried once at the start, when the best is not known, and if
 * that was faster, all are measured once more: weights that were read first from a disk look the
 * same. Results do not depend on the number of threads. */
#ifndef FKV_KERNELS_CPU_CROWD_H
#define FKV_KERNELS_CPU_CROWD_H

#include <stdbool.h>

/* All zeros: nothing is known. */
struct fkv_crowd {
    double seconds, work; /* of the loops since it was last decided: a window */
    double best, full;    /* seconds per work of all threads: the least, the latest */
    bool guessed;         /* `best` is from half the threads, where these were faster */
    bool tried;           /* half the threads were tried */
    bool halved;          /* half the threads are tried, or kept */
    int slow, patience;   /* slow windows in a row; so many more, and half are tried */
    int times;            /* windows in a row in which half were faster */
};

/* How many of `threads` the next loop should have. */
int fkv_crowd_threads(const struct fkv_crowd *c, int threads);
/* A loop with as many took so long for so much work, in any one unit. */
void fkv_crowd_add(struct fkv_crowd *c, double seconds, double work);

#endif
