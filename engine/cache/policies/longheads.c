/* LongHeads (Lu et al., arXiv 2402.10685): every query head attends to the few chunks of the text
 * that its query asks for, so that no head meets a distance that the model was not trained on,
 * while all heads together see the whole text.
 *
 * Every token keeps its slot and its key the rotation of its token index. That a chosen chunk
 * stands at another position is a choice of query position for its span: the k chosen chunks, in
 * the order of the text, take the positions 0 .. N-1, so the query stands at (k - 1) C + t mod C,
 * and for the j-th of them, chunk c, at (c - j) C more. Chunks that are neighbours in the text and
 * in the choice have one query position and are one span. The vectors by which a query chooses are
 * the session's to make (session/choose.c). */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"
#include "engine/cache/policies/selecting.h"

enum { CHUNK };
enum { ALWAYS = 3 }; /* chunks that every query sees: the first, the previous and its own */

static const struct fkv_policy_option options[] = {
    [CHUNK] = {.name = "chunk",
               .kind = FKV_OPTION_INTEGER,
               .argument = "C",
               .low = 1,
               .high = 1 << 28,
               .standard = 256,
               .help = "tokens of a chunk; a query sees N/C of them, at least 3"},
    {0},
};

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    const int64_t chunk = setup->own[CHUNK];
    if (setup->window < ALWAYS * chunk)
        return fkv_fail_option(
            err, "--window: expected at least %d chunks of %lld slots (--chunk), found %d", ALWAYS,
            (long long)chunk, setup->window);
    if (setup->window % chunk)
        return fkv_fail_option(
            err, "--window: expected a multiple of the %lld slots of --chunk, found %d",
            (long long)chunk, setup->window);
    setup->chunk = (int32_t)chunk;
    setup->max_spans = setup->window / setup->chunk;
    return fkv_prepare_every_token(setup, max_tokens, err);
}

/* Tokens that are appended together are of one chunk. */
static int32_t append_limit(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    const int32_t free_slots = fkv_schedule_free_slots(setup, head),
                  to_border = setup->chunk - head->slots % setup->chunk;
    return to_border < free_slots ? to_border : free_slots;
}

/* The k chunks that a query of chunk `own` sees -> chosen [k], ascending. */
static void choose_chunks(int32_t own, int32_t k, const struct fkv_chunk_scores *scores,
                          int32_t *chosen) {
    const struct fkv_selection best = {.budget = k - ALWAYS, .kernel = 1};
    fkv_select_slots(&best, scores->score + 1, own - 2, scores->scratch, chosen + 1);
    chosen[0] = 0;
    for (int32_t j = 1; j <= best.budget; j++) chosen[j]++; /* the candidates start at chunk 1 */
    chosen[k - 2] = own - 1;
    chosen[k - 1] = own;
}

static int32_t choose(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                      int64_t token, const struct fkv_chunk_scores *scores,
                      struct fkv_span *spans) {
    const int32_t chunk = setup->chunk, k = setup->window / chunk, own = (int32_t)token / chunk,
                  *chosen = scores->chosen;
    const double position = (k - 1) * chunk + (int32_t)token % chunk;
    int32_t count = 0;
    choose_chunks(own, k, scores, scores->chosen);
    for (int32_t j = 0; j < k; j++) {
        if (j && chosen[j] == chosen[j - 1] + 1)
            spans[count - 1].end += chunk;
        else
            spans[count++] = (struct fkv_span){.first = chosen[j] * chunk,
                                               .end = (chosen[j] + 1) * chunk,
                                               .from = FKV_NO_LIMIT_BELOW,
                                               .until = FKV_NO_LIMIT_ABOVE,
                                               .position = position + (chosen[j] - j) * chunk};
    }
    spans[count - 1].end = head->slots;
    spans[count - 1].until = (int32_t)token + 1;
    return count;
}

const struct fkv_policy fkv_policy_longheads = {
    .name = "longheads",
    .summary = "every token; each query of a head sees the chunks it scores highest",
    .page = "LongHeads (Lu et al., arXiv 2402.10685; code: github.com/LuLuLuyi/LongHeads).\n"
            "The text is cut in chunks of C tokens. Up to N tokens: full attention. Past\n"
            "them, a query head's query sees k = N/C chunks: the first, the previous, its\n"
            "own up to itself, and the k - 3 others of largest score.\n"
            "\n"
            "Score: the query before RoPE times the chunk's vector. The vector, once the\n"
            "chunk is full, per query head: attention of the chunk's C queries over its C\n"
            "keys and values, without a mask, RoPE at positions 0 .. C-1; the mean of the\n"
            "C results is a query, taken as it is, over the same rotated keys; those keys\n"
            "by its weights are the vector.\n"
            "\n"
            "Positions: the k chunks, in the order of the text, stand at 0 .. N-1; the\n"
            "query of token t at (k - 1) C + t mod C.\n"
            "\n"
            "Memory is not saved: every token stays, and the bytes reported are those of\n"
            "all tokens. What is bounded is what a query sees, N slots at most. --sinks is\n"
            "not used: every query sees the first chunk.\n"
            "\n"
            "The vector is made as the official code makes it. Every query chooses by\n"
            "itself, in prefill as in decoding, so the choice sees no later token and does\n"
            "not depend on the size of a block. Of the code we leave two things: its\n"
            "prefill hides a query's own key, and its decoding takes k - 1 chunks at the\n"
            "last token of a chunk. Here a query sees its own key, and always k chunks.\n"
            "The code has as many KV heads as query heads. With fewer, each query head has\n"
            "its own vectors and its own choice, as if KV heads were repeated. Of equal\n"
            "scores the earlier chunk's counts.\n"
            "\n"
            "Defaults: C = 256 and N = the trained context. N is a multiple of C, from 3 C.",
    .options = options,
    .takes_window = true,
    .window_unit = "chunk",
    .without_sinks = true,
    .keeps_every_token = true,
    .prepare = prepare,
    .append_limit = append_limit,
    .act = fkv_no_action,
    .position = fkv_slot_position,
    .view = fkv_causal_view,
    .choose = choose,
};
