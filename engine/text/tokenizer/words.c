/* A section between added tokens -> words for BPE: not at all (sentencepiece), at spaces
 * (Metaspace) or by a splitting pattern (byte level).
 *
 * Patterns are run by PCRE2. Only those we have compared with Hugging Face's engine are accepted,
 * as strings: two regex engines agree on a pattern one has tested, not on patterns in general.
 *
 * A sentencepiece model takes the whole text as one word. But almost every such model was trained
 * so that no token continues past a space (U+2581): then no merge ever joins what lies on both
 * sides, and cutting there gives the same ids from short words, which the cache serves. */
#include <string.h>

#include "engine/text/tokenizer/parts.h"

/* Patterns with `s` for whitespace, `cs` the same inside a class, `ns` for its opposite. PCRE2's
 * own \s has U+180E, which Unicode took out of White_Space in 2013 and the Hugging Face engine does
 * not match; so it is spelt out in what is compiled. */
#define GPT2(s, cs, ns)                                                                            \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" cs "\\p{L}\\p{N}]+|" s "+(?!" ns ")|" s "+"
#define LATER(digits, s, cs, ns)                                                                   \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" cs                \
    "\\p{L}\\p{N}]+[\\r\\n]*|" s "*[\\r\\n]+|" s "+(?!" ns ")|" s "+"
#define AS_WRITTEN "\\s", "\\s", "\\S"
#define SPACES                                                                                     \
    "\\t-\\r "                                                                                     \
    "\\x{85}\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPELT_OUT "[" SPACES "]", SPACES, "[^" SPACES "]"
#define FILL(pattern, ...) pattern(__VA_ARGS__)

static const struct {
    const char *written, *compiled;
} patterns[] = {
    {FILL(GPT2, AS_WRITTEN), FILL(GPT2, SPELT_OUT)},
    {FILL(LATER, "\\p{N}{1,3}", AS_WRITTEN), FILL(LATER, "\\p{N}{1,3}", SPELT_OUT)}, /* Llama-3 */
    {FILL(LATER, "\\p{N}", AS_WRITTEN), FILL(LATER, "\\p{N}", SPELT_OUT)},           /* Qwen2 */
};
enum { PATTERNS = sizeof patterns / sizeof *patterns };

int fkv_tok_pattern(const char *regex, const char *where, pcre2_code **out, struct fkv_error *err) {
    int i = 0;
    while (i < PATTERNS && regex && strcmp(regex, patterns[i].written)) i++;
    if (i == PATTERNS)
        return fkv_fail(
            err, "%s: expected the splitting pattern of GPT-2, Llama-3 or Qwen2, found %.300s",
            where, regex);
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)patterns[i].compiled, PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!*out)
        return fkv_fail(err, "%s: PCRE2 refuses the pattern (error %d at %zu)", where, code, at);
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where there is no JIT, matching interprets */
    return FKV_OK;
}

static const char space[] = "\xe2\x96\x81"; /* U+2581 */
enum { SPACE_BYTES = 3 };

static int whole(struct fkv_tok_encoding *w, struct fkv_tok_text s) {
    if (!w->t->words_start_at_spaces) return fkv_tok_word(w, s.at, s.bytes);
    const char *word = s.at, *end = s.at + s.bytes, *spaces_end = s.at;
    for (const char *hit = word; (hit = memmem(hit, (size_t)(end - hit), space, SPACE_BYTES));
         hit += SPACE_BYTES) {
        if (hit != spaces_end) {
            if (fkv_tok_word(w, word, (size_t)(hit - word))) return FKV_FAILED;
            word = hit;
        }
        spaces_end = hit + SPACE_BYTES;
    }
    return fkv_tok_word(w, word, (size_t)(end - word));
}

static bool starts_with(struct fkv_tok_text s, struct fkv_tok_text prefix) {
    return s.bytes >= prefix.bytes && !memcmp(s.at, prefix.at, prefix.bytes);
}

static int metaspace(struct fkv_tok_encoding *w, struct fkv_tok_text s, bool at_start) {
    const struct fkv_tokenizer *t = w->t;
    struct fkv_tok_text blank = {" ", 1}, mark = t->replacement;
    bool prefix = t->prefix_space && (at_start || !t->first_only) && !starts_with(s, blank) &&
                  !starts_with(s, mark);
    w->spaced.count = 0;
    if (prefix && fkv_tok_append(&w->spaced, mark.at, mark.bytes, w->err)) return FKV_FAILED;
    if (fkv_tok_replace(s, blank, mark, &w->spaced, w->err)) return FKV_FAILED;
    s = (struct fkv_tok_text){w->spaced.at, w->spaced.count};
    if (!t->split_spaces) return whole(w, s);
    for (const char *word = s.at, *end = s.at + s.bytes, *next; word < end; word = next) {
        size_t skip = fkv_tok_char_bytes(*word);
        next = memmem(word + skip, (size_t)(end - word) - skip, mark.at, mark.bytes);
        if (!next) next = end;
        if (fkv_tok_word(w, word, (size_t)(next - word))) return FKV_FAILED;
    }
    return FKV_OK;
}

static int byte_level(struct fkv_tok_encoding *w, struct fkv_tok_text s) {
    if (w->t->prefix_space && s.at[0] != ' ') {
        w->spaced.count = 0;
        if (fkv_tok_append(&w->spaced, " ", 1, w->err) ||
            fkv_tok_append(&w->spaced, s.at, s.bytes, w->err))
            return FKV_FAILED;
        s = (struct fkv_tok_text){w->spaced.at, w->spaced.count};
    }
    if (!w->t->pattern) return fkv_tok_word(w, s.at, s.bytes);
    for (size_t at = 0; at < s.bytes;) {
        int code = pcre2_match(w->t->pattern, (PCRE2_SPTR)s.at, s.bytes, at, PCRE2_NO_UTF_CHECK,
                               w->match, NULL);
        if (code < 0 && code != PCRE2_ERROR_NOMATCH)
            return fkv_fail(w->err, "splitting into words failed at byte %zu (PCRE2 error %d)", at,
                            code);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(w->match);
        size_t start = code < 0 ? s.bytes : span[0], stop = code < 0 ? s.bytes : span[1];
        if (fkv_tok_word(w, s.at + at, start - at) || fkv_tok_word(w, s.at + start, stop - start))
            return FKV_FAILED;
        at = stop;
    }
    return FKV_OK;
}

int fkv_tok_section(struct fkv_tok_encoding *w, struct fkv_tok_text section, bool at_start) {
    switch (w->t->splitting) {
    case FKV_TOK_METASPACE: return metaspace(w, section, at_start);
    case FKV_TOK_BYTE_LEVEL: return byte_level(w, section);
    case FKV_TOK_WHOLE: break;
    }
    return whole(w, section);
}
