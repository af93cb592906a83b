/* freqkv-analyze report: all findings of a folder as one page. */
#include <stdio.h>
#include <stdlib.h>

#include "analyze/commands/command.h"
#include "analyze/report/report.h"
#include "kernels/base/arguments.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"

struct options {
    const char *folder;
    bool quiet, json;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case FKV_LETTER_QUIET: o->quiet = true; break;
    case FKV_LETTER_JSON: o->json = true; break;
    case ARGP_KEY_ARG:
        if (o->folder) argp_error(state, "expected one DIR, found \"%s\" as well", arg);
        o->folder = arg;
        break;
    case ARGP_KEY_END:
        if (!o->folder) argp_error(state, "DIR is missing");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char doc[] =
    "One page of everything in a folder of findings: DIR/report.html.\n\n"
    "Examples:\n"
    "  freqkv-analyze spectrum my-capture --out findings\n"
    "  freqkv-analyze error my-capture --out findings\n"
    "  freqkv-analyze report findings\n"
    "\v"
    "DIR is the --out of the other commands; `spectrum`, `error` or `gamma` must be among "
    "them. The page is one file that loads nothing: open it, mail it, print it.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options_list[] = {
    FKV_QUIET_ROW(0),
    FKV_JSON_ROW(0),
    {0},
};
static const struct argp parser = {options_list, parse, "DIR", doc, NULL, NULL, NULL};

static json_t *list_json(const struct fkv_text_list *list) {
    json_t *array = json_array();
    for (int i = 0; i < list->count; i++) {
        json_t *text = json_string(list->text[i]);
        json_array_append_new(array, text ? text : json_null()); /* a name that is not UTF-8 */
    }
    return array;
}

static int print(const struct options *o, const struct fkv_report_outline *outline,
                 struct fkv_error *err) {
    if (o->json) {
        json_t *object =
            json_pack("{s:s, s:I, s:i, s:o, s:o, s:o}", "report", outline->path, "bytes",
                      (json_int_t)outline->bytes, "figures", outline->figures, "sections",
                      list_json(&outline->sections), "summary", list_json(&outline->summary),
                      "left_out", list_json(&outline->left_out));
        return object ? fkv_json_print(object, err)
                      : fkv_fail(err, "%s: its path is not UTF-8, which JSON needs", outline->path);
    }
    for (int i = 0; i < outline->summary.count; i++) printf("%s\n", outline->summary.text[i]);
    printf("%s: %s, %d figure%s\n", outline->path, fkv_bytes_text(outline->bytes).text,
           outline->figures, outline->figures == 1 ? "" : "s");
    for (int i = 0; !o->quiet && i < outline->left_out.count; i++)
        fprintf(stderr, "left out: %s\n", outline->left_out.text[i]);
    return FKV_OK;
}

int fkv_command_report(int argc, char **argv) {
    struct options o = {0};
    struct fkv_report_outline outline;
    struct fkv_error err = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    int status = fkv_report_write(o.folder, &outline, &err);
    if (!status) status = print(&o, &outline, &err);
    fkv_report_outline_free(&outline);
    return status ? fkv_command_failed("report", NULL, &err) : FKV_EXIT_DONE;
}
