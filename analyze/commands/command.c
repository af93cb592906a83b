/* Owns what the sub-commands share (command.h). Everything that can be refused is refused before
 * the first byte of states is read. */
#include "analyze/commands/command.h"
#include "analyze/tables/sources.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/store/capture_reader.h"
#include "kernels/backend_option.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"
#include "kernels/base/arguments.h"

/* ---- options ---- */

static error_t parse_common(int key, char *arg, struct argp_state *state) {
    struct fkv_common_options *o = state->input;
    switch (key) {
    case FKV_LETTER_OUT: o->out = arg; break;
    case FKV_LETTER_QUIET: o->quiet = true; break;
    case FKV_LETTER_JSON: o->json = true; break;
    case ARGP_KEY_END:
        if (!o->out) argp_error(state, "--out is missing");
        o->out_was_there = access(o->out, F_OK) == 0;
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option common_options[] = {
    {"out", FKV_LETTER_OUT, "PATH", 0, "where results go", 1},
    FKV_QUIET_ROW(1),
    FKV_JSON_ROW(1),
    {0},
};
const struct argp fkv_common_argp = {common_options, parse_common, NULL, NULL, NULL, NULL, NULL};

static error_t parse_computing(int key, char *arg, struct argp_state *state) {
    struct fkv_common_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = o; break;
    case FKV_LETTER_THREADS: o->threads = fkv_threads_option(state, arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option computing_options[] = {FKV_THREADS_ROW(1), {0}};
static const struct argp_child computing_children[] = {{&fkv_common_argp, 0, NULL, 0}, {0}};
const struct argp fkv_computing_argp = {
    computing_options, parse_computing, NULL, NULL, computing_children, NULL, NULL};

static error_t parse_processor(int key, char *arg, struct argp_state *state) {
    struct fkv_processor_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        *o = (struct fkv_processor_options){.backend = "auto", .device = FKV_ANY_DEVICE};
        break;
    case FKV_LETTER_BACKEND: o->backend = fkv_backend_option(state, arg); break;
    case FKV_LETTER_DEVICE: o->device = fkv_device_option(state, arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option processor_options[] = {
    FKV_BACKEND_ROW(1),
    FKV_DEVICE_ROW(1),
    {0},
};
const struct argp fkv_processor_argp = {
    processor_options, parse_processor, NULL, NULL, NULL, NULL, NULL};

int fkv_processor_open(const struct fkv_processor_options *processor,
                       const struct fkv_common_options *common, struct fkv_workers *workers,
                       struct fkv_error *err) {
    struct fkv_error why;
    if (fkv_workers_open(workers, processor->backend, processor->device, common->threads, &why,
                         err))
        return FKV_FAILED;
    if (why.message[0] && !common->quiet)
        fprintf(stderr, "note: computing on the CPU: %s\n", why.message);
    return FKV_OK;
}

static error_t parse_cut(int key, char *arg, struct argp_state *state) {
    struct fkv_cut_options *o = state->input;
    switch (key) {
    case FKV_LETTER_LENGTH:
        o->length = (int)fkv_integer_option(state, arg, "--length", 2, 1 << 24);
        break;
    case FKV_LETTER_SKIP_SINKS:
        o->skip_sinks = (int)fkv_integer_option(state, arg, "--skip-sinks", 0, 1 << 24);
        break;
    case FKV_LETTER_DRY_RUN: o->dry_run = true; break;
    case ARGP_KEY_INIT:
        o->skip_sinks = -1;
        state->child_inputs[0] = &o->common;
        state->child_inputs[1] = &o->processor;
        break;
    case ARGP_KEY_ARG:
        if (o->capture) argp_error(state, "expected one CAPTURE, found \"%s\" as well", arg);
        o->capture = arg;
        break;
    case ARGP_KEY_END:
        if (!o->capture) argp_error(state, "CAPTURE is missing");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option cut_options[] = {
    {"length", FKV_LETTER_LENGTH, "N", 0, "tokens per segment (default: trained context - S)", 0},
    {"skip-sinks", FKV_LETTER_SKIP_SINKS, "S", 0, "skip a recording's first tokens (default 4)", 0},
    FKV_DRY_RUN_ROW(0),
    {0},
};
static const struct argp_child cut_children[] = {{&fkv_computing_argp, 0, "Common options:", 10},
                                                 {&fkv_processor_argp, 0, "Processor:", 11},
                                                 {0}};
const struct argp fkv_cut_argp = {cut_options, parse_cut, NULL, NULL, cut_children, NULL, NULL};

int fkv_command_failed(const char *name, const struct fkv_common_options *common,
                       const struct fkv_error *err) {
    if (common && common->out && !common->out_was_there) rmdir(common->out);
    fprintf(stderr, "freqkv-analyze %s: %s\n", name, err->message);
    return fkv_exit_status(err);
}

/* ---- an analysis ---- */

/* Memory and disk that a run takes, and that there are. */
struct needs {
    int64_t memory, memory_free, disk, disk_free; /* bytes; memory_free -1 where nobody knows */
    int64_t device, device_free;                  /* of an accelerator that computes; else 0 */
    double seconds;
};

static int add_up(const struct fkv_analysis *a, struct needs *needs, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(a->capture);
    needs->memory_free = fkv_host_memory_available();
    for (int state = 0; state < FKV_STATES; state++) {
        if (!(info->states >> state & 1)) continue;
        int64_t bytes = fkv_spectrum_bytes(a->capture, &a->plan, (enum fkv_state)state, a->m.null);
        int64_t rows =
            (int64_t)info->layer_count * fkv_capture_heads(a->capture, (enum fkv_state)state);
        needs->disk += rows * a->plan.n * (int64_t)sizeof(double) * (a->m.null ? 4 : 2);
        if (bytes > needs->memory) needs->memory = bytes;
    }
    needs->memory += 3 * needs->disk; /* all findings, and the file's image twice */
    return fkv_host_disk_free(a->o->common.out, &needs->disk_free, err);
}

static int check_needs(const struct fkv_analysis *a, const struct needs *needs,
                       struct fkv_error *err) {
    if (needs->memory_free >= 0 && needs->memory > needs->memory_free)
        return fkv_fail(err,
                        "segments of %d tokens need %s of memory, and %s are available; a shorter "
                        "--length needs less",
                        a->plan.n, fkv_bytes_text(needs->memory).text,
                        fkv_bytes_text(needs->memory_free).text);
    if (needs->disk <= needs->disk_free) return FKV_OK;
    return fkv_fail(err, "%s: results need %s, and %s are free", a->o->common.out,
                    fkv_bytes_text(needs->disk).text, fkv_bytes_text(needs->disk_free).text);
}

static void print_needs(const struct fkv_analysis *a, const struct needs *needs, bool timed,
                        FILE *to) {
    char time[16];
    fkv_format_seconds(time, needs->seconds);
    fprintf(to,
            "%s: %d layers, %lld segments of %d tokens from %d document%s (%lld tokens left out); "
            "needs %s of %s of "
            "memory, about %s of %s on disk",
            a->o->capture, fkv_capture_info(a->capture)->layer_count, (long long)a->plan.segments,
            a->plan.n, a->plan.documents, a->plan.documents == 1 ? "" : "s",
            (long long)a->plan.tokens_left_out, fkv_bytes_text(needs->memory).text,
            fkv_bytes_text(needs->memory_free).text, fkv_bytes_text(needs->disk).text,
            fkv_bytes_text(needs->disk_free).text);
    if (timed) fprintf(to, ", a time of about %s", time);
    fputc('\n', to);
}

static json_t *needs_json(const struct fkv_analysis *a, const struct needs *n) {
    return json_pack("{s:o, s:i, s:i, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:o}", "capture",
                     fkv_json_string(a->o->capture), "segment_length", a->plan.n, "documents",
                     a->plan.documents, "segments", (json_int_t)a->plan.segments, "tokens",
                     (json_int_t)(a->plan.segments * a->plan.n), "tokens_left_out",
                     (json_int_t)a->plan.tokens_left_out, "memory_bytes", (json_int_t)n->memory,
                     "memory_available",
                     n->memory_free < 0 ? json_null() : json_integer(n->memory_free), "disk_bytes",
                     (json_int_t)n->disk, "disk_free", (json_int_t)n->disk_free, "device_bytes",
                     (json_int_t)n->device, "device_free", (json_int_t)n->device_free, "seconds",
                     fkv_json_number(n->seconds));
}

/* Opens the capture and cuts it. */
static int open_analysis(struct fkv_analysis *a, struct fkv_error *err) {
    const struct fkv_cut_options *o = a->o;
    if (!a->command) return fkv_fail(err, "out of memory");
    if (o->common.threads) omp_set_num_threads(o->common.threads);
    if (fkv_capture_open(o->capture, &a->capture, err) ||
        fkv_spectrum_plan(a->capture, o->length, o->skip_sinks, &a->plan, err))
        return FKV_FAILED;
    const char *model = fkv_capture_info(a->capture)->model_name;
    a->measured_states = fkv_capture_info(a->capture)->states;
    a->provenance = (struct fkv_provenance){FKV_VERSION, fkv_capture_sha256(a->capture), a->command,
                                            model ? model : ""};
    a->findings = (struct fkv_findings){.provenance = &a->provenance, .spectra = a->spectra};
    a->m.capture = a->capture, a->m.plan = &a->plan, a->m.workers = &a->workers;
    return FKV_OK;
}

/* Times one segment of each measured state. */
static int estimate_time(struct fkv_analysis *a, double *all, struct fkv_error *err) {
    for (int state = 0; state < FKV_STATES; state++) {
        double seconds;
        if (!(a->measured_states >> state & 1)) continue;
        if (fkv_spectrum_time(&a->m, (enum fkv_state)state, &seconds, err)) return FKV_FAILED;
        *all += seconds;
    }
    return FKV_OK;
}

/* The accelerator's memory, once it is known which one. */
static int check_device(const struct fkv_analysis *a, struct needs *needs, struct fkv_error *err) {
    const struct fkv_workers *w = &a->workers;
    struct fkv_device_info info;
    if (!w->device) return FKV_OK;
    for (int state = 0; state < FKV_STATES; state++) {
        int64_t bytes;
        if (!(a->measured_states >> state & 1)) continue;
        if (fkv_spectrum_device_bytes(a->capture, &a->plan, w, (enum fkv_state)state, &bytes, err))
            return FKV_FAILED;
        if (bytes > needs->device) needs->device = bytes;
    }
    if (w->ops->info(w->backend[0], &info, err)) return FKV_FAILED;
    needs->device_free = info.memory_free;
    if (needs->device <= info.memory_free) return FKV_OK;
    return fkv_fail(err,
                    "segments of %d tokens need %s of memory on the device, and %s are available; "
                    "a shorter --length "
                    "or --backend cpu needs none of it",
                    a->plan.n, fkv_bytes_text(needs->device).text,
                    fkv_bytes_text(info.memory_free).text);
}

/* Opens the workers and says what measuring the states needs, beside `more_seconds` of other
 * work: as a note on stderr, or with --dry-run as the result. Refuses what memory or disk cannot
 * hold. */
static int announce(struct fkv_analysis *a, double more_seconds, struct fkv_error *err) {
    const struct fkv_cut_options *o = a->o;
    FILE *to = o->dry_run ? (o->common.json ? NULL : stdout) : o->common.quiet ? NULL : stderr;
    struct needs needs = {.seconds = more_seconds};
    if (add_up(a, &needs, err)) return FKV_FAILED;
    if (check_needs(a, &needs, err)) {
        if (to) print_needs(a, &needs, false, to);
        return FKV_FAILED;
    }
    if (fkv_processor_open(&o->processor, &o->common, &a->workers, err) ||
        check_device(a, &needs, err) ||
        ((to || o->dry_run) && estimate_time(a, &needs.seconds, err)))
        return FKV_FAILED;
    if (to) print_needs(a, &needs, true, to);
    return o->dry_run && o->common.json ? fkv_json_print(needs_json(a, &needs), err) : FKV_OK;
}

void fkv_analysis_progress(struct fkv_analysis *a, const char *unit, int64_t total) {
    a->m.progress = &a->progress, a->m.done = 0;
    fkv_progress_start(&a->progress, unit, total, a->o->common.quiet);
}

/* Fills spectra, one per measured state. */
static int measure(struct fkv_analysis *a, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(a->capture);
    int states = 0, status = FKV_OK;
    for (int state = 0; state < FKV_STATES; state++) states += a->measured_states >> state & 1;
    fkv_analysis_progress(a, "segments", a->plan.segments * info->layer_count * states);
    for (int state = 0; !status && state < FKV_STATES; state++) {
        if (!(a->measured_states >> state & 1)) continue;
        struct fkv_spectrum *s = &a->spectra[a->findings.states];
        status = fkv_spectrum_measure(&a->m, (enum fkv_state)state, s, err);
        if (!status) a->findings.states++;
    }
    fkv_progress_finish(&a->progress);
    return status ? status : fkv_sources_of_capture(a->capture, a->o->common.out, err);
}

/* What a row draws of one state's findings; nothing where it is of other data. */
static int draw(const struct fkv_figure_row *row, const struct fkv_findings *f, int32_t state,
                struct fkv_plot_target *to, struct fkv_error *err) {
    if (f->ratios) return row->ratios && !state ? row->ratios(f->ratios, to, err) : FKV_OK;
    if (f->curves) return row->errors ? row->errors(&f->curves[state], to, err) : FKV_OK;
    return row->spectrum ? row->spectrum(&f->spectra[state], to, err) : FKV_OK;
}

/* The command's tables, and all rows of all states, side by side; of several failures the first in
 * the order of rows and states is returned. A figure compresses its pixels on one thread, which
 * takes longer than drawing it. */
static int write_all(struct fkv_analysis *a, const struct fkv_analysis_command *c, void *own,
                     struct fkv_error *err) {
    const int32_t states = a->findings.states;
    int32_t rows = 0, failed = INT32_MAX;
    while (fkv_figures[rows].files) rows++;
#pragma omp parallel for schedule(dynamic)
    for (int32_t i = -1; i < rows * states; i++) {
        struct fkv_plot_target to = {.folder = a->o->common.out, .provenance = &a->provenance};
        struct fkv_error failure;
        if (!(i < 0 ? c->write(a, own, &failure)
                    : draw(&fkv_figures[i / states], &a->findings, i % states, &to, &failure)))
            continue;
#pragma omp critical(fkv_figure_failure)
        if (i < failed) {
            failed = i;
            *err = failure;
        }
    }
    return failed < INT32_MAX ? FKV_FAILED : FKV_OK;
}

static int analyze(struct fkv_analysis *a, const struct fkv_analysis_command *c, void *own,
                   struct fkv_error *err) {
    double seconds = 0;
    if (open_analysis(a, err) || (c->check && c->check(a, own, &seconds, err)) ||
        announce(a, seconds, err))
        return FKV_FAILED;
    if (a->o->dry_run) return FKV_OK;
    const char *folder = a->o->common.out;
    const struct fkv_results_intent intent = {folder, c->name, a->provenance.capture_sha256,
                                              a->plan.n, a->plan.skip_sinks};
    if (fkv_results_check(&intent, err) || measure(a, err) || (c->find && c->find(a, own, err)) ||
        fkv_results_write(folder, &a->findings, err) || write_all(a, c, own, err))
        return FKV_FAILED;
    return c->print(&a->findings, a->o->capture, a->o->common.json, err);
}

int fkv_analysis_main(const struct fkv_analysis_command *command, int argc, char **argv,
                      void *own) {
    const struct fkv_cut_options *o = own;
    struct fkv_error err = {0};
    struct fkv_analysis a = {
        .o = o,
        .command = fkv_join_arguments(argc, argv), /* before argp puts the options first */
        .m.power_only = command->power_only};
    argp_parse(command->parser, argc, argv, 0, NULL, own);
    a.m.null = o->null;
    int status = analyze(&a, command, own, &err);
    for (int32_t i = 0; i < a.findings.states; i++) fkv_spectrum_free(&a.spectra[i]);
    fkv_workers_close(&a.workers);
    fkv_segment_plan_free(&a.plan);
    fkv_capture_close(a.capture);
    free(a.command);
    return status ? fkv_command_failed(command->name, &o->common, &err) : FKV_EXIT_DONE;
}
