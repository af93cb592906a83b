/* The pre-tokenizers that a GGUF file has by name, in `tokenizer.ggml.pre`: patterns, one after the
 * other, whose matches and what is between them are words.
 *
 * The names and their patterns are those of llama.cpp (src/llama-vocab.cpp), which gives a file its
 * name by what the model's own tokenizer.json does. Where llama.cpp has to rewrite a pattern for
 * its regex engine or leaves a step out, the original is here: case is ignored in contractions,
 * letters have their Unicode classes, Qwen's, Cohere's and GPT-NeoX's text is NFC.
 *
 * Missing, and refused by name: those that are no patterns (kimi-k2, afmoe) and those whose words
 * are not spelt by bytes (gemma4, sarvam-moe, whitespace). */
#include <string.h>

#include "engine/text/tokenizer/parts.h"

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define LINES "\\s*[\\r\\n]+|"
#define SPACES "\\s+(?!\\S)|\\s+"
#define SIGNS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
#define SIGNS_SLASH "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"
#define KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define CJK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define NO_STOPS " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"
/* The letters with a case that DeepSeek's tokenizer knows. */
#define CASED                                                                                      \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-"        \
    "\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}"          \
    "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}"         \
    "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-"           \
    "\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"        \
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-"       \
    "\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-"         \
    "\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-"        \
    "\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}"        \
    "\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}"          \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-"        \
    "\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-"         \
    "\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"         \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-"       \
    "\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-"              \
    "\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-"         \
    "\\x{118df}\\x{1e900}-\\x{1e943}"

#define LLAMA3 CONTRACTION WORD "|\\p{N}{1,3}" SIGNS LINES SPACES
#define QWEN2 CONTRACTION WORD "|\\p{N}" SIGNS LINES SPACES
#define GPT4O                                                                                      \
    BEFORE UPPER "*" LOWER "+" CONTRACTION "?|" BEFORE UPPER "+" LOWER "*" CONTRACTION             \
                 "?|\\p{N}{1,3}" SIGNS_SLASH LINES SPACES

static const struct fkv_tok_pre rows[] = {
    {.names = "gpt-2 phi-2 gigachat a.x-4.0 mellum modern-bert jina-es jina-de jina-v2-es "
              "jina-v2-de jais trillion granite-docling exaone4",
     .split = {FKV_TOK_GPT2}},
    {.names = "olmo mpt", .nfc = true, .split = {FKV_TOK_GPT2}},
    {.names = "smollm starcoder refact codeshell exaone minerva-7b mellum2",
     .split = {"\\p{N}", FKV_TOK_GPT2}},
    {.names = "command-r", .nfc = true, .split = {"\\p{N}", FKV_TOK_GPT2}},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
     .ignore_merges = true,
     .bos = true,
     .split = {LLAMA3}},
    {.names = "dbrx smaug-bpe glm4 chatglm-bpe", .split = {LLAMA3}},
    {.names = "qwen2", .nfc = true, .split = {QWEN2}},
    {.names = "stablelm2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open grok-2",
     .split = {QWEN2}},
    {.names = "qwen35",
     .nfc = true,
     .split = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
                           " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES SPACES}},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .split = {GPT4O}},
    {.names = "tiny_aya cohere2moe", .split = {"\\d{1,3}(?=(?:\\d{3})*\\b)", GPT4O}},
    {.names = "tekken",
     .ignore_merges = true,
     .bos = true,
     .split = {BEFORE UPPER "*" LOWER "+|" BEFORE UPPER "+" LOWER
                            "*|\\p{N}" SIGNS_SLASH LINES SPACES}},
    {.names = "deepseek-llm",
     .split = {"[\\r\\n]", "\\s?[" CASED "]+",
               "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"
               "\\x{3000}-\\x{3002}]+",
               "\\s+$", CJK, "\\p{N}+"}},
    {.names = "deepseek-coder", .split = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm",
     .split =
         {"\\p{N}{1,3}", KANA,
          "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
          "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES SPACES}},
    {.names = "bailingmoe bailingmoe2 llada-moe",
     .split = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}|"
               " ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|" SPACES}},
    {.names = "seed-coder",
     .split = {CONTRACTION WORD "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" LINES SPACES}},
    {.names = "minicpm5",
     .ignore_merges = true,
     .split = {"\\p{N}{1,3}", CONTRACTION WORD "|\\p{N}+" SIGNS LINES SPACES}},
    {.names = "falcon",
     .split = {"(?:" FKV_TOK_PUNCTUATION ")+", FKV_TOK_GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
     .bytes_after = 2},
    {.names = "default",
     .split = {"[\\p{P}$+<=>^~|]+", FKV_TOK_GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = "bloom poro-chat gpt3-finnish", .split = {NO_STOPS}},
    {.names = "viking", .split = {NO_STOPS, "\\p{N}"}},
    {.names = "superbpe", .split = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
};
enum { ROWS = sizeof rows / sizeof *rows };

/* Whether `name` is one of `names`. */
static bool is_one_of(struct fkv_tok_text name, const char *names) {
    for (size_t n; *names; names += n + (names[n] == ' ')) {
        n = strcspn(names, " ");
        if (n == name.bytes && !memcmp(names, name.at, n)) return true;
    }
    return false;
}

const struct fkv_tok_pre *fkv_tok_find_pre(struct fkv_tok_text name) {
    for (int i = 0; i < ROWS; i++)
        if (is_one_of(name, rows[i].names)) return &rows[i];
    return NULL;
}
