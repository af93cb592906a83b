/* zlib and libzstd behind the C library's streams, so that whoever reads lines or whole files
 * knows nothing of them. A plain build (FKV_PLAIN) has neither and refuses such files. */
#include "engine/text/compressed.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

size_t fkv_text_name_bytes(const char *name) {
    size_t n = strlen(name);
    if (n > 3 && !strcasecmp(name + n - 3, ".gz")) return n - 3;
    return n > 4 && !strcasecmp(name + n - 4, ".zst") ? n - 4 : n;
}

#ifdef FKV_PLAIN

static FILE *open_gzip(const char *path, FILE *file) {
    (void)path;
    fclose(file);
    errno = ENOTSUP;
    return NULL;
}

static FILE *open_zstd(const char *path, FILE *file) { return open_gzip(path, file); }

#else

#include <zlib.h>
#include <zstd.h>

static ssize_t read_gzip(void *cookie, char *out, size_t bytes) {
    int code, n = gzread(cookie, out, bytes < 1 << 30 ? (unsigned)bytes : 1u << 30);
    gzerror(cookie, &code);
    if (n >= 0 && code == Z_OK) return n;
    if (n > 0) return n; /* what comes before the damage; it fails the next time */
    errno = EBADMSG;
    return -1;
}

static int close_gzip(void *cookie) {
    gzclose(cookie);
    return 0;
}

static FILE *open_gzip(const char *path, FILE *file) {
    fclose(file);
    gzFile gzip = gzopen(path, "rb");
    if (!gzip) return NULL;
    FILE *stream =
        fopencookie(gzip, "rb", (cookie_io_functions_t){.read = read_gzip, .close = close_gzip});
    if (!stream) gzclose(gzip);
    return stream;
}

struct zstd {
    FILE *file;
    ZSTD_DStream *stream;
    ZSTD_inBuffer in; /* of buffer */
    size_t left;      /* 0 between frames */
    char buffer[1 << 16];
};

static ssize_t read_zstd(void *cookie, char *text, size_t bytes) {
    struct zstd *z = cookie;
    ZSTD_outBuffer out = {text, bytes, 0};
    while (bytes) {
        if (z->in.pos < z->in.size || z->left) {
            z->left = ZSTD_decompressStream(z->stream, &out, &z->in);
            if (ZSTD_isError(z->left)) break;
            if (out.pos) return (ssize_t)out.pos;
        }
        if (z->in.pos < z->in.size) continue;
        z->in = (ZSTD_inBuffer){z->buffer, fread(z->buffer, 1, sizeof z->buffer, z->file), 0};
        if (z->in.size) continue;
        if (!z->left && !ferror(z->file)) return 0;
        break;
    }
    errno = EBADMSG;
    return -1;
}

static int close_zstd(void *cookie) {
    struct zstd *z = cookie;
    ZSTD_freeDStream(z->stream);
    fclose(z->file);
    free(z);
    return 0;
}

static FILE *open_zstd(const char *path, FILE *file) {
    (void)path;
    struct zstd *z = malloc(sizeof *z);
    ZSTD_DStream *unpack = ZSTD_createDStream();
    FILE *stream = NULL;
    if (z && unpack) {
        /* --long=31, as large corpora are packed: as much memory as that window is then needed. */
        ZSTD_DCtx_setParameter(unpack, ZSTD_d_windowLogMax,
                               ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
        *z = (struct zstd){.file = file, .stream = unpack};
        stream =
            fopencookie(z, "rb", (cookie_io_functions_t){.read = read_zstd, .close = close_zstd});
    }
    if (stream) return stream;
    ZSTD_freeDStream(unpack);
    fclose(file);
    free(z);
    return NULL;
}

#endif

/* A frame, or one to be skipped before it, which parallel packers begin with (RFC 8878). */
static bool is_zstd(const unsigned char start[4]) {
    return !memcmp(start, "\x28\xb5\x2f\xfd", 4) ||
           (start[0] >> 4 == 5 && !memcmp(start + 1, "\x2a\x4d\x18", 3));
}

FILE *fkv_text_open(const char *path, struct fkv_error *err) {
    struct stat st;
    unsigned char start[4] = {0};
    FILE *file = fopen(path, "rb");
    if (file && fstat(fileno(file), &st) == 0 && S_ISREG(st.st_mode)) {
        size_t n = fread(start, 1, sizeof start, file);
        rewind(file);
        if (n >= 2 && !memcmp(start, "\x1f\x8b", 2))
            file = open_gzip(path, file);
        else if (n == 4 && is_zstd(start))
            file = open_zstd(path, file);
    }
    if (!file) fkv_fail_errno(err, "%s: cannot open", path);
    return file;
}
