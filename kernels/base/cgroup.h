/* The limits of the control groups that this process is in, versions 1 and 2 of the interface (both
 * at once on a hybrid machine). A group's limit holds for all below it, so every level from the
 * process's own group up to where the hierarchy is mounted counts, and the least is what is left.
 *
 * A level whose files cannot be read or understood limits nothing: what is not known is not
 * refused. Nor is a hierarchy in which the process's own group is not to be seen: its path leads
 * out of the namespace ("/../other"), or another group's folder is all that is mounted. */
#ifndef FKV_BASE_CGROUP_H
#define FKV_BASE_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

enum { FKV_CGROUP_PATH = 4096 };

/* Both as this process sees them. */
struct fkv_cgroup {
    char mount[FKV_CGROUP_PATH]; /* where the hierarchy is mounted: "/sys/fs/cgroup" */
    char path[FKV_CGROUP_PATH];  /* of the process's group below it: "" or "/a/b" */
};

/* `root` stands before /proc and /sys: "" but in tests. */
int64_t fkv_cgroup_memory(
    const char *root); /* bytes that may still be taken; INT64_MAX: no limit */
double fkv_cgroup_processors(const char *root); /* processors' worth of time; INFINITY: no limit */

/* ---- parts, each of a text; apart for the fuzzer ---- */
/* `groups` and `mounts`: /proc/self/cgroup and mountinfo; `controller`: of version 1, or NULL for
 * version 2. False: no such hierarchy, or the group cannot be seen in it. */
bool fkv_cgroup_find(const char *groups, const char *mounts, const char *controller,
                     struct fkv_cgroup *out);
/* A number as the kernel writes one; "max" and what is beyond int64_t: INT64_MAX; -1: no number. */
int64_t fkv_cgroup_number(const char *text);
/* The number in the line "NAME number" of a memory.stat; -1: none. */
int64_t fkv_cgroup_field(const char *text, const char *name);

#endif
