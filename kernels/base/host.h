/* What this machine has: checked before a long run starts, so that it is refused at once and not
 * hours later. */
#ifndef FKV_BASE_HOST_H
#define FKV_BASE_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"

/* Bytes of memory that this process may take; -1 if unknown. The least of: the machine's
 * MemAvailable; what the limits of its control groups leave (cgroup.h); what `ulimit -v` and
 * `ulimit -d` leave of address space, from which all that is mapped has been taken off. */
int64_t fkv_host_memory_available(void);
/* The same, to compare with a need that counts `mapped` bytes of files that are mapped by now. */
int64_t fkv_host_memory_beside(int64_t mapped);
/* The first two alone, read from ROOT/proc and ROOT/sys; for tests. */
int64_t fkv_host_memory_under(const char *root);
/* Whether so many bytes more can be mapped now: asked before a library that crashes or waits where
 * it gets no memory. */
bool fkv_host_can_map(size_t bytes);
/* Sets the number of threads that loops have by default: the processors this process may run on,
 * fewer where a control group grants less time than those. OMP_NUM_THREADS is the user's word. */
void fkv_host_limit_threads(void);
/* So many more processors (fewer: negative) are wanted by threads beside the loops', such as a
 * writer's; loops that end soon leave them. Any thread may say so, at any time. */
void fkv_host_lend(int processors);
/* The sum of what was lent; 0 at first. */
int fkv_host_lent(void);
/* What the system calls its processor, "AMD EPYC 9R14"; "CPU" where it does not say. */
void fkv_host_processor(char out[128]);
int fkv_host_disk_free(const char *path, int64_t *bytes,
                       struct fkv_error *err);      /* of the nearest existing parent of path */
void fkv_format_bytes(char out[16], int64_t bytes); /* "1.5 GiB" */
/* The same as a value, to be named in the arguments of a message. */
struct fkv_bytes_text {
    char text[16];
};
struct fkv_bytes_text fkv_bytes_text(int64_t bytes);
void fkv_format_seconds(char out[16],
                        double seconds); /* "0.1 s" at least, "3 min", "2.5 h"; NaN: "unknown" */
int fkv_make_directories(const char *path, struct fkv_error *err); /* mkdir -p */

#endif
