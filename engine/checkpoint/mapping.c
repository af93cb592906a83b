/* Mapped read-only and shared: the page cache holds the one copy, whoever else uses the checkpoint.
 * All of it will be read soon (the check of values, the first block), so reading starts in the
 * background; not MADV_SEQUENTIAL, which would drop the pages that every later block needs again.
 * Not guarded against: a file that is truncated by someone else while it is mapped (the process
 * gets SIGBUS, as with every mapped file). */
#include "engine/checkpoint/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int fkv_mapping_open(const char *path, struct fkv_mapping *out, struct fkv_error *err) {
    *out = (struct fkv_mapping){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fkv_fail_errno(err, "%s: cannot open", path);
    struct stat found;
    int status = FKV_OK;
    if (fstat(fd, &found))
        status = fkv_fail_errno(err, "%s: cannot stat", path);
    else if (!S_ISREG(found.st_mode))
        status = fkv_fail(err, "%s: expected a file, found something else", path);
    else if (found.st_size > 0) {
        void *data = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            status = fkv_fail_errno(err, "%s: cannot map", path);
        else {
            madvise(data, (size_t)found.st_size, MADV_WILLNEED);
            *out = (struct fkv_mapping){data, (size_t)found.st_size};
        }
    }
    close(fd);
    return status;
}

void fkv_mapping_unload(const struct fkv_mapping *m) {
    if (m->data) madvise((void *)m->data, m->bytes, MADV_DONTNEED);
}

void fkv_mapping_close(struct fkv_mapping *m) {
    if (m->data) munmap((void *)m->data, m->bytes);
    *m = (struct fkv_mapping){0};
}
