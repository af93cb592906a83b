/* See file_type.h. */
#include "engine/text/file_type.h"

#include <stdint.h>
#include <string.h>

#include "engine/text/bytes.h"

enum {
    LOOK = 4096,    /* bytes that are looked at */
    LEAST_TEXT = 16 /* bytes: fewer prove nothing */
};

static const struct {
    const char *magic;
    size_t bytes;
    const char *name;
} types[] = {
    {"PK\x03\x04", 4, "a zip archive (.npz, .pt, .zip)"},
    {"\x93NUMPY", 6, "a .npy file: name it so"},
    {"PAR1", 4, "a parquet file (notebooks/freqkv.py: texts_from_parquet)"},
    {"ARROW1", 6, "an Arrow file"},
    {"\xff\xff\xff\xff\x10\0\0\0", 8, "a stream of Arrow"},
    {"\x89HDF\r\n", 6, "an HDF5 file"},
    {"GGUF", 4, "a GGUF file"},
    {"\x1f\x8b", 2, "a gzip archive: unpack it (gzip -dc)"},
    {"\x28\xb5\x2f\xfd", 4, "a zstd archive: unpack it (zstd -dc)"},
    {"BZh", 3, "a bzip2 archive: unpack it (bzip2 -dc)"},
    {"\xfd"
     "7zXZ",
     5, "an xz archive: unpack it (xz -dc)"},
    {"\x04\x22\x4d\x18", 4, "an lz4 archive: unpack it (lz4 -dc)"},
    {"7z\xbc\xaf", 4, "a 7z archive: unpack it"},
    {"SQLite format 3", 15, "an SQLite database"},
    {"%PDF-", 5, "a PDF: its text first (pdftotext)"},
    {"\x89PNG", 4, "a picture (PNG)"},
    {"\xff\xd8\xff", 3, "a picture (JPEG)"},
    {"\x7f"
     "ELF",
     4, "a program"},
    {"MMIDIDX\0", 8, "a Megatron index: give the .bin beside it"},
    {"\x88\xd8\x34\x01", 4, "a shard of llm.c: its header off first (tail -c +1025), then uint16"},
    {"\xa1\xd9\x34\x01", 4, "a shard of llm.c: its header off first (tail -c +1025), then uint32"},
};
enum { TYPES = sizeof types / sizeof *types };

const char *fkv_file_type(const void *file, size_t bytes) {
    const uint8_t *data = file;
    for (int i = 0; i < TYPES; i++)
        if (bytes >= types[i].bytes && !memcmp(data, types[i].magic, types[i].bytes))
            return types[i].name;
    uint64_t header = 0;
    for (size_t i = 0; i < 8 && i < bytes; i++) header |= (uint64_t)data[i] << 8 * i;
    if (bytes > 8 && data[8] == '{' && header > 1 && header < 100u << 20)
        return "a safetensors file";
    if (bytes > 2 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5 &&
        strchr("}]c\x95(", data[2]) && data[2])
        return "a pickle";
    return NULL;
}

/* A character that is cut at the end counts as whole. */
bool fkv_file_is_text(const void *file, size_t bytes) {
    const uint8_t *data = file;
    size_t bad;
    bytes = fkv_utf8_complete(file, bytes < LOOK ? bytes : LOOK);
    for (size_t i = 0; i < bytes; i++)
        if ((data[i] < ' ' && !(data[i] >= '\t' && data[i] <= '\r')) || data[i] == 0x7f)
            return false;
    return bytes >= LEAST_TEXT && fkv_utf8_valid(file, bytes, &bad);
}

const char *fkv_file_encoding(const void *file, size_t bytes) {
    static const struct {
        const char *mark;
        size_t bytes;
        const char *name;
    } marks[] = {{"\xff\xfe\0\0", 4, "UTF-32"}, /* before UTF-16, whose mark it begins with */
                 {"\0\0\xfe\xff", 4, "UTF-32"},
                 {"\xff\xfe", 2, "UTF-16"},
                 {"\xfe\xff", 2, "UTF-16"}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (bytes >= marks[i].bytes && !memcmp(file, marks[i].mark, marks[i].bytes))
            return marks[i].name;
    const uint8_t *data = file;
    size_t zeros[2] = {0}, half = (bytes < LOOK ? bytes : LOOK) / 2;
    for (size_t i = 0; i < 2 * half; i++) zeros[i % 2] += !data[i];
    if (half < 4 || zeros[0] + zeros[1] < half / 2) return NULL;
    return zeros[1] > 4 * zeros[0] ? "UTF-16LE" : zeros[0] > 4 * zeros[1] ? "UTF-16BE" : NULL;
}
