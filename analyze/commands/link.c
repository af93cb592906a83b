/* freqkv-analyze link: a capture's energy beside the perplexity of runs and the damage of probes.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/commands/command.h"
#include "analyze/link/link.h"
#include "analyze/measure/error.h"
#include "analyze/plots/figures.h"
#include "analyze/tables/sources.h"
#include "capture/store/capture_reader.h"
#include "kernels/base/arguments.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"
#include "kernels/base/letters.h"
#include "kernels/base/parse.h"

enum { OPT_CAPTURE = FKV_NO_LETTER, OPT_RUNS, OPT_PROBES };

enum { NO_LIST, RUNS, PROBES, LISTS };

struct options {
    struct fkv_common_options common;
    struct fkv_processor_options processor;
    const char *capture;
    double gamma; /* of the residuals */
    bool dry_run;
    const char **files[LISTS]; /* [count]; owned arrays */
    int count[LISTS], list;    /* list: where names without an option go */
};

static void add_file(struct options *o, int list, const char *file, struct argp_state *state) {
    const char **files = realloc(o->files[list], ((size_t)o->count[list] + 1) * sizeof *files);
    if (!files) argp_failure(state, FKV_EXIT_FAILED, 0, "out of memory");
    o->files[list] = files;
    files[o->count[list]++] = file;
    o->list = list;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    struct fkv_error err;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->common;
        state->child_inputs[1] = &o->processor;
        break;
    case OPT_CAPTURE: o->capture = arg; break;
    case FKV_LETTER_DRY_RUN: o->dry_run = true; break;
    case OPT_RUNS: add_file(o, RUNS, arg, state); break;
    case OPT_PROBES: add_file(o, PROBES, arg, state); break;
    case FKV_LETTER_GAMMA:
        if (fkv_parse_double(arg, "--gamma", 0, 1, &o->gamma, &err))
            argp_error(state, "%s", err.message);
        break;
    case ARGP_KEY_ARG:
        if (!o->list) argp_error(state, "expected an option before \"%s\"", arg);
        add_file(o, o->list, arg, state);
        break;
    case ARGP_KEY_END:
        if (!o->capture) argp_error(state, "--capture is missing");
        if (!o->count[RUNS] && !o->count[PROBES])
            argp_error(state, "--runs or --probes is missing");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option options_list[] = {
    {"capture", OPT_CAPTURE, "CAPTURE", 0, "with keys and values, best with queries too", 0},
    {"runs", OPT_RUNS, "RUN.h5...", 0, "a sweep: runs that differ in their ratio only", 0},
    {"probes", OPT_PROBES, "PROBE.h5...", 0, "probes of one prefix, best with --per-head", 0},
    {"gamma", FKV_LETTER_GAMMA, "G", 0, "share kept for tokens' residuals (default 0.5)", 0},
    FKV_DRY_RUN_ROW(0),
    {0},
};

static const char doc[] =
    "What the energy in a capture says about perplexity.\n\n"
    "Example:\n"
    "  freqkv-analyze link --capture my-capture --runs runs/*.h5 \\\n"
    "      --probes heads.h5 --out link\n"
    "\v"
    "Along a sweep: the energy that the runs retain against their perplexity. Head by head: "
    "what a probe's filter takes out of one head against the damage that does, for six "
    "predictors. Token by token: who is high-frequency. Captures, runs and probes of different "
    "models or texts are refused.\n\n" FKV_SEE_MANUAL;

static const struct argp_child children[] = {{&fkv_computing_argp, 0, "Common options:", 10},
                                             {&fkv_processor_argp, 0, "Processor:", 11},
                                             {0}};
static const struct argp parser = {
    options_list, parse,    "--capture CAPTURE [--runs RUN.h5...] [--probes PROBE.h5...] --out DIR",
    doc,          children, NULL,
    NULL};

struct inputs {
    const struct options *o;
    struct fkv_capture *capture;
    struct fkv_workers workers;
    struct fkv_run *runs;     /* [count[RUNS]] */
    struct fkv_probe *probes; /* [count[PROBES]] */
    struct fkv_damage *damage;
    struct fkv_predictor_spectra spectra;
    struct fkv_provenance provenance;
    struct fkv_link link;
};

/* ---- reading and checking, before anything is computed ---- */

static int read_runs(struct inputs *in, struct fkv_error *err) {
    for (int i = 0; i < in->o->count[RUNS]; i++) {
        struct fkv_run *run = &in->runs[i];
        if (fkv_run_read(in->o->files[RUNS][i], run, err) ||
            fkv_link_check_run(in->capture, run, err) ||
            (i && fkv_runs_compare(&in->runs[0], run, err)))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int read_probes(struct inputs *in, struct fkv_error *err) {
    for (int i = 0; i < in->o->count[PROBES]; i++) {
        const char *path = in->o->files[PROBES][i], *first = in->o->files[PROBES][0];
        struct fkv_probe *probe = &in->probes[i];
        if (fkv_probe_read(path, probe, err) || fkv_link_check_probe(in->capture, probe, path, err))
            return FKV_FAILED;
        if (probe->prefix != in->probes[0].prefix || probe->sinks != in->probes[0].sinks)
            return fkv_fail(
                err,
                "%s and %s: expected one prefix and as many sinks, found %d with %d and %d with %d",
                first, path, in->probes[0].prefix, in->probes[0].sinks, probe->prefix,
                probe->sinks);
        if (strcmp(probe->backend, in->probes[0].backend) ||
            strcmp(probe->compute, in->probes[0].compute) ||
            strcmp(probe->cache_dtype, in->probes[0].cache_dtype))
            return fkv_fail(err,
                            "%s and %s: expected one processor and number format, found %s, %s, "
                            "cache %s and %s, %s, "
                            "cache %s",
                            first, path, in->probes[0].backend, in->probes[0].compute,
                            in->probes[0].cache_dtype, probe->backend, probe->compute,
                            probe->cache_dtype);
        if (strcmp(probe->config_sha256, in->probes[0].config_sha256))
            return fkv_fail(err,
                            "%s and %s: expected one config.json, found sha256 %.12s and %.12s",
                            first, path, in->probes[0].config_sha256, probe->config_sha256);
        if (probe->prefix <= probe->sinks + 1)
            return fkv_fail(
                err,
                "%s: expected a prefix longer than its %d sinks by two tokens or more, found %d",
                path, probe->sinks, probe->prefix);
        if (fkv_damage_make(probe, &in->damage[i], err)) return fkv_error_prefix(err, "%s", path);
    }
    return FKV_OK;
}

/* ---- computing ---- */

/* Segments as what the runs compress (n = N - S - R), or as the prefix of the probes. */
static int cut(const struct inputs *in, bool probes, struct fkv_segment_plan *plan,
               struct fkv_error *err) {
    int32_t sinks = probes ? in->probes[0].sinks : in->runs[0].sinks;
    int32_t length = probes ? in->probes[0].prefix - sinks : in->runs[0].compressible;
    if (fkv_spectrum_plan(in->capture, length, sinks, plan, err))
        return fkv_error_prefix(err, "%s, cut as the %s of %s is", in->o->capture,
                                probes ? "prefix" : "window",
                                in->o->files[probes ? PROBES : RUNS][0]);
    return FKV_OK;
}

/* Spectra, a recording of all states for attention, a segment's heads, a number per token. */
static int64_t memory_for(const struct inputs *in, const struct fkv_segment_plan *plan,
                          bool probes) {
    const struct fkv_capture_info *info = fkv_capture_info(in->capture);
    int64_t memory = 0, longest = plan->n, heads = 2 * info->head_count;
    for (int i = 0; i < fkv_capture_count(in->capture); i++)
        if (fkv_capture_recording(in->capture, i)->n_tokens > longest)
            longest = fkv_capture_recording(in->capture, i)->n_tokens;
    for (int s = 0; s < 2; s++)
        if (info->states >> s & 1)
            memory += fkv_spectrum_bytes(in->capture, plan, (enum fkv_state)s, false);
    if (info->states >> FKV_STATE_QUERY & 1)
        heads += fkv_capture_heads(in->capture, FKV_STATE_QUERY);
    memory += heads * (probes ? longest : plan->n) * info->head_dim * (int64_t)sizeof(float);
    return memory + 2 * plan->segments * plan->n * (int64_t)sizeof(double);
}

/* Says on `to` (NULL: nowhere) what segments cut by `plan` need; refuses what memory cannot hold.
 */
static int check_needs(const struct inputs *in, const struct fkv_segment_plan *plan, bool probes,
                       FILE *to, struct fkv_error *err) {
    const int64_t memory = memory_for(in, plan, probes), available = fkv_host_memory_available();
    if (to)
        fprintf(to,
                "%s, for %s: %d layers, %lld segments of %d tokens from %d document%s; needs %s of "
                "%s of memory\n",
                in->o->capture, probes ? "probes" : "runs",
                fkv_capture_info(in->capture)->layer_count, (long long)plan->segments, plan->n,
                plan->documents, plan->documents == 1 ? "" : "s", fkv_bytes_text(memory).text,
                fkv_bytes_text(available).text);
    if (available < 0 || memory <= available) return FKV_OK;
    return fkv_fail(err, "%s: segments of %d tokens need %s of memory, and %s are available",
                    in->o->capture, plan->n, fkv_bytes_text(memory).text,
                    fkv_bytes_text(available).text);
}

/* Keys and values are transformed once for their spectra and once for the residuals. */
static int add_seconds(const struct inputs *in, const struct fkv_segment_plan *plan,
                       double *seconds, struct fkv_error *err) {
    struct fkv_measurement m = {.capture = in->capture, .plan = plan, .workers = &in->workers};
    for (int s = 0; s < 2; s++) {
        double once = 0;
        if (fkv_capture_info(in->capture)->states >> s & 1 &&
            fkv_spectrum_time(&m, (enum fkv_state)s, &once, err))
            return FKV_FAILED;
        *seconds += 2 * once;
    }
    return FKV_OK;
}

/* --dry-run */
static int say_needs(const struct inputs *in, struct fkv_error *err) {
    const bool json = in->o->common.json;
    int64_t segments = 0, tokens = 0, memory = 0, available = fkv_host_memory_available();
    double seconds = 0;
    for (int probes = 0; probes < 2; probes++) {
        struct fkv_segment_plan plan;
        if (!in->o->count[probes ? PROBES : RUNS]) continue;
        if (cut(in, probes, &plan, err)) return FKV_FAILED;
        int64_t bytes = memory_for(in, &plan, probes);
        int status = check_needs(in, &plan, probes, json ? NULL : stdout, err);
        if (!status) status = add_seconds(in, &plan, &seconds, err);
        if (bytes > memory) memory = bytes;
        segments += plan.segments;
        tokens += plan.segments * plan.n;
        fkv_segment_plan_free(&plan);
        if (status) return FKV_FAILED;
    }
    if (!json) {
        char time[16];
        fkv_format_seconds(time, seconds);
        printf("time: about %s, and what attention takes\n", time);
        return FKV_OK;
    }
    return fkv_json_print(
        json_pack("{s:o, s:I, s:I, s:I, s:o, s:f}", "capture", fkv_json_string(in->o->capture),
                  "segments", (json_int_t)segments, "tokens", (json_int_t)tokens, "memory_bytes",
                  (json_int_t)memory, "memory_available",
                  available < 0 ? json_null() : json_integer(available), "seconds", seconds),
        err);
}

/* Measures on such segments, for a join. */
static int with_spectra(struct inputs *in, bool probes, struct fkv_error *err) {
    struct fkv_segment_plan plan;
    struct fkv_progress progress;
    if (cut(in, probes, &plan, err)) return FKV_FAILED;
    if (check_needs(in, &plan, probes, in->o->common.quiet ? NULL : stderr, err)) {
        fkv_segment_plan_free(&plan);
        return FKV_FAILED;
    }
    fkv_predictor_spectra_free(&in->spectra);
    struct fkv_measurement m = {
        .capture = in->capture, .plan = &plan, .workers = &in->workers, .progress = &progress};
    fkv_progress_start(&progress, "segments", 0, in->o->common.quiet);
    int status = fkv_predictor_spectra_measure(&m, probes, &in->spectra, err);
    bool stored = !fkv_capture_info(in->capture)->spectra_only;
    int32_t kept = fkv_retained(in->o->gamma, plan.n);
    for (int s = 0; !status && stored && s < 2; s++)
        status = fkv_residuals_measure(&m, s ? FKV_STATE_VALUE : FKV_STATE_KEY, kept,
                                       &in->link.residuals[s], err);
    in->link.has_residuals = stored;
    in->link.segment_length[probes] = plan.n;
    fkv_progress_finish(&progress);
    for (int i = 0; !status && i < FKV_PREDICTOR_GAPS && !in->o->common.quiet; i++)
        if (in->spectra.gap[i][0]) fprintf(stderr, "%s\n", in->spectra.gap[i]);
    in->link.cut = plan;
    in->link.cut.recording = NULL;
    fkv_segment_plan_free(&plan);
    return status;
}

static int join(struct inputs *in, struct fkv_error *err) {
    struct fkv_link *l = &in->link;
    if (l->runs) {
        if (with_spectra(in, false, err) ||
            fkv_link_sweep_make(in->runs, l->runs, &in->spectra, &l->sweep, err))
            return FKV_FAILED;
        l->has_sweep = true;
    }
    if (l->probes) {
        if (with_spectra(in, true, err) ||
            fkv_link_heads_make(in->damage, l->probes, &in->spectra, &l->heads, err))
            return FKV_FAILED;
        l->has_heads = true;
    }
    return FKV_OK;
}

static int read_join_write(struct inputs *in, struct fkv_error *err) {
    const struct options *o = in->o;
    if (o->common.threads) omp_set_num_threads(o->common.threads);
    if (fkv_capture_open(o->capture, &in->capture, err)) return FKV_FAILED;
    const char *model = fkv_capture_info(in->capture)->model_name;
    in->provenance.capture_sha256 = fkv_capture_sha256(in->capture);
    in->provenance.model = model ? model : "";
    in->link = (struct fkv_link){.provenance = &in->provenance,
                                 .capture = o->capture,
                                 .runs = o->count[RUNS],
                                 .probes = o->count[PROBES],
                                 .damage = in->damage,
                                 .probe_path = o->files[PROBES],
                                 .spectra = &in->spectra};
    if (!(o->gamma > 0))
        return fkv_fail_option(err, "--gamma: expected a ratio above 0, found %g", o->gamma);
    if (read_runs(in, err) || read_probes(in, err) ||
        fkv_processor_open(&o->processor, &o->common, &in->workers, err))
        return FKV_FAILED;
    if (o->dry_run) return say_needs(in, err);
    const struct fkv_results_intent intent = {
        .folder = o->common.out, .group = "link", .capture_sha256 = in->provenance.capture_sha256};
    if (fkv_results_check(&intent, err) || join(in, err) ||
        fkv_sources_of_capture(in->capture, o->common.out, err) ||
        fkv_link_results(o->common.out, &in->link, err) ||
        fkv_link_write(o->common.out, &in->link, err))
        return FKV_FAILED;
    struct fkv_plot_target to = {.folder = o->common.out, .provenance = &in->provenance};
    for (const struct fkv_figure_row *f = fkv_figures; f->files; f++)
        if (f->link && f->link(&in->link, &to, err)) return FKV_FAILED;
    return fkv_link_print(&in->link, o->common.json, err);
}

static void close_all(struct inputs *in) {
    fkv_link_sweep_free(&in->link.sweep);
    fkv_link_heads_free(&in->link.heads);
    fkv_predictor_spectra_free(&in->spectra);
    for (int i = 0; in->runs && i < in->o->count[RUNS]; i++) fkv_run_free(&in->runs[i]);
    for (int i = 0; in->damage && i < in->o->count[PROBES]; i++) fkv_damage_free(&in->damage[i]);
    for (int i = 0; in->probes && i < in->o->count[PROBES]; i++) fkv_probe_free(&in->probes[i]);
    free(in->runs), free(in->damage), free(in->probes);
    fkv_workers_close(&in->workers);
    fkv_capture_close(in->capture);
}

int fkv_command_link(int argc, char **argv) {
    struct options o = {.gamma = 0.5};
    struct fkv_error err = {0};
    char *command = fkv_join_arguments(argc, argv);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &o);
    struct inputs in = {.o = &o,
                        .runs = calloc((size_t)o.count[RUNS] + 1, sizeof *in.runs),
                        .probes = calloc((size_t)o.count[PROBES] + 1, sizeof *in.probes),
                        .damage = calloc((size_t)o.count[PROBES] + 1, sizeof *in.damage),
                        .provenance = {.version = FKV_VERSION, .command = command}};
    int status = command && in.runs && in.probes && in.damage ? read_join_write(&in, &err)
                                                              : fkv_fail(&err, "out of memory");
    close_all(&in);
    for (int i = 0; i < LISTS; i++) free(o.files[i]);
    free(command);
    return status ? fkv_command_failed("link", &o.common, &err) : FKV_EXIT_DONE;
}
