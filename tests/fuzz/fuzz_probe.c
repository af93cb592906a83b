/* The reader of PROBE.h5 over files of any structure (hdf_file.h): refused in words, or a probe
 * whose indices lie where they are used. */
#include "capture/store/probe_damage.h"
#include "tests/fuzz/hdf_file.h"

enum { LAYERS = 2, HEADS = 2, PREFIX = 9, SCORE = 6 };
static const hsize_t changes[] = {5}, labels[] = {5, FKV_PROBE_LABEL},
                     bands[] = {5, FKV_PROBE_BANDS, 2}, tokens = PREFIX + SCORE + 1, score = SCORE,
                     table[] = {5, SCORE}, lost[] = {5, 2};

/* What a file's changes are; the empty input's are the first. */
static const struct lot {
    int kind, kinds; /* the first one, and how many take turns */
    int band_count, counts;
    bool gamma;
    int parts;  /* -1, or 0 where the kinds have parts */
    bool alike; /* all are of one family, and differ in layer and head only */
} lots[] = {{FKV_PROBE_NONE, 2, 0, 2, false, -1, false},
            {FKV_PROBE_FREQKV, 2, 0, 1, true, 0, false},
            {FKV_PROBE_FILTER, 1, FKV_PROBE_BANDS, 1, false, -1, true},
            {FKV_PROBE_NOISE, 1, FKV_PROBE_BANDS, 1, false, -1, false}};

/* bands [5, FKV_PROBE_BANDS, 2]: 0 to 1, and NaN beyond band_count; one number may be wrong. */
static void put_bands(struct choices *c, hid_t group, const struct lot *lot) {
    double values[5 * 2 * FKV_PROBE_BANDS];
    unsigned which = 0;
    for (int i = 0; i < 5 * FKV_PROBE_BANDS; i++) {
        const int count = lot->band_count + i / FKV_PROBE_BANDS % lot->counts;
        const bool inside = i % FKV_PROBE_BANDS < count;
        values[2 * i] = inside ? 0 : NAN, values[2 * i + 1] = inside ? 1 : NAN;
    }
    if (wrong(c, &which)) values[which] = which & 1 ? 1e300 : which & 2 ? NAN : 0.5;
    put_dataset(c, group, "bands", H5T_IEEE_F64LE, 3, bands, 0, 2);
    hid_t dataset = H5Dopen2(group, "bands", H5P_DEFAULT);
    if (dataset < 0) return; /* left out */
    hid_t space = H5Dget_space(dataset);
    if (H5Sget_simple_extent_npoints(space) == 5 * 2 * FKV_PROBE_BANDS)
        H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Sclose(space);
    H5Dclose(dataset);
}

static void put_changes(struct choices *c, hid_t file) {
    const struct lot *lot = &lots[choose(c) % (sizeof lots / sizeof *lots)];
    const bool alike = lot->alike, noise = lot->kind == FKV_PROBE_NOISE;
    const int parts = alike ? 1 : 2;
    const struct {
        const char *name;
        hid_t type;
        double first;
        int cycle;
    } columns[] = {{"kind", H5T_STD_I32LE, lot->kind, lot->kinds},
                   {"option", H5T_STD_I32LE, FKV_PROBE_OPTION_BANDS, parts},
                   {"family", H5T_STD_I32LE, 0, alike ? 1 : 5},
                   {"layer", H5T_STD_I32LE, 0, LAYERS},
                   {"kv_head", H5T_STD_I32LE, -1, HEADS + 1},
                   {"states", H5T_STD_I32LE, 0, alike ? 1 : 4},
                   {"complement", H5T_STD_I32LE, 0, parts},
                   {"band_count", H5T_STD_I32LE, lot->band_count, lot->counts},
                   {"epsilon", H5T_IEEE_F64LE, noise ? 0 : NAN, noise ? 3 : 1},
                   {"gamma", H5T_IEEE_F64LE, lot->gamma ? 0 : NAN, lot->gamma ? 2 : 1},
                   {"truncation", H5T_STD_I32LE, lot->parts, parts},
                   {"squeezed", H5T_STD_I32LE, lot->parts, parts},
                   {"fewer", H5T_STD_I32LE, lot->parts, parts}};
    hid_t group = put_group(file, "changes");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        put_dataset(c, group, columns[i].name, columns[i].type, 1, changes, columns[i].first,
                    columns[i].cycle);
    put_bands(c, group, lot);
    put_dataset(c, group, "label", H5T_STD_U8LE, 2, labels, 32, 90);
    H5Gclose(group);
}

static void put_window(struct choices *c, hid_t documents, int number) {
    char name[16];
    const struct attribute attributes[] = {
        {"name", TEXT, 0, 0, "a text"},
        {"text_sha256", TEXT, 0, 0,
         "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
        {"document", NUMBER, number, 0, NULL},
        {"offset", NUMBER, 0, 0, NULL}};
    snprintf(name, sizeof name, "%06d", number);
    hid_t group = put_group(documents, name);
    put_attributes(c, group, attributes, sizeof attributes / sizeof *attributes);
    put_dataset(c, group, "tokens", H5T_STD_I32LE, 1, &tokens, 0, 100);
    put_dataset(c, group, "untouched_nll", H5T_IEEE_F32LE, 1, &score, 0, 100);
    put_dataset(c, group, "repeat_nll", H5T_IEEE_F32LE, 1, &score, 0, 100);
    put_dataset(c, group, "repeat_kl", H5T_IEEE_F32LE, 1, &score, 0, 100);
    put_dataset(c, group, "nll", H5T_IEEE_F32LE, 2, table, 0, 100);
    put_dataset(c, group, "kl", H5T_IEEE_F32LE, 2, table, 0, 100);
    put_dataset(c, group, "lost_energy", H5T_IEEE_F64LE, 2, lost, 0, 100);
    if (choose(c) & 1) put_dataset(c, group, "token_class", H5T_STD_U8LE, 1, &tokens, 0, 128);
    H5Gclose(group);
}

static void write_file(struct choices *c) {
    static const struct attribute attributes[] = {
        {"format", TEXT, 0, 0, "freqkv-probe"},
        {"format_version", NUMBER, 2, 0, NULL},
        {"version", TEXT, 0, 0, "0"},
        {"model_name", TEXT, 0, 0, "a model"},
        {"model_sha256", TEXT, 0, 0,
         "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"},
        {"states", TEXT, 0, 0, "key,value"},
        {"backend", TEXT, 0, 0, "cpu"},
        {"compute", TEXT, 0, 0, "f32"},
        {"config_sha256", TEXT, 0, 0, ""},
        {"tokenizer_sha256", TEXT, 0, 0, ""},
        {"cache_dtype", TEXT, 0, 0, "f32"},
        {"command", TEXT, 0, 0, "freqkv-replay probe"},
        {"n_layers", NUMBER, LAYERS, 0, NULL},
        {"n_kv_heads", NUMBER, HEADS, 0, NULL},
        {"head_dim", NUMBER, 4, 0, NULL},
        {"trained_context", NUMBER, 64, 0, NULL},
        {"prefix", NUMBER, PREFIX, 0, NULL},
        {"score", NUMBER, SCORE, 0, NULL},
        {"sinks", NUMBER, 4, 0, NULL},
        {"seed", NUMBER, 1, 0, NULL},
        {"noise_floor_nll", NUMBER, 0.25, 0, NULL},
        {"noise_floor_kl", NUMBER, 0.25, 0, NULL}};
    hid_t file = create_file(c);
    put_attributes(c, file, attributes, sizeof attributes / sizeof *attributes);
    put_changes(c, file);
    hid_t documents = put_group(file, "documents");
    for (int i = (int)(choose(c) & 3); i >= 0; i--) put_window(c, documents, i);
    H5Fclose(file);
}

static void check_window(const struct fkv_probe *p, const struct fkv_probe_window *w) {
    int64_t sum = 0;
    if (w->document < 0 || w->offset < 0 || strlen(w->name) >= sizeof w->name ||
        strlen(w->text_sha256) > 64)
        abort();
    for (int32_t i = 0; i < p->prefix + p->score + 1; i++)
        sum += (int64_t)w->tokens[i] + (w->token_class ? w->token_class[i] : 0);
    for (int32_t i = 0; i < p->score; i++)
        sum += isnan(w->untouched_nll[i] + w->repeat_nll[i] + w->repeat_kl[i]);
    for (int64_t i = 0; i < (int64_t)p->change_count * p->score; i++)
        sum += isnan(w->nll[i] + w->kl[i]);
    for (int64_t i = 0; i < 2 * (int64_t)p->change_count; i++) sum += isnan(w->lost_energy[i]);
    volatile int64_t used = sum; /* all of it was read, under the sanitizers' eyes */
    (void)used;
}

static void check_change(const struct fkv_probe *p, int32_t number) {
    const struct fkv_probe_change *c = &p->changes[number];
    const bool with_bands = c->kind == FKV_PROBE_FILTER || c->kind == FKV_PROBE_NOISE;
    const int32_t before = number ? p->changes[number - 1].family : 0;
    char parts[FKV_PROBE_PARTS];
    if (c->kind < 0 || c->kind >= FKV_PROBE_KINDS || c->option < 0 ||
        c->option >= FKV_PROBE_OPTIONS || c->family < before || c->family > before + !!number ||
        c->layer < -1 || c->layer >= p->layers || c->kv_head < -1 || c->kv_head >= p->kv_heads ||
        (c->kv_head >= 0 && c->layer < 0) || c->states < 0 || c->states > FKV_PROBE_BOTH ||
        strlen(c->label) >= sizeof c->label || c->band_count < with_bands ||
        c->band_count > (with_bands ? FKV_PROBE_BANDS : 0) ||
        strlen(fkv_probe_parts(c, parts)) >= sizeof parts)
        abort();
    for (int32_t i = 0; i < c->band_count; i++)
        if (!(c->bands[i].low >= 0 && c->bands[i].low <= c->bands[i].high && c->bands[i].high <= 1))
            abort();
}

static void check(const struct fkv_probe *p) {
    struct fkv_error err = {0};
    if (p->layers < 1 || p->kv_heads < 1 || (int64_t)p->layers * p->kv_heads > INT32_MAX ||
        p->prefix < 1 || p->score < 1 || p->sinks < 0 || p->change_count < 1 || p->window_count < 1)
        abort();
    for (int32_t i = 0; i < p->change_count; i++) check_change(p, i);
    for (int64_t i = 0; i < p->window_count; i++) check_window(p, &p->windows[i]);
    if (fkv_probe_check_same(p, p, path, &err)) abort();
    struct fkv_damage damage;
    if (fkv_damage_make(p, &damage, &err) && !err.message[0]) abort();
    fkv_damage_free(&damage);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct choices c = {data, size};
    struct fkv_error err = {0};
    struct fkv_probe p;
    write_file(&c);
    if (!fkv_probe_read(path, &p, &err)) {
        check(&p);
        fkv_probe_free(&p);
    } else if (!err.message[0]) {
        abort(); /* a failure without words */
    } else if (!size) {
        fprintf(stderr, "%s\n", err.message); /* an empty input is a whole, correct file */
        abort();
    }
    unlink(path);
    return 0;
}
