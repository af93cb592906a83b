/* freqkv-analyze plot: figures of what freqkv-replay wrote. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/commands/command.h"
#include "analyze/plots/figures.h"
#include "analyze/tables/sources.h"
#include "kernels/base/arguments.h"
#include "kernels/base/hash.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"

struct options {
    struct fkv_common_options common;
    const char **files; /* [count]; owned array */
    int count;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    const char **files;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->common; break;
    case ARGP_KEY_ARG:
        files = realloc(o->files, ((size_t)o->count + 1) * sizeof *files);
        if (!files) argp_failure(state, 1, 0, "out of memory");
        o->files = files;
        o->files[o->count++] = arg;
        break;
    case ARGP_KEY_END:
        if (!o->count) argp_error(state, "expected one RUN.h5, PROBE.h5 or TABLE.csv or more");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "Figures of what freqkv-replay wrote, and of tables.\n\n"
    "Examples:\n"
    "  freqkv-analyze plot runs/*.h5 --out figures\n"
    "  freqkv-analyze plot probe.h5 --out figures\n"
    "\v"
    "Runs are drawn together, a probe on its own, and of a .csv every column of numbers over "
    "the first one; a table of freqkv-replay needle as maps, one of compare as quality against "
    "bytes. Figures are written as PNG and SVG, "
    "with their numbers as "
    "CSV.\n\n" FKV_SEE_MANUAL;

static const struct argp_child children[] = {{&fkv_common_argp, 0, "Common options:", 10}, {0}};
static const struct argp parser = {
    NULL, parse, "RUN.h5... | PROBE.h5... | TABLE.csv... --out DIR", doc, children, NULL, NULL};

static bool ends_with(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);
    return n > m && !strcmp(text + n - m, ending);
}

/* The last `parts` parts of a path without the file's ending, joined by '_'. */
static void end_of_path(const char *path, int parts, char end[256]) {
    const char *from = path + strlen(path);
    while (from > path && (from[-1] != '/' || --parts > 0)) from--;
    snprintf(end, 256, "%s", from);
    char *slash = strrchr(end, '/'), *dot = strrchr(end, '.');
    if (dot && dot != end && dot > slash) *dot = 0;
    for (char *c = end; *c; c++)
        if (*c == '/') *c = '_';
}

/* What the names of a file's figures start with: its own name, or where several files have that
 * name, its folder's and its own. */
static void stem_of(const struct options *o, const char *path, char stem[256]) {
    char other[256];
    int same = 0;
    end_of_path(path, 1, stem);
    for (int i = 0; i < o->count; i++) {
        end_of_path(o->files[i], 1, other);
        same += !strcmp(stem, other);
    }
    if (same > 1) end_of_path(path, 2, stem);
}

/* Figures of two files must not have one name. */
static int check_names(const struct options *o, struct fkv_error *err) {
    char stem[256], other[256];
    for (int i = 1; i < o->count; i++)
        for (int k = 0; k < i; k++) {
            stem_of(o, o->files[i], stem), stem_of(o, o->files[k], other);
            if (!strcmp(stem, other))
                return fkv_fail(err,
                                "%s and %s: expected files or folders of different names, since "
                                "figures take theirs, found \"%s\" twice",
                                o->files[k], o->files[i], stem);
        }
    return FKV_OK;
}

struct inputs {
    const struct options *o;
    struct fkv_provenance provenance;
    struct fkv_run *runs; /* [run_count] */
    int32_t run_count, probes, tables, figures;
    char model[256];  /* of the file drawn */
    json_t *left_out; /* {file, figure, reason} of what a figure cannot show; owned */
};

/* What a figure may be drawn from; the others are NULL. */
struct drawn {
    const struct fkv_run *run, *runs;
    const struct fkv_damage *damage;
    const struct fkv_table *table;
    const char *path; /* of the table */
};

static int draw(struct inputs *in, struct drawn d, const char *stem, struct fkv_error *err) {
    struct fkv_plot_target to = {.folder = in->o->common.out,
                                 .stem = stem,
                                 .provenance = &in->provenance,
                                 .left_out = in->left_out};
    int status = FKV_OK;
    for (const struct fkv_figure_row *f = fkv_figures; !status && f->files; f++)
        status = d.run && f->run        ? f->run(d.run, &to, err)
                 : d.runs && f->runs    ? f->runs(d.runs, in->run_count, &to, err)
                 : d.damage && f->probe ? f->probe(d.damage, &to, err)
                 : d.table && f->table  ? f->table(d.table, d.path, &to, err)
                                        : FKV_OK;
    in->figures += to.figures;
    return status;
}

static int plot_runs(struct inputs *in, struct fkv_error *err) {
    const struct fkv_run *first = in->runs;
    const int32_t before = in->figures;
    char stem[256];
    for (const struct fkv_run *run = first + 1; run < first + in->run_count; run++)
        if (strcmp(first->model_sha256, run->model_sha256))
            return fkv_fail(err, "%s and %s: expected runs of one model, found %.12s and %.12s",
                            first->path, run->path, first->model_sha256, run->model_sha256);
    snprintf(in->model, sizeof in->model, "%s", first->model_name);
    if (draw(in, (struct drawn){.runs = first}, "runs", err) ||
        (in->figures > before && fkv_sources_of_runs(first, in->run_count, in->o->common.out, err)))
        return FKV_FAILED;
    for (const struct fkv_run *run = first; run < first + in->run_count; run++) {
        stem_of(in->o, run->path, stem);
        if (draw(in, (struct drawn){.run = run}, stem, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int plot_probe(struct inputs *in, const char *path, const char *stem,
                      struct fkv_error *err) {
    struct fkv_probe probe = {0};
    struct fkv_damage damage = {0};
    int status = fkv_probe_read(path, &probe, err);
    if (!status) snprintf(in->model, sizeof in->model, "%s", probe.model_name);
    if (!status && fkv_damage_make(&probe, &damage, err))
        status = fkv_error_prefix(err, "%s", path);
    if (!status) status = draw(in, (struct drawn){.damage = &damage}, stem, err);
    if (!status) status = fkv_sources_of_probe(&probe, stem, in->o->common.out, err);
    fkv_damage_free(&damage);
    fkv_probe_free(&probe);
    in->probes++;
    return status;
}

static int plot_table(struct inputs *in, const char *path, const char *stem,
                      struct fkv_error *err) {
    struct fkv_table table;
    int status = fkv_table_read(path, &table, err);
    if (!status) status = draw(in, (struct drawn){.table = &table, .path = path}, stem, err);
    fkv_table_free(&table);
    in->tables++;
    return status;
}

/* Runs are collected, everything else is drawn as it comes. */
static int plot_file(struct inputs *in, const char *path, struct fkv_error *err) {
    char format[64], stem[256];
    in->model[0] = 0;
    stem_of(in->o, path, stem);
    if (ends_with(path, ".csv")) return plot_table(in, path, stem, err);
    if (fkv_run_format(path, format, err)) return FKV_FAILED;
    if (!strcmp(format, "freqkv-probe")) return plot_probe(in, path, stem, err);
    if (strcmp(format, "freqkv-run"))
        return fkv_fail(
            err, "%s: attribute format: expected \"freqkv-run\" or \"freqkv-probe\", found \"%s\"",
            path, format);
    if (fkv_run_read(path, &in->runs[in->run_count], err)) return FKV_FAILED;
    in->run_count++;
    return FKV_OK;
}

static void print_left_out(const struct inputs *in) {
    size_t i;
    json_t *row;
    json_array_foreach(in->left_out, i, row)
        printf("left out of %s: %s: %s\n", json_string_value(json_object_get(row, "figure")),
               json_string_value(json_object_get(row, "file")),
               json_string_value(json_object_get(row, "reason")));
}

static int report(const struct inputs *in, struct fkv_error *err) {
    const char *out = in->o->common.out;
    if (!in->figures) {
        const json_t *first = json_array_get(in->left_out, 0);
        const char *file = json_string_value(json_object_get(first, "file")),
                   *reason = json_string_value(json_object_get(first, "reason"));
        return fkv_fail(err, "%s: no figure: %s", file ? file : in->o->files[0],
                        reason ? reason : "nothing in it to draw");
    }
    if (!in->o->common.json) {
        printf("%s: %d figure%s of %d run%s, %d probe%s, %d table%s\n", out, in->figures,
               in->figures == 1 ? "" : "s", in->run_count, in->run_count == 1 ? "" : "s",
               in->probes, in->probes == 1 ? "" : "s", in->tables, in->tables == 1 ? "" : "s");
        print_left_out(in);
        return FKV_OK;
    }
    json_t *object = json_pack("{s:s, s:i, s:i, s:i, s:i, s:O}", "out", out, "runs", in->run_count,
                               "probes", in->probes, "tables", in->tables, "figures", in->figures,
                               "left_out", in->left_out);
    return object ? fkv_json_print(object, err)
                  : fkv_fail(err, "%s: is not UTF-8, which JSON needs", out);
}

int fkv_command_plot(int argc, char **argv) {
    struct options o = {0};
    struct fkv_error err = {0};
    char *command = fkv_join_arguments(argc, argv);
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    fkv_sha256_hex sha = "";
    struct inputs in = {.o = &o,
                        .provenance = {FKV_VERSION, sha, command, in.model},
                        .runs = calloc((size_t)o.count, sizeof *in.runs),
                        .left_out = json_array()};
    int status = command && in.runs && in.left_out ? fkv_sha256_files(o.files, o.count, sha, &err)
                                                   : fkv_fail(&err, "out of memory");
    if (!status) status = check_names(&o, &err);
    if (!status) status = fkv_make_directories(o.common.out, &err);
    for (int i = 0; !status && i < o.count; i++) status = plot_file(&in, o.files[i], &err);
    if (!status && in.run_count) status = plot_runs(&in, &err);
    if (!status) status = report(&in, &err);
    for (int32_t i = 0; i < in.run_count; i++) fkv_run_free(&in.runs[i]);
    json_decref(in.left_out);
    free(in.runs);
    free(o.files);
    free(command);
    return status ? fkv_command_failed("plot", &o.common, &err) : FKV_EXIT_DONE;
}
