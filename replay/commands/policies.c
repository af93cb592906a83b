/* freqkv-replay policies: the table of cache policies for people, and the page of help of one, with
 * its own options and what its fields say. Everything printed comes from the policies' files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command_line.h"
#include "kernels/base/json.h"
#include "replay/commands/commands.h"

enum { COLUMNS = 80 };

struct settings {
    const struct fkv_policy *policy; /* NULL: all */
    bool json;
};

static const char doc[] =
    "Lists the cache policies; with a name, prints the page of help of that one: what it keeps, "
    "its source, its rule of positions, where paper and code differ, its options.\n\n"
    "Example:\n"
    "  freqkv-replay policies freqkv\n"
    "\v" FKV_SEE_MANUAL;

static const struct argp_option options[] = {FKV_JSON_ROW(1), {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_error err;
    switch (key) {
    case FKV_LETTER_JSON: s->json = true; return 0;
    case ARGP_KEY_ARG:
        if (s->policy) argp_error(state, "expected one policy, found \"%s\", too", arg);
        s->policy = fkv_policy_find(arg, &err);
        if (!s->policy) argp_error(state, "%s", err.message);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "[NAME]", doc, NULL, NULL, NULL};

/* Words of the text in lines of at most COLUMNS, `indent` spaces before each but the first. */
static void print_wrapped(const char *text, int indent) {
    int column = indent;
    for (const char *word = text; *word;) {
        const int length = (int)strcspn(word, " ");
        if (column > indent && column + 1 + length > COLUMNS) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", length, word);
        column += length;
        word += length;
        word += strspn(word, " ");
    }
    putchar('\n');
}

/* "--budget SLOTS", then what it does, its default and its range; a limit that stands for none is
 * not shown. */
static int print_option(const struct fkv_policy_option *o, struct fkv_error *err) {
    enum { INDENT = 8, NO_LIMIT = 1 << 20 };
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return fkv_fail(err, "out of memory for a page");
    fputs(o->help, f);
    fkv_own_print_standard(f, o);
    if (o->kind == FKV_OPTION_INTEGER) fprintf(f, ", at least %lld", (long long)o->low);
    if (o->kind == FKV_OPTION_INTEGER && o->high < NO_LIMIT)
        fprintf(f, " and at most %lld", (long long)o->high);
    fclose(f);
    printf("  --%s%s%s\n%*s", o->name, o->argument ? " " : "", o->argument ? o->argument : "",
           INDENT, "");
    print_wrapped(text, INDENT);
    free(text);
    return FKV_OK;
}

/* What the session does with the fields of a policy. */
static void print_general(const struct fkv_policy *policy) {
    const struct {
        bool holds;
        const char *text;
    } lines[] = {
        {policy->takes_window && !policy->without_sinks,
         "It takes --window and --sinks: no query sees more than N slots or a position past them."},
        {policy->takes_window && policy->without_sinks,
         "It takes --window: no query sees a distance of more than N. --sinks is not used."},
        {policy->keeps_every_token, "Every token keeps its slot: memory is not saved."},
        {policy->takes_table, "Heads have policies and ratios of their own, from --table."},
        {!policy->takes_window, "It has no window: --window and --sinks are not used."},
        {policy->takes_ratio, "It takes --gamma, one ratio, one per layer or one per head."},
        {policy->maps_slots, "Slots become linear combinations of slots."},
        {policy->select, "It acts at the end of prefill blocks and needs --protocol blocks:b; "
                         "generate takes the prompt as one block. A block is held whole."},
        {policy->select && fkv_policy_sees_queries(policy), "What it keeps depends on queries."},
        {policy->choose, "What a query sees depends on the query."},
        {policy->select && !fkv_policy_sees_queries(policy), "What it keeps depends on no query."},
        {policy->takes_window || policy->select,
         "Layers that slide over fewer tokens by themselves are left alone."},
        {policy->counts_compressions, "An action of a head is counted as a compression."},
        {policy->counts_evictions, "An action of a head is counted as an eviction."},
        {policy->evicts_every_token, "Every token past the window is counted as an eviction."},
        {true, "--cache-quant rounds what it keeps."},
    };
    puts("\nIn general:");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (!lines[i].holds) continue;
        fputs("  ", stdout);
        print_wrapped(lines[i].text, 2);
    }
}

static int print_page(const struct fkv_policy *policy, struct fkv_error *err) {
    const size_t length = strlen(policy->page);
    const bool ended = length && policy->page[length - 1] == '\n';
    printf("%s: %s\n\n%s%s", policy->name, policy->summary, policy->page, ended ? "" : "\n");
    if (policy->options) puts("\nOptions of its own:");
    for (const struct fkv_policy_option *o = policy->options; o && o->name; o++)
        if (print_option(o, err)) return FKV_FAILED;
    print_general(policy);
    return FKV_OK;
}

static json_t *policy_json(const struct fkv_policy *policy) {
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:b}", "name", policy->name, "summary",
                     policy->summary, "page", policy->page, "takes_window", policy->takes_window,
                     "takes_ratio", policy->takes_ratio, "selects", policy->select != NULL,
                     "sees_queries", fkv_policy_sees_queries(policy));
}

static int print_json(const struct settings *s, struct fkv_error *err) {
    json_t *rows = json_array();
    for (int i = 0; fkv_policies[i]; i++)
        if (!s->policy || s->policy == fkv_policies[i])
            json_array_append_new(rows, policy_json(fkv_policies[i]));
    return fkv_json_print(json_pack("{s:o}", "policies", rows), err);
}

static void print_list(void) {
    int width = 0;
    for (int i = 0; fkv_policies[i]; i++) {
        const int length = (int)strlen(fkv_policies[i]->name);
        if (length > width) width = length;
    }
    for (int i = 0; fkv_policies[i]; i++)
        printf("%-*s  %s\n", width, fkv_policies[i]->name, fkv_policies[i]->summary);
}

int fkv_command_policies(int argc, char **argv) {
    struct settings s = {0};
    struct fkv_error err = {0};
    int status = FKV_OK;
    argp_parse(&parser, argc, argv, 0, NULL, &s);
    if (s.json)
        status = print_json(&s, &err);
    else if (s.policy)
        status = print_page(s.policy, &err);
    else
        print_list();
    return status ? fkv_tool_failed("freqkv-replay policies", &err) : FKV_EXIT_DONE;
}
