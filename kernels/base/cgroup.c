/* See cgroup.h. What is left at a level is its limit less its usage, where pages of files do not
 * count as used: the kernel drops those before it refuses anything, as it does on the whole
 * machine, whose MemAvailable counts them too. Those recently used (active_file) are among them,
 * for mapped weights are, and callers that count weights as needed would otherwise count them
 * twice. Pages of tmpfs are not: they have nowhere to go. Version 2's memory.high counts as a
 * limit, because beyond it a process is slowed down until it hardly runs. */
#include "kernels/base/cgroup.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TEXT = 4 << 20 };

/* ---- texts ---- */

/* A piece of a text; not terminated. */
struct piece {
    const char *at;
    size_t bytes;
};

/* Cuts the piece up to `end` (or all) off `rest`; false when nothing is left. */
static bool cut(struct piece *rest, char end, struct piece *out) {
    if (!rest->bytes) return false;
    const char *found = memchr(rest->at, end, rest->bytes);
    *out = (struct piece){rest->at, found ? (size_t)(found - rest->at) : rest->bytes};
    const size_t gone = out->bytes + (found != NULL);
    rest->at += gone;
    rest->bytes -= gone;
    return true;
}

static bool equals(struct piece p, const char *text) {
    return p.bytes == strlen(text) && !memcmp(p.at, text, p.bytes);
}

static bool lists(struct piece list, const char *name) {
    struct piece one;
    while (cut(&list, ',', &one))
        if (equals(one, name)) return true;
    return false;
}

/* Copies a path in which mountinfo has written blanks as \040; false where it does not fit. */
static bool copy_path(struct piece from, char out[FKV_CGROUP_PATH]) {
    size_t n = 0;
    for (size_t i = 0; i < from.bytes; i++, n++) {
        if (n + 1 == FKV_CGROUP_PATH) return false;
        const char *c = from.at + i;
        const bool octal = *c == '\\' && from.bytes - i > 3 && c[1] >= '0' && c[1] <= '3' &&
                           c[2] >= '0' && c[2] <= '7' && c[3] >= '0' && c[3] <= '7';
        out[n] = octal ? (char)((c[1] - '0') << 6 | (c[2] - '0') << 3 | (c[3] - '0')) : *c;
        if (!out[n]) return false;
        if (octal) i += 3;
    }
    out[n] = 0;
    return true;
}

int64_t fkv_cgroup_number(const char *text) {
    if (!strcmp(text, "max") || !strcmp(text, "max\n")) return INT64_MAX;
    if (!isdigit((unsigned char)*text)) return -1;
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    return *end && *end != '\n' && *end != ' ' ? -1 : value; /* strtoll stops at the largest */
}

int64_t fkv_cgroup_field(const char *text, const char *name) {
    const size_t bytes = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, name, bytes) && line[bytes] == ' ')
            return fkv_cgroup_number(line + bytes + 1);
    }
    return -1;
}

/* ---- which group ---- */

/* The path in the line "ID:CONTROLLERS:PATH" of the hierarchy. */
static bool find_path(const char *groups, const char *controller, struct piece *path) {
    struct piece rest = {groups, strlen(groups)}, line;
    while (cut(&rest, '\n', &line)) {
        struct piece id, controllers;
        if (!cut(&line, ':', &id) || !cut(&line, ':', &controllers)) continue;
        *path = line; /* it may hold colons itself */
        if (controller ? lists(controllers, controller) : equals(id, "0") && !controllers.bytes)
            return path->bytes && *path->at == '/';
    }
    return false;
}

/* What a line of mountinfo says of a mount; false where it is not one of this hierarchy. */
static bool read_mount(struct piece line, const char *controller, char root[FKV_CGROUP_PATH],
                       char mount[FKV_CGROUP_PATH]) {
    struct piece field[5], type, source, options, word;
    for (int i = 0; i < 5; i++) /* id, parent, device, root, mount point */
        if (!cut(&line, ' ', &field[i])) return false;
    do {
        if (!cut(&line, ' ', &word)) return false;
    } while (!equals(word, "-"));
    if (!cut(&line, ' ', &type) || !cut(&line, ' ', &source) || !cut(&line, ' ', &options))
        return false;
    if (controller ? !equals(type, "cgroup") || !lists(options, controller)
                   : !equals(type, "cgroup2"))
        return false;
    return copy_path(field[3], root) && copy_path(field[4], mount);
}

static bool leads_out(const char *path) {
    for (const char *at = path; (at = strstr(at, "/..")); at += 3)
        if (!at[3] || at[3] == '/') return true;
    return false;
}

/* The part of `path` below `root`, of which the mount shows what is below; NULL where the path is
 * not there. */
static const char *below(const char *path, const char *root) {
    size_t n = strcmp(root, "/") ? strlen(root) : 0;
    if (strncmp(path, root, n) || (path[n] && path[n] != '/')) return NULL;
    path += n;
    return leads_out(path) ? NULL : strcmp(path, "/") ? path : "";
}

bool fkv_cgroup_find(const char *groups, const char *mounts, const char *controller,
                     struct fkv_cgroup *out) {
    struct piece found, rest = {mounts, strlen(mounts)}, line;
    char path[FKV_CGROUP_PATH], root[FKV_CGROUP_PATH];
    if (!find_path(groups, controller, &found) || found.bytes >= sizeof path) return false;
    memcpy(path, found.at, found.bytes);
    path[found.bytes] = 0;
    while (cut(&rest, '\n', &line)) {
        if (!read_mount(line, controller, root, out->mount)) continue;
        const char *inside = below(path, root);
        if (!inside) continue;
        memmove(out->path, inside, strlen(inside) + 1);
        return true;
    }
    return false;
}

/* ---- reading ---- */

/* A file's text (malloc'd), or NULL. */
static char *read_text(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    char *text = NULL;
    size_t capacity = 0;
    const ssize_t bytes =
        getdelim(&text, &capacity, 0, f); /* files of /proc have no size and no NUL */
    fclose(f);
    if (bytes >= 0 && bytes <= MOST_TEXT) return text;
    free(text);
    return NULL;
}

/* The file `name` of the level that `path` (of its group, below the mount) is. */
static char *read_level(const char *root, const struct fkv_cgroup *group, const char *path,
                        const char *name) {
    char file[3 * FKV_CGROUP_PATH];
    if (snprintf(file, sizeof file, "%s%s%s/%s", root, group->mount, path, name) >=
        (int)sizeof file)
        return NULL;
    return read_text(file);
}

static int64_t read_number(const char *root, const struct fkv_cgroup *group, const char *path,
                           const char *name) {
    char *text = read_level(root, group, path, name);
    const int64_t value = text ? fkv_cgroup_number(text) : -1;
    free(text);
    return value;
}

static bool find_group(const char *root, const char *controller, struct fkv_cgroup *out) {
    char file[FKV_CGROUP_PATH];
    snprintf(file, sizeof file, "%s/proc/self/cgroup", root);
    char *groups = read_text(file);
    snprintf(file, sizeof file, "%s/proc/self/mountinfo", root);
    char *mounts = read_text(file);
    const bool found = groups && mounts && fkv_cgroup_find(groups, mounts, controller, out);
    free(groups);
    free(mounts);
    return found;
}

/* The level above; false at the mount. */
static bool go_up(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    return slash != NULL;
}

/* ---- memory ---- */

static int64_t left_of(int64_t limit, int64_t usage, int64_t inactive, int64_t active) {
    if (limit < 0 || limit == INT64_MAX) return INT64_MAX;
    int64_t files = (inactive < 0 ? 0 : inactive), used = usage < 0 ? 0 : usage;
    files = active > INT64_MAX - files ? INT64_MAX : files + (active < 0 ? 0 : active);
    used = files < used ? used - files : 0;
    return used < limit ? limit - used : 0;
}

static int64_t memory_v2(const char *root, const struct fkv_cgroup *group, const char *path) {
    int64_t limit = read_number(root, group, path, "memory.max"),
            high = read_number(root, group, path, "memory.high");
    if (limit < 0 || (high >= 0 && high < limit)) limit = high;
    char *stat = read_level(root, group, path, "memory.stat");
    const char *text = stat ? stat : "";
    const int64_t left =
        left_of(limit, read_number(root, group, path, "memory.current"),
                fkv_cgroup_field(text, "inactive_file"), fkv_cgroup_field(text, "active_file"));
    free(stat);
    return left;
}

/* hierarchical_memory_limit has the limits of levels above the mount, too. */
static int64_t memory_v1(const char *root, const struct fkv_cgroup *group, const char *path) {
    char *stat = read_level(root, group, path, "memory.stat");
    const char *text = stat ? stat : "";
    int64_t limit = read_number(root, group, path, "memory.limit_in_bytes"),
            effective = fkv_cgroup_field(text, "hierarchical_memory_limit");
    if (limit < 0 || (effective >= 0 && effective < limit)) limit = effective;
    const int64_t left = left_of(limit, read_number(root, group, path, "memory.usage_in_bytes"),
                                 fkv_cgroup_field(text, "total_inactive_file"),
                                 fkv_cgroup_field(text, "total_active_file"));
    free(stat);
    return left;
}

int64_t fkv_cgroup_memory(const char *root) {
    int64_t least = INT64_MAX;
    struct fkv_cgroup group;
    for (int version = 1; version <= 2; version++) {
        if (!find_group(root, version == 1 ? "memory" : NULL, &group)) continue;
        do {
            const int64_t left = (version == 1 ? memory_v1 : memory_v2)(root, &group, group.path);
            if (left < least) least = left;
        } while (go_up(group.path));
    }
    return least;
}

/* ---- processors ---- */

static double share(int64_t quota, int64_t period) {
    return quota > 0 && quota < INT64_MAX && period > 0 ? (double)quota / (double)period : INFINITY;
}

static double processors_v2(const char *root, const struct fkv_cgroup *group, const char *path) {
    char *text = read_level(root, group, path, "cpu.max"); /* "QUOTA PERIOD" */
    const char *blank = text ? strchr(text, ' ') : NULL;
    const double found = blank && strncmp(text, "max", 3)
                             ? share(fkv_cgroup_number(text), fkv_cgroup_number(blank + 1))
                             : INFINITY;
    free(text);
    return found;
}

static double processors_v1(const char *root, const struct fkv_cgroup *group, const char *path) {
    return share(read_number(root, group, path, "cpu.cfs_quota_us"),
                 read_number(root, group, path, "cpu.cfs_period_us"));
}

double fkv_cgroup_processors(const char *root) {
    double least = INFINITY;
    struct fkv_cgroup group;
    for (int version = 1; version <= 2; version++) {
        if (!find_group(root, version == 1 ? "cpu" : NULL, &group)) continue;
        do {
            const double found =
                (version == 1 ? processors_v1 : processors_v2)(root, &group, group.path);
            if (found < least) least = found;
        } while (go_up(group.path));
    }
    return least;
}
