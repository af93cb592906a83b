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

static int parse_band(const char *text, const char *option, struct fkv_probe_band *band,
                      double *epsilon, struct fkv_error *err) {
    char copy[128], *field[3] = {copy};
    int expected = epsilon ? 3 : 2, found = 1;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *c = copy; *c; c++)
        if (*c == ':') {
            *c = 0;
            if (found < expected) field[found] = c + 1;
            found++;
        }
    if (found != expected || strlen(text) >= sizeof copy)
        return fkv_fail_option(err, "%s: expected %s, found \"%s\"", option,
                               epsilon ? "a:b:eps" : "a:b", text);
    if (fkv_parse_double(field[0], option, 0, 1, &band->low, err) ||
        fkv_parse_double(field[1], option, 0, 1, &band->high, err) ||
        (epsilon && fkv_parse_double(field[2], option, 0, 1e6, epsilon, err)))
        return FKV_FAILED;
    if (band->low >= band->high)
        return fkv_fail_option(err, "%s: expected a band a:b with a < b, found \"%s\"", option,
                               text);
    return FKV_OK;
}

static int add_request(struct fkv_probe_requests *requests, const struct fkv_probe_request *request,
                       const char *option, struct fkv_error *err) {
    if (requests->count == FKV_PROBE_REQUESTS)
        return fkv_fail_option(err, "%s: at most %d changes are asked for at once", option,
                               FKV_PROBE_REQUESTS);
    requests->request[requests->count++] = *request;
    return FKV_OK;
}

/* A list of bands is one filter, but of ratios or of noises each is a change of its own. */
static int parse_item(struct fkv_probe_requests *requests, struct fkv_probe_request *r,
                      const char *option, const char *item, struct fkv_error *err) {
    int64_t parts = 0;
    switch (r->option) {
    case FKV_PROBE_OPTION_FILTER:
        if (r->band_count == FKV_PROBE_BANDS)
            return fkv_fail_option(err, "%s: at most %d bands in one change", option,
                                   FKV_PROBE_BANDS);
        return parse_band(item, option, &r->bands[r->band_count++], NULL, err);
    case FKV_PROBE_OPTION_NOISE:
        r->band_count = 1;
        if (parse_band(item, option, &r->bands[0], &r->epsilon, err)) return FKV_FAILED;
        break;
    case FKV_PROBE_OPTION_BANDS:
    case FKV_PROBE_OPTION_OCTAVES:
        if (fkv_parse_int(item, option, 2, r->option == FKV_PROBE_OPTION_BANDS ? 1024 : 24, &parts,
                          err))
            return FKV_FAILED;
        r->parts = (int32_t)parts;
        break;
    default:
        if (fkv_parse_double(item, option, 0, 1, &r->gamma, err)) return FKV_FAILED;
        break;
    }
    return add_request(requests, r, option, err);
}

int fkv_probe_request(struct fkv_probe_requests *requests, enum fkv_probe_option option,
                      const char *text, struct fkv_error *err) {
    struct fkv_probe_request r = {.option = option, .epsilon = NAN, .gamma = NAN};
    char name[32], *copy = strdup(text), *rest = copy;
    snprintf(name, sizeof name, "--%s", fkv_probe_option_names[option]);
    int status = copy ? FKV_OK : fkv_fail(err, "out of memory");
    for (char *item; !status && (item = strsep(&rest, ","));)
        status = parse_item(requests, &r, name, item, err);
    free(copy);
    if (status || option != FKV_PROBE_OPTION_FILTER) return status;
    return add_request(requests, &r, name, err);
}

int fkv_probe_parse_states(struct fkv_probe_requests *requests, const char *text,
                           struct fkv_error *err) {
    char copy[64], *rest = copy;
    snprintf(copy, sizeof copy, "%s", text);
    requests->state_count = 0;
    for (char *item; (item = strsep(&rest, ","));) {
        int32_t states = 0;
        for (int32_t s = FKV_PROBE_KEY; s <= FKV_PROBE_BOTH; s++)
            if (!strcmp(item, fkv_probe_states_names[s])) states = s;
        for (int i = 0; i < requests->state_count; i++)
            if (requests->states[i] == states) states = 0;
        if (!states || strlen(text) >= sizeof copy)
            return fkv_fail_option(
                err, "--states: expected key, value, both or a list of them, found \"%s\"", text);
        requests->states[requests->state_count++] = states;
    }
    return FKV_OK;
}

/* ---- listing ---- */

struct list {
    const struct fkv_probe_requests *requests;
    int32_t layers, kv_heads, n;
    struct fkv_probe_change *changes; /* [count]; grows */
    int32_t count;
    int32_t families;
    bool has_dc; /* DC is taken out already: bands and octaves both begin with it */
};

static int add_change(struct list *l, const struct fkv_probe_change *change, int32_t layer,
                      int32_t kv_head, struct fkv_error *err) {
    if ((l->count & (l->count - 1)) == 0) { /* full at every power of two */
        struct fkv_probe_change *larger =
            realloc(l->changes, 2 * ((size_t)l->count + 1) * sizeof *larger);
        if (!larger) return fkv_fail(err, "out of memory for %d changes", l->count);
        l->changes = larger;
    }
    struct fkv_probe_change *c = &l->changes[l->count++];
    *c = *change;
    c->family = l->families;
    c->layer = layer;
    c->kv_head = kv_head;
    return FKV_OK;
}

/* A family: the change of all heads, of each layer and of each head, as asked for. */
static int add_family(struct list *l, const struct fkv_probe_change *change,
                      struct fkv_error *err) {
    const struct fkv_probe_requests *r = l->requests;
    if (add_change(l, change, -1, -1, err)) return FKV_FAILED;
    for (int32_t layer = 0; layer < l->layers; layer++) {
        if (r->per_layer && add_change(l, change, layer, -1, err)) return FKV_FAILED;
        for (int32_t h = 0; h < l->kv_heads && r->per_head; h++)
            if (add_change(l, change, layer, h, err)) return FKV_FAILED;
    }
    l->families++;
    return FKV_OK;
}

/* A family of keys and values together. */
static int add_both(struct list *l, struct fkv_probe_change change, struct fkv_error *err) {
    change.states = FKV_PROBE_BOTH;
    return add_family(l, &change, err);
}

/* A family for each of --states, of a change of bands; one without a coefficient is refused. */
static int add_states(struct list *l, struct fkv_probe_change change, struct fkv_error *err) {
    int32_t inside = 0;
    char label[FKV_PROBE_LABEL];
    for (int32_t t = 0; t < l->n; t++) inside += fkv_probe_change_has(&change, t, l->n);
    if (!inside)
        return fkv_fail_option(
            err, "%s: the band has none of the %d coefficients: it is narrower than 1/%d",
            change.label, l->n, l->n);
    snprintf(label, sizeof label, "%s", change.label);
    for (int s = 0; s < l->requests->state_count; s++) {
        change.states = l->requests->states[s];
        snprintf(change.label, sizeof change.label, "%.80s, %s", label,
                 fkv_probe_states_names[change.states]);
        if (add_family(l, &change, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int list_filter(struct list *l, const struct fkv_probe_request *r, struct fkv_error *err) {
    const bool noise = r->option == FKV_PROBE_OPTION_NOISE;
    struct fkv_probe_change c = fkv_probe_change_of(noise ? FKV_PROBE_NOISE : FKV_PROBE_FILTER);
    c.option = r->option;
    memcpy(c.bands, r->bands, (size_t)r->band_count * sizeof *c.bands);
    c.band_count = r->band_count;
    c.epsilon = r->epsilon;
    c.complement = !noise && l->requests->complement;
    int used = snprintf(c.label, sizeof c.label, "%s",
                        c.complement ? "without" : fkv_probe_kind_names[c.kind]);
    for (int i = 0; i < c.band_count && used < FKV_PROBE_LABEL; i++)
        used += snprintf(c.label + used, FKV_PROBE_LABEL - (size_t)used, "%s%.6g:%.6g",
                         i ? "," : " ", c.bands[i].low, c.bands[i].high);
    if (noise && used < FKV_PROBE_LABEL)
        snprintf(c.label + used, FKV_PROBE_LABEL - (size_t)used, ":%g", r->epsilon);
    return add_states(l, c, err);
}

static int list_without(struct list *l, enum fkv_probe_option option, double low, double high,
                        struct fkv_error *err) {
    struct fkv_probe_change c = fkv_probe_change_of(FKV_PROBE_FILTER);
    c.option = (int32_t)option;
    c.bands[0] = (struct fkv_probe_band){low, high};
    c.band_count = 1;
    c.complement = 1;
    if (fkv_probe_takes_dc(&c))
        snprintf(c.label, sizeof c.label, "without DC");
    else
        snprintf(c.label, sizeof c.label, "without %.6g:%.6g", low, high);
    return add_states(l, c, err);
}

/* DC, then the k bands without it, each taken out in turn. */
static int list_bands(struct list *l, const struct fkv_probe_request *r, struct fkv_error *err) {
    double dc = 1.0 / l->n;
    if (!l->has_dc && list_without(l, r->option, 0, dc, err)) return FKV_FAILED;
    l->has_dc = true;
    for (int32_t i = 0; i < r->parts; i++) {
        double low = (double)i / r->parts, high = (double)(i + 1) / r->parts;
        if (r->option == FKV_PROBE_OPTION_OCTAVES)
            low = i ? ldexp(1, i - r->parts) : 0, high = ldexp(1, i + 1 - r->parts);
        if (list_without(l, r->option, i ? low : dc, high, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* All combinations of FreqKV's parts; of truncation alone, the filter before the L slots. */
static int list_parts(struct list *l, const struct fkv_probe_change *freqkv, int32_t kept,
                      struct fkv_error *err) {
    char parts[FKV_PROBE_PARTS];
    for (int on = 0; on < 8; on++) {
        struct fkv_probe_change c = *freqkv;
        c.truncation = on & 1, c.squeezed = on >> 1 & 1, c.fewer = on >> 2;
        if (on == 1) {
            struct fkv_probe_change filter = c;
            filter.kind = FKV_PROBE_FILTER;
            filter.bands[0] = (struct fkv_probe_band){0, (double)kept / l->n};
            filter.band_count = 1;
            snprintf(filter.label, sizeof filter.label, "%.40s: %s", freqkv->label,
                     fkv_probe_parts(&filter, parts));
            if (add_both(l, filter, err)) return FKV_FAILED;
        }
        snprintf(c.label, sizeof c.label, "%.40s: %s", freqkv->label, fkv_probe_parts(&c, parts));
        if (add_both(l, c, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int list_slots(struct list *l, const struct fkv_probe_request *r, struct fkv_error *err) {
    const bool local = r->option == FKV_PROBE_OPTION_LOCAL;
    const char *name = fkv_probe_option_names[r->option];
    int32_t kept = fkv_retained(r->gamma, l->n);
    if (kept < 1)
        return fkv_fail_option(err, "--%s %g: leaves none of the %d slots", name, r->gamma, l->n);
    struct fkv_probe_change c = fkv_probe_change_of(local ? FKV_PROBE_LOCAL : FKV_PROBE_FREQKV);
    c.option = r->option;
    c.gamma = r->gamma;
    snprintf(c.label, sizeof c.label, "%s %.6g", name, r->gamma);
    if (r->option == FKV_PROBE_OPTION_DECOMPOSE) return list_parts(l, &c, kept, err);
    if (!local) c.truncation = c.squeezed = c.fewer = 1;
    return add_both(l, c, err);
}

int fkv_probe_list_changes(const struct fkv_probe_requests *requests, int32_t layers,
                           int32_t kv_heads, int32_t n, struct fkv_probe_change **changes,
                           int32_t *count, struct fkv_error *err) {
    struct list l = {.requests = requests, .layers = layers, .kv_heads = kv_heads, .n = n};
    struct fkv_probe_change nothing = fkv_probe_change_of(FKV_PROBE_NONE);
    snprintf(nothing.label, sizeof nothing.label, "nothing");
    int status = add_change(&l, &nothing, -1, -1, err);
    l.families = 1;
    for (int i = 0; i < requests->count && !status; i++) {
        const struct fkv_probe_request *r = &requests->request[i];
        switch (r->option) {
        case FKV_PROBE_OPTION_BANDS:
        case FKV_PROBE_OPTION_OCTAVES: status = list_bands(&l, r, err); break;
        case FKV_PROBE_OPTION_FILTER:
        case FKV_PROBE_OPTION_NOISE: status = list_filter(&l, r, err); break;
        default: status = list_slots(&l, r, err);
        }
    }
    if (status) free(l.changes);
    *changes = status ? NULL : l.changes;
    *count = status ? 0 : l.count;
    return status;
}
