/* Changes of a cache (definitions.md, "Probe"), head by head: n = P - S slots of un-rotated states
 * are read, changed along tokens, and put back.
 *
 *   filter   coefficients outside the bands become 0; length n
 *   noise    white Gaussian coefficients within the band are added, scaled so that their energy is
 *            exactly eps times the head's without DC
 *   freqkv   the map of the method: L lowest coefficients, inverse of length L, times sqrt(L/n); or
 *            what of it is switched on (probe/changes.c)
 *   local    the latest L slots
 *
 * Transforms are the kernels' own in float32 and run here, not on the backend: a probe makes many
 * changes but each costs little beside the tokens scored after it. */
#include "replay/probe/edit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session/surgery.h"
#include "kernels/base/ratio.h"
#include "kernels/dct.h"
#include "kernels/statistics/random.h"

struct fkv_editor {
    int32_t layers, kv_heads, width, prefix, sinks;
    int32_t n; /* changed slots: prefix - sinks */
    int64_t seed;
    struct fkv_dct *forward; /* of n; owned */
    struct fkv_dct *inverse; /* of `retained`; owned */
    int32_t retained;        /* 0: none yet */
    float *states[2];        /* [n, width], keys and values; owned, one allocation */
    float *coefficients;     /* [n, width], in the same allocation */
    float *scratch;          /* of a transform of n or fewer tokens; owned */
};

int fkv_editor_open(const struct fkv_model *model, int32_t prefix, int32_t sinks, int64_t seed,
                    struct fkv_editor **out, struct fkv_error *err) {
    struct fkv_editor *e = *out = calloc(1, sizeof *e);
    if (!e) return fkv_fail(err, "probe: out of memory");
    *e = (struct fkv_editor){.layers = model->config.layers,
                             .kv_heads = model->config.kv_heads,
                             .width = model->config.head_dim,
                             .prefix = prefix,
                             .sinks = sinks,
                             .n = prefix - sinks,
                             .seed = seed};
    size_t count = (size_t)e->n * (size_t)e->width;
    if (fkv_dct_create(e->n, &e->forward, err)) goto failed;
    e->scratch = malloc(fkv_dct_scratch(e->forward) * sizeof(float));
    e->states[0] = malloc(3 * count * sizeof(float));
    if (!e->states[0] || !e->scratch) {
        fkv_fail(err, "probe: out of memory for the states of a head");
        goto failed;
    }
    e->states[1] = e->states[0] + count;
    e->coefficients = e->states[1] + count;
    return FKV_OK;
failed:
    fkv_editor_close(e);
    *out = NULL;
    return FKV_FAILED;
}

void fkv_editor_close(struct fkv_editor *e) {
    if (!e) return;
    fkv_dct_destroy(e->forward);
    fkv_dct_destroy(e->inverse);
    free(e->states[0]);
    free(e->scratch);
    free(e);
}

/* ---- along tokens ---- */

static double energy_of(const float *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)x[i] * x[i];
    return sum;
}

/* Of coefficients [from, to). */
static double band_energy(const struct fkv_editor *e, int32_t from, int32_t to) {
    size_t width = (size_t)e->width;
    return energy_of(e->coefficients + (size_t)from * width, (size_t)(to - from) * width);
}

static void filter(struct fkv_editor *e, const struct fkv_probe_change *change, double *lost) {
    for (int32_t t = 0; t < e->n; t++) {
        if (fkv_probe_change_has(change, t, e->n) != change->complement) continue;
        *lost += band_energy(e, t, t + 1);
        memset(e->coefficients + (size_t)t * (size_t)e->width, 0, (size_t)e->width * sizeof(float));
    }
}

/* Box and Muller's normal variates; one of the two, so that a draw is two steps of the generator.
 */
static double next_normal(struct fkv_random *r) {
    double u = 1 - fkv_random_uniform(r), angle = 6.283185307179586 * fkv_random_uniform(r);
    return sqrt(-2 * log(u)) * cos(angle);
}

/* Adds noise to one head's state. Two passes over the same draws: the first measures their energy,
 * the second adds them scaled. */
static void add_noise(struct fkv_editor *e, const struct fkv_probe_change *change,
                      struct fkv_random start, double energy, double *lost) {
    double drawn = 0, noise_energy = change->epsilon * energy;
    for (int pass = 0; pass < 2; pass++) {
        struct fkv_random random = start;
        double scale = pass && drawn > 0 ? sqrt(noise_energy / drawn) : 0;
        for (int32_t t = 0; t < e->n; t++) {
            if (!fkv_probe_change_has(change, t, e->n)) continue;
            for (int32_t c = 0; c < e->width; c++) {
                double x = next_normal(&random);
                if (!pass) drawn += x * x;
                if (pass)
                    e->coefficients[(size_t)t * (size_t)e->width + (size_t)c] += (float)(scale * x);
            }
        }
    }
    *lost += noise_energy;
}

/* The stream of a window, layer, head and state: no other has the same. */
static struct fkv_random noise_stream(const struct fkv_editor *e, int64_t window, int32_t layer,
                                      int32_t head, int state) {
    struct fkv_random random = {(uint64_t)e->seed};
    uint64_t number = (uint64_t)window;
    number = number * (uint64_t)e->layers + (uint64_t)layer;
    number = number * (uint64_t)e->kv_heads + (uint64_t)head;
    number = number * 2 + (uint64_t)state;
    return (struct fkv_random){fkv_random_next(&random) ^ number * 0xd1342543de82ef95u};
}

/* Changes x [n, width], one state of one head, in place: slots that remain come first. Adds to
 * *lost what it took out or put in, to *energy the energy without DC. */
static void change_states(struct fkv_editor *e, const struct fkv_probe_change *change, float *x,
                          struct fkv_random random, double *lost, double *energy) {
    size_t width = (size_t)e->width;
    fkv_dct_forward(e->forward, x, width, e->width, e->coefficients, width, e->scratch);
    double beyond_mean = band_energy(e, 1, e->n);
    *energy += beyond_mean;
    if (change->kind == FKV_PROBE_FILTER) filter(e, change, lost);
    if (change->kind == FKV_PROBE_NOISE) add_noise(e, change, random, beyond_mean, lost);
    if (change->kind == FKV_PROBE_FILTER || change->kind == FKV_PROBE_NOISE)
        fkv_dct_inverse(e->forward, e->coefficients, width, e->width, x, width, e->scratch);
    if (change->kind == FKV_PROBE_LOCAL) {
        int32_t dropped = e->n - e->retained;
        for (size_t c = 0; c < width; c++) {
            double mean = e->coefficients[c] / sqrt(e->n);
            for (int32_t i = 0; i < dropped; i++) *lost += pow(x[(size_t)i * width + c] - mean, 2);
        }
        memmove(x, x + (size_t)dropped * width, (size_t)e->retained * width * sizeof *x);
    }
    if (change->kind == FKV_PROBE_FREQKV && change->truncation) {
        *lost += band_energy(e, e->retained, e->n);
        fkv_dct_inverse(e->inverse, e->coefficients, width, e->width, x, width, e->scratch);
        float gain = (float)sqrt((double)e->retained / e->n);
        for (size_t i = 0; i < (size_t)e->retained * width; i++) x[i] *= gain;
    }
}

/* ---- into the cache ---- */

/* slots: count and positions of the changed ones. *bias: added to their attention scores. *shift:
 * of the positions of what follows. */
static void position_slots(const struct fkv_editor *e, const struct fkv_probe_change *change,
                           struct fkv_slots *slots, double *bias, double *shift) {
    double n = e->n, kept = e->retained;
    bool fewer = change->kind == FKV_PROBE_FREQKV && change->truncation;
    slots->first = e->sinks;
    slots->count = fewer || change->kind == FKV_PROBE_LOCAL ? e->retained : e->n;
    slots->position = e->sinks, slots->step = 1;
    *bias = *shift = 0;
    if (change->kind != FKV_PROBE_FREQKV) return;
    if (fewer != change->squeezed) { /* L slots over n positions, or n slots over L */
        slots->step = fewer ? n / kept : kept / n;
        slots->position = e->sinks + slots->step / 2 - 0.5;
    }
    if (fewer != change->fewer) *bias = fewer ? log(n / kept) : -log(n / kept);
    *shift = (change->squeezed ? kept : n) - slots->count;
}

static int change_head(struct fkv_editor *e, struct fkv_session *session,
                       const struct fkv_probe_change *change, int64_t window, int32_t layer,
                       int32_t kv_head, double lost[2], double energy[2], struct fkv_error *err) {
    struct fkv_slots slots = {layer, 0, kv_head, e->sinks, e->n, e->sinks, 1};
    float *states[2] = {change->states & FKV_PROBE_KEY ? e->states[0] : NULL,
                        change->states & FKV_PROBE_VALUE ? e->states[1] : NULL};
    double bias, shift;
    if (fkv_session_read_slots(session, &slots, states[0], states[1], err)) return FKV_FAILED;
    for (int s = 0; s < 2; s++)
        if (states[s])
            change_states(e, change, states[s], noise_stream(e, window, layer, kv_head, s),
                          &lost[s], &energy[s]);
    position_slots(e, change, &slots, &bias, &shift);
    if (fkv_session_write_slots(session, &slots, states[0], states[1], err) ||
        (bias != 0 && fkv_session_set_bias(session, &slots, bias, err)))
        return FKV_FAILED;
    if (slots.count == e->n && shift == 0) return FKV_OK;
    slots.count += e->sinks, slots.first = 0;
    return fkv_session_cut(session, &slots, shift, err);
}

int fkv_editor_apply(struct fkv_editor *e, struct fkv_session *session,
                     const struct fkv_probe_change *change, int64_t window, double lost[2],
                     struct fkv_error *err) {
    double energy[2] = {0};
    lost[0] = lost[1] = 0;
    if (change->kind == FKV_PROBE_NONE) return FKV_OK;
    int32_t retained = isnan(change->gamma) ? e->n : fkv_retained(change->gamma, e->n);
    if (retained != e->retained) {
        fkv_dct_destroy(e->inverse);
        e->inverse = NULL;
        if (fkv_dct_create(e->retained = retained, &e->inverse, err)) return FKV_FAILED;
    }
    for (int32_t l = 0; l < e->layers; l++)
        for (int32_t h = 0; h < e->kv_heads; h++) {
            if ((change->layer >= 0 && change->layer != l) ||
                (change->kv_head >= 0 && change->kv_head != h))
                continue;
            if (change_head(e, session, change, window, l, h, lost, energy, err)) return FKV_FAILED;
        }
    for (int s = 0; s < 2; s++) lost[s] = energy[s] > 0 ? lost[s] / energy[s] : 0;
    return FKV_OK;
}
