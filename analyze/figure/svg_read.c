/* Owns reading a figure's SVG back. Only the metadata is looked at, which fkv_figure_write
 * (figure/write.c) puts behind the opening tag, one element per line. The picture is not parsed. */
#include "analyze/figure/svg_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/atomic_file.h"

enum { LARGEST = 64 << 20 };

/* Copies `bytes` of an element's text and resolves the three entities that the writer uses. NULL
 * without memory. */
static char *text_without_entities(const char *from, size_t bytes) {
    static const struct {
        const char *entity;
        char letter;
    } entities[] = {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}};
    enum { ENTITIES = sizeof entities / sizeof *entities };
    const char *end = from + bytes;
    char *text = malloc(bytes + 1), *to = text;
    if (!text) return NULL;
    while (from < end) {
        size_t i = 0;
        while (i < ENTITIES && strncmp(from, entities[i].entity, strlen(entities[i].entity))) i++;
        *to++ = i < ENTITIES ? entities[i].letter : *from;
        from += i < ENTITIES ? strlen(entities[i].entity) : 1;
    }
    *to = 0;
    return text;
}

/* The text of a metadata line "<NAME>LABEL...</NAME>" between `head` and `head_end`. *text is
 * malloc'd, "" where there is no such line. */
static int read_line(const char *head, const char *head_end, const char *name, const char *label,
                     char **text, struct fkv_error *err) {
    char opening[64];
    snprintf(opening, sizeof opening, "\n<%s>%s", name, label);
    const char *line = memmem(head, (size_t)(head_end - head), opening, strlen(opening));
    const char *from = line ? line + strlen(opening) : head;
    const char *to = line ? memchr(from, '<', (size_t)(head_end - from)) : head;
    *text = text_without_entities(from, to ? (size_t)(to - from) : 0);
    return *text ? FKV_OK : fkv_fail(err, "out of memory");
}

static int refuse(const char *path, const char *found, struct fkv_error *err) {
    return fkv_fail(err, "%s: expected a figure of freqkv-analyze, found %s", path, found);
}

static int read_metadata(const char *path, struct fkv_figure_svg *svg, struct fkv_error *err) {
    static const char mark[] = "\n<dc:creator>FreqKV toolkit ", last[] = "</svg>\n";
    const char *head = svg->text, *head_end = strstr(head, "</metadata>\n");
    if (strlen(svg->text) != svg->bytes) return refuse(path, "a NUL", err);
    if (!head_end || !memmem(head, (size_t)(head_end - head), mark, sizeof mark - 1))
        return refuse(path, "no mark of one", err);
    if (strcmp(svg->text + svg->bytes - (sizeof last - 1), last))
        return refuse(path, "no </svg> at its end", err);
    if (read_line(head, head_end, "title", "", &svg->title, err) ||
        read_line(head, head_end, "dc:description", "Command: ", &svg->command, err))
        return fkv_error_prefix(err, "%s", path);
    return *svg->title ? FKV_OK : refuse(path, "no title", err);
}

int fkv_figure_svg_read(const char *path, struct fkv_figure_svg *out, struct fkv_error *err) {
    *out = (struct fkv_figure_svg){0};
    if (fkv_read_file(path, LARGEST, &out->text, &out->bytes, err)) return FKV_FAILED;
    int status = read_metadata(path, out, err);
    if (status) fkv_figure_svg_free(out);
    return status;
}

void fkv_figure_svg_free(struct fkv_figure_svg *svg) {
    free(svg->text);
    free(svg->title);
    free(svg->command);
    *svg = (struct fkv_figure_svg){0};
}
