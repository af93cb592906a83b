/* Requests and the changes they become. A request is made for each of --states where keys and
 * values can change apart (filters, noise); where slots go, both go. Then it is made of all heads
 * at once, of each layer, of each head, as asked for.
 *
 * FreqKV in parts. A compression truncates (drops coefficients L .. n-1), squeezes positions (n
 * slots' worth of distance becomes L) and leaves fewer slots in the softmax. Each part alone and
 * all combinations:
 *
 *   truncation  on: the L slots that FreqKV leaves. Off: the n slots as they are.
 *   squeezed    on: L slots at their slot indices, or n slots at S + (j + 1/2) L/n - 1/2, and what
 *               follows at S + L. Off: L slots at their centres S + (j + 1/2) n/L - 1/2, or n slots
 *               at their own positions, and what follows at P.
 *   fewer       on: L slots count as L (bias 0), n slots as L (bias -log(n/L)). Off: L slots count
 *               as n (bias log(n/L)), n slots as n.
 *
 * All on is FreqKV, all off nothing. Truncation alone is given twice: as n slots without the
 * coefficients (a filter; nothing but truncation), and as L slots at their centres with bias, whose
 * difference is what drawing the signal at L points costs attention. */
#include "replay/probe/changes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/parse.h"
#include "kernels/base/ratio.h"

/* ---- asking ---- */

static int parse_band(const char *text, const char *option, struct fkv_band *band, double *epsilon,
                      struct fkv_error *err) {
    char copy[128], *at[3] = {copy};
    int wanted = epsilon ? 3 : 2, found = 1;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *c = copy; *c; c++)
        if (*c == ':') {
            *c = 0;
            if (found < wanted) at[found] = c + 1;
            found++;
        }
    if (found != wanted || strlen(text) >= sizeof copy)
        return fkv_fail_option(err, "%s: expected %s, found \"%s\"", option,
                               epsilon ? "a:b:eps" : "a:b", text);
    if (fkv_parse_double(at[0], option, 0, 1, &band->low, err) ||
        fkv_parse_double(at[1], option, 0, 1, &band->high, err) ||
        (epsilon && fkv_parse_double(at[2], option, 0, 1e6, epsilon, err)))
        return FKV_FAILED;
    if (band->low >= band->high)
        return fkv_fail_option(err, "%s: expected a band a:b with a < b, found \"%s\"", option,
                               text);
    return FKV_OK;
}

static int add_request(struct fkv_probe_wishes *wishes, const struct fkv_probe_request *request,
                       const char *option, struct fkv_error *err) {
    if (wishes->request_count == FKV_PROBE_REQUESTS)
        return fkv_fail_option(err, "%s: at most %d changes are asked for at once", option,
                               FKV_PROBE_REQUESTS);
    wishes->requests[wishes->request_count++] = *request;
    return FKV_OK;
}

/* A list of bands is one filter, but of ratios or of noises each is a change of its own. */
static int ask_item(struct fkv_probe_wishes *wishes, struct fkv_probe_request *r,
                    const char *option, const char *item, struct fkv_error *err) {
    int64_t parts = 0;
    switch (r->kind) {
    case FKV_ASK_FILTER:
        if (r->band_count == FKV_PROBE_BANDS)
            return fkv_fail_option(err, "%s: at most %d bands in one change", option,
                                   FKV_PROBE_BANDS);
        return parse_band(item, option, &r->bands[r->band_count++], NULL, err);
    case FKV_ASK_NOISE:
        r->band_count = 1;
        if (parse_band(item, option, &r->bands[0], &r->epsilon, err)) return FKV_FAILED;
        break;
    case FKV_ASK_BANDS:
    case FKV_ASK_OCTAVES:
        if (fkv_parse_int(item, option, 2, r->kind == FKV_ASK_BANDS ? 1024 : 24, &parts, err))
            return FKV_FAILED;
        r->parts = (int32_t)parts;
        break;
    default:
        if (fkv_parse_double(item, option, 0, 1, &r->gamma, err)) return FKV_FAILED;
        break;
    }
    return add_request(wishes, r, option, err);
}

int fkv_probe_ask(struct fkv_probe_wishes *wishes, enum fkv_probe_request_kind kind,
                  const char *option, const char *text, struct fkv_error *err) {
    struct fkv_probe_request r = {.kind = kind, .epsilon = NAN, .gamma = NAN};
    char *copy = strdup(text), *rest = copy;
    int status = copy ? FKV_OK : fkv_fail(err, "out of memory");
    for (char *item; !status && (item = strsep(&rest, ","));)
        status = ask_item(wishes, &r, option, item, err);
    free(copy);
    return status || kind != FKV_ASK_FILTER ? status : add_request(wishes, &r, option, err);
}

static const char *state_name(int states) {
    return states == FKV_PROBE_KEY ? "key" : states == FKV_PROBE_VALUE ? "value" : "both";
}

int fkv_probe_parse_states(struct fkv_probe_wishes *wishes, const char *text,
                           struct fkv_error *err) {
    char copy[64], *rest = copy;
    snprintf(copy, sizeof copy, "%s", text);
    wishes->state_count = 0;
    for (char *item; (item = strsep(&rest, ","));) {
        int states = 0;
        for (int s = FKV_PROBE_KEY; s <= (FKV_PROBE_KEY | FKV_PROBE_VALUE); s++)
            if (!strcmp(item, state_name(s))) states = s;
        for (int i = 0; i < wishes->state_count; i++)
            if (wishes->states[i] == states) states = 0;
        if (!states || strlen(text) >= sizeof copy)
            return fkv_fail_option(
                err, "--states: expected key, value, both or a list of them, found \"%s\"", text);
        wishes->states[wishes->state_count++] = states;
    }
    return FKV_OK;
}

/* ---- listing ---- */

struct list {
    const struct fkv_probe_wishes *wishes;
    int32_t layers, kv_heads, n;
    struct fkv_edit *edits;
    int32_t count, families;
    bool without_dc; /* listed already: bands and octaves both begin with it */
};

bool fkv_edit_has(const struct fkv_edit *edit, int32_t t, int32_t n) {
    for (int i = 0; i < edit->band_count; i++)
        if (fkv_band_edge(edit->bands[i].low, n) <= t && t < fkv_band_edge(edit->bands[i].high, n))
            return true;
    return false;
}

static int add_edit(struct list *l, const struct fkv_edit *edit, int32_t layer, int32_t kv_head,
                    struct fkv_error *err) {
    if ((l->count & (l->count - 1)) == 0) { /* full at every power of two */
        struct fkv_edit *larger = realloc(l->edits, 2 * ((size_t)l->count + 1) * sizeof *larger);
        if (!larger) return fkv_fail(err, "out of memory for %d changes", l->count);
        l->edits = larger;
    }
    struct fkv_edit *e = &l->edits[l->count++];
    *e = *edit;
    e->family = l->families;
    e->row.layer = layer;
    e->row.kv_head = kv_head;
    return FKV_OK;
}

/* The change of all heads, of each layer and of each head; on each of the states in turn where
 * `apart`. */
static int add_everywhere(struct list *l, struct fkv_edit edit, bool apart, struct fkv_error *err) {
    const struct fkv_probe_wishes *w = l->wishes;
    static const int together[] = {FKV_PROBE_KEY | FKV_PROBE_VALUE};
    const int *states = apart ? w->states : together;
    char label[FKV_PROBE_LABEL];
    snprintf(label, sizeof label, "%s", edit.row.label);
    for (int s = 0; s < (apart ? w->state_count : 1); s++, l->families++) {
        edit.row.states = states[s];
        if (apart)
            snprintf(edit.row.label, sizeof edit.row.label, "%.80s, %s", label,
                     state_name(states[s]));
        if (add_edit(l, &edit, -1, -1, err)) return FKV_FAILED;
        for (int32_t layer = 0; layer < l->layers; layer++) {
            if (w->per_layer && add_edit(l, &edit, layer, -1, err)) return FKV_FAILED;
            for (int32_t h = 0; h < l->kv_heads && w->per_head; h++)
                if (add_edit(l, &edit, layer, h, err)) return FKV_FAILED;
        }
    }
    return FKV_OK;
}

static struct fkv_edit plain_edit(int32_t kind) {
    return (struct fkv_edit){.row = {.kind = kind,
                                     .layer = -1,
                                     .kv_head = -1,
                                     .low = NAN,
                                     .high = NAN,
                                     .epsilon = NAN,
                                     .gamma = NAN,
                                     .truncation = -1,
                                     .squeezed = -1,
                                     .fewer = -1}};
}

/* Sets low and high to what the bands span, and refuses bands without a coefficient. */
static int span_bands(struct fkv_edit *e, int32_t n, struct fkv_error *err) {
    int32_t inside = 0;
    e->row.low = 1, e->row.high = 0;
    for (int i = 0; i < e->band_count; i++) {
        e->row.low = fmin(e->row.low, e->bands[i].low);
        e->row.high = fmax(e->row.high, e->bands[i].high);
    }
    for (int32_t t = 0; t < n; t++) inside += fkv_edit_has(e, t, n);
    if (inside) return FKV_OK;
    return fkv_fail_option(err,
                           "%s: the band has none of the %d coefficients: it is narrower than 1/%d",
                           e->row.label, n, n);
}

static int list_filter(struct list *l, const struct fkv_probe_request *r, struct fkv_error *err) {
    struct fkv_edit e = plain_edit(r->kind == FKV_ASK_NOISE ? FKV_PROBE_NOISE : FKV_PROBE_FILTER);
    memcpy(e.bands, r->bands, sizeof e.bands);
    e.band_count = r->band_count;
    e.row.epsilon = r->epsilon;
    e.row.complement = r->kind == FKV_ASK_FILTER && l->wishes->complement;
    int at = snprintf(e.row.label, sizeof e.row.label, "%s",
                      r->kind == FKV_ASK_NOISE ? "noise"
                      : e.row.complement       ? "without"
                                               : "filter");
    for (int i = 0; i < e.band_count && at < FKV_PROBE_LABEL; i++)
        at += snprintf(e.row.label + at, FKV_PROBE_LABEL - (size_t)at, "%s%.6g:%.6g", i ? "," : " ",
                       e.bands[i].low, e.bands[i].high);
    if (r->kind == FKV_ASK_NOISE && at < FKV_PROBE_LABEL)
        snprintf(e.row.label + at, FKV_PROBE_LABEL - (size_t)at, ":%g", r->epsilon);
    return span_bands(&e, l->n, err) ? FKV_FAILED : add_everywhere(l, e, true, err);
}

static int list_without(struct list *l, double low, double high, const char *name,
                        struct fkv_error *err) {
    struct fkv_edit e = plain_edit(FKV_PROBE_FILTER);
    e.bands[0] = (struct fkv_band){low, high};
    e.band_count = 1;
    e.row.complement = 1;
    if (name)
        snprintf(e.row.label, sizeof e.row.label, "without %s", name);
    else
        snprintf(e.row.label, sizeof e.row.label, "without %.6g:%.6g", low, high);
    return span_bands(&e, l->n, err) ? FKV_FAILED : add_everywhere(l, e, true, err);
}

/* DC, then the k bands without it, each taken out in turn. */
static int list_bands(struct list *l, const struct fkv_probe_request *r, struct fkv_error *err) {
    double dc = 1.0 / l->n;
    if (!l->without_dc && list_without(l, 0, dc, "DC", err)) return FKV_FAILED;
    l->without_dc = true;
    for (int32_t i = 0; i < r->parts; i++) {
        double low = (double)i / r->parts, high = (double)(i + 1) / r->parts;
        if (r->kind == FKV_ASK_OCTAVES)
            low = i ? ldexp(1, i - r->parts) : 0, high = ldexp(1, i + 1 - r->parts);
        if (list_without(l, i ? low : dc, high, NULL, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int list_slots(struct list *l, const struct fkv_probe_request *r, struct fkv_error *err) {
    static const char *const part[] = {"truncation", "squeezed", "fewer"};
    int32_t kept = fkv_retained(r->gamma, l->n);
    const char *name = r->kind == FKV_ASK_LOCAL    ? "local"
                       : r->kind == FKV_ASK_FREQKV ? "freqkv"
                                                   : "decompose";
    if (kept < 1)
        return fkv_fail_option(err, "--%s %g: leaves none of the %d slots", name, r->gamma, l->n);
    struct fkv_edit e = plain_edit(r->kind == FKV_ASK_LOCAL ? FKV_PROBE_LOCAL : FKV_PROBE_FREQKV);
    e.row.gamma = r->gamma;
    if (r->kind == FKV_ASK_FREQKV) e.row.truncation = e.row.squeezed = e.row.fewer = 1;
    snprintf(e.row.label, sizeof e.row.label, "%s %.6g", name, r->gamma);
    if (r->kind != FKV_ASK_DECOMPOSE) return add_everywhere(l, e, false, err);
    for (int on = 0; on < 8; on++) {
        struct fkv_edit each = e;
        int32_t *switches[] = {&each.row.truncation, &each.row.squeezed, &each.row.fewer};
        size_t at = strlen(each.row.label);
        for (int i = 0; i < 3; i++) {
            *switches[i] = on >> i & 1;
            if (!*switches[i]) continue;
            bool first = on % (1 << i) == 0;
            at += (size_t)snprintf(each.row.label + at, sizeof each.row.label - at, "%s%s",
                                   first ? ": " : " + ", part[i]);
        }
        if (!on) snprintf(each.row.label + at, sizeof each.row.label - at, ": nothing");
        if (on == 1) {
            struct fkv_edit filter = each;
            filter.row.kind = FKV_PROBE_FILTER;
            filter.bands[0] = (struct fkv_band){0, (double)kept / l->n};
            filter.band_count = 1;
            filter.row.low = 0, filter.row.high = filter.bands[0].high;
            if (add_everywhere(l, filter, false, err)) return FKV_FAILED;
            snprintf(each.row.label + at, sizeof each.row.label - at, ", L slots");
        }
        if (add_everywhere(l, each, false, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_probe_list(const struct fkv_probe_wishes *wishes, int32_t layers, int32_t kv_heads,
                   int32_t n, struct fkv_edit **edits, int32_t *count, struct fkv_error *err) {
    struct list l = {.wishes = wishes, .layers = layers, .kv_heads = kv_heads, .n = n};
    struct fkv_edit nothing = plain_edit(FKV_PROBE_NONE);
    snprintf(nothing.row.label, sizeof nothing.row.label, "nothing");
    int status = add_edit(&l, &nothing, -1, -1, err);
    l.families = 1;
    for (int i = 0; i < wishes->request_count && !status; i++) {
        const struct fkv_probe_request *r = &wishes->requests[i];
        bool bands = r->kind == FKV_ASK_BANDS || r->kind == FKV_ASK_OCTAVES;
        bool filter = r->kind == FKV_ASK_FILTER || r->kind == FKV_ASK_NOISE;
        status = bands    ? list_bands(&l, r, err)
                 : filter ? list_filter(&l, r, err)
                          : list_slots(&l, r, err);
    }
    if (status) free(l.edits);
    *edits = status ? NULL : l.edits;
    *count = status ? 0 : l.count;
    return status;
}
