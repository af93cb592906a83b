/* See table.h. */
#include "replay/compare/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/atomic_file.h"
#include "kernels/base/host.h"
#include "replay/lines_file.h"

/* Most rows of one budget of which all pairs are shown to people. */
enum { SHOWN = 12 };

static struct fkv_pair *pair_at(const struct fkv_rivals *c, int a, int b) {
    return &c->pairs[a * c->count + b];
}

int fkv_rivals_pair(struct fkv_rivals *c, struct fkv_error *err) {
    const size_t count = (size_t)c->count;
    c->pairs = calloc(count * count, sizeof *c->pairs);
    if (!c->pairs) return fkv_fail(err, "out of memory for the pairs of %d policies", c->count);
    for (int b = 1; b < c->count; b++)
        for (int a = 0; a < b; a++)
            if (fkv_pair_compare(c->corpus, c->plan, c->rows[a].nll, c->rows[b].nll,
                                 pair_at(c, a, b), err))
                return FKV_FAILED;
    return FKV_OK;
}

void fkv_rivals_free(struct fkv_rivals *c) {
    for (int i = 0; i < c->count && c->rows; i++) free(c->rows[i].nll);
    free(c->rows);
    free(c->pairs);
    *c = (struct fkv_rivals){0};
}

/* ---- rows ---- */

static bool is_full(const struct fkv_rivals *c, const struct fkv_compare_row *row) {
    return row == c->rows;
}

/* A number of a row; columns of compare.csv and keys of --json alike. */
enum {
    MEAN_NLL,
    PERPLEXITY,
    PERPLEXITY_SE,
    DELTA,
    DELTA_SE,
    DELTA_LOW,
    DELTA_HIGH,
    KL,
    KL_SE,
    TOP1,
    RECALL,
    RECALL_DELTA,
    RECALL_DELTA_SE,
    BYTES,
    SLOTS_MEAN,
    COMPRESSIONS,
    EVICTIONS,
    SPEED,
    NUMBERS
};
struct number {
    const char *name;
    double value;
};

static void numbers_of(const struct fkv_rivals *c, const struct fkv_compare_row *row,
                       struct number n[NUMBERS]) {
    const double *r = row->results;
    const struct number all[NUMBERS] = {
        [MEAN_NLL] = {"mean_nll", r[FKV_RESULT_NLL]},
        [PERPLEXITY] = {"perplexity", exp(r[FKV_RESULT_NLL])},
        [PERPLEXITY_SE] = {"perplexity_se", fkv_perplexity_se(r)},
        [DELTA] = {"delta_nll", r[FKV_RESULT_DELTA_NLL]},
        [DELTA_SE] = {"delta_nll_se", r[FKV_RESULT_DELTA_NLL_SE]},
        [DELTA_LOW] = {"delta_nll_low", is_full(c, row) ? NAN : row->to_full.interval.low},
        [DELTA_HIGH] = {"delta_nll_high", is_full(c, row) ? NAN : row->to_full.interval.high},
        [KL] = {"kl", r[FKV_RESULT_KL]},
        [KL_SE] = {"kl_se", r[FKV_RESULT_KL_SE]},
        [TOP1] = {"top1_agreement", r[FKV_RESULT_TOP1]},
        [RECALL] = {"recall", row->recall},
        [RECALL_DELTA] = {"recall_delta", row->recall_delta},
        [RECALL_DELTA_SE] = {"recall_delta_se", row->recall_delta_se},
        [BYTES] = {"cache_bytes_peak", r[FKV_RESULT_CACHE_BYTES_PEAK]},
        [SLOTS_MEAN] = {"cache_slots_mean", r[FKV_RESULT_CACHE_SLOTS]},
        [COMPRESSIONS] = {"compressions", r[FKV_RESULT_COMPRESSIONS]},
        [EVICTIONS] = {"evictions", r[FKV_RESULT_EVICTIONS]},
        [SPEED] = {"tokens_per_s", 1e3 / row->ms_per_token},
    };
    memcpy(n, all, sizeof all);
}

/* "freqkv:gamma=0.25 512"; the budget only where there is one. */
enum { LABEL = 128 };
static const char *label_of(const struct fkv_compare_row *row, char label[LABEL]) {
    if (row->budget)
        snprintf(label, LABEL, "%.100s %d", row->policy, row->budget);
    else
        snprintf(label, LABEL, "%.100s", row->policy);
    return label;
}

/* ---- CSV ---- */

static void put_number(FILE *f, double value) {
    fputc(',', f);
    if (isfinite(value)) fprintf(f, "%.17g", value);
}

static void put_rows(const struct fkv_rivals *c, FILE *f) {
    struct number n[NUMBERS];
    numbers_of(c, c->rows, n);
    fprintf(f, "policy,budget,slots");
    for (int i = 0; i < NUMBERS; i++) fprintf(f, ",%s", n[i].name);
    fprintf(f, ",file\n");
    for (int i = 0; i < c->count; i++) {
        const struct fkv_compare_row *row = &c->rows[i];
        if (!row->known) continue;
        numbers_of(c, row, n);
        fkv_lines_put_quoted(row->policy, f);
        put_number(f, row->budget ? row->budget : NAN);
        put_number(f, row->slots ? row->slots : NAN);
        for (int k = 0; k < NUMBERS; k++) put_number(f, n[k].value);
        fputc(',', f);
        fkv_lines_put_quoted(row->file, f);
        fputc('\n', f);
    }
}

static void put_pairs(const struct fkv_rivals *c, FILE *f) {
    char a_label[LABEL], b_label[LABEL];
    fprintf(f, "a,b,tokens,delta_nll,delta_nll_se,low,high\n");
    for (int b = 1; b < c->count; b++)
        for (int a = 0; a < b; a++) {
            const struct fkv_pair *p = pair_at(c, a, b);
            fkv_lines_put_quoted(label_of(&c->rows[a], a_label), f);
            fputc(',', f);
            fkv_lines_put_quoted(label_of(&c->rows[b], b_label), f);
            fprintf(f, ",%" PRId64, p->tokens);
            put_number(f, p->delta_nll);
            put_number(f, p->se);
            put_number(f, p->interval.low);
            put_number(f, p->interval.high);
            fputc('\n', f);
        }
}

static int write_whole(const struct fkv_rivals *c, const char *path,
                       void (*put)(const struct fkv_rivals *, FILE *), struct fkv_error *err) {
    struct fkv_atomic_file file;
    if (fkv_atomic_open(&file, path, err)) return FKV_FAILED;
    put(c, file.stream);
    return fkv_atomic_commit(&file, err);
}

int fkv_rivals_write(const struct fkv_rivals *c, const char *path, struct fkv_error *err) {
    return write_whole(c, path, put_rows, err);
}

int fkv_rivals_write_pairs(const struct fkv_rivals *c, const char *path, struct fkv_error *err) {
    return write_whole(c, path, put_pairs, err);
}

/* ---- JSON ---- */

static json_t *row_json(const struct fkv_rivals *c, const struct fkv_compare_row *row) {
    struct number n[NUMBERS];
    json_t *o = json_object();
    numbers_of(c, row, n);
    json_object_set_new(o, "policy", fkv_json_string(row->policy));
    json_object_set_new(o, "budget", row->budget ? json_integer(row->budget) : json_null());
    json_object_set_new(o, "slots", row->slots ? json_integer(row->slots) : json_null());
    for (int i = 0; i < NUMBERS; i++)
        json_object_set_new(o, n[i].name,
                            i == BYTES ? json_integer((json_int_t)n[i].value)
                                       : fkv_json_number(n[i].value));
    json_object_set_new(o, "file", fkv_json_string(row->file));
    return o;
}

json_t *fkv_rivals_json(const struct fkv_rivals *c) {
    json_t *rows = json_array(), *pairs = json_array(), *o = json_object();
    char label[LABEL];
    for (int i = 0; i < c->count; i++) json_array_append_new(rows, row_json(c, &c->rows[i]));
    for (int b = 1; b < c->count; b++)
        for (int a = 0; a < b; a++) {
            const struct fkv_pair *p = pair_at(c, a, b);
            json_t *pair = json_object();
            json_object_set_new(pair, "a", fkv_json_string(label_of(&c->rows[a], label)));
            json_object_set_new(pair, "b", fkv_json_string(label_of(&c->rows[b], label)));
            json_object_set_new(pair, "tokens", json_integer(p->tokens));
            json_object_set_new(pair, "delta_nll", fkv_json_number(p->delta_nll));
            json_object_set_new(pair, "delta_nll_se", fkv_json_number(p->se));
            json_object_set_new(pair, "low", fkv_json_number(p->interval.low));
            json_object_set_new(pair, "high", fkv_json_number(p->interval.high));
            json_array_append_new(pairs, pair);
        }
    json_object_set_new(o, "protocol", json_string(c->plan->name));
    json_object_set_new(o, "documents", json_integer(c->corpus->document_count));
    json_object_set_new(o, "tokens", json_integer(c->corpus->token_count));
    json_object_set_new(o, "equal", json_string(c->equal_mean ? "mean" : "peak"));
    json_object_set_new(o, "valid", json_boolean(!c->invalid));
    fkv_se_unit_to_json(fkv_perplexity_se_unit(c->corpus, c->plan), o);
    json_object_set_new(o, "rows", rows);
    json_object_set_new(o, "pairs", pairs);
    return o;
}

/* ---- for people ---- */

static int widest_policy(const struct fkv_rivals *c) {
    size_t widest = strlen("policy");
    for (int i = 0; i < c->count; i++)
        if (strlen(c->rows[i].policy) > widest) widest = strlen(c->rows[i].policy);
    return (int)(widest < 48 ? widest : 48);
}

static void print_row(const struct fkv_rivals *c, const struct fkv_compare_row *row, int width) {
    struct number n[NUMBERS];
    char budget[16] = "", delta[32], se[32], kl[32], kl_se[32], top1[32], recall[32], bytes[16],
         speed[32];
    numbers_of(c, row, n);
    if (row->budget) snprintf(budget, sizeof budget, "%d", row->budget);
    fkv_format_bytes(bytes, (int64_t)n[BYTES].value);
    printf("%-*.*s %7s %11.4f %10s %8s %9s %8s %6s %8s %11s %7.0f %9s\n", width, width, row->policy,
           budget, n[PERPLEXITY].value, fkv_format_result(delta, "%+.5f", n[DELTA].value),
           fkv_format_result(se, "%.5f", n[DELTA_SE].value),
           fkv_format_result(kl, "%.5f", n[KL].value),
           fkv_format_result(kl_se, "%.5f", n[KL_SE].value),
           fkv_format_result(top1, "%.3f", n[TOP1].value),
           fkv_format_result(recall, "%+.3f", n[RECALL].value), bytes, n[SLOTS_MEAN].value,
           fkv_format_result(speed, "%.0f", n[SPEED].value));
}

/* The rows of one budget, and those whose memory nobody chose; full attention has its own column in
 * the table. Returns how many. */
static int rows_of_budget(const struct fkv_rivals *c, int32_t budget, int *rows) {
    int count = 0;
    for (int i = 1; i < c->count; i++)
        if (c->rows[i].budget == budget || !c->rows[i].budget) rows[count++] = i;
    return count;
}

/* Column less row, and a star where its interval holds no 0. */
static void print_matrix(const struct fkv_rivals *c, const int *rows, int count, int width) {
    printf("%-*s", width + 3, "");
    for (int b = 1; b < count; b++) printf(" %8d ", b + 1);
    printf("\n");
    for (int a = 0; a < count; a++) {
        printf("%2d %-*.*s", a + 1, width, width, c->rows[rows[a]].policy);
        for (int b = 1; b < count; b++) {
            const struct fkv_pair *p = pair_at(c, rows[a], rows[b]);
            const bool apart = p->interval.low > 0 || p->interval.high < 0;
            if (b <= a)
                printf(" %8s ", "");
            else
                printf(" %+8.4f%s", p->delta_nll, apart ? "*" : " ");
        }
        printf("\n");
    }
}

/* Every budget once, where it has two rows or more. */
static void print_pairs(const struct fkv_rivals *c, int width) {
    int *rows = malloc((size_t)c->count * sizeof *rows);
    for (int i = 1; i < c->count && rows; i++) {
        const int32_t budget = c->rows[i].budget;
        bool before = false;
        for (int k = 1; k < i && !before; k++) before = c->rows[k].budget == budget;
        const int count = rows_of_budget(c, budget, rows);
        if (before || !budget || count < 2) continue;
        printf("\nbudget %d: mean nll of the column's policy less the row's (*: the 95%% interval "
               "holds no 0)\n",
               budget);
        if (count <= SHOWN)
            print_matrix(c, rows, count, width);
        else
            printf("%d policies: pairs.csv has them\n", count);
    }
    free(rows);
}

void fkv_rivals_print(const struct fkv_rivals *c) {
    const int width = widest_policy(c);
    char words[FKV_SE_WORDS];
    printf("%-*s %7s %11s %10s %8s %9s %8s %6s %8s %11s %7s %9s\n", width, "policy", "budget",
           "perplexity", "delta nll", "+-", "KL", "+-", "top-1", "recall", "cache", "slots",
           "tokens/s");
    for (int i = 0; i < c->count; i++) print_row(c, &c->rows[i], width);
    print_pairs(c, width);
    printf("\nbudget: slots per head, %s; cache: the most that keys and values of one sequence "
           "took;\nslots: mean that a query saw; recall: loss of a passage where it returns less "
           "where it stood first;\ndifferences to full attention are paired per token (nats)\n",
           c->equal_mean ? "the mean that a query saw" : "peak; of a selecting policy those kept");
    if (c->invalid) printf("full attention is no reference here: %s\n", c->invalid);
    printf("standard errors: %s\n", fkv_se_unit_words(fkv_perplexity_se_unit(c->corpus, c->plan),
                                                      fkv_perplexity_documents(c->corpus, c->plan),
                                                      "blocks of 256 scored tokens", words));
}
