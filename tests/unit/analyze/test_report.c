/* report.html from folders made for the purpose: sections, sentences, refusals, escaping. What only
 * a browser can say is in tests/e2e/check_report.py. */
#include <sys/stat.h>

#include "analyze/figure/figure.h"
#include "analyze/report/report.h"
#include "capture/store/h5.h"
#include "kernels/base/atomic_file.h"
#include "tests/unit/support.h"

static char folder[256];
static const char *model; /* of the next results.h5 */

static int setup(void **state) {
    (void)state;
    test_make_folder(folder);
    model = "made";
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_remove_folder(folder);
    return 0;
}

enum { LAYERS = 2, HEADS = 3, ROWS = LAYERS * HEADS, N = 64, GAMMAS = 3 };

static void path_of(char path[400], const char *name) {
    snprintf(path, 400, "%s/%s", folder, name);
}

static void put_file(const char *name, const char *text) {
    char path[400];
    path_of(path, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put(struct fkv_h5_writer *w, const char *name, enum fkv_h5_type type, int rank,
                const int64_t *dims, const void *data) {
    struct fkv_error err;
    assert_ok(fkv_h5_put(w, name, type, rank, dims, data, &err), err);
}

/* Power falls as t^-slope beside a flat null of the same energy; `exceptions` heads are flat. null
 * false: none. */
static void put_spectrum(struct fkv_h5_writer *w, const char *state, double slope, int exceptions,
                         bool null) {
    static const int32_t layers[LAYERS] = {0, 7}, heads[HEADS] = {0, 1, 4};
    static double power[ROWS][N], flat[ROWS][N];
    const int64_t dims[] = {LAYERS, HEADS, N};
    char name[64];
    for (int row = 0; row < ROWS; row++)
        for (int t = 0; t < N; t++) {
            power[row][t] = t ? pow(t, row < exceptions ? 0 : -slope) : 50;
            flat[row][t] = t ? 1 : 50;
        }
    snprintf(name, sizeof name, "/spectrum/%s/power", state);
    put(w, name, FKV_H5_F64, 3, dims, power);
    snprintf(name, sizeof name, "/spectrum/%s/power_null", state);
    if (null) put(w, name, FKV_H5_F64, 3, dims, flat);
    snprintf(name, sizeof name, "/spectrum/%s/layer_index", state);
    put(w, name, FKV_H5_I32, 1, dims, layers);
    snprintf(name, sizeof name, "/spectrum/%s/head_index", state);
    put(w, name, FKV_H5_I32, 1, dims + 1, heads);
}

static void put_errors(struct fkv_h5_writer *w, const char *state) {
    static const char *const names[] = {"retained_energy", "retained_energy_no_dc",
                                        "relative_error", "relative_error_no_dc"};
    static const int32_t layers[LAYERS] = {0, 7};
    static const double gamma[GAMMAS] = {0.25, 0.5, 0.75};
    const int64_t dims[] = {LAYERS, HEADS, GAMMAS};
    double values[ROWS * GAMMAS];
    char name[64];
    for (int i = 0; i < ROWS * GAMMAS; i++) values[i] = i == 4 ? NAN : 0.375;
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "/error/%s/%s", state, names[i]);
        put(w, name, FKV_H5_F64, 3, dims, values);
    }
    snprintf(name, sizeof name, "/error/%s/gamma", state);
    put(w, name, FKV_H5_F64, 1, dims + 2, gamma);
    snprintf(name, sizeof name, "/error/%s/layer_index", state);
    put(w, name, FKV_H5_I32, 1, dims, layers);
}

static struct fkv_h5_writer *begin_results(void) {
    struct fkv_error err;
    struct fkv_h5_writer *w;
    char path[400];
    path_of(path, "results.h5");
    unlink(path);
    assert_ok(fkv_h5_create(path, &w, &err), err);
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-results", &err), err);
    assert_ok(fkv_h5_put_string(w, "/", "model", model, &err), err);
    assert_ok(fkv_h5_put_string(w, "/", "capture_sha256", "0123abc", &err), err);
    assert_ok(fkv_h5_put_int(w, "/", "segment_length", N, &err), err);
    return w;
}

static void finish_results(struct fkv_h5_writer *w) {
    struct fkv_error err;
    assert_ok(fkv_h5_commit(w, &err), err);
}

static void put_spectrum_csv(void) {
    char path[400];
    path_of(path, "spectrum.csv");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_null,excess,energy_"
          "share,energy_share_no_dc\n",
          f);
    for (int row = 0; row < ROWS; row++)
        for (int t = 0; t < 5; t++)
            fprintf(f, "key,%d,%d,%d,%d,%g,%g,0.1,1,1,0.1,0.1\n", row < HEADS ? 0 : 7,
                    (int[]){0, 1, 4}[row % HEADS], t, t + 1, t / 128.0, row + 1.0 / (t + 1));
    fclose(f);
}

/* A figure whose title is its name. */
static void put_figure(const char *name) {
    struct fkv_error err;
    struct fkv_figure *f;
    char base[400];
    const struct fkv_axis axis = {"x", 0, 1, .logarithmic = false};
    const struct fkv_provenance p = {"0.0", "abc", "freqkv-analyze made", "made"};
    assert_ok(fkv_figure_create(3, 3, 1, 1, name, &f, &err), err);
    assert_ok(fkv_figure_axes(f, 0, NULL, &axis, &axis, NULL, 1, &err), err);
    path_of(base, name);
    assert_ok(fkv_figure_write(f, base, &p, &err), err);
    fkv_figure_destroy(f);
}

/* Writes the report; its text, malloc'd. */
static char *write_report(struct fkv_report_outline *o) {
    struct fkv_error err;
    assert_ok(fkv_report_write(folder, o, &err), err);
    char *text = calloc(1, (size_t)o->bytes + 1);
    FILE *f = fopen(o->path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(text, 1, (size_t)o->bytes + 1, f), o->bytes);
    fclose(f);
    return text;
}

static void assert_list(const struct fkv_text_list *list, const char *const *expected) {
    int n = 0;
    for (; expected[n]; n++)
        if (n >= list->count || strcmp(list->text[n], expected[n]))
            fail_msg("entry %d: expected %s, found %s", n, expected[n],
                     n < list->count ? list->text[n] : "none");
    assert_int_equal(list->count, n);
}

static bool said(const struct fkv_report_outline *o, const char *words) {
    for (int i = 0; i < o->summary.count; i++)
        if (strstr(o->summary.text[i], words)) return true;
    return false;
}

static void assert_said(const struct fkv_report_outline *o, const char *words) {
    if (said(o, words)) return;
    for (int i = 0; i < o->summary.count; i++) printf("  %s\n", o->summary.text[i]);
    fail_msg("no sentence says \"%s\"", words);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}

/* ---- sections ---- */

static void every_section_comes_with_its_data_and_goes_with_it(void **state) {
    (void)state;
    static const struct {
        const char *figure, *section;
    } parts[] = {{"gamma_heatmap", "ratios"},    {"runs_perplexity", "perplexity"},
                 {"gamma_0.5_rounds", "rounds"}, {"mine_bands", "probes"},
                 {"link_heads_1", "link"},       {"impulse_memory", "memory"},
                 {"something", "others"}};
    struct fkv_report_outline o;
    struct fkv_h5_writer *w = begin_results();
    put_errors(w, "value");
    finish_results(w);
    char *text = write_report(&o);
    assert_list(&o.sections, (const char *const[]){"errors", "provenance", NULL});
    assert_null(strstr(text, "id='explorer'"));
    assert_non_null(strstr(text, "<td>0.375</td>"));
    assert_non_null(strstr(text, "<td>\u2013</td>")); /* the number that does not exist */
    fkv_report_outline_free(&o);
    free(text);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char path[400], name[100];
        put_figure(parts[i].figure);
        text = write_report(&o);
        assert_list(&o.sections,
                    (const char *const[]){"errors", parts[i].section, "provenance", NULL});
        assert_int_equal(o.figures, 1);
        assert_int_equal(count(text, "<img "), 1);
        snprintf(name, sizeof name, "%s.svg", parts[i].figure);
        path_of(path, name);
        assert_int_equal(unlink(path), 0);
        fkv_report_outline_free(&o);
        free(text);
    }
}

static void the_selector_draws_from_data_in_the_page(void **state) {
    (void)state;
    struct fkv_report_outline o;
    struct fkv_h5_writer *w = begin_results();
    put_spectrum(w, "key", 1, 0, true);
    finish_results(w);
    put_spectrum_csv();
    char *text = write_report(&o);
    assert_list(&o.sections, (const char *const[]){"summary", "spectra", "provenance", NULL});
    assert_non_null(strstr(
        text, "\"layer\":[0,7],\"head\":[0,1,4],\"frequency\":[0.007812,0.01562,0.02344,0.03125]"));
    assert_non_null(strstr(text, "\"power\":[[[0.5,0.3333,0.25,0.2],[1.5,"));
    assert_non_null(strstr(text, "\"half_null\":[[0.4921,"));
    assert_int_equal(count(text, "<script"), 2);
    fkv_report_outline_free(&o);
    free(text);
}

static void the_same_folder_gives_the_same_bytes(void **state) {
    (void)state;
    struct fkv_report_outline o;
    struct fkv_h5_writer *w = begin_results();
    put_spectrum(w, "key", 1, 0, true);
    finish_results(w);
    put_spectrum_csv();
    put_figure("spectrum_key");
    char *first = write_report(&o);
    fkv_report_outline_free(&o);
    char *second = write_report(&o);
    assert_string_equal(first, second);
    fkv_report_outline_free(&o);
    fkv_report_outline_free(&o);
    free(first);
    free(second);
}

/* ---- figures ---- */

/* The bytes of the page's only image, decoded from its address; malloc'd, 0 at the end. */
static char *image_of(const char *page, size_t *bytes) {
    static const char start[] = "src='data:image/svg+xml,";
    const char *from = strstr(page, start);
    assert_non_null(from);
    from += sizeof start - 1;
    const char *to = strchr(from, '\'');
    assert_non_null(to);
    char *image = malloc((size_t)(to - from) + 1);
    *bytes = 0;
    while (from < to) {
        char digits[3] = {from[1], from[2], 0};
        assert_null(strchr("#&<", *from));
        assert_true(*from >= ' ' && *from <= '~');
        image[(*bytes)++] = *from == '%' ? (char)strtol(digits, NULL, 16) : *from;
        from += *from == '%' ? 3 : 1;
    }
    image[*bytes] = 0;
    return image;
}

static char *figure_file(const char *name, size_t *bytes) {
    char path[400];
    struct fkv_error err;
    char *text;
    path_of(path, name);
    assert_ok(fkv_read_file(path, 1 << 24, &text, bytes, &err), err);
    return text;
}

static void a_figure_is_an_image_of_its_bytes(void **state) {
    (void)state;
    struct fkv_report_outline o;
    size_t bytes, expected_bytes;
    finish_results(begin_results());
    put_figure("gamma_heatmap");
    char *page = write_report(&o), *expected = figure_file("gamma_heatmap.svg", &expected_bytes),
         *image = image_of(page, &bytes);
    assert_int_equal(bytes, expected_bytes);
    assert_memory_equal(image, expected, bytes);
    assert_non_null(strstr(page, "<img alt='gamma_heatmap. The retaining ratio of every layer"));
    assert_non_null(strstr(page, "<b>Figure 1.</b> The retaining ratio of every layer"));
    assert_non_null(strstr(page, "<code>freqkv-analyze made</code>"));
    assert_non_null(strstr(page, "img-src data:;"));
    fkv_report_outline_free(&o);
    free(page);
    free(expected);
    free(image);
}

/* What somebody put into a figure afterwards stays inside the image: the page has no element of it.
 */
static void a_figure_that_was_changed_stays_an_image(void **state) {
    (void)state;
    static const char *const insertions[] = {"<script>alert(1)</script>",
                                             "'><script>alert(1)</script><img alt='",
                                             "&#39;><b>",
                                             "%27>",
                                             "\xff\xfe\x01\t\r\n#?\\",
                                             "</svg></div></main>",
                                             "<!--"};
    finish_results(begin_results());
    put_figure("something");
    size_t bytes, length;
    char *svg = figure_file("something.svg", &bytes), *at = strstr(svg, "<defs>");
    assert_non_null(at);
    char *plain = malloc(bytes + 100);
    for (size_t i = 0; i < sizeof insertions / sizeof *insertions; i++) {
        struct fkv_report_outline o;
        snprintf(plain, bytes + 100, "%.*s%s%s", (int)(at - svg), svg, insertions[i], at);
        put_file("something.svg", plain);
        char *page = write_report(&o), *image = image_of(page, &length);
        assert_string_equal(image, plain);
        assert_int_equal(o.figures, 1);
        assert_int_equal(count(page, "<script"), 1);
        assert_int_equal(count(page, "</script"), 1);
        assert_int_equal(count(page, "<img "), 1);
        assert_int_equal(count(page, "<svg"), 0);
        assert_int_equal(count(page, "</main>"), 1);
        assert_int_equal(count(page, "<!--"), 0);
        fkv_report_outline_free(&o);
        free(page);
        free(image);
    }
    free(plain);
    free(svg);
}

/* ---- sentences ---- */

static void spectra_are_judged_by_their_numbers(void **state) {
    (void)state;
    static const struct {
        double slope;
        int exceptions;
        bool null;
        const char *words;
    } cases[] = {{1, 0, true, "Low frequencies dominate beyond what DC and chance explain."},
                 {0.08, 0, true, "and it is slight."},
                 {1, 1, true, "but not in every head."},
                 {0, 0, true, "no dominance of low frequencies to speak of."},
                 {-1, 0, true, "lean to the high frequencies."},
                 {1, 0, false, "chance is not ruled out."}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_report_outline o;
        struct fkv_h5_writer *w = begin_results();
        put_spectrum(w, "key", cases[i].slope, cases[i].exceptions, cases[i].null);
        finish_results(w);
        free(write_report(&o));
        assert_said(&o, cases[i].words);
        fkv_report_outline_free(&o);
    }
}

static void keys_stand_against_values(void **state) {
    (void)state;
    static const char *const words[] = {"Keys are more low-frequency than values",
                                        "Keys are as low-frequency as values",
                                        "Keys are less low-frequency than values"};
    for (int i = 0; i < 3; i++) {
        struct fkv_report_outline o;
        struct fkv_h5_writer *w = begin_results();
        put_spectrum(w, "key", 1, 0, true);
        put_spectrum(w, "value", 0.5 + 0.5 * i, 0, true);
        finish_results(w);
        free(write_report(&o));
        assert_said(&o, words[i]);
        fkv_report_outline_free(&o);
    }
}

static void a_gain_is_called_one_when_it_is(void **state) {
    (void)state;
    static const struct {
        const char *losses, *words;
    } cases[] = {{"0.2,0.4,0.2,0.4,0.2,0.4", "That is a gain worth having in energy"},
                 {"0.4,0.41,0.4,0.41,0.4,0.41", "That is a small gain."},
                 {"0.4,0.4,0.4,0.4,0.4,0.4", "Next to nothing is gained."},
                 {"0.5,0.4,0.5,0.4,0.5,0.4", "25.0% larger. Next to nothing is gained."}};
    finish_results(begin_results());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_report_outline o;
        char text[400];
        snprintf(text, sizeof text,
                 "layer,head,gamma,retained,key_energy_lost,key_energy_lost_uniform,value_energy_"
                 "lost,value_energy_lost_uniform,objective,objective_uniform\n"
                 "0,0,0.25,16,%s\n0,1,0.75,48,%s\n",
                 cases[i].losses, cases[i].losses);
        put_file("gamma.csv", text);
        free(write_report(&o));
        assert_said(&o, cases[i].words);
        assert_said(&o, "mean 0.5, from 0.25 to 0.75");
        fkv_report_outline_free(&o);
    }
}

static void links_are_judged_by_their_intervals(void **state) {
    (void)state;
    static const struct {
        const char *row, *words, *best;
    } cases[] = {
        {"filter,key,delta_nll,all,energy_no_dc,12,1,0.6,0.2,0.8",
         "0.60 [0.20, 0.80]: a link that the interval keeps away from 0",
         "The best predictor of that damage"},
        {"filter,key,delta_nll,all,energy_no_dc,12,1,0.3,-0.2,0.7",
         "[\u22120.20, 0.70]: the interval holds 0, so no link",
         "No predictor is shown to rank that damage"},
        {"filter,key,delta_nll,all,energy_no_dc,12,3,-0.6,-0.8,-0.2", "the other way round", NULL},
        {"filter,key,delta_nll,all,energy_no_dc,2,2,1,,", "too few points for an interval", NULL},
        {"sweep,both,delta_nll,all,retained_key_no_dc,9,1,-0.9,-1,-0.5", "Along a sweep of 9 runs",
         NULL}};
    finish_results(begin_results());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_report_outline o;
        char text[400];
        snprintf(text, sizeof text,
                 "change,states,damage,depth,predictor,points,place,spearman,spearman_low,spearman_"
                 "high\n%s\nfilter,key,kl,early,energy,1,1,1,1,1\n",
                 cases[i].row);
        put_file("link_predictors.csv", text);
        free(write_report(&o));
        assert_said(&o, cases[i].words);
        assert_int_equal(o.summary.count, cases[i].best ? 2 : 1);
        if (cases[i].best) assert_said(&o, cases[i].best);
        fkv_report_outline_free(&o);
    }
    put_file("link_predictors.csv", "something,else\n1,2\n");
    struct fkv_report_outline o;
    free(write_report(&o));
    assert_int_equal(o.summary.count, 0);
    fkv_report_outline_free(&o);
}

static void probes_and_runs_are_judged_by_their_intervals(void **state) {
    (void)state;
    static const struct {
        const char *file, *rows, *words;
    } cases[] = {
        {"p_policies.csv", "\u0394 nll,freqkv,0.5,10,8,12\n\u0394 nll,local,0.5,2,1,3\n",
         "the latest tokens are worth more"},
        {"p_policies.csv", "\u0394 nll,freqkv,0.5,2,1,3\n\u0394 nll,local,0.5,10,8,12\n",
         "the low frequencies are worth more"},
        {"p_policies.csv", "\u0394 nll,freqkv,0.5,2,-1,3\n\u0394 nll,local,0.5,1,0,12\n",
         "neither is shown to be worth more"},
        {"p_policies.csv", "KL,freqkv,0.5,9,8,10\n\u0394 nll,freqkv,0.25,2,-1,3\n",
         "by 2 [\u22121, 3] thousandths of a nat per token (probe \u201cp\u201d): not told apart"},
        {"p_bands.csv", "\u0394 nll,keys,0\u20130.5,1,-1,3\n\u0394 nll,keys,0.5\u20131,4,2,6\n",
         "Of 2 bands (DC apart) taken out of the keys one at a time, the one at 0.5\u20131 of all "
         "coefficients (0: the lowest, 1: the highest) hurts most: 4 [2, 6] thousandths of a nat "
         "per token; for 1 of the 2"},
        {"p_decomposition.csv", "\u0394 nll,,nothing,0,0,0\n\u0394 nll,,squeezed,4,2,6\n",
         ": squeezed 4 [2, 6]."},
        {"runs_perplexity.csv",
         "\u0394 nll to full attention,\"freqkv, recent 9\",0.1,0.9,0.8,1,freqkv\n\u0394 nll to "
         "full "
         "attention,freqkv,0.9,0.1,0,0.2,freqkv\n",
         "keeping more costs less, and the intervals are apart"},
        {"runs_perplexity.csv",
         "\u0394 nll to full attention,freqkv,0.1,0.9,0,1,freqkv\n\u0394 nll to full "
         "attention,freqkv,0.9,0.1,0,0.2,freqkv\n",
         "the ratio is not shown to matter"}};
    finish_results(begin_results());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_report_outline o;
        char text[600], path[400];
        snprintf(text, sizeof text, "panel,series,place,estimate,low,high%s\n%s",
                 strcmp(cases[i].file, "runs_perplexity.csv") ? "" : ",policy", cases[i].rows);
        put_file(cases[i].file, text);
        free(write_report(&o));
        assert_said(&o, cases[i].words);
        path_of(path, cases[i].file);
        unlink(path);
        fkv_report_outline_free(&o);
    }
}

/* ---- what is not ours ---- */

static void names_from_files_never_become_markup(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_report_outline o;
    model = "</script><script>alert(1)</script><!--\xff'\"&";
    struct fkv_h5_writer *w = begin_results();
    put_spectrum(w, "key", 1, 0, true);
    assert_ok(fkv_h5_put_string(w, "/spectrum", "command", "freqkv-analyze '<b onclick=x>'", &err),
              err);
    finish_results(w);
    put_spectrum_csv();
    put_file("a<b>&.csv", "<i>,\"a\"\"<u>\"\n\"</td>\",2\n");
    put_file("c'<d>.svg",
             "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>");
    put_file("gamma.json", "{\"model_sha256\": \"<em>\", \"text_sha256\": [\"<s>\", 3]}");
    char *text = write_report(&o);
    assert_int_equal(count(text, "<script"), 2);
    assert_int_equal(count(text, "</script"), 2);
    const char *const never[] = {"<b onclick", "<i>,", "<i></th>", "<u>", "<em>",
                                 "<s>",        "<d>",  "<!--",     "\xff"};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strstr(text, never[i])) fail_msg("\"%s\" stands in the page", never[i]);
    const char *const escaped[] = {"&lt;/script&gt;&lt;script&gt;alert(1)",
                                   "&lt;b onclick=x&gt;",
                                   "a&lt;b&gt;&amp;.csv",
                                   "a&quot;&lt;u&gt;",
                                   "&lt;em&gt;",
                                   "&lt;s&gt;"};
    for (size_t i = 0; i < sizeof escaped / sizeof *escaped; i++)
        if (!strstr(text, escaped[i])) fail_msg("\"%s\" does not stand in the page", escaped[i]);
    assert_int_equal(o.left_out.count, 1);
    assert_int_equal(o.figures, 0);
    fkv_report_outline_free(&o);
    free(text);
}

static void folders_that_are_not_ours_are_refused(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_report_outline o;
    struct fkv_h5_writer *w;
    char path[400];
    assert_refused(fkv_report_write("/nowhere/at/all", &o, &err), err,
                   "/nowhere/at/all: No such file");
    assert_refused(fkv_report_write(folder, &o, &err), err, "expected results.h5");
    put_file("results.h5", "not HDF5");
    assert_refused(fkv_report_write(folder, &o, &err), err, "results.h5");
    path_of(path, "results.h5");
    unlink(path);
    assert_ok(fkv_h5_create(path, &w, &err), err);
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-run", &err), err);
    finish_results(w);
    assert_refused(fkv_report_write(folder, &o, &err), err,
                   "expected \"freqkv-results\", found \"freqkv-run\"");
    finish_results(begin_results());
    put_file("report.html", "<!DOCTYPE html><title>my own</title>");
    assert_refused(fkv_report_write(folder, &o, &err), err,
                   "freqkv-analyze report did not make it");
}

static void broken_findings_are_refused_and_the_old_report_stays(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_report_outline o;
    double few[6] = {0};
    finish_results(begin_results());
    char *before = write_report(&o);
    fkv_report_outline_free(&o);
    struct fkv_h5_writer *w = begin_results();
    put(w, "/spectrum/key/power", FKV_H5_F64, 1, (const int64_t[]){6}, few);
    finish_results(w);
    assert_refused(fkv_report_write(folder, &o, &err), err,
                   "/spectrum/key/power: expected [layers, heads, n]");
    w = begin_results();
    put(w, "/spectrum/key/power", FKV_H5_F64, 0, NULL,
        few); /* a lone number has no axes to look at */
    finish_results(w);
    assert_refused(fkv_report_write(folder, &o, &err), err,
                   "/spectrum/key/power: expected [layers, heads, n]");
    w = begin_results();
    put_errors(w, "key");
    finish_results(w);
    put_file("spectrum.csv", "state,layer\nkey,0\n");
    assert_refused(fkv_report_write(folder, &o, &err), err, "spectrum.csv: expected a column head");
    put_file("spectrum.csv",
             "state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_null\nkey,0,0,0,"
             "1,0,1,1,1\nkey,0,0,1,2,0.1,1,1,1\nkey,0,1,0,1,0,1,1,1\n");
    assert_refused(fkv_report_write(folder, &o, &err), err, "expected 1 bands of a head, found 0");
    put_file("spectrum.csv", "state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_"
                             "null\nother,0,0,0,1,0,1,1,1\n");
    assert_refused(fkv_report_write(folder, &o, &err), err, "found \"other\"");
    put_file("spectrum.csv", "state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_"
                             "null\nkey,x,0,0,1,0,1,1,1\n");
    assert_refused(fkv_report_write(folder, &o, &err), err,
                   "row 1: layer: expected an integer, found \"x\"");
    char path[400], after[200] = "";
    path_of(path, "report.html");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fread(after, 1, sizeof after - 1, f), sizeof after - 1);
    fclose(f);
    assert_int_equal(strncmp(before, after, sizeof after - 1), 0);
    free(before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_section_comes_with_its_data_and_goes_with_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_selector_draws_from_data_in_the_page, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_folder_gives_the_same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_figure_is_an_image_of_its_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_figure_that_was_changed_stays_an_image, setup, teardown),
        cmocka_unit_test_setup_teardown(spectra_are_judged_by_their_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_stand_against_values, setup, teardown),
        cmocka_unit_test_setup_teardown(a_gain_is_called_one_when_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(links_are_judged_by_their_intervals, setup, teardown),
        cmocka_unit_test_setup_teardown(probes_and_runs_are_judged_by_their_intervals, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(names_from_files_never_become_markup, setup, teardown),
        cmocka_unit_test_setup_teardown(folders_that_are_not_ours_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_findings_are_refused_and_the_old_report_stays, setup,
                                        teardown)};
    return test_run(tests, NULL, NULL);
}
