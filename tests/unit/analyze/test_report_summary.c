/* The sentences of a report's summary: each follows from the numbers, and also says no. */
#include "tests/unit/analyze/report_folder.h"

TEST_WITH(spectra_are_judged_by_their_numbers, setup, remove_folder) {
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

TEST_WITH(keys_stand_against_values, setup, remove_folder) {
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

TEST_WITH(a_gain_is_called_one_when_it_is, setup, remove_folder) {
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

/* Three runs of equal memory and one that holds more: "full" is never the best of them. */
TEST_WITH(the_best_policy_is_named_where_it_is_one, setup, remove_folder) {
    static const struct {
        const char *delta; /* of local less freqkv: estimate, low, high */
        const char *units, *words;
    } cases[] = {
        {"0.1,0.05,0.15", "40",
         "\u201cfreqkv\u201d loses least: 3.0000 nats per token, 0.1000 "
         "[0.0500, 0.1500] less than the next, \u201clocal\u201d (paired). "
         "The interval leaves out 0: it is the best of them."},
        {"0.1,-0.05,0.25", "40", "(paired). The intervals do not tell it from: local."},
        {"0.1,0.05,0.15", "6", "Its interval rests on 6 units only, which is few."},
        {"0.1,,", "1", "There is no interval, so nothing is shown."},
    };
    finish_results(begin_results());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_report_outline o;
        char text[1200];
        snprintf(text, sizeof text,
                 "label_a,label_b,mean_nll_a,mean_nll_b,cache_bytes_peak_a,cache_bytes_peak_b,by,"
                 "units,delta_nll,delta_nll_low,delta_nll_high\n"
                 "freqkv,local,3,3.1,1024,1024,all,%s,%s\n"
                 "freqkv,local,3,3.1,1024,1024,class,%s,0.2,0.1,0.3\n"
                 "freqkv,streaming,3,3.2,1024,1024,all,%s,0.2,0.1,0.3\n"
                 "streaming,full,3.2,2.9,1024,4096,all,%s,-0.3,-0.4,-0.2\n",
                 cases[i].units, cases[i].delta, cases[i].units, cases[i].units, cases[i].units);
        put_file("compare.csv", text);
        free(write_report(&o));
        assert_said(&o, cases[i].words);
        assert_said(&o, "Of the 3 runs that hold 1.0 KiB of cache");
        fkv_report_outline_free(&o);
    }
}

TEST_WITH(links_are_judged_by_their_intervals, setup, remove_folder) {
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

TEST_WITH(probes_and_runs_are_judged_by_their_intervals, setup, remove_folder) {
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
