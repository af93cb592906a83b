/* What reads results.h5, over files of any structure (hdf_file.h): the report, the check before a
 * command writes beside others, and the carrying over of the others' groups. A folder is reported
 * on as well after its groups were carried over as before. */
#include <sys/stat.h>

#include "analyze/report/report.h"
#include "analyze/tables/results.h"
#include "tests/fuzz/hdf_file.h"

enum { LAYERS = 2, HEADS = 3, COEFFICIENTS = 8, GAMMAS = 4, STEPS = 65 };
static char folder[80], results[100];
static const hsize_t power[] = {LAYERS, HEADS, COEFFICIENTS}, curves[] = {LAYERS, HEADS, GAMMAS},
                     losses[] = {LAYERS, HEADS, STEPS}, layer = LAYERS, head = HEADS,
                     gammas = GAMMAS;

static void put_index(struct choices *c, hid_t group) {
    put_dataset(c, group, "layer_index", H5T_STD_I32LE, 1, &layer, 0, LAYERS);
    put_dataset(c, group, "head_index", H5T_STD_I32LE, 1, &head, 0, HEADS);
}

static void put_texts(struct choices *c, hid_t group, const char *command) {
    const struct attribute attributes[] = {{"command", TEXT, 0, 0, command},
                                           {"version", TEXT, 0, 0, "0"},
                                           {"standard_error", TEXT, 0, 0, "documents"},
                                           {"null", TEXT, 0, 0, "permute"},
                                           {"criterion", TEXT, 0, 0, "budget"},
                                           {"objective", TEXT, 0, 0, "relative"}};
    put_attributes(c, group, attributes, sizeof attributes / sizeof *attributes);
}

static void put_spectra(struct choices *c, hid_t file) {
    hid_t spectrum = put_group(file, "spectrum");
    put_texts(c, spectrum, "freqkv-analyze spectrum");
    for (int s = 0; s < FKV_STATES; s++) {
        if (choose(c) & 1) continue;
        hid_t group = put_group(spectrum, fkv_state_names[s]);
        put_index(c, group);
        put_dataset(c, group, "power", H5T_IEEE_F64LE, 3, power, 1, 20);
        put_dataset(c, group, "power_se", H5T_IEEE_F64LE, 3, power, 0, 20);
        if (choose(c) & 1) put_dataset(c, group, "power_null", H5T_IEEE_F64LE, 3, power, 1, 20);
        put_dataset(c, group, "total", H5T_IEEE_F64LE, 2, power, 1, 20);
        H5Gclose(group);
    }
    H5Gclose(spectrum);
}

static void put_errors(struct choices *c, hid_t file) {
    static const char *const names[] = {"retained_energy", "retained_energy_no_dc",
                                        "relative_error", "relative_error_no_dc", "snr_db"};
    hid_t error = put_group(file, "error");
    put_texts(c, error, "freqkv-analyze error");
    for (int s = 0; s < FKV_STATES; s++) {
        if (choose(c) & 1) continue;
        hid_t group = put_group(error, fkv_state_names[s]);
        put_index(c, group);
        put_dataset(c, group, "gamma", H5T_IEEE_F64LE, 1, &gammas, 0, 2);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            put_dataset(c, group, names[i], H5T_IEEE_F64LE, 3, curves, 0, 2);
        H5Gclose(group);
    }
    H5Gclose(error);
}

static void put_ratios(struct choices *c, hid_t file) {
    hid_t group = put_group(file, "gamma");
    put_texts(c, group, "freqkv-analyze gamma");
    put_index(c, group);
    put_dataset(c, group, "gamma", H5T_IEEE_F64LE, 2, curves, 0, 2);
    put_dataset(c, group, "retained", H5T_STD_I32LE, 2, curves, 1, 10);
    put_dataset(c, group, "loss_key", H5T_IEEE_F64LE, 3, losses, 0, 65);
    H5Gclose(group);
}

static void write_file(struct choices *c) {
    static const struct attribute attributes[] = {{"format", TEXT, 0, 0, "freqkv-results"},
                                                  {"format_version", NUMBER, 1, 0, NULL},
                                                  {"version", TEXT, 0, 0, "0"},
                                                  {"capture_sha256", TEXT, 0, 0, "0123"},
                                                  {"model", TEXT, 0, 0, "a <model>"},
                                                  {"segment_length", NUMBER, COEFFICIENTS, 0, NULL},
                                                  {"skip_sinks", NUMBER, 4, 0, NULL},
                                                  {"documents", NUMBER, 1, 0, NULL},
                                                  {"segments", NUMBER, 2, 0, NULL},
                                                  {"tokens_left_out", NUMBER, 3, 0, NULL}};
    hid_t file = create_file(c);
    put_attributes(c, file, attributes, sizeof attributes / sizeof *attributes);
    const unsigned without = choose(c);
    if (!(without & 1)) put_spectra(c, file);
    if (!(without & 2)) put_errors(c, file);
    if (!(without & 4)) put_ratios(c, file);
    H5Fclose(file);
}

/* 0 or a failure with words. */
static int worded(int status, const struct fkv_error *err) {
    if (status && !err->message[0]) abort();
    return status;
}

static int report(bool whole) {
    struct fkv_error err = {0};
    struct fkv_report_outline outline;
    int status = worded(fkv_report_write(folder, &outline, &err), &err);
    if (!status && (outline.bytes <= 0 || !outline.sections.count || access(outline.path, R_OK)))
        abort();
    if (status && whole) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    fkv_report_outline_free(&outline);
    return status;
}

static int carry_over(void) {
    static const struct fkv_provenance provenance = {
        .version = "0", .capture_sha256 = "0123", .command = "", .model = ""};
    static const struct fkv_segment_plan cut = {.n = COEFFICIENTS};
    const int32_t lengths[2] = {COEFFICIENTS, 0};
    const struct fkv_results_intent intent = {folder, "link", "0123", COEFFICIENTS, 4};
    const struct fkv_results_dataset dataset = {"segment_length", FKV_H5_I32, 1, {2}, lengths};
    const struct fkv_findings link = {
        .provenance = &provenance, .cut = &cut, .datasets = 1, .dataset = &dataset};
    struct fkv_error err = {0};
    if (worded(fkv_results_check(&intent, &err), &err)) return FKV_FAILED;
    return worded(fkv_results_write(folder, &link, &err), &err);
}

static void clear(void) {
    char page[100];
    snprintf(page, sizeof page, "%s/report.html", folder);
    unlink(page);
    unlink(results);
    rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct choices c = {data, size};
    snprintf(folder, sizeof folder, "%s.d", path);
    snprintf(results, sizeof results, "%s/results.h5", folder);
    if (mkdir(folder, 0700)) abort();
    const bool carry = choose(&c) % 4 == 1; /* takes longer than all the rest */
    write_file(&c);
    if (rename(path, results)) abort();
    int before = report(!size); /* an empty input is a whole, correct file */
    if (carry && !carry_over() && !before && report(false)) abort();
    clear();
    return 0;
}
