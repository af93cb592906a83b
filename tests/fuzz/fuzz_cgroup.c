/* Any bytes as /proc/self/cgroup, /proc/self/mountinfo and a file of numbers, cut at bytes 0. What
 * is found is a folder below a mount. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/cgroup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    char *text[3];
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        const uint8_t *end = at < bytes ? memchr(data + at, 0, bytes - at) : NULL;
        size_t length = at < bytes ? (end ? (size_t)(end - data) - at : bytes - at) : 0;
        if (!(text[i] = calloc(length + 1, 1))) abort();
        if (length) memcpy(text[i], data + at, length);
        at += length + 1;
    }
    struct fkv_cgroup group;
    static const char *const controllers[] = {NULL, "memory", "cpu"};
    for (int i = 0; i < 3; i++)
        if (fkv_cgroup_find(text[0], text[1], controllers[i], &group) &&
            ((group.path[0] && group.path[0] != '/') || strstr(group.path, "/../") ||
             !strcmp(group.path, "/")))
            abort();
    if (fkv_cgroup_number(text[2]) < -1 || fkv_cgroup_field(text[2], "inactive_file") < -1) abort();
    for (int i = 0; i < 3; i++) free(text[i]);
    return 0;
}
