/* report.html from folders made for the purpose: sections, figures, refusals, escaping. What only a
 * browser can say is in tests/e2e/check_report.py. */
#include "tests/unit/analyze/report_folder.h"

/* ---- sections ---- */

TEST_WITH(every_section_comes_with_its_data_and_goes_with_it, setup, remove_folder) {
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

TEST_WITH(the_selector_draws_from_data_in_the_page, setup, remove_folder) {
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

TEST_WITH(the_same_folder_gives_the_same_bytes, setup, remove_folder) {
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
    char *text;
    path_of(path, name);
    assert_ok(fkv_read_file(path, 1 << 24, &text, bytes, &err));
    return text;
}

TEST_WITH(a_figure_is_an_image_of_its_bytes, setup, remove_folder) {
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
TEST_WITH(a_figure_that_was_changed_stays_an_image, setup, remove_folder) {
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

/* ---- what is not ours ---- */

TEST_WITH(names_from_files_never_become_markup, setup, remove_folder) {
    struct fkv_report_outline o;
    model = "</script><script>alert(1)</script><!--\xff'\"&";
    struct fkv_h5_writer *w = begin_results();
    put_spectrum(w, "key", 1, 0, true);
    assert_ok(fkv_h5_put_string(w, "/spectrum", "command", "freqkv-analyze '<b onclick=x>'", &err));
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

TEST_WITH(folders_that_are_not_ours_are_refused, setup, remove_folder) {
    struct fkv_report_outline o;
    struct fkv_h5_writer *w;
    char path[400];
    assert_refused(fkv_report_write("/nowhere/at/all", &o, &err), "/nowhere/at/all: No such file");
    assert_refused(fkv_report_write(folder, &o, &err), "expected results.h5");
    put_file("results.h5", "not HDF5");
    assert_refused(fkv_report_write(folder, &o, &err), "results.h5");
    path_of(path, "results.h5");
    unlink(path);
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-run", &err));
    finish_results(w);
    assert_refused(fkv_report_write(folder, &o, &err),
                   "expected \"freqkv-results\", found \"freqkv-run\"");
    finish_results(begin_results());
    put_file("report.html", "<!DOCTYPE html><title>my own</title>");
    assert_refused(fkv_report_write(folder, &o, &err), "freqkv-analyze report did not make it");
}

TEST_WITH(broken_findings_are_refused_and_the_old_report_stays, setup, remove_folder) {
    struct fkv_report_outline o;
    double few[6] = {0};
    finish_results(begin_results());
    char *before = write_report(&o);
    fkv_report_outline_free(&o);
    struct fkv_h5_writer *w = begin_results();
    put(w, "/spectrum/key/power", FKV_H5_F64, 1, (const int64_t[]){6}, few);
    finish_results(w);
    assert_refused(fkv_report_write(folder, &o, &err),
                   "/spectrum/key/power: expected [layers, heads, n]");
    w = begin_results();
    put(w, "/spectrum/key/power", FKV_H5_F64, 0, NULL,
        few); /* a lone number has no axes to look at */
    finish_results(w);
    assert_refused(fkv_report_write(folder, &o, &err),
                   "/spectrum/key/power: expected [layers, heads, n]");
    w = begin_results();
    put_errors(w, "key");
    finish_results(w);
    put_file("spectrum.csv", "state,layer\nkey,0\n");
    assert_refused(fkv_report_write(folder, &o, &err), "spectrum.csv: expected a column head");
    put_file("spectrum.csv",
             "state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_null\nkey,0,0,0,"
             "1,0,1,1,1\nkey,0,0,1,2,0.1,1,1,1\nkey,0,1,0,1,0,1,1,1\n");
    assert_refused(fkv_report_write(folder, &o, &err), "expected 1 bands of a head, found 0");
    put_file("spectrum.csv", "state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_"
                             "null\nother,0,0,0,1,0,1,1,1\n");
    assert_refused(fkv_report_write(folder, &o, &err), "found \"other\"");
    put_file("spectrum.csv", "state,layer,head,t_low,t_high,cycles_per_token,power,power_se,power_"
                             "null\nkey,x,0,0,1,0,1,1,1\n");
    assert_refused(fkv_report_write(folder, &o, &err),
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
