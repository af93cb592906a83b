/* freqkv-analyze link: a capture's energy beside the perplexity of runs and the damage of probes.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/commands/command.h"
#include "analyze/link/link.h"
#include "analyze/measure/error.h"
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

static const struct argp_child children[] = {
    {&fkv_common_argp, 0, "Common options:", 10}, {&fkv_processor_argp, 0, "Processor:", 11}, {0}};
static const struct argp parser = {
    options_list, parse,    "--capture CAPTURE [--runs RUN.h5...] [--probes PROBE.h5...] --out DIR",
    doc,          children, NULL,
    NULL};

struct work {
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

static int read_runs(struct work *w, struct fkv_error *err) {
    for (int i = 0; i < w->o->count[RUNS]; i++) {
        struct fkv_run *run = &w->runs[i];
        if (fkv_run_read(w->o->files[RUNS][i], run, err) ||
            fkv_link_check_run(w->capture, run, err) ||
            (i && fkv_runs_compare(&w->runs[0], run, err)))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int read_probes(struct work *w, struct fkv_error *err) {
    for (int i = 0; i < w->o->count[PROBES]; i++) {
        const char *path = w->o->files[PROBES][i], *first = w->o->files[PROBES][0];
        struct fkv_probe *probe = &w->probes[i];
        if (fkv_probe_read(path, probe, err) || fkv_link_check_probe(w->capture, probe, path, err))
            return FKV_FAILED;
        if (probe->prefix != w->probes[0].prefix || probe->sinks != w->probes[0].sinks)
            return fkv_fail(
                err,
                "%s and %s: expected one prefix and as many sinks, found %d with %d and %d with %d",
                first, path, w->probes[0].prefix, w->probes[0].sinks, probe->prefix, probe->sinks);
        if (strcmp(probe->backend, w->probes[0].backend) ||
            strcmp(probe->compute, w->probes[0].compute) ||
            strcmp(probe->cache_dtype, w->probes[0].cache_dtype))
            return fkv_fail(err,
                            "%s and %s: expected one processor and number format, found %s, %s, "
                            "cache %s and %s, %s, "
                            "cache %s",
                            first, path, w->probes[0].backend, w->probes[0].compute,
                            w->probes[0].cache_dtype, probe->backend, probe->compute,
                            probe->cache_dtype);
        if (strcmp(probe->config_sha256, w->probes[0].config_sha256))
            return fkv_fail(err,
                            "%s and %s: expected one config.json, found sha256 %.12s and %.12s",
                            first, path, w->probes[0].config_sha256, probe->config_sha256);
        if (probe->prefix <= probe->sinks + 1)
            return fkv_fail(
                err,
                "%s: expected a prefix longer than its %d sinks by two tokens or more, found %d",
                path, probe->sinks, probe->prefix);
        if (fkv_damage_make(probe, &w->damage[i], err)) return fkv_error_prefix(err, "%s", path);
    }
    return FKV_OK;
}

/* ---- computing ---- */

/* Segments as what the runs compress (n = N - S - R), or as the prefix of the probes. */
static int cut(const struct work *w, bool probes, struct fkv_segment_plan *plan,
               struct fkv_error *err) {
    int32_t sinks = probes ? w->probes[0].sinks : w->runs[0].sinks;
    int32_t length = probes ? w->probes[0].prefix - sinks : w->runs[0].compressible;
    if (fkv_spectrum_plan(w->capture, length, sinks, plan, err))
        return fkv_error_prefix(err, "%s, cut as the %s of %s is", w->o->capture,
                                probes ? "prefix" : "window",
                                w->o->files[probes ? PROBES : RUNS][0]);
    return FKV_OK;
}

/* Spectra, a recording of all states for attention, a segment's heads, a number per token. */
static int64_t memory_for(const struct work *w, const struct fkv_segment_plan *plan, bool probes) {
    const struct fkv_capture_info *info = fkv_capture_info(w->capture);
    int64_t memory = 0, longest = plan->n, heads = 2 * info->head_count;
    for (int i = 0; i < fkv_capture_count(w->capture); i++)
        if (fkv_capture_recording(w->capture, i)->n_tokens > longest)
            longest = fkv_capture_recording(w->capture, i)->n_tokens;
    for (int s = 0; s < 2; s++)
        if (info->states >> s & 1)
            memory += fkv_spectrum_bytes(w->capture, plan, (enum fkv_state)s, false);
    if (info->states >> FKV_STATE_QUERY & 1)
        heads += fkv_capture_heads(w->capture, FKV_STATE_QUERY);
    memory += heads * (probes ? longest : plan->n) * info->head_dim * (int64_t)sizeof(float);
    return memory + 2 * plan->segments * plan->n * (int64_t)sizeof(double);
}

/* Says on `to` (NULL: nowhere) what segments cut by `plan` need; refuses what memory cannot hold.
 */
static int check_needs(const struct work *w, const struct fkv_segment_plan *plan, bool probes,
                       FILE *to, struct fkv_error *err) {
    int64_t memory = memory_for(w, plan, probes), available = fkv_host_memory_available();
    char needed[16], present[16];
    fkv_format_bytes(needed, memory);
    fkv_format_bytes(present, available);
    if (to)
        fprintf(to,
                "%s, for %s: %d layers, %lld segments of %d tokens from %d document%s; needs %s of "
                "%s of memory\n",
                w->o->capture, probes ? "probes" : "runs",
                fkv_capture_info(w->capture)->layer_count, (long long)plan->segments, plan->n,
                plan->documents, plan->documents == 1 ? "" : "s", needed, present);
    if (available < 0 || memory <= available) return FKV_OK;
    return fkv_fail(err, "%s: segments of %d tokens need %s of memory, and %s are available",
                    w->o->capture, plan->n, needed, present);
}

/* Keys and values are transformed once for their spectra and once for the residuals. */
static int add_seconds(const struct work *w, const struct fkv_segment_plan *plan, double *seconds,
                       struct fkv_error *err) {
    struct fkv_measurement m = {.capture = w->capture, .plan = plan, .workers = &w->workers};
    for (int s = 0; s < 2; s++) {
        double once = 0;
        if (fkv_capture_info(w->capture)->states >> s & 1 &&
            fkv_spectrum_time(&m, (enum fkv_state)s, &once, err))
            return FKV_FAILED;
        *seconds += 2 * once;
    }
    return FKV_OK;
}

/* --dry-run */
static int say_needs(const struct work *w, struct fkv_error *err) {
    const bool json = w->o->common.json;
    int64_t segments = 0, tokens = 0, memory = 0, available = fkv_host_memory_available();
    double seconds = 0;
    for (int probes = 0; probes < 2; probes++) {
        struct fkv_segment_plan plan;
        if (!w->o->count[probes ? PROBES : RUNS]) continue;
        if (cut(w, probes, &plan, err)) return FKV_FAILED;
        int64_t bytes = memory_for(w, &plan, probes);
        int status = check_needs(w, &plan, probes, json ? NULL : stdout, err);
        if (!status) status = add_seconds(w, &plan, &seconds, err);
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
        json_pack("{s:o, s:I, s:I, s:I, s:o, s:f}", "capture", fkv_json_string(w->o->capture),
                  "segments", (json_int_t)segments, "tokens", (json_int_t)tokens, "memory_bytes",
                  (json_int_t)memory, "memory_available",
                  available < 0 ? json_null() : json_integer(available), "seconds", seconds),
        err);
}

/* Measures on such segments, for a join. */
static int with_spectra(struct work *w, bool probes, struct fkv_error *err) {
    struct fkv_segment_plan plan;
    struct fkv_progress progress;
    if (cut(w, probes, &plan, err)) return FKV_FAILED;
    if (check_needs(w, &plan, probes, w->o->common.quiet ? NULL : stderr, err)) {
        fkv_segment_plan_free(&plan);
        return FKV_FAILED;
    }
    fkv_predictor_spectra_free(&w->spectra);
    struct fkv_measurement m = {
        .capture = w->capture, .plan = &plan, .workers = &w->workers, .progress = &progress};
    fkv_progress_start(&progress, "segments", 0, w->o->common.quiet);
    int status = fkv_predictor_spectra_measure(&m, probes, &w->spectra, err);
    bool stored = !fkv_capture_info(w->capture)->spectra_only;
    int32_t kept = fkv_retained(w->o->gamma, plan.n);
    for (int s = 0; !status && stored && s < 2; s++)
        status = fkv_residuals_measure(&m, s ? FKV_STATE_VALUE : FKV_STATE_KEY, kept,
                                       &w->link.residuals[s], err);
    w->link.has_residuals = stored;
    w->link.segment_length[probes] = plan.n;
    fkv_progress_finish(&progress);
    for (int i = 0; !status && i < FKV_PREDICTOR_GAPS && !w->o->common.quiet; i++)
        if (w->spectra.why_not[i][0]) fprintf(stderr, "%s\n", w->spectra.why_not[i]);
    w->link.cut = plan;
    w->link.cut.recording = NULL;
    fkv_segment_plan_free(&plan);
    return status;
}

static int join(struct work *w, struct fkv_error *err) {
    struct fkv_link *l = &w->link;
    if (l->runs) {
        if (with_spectra(w, false, err) ||
            fkv_link_sweep_make(w->runs, l->runs, &w->spectra, &l->sweep, err))
            return FKV_FAILED;
        l->has_sweep = true;
    }
    if (l->probes) {
        if (with_spectra(w, true, err) ||
            fkv_link_heads_make(w->damage, l->probes, &w->spectra, &l->heads, err))
            return FKV_FAILED;
        l->has_heads = true;
    }
    return FKV_OK;
}

static int check_out(const struct work *w, struct fkv_error *err) {
    const struct fkv_results_intent intent = {.folder = w->o->common.out,
                                              .group = "link",
                                              .capture_sha256 = w->provenance.capture_sha256};
    return fkv_results_check(&intent, err);
}

static int work(struct work *w, struct fkv_error *err) {
    const struct options *o = w->o;
    if (o->common.threads) omp_set_num_threads(o->common.threads);
    if (fkv_capture_open(o->capture, &w->capture, err)) return FKV_FAILED;
    const char *model = fkv_capture_info(w->capture)->model_name;
    w->provenance.capture_sha256 = fkv_capture_sha256(w->capture);
    w->provenance.model = model ? model : "";
    w->link = (struct fkv_link){.provenance = &w->provenance,
                                .capture = o->capture,
                                .runs = o->count[RUNS],
                                .probes = o->count[PROBES],
                                .run = w->runs,
                                .damage = w->damage,
                                .probe_path = o->files[PROBES],
                                .spectra = &w->spectra};
    if (!(o->gamma > 0))
        return fkv_fail_option(err, "--gamma: expected a ratio above 0, found %g", o->gamma);
    if (read_runs(w, err) || read_probes(w, err) ||
        fkv_processor_open(&o->processor, &o->common, &w->workers, err))
        return FKV_FAILED;
    if (o->dry_run) return say_needs(w, err);
    if (check_out(w, err) || join(w, err)) return FKV_FAILED;
    if (fkv_sources_of_capture(w->capture, o->common.out, err) ||
        fkv_link_results(o->common.out, &w->link, err) ||
        fkv_link_write(o->common.out, &w->link, err) || fkv_plot_link(&w->link, o->common.out, err))
        return FKV_FAILED;
    return fkv_link_print(&w->link, o->common.json, err);
}

static void close_all(struct work *w) {
    fkv_link_sweep_free(&w->link.sweep);
    fkv_link_heads_free(&w->link.heads);
    fkv_predictor_spectra_free(&w->spectra);
    for (int i = 0; w->runs && i < w->o->count[RUNS]; i++) fkv_run_free(&w->runs[i]);
    for (int i = 0; w->damage && i < w->o->count[PROBES]; i++) fkv_damage_free(&w->damage[i]);
    for (int i = 0; w->probes && i < w->o->count[PROBES]; i++) fkv_probe_free(&w->probes[i]);
    free(w->runs), free(w->damage), free(w->probes);
    fkv_workers_close(&w->workers);
    fkv_capture_close(w->capture);
}

int fkv_command_link(int argc, char **argv) {
    struct options o = {.gamma = 0.5};
    struct fkv_error err = {0};
    char *command = fkv_join_arguments(argc, argv);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &o);
    struct work w = {.o = &o,
                     .runs = calloc((size_t)o.count[RUNS] + 1, sizeof *w.runs),
                     .probes = calloc((size_t)o.count[PROBES] + 1, sizeof *w.probes),
                     .damage = calloc((size_t)o.count[PROBES] + 1, sizeof *w.damage),
                     .provenance = {.version = FKV_VERSION, .command = command}};
    int status = command && w.runs && w.probes && w.damage ? work(&w, &err)
                                                           : fkv_fail(&err, "out of memory");
    close_all(&w);
    for (int i = 0; i < LISTS; i++) free(o.files[i]);
    free(command);
    return status ? fkv_command_failed("link", &o.common, &err) : FKV_EXIT_DONE;
}
