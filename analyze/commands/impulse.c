/* freqkv-analyze impulse: what becomes of a token in a cache that is compressed again and again. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analyze/commands/command.h"
#include "analyze/measure/impulse.h"
#include "analyze/plots/figures.h"
#include "analyze/tables/csv.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"
#include "kernels/base/arguments.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "kernels/base/path.h"

enum { OPT_ROUNDS = FKV_NO_LETTER };

enum { MOST_RATIOS = 16, DEFAULT_SINKS = 4 };

struct options {
    struct fkv_common_options common;
    int32_t window, sinks, rounds; /* rounds 0: until the horizon */
    double *gamma;                 /* [gammas]; owned */
    int gammas;
};

static void parse_gamma(struct options *o, const char *text, struct argp_state *state) {
    struct fkv_error err;
    free(o->gamma);
    o->gamma = NULL;
    if (fkv_parse_range(text, "--gamma", &o->gamma, &o->gammas, &err))
        argp_error(state, "%s", err.message);
    if (o->gammas > MOST_RATIOS)
        argp_error(state, "--gamma: expected at most %d ratios, found %d", MOST_RATIOS, o->gammas);
    for (int i = 0; i < o->gammas; i++)
        if (!(o->gamma[i] > 0 && o->gamma[i] < 1))
            argp_error(state, "--gamma: expected ratios between 0 and 1, found %g", o->gamma[i]);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case FKV_LETTER_WINDOW:
        o->window = (int32_t)fkv_integer_option(state, arg, "--window", 2, 1 << 20);
        break;
    case FKV_LETTER_SINKS:
        o->sinks = (int32_t)fkv_integer_option(state, arg, "--sinks", 0, 1 << 20);
        break;
    case OPT_ROUNDS:
        o->rounds = (int32_t)fkv_integer_option(state, arg, "--rounds", 1, FKV_IMPULSE_ROUNDS);
        break;
    case FKV_LETTER_GAMMA: parse_gamma(o, arg, state); break;
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->common; break;
    case ARGP_KEY_END:
        if (!o->window) argp_error(state, "--window is missing");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "What becomes of a chunk of tokens in a cache that is compressed again and again: "
    "FreqKV's schedule as linear algebra, no model and no data.\n\n"
    "Example:\n"
    "  freqkv-analyze impulse --out memory --window 4096 --gamma 0.25,0.5,0.75\n"
    "\v"
    "A chunk of C = n - L tokens, n = N - S, enters just before a compression; every later "
    "compression, each after C more tokens, compresses what is left of it again. The memory "
    "horizon is where one of its L slots is left.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options_list[] = {
    {"window", FKV_LETTER_WINDOW, "N", 0, "cache capacity in slots, sinks included", 0},
    {"sinks", FKV_LETTER_SINKS, "S", 0, "first slots, never compressed (default 4)", 0},
    {"gamma", FKV_LETTER_GAMMA, "G", 0, "ratios: a,b,c or a:b:step (default 0.5)", 0},
    {"rounds", OPT_ROUNDS, "K", 0, "compressions to follow (default: to the horizon)", 0},
    {0},
};
static const struct argp_child children[] = {{&fkv_computing_argp, 0, "Common options:", 10}, {0}};
static const struct argp parser = {options_list, parse, "--out DIR --window N", doc, children,
                                   NULL,         NULL};

static const char csv_header[] =
    "window,sinks,gamma,retained,chunk,horizon_tokens,round,tokens_since,slots_left,centre,width_"
    "slots,width_tokens,gain,ringing,negative,rank,participation";

/* There is no capture and so no results.h5 that could say whose the folder's files are: our CSV,
 * known by its header, does. */
static int check_folder(const char *folder, struct fkv_error *err) {
    static const char *const names[] = {"impulse_responses.png", "impulse_responses.svg",
                                        "impulse_memory.png", "impulse_memory.svg"};
    char path[FKV_PATH], line[512] = "";
    if (fkv_make_directories(folder, err)) return FKV_FAILED;
    if (access(folder, W_OK | X_OK)) return fkv_fail_errno(err, "%s", folder);
    if (fkv_path_print(path, err, "%s/impulse.csv", folder)) return FKV_FAILED;
    FILE *f = fopen(path, "r");
    bool ours =
        f && fgets(line, sizeof line, f) && !strncmp(line, csv_header, sizeof csv_header - 1);
    if (f) fclose(f);
    if (ours) return FKV_OK;
    if (f)
        return fkv_fail(
            err, "%s: exists, and freqkv-analyze impulse did not make it; choose another --out",
            path);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (fkv_path_print(path, err, "%s/%s", folder, names[i])) return FKV_FAILED;
        if (!access(path, F_OK))
            return fkv_fail(err,
                            "%s: exists, and no impulse.csv beside it says that freqkv-analyze "
                            "impulse made it; choose another --out",
                            path);
    }
    return FKV_OK;
}

static int write_csv(const struct options *o, const struct fkv_impulse *impulses,
                     struct fkv_error *err) {
    struct fkv_atomic_file f;
    if (fkv_csv_open(&f, o->common.out, "impulse.csv", csv_header, err)) return FKV_FAILED;
    for (int i = 0; i < o->gammas; i++) {
        const struct fkv_schedule *s = &impulses[i].schedule;
        for (int32_t k = 0; k < impulses[i].rounds; k++) {
            const struct fkv_impulse_round *r = &impulses[i].round[k];
            fprintf(f.stream, "%d,%d,%.9g,%d,%d,%.9g,%d,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g",
                    s->window, s->sinks, s->gamma, s->retained, s->chunk, s->horizon, k + 1,
                    r->tokens_since, r->slots_left, r->centre, r->width, r->width_tokens, r->gain,
                    r->ringing, r->negative);
            fkv_csv_number(f.stream, r->rank);
            fkv_csv_number(f.stream, r->participation);
            fputc('\n', f.stream);
        }
    }
    return fkv_atomic_commit(&f, err);
}

static json_t *round_object(const struct fkv_impulse_round *r, int32_t k) {
    return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o}", "round", k,
                     "tokens_since", r->tokens_since, "slots_left", r->slots_left, "centre",
                     r->centre, "width_slots", r->width, "width_tokens", r->width_tokens, "gain",
                     r->gain, "ringing", r->ringing, "negative", r->negative, "rank",
                     fkv_json_number(r->rank), "participation", fkv_json_number(r->participation));
}

static int print_json(const struct options *o, const struct fkv_impulse *impulses,
                      struct fkv_error *err) {
    json_t *ratios = json_array();
    for (int i = 0; i < o->gammas; i++) {
        const struct fkv_schedule *s = &impulses[i].schedule;
        json_t *rounds = json_array();
        for (int32_t k = 0; k < impulses[i].rounds; k++)
            json_array_append_new(rounds, round_object(&impulses[i].round[k], k + 1));
        json_array_append_new(ratios, json_pack("{s:f, s:i, s:i, s:f, s:f, s:o}", "gamma", s->gamma,
                                                "retained", s->retained, "chunk", s->chunk,
                                                "horizon_tokens", s->horizon, "horizon_rounds",
                                                s->horizon_rounds, "rounds", rounds));
    }
    return fkv_json_print(
        json_pack("{s:i, s:i, s:o}", "window", o->window, "sinks", o->sinks, "ratios", ratios),
        err);
}

static void print_table(const struct options *o, const struct fkv_impulse *impulses) {
    for (int i = 0; i < o->gammas; i++) {
        const struct fkv_schedule *s = &impulses[i].schedule;
        printf("gamma %.4g: %d slots, %d sinks, L = %d, chunks of %d tokens; memory horizon %.0f "
               "tokens (%.1f rounds)\n",
               s->gamma, s->window, s->sinks, s->retained, s->chunk, s->horizon, s->horizon_rounds);
        printf("  round  tokens since  slots left    centre  width: slots    tokens   gain  "
               "ringing  negative    rank  participation\n");
        for (int32_t k = 0; k < impulses[i].rounds; k++) {
            const struct fkv_impulse_round *r = &impulses[i].round[k];
            printf("  %5d  %12.0f  %10.4g  %8.1f  %12.2f  %8.5g  %5.3f  %6.1f%%  %7.1f%%", k + 1,
                   r->tokens_since, r->slots_left, r->centre, r->width, r->width_tokens, r->gain,
                   100 * r->ringing, 100 * r->negative);
            if (r->rank >= 0)
                printf("  %6.0f  %13.1f\n", r->rank, r->participation);
            else
                printf("  %6s  %13s\n", "-", "-");
        }
    }
}

static int follow_and_write(const struct options *o, const struct fkv_provenance *p,
                            struct fkv_impulse *impulses, struct fkv_error *err) {
    const char *folder = o->common.out;
    struct fkv_schedule schedules[MOST_RATIOS];
    for (int i = 0; i < o->gammas; i++)
        if (fkv_schedule_make(o->window, o->sinks, o->gamma[i], &schedules[i], err))
            return FKV_FAILED;
    if (check_folder(folder, err)) return FKV_FAILED;
    for (int i = 0; i < o->gammas; i++)
        if (fkv_impulse_follow(&schedules[i], o->rounds, &impulses[i], err)) return FKV_FAILED;
    if (write_csv(o, impulses, err)) return FKV_FAILED;
    struct fkv_plot_target to = {.folder = folder, .provenance = p};
    for (const struct fkv_figure_row *f = fkv_figures; f->files; f++)
        if (f->impulses && f->impulses(impulses, o->gammas, &to, err)) return FKV_FAILED;
    if (o->common.json) return print_json(o, impulses, err);
    print_table(o, impulses);
    return FKV_OK;
}

int fkv_command_impulse(int argc, char **argv) {
    struct options o = {.sinks = DEFAULT_SINKS};
    struct fkv_impulse impulses[MOST_RATIOS] = {0};
    struct fkv_error err = {0};
    if (fkv_parse_range("0.5", "--gamma", &o.gamma, &o.gammas, &err))
        return fkv_command_failed("impulse", NULL, &err);
    char *command = fkv_join_arguments(argc, argv); /* before argp puts the options first */
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    if (o.common.threads) omp_set_num_threads(o.common.threads);
    const struct fkv_provenance provenance = {.version = FKV_VERSION, .command = command};
    int status = command ? follow_and_write(&o, &provenance, impulses, &err)
                         : fkv_fail(&err, "out of memory");
    for (int i = 0; i < MOST_RATIOS; i++) fkv_impulse_free(&impulses[i]);
    free(o.gamma);
    free(command);
    return status ? fkv_command_failed("impulse", &o.common, &err) : FKV_EXIT_DONE;
}
