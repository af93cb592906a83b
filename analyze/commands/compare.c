/* freqkv-analyze compare: runs against runs over the same tokens. */
#include <stdio.h>
#include <stdlib.h>

#include "analyze/commands/command.h"
#include "analyze/compare/compare.h"
#include "analyze/tables/sources.h"
#include "kernels/base/arguments.h"
#include "kernels/base/hash.h"
#include "kernels/base/host.h"

enum { OPT_BY = FKV_NO_LETTER };
enum { MOST_RUNS = 64 };

struct options {
    struct fkv_common_options common;
    const char *files[MOST_RUNS]; /* [count] */
    int count;
    enum fkv_grouping by;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->common; break;
    case OPT_BY:
        o->by = fkv_grouping_find(arg);
        if (o->by == FKV_GROUPINGS || o->by == FKV_ALL_TOKENS)
            argp_error(state, "--by: expected position, class or document, found \"%s\"", arg);
        break;
    case ARGP_KEY_ARG:
        if (o->count == MOST_RUNS) argp_error(state, "expected at most %d runs", MOST_RUNS);
        o->files[o->count++] = arg;
        break;
    case ARGP_KEY_END:
        if (o->count < 2) argp_error(state, "expected two RUN.h5 or more, found %d", o->count);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "Runs against runs: paired differences over the same tokens.\n\n"
    "Example:\n"
    "  freqkv-analyze compare local.h5 freqkv.h5 --by position --out findings\n"
    "\v"
    "Every run is compared with every other one: nll, and KL and top-1 agreement where both have a "
    "baseline; overall, by position in the text, by class of token and by document. Runs that "
    "scored other tokens are refused; models and protocols may differ.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options_list[] = {
    {"by", OPT_BY, "GROUPS", 0,
     "print groups, too: position, class or document (compare.csv has all of them)", 0},
    {0},
};
static const struct argp_child children[] = {{&fkv_common_argp, 0, "Common options:", 10}, {0}};
static const struct argp parser = {options_list, parse, "A.h5 B.h5... --out DIR", doc, children,
                                   NULL,         NULL};

static int compare(const struct options *o, const struct fkv_provenance *p, struct fkv_run *runs,
                   struct fkv_comparison *c, struct fkv_error *err) {
    const char *folder = o->common.out;
    for (int i = 0; i < o->count; i++)
        if (fkv_run_read(o->files[i], &runs[i], err)) return FKV_FAILED;
    const struct fkv_provenance provenance = {p->version, p->capture_sha256, p->command,
                                              runs->model_name};
    struct fkv_plot_target to = {.folder = folder, .provenance = &provenance};
    if (fkv_comparison_check(runs, o->count, err) || fkv_make_directories(folder, err) ||
        fkv_plot_check_ours(&to, "compare", err) || fkv_comparison_make(runs, o->count, c, err))
        return FKV_FAILED;
    for (const struct fkv_figure_row *f = fkv_figures; f->files; f++)
        if (f->comparison && f->comparison(c, &to, err)) return FKV_FAILED;
    if (fkv_comparison_write(folder, c, err) || fkv_sources_of_runs(runs, o->count, folder, err))
        return FKV_FAILED;
    return fkv_comparison_print(c, o->by, o->common.json, err);
}

int fkv_command_compare(int argc, char **argv) {
    struct options o = {0};
    struct fkv_error err = {0};
    struct fkv_comparison comparison = {0};
    fkv_sha256_hex sha = "";
    char *command = fkv_join_arguments(argc, argv);
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    struct fkv_run *runs = calloc((size_t)o.count, sizeof *runs);
    const struct fkv_provenance provenance = {FKV_VERSION, sha, command, ""};
    int status = command && runs ? fkv_sha256_files(o.files, o.count, sha, &err)
                                 : fkv_fail(&err, "out of memory");
    if (!status) status = compare(&o, &provenance, runs, &comparison, &err);
    fkv_comparison_free(&comparison);
    for (int i = 0; runs && i < o.count; i++) fkv_run_free(&runs[i]);
    free(runs);
    free(command);
    return status ? fkv_command_failed("compare", &o.common, &err) : FKV_EXIT_DONE;
}
