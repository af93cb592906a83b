/* Owns the JSON that the selector draws from: spectrum.csv's bands, which have standard errors.
 * Four digits are more than a screen can show. */
#include "analyze/report/sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/words.h"
#include "kernels/base/json.h"

enum { STATE, LAYER, HEAD, T_LOW, T_HIGH, FREQUENCY, POWER, POWER_SE, POWER_NULL, COLUMNS };
static const char *const column_names[COLUMNS] = {"state", "layer",    "head",
                                                  "t_low", "t_high",   "cycles_per_token",
                                                  "power", "power_se", "power_null"};

/* spectrum.csv, read row by row. */
struct bands {
    const char *path; /* for messages */
    struct fkv_table csv;
    int column[COLUMNS]; /* index in the file of each of column_names */
    int64_t row;         /* the next to be read */
};

static double cell(const struct bands *b, int64_t row, int column) {
    return fkv_table_number(&b->csv, row, b->column[column]);
}

/* Appends the layer or head that the current row is about. */
static int add_number(const struct bands *b, int column, json_t *list, struct fkv_error *err) {
    double number = cell(b, b->row, column);
    if (!(fabs(number) < 0x1p31 && number == floor(number)))
        return fkv_fail(err, "%s: row %lld: %s: expected an integer, found \"%.20s\"", b->path,
                        (long long)b->row + 1, column_names[column],
                        fkv_table_text(&b->csv, b->row, b->column[column]));
    json_array_append_new(list, json_integer((json_int_t)number));
    return FKV_OK;
}

/* Whether row + 1 is about the same as `row` in the columns from STATE to `column`. */
static bool next_is_same(const struct bands *b, int64_t row, int column) {
    if (row + 1 >= b->csv.rows) return false;
    for (int i = STATE; i <= column; i++)
        if (strcmp(fkv_table_text(&b->csv, row, b->column[i]),
                   fkv_table_text(&b->csv, row + 1, b->column[i])))
            return false;
    return true;
}

/* Whether any band (DC apart) has a number in this column. */
static bool has_numbers(const struct bands *b, int column) {
    for (int64_t row = 0; row < b->csv.rows; row++)
        if (isfinite(cell(b, row, column)) && cell(b, row, T_LOW) > 0) return true;
    return false;
}

/* Reads one head's rows: DC first, then its bands. The first head of a state fills `frequency`; the
 * others must have as many bands. into: lists of power, standard error and null, the last two NULL
 * where the file has none; each gets a list [bands]. */
static int read_head(struct bands *b, json_t *frequency, json_t *dc, json_t *const into[3],
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
    more = next_is_same(b, b->row, HEAD);
    for (b->row++; more; b->row++) {
        for (int i = 0; i < 3; i++)
            if (into[i])
                json_array_append_new(values[i], fkv_json_number(cell(b, b->row, POWER + i)));
        double f = cell(b, b->row, FREQUENCY);
        if (!(f > 0))
            return fkv_fail(err, "%s: row %lld: cycles_per_token: expected a number above 0",
                            b->path, (long long)b->row + 1);
        if (first) json_array_append_new(frequency, json_real(f));
        more = next_is_same(b, b->row, HEAD);
    }
    if (b->row - start - 1 != (int64_t)json_array_size(frequency) || b->row - start < 2)
        return fkv_fail(err, "%s: row %lld: expected %zu bands of a head, found %lld", b->path,
                        (long long)start + 1, json_array_size(frequency),
                        (long long)(b->row - start - 1));
    return FKV_OK;
}

/* Reads one layer's heads. The first layer of a state fills `head` with their numbers; the others
 * must have as many heads. */
static int read_layer(struct bands *b, json_t *frequency, json_t *head, json_t *dc,
                      json_t *const into[3], struct fkv_error *err) {
    bool first = !json_array_size(head), more = true;
    json_t *layer_dc = json_array(), *rows[3] = {NULL, NULL, NULL};
    json_array_append_new(dc, layer_dc);
    for (int i = 0; i < 3; i++)
        if (into[i]) json_array_append_new(into[i], rows[i] = json_array());
    while (more) {
        if (first && add_number(b, HEAD, head, err)) return FKV_FAILED;
        if (read_head(b, frequency, layer_dc, rows, err)) return FKV_FAILED;
        more = next_is_same(b, b->row - 1, LAYER);
    }
    if (json_array_size(layer_dc) == json_array_size(head)) return FKV_OK;
    return fkv_fail(err, "%s: row %lld: expected %zu heads in every layer, found %zu", b->path,
                    (long long)b->row, json_array_size(head), json_array_size(layer_dc));
}

/* x [layers, heads] as a list of lists. */
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

/* FKV_STATES where there is no state of this name. */
static int state_of(const char *name) {
    int state = 0;
    while (state < FKV_STATES && strcmp(name, fkv_state_names[state])) state++;
    return state;
}

/* Appends the rows of one state to `spectra`, as an object. */
static int read_state(const struct fkv_report *r, struct bands *b, json_t *spectra,
                      struct fkv_error *err) {
    const char *name = fkv_table_text(&b->csv, b->row, b->column[STATE]);
    int state = state_of(name);
    if (state == FKV_STATES)
        return fkv_fail(
            err, "%s: row %lld: state: expected key, value, key_rotated or query, found \"%.40s\"",
            b->path, (long long)b->row + 1, name);
    json_t *object = json_object(), *layer = json_array(), *head = json_array(),
           *frequency = json_array(), *dc = json_array();
    json_t *into[3] = {json_array(), has_numbers(b, POWER_SE) ? json_array() : NULL,
                       has_numbers(b, POWER_NULL) ? json_array() : NULL};
    json_array_append_new(spectra, object);
    json_object_set_new(object, "state", json_string(fkv_state_names[state]));
    json_object_set_new(object, "label", json_string(fkv_plot_state_words[state]));
    json_object_set_new(object, "unit", json_string(fkv_plot_head_word((enum fkv_state)state)));
    json_object_set_new(object, "layer", layer);
    json_object_set_new(object, "head", head);
    json_object_set_new(object, "frequency", frequency);
    json_object_set_new(object, "dc", dc);
    json_object_set_new(object, "power", into[0]);
    if (into[1]) json_object_set_new(object, "se", into[1]);
    if (into[2]) json_object_set_new(object, "null", into[2]);
    for (bool more = true; more; more = next_is_same(b, b->row - 1, STATE)) {
        if (add_number(b, LAYER, layer, err) || read_layer(b, frequency, head, dc, into, err))
            return FKV_FAILED;
    }
    for (int i = 0; i < r->facts.states; i++) {
        const struct fkv_report_shares *s = &r->facts.shares[i];
        if ((int)s->state != state || s->layers != (int32_t)json_array_size(layer) ||
            s->heads != (int32_t)json_array_size(head))
            continue;
        json_object_set_new(object, "half", grid(s->half, s));
        if (s->half_null) json_object_set_new(object, "half_null", grid(s->half_null, s));
    }
    return FKV_OK;
}

static int read_all(const struct fkv_report *r, struct bands *b, json_t *spectra,
                    struct fkv_error *err) {
    for (int i = 0; i < COLUMNS; i++)
        if ((b->column[i] = fkv_table_column(&b->csv, column_names[i])) < 0)
            return fkv_fail(err, "%s: expected a column %s, found none", b->path, column_names[i]);
    while (b->row < b->csv.rows)
        if (read_state(r, b, spectra, err)) return FKV_FAILED;
    return b->row ? FKV_OK : fkv_fail(err, "%s: expected a row per band, found none", b->path);
}

int fkv_report_spectra_json(const struct fkv_report *r, char **text, struct fkv_error *err) {
    char path[4096];
    struct bands b = {.path = path};
    *text = NULL;
    if (!fkv_report_has(r, "spectrum.csv")) return FKV_OK;
    if (fkv_report_path(r, "spectrum.csv", path, err) || fkv_table_read(path, &b.csv, err))
        return FKV_FAILED;
    json_t *spectra = json_array();
    json_t *model = json_string(r->facts.model); /* NULL where it is not UTF-8 */
    json_t *object =
        json_pack("{s:s, s:i, s:s, s:o, s:s, s:o, s:o}", "format", "freqkv-report",
                  "format_version", 1, "version", FKV_VERSION, "model", model ? model : json_null(),
                  "capture_sha256", r->facts.capture_sha256, "segment_length",
                  fkv_json_number(r->facts.segment_length), "spectra", spectra);
    int status = object ? read_all(r, &b, spectra, err)
                        : fkv_fail(err, "%s/results.h5: capture_sha256: expected UTF-8", r->folder);
    if (!status &&
        !(*text = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(4))))
        status = fkv_fail(err, "%s: out of memory", path);
    json_decref(object);
    fkv_table_free(&b.csv);
    return status;
}
