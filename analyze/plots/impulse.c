/* The life of a chunk, as two figures. Responses: the chunk of ones wanders to the front of the
 * cache, where half the slots hold ever older text, so slots are on a logarithmic axis; a token's
 * response keeps its shape and loses (L/n)^k of its weight, so it is drawn about its centre and
 * scaled by (n/L)^k. Memory: what is left against tokens since. */
#include <stdio.h>

#include "analyze/plots/figures.h"

enum { AROUND = 8 };

static const double panel_height = 1.9;

/* ---- responses ---- */

/* The rounds that are drawn, in steps of about 1.5: the same in every panel, so that one legend
 * serves. */
static const int32_t drawn[] = {1, 2, 3, 5, 8, 12, 18, 28, 45, 70, 110, 170, 270, 420, 650, 1000};
enum { DRAWN = sizeof drawn / sizeof *drawn };

static int32_t most_rounds(const struct fkv_impulse *impulses, int32_t count) {
    int32_t most = 1;
    for (int32_t i = 0; i < count; i++)
        if (impulses[i].rounds > most) most = impulses[i].rounds;
    return most;
}

/* Rounds on the colour map by the logarithm of their number: the first ones differ most. */
static struct fkv_color round_color(int32_t round, int32_t most) {
    return fkv_color_map(most > 1 ? FKV_MAP_TOP * log(round + 1.0) / log(most) : 0.3);
}

static void draw_chunk(struct fkv_figure *f, int panel, const struct fkv_impulse *x, int32_t most) {
    int32_t slots = x->schedule.retained;
    double *at = fkv_figure_numbers(f, 2 * (size_t)slots), *y = at ? at + slots : NULL;
    for (int i = 0; at && i < DRAWN && drawn[i] <= x->rounds; i++) {
        int32_t k = drawn[i] - 1;
        char label[32];
        snprintf(label, sizeof label, "round %d", k + 1);
        const struct fkv_line line = {.label = label, .color = round_color(k, most), .width = 0.9};
        for (int32_t j = 0; j < slots; j++)
            at[j] = j + 1, y[j] = x->chunk[(size_t)k * (size_t)slots + (size_t)j];
        fkv_figure_line(f, panel, &line, slots, at, y);
    }
}

static void draw_token(struct fkv_figure *f, int panel, const struct fkv_impulse *x, int32_t most) {
    int32_t slots = x->schedule.retained;
    for (int i = 0; i < DRAWN && drawn[i] <= x->rounds; i++) {
        int32_t k = drawn[i] - 1, count = 0;
        double at[2 * AROUND + 1], y[2 * AROUND + 1],
            grow = pow((double)x->schedule.n / slots, k + 1);
        int32_t middle = (int32_t)lround(x->round[k].centre);
        for (int32_t j = middle - AROUND; j <= middle + AROUND; j++) {
            if (j < 0 || j >= slots) continue;
            at[count] = j - x->round[k].centre;
            y[count++] = grow * x->token[(size_t)k * (size_t)slots + (size_t)j];
        }
        const struct fkv_line line = {.color = round_color(k, most), .width = 0.9, .markers = true};
        fkv_figure_line(f, panel, &line, count, at, y);
    }
}

static void draw_responses(struct fkv_figure *f, const struct fkv_impulse *impulses,
                           int32_t count) {
    int32_t most = most_rounds(impulses, count);
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_schedule *s = &impulses[i].schedule;
        bool last = i == count - 1;
        char title[2][96];
        snprintf(title[0], sizeof title[0], "a chunk of %d ones, \u03b3 = %.4g", s->chunk,
                 s->gamma);
        snprintf(title[1], sizeof title[1], "its middle token, \u03b3 = %.4g", s->gamma);
        const struct fkv_axis slot = {last ? "slot after the sinks, from 1" : NULL, 1, s->retained,
                                      .logarithmic = true};
        const struct fkv_axis away = {last ? "slots from its centre" : NULL, -AROUND, AROUND,
                                      .logarithmic = false};
        const struct fkv_axis held = {.label = "weight in the slot"},
                              scaled = {.label = "weight \u00d7 (n/L)^{k}"};
        fkv_figure_axes(f, 2 * i, title[0], &slot, &held);
        draw_chunk(f, 2 * i, &impulses[i], most);
        fkv_figure_axes(f, 2 * i + 1, title[1], &away, &scaled);
        draw_token(f, 2 * i + 1, &impulses[i], most);
    }
}

/* ---- memory ---- */

/* y [rounds] over the tokens since the chunk. */
static void draw_curve(struct fkv_figure *f, int panel, const struct fkv_impulse *x,
                       const char *label, int color, bool dashed, const double *y) {
    double *since = fkv_figure_numbers(f, (size_t)x->rounds);
    const struct fkv_line line = {.label = label,
                                  .color = fkv_color_cycle(color),
                                  .width = 1.1,
                                  .dashed = dashed,
                                  .markers = !dashed};
    if (!since) return;
    for (int32_t k = 0; k < x->rounds; k++) since[k] = x->round[k].tokens_since;
    fkv_figure_line(f, panel, &line, x->rounds, since, y);
}

static void draw_horizon(struct fkv_figure *f, int panel, const struct fkv_impulse *x, int color,
                         double high) {
    const double at[2] = {x->schedule.horizon, x->schedule.horizon}, y[2] = {0.5, high};
    struct fkv_line line = {.color = fkv_color_cycle(color), .width = 0.8, .dashed = true};
    line.color.a = 0.6;
    fkv_figure_line(f, panel, &line, 2, at, y);
}

/* Where the rank was not computed, the dashed line alone says which ratio it is. y [rounds] */
static void draw_memory_of(struct fkv_figure *f, const struct fkv_impulse *x, int color, double *y,
                           const double high[2]) {
    char label[32];
    bool ranked = x->round[0].rank >= 0;
    snprintf(label, sizeof label, "\u03b3 = %.4g", x->schedule.gamma);
    for (int32_t k = 0; k < x->rounds; k++) y[k] = x->round[k].rank;
    if (ranked) draw_curve(f, 0, x, label, color, false, y);
    for (int32_t k = 0; k < x->rounds; k++) y[k] = x->round[k].slots_left;
    draw_curve(f, 0, x, ranked ? NULL : label, color, true, y);
    for (int32_t k = 0; k < x->rounds; k++) y[k] = x->round[k].width_tokens;
    draw_curve(f, 1, x, NULL, color, false, y);
    for (int panel = 0; panel < 2; panel++) draw_horizon(f, panel, x, color, high[panel]);
}

static void draw_memory(struct fkv_figure *f, const struct fkv_impulse *impulses, int32_t count) {
    double high[2] = {1, 1}, *y = fkv_figure_numbers(f, (size_t)most_rounds(impulses, count));
    for (int32_t i = 0; i < count; i++)
        for (int32_t k = 0; k < impulses[i].rounds; k++) {
            const struct fkv_impulse_round *r = &impulses[i].round[k];
            high[0] = fmax(high[0], fmax(r->slots_left, r->rank >= 0 ? r->rank : 0));
            high[1] = fmax(high[1], r->width_tokens);
        }
    for (int i = 0; i < 2; i++) high[i] *= 2;
    const struct fkv_axis bare = {.high = FKV_FIT},
                          since = {.label = "tokens since the chunk", .high = FKV_FIT};
    const struct fkv_axis left = {"rank (solid), slots (dashed)", 0.5, high[0],
                                  .logarithmic = true};
    const struct fkv_axis wide = {"width of a token (tokens)", 0.5, high[1], .logarithmic = true};
    fkv_figure_axes(f, 0, "what is left of the chunk", &bare, &left);
    fkv_figure_axes(f, 1, "how finely it is resolved", &since, &wide);
    for (int32_t i = 0; y && i < count; i++) draw_memory_of(f, &impulses[i], i, y, high);
}

/* Starts the small print of both figures. */
static void note_cache(struct fkv_figure *f, const struct fkv_schedule *s) {
    fkv_figure_note(f, "N\u00a0=\u00a0%d slots, S\u00a0=\u00a0%d sinks.", s->window, s->sinks);
}

int fkv_plot_impulse_responses(const struct fkv_impulse *impulses, int32_t count,
                               struct fkv_plot_target *to, struct fkv_error *err) {
    struct fkv_figure *f;
    if (fkv_figure_create(7.2, 1.1 + panel_height * count, count, 2,
                          "What a compressed cache holds of a chunk", &f, err))
        return FKV_FAILED;
    note_cache(f, &impulses[0].schedule);
    fkv_figure_note(f, " Round k: the chunk has been compressed k times, each after "
                       "n\u00a0\u2212\u00a0L further tokens.");
    draw_responses(f, impulses, count);
    return fkv_plot_finish(f, to, err, "impulse_responses");
}

int fkv_plot_impulse_memory(const struct fkv_impulse *impulses, int32_t count,
                            struct fkv_plot_target *to, struct fkv_error *err) {
    struct fkv_figure *f;
    if (fkv_figure_create(5.6, 5.4, 2, 1, "Memory of a compressed cache", &f, err))
        return FKV_FAILED;
    note_cache(f, &impulses[0].schedule);
    fkv_figure_note(f, " Rank: singular values above 1%% of the largest; dashed: "
                       "C\u00a0(L/n)^{k} slots, nominally. A token's width: slots that hold it, "
                       "times the tokens per slot. Verticals: memory horizon, "
                       "C\u00a0log_{n/L}(L) tokens, where one slot of L is left.");
    draw_memory(f, impulses, count);
    return fkv_plot_finish(f, to, err, "impulse_memory");
}
