/* What the tokenizer is made of; included by the files of this folder and their tests only.
 *
 *   tokenizer.c       opening, encoding a text
 *   build.c           the parts of struct fkv_tokenizer, added one by one, whatever file names them
 *   read*.c           tokenizer.json -> those parts, refusing what is not understood
 *   settings.c        tokenizer_config.json: BOS and EOS
 *   pieces.c, read_sentencepiece.c  the same for tokenizer.model
 *   pre_tokenizers.c, read_gguf.c   the same for a GGUF file
 *   tables.c          token strings <-> ids, merge ranks
 *   text.c            character classes, stand-ins for bytes
 *   regex.c           Oniguruma's patterns by PCRE2
 *   added.c           added tokens in a text
 *   normalize.c       normalizers: a text -> another
 *   split.c           pre-tokenizers: a section between added tokens -> words
 *   bpe.c             a word -> ids
 *   decode.c          ids -> text, one by one
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

#include "engine/text/bytes.h"
#include "engine/text/tokenizer.h"

struct fkv_tok_text {
    const char *at;
    size_t bytes;
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
    struct fkv_bytes bytes;
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

int fkv_tok_push(struct fkv_tok_ids *ids, int32_t id, struct fkv_error *err);

bool fkv_tok_space_at(struct fkv_tok_text text, size_t at,
                      size_t *bytes); /* White_Space; *bytes: the character's */
bool fkv_tok_word_at(struct fkv_tok_text text, size_t at); /* what Rust's regex crate calls \w */

extern const struct fkv_tok_text fkv_tok_mark; /* U+2581, which stands for a space */

/* GPT-2's printable stand-ins for bytes: byte b is written as the character fkv_tok_byte_char(b),
 * all below U+0144. */
uint32_t fkv_tok_byte_char(uint8_t byte);
bool fkv_tok_to_raw(
    struct fkv_tok_text text, char *out,
    size_t *bytes); /* stand-ins -> bytes; out: text.bytes; false if a character is no stand-in */
int fkv_tok_replace(struct fkv_tok_text text, struct fkv_tok_text from, struct fkv_tok_text to,
                    struct fkv_bytes *out, struct fkv_error *err); /* appended to out */
bool fkv_tok_starts_with(struct fkv_tok_text text, struct fkv_tok_text prefix);
int fkv_tok_shown(struct fkv_tok_text text); /* how many bytes of it a message shows (%.*s) */

/* ---- regex.c ---- */

/* White_Space, for the inside of a class. PCRE2's own \s has U+180E, too. */
#define FKV_TOK_SPACES                                                                             \
    "\\t-\\r "                                                                                     \
    "\\x{85}\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* GPT-2's pattern of words. */
#define FKV_TOK_GPT2                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* A character of punctuation. Hugging Face's table is of Unicode 8, with two characters that are
 * none today. */
#define FKV_TOK_PUNCTUATION                                                                        \
    "(?![\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b7d}\\x{1b7e}\\x{2e43}-\\x{2e4f}"            \
    "\\x{2e52}-\\x{2e5d}\\x{10ead}\\x{10f55}-\\x{10f59}\\x{10f86}-\\x{10f89}"                      \
    "\\x{1144b}-\\x{1145d}\\x{11660}-\\x{1166c}\\x{116b9}\\x{1183b}\\x{11944}-\\x{11946}"          \
    "\\x{119e2}\\x{11a3f}-\\x{11aa2}\\x{11c41}-\\x{11c71}\\x{11ef7}\\x{11ef8}\\x{11fff}"           \
    "\\x{12ff1}\\x{12ff2}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e95e}\\x{1e95f}])"                    \
    "[\\p{P}$+<=>^`|~\\x{166d}\\x{111c9}]"

/* Compiles a pattern in Oniguruma's dialect. One that PCRE2 does not take, or takes for something
 * else, is refused; `where` names the field. */
int fkv_tok_compile(const char *regex, const char *where, pcre2_code **out, struct fkv_error *err);
/* Compiles a pattern that matches `text`, which has a NUL behind it, and nothing else. */
int fkv_tok_compile_text(struct fkv_tok_text text, const char *where, pcre2_code **out,
                         struct fkv_error *err);

/* What matching needs besides a pattern; bounds the steps of each match. */
struct fkv_tok_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};
int fkv_tok_matcher_open(struct fkv_tok_matcher *m, struct fkv_error *err);
void fkv_tok_matcher_close(struct fkv_tok_matcher *m); /* harmless on a zeroed struct */

struct fkv_tok_span {
    size_t start, stop;
    bool match;
};

/* Walks a text, from match to match and over what is between them. */
struct fkv_tok_spans {
    const pcre2_code *pattern;
    struct fkv_tok_matcher *matcher;
    struct fkv_tok_text text;
    size_t done, search; /* spans reach up to done; the next match is looked for from search */
    size_t last_stop;    /* of the last match; SIZE_MAX: none yet */
    struct fkv_tok_span found; /* where `match`: the next match, not given yet */
};
struct fkv_tok_spans fkv_tok_spans_start(const pcre2_code *pattern, struct fkv_tok_matcher *matcher,
                                         struct fkv_tok_text text);
/* *more false after the last span. Matches may be empty, what is between them is not. Too many
 * steps are an error. */
int fkv_tok_spans_next(struct fkv_tok_spans *s, struct fkv_tok_span *span, bool *more,
                       struct fkv_error *err);

/* ---- normalize.c ---- */

struct fkv_tok_normalizing {
    struct fkv_tok_matcher *matcher;
    struct fkv_bytes *out; /* of the step under way */
    bool start_cut;        /* a step took away the start of the text */
    struct fkv_error *err;
};

struct fkv_tok_normalizer;
/* One step: `text` is not empty; what it becomes is appended to w->out. */
typedef int fkv_tok_normalize_step(const struct fkv_tok_normalizer *n, struct fkv_tok_text text,
                                   struct fkv_tok_normalizing *w);
struct fkv_tok_normalizer {
    fkv_tok_normalize_step *apply;
    pcre2_code *pattern;    /* Replace */
    struct fkv_tok_text to; /* Replace, Prepend */
    bool left, right;       /* Strip: which end */
    int form;               /* NFC and its like: options of utf8proc_map */
};
fkv_tok_normalize_step fkv_tok_normal_form, fkv_tok_lowercase, fkv_tok_strip, fkv_tok_strip_accents,
    fkv_tok_replace_matches, fkv_tok_prepend;

/* *text becomes the normalized text, in buffer[0] or buffer[1] or, when there are no steps, where
 * it was. */
int fkv_tok_normalize(const struct fkv_tokenizer *t, struct fkv_tok_normalizing *w,
                      struct fkv_tok_text *text, struct fkv_bytes buffer[2]);

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

enum { FKV_TOK_MAX_STEPS = 32, FKV_TOK_MAX_TEMPLATE = 16 };

/* One encoding: its output and its scratch. */
struct fkv_tok_encoding {
    const struct fkv_tokenizer *t;
    struct fkv_tok_ids out;
    struct fkv_bytes normal[2];
    struct fkv_bytes made[FKV_TOK_MAX_STEPS]; /* by split.c's steps, for those after them */
    struct fkv_tok_matcher matcher;
    struct fkv_tok_symbol *symbols;
    size_t symbol_count, symbol_capacity;
    struct fkv_tok_candidate *heap;
    size_t heap_count, heap_capacity;
    struct fkv_tok_cached *cache; /* [FKV_TOK_CACHE_SLOTS] */
    struct fkv_error *err;
};

int fkv_tok_word(struct fkv_tok_encoding *w, struct fkv_tok_text word);

/* ---- split.c ---- */

enum fkv_tok_behavior {
    FKV_TOK_REMOVED,
    FKV_TOK_ISOLATED,
    FKV_TOK_MERGED_WITH_PREVIOUS,
    FKV_TOK_MERGED_WITH_NEXT,
    FKV_TOK_CONTIGUOUS,
};

/* Step `i` of splitting a piece; what comes of it goes to step i + 1. `first`: it begins the
 * text. */
typedef int fkv_tok_split_step(struct fkv_tok_encoding *w, int i, struct fkv_tok_text piece,
                               bool first);
struct fkv_tok_splitter {
    fkv_tok_split_step *apply;
    pcre2_code *pattern;            /* where pieces are cut; NULL: they are not */
    enum fkv_tok_behavior behavior; /* what becomes of the matches */
    bool invert;                    /* what is between matches takes their part */
    bool prefix, first_only;  /* Metaspace: a mark is put before pieces; only the text's first */
    struct fkv_tok_text mark; /* Metaspace: what stands for a space */
};
/* The steps: matches of a pattern, a space before pieces that have none, GPT-2's stand-ins for
 * bytes, Metaspace. */
fkv_tok_split_step fkv_tok_split, fkv_tok_space_before, fkv_tok_bytes_as_characters,
    fkv_tok_metaspace;

/* Gives a section of the text to the first step. */
int fkv_tok_section(struct fkv_tok_encoding *w, struct fkv_tok_text section, bool first);

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

enum fkv_tok_kind { FKV_TOK_SPECIAL = 1, FKV_TOK_NORMALIZED = 2, FKV_TOK_ADDED = 4 };
enum { FKV_TOK_FIRST = 0x800 }; /* characters of one or two bytes */

struct fkv_tokenizer {
    char **kept; /* [kept_count] small texts that others below point into */
    size_t kept_count, kept_capacity;
    struct fkv_tok_strings strings;
    struct fkv_tok_merges merges;
    uint8_t *kind; /* [strings.ids] bits of enum fkv_tok_kind */

    struct fkv_tok_added_set plain, normalized; /* found before and after normalization */
    struct fkv_tok_normalizer normalizers[FKV_TOK_MAX_STEPS];
    int normalizer_count;
    struct fkv_tok_splitter splitters[FKV_TOK_MAX_STEPS];
    int splitter_count;

    bool byte_fallback, fuse_unknown, ignore_merges;
    bool words_start_at_spaces;   /* no merge crosses from another character to U+2581, so that text
                                     may be cut there */
    int32_t unknown;              /* -1: unknown characters vanish */
    int32_t first[FKV_TOK_FIRST]; /* id of a character, -1: none */
    int32_t fallback[256];        /* id of "<0xNN>", -1: none */

    int32_t before[FKV_TOK_MAX_TEMPLATE], after[FKV_TOK_MAX_TEMPLATE];
    int before_count, after_count;

    struct fkv_tok_decoder decoders[FKV_TOK_MAX_STEPS];
    int decoder_count;
    fkv_sha256_hex sha256;
    char note[400]; /* "" or what a user should know */
};

/* ---- build.c: for every file format; `where` names the field in messages ---- */

/* A copy that lives as long as the tokenizer, with a NUL after it. */
int fkv_tok_keep(struct fkv_tokenizer *t, struct fkv_tok_text text, struct fkv_tok_text *kept,
                 struct fkv_error *err);
/* A step at the end of the list, zeroed but for `apply`; NULL and a message where it is full. */
struct fkv_tok_normalizer *fkv_tok_add_normalizer(struct fkv_tokenizer *t,
                                                  fkv_tok_normalize_step *apply, const char *where,
                                                  struct fkv_error *err);
struct fkv_tok_splitter *fkv_tok_add_splitter(struct fkv_tokenizer *t, fkv_tok_split_step *apply,
                                              const char *where, struct fkv_error *err);
struct fkv_tok_decoder *fkv_tok_add_decoder(struct fkv_tokenizer *t, const char *where,
                                            struct fkv_error *err);
/* A step that cuts at the matches of `regex`. */
int fkv_tok_add_split(struct fkv_tokenizer *t, const char *regex, enum fkv_tok_behavior behavior,
                      bool invert, const char *where, struct fkv_error *err);
/* ByteLevel; with GPT-2's pattern where `split`. */
int fkv_tok_add_byte_level(struct fkv_tokenizer *t, bool space_before, bool split,
                           const char *where, struct fkv_error *err);

/* Sets unknown, first, fallback and words_start_at_spaces once all strings of the model are there
 * (`unknown` NULL: none), for merges to come. */
int fkv_tok_start_merges(struct fkv_tokenizer *t, const char *unknown, size_t merges,
                         const char *where, struct fkv_error *err);
int fkv_tok_add_merge(struct fkv_tokenizer *t, struct fkv_tok_text left, struct fkv_tok_text right,
                      int32_t rank, struct fkv_error *err);

/* Lists of `count` added tokens at most; then one token, whose content lives on. The normalizers
 * and all strings of the model are there. */
int fkv_tok_start_added(struct fkv_tokenizer *t, size_t count, struct fkv_error *err);
int fkv_tok_add_added(struct fkv_tokenizer *t, struct fkv_tok_added token, const char *where,
                      struct fkv_error *err);
void fkv_tok_end_added(struct fkv_tokenizer *t); /* sorts them; the vocabulary is complete */

/* ---- pieces.c: a tokenizer of pieces with types ---- */

struct fkv_tok_piece {
    struct fkv_tok_text text;
    float score;
    uint8_t type; /* enum fkv_tok_piece_type */
};
enum fkv_tok_piece_type { /* as tokenizer.model and GGUF number them */
                          FKV_TOK_NORMAL = 1,
                          FKV_TOK_UNKNOWN,
                          FKV_TOK_CONTROL,
                          FKV_TOK_USER_DEFINED,
                          FKV_TOK_UNUSED,
                          FKV_TOK_BYTE,
};
struct fkv_tok_pieces {
    struct fkv_tok_piece *at; /* [count], by id */
    int32_t count;
    int32_t bos, eos;     /* put before and behind texts; -1: none */
    bool byte_fallback;   /* unknown characters as bytes */
    bool space_before;    /* a space is put before a text */
    bool squeeze_spaces;  /* several become one; none at both ends */
    bool user_as_written; /* those of the user are found in a text before it is normalized */
};
/* The strings of all pieces; unused ones are not found. `t` has none yet. */
int fkv_tok_set_strings(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                        struct fkv_error *err);
/* The pieces that are found as a whole (unknown, control, of the user) and those put before and
 * behind texts. Strings and merges are there. */
int fkv_tok_set_added(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                      struct fkv_error *err);
/* All of a tokenizer of pieces with scores. `t` is zeroed, and closed by the caller on failure; the
 * pieces are the caller's. */
int fkv_tok_build_pieces(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                         struct fkv_error *err);

/* ---- read_sentencepiece.c: tokenizer.model ---- */

/* `settings` decide about BOS (where they say nothing it is added) and EOS; they may be NULL. */
int fkv_tok_read_sentencepiece(struct fkv_tokenizer *t, const void *data, size_t bytes,
                               const json_t *settings, const char *where, struct fkv_error *err);

/* ---- pre_tokenizers.c ---- */

enum { FKV_TOK_PRE_SPLITS = 7 };

/* A pre-tokenizer that GGUF has by name. */
struct fkv_tok_pre {
    const char *names;                     /* with a space between two */
    bool ignore_merges;                    /* a word that is a token is not made by merges */
    bool bos;                              /* a text gets BOS where the file does not say */
    bool nfc;                              /* a text is normalized first */
    const char *split[FKV_TOK_PRE_SPLITS]; /* patterns, NULL behind the last */
    int bytes_after; /* so many patterns bytes become characters; 0: after all */
};
/* NULL where the name is not known. */
const struct fkv_tok_pre *fkv_tok_find_pre(struct fkv_tok_text name);

/* ---- read_gguf.c: the metadata of a GGUF file ---- */

struct fkv_gguf;
/* `t` is zeroed, and closed by the caller on failure. Sets its sha256, too. */
int fkv_tok_read_gguf(struct fkv_tokenizer *t, const struct fkv_gguf *g, struct fkv_error *err);

/* ---- settings.c: tokenizer_config.json ---- */

json_t *fkv_tok_settings_open(const char *directory); /* NULL: none that can be read */
/* Writes t->note where they and tokenizer.json disagree about BOS. */
void fkv_tok_settings_compare(const json_t *settings, struct fkv_tokenizer *t);

/* ---- read.c: tokenizer.json ---- */

/* `t` is zeroed, and closed by the caller on failure; `document` is the caller's. */
int fkv_tok_read(struct fkv_tokenizer *t, const json_t *document, const char *where,
                 struct fkv_error *err);

/* Reads a step of a list: "normalizer" and its like. */
typedef int fkv_tok_read_step(struct fkv_tokenizer *t, const json_t *step, const char *type,
                              const char *where, struct fkv_error *err);
fkv_tok_read_step fkv_tok_read_normalizer; /* read_normalizer.c */
fkv_tok_read_step fkv_tok_read_splitter;   /* read_splitter.c */

/* A field that is a text, kept. */
int fkv_tok_read_text(struct fkv_tokenizer *t, const json_t *object, const char *where,
                      const char *field, struct fkv_tok_text *text, struct fkv_error *err);
/* The same, of one character. */
int fkv_tok_read_character(struct fkv_tokenizer *t, const json_t *object, const char *where,
                           const char *field, struct fkv_tok_text *text, struct fkv_error *err);
/* "pattern": {"String": TEXT} or {"Regex": REGEX}, compiled. */
int fkv_tok_read_pattern(const json_t *step, const char *where, pcre2_code **pattern,
                         struct fkv_error *err);
/* "prepend_scheme" of Metaspace. */
int fkv_tok_read_scheme(const json_t *step, const char *where, bool *prefix, bool *first_only,
                        struct fkv_error *err);

/* read_model.c: vocabulary and merges of the object "model"; `added`: the list of added tokens. */
int fkv_tok_read_model(struct fkv_tokenizer *t, const json_t *model, const json_t *added,
                       const char *where, struct fkv_error *err);

#endif
