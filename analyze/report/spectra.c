/* Owns the section of spectra: the shares of energy as a table, the selector, and the JSON that the
 * selector draws from: spectrum.csv's bands, where the standard errors are. Four digits are more
 * than a screen can show. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/report/parts.h"
#include "kernels/base/json.h"

/* ---- data ---- */

enum { STATE, LAYER, HEAD, T_LOW, T_HIGH, FREQUENCY, POWER, POWER_SE, POWER_NULL, COLUMNS };
static const char *const column_names[COLUMNS] = {"state", "layer",    "head",
                                                  "t_low", "t_high",   "cycles_per_token",
                                                  "power", "power_se", "power_null"};

struct bands { /* spectrum.csv as it is read, row by row */
    const char *path;
    struct fkv_table csv;
    int column[COLUMNS];
    int64_t row;
};

static double cell(const struct bands *b, int64_t row, int column) {
    return fkv_table_number(&b->csv, row, b->column[column]);
}

/* Which layer or head a row is about. */
static int number_at(const struct bands *b, int column, json_t *list, struct fkv_error *err) {
    double number = cell(b, b->row, column);
    if (!(fabs(number) < 0x1p31 && number == floor(number)))
        return fkv_fail(err, "%s: row %lld: %s: expected an integer, found \"%.20s\"", b->path,
                        (long long)b->row + 1, column_names[column],
                        fkv_table_text(&b->csv, b->row, b->column[column]));
    json_array_append_new(list, json_integer((json_int_t)number));
    return FKV_OK;
}

/* Does row + 1 go on with what `row` is about, up to and including `column`? */
static bool goes_on(const struct bands *b, int64_t row, int column) {
    if (row + 1 >= b->csv.rows) return false;
    for (int i = STATE; i <= column; i++)
        if (strcmp(fkv_table_text(&b->csv, row, b->column[i]),
                   fkv_table_text(&b->csv, row + 1, b->column[i])))
            return false;
    return true;
}

static bool any(const struct bands *b, int column) {
    for (int64_t row = 0; row < b->csv.rows; row++)
        if (isfinite(cell(b, row, column)) && cell(b, row, T_LOW) > 0) return true;
    return false;
}

/* One head's rows: DC first, then its bands, of which there must be as many as `frequency` has (the
 * first head fills it). */
static int take_head(struct bands *b, json_t *frequency, json_t *dc, json_t *const into[3],
                     struct fkv_error *err) {
    bool first = !json_array_size(frequency), more = true;
    json_t *values[3];
    int64_t start = b->row;
    if (cell(b, b->row, T_LOW) != 0)
        return fkv_fail(err, "%s: row %lld: expected t_low 0 to open a head, found \"%.20s\"",
                        b->path, (long long)start + 1,
                        fkv_table_text(&b->csv, start, b->column[T_LOW]));
    json_array_append_new(dc, fkv_json_number(cell(b, b->row, POWER)));
    for (int i = 0; i < 3; i++)
        if (into[i]) json_array_append_new(into[i], values[i] = json_array());
    more = goes_on(b, b->row, HEAD);
    for (b->row++; more; b->row++) {
        for (int i = 0; i < 3; i++)
            if (into[i])
                json_array_append_new(values[i], fkv_json_number(cell(b, b->row, POWER + i)));
        double f = cell(b, b->row, FREQUENCY);
        if (!(f > 0))
            return fkv_fail(err, "%s: row %lld: cycles_per_token: expected a number above 0",
                            b->path, (long long)b->row + 1);
        if (first) json_array_append_new(frequency, json_real(f));
        more = goes_on(b, b->row, HEAD);
    }
    if (b->row - start - 1 != (int64_t)json_array_size(frequency) || b->row - start < 2)
        return fkv_fail(err, "%s: row %lld: expected %zu bands of a head, found %lld", b->path,
                        (long long)start + 1, json_array_size(frequency),
                        (long long)(b->row - start - 1));
    return FKV_OK;
}

/* One layer's heads; their numbers into `head` when it is the first, else as many as there are
 * there. */
static int take_layer(struct bands *b, json_t *frequency, json_t *head, json_t *dc,
                      json_t *const into[3], struct fkv_error *err) {
    bool first = !json_array_size(head), more = true;
    json_t *layer_dc = json_array(), *rows[3] = {NULL, NULL, NULL};
    json_array_append_new(dc, layer_dc);
    for (int i = 0; i < 3; i++)
        if (into[i]) json_array_append_new(into[i], rows[i] = json_array());
    while (more) {
        if (first && number_at(b, HEAD, head, err)) return FKV_FAILED;
        if (take_head(b, frequency, layer_dc, rows, err)) return FKV_FAILED;
        more = goes_on(b, b->row - 1, LAYER);
    }
    if (json_array_size(layer_dc) == json_array_size(head)) return FKV_OK;
    return fkv_fail(err, "%s: row %lld: expected %zu heads in every layer, found %zu", b->path,
                    (long long)b->row, json_array_size(head), json_array_size(layer_dc));
}

static json_t *grid(const double *x, const struct fkv_report_shares *s) {
    json_t *rows = json_array();
    for (int32_t l = 0; l < s->layers; l++) {
        json_t *row = json_array();
        for (int32_t h = 0; h < s->heads; h++)
            json_array_append_new(row, fkv_json_number(x[l * s->heads + h]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static int state_of(const char *name) {
    int state = 0;
    while (state < FKV_STATES && strcmp(name, fkv_state_names[state])) state++;
    return state;
}

/* The rows of one state as an object, into `spectra`. */
static int take_state(struct fkv_report *r, struct bands *b, json_t *spectra,
                      struct fkv_error *err) {
    const char *name = fkv_table_text(&b->csv, b->row, b->column[STATE]);
    int state = state_of(name);
    if (state == FKV_STATES)
        return fkv_fail(
            err, "%s: row %lld: state: expected key, value, key_rotated or query, found \"%.40s\"",
            b->path, (long long)b->row + 1, name);
    json_t *object = json_object(), *layer = json_array(), *head = json_array(),
           *frequency = json_array(), *dc = json_array();
    json_t *into[3] = {json_array(), any(b, POWER_SE) ? json_array() : NULL,
                       any(b, POWER_NULL) ? json_array() : NULL};
    json_array_append_new(spectra, object);
    json_object_set_new(object, "state", json_string(fkv_state_names[state]));
    json_object_set_new(object, "label", json_string(fkv_report_state[state]));
    json_object_set_new(object, "unit", json_string(state == FKV_STATE_QUERY ? "head" : "KV head"));
    json_object_set_new(object, "layer", layer);
    json_object_set_new(object, "head", head);
    json_object_set_new(object, "frequency", frequency);
    json_object_set_new(object, "dc", dc);
    json_object_set_new(object, "power", into[0]);
    if (into[1]) json_object_set_new(object, "se", into[1]);
    if (into[2]) json_object_set_new(object, "null", into[2]);
    for (bool more = true; more; more = goes_on(b, b->row - 1, STATE)) {
        if (number_at(b, LAYER, layer, err) || take_layer(b, frequency, head, dc, into, err))
            return FKV_FAILED;
    }
    for (int i = 0; i < r->states; i++) {
        const struct fkv_report_shares *s = &r->shares[i];
        if ((int)s->state != state || s->layers != (int32_t)json_array_size(layer) ||
            s->heads != (int32_t)json_array_size(head))
            continue;
        json_object_set_new(object, "half", grid(s->half, s));
        if (s->half_null) json_object_set_new(object, "half_null", grid(s->half_null, s));
    }
    return FKV_OK;
}

static int take_all(struct fkv_report *r, struct bands *b, json_t *spectra, struct fkv_error *err) {
    for (int i = 0; i < COLUMNS; i++)
        if ((b->column[i] = fkv_table_column(&b->csv, column_names[i])) < 0)
            return fkv_fail(err, "%s: expected a column %s, found none", b->path, column_names[i]);
    while (b->row < b->csv.rows)
        if (take_state(r, b, spectra, err)) return FKV_FAILED;
    return b->row ? FKV_OK : fkv_fail(err, "%s: expected a row per band, found none", b->path);
}

int fkv_report_data(struct fkv_report *r, char **text, struct fkv_error *err) {
    char path[4096];
    struct bands b = {.path = path};
    *text = NULL;
    if (!fkv_report_has(r, "spectrum.csv")) return FKV_OK;
    if (fkv_report_path(r, "spectrum.csv", path, err) || fkv_table_read(path, &b.csv, err))
        return FKV_FAILED;
    json_t *spectra = json_array();
    json_t *model = json_string(r->model); /* NULL where it is not UTF-8 */
    json_t *object =
        json_pack("{s:s, s:i, s:s, s:o, s:s, s:o, s:o}", "format", "freqkv-report",
                  "format_version", 1, "version", FKV_VERSION, "model", model ? model : json_null(),
                  "capture_sha256", r->capture_sha256, "segment_length",
                  fkv_json_number(r->segment_length), "spectra", spectra);
    int status = object ? take_all(r, &b, spectra, err)
                        : fkv_fail(err, "%s/results.h5: capture_sha256: expected UTF-8", r->folder);
    if (!status &&
        !(*text = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(4))))
        status = fkv_fail(err, "%s: out of memory", path);
    json_decref(object);
    fkv_table_free(&b.csv);
    return status;
}

/* ---- the section ---- */

static int share_row(FILE *out, const struct fkv_report_shares *s, struct fkv_error *err) {
    const double *columns[] = {s->dc, s->half_dc, s->half, s->half_null};
    int64_t heads = (int64_t)s->layers * s->heads, above = 0;
    fprintf(out, "<tr><th scope='row'>%s</th><td>%lld</td>", fkv_report_state[s->state],
            (long long)heads);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        struct fkv_spread spread = {NAN, NAN, NAN, NAN, 0};
        if (columns[i] && fkv_spread_of(columns[i], heads, &spread, err)) return FKV_FAILED;
        fputs("<td>", out);
        fkv_html_percent(out, spread.median);
        if (i == 2 && spread.count > 1) {
            fputs("</td><td>", out);
            fkv_html_percent(out, spread.least);
            fputs(" to ", out);
            fkv_html_percent(out, spread.largest);
        } else if (i == 2) {
            fputs("</td><td>\u2013", out);
        }
        fputs("</td>", out);
    }
    for (int64_t i = 0; s->half_null && i < heads; i++) above += s->half[i] > s->half_null[i];
    if (s->half_null)
        fprintf(out, "<td>%lld of %lld</td></tr>\n", (long long)above, (long long)heads);
    else
        fputs("<td>\u2013</td></tr>\n", out);
    return FKV_OK;
}

static int share_table(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    fkv_html_table(out, r,
                   "Where the energy lies. Medians over heads; range: least to largest head. Low "
                   "half: the floor(n/2) lowest "
                   "frequencies, what \u03b3 = 0.5 keeps. Permuted: the same segments with their "
                   "tokens in random order.");
    fputs("<thead><tr><th scope='col' class='text' rowspan='2'>state</th><th scope='col' "
          "rowspan='2'>heads</th><th scope='colgroup' colspan='2'>of all energy"
          "</th><th scope='colgroup' colspan='4'>of the energy without DC, in the low "
          "half</th></tr>\n<tr><th scope='col'>DC</th>"
          "<th scope='col'>low half</th><th scope='col'>median</th><th scope='col'>range</th><th "
          "scope='col'>permuted</th>"
          "<th scope='col'>above it</th></tr></thead>\n<tbody>\n",
          out);
    for (int i = 0; i < r->states; i++)
        if (share_row(out, &r->shares[i], err)) return FKV_FAILED;
    fkv_html_table_end(out);
    return FKV_OK;
}

/* What the selector says of a head, per layer: all that it can say without moving. */
static int layer_rows(FILE *out, const struct fkv_report_shares *s, struct fkv_error *err) {
    for (int32_t l = 0; l < s->layers; l++) {
        const double *columns[] = {s->dc, s->half, s->half_null};
        fprintf(out, "<tr><th scope='row'>%d</th>", s->layer_index[l]);
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
            struct fkv_spread spread = {NAN, NAN, NAN, NAN, 0};
            if (columns[i] &&
                fkv_spread_of(columns[i] + (int64_t)l * s->heads, s->heads, &spread, err))
                return FKV_FAILED;
            fputs("<td>", out);
            fkv_html_percent(out, spread.mean);
            if (i == 1) {
                fputs("</td><td>", out);
                fkv_html_percent(out, spread.least);
                fputs(" to ", out);
                fkv_html_percent(out, spread.largest);
            }
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    return FKV_OK;
}

/* In the selector's place: numbers of every layer; the figures that follow show every head. Not
 * numbered, since a page with script does not have them. */
static int without_script(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    fputs("<noscript>\n<p>The selector needs JavaScript. In its place: the layers, as means over "
          "their heads. The figures that follow show every head, and spectrum.csv has the "
          "numbers.</p>\n",
          out);
    for (int i = 0; i < r->states; i++) {
        const struct fkv_report_shares *s = &r->shares[i];
        const char *name = fkv_state_names[s->state];
        fprintf(out,
                "<p class='caption' id='layers-%s'>Layers of the %s: DC in all energy, and what "
                "the lower half of the frequencies holds of the energy without DC.</p>\n"
                "<div class='scroll' tabindex='0' role='region' "
                "aria-labelledby='layers-%s'>\n<table aria-labelledby='layers-%s'>\n"
                "<thead><tr><th scope='col'>layer</th><th scope='col'>DC</th><th scope='col'>lower "
                "half</th><th scope='col'>its range over heads</th><th "
                "scope='col'>permuted</th></tr></thead>\n<tbody>\n",
                name, fkv_report_state[s->state], name, name);
        if (layer_rows(out, s, err)) return FKV_FAILED;
        fkv_html_table_end(out);
    }
    fputs("</noscript>\n", out);
    return FKV_OK;
}

static void selector(FILE *out) {
    fputs("<figure id='explorer' hidden>\n<div id='controls' role='group' aria-label='What the "
          "figure shows'>\n"
          "<label for='state'>State <select id='state'></select></label>\n"
          "<label for='layer'><span>Layer <output id='layer-number' for='layer'></output></span> "
          "<input type='range' id='layer' min='0' value='0' step='1'></label>\n"
          "<label for='head'><span><span id='head-unit'>KV head</span> <output id='head-number' "
          "for='head'></output></span> <input type='range' id='head' min='0' value='0' "
          "step='1'></label>\n</div>\n"
          "<svg id='plot' viewBox='0 0 760 430' role='img' aria-label='Power spectrum of the "
          "chosen state, layer and head' aria-describedby='readout'></svg>\n"
          "<figcaption><p id='readout' aria-live='polite'></p><p class='note'>Means over "
          "log-spaced bands of frequency; both axes logarithmic, the same for all "
          "heads of a layer. DC (t = 0) is left out of the picture. Arrow keys move the "
          "sliders.</p></figcaption>\n</figure>\n",
          out);
}

int fkv_report_spectra(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    if (r->states && share_table(r, out, err)) return FKV_FAILED;
    if (!fkv_report_has(r, "spectrum.csv")) return FKV_OK;
    fputs("<h3>One head at a time</h3>\n", out);
    if (without_script(r, out, err)) return FKV_FAILED;
    selector(out);
    return FKV_OK;
}
