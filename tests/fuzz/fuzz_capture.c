/* The capture reader over files of any structure (hdf_file.h). Damaged bytes are tested in
 * tests/unit/store/test_capture_refusals.c (truncation, flipped bits). */
#include "capture/store/capture.h"
#include "capture/store/capture_reader.h"
#include "capture/store/h5.h"
#include "tests/fuzz/hdf_file.h"

enum { MOST_TOKENS = 4096 };

/* ---- the file ---- */

static const hsize_t layers = 2, heads = 2, tokens = 12, head_dim = 4, group_size = 2, segment = 5;

static void put_spectra(struct choices *c, hid_t document) {
    hid_t spectra = put_group(document, "spectra");
    for (int s = 0; s < FKV_STATES; s++) {
        if (choose(c) & 1) continue;
        const hsize_t h = s == FKV_STATE_QUERY ? heads * group_size : heads;
        const hsize_t dims[3] = {layers, h, segment}, means[3] = {layers, h, head_dim};
        const struct attribute attributes[] = {{"segment_length", NUMBER, (double)segment, 0, NULL},
                                               {"skip_sinks", NUMBER, 4, 0, NULL},
                                               {"segments", NUMBER, 1, 0, NULL}};
        hid_t group = put_group(spectra, fkv_state_names[s]);
        put_attributes(c, group, attributes, 3);
        put_dataset(c, group, "power_sum", H5T_IEEE_F64LE, 3, dims, 0, 100);
        put_dataset(c, group, "power_sum_of_squares", H5T_IEEE_F64LE, 3, dims, 0, 100);
        put_dataset(c, group, "normalised_sum", H5T_IEEE_F64LE, 3, dims, 0, 100);
        put_dataset(c, group, "channel_mean_sum", H5T_IEEE_F64LE, 3, means, 0, 100);
        put_dataset(c, group, "energy_sum", H5T_IEEE_F64LE, 2, dims, 0, 100);
        H5Gclose(group);
    }
    H5Gclose(spectra);
}

static void put_document(struct choices *c, hid_t file, const char *place) {
    static const char hash[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const struct attribute attributes[] = {{"name", TEXT, 0, 0, "a text"},
                                           {"text_sha256", TEXT, 0, 0, hash},
                                           {"n_tokens", NUMBER, (double)tokens, 0, NULL},
                                           {"offset", NUMBER, 0, 0, NULL},
                                           {"beyond_trained_context", NUMBER, 0, 0, NULL}};
    hid_t group = strcmp(place, "/") ? put_group(file, place) : H5Gopen2(file, "/", H5P_DEFAULT);
    put_attributes(c, group, attributes, sizeof attributes / sizeof *attributes);
    const unsigned what = choose(c);
    put_dataset(c, group, "tokens", H5T_STD_I32LE, 1, &tokens, 0, 100);
    put_dataset(c, group, "nll", H5T_IEEE_F32LE, 1, &tokens, 0, 100);
    if (what & 128) put_spectra(c, group);
    for (int s = 0; s < FKV_STATES; s++) {
        if (what & 128 ? !(what & 64) : (what >> s) & 1) continue;
        const hsize_t dims[4] = {layers, s == FKV_STATE_QUERY ? heads * group_size : heads, tokens,
                                 head_dim};
        put_dataset(c, group, fkv_state_names[s],
                    (what & 48) == 48   ? H5T_STD_U16LE
                    : (what & 48) == 32 ? H5T_IEEE_F64LE
                    : (what & 48) == 16 ? H5T_IEEE_F32LE
                                        : -1,
                    4, dims, 0, 100);
    }
    H5Gclose(group);
}

static void write_file(struct choices *c) {
    static const char hash[] = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const struct attribute attributes[] = {
        {"format", TEXT, 0, 0, "freqkv-capture"},
        {"format_version", NUMBER, 1, 0, NULL},
        {"n_layers", NUMBER, (double)layers, 0, NULL},
        {"n_kv_heads", NUMBER, (double)heads, 0, NULL},
        {"head_dim", NUMBER, (double)head_dim, 0, NULL},
        {"n_heads", NUMBER, (double)(heads * group_size), 0, NULL},
        {"layer_index", NUMBERS, 0, (int)layers, NULL},
        {"head_index", NUMBERS, 0, (int)heads, NULL},
        {"model_name", TEXT, 0, 0, "a model"},
        {"model_sha256", TEXT, 0, 0, hash},
        {"config_sha256", TEXT, 0, 0, ""},
        {"tokenizer_sha256", TEXT, 0, 0, ""},
        {"rope_theta", NUMBER, 10000, 0, NULL},
        {"rope_scaling", TEXT, 0, 0, "null"},
        {"inv_freq", NUMBERS, 1, (int)head_dim / 2, NULL},
        {"attention_scale", NUMBER, 1, 0, NULL},
        {"trained_context", NUMBER, 1024, 0, NULL},
        {"adds_bos", NUMBER, 1, 0, NULL},
        {"dtype", TEXT, 0, 0, "f16"},
        {"backend", TEXT, 0, 0, "cpu"},
        {"options", TEXT, 0, 0, "{}"}};
    hid_t file = create_file(c);
    put_attributes(c, file, attributes, sizeof attributes / sizeof *attributes);
    const hsize_t gram[4] = {layers, heads * group_size, head_dim, head_dim};
    put_dataset(c, file, "output_gram", H5T_IEEE_F32LE, 4, gram, 0, 100);
    switch (choose(c) & 3) {
    case 0: put_document(c, file, "/document"); break;
    case 1: put_document(c, file, "/"); break;
    case 2: {
        H5Gclose(put_group(file, "documents"));
        put_document(c, file, "/documents/000000");
        if (choose(c) & 1) put_document(c, file, "/documents/second");
        break;
    }
    default: { /* a link that leads nowhere or to itself, or a dataset where a group should be */
        const char *name = choose(c) & 1 ? "document" : "documents";
        if (choose(c) & 1)
            H5Lcreate_soft(name, file, name, H5P_DEFAULT, H5P_DEFAULT);
        else
            put_dataset(c, file, name, H5T_STD_I32LE, 1, &tokens, 0, 100);
    }
    }
    H5Fclose(file);
}

/* ---- reading ---- */

static void read_states(struct fkv_capture *c, int32_t index) {
    struct fkv_error err;
    const struct fkv_capture_info *info = fkv_capture_info(c);
    const int64_t n = fkv_capture_recording(c, index)->n_tokens;
    for (int s = 0; s < FKV_STATES; s++) {
        const int32_t h = fkv_capture_heads(c, s);
        struct fkv_spectra_sums sums;
        if (fkv_capture_read_sums(c, index, s, &sums, &err) == FKV_OK) fkv_spectra_sums_free(&sums);
        if (h < 1 || (int64_t)h * info->head_dim > MOST_ELEMENTS || n > MOST_TOKENS) continue;
        float *x = malloc((size_t)h * (size_t)n * (size_t)info->head_dim * sizeof *x);
        if (!x) abort();
        for (int32_t layer = 0; layer < info->layer_count && layer < 4; layer++) {
            if (fkv_capture_read_state(c, index, s, layer, 0, h, 0, n, x, &err)) continue;
            for (size_t i = 0; i < (size_t)h * (size_t)n * (size_t)info->head_dim; i++)
                if (!isfinite(x[i])) abort();
            if (fkv_capture_read_state(c, index, s, layer, h - 1, 1, n / 2, n - n / 2, x, &err))
                abort();
        }
        free(x);
    }
}

/* What is read is finite, and no square of a length negative. */
static void read_gram(struct fkv_capture *c) {
    struct fkv_error err;
    const struct fkv_capture_info *info = fkv_capture_info(c);
    const size_t d = (size_t)info->head_dim,
                 size = (size_t)fkv_capture_heads(c, FKV_STATE_QUERY) * d * d;
    if (!fkv_capture_output_gram(c) || size > MOST_ELEMENTS) return;
    float *gram = malloc(size * sizeof *gram);
    if (!gram) abort();
    for (int32_t layer = 0; layer < info->layer_count && layer < 4; layer++)
        if (fkv_capture_read_output_gram(c, layer, gram, &err) == FKV_OK)
            for (size_t i = 0; i < size; i++)
                if (!isfinite(gram[i]) || (i / d % d == i % d && gram[i] < 0)) abort();
    free(gram);
}

static void read_all(void) {
    struct fkv_error err;
    struct fkv_capture *c;
    err.message[0] = 0;
    if (fkv_capture_open(path, &c, &err)) {
        if (!err.message[0]) abort(); /* a failure without words */
        return;
    }
    for (int32_t i = 0; i < fkv_capture_count(c); i++) {
        const int64_t n = fkv_capture_recording(c, i)->n_tokens;
        bool found;
        void *row = n <= MOST_TOKENS ? malloc((size_t)n * 4) : NULL;
        if (row) {
            fkv_capture_read_tokens(c, i, row, &found, &err);
            fkv_capture_read_token_class(c, i, row, &found, &err);
        }
        free(row);
        read_states(c, i);
    }
    read_gram(c);
    if (fkv_capture_info_compare(fkv_capture_info(c), fkv_capture_info(c), path, &err)) abort();
    fkv_capture_close(c);
}

static void read_as_results(void) {
    static double values[MOST_ELEMENTS];
    struct fkv_error err;
    struct fkv_h5_reader *r;
    int64_t dims[8];
    char text[16];
    int rank;
    bool found;
    double value;
    if (fkv_h5_open(path, &r, &err)) return;
    fkv_h5_shape(r, "/document/tokens", &rank, dims, &found, &err);
    fkv_h5_get(r, "/document/key", FKV_H5_F32, MOST_ELEMENTS, values, &err);
    fkv_h5_get_string(r, "/", "format", text, sizeof text, &found, &err);
    fkv_h5_get_double(r, "/document", "offset", &value, &found, &err);
    fkv_h5_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct choices c = {data, size};
    write_file(&c);
    read_all();
    read_as_results();
    unlink(path);
    return 0;
}
