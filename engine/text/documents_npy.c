/* The ids of a .npy file. NumPy's format (NEP 1): "\x93NUMPY", a version, the length of a header
 * that is a Python dict, the data. Versions 1 to 3 differ in the width of the length and the
 * header's encoding. Read here: one dimension, integers of every width and byte order; the header
 * is parsed, not searched, so that what is not exactly such a dict is refused. */
#include <string.h>

#include "engine/text/documents.h"
#include "engine/text/file_type.h"

struct cursor {
    const char *at, *end;
};

static bool accept(struct cursor *c, char wanted) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n')) c->at++;
    if (c->at == c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

static bool accept_word(struct cursor *c, const char *word) {
    for (accept(c, ' '); *word; word++, c->at++)
        if (c->at == c->end || *c->at != *word) return false;
    return true;
}

static bool string(struct cursor *c, char text[16]) {
    char quote = accept(c, '\'') ? '\'' : accept(c, '"') ? '"' : 0;
    size_t n = 0;
    while (quote && c->at < c->end && *c->at != quote && n < 15) text[n++] = *c->at++;
    text[n] = 0;
    return quote && c->at < c->end && *c->at++ == quote;
}

static bool number(struct cursor *c, uint64_t *value) {
    accept(c, ' ');
    const char *first = c->at;
    for (*value = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (*value > (UINT64_MAX - 9) / 10) return false;
        *value = *value * 10 + (uint64_t)(*c->at - '0');
    }
    return c->at > first;
}

struct header {
    char descr[16];
    uint64_t count;
    bool fortran, one_dimension;
};

/* (3,) is one dimension; () and (2, 3) are others. */
static bool shape(struct cursor *c, struct header *h) {
    int dimensions = 0;
    if (!accept(c, '(')) return false;
    while (!accept(c, ')')) {
        uint64_t n;
        if (!number(c, &n)) return false;
        if (dimensions++ == 0) h->count = n;
        if (accept(c, ',')) continue;
        if (!accept(c, ')')) return false;
        break;
    }
    h->one_dimension = dimensions == 1;
    return true;
}

static bool dictionary(struct cursor c, struct header *h) {
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    int seen[3] = {0};
    if (!accept(&c, '{')) return false;
    while (!accept(&c, '}')) {
        char key[16];
        if (!string(&c, key) || !accept(&c, ':')) return false;
        int k = 0;
        while (k < 3 && strcmp(key, keys[k])) k++;
        if (k == 3 || seen[k]++) return false;
        if (k == 0 && !string(&c, h->descr)) return false;
        if (k == 1) {
            struct cursor before = c;
            h->fortran = accept_word(&c, "True");
            if (!h->fortran && (c = before, !accept_word(&c, "False"))) return false;
        }
        if (k == 2 && !shape(&c, h)) return false;
        if (!accept(&c, ',')) {
            if (!accept(&c, '}')) return false;
            break;
        }
    }
    accept(&c, ' ');
    while (accept(&c, '\n')) {}
    return seen[0] && seen[1] && seen[2] && c.at == c.end;
}

/* Checks version, header and size; *data and *width say where the integers are. */
static int find_data(const char *file, size_t bytes, const char *where, struct header *h,
                     const uint8_t **data, size_t *width, struct fkv_error *err) {
    const uint8_t *raw = (const uint8_t *)file;
    const char *type =
        memcmp(file, "\x93NUMPY", bytes < 6 ? bytes : 6) ? fkv_file_type(file, bytes) : NULL;
    if (type) return fkv_fail(err, "%s: expected a .npy file, found %s", where, type);
    if (bytes < 10 || memcmp(file, "\x93NUMPY", 6))
        return fkv_fail(err,
                        "%s: not a .npy file, though it is named so; if it is raw integers, as "
                        "dolma and OLMo write them, name it .bin and give --token-dtype",
                        where);
    int major = raw[6];
    if (major < 1 || major > 3)
        return fkv_fail(err, "%s: expected .npy version 1, 2 or 3, found %d", where, major);
    size_t start = major == 1 ? 10 : 12, length = raw[8] | (size_t)raw[9] << 8;
    if (major > 1 && bytes >= start) length |= (size_t)raw[10] << 16 | (size_t)raw[11] << 24;
    if (bytes < start || length > bytes - start)
        return fkv_fail(err,
                        "%s: the .npy header is cut short: %zu bytes of header, %zu in the file",
                        where, length, bytes);
    if (!dictionary((struct cursor){file + start, file + start + length}, h))
        return fkv_fail(err,
                        "%s: the .npy header is not a dict of descr, fortran_order and shape: %.*s",
                        where, (int)(length < 120 ? length : 120), file + start);
    const char *d = h->descr;
    if (!strchr("<>=|", d[0]) || !strchr("iu", d[1]) || !d[2] || !strchr("1248", d[2]) || d[3])
        return fkv_fail(err, "%s: descr: expected integers, found \"%s\"", where, d);
    if (!h->one_dimension)
        return fkv_fail(err,
                        "%s: shape: expected one dimension: a file per document, or all of it as "
                        "one (ids.reshape(-1))",
                        where);
    if (h->fortran) return fkv_fail(err, "%s: fortran_order: expected False, found True", where);
    *width = (size_t)(d[2] - '0');
    *data = raw + start + length;
    size_t left = bytes - start - length;
    if (h->count != left / *width || left % *width)
        return fkv_fail(
            err, "%s: shape says %llu integers of %zu bytes, the file has %zu bytes for them",
            where, (unsigned long long)h->count, *width, left);
    return FKV_OK;
}

int fkv_npy_parse(const void *file, size_t bytes, const char *where, int32_t **ids, size_t *count,
                  struct fkv_error *err) {
    struct header h = {0};
    const uint8_t *data = NULL;
    size_t width = 0;
    *ids = NULL;
    *count = 0;
    if (find_data(file, bytes, where, &h, &data, &width, err)) return FKV_FAILED;
    return fkv_read_ids(data, (size_t)h.count, width, h.descr[0] == '>', h.descr[1] == 'i', where,
                        ids, count, err);
}
