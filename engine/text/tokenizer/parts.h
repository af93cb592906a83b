/* What the tokenizer is made of; included by the files of this folder and their tests only.
 *
 *   tokenizer.c           opening, encoding a text
 *   read.c, read_model.c  tokenizer.json -> struct fkv_tokenizer, refusing what is not understood
 *   tables.c              token strings <-> ids, merge ranks
 *   text.c                UTF-8, character classes, growing buffers, normalizers
 *   added.c               added tokens in a text
 *   words.c               a section between added tokens -> words
 *   bpe.c                 a word -> ids
 *   decode.c              ids -> text, one by one
 *
 * The steps and their order are those of Hugging Face `tokenizers`, whose results are reproduced:
 * added tokens that are not normalized cut the text into sections; each section is normalized on
 * its own; normalized added tokens cut it further; what is left is split into words; BPE runs on
 * words. */
#ifndef FKV_ENGINE_TOKENIZER_PARTS_H
#define FKV_ENGINE_TOKENIZER_PARTS_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>

#include "engine/text/tokenizer.h"

struct fkv_tok_text {
    const char *at;
    size_t bytes;
};

struct fkv_tok_bytes {
    char *at;
    size_t count, capacity;
};

struct fkv_tok_ids {
    int32_t *at;
    size_t count, capacity;
};

/* ---- tables.c ---- */

enum { FKV_TOK_MAX_IDS = 1 << 22 };

/* Every id's string, model vocabulary and added tokens; only the model's are found by fkv_tok_find,
 * as BPE must not produce the others. */
struct fkv_tok_strings {
    struct fkv_tok_bytes bytes;
    size_t *start;   /* [ids] offset into bytes */
    int32_t *length; /* [ids] -1: no token has this id */
    int32_t ids;     /* largest id + 1 */
    int32_t *slots;  /* [slot_mask + 1] id or -1, open addressing */
    size_t slot_mask;
};

struct fkv_tok_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty slot */
    int32_t rank, id;
};

struct fkv_tok_merges {
    struct fkv_tok_merge *slots; /* [mask + 1] */
    size_t mask;
};

uint64_t fkv_tok_hash(const char *at, size_t bytes);
int fkv_tok_strings_init(struct fkv_tok_strings *s, int32_t ids, size_t vocabulary,
                         struct fkv_error *err);
int fkv_tok_strings_set(struct fkv_tok_strings *s, int32_t id, struct fkv_tok_text text,
                        struct fkv_error *err);
void fkv_tok_strings_index(struct fkv_tok_strings *s, int32_t id); /* makes it visible to find */
int32_t fkv_tok_find(const struct fkv_tok_strings *s, const char *at, size_t bytes); /* -1: none */
struct fkv_tok_text fkv_tok_string(const struct fkv_tok_strings *s, int32_t id); /* at NULL: none */
void fkv_tok_strings_free(struct fkv_tok_strings *s);

int fkv_tok_merges_init(struct fkv_tok_merges *m, size_t count, struct fkv_error *err);
void fkv_tok_merges_set(struct fkv_tok_merges *m, int32_t left, int32_t right, int32_t rank,
                        int32_t id);
const struct fkv_tok_merge *fkv_tok_merge(const struct fkv_tok_merges *m, int32_t left,
                                          int32_t right); /* or NULL */

/* ---- text.c ---- */

/* Memory for `need` elements of `size` bytes, at least doubled when it grows; NULL when out of
 * memory or beyond size_t (the old block stays). */
void *fkv_tok_grow(void *old, size_t *capacity, size_t need, size_t size);
int fkv_tok_append(struct fkv_tok_bytes *b, const char *at, size_t bytes, struct fkv_error *err);
int fkv_tok_push(struct fkv_tok_ids *ids, int32_t id, struct fkv_error *err);

bool fkv_tok_utf8_valid(const char *at, size_t bytes,
                        size_t *bad); /* *bad: offset of the first byte that is not */
size_t fkv_tok_char_bytes(char lead); /* of valid UTF-8 */
bool fkv_tok_space_at(struct fkv_tok_text text, size_t at,
                      size_t *bytes); /* White_Space; *bytes: the character's */
bool fkv_tok_word_at(struct fkv_tok_text text, size_t at); /* what Rust's regex crate calls \w */
size_t fkv_tok_before(struct fkv_tok_text text,
                      size_t at); /* start of the character before `at` > 0 */

/* GPT-2's printable stand-ins for bytes: byte b is written as the character fkv_tok_byte_char(b),
 * all below U+0144. */
uint32_t fkv_tok_byte_char(uint8_t byte);
bool fkv_tok_to_raw(
    struct fkv_tok_text text, char *out,
    size_t *bytes); /* stand-ins -> bytes; out: text.bytes; false if a character is no stand-in */
int fkv_tok_replace(struct fkv_tok_text text, struct fkv_tok_text from, struct fkv_tok_text to,
                    struct fkv_tok_bytes *out, struct fkv_error *err); /* appended to out */

struct fkv_tok_normalizer {
    enum { FKV_TOK_PREPEND, FKV_TOK_REPLACE, FKV_TOK_NFC } kind;
    struct fkv_tok_text from, to; /* Prepend: to */
};

/* *text becomes the normalized text, in buffer[0] or buffer[1] or, when nothing changed, where it
 * was. */
int fkv_tok_normalize(const struct fkv_tok_normalizer *steps, int count, struct fkv_tok_text *text,
                      struct fkv_tok_bytes buffer[2], struct fkv_error *err);

/* ---- added.c ---- */

struct fkv_tok_added {
    int32_t id;
    struct fkv_tok_text content; /* normalized already where `normalized` says so */
    bool single_word, lstrip, rstrip, normalized, special;
};

/* Sorted by first byte, then longest first: first[b] .. first[b + 1] start with byte b. */
struct fkv_tok_added_set {
    struct fkv_tok_added *tokens;
    int count, first[257];
};

struct fkv_tok_cut { /* walks a text; zeroed but for set and text */
    const struct fkv_tok_added_set *set;
    struct fkv_tok_text text;
    size_t scan, done;
    int32_t pending; /* id to hand out after the section before it; -1: none */
};

void fkv_tok_added_sort(struct fkv_tok_added_set *set);
void fkv_tok_cut_start(struct fkv_tok_cut *cut, const struct fkv_tok_added_set *set,
                       struct fkv_tok_text text);
/* The next piece: a section (*id -1, never empty) or an added token. False at the end. */
bool fkv_tok_cut_next(struct fkv_tok_cut *cut, struct fkv_tok_text *section, int32_t *id);

/* ---- bpe.c ---- */

struct fkv_tok_symbol {
    int32_t id; /* -1: merged into the one before */
    int64_t previous, next;
};

struct fkv_tok_candidate {
    int32_t rank, id;
    int64_t at;
};

enum { FKV_TOK_CACHE_SLOTS = 1 << 14, FKV_TOK_CACHE_WORD = 26, FKV_TOK_CACHE_IDS = 9 };

/* Words of a text repeat: short ones are kept, each in the one slot its hash names, so that the
 * memory is bounded. */
struct fkv_tok_cached {
    uint8_t bytes, count; /* bytes 0: empty */
    char word[FKV_TOK_CACHE_WORD];
    int32_t ids[FKV_TOK_CACHE_IDS];
};

/* One encoding: its output and its scratch. */
struct fkv_tok_encoding {
    const struct fkv_tokenizer *t;
    struct fkv_tok_ids out;
    struct fkv_tok_bytes normal[2], spaced, mapped;
    struct fkv_tok_symbol *symbols;
    size_t symbol_count, symbol_capacity;
    struct fkv_tok_candidate *heap;
    size_t heap_count, heap_capacity;
    struct fkv_tok_cached *cache; /* [FKV_TOK_CACHE_SLOTS] */
    pcre2_match_data *match;
    struct fkv_error *err;
};

int fkv_tok_word(struct fkv_tok_encoding *w, const char *at, size_t bytes);

/* ---- words.c ---- */

/* The compiled form of a pattern written in the file; NULL: GPT-2's. */
int fkv_tok_pattern(const char *regex, const char *where, pcre2_code **out, struct fkv_error *err);
int fkv_tok_section(struct fkv_tok_encoding *w, struct fkv_tok_text section, bool at_start);

/* ---- decode.c ---- */

struct fkv_tok_decoder {
    enum {
        FKV_TOK_DECODE_REPLACE,
        FKV_TOK_DECODE_BYTE_FALLBACK,
        FKV_TOK_DECODE_FUSE,
        FKV_TOK_DECODE_STRIP,
        FKV_TOK_DECODE_BYTE_LEVEL,
        FKV_TOK_DECODE_METASPACE,
    } kind;
    struct fkv_tok_text from, to; /* Replace; Strip: from; Metaspace: from */
    int64_t start, stop;          /* Strip: how many at most */
    bool drop_first; /* Metaspace: spaces of the first token are what encoding put there */
};

/* ---- the tokenizer ---- */

enum fkv_tok_kind { FKV_TOK_SPECIAL = 1, FKV_TOK_NORMALIZED = 2 };
enum { FKV_TOK_MAX_STEPS = 8, FKV_TOK_MAX_TEMPLATE = 16 };

struct fkv_tokenizer {
    json_t *document; /* without the model: small strings below point into it */
    struct fkv_tok_strings strings;
    struct fkv_tok_merges merges;
    uint8_t *kind; /* [strings.ids] bits of enum fkv_tok_kind */

    struct fkv_tok_added_set plain, normalized; /* found before and after normalization */
    struct fkv_tok_normalizer normalizers[FKV_TOK_MAX_STEPS];
    int normalizer_count;

    enum { FKV_TOK_WHOLE, FKV_TOK_METASPACE, FKV_TOK_BYTE_LEVEL } splitting;
    bool prefix_space; /* Metaspace, ByteLevel: put a space before sections that have none; */
    bool first_only;   /* Metaspace: only before one at the start of the text */
    bool split_spaces; /* Metaspace: every replacement starts a word */
    struct fkv_tok_text replacement; /* Metaspace: what stands for a space */
    pcre2_code *pattern;             /* ByteLevel; NULL: sections are words */

    bool byte_fallback, fuse_unknown, ignore_merges;
    bool words_start_at_spaces; /* no merge crosses from another character to U+2581, so that text
                                   may be cut there */
    int32_t unknown;            /* -1: unknown characters vanish */
    int32_t first[256]; /* ByteLevel: id of every byte; else: of ASCII characters, -1 where there is
                           none */
    int32_t fallback[256]; /* id of "<0xNN>", -1 where there is none */

    int32_t before[FKV_TOK_MAX_TEMPLATE], after[FKV_TOK_MAX_TEMPLATE];
    int before_count, after_count;

    struct fkv_tok_decoder decoders[FKV_TOK_MAX_STEPS];
    int decoder_count;
    fkv_sha256_hex sha256;
};

/* read_model.c: vocabulary and merges of the object "model". */
int fkv_tok_read_model(struct fkv_tokenizer *t, const json_t *model, size_t added,
                       const char *where, struct fkv_error *err);
/* read.c: everything else; `t` is zeroed, and closed by the caller on failure. */
int fkv_tok_read(struct fkv_tokenizer *t, json_t *document, const char *where,
                 struct fkv_error *err);

#endif
