/* Options that say how rows become prompts and what ends their continuations. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "replay/generate/prompts.h"

enum { OPT_STOP = FKV_NO_LETTER, OPT_TRUNCATE, OPT_CHAT, OPT_CHAT_SET, OPT_DATE };

/* NAME=VALUE, where VALUE is JSON or else a text. */
static int add_chat_option(struct fkv_prompt_reader *r, const char *arg, struct fkv_error *err) {
    const char *equals = strchr(arg, '=');
    if (!equals || equals == arg)
        return fkv_fail(err, "--chat-set: expected NAME=VALUE, found %.200s", arg);
    char *name = strndup(arg, (size_t)(equals - arg));
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!value) value = json_string(equals + 1);
    if (!r->chat_options) r->chat_options = json_object();
    const int status = name && !json_object_set_new(r->chat_options, name, value)
                           ? FKV_OK
                           : fkv_fail(err, "--chat-set: expected text in UTF-8, found other bytes");
    free(name);
    return status;
}

static int add_stop(struct fkv_prompt_reader *r, const char *arg, struct fkv_error *err) {
    if (!*arg) return fkv_fail(err, "--stop: expected a text, found an empty one");
    if (!r->stops) r->stops = json_array();
    return json_array_append_new(r->stops, json_string(arg))
               ? fkv_fail(err, "--stop: expected text in UTF-8, found other bytes")
               : FKV_OK;
}

static int set_date(struct fkv_prompt_reader *r, const char *arg, struct fkv_error *err) {
    struct tm date = {0};
    const char *end = strptime(arg, "%Y-%m-%d", &date);
    const int day = date.tm_mday;
    timegm(&date); /* a day beyond its month's last moves to the next month */
    if (!end || *end || strlen(arg) != 10 || date.tm_mday != day)
        return fkv_fail(err, "--date: expected YYYY-MM-DD, found %.200s", arg);
    r->date = arg;
    return FKV_OK;
}

static int set_truncate(struct fkv_prompt_reader *r, const char *arg, struct fkv_error *err) {
    if (strncmp(arg, "middle:", 7) != 0)
        return fkv_fail(err, "--truncate: expected middle:TOKENS, found %.200s", arg);
    return fkv_parse_int(arg + 7, "--truncate", 2, 1 << 30, &r->truncate, err);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct fkv_prompt_reader *r = state->input;
    struct fkv_error err = {0};
    int status;
    switch (key) {
    case OPT_STOP: status = add_stop(r, arg, &err); break;
    case OPT_TRUNCATE: status = set_truncate(r, arg, &err); break;
    case OPT_CHAT: r->chat = true; return 0;
    case OPT_CHAT_SET: status = add_chat_option(r, arg, &err); break;
    case OPT_DATE: status = set_date(r, arg, &err); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (status) argp_error(state, "%s", err.message);
    return 0;
}

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Prompts:", 6},
    {"stop", OPT_STOP, "TEXT", 0, "end a continuation before TEXT; may be repeated", 6},
    {"truncate", OPT_TRUNCATE, "middle:T", 0,
     "of texts of more than T tokens keep the first and the last half of T (LongBench)", 6},
    {"chat", OPT_CHAT, 0, 0, "a prompt is a user's message, in the model's chat template", 6},
    {"chat-set", OPT_CHAT_SET, "NAME=VALUE", 0,
     "a variable of the template, as enable_thinking=false; may be repeated", 6},
    {"date", OPT_DATE, "YYYY-MM-DD", 0, "today, to templates that ask (default: none)", 6},
    {0},
};
const struct argp fkv_prompts_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};
