/* freqkv-replay generate: one prompt to the terminal as it comes, or a file of prompts to a file
 * that grows by a line per prompt (continuations.h). A prompt's text is decoded together with
 * its continuation and only what comes after is shown, because sentencepiece tokenizers treat
 * the first word of a text differently. What may begin a stop string is shown when it is known
 * not to.
 *
 * Prompts side by side change the rounding of each other's logits, so a run that is resumed must
 * come back to the same neighbours: prompts run in groups, a group starts when the one before is
 * done, and a resumed run computes a group of which a line is missing once more. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/base/letters.h"
#include "kernels/base/parse.h"
#include "kernels/base/progress.h"
#include "replay/commands/commands.h"
#include "replay/generate/continuations.h"

enum { OPT_PROMPT = FKV_NO_LETTER, OPT_PROMPTS, OPT_TOKENS, OPT_TEMPERATURE, OPT_SEED };
/* Prompts of a group, per lane. More: lanes idle less at its end. Fewer: less is computed again. */
enum { PER_LANE = 8 };

struct settings {
    struct fkv_replay replay;
    const char *prompt, *prompts;
    int64_t tokens, seed;
    double temperature;
    bool resume;
    struct fkv_prompt_reader reader;
};

static const char doc[] =
    "Continues prompts under a cache policy.\n\n"
    "Examples:\n"
    "  freqkv-replay generate --model data/litbank-1m --prompt 'The captain' \\\n"
    "      --policy freqkv --window 64 --tokens 100\n"
    "  freqkv-replay generate --model data/litbank-1m --prompts in.jsonl \\\n"
    "      --out out.jsonl --temperature 0.8 --seed 1\n"
    "  freqkv-replay generate --model SmolLM2-135M-Instruct.gguf --chat \\\n"
    "      --prompt 'Who wrote Moby Dick?' --stop .\n"
    "\v"
    "A line of IN.jsonl has \"prompt\" or \"messages\" and may have \"id\", \"stop\", "
    "\"max_tokens\", \"chat\" and \"answer_prefix\". "
    "A seed gives a prompt the same continuation whatever other prompts run beside it. "
    "OUT.jsonl grows by a line as soon as a prompt and those before it are done; the same "
    "command with --resume goes on after the last whole line.\n\n" FKV_SEE_MANUAL;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Generation:", 5},
    {"prompt", OPT_PROMPT, "TEXT", 0, "continue this text and print what comes", 5},
    {"prompts", OPT_PROMPTS, "IN.jsonl", 0, "continue every line's \"prompt\" or \"messages\"", 5},
    {"out", FKV_LETTER_OUT, "OUT.jsonl", 0, "a new file: one line per prompt", 5},
    {"resume", FKV_LETTER_RESUME, 0, 0, "go on in a file whose run was interrupted", 5},
    {"tokens", OPT_TOKENS, "T", 0, "most tokens to generate per prompt (default 128)", 5},
    {"temperature", OPT_TEMPERATURE, "t", 0, "0 (default): always the most likely token", 5},
    {"seed", OPT_SEED, "s", 0, "of the sampling (default 0)", 5},
    FKV_DRY_RUN_ROW(5),
    {0},
};

static void check_options(const struct settings *s, struct argp_state *state) {
    if (s->replay.options.text_count || s->replay.options.token_ids_count)
        argp_error(state, "generate reads --prompt or --prompts, not --text or --token-ids");
    if (!s->prompt == !s->prompts) argp_error(state, "give --prompt or --prompts");
    if (s->prompts && !s->replay.out) argp_error(state, "--prompts needs --out");
    if (s->resume && !s->replay.out) argp_error(state, "--resume needs --out");
    if (s->prompt && !s->reader.chat && (s->reader.chat_options || s->reader.date))
        argp_error(state, "--chat-set and --date are the chat template's: expected --chat, too");
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_error err = {0};
    int status = FKV_OK;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->replay.options;
        state->child_inputs[1] = &s->replay.policy;
        state->child_inputs[2] = &s->reader;
        return 0;
    case OPT_PROMPT: s->prompt = arg; return 0;
    case OPT_PROMPTS: s->prompts = arg; return 0;
    case FKV_LETTER_OUT: s->replay.out = arg; return 0;
    case FKV_LETTER_RESUME: s->resume = true; return 0;
    case FKV_LETTER_DRY_RUN: s->replay.dry_run = true; return 0;
    case OPT_TOKENS: status = fkv_parse_int(arg, "--tokens", 1, 1 << 30, &s->tokens, &err); break;
    case OPT_TEMPERATURE:
        status = fkv_parse_double(arg, "--temperature", 0, 1000, &s->temperature, &err);
        break;
    case OPT_SEED: status = fkv_parse_int(arg, "--seed", 0, INT64_MAX, &s->seed, &err); break;
    case ARGP_KEY_END: check_options(s, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (status) argp_error(state, "%s", err.message);
    return 0;
}

static const struct argp_child children[] = {{&fkv_engine_argp, 0, NULL, 0},
                                             {&fkv_policy_argp, 0, NULL, 0},
                                             {&fkv_prompts_argp, 0, NULL, 0},
                                             {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

/* ---- output ---- */

/* A run under way, and where its continuations go. */
struct job {
    const struct settings *s;
    const struct fkv_continuing *lines;
    struct fkv_stopped_text text;       /* to the terminal */
    bool live;                          /* text is shown as it comes */
    int64_t pushed;                     /* ids given to it */
    size_t shown;                       /* bytes of it */
    struct fkv_lines_file *file;        /* OUT.jsonl; else NULL */
    size_t found, next;                 /* lines that were found; the next one to write */
    const struct fkv_generation *group; /* the generations under way, from prompt `first` on */
    size_t first, count;
    int64_t prompt_tokens, tokens; /* of all lines */
    int64_t fed, drawn;            /* by this run */
    struct fkv_generation_times times;
    struct fkv_progress progress;
    double prompt_seconds,
        token_seconds;   /* what a token of a prompt, and one drawn, should take; 0: not known */
    double seconds;      /* expected of all that is left */
    double done_seconds; /* of that, of what is done */
};

/* The bytes of the text that are new, to the terminal. */
static int show(struct job *job, const struct fkv_generation *g, struct fkv_error *err) {
    struct fkv_stopped_text *text = &job->text;
    if (job->pushed < g->count && fkv_stopped_text_push(text, g->ids[job->pushed++], err))
        return FKV_FAILED;
    if (g->complete && fkv_stopped_text_finish(text, err)) return FKV_FAILED;
    if (job->shown < text->settled)
        fwrite(text->text + job->shown, 1, text->settled - job->shown, stdout);
    job->shown = text->settled;
    fflush(stdout);
    return ferror(stdout) ? fkv_fail_errno(err, "standard output") : FKV_OK;
}

/* Line i goes to the file, or to standard output, if it is not there yet. */
static int put_line(struct job *job, size_t i, const struct fkv_generation *g,
                    struct fkv_error *err) {
    if (i < job->found) return FKV_OK;
    job->prompt_tokens += g->prompt_count;
    job->tokens += g->count;
    json_t *line = fkv_continuation_json(job->lines, i, g, err);
    if (!line) return FKV_FAILED;
    if (!job->file) return fkv_json_print(line, err);
    int status = fkv_lines_append_json(job->file, line, err);
    json_decref(line);
    return status;
}

static int watch(void *context, const struct fkv_generation *g, struct fkv_error *err) {
    struct job *job = context;
    if (job->live && show(job, g, err)) return FKV_FAILED;
    if (g->count < 2) job->done_seconds += (double)g->prompt_count * job->prompt_seconds;
    job->done_seconds += job->token_seconds;
    if (g->complete)
        job->done_seconds +=
            (double)(g->most - g->count) * job->token_seconds; /* no longer to come */
    fkv_progress_update_work(&job->progress, (int64_t)job->next,
                             job->seconds > 0 ? job->done_seconds : (double)job->next, "");
    if (!g->complete) return FKV_OK;
    job->fed += g->prompt_count;
    job->drawn += g->count;
    for (; job->next < job->first + job->count && job->group[job->next - job->first].complete;
         job->next++)
        if (!job->live && put_line(job, job->next, &job->group[job->next - job->first], err))
            return FKV_FAILED;
    return FKV_OK;
}

/* On stderr; and of a file, as the result. */
static int print_summary(const struct job *job, struct fkv_error *err) {
    const struct fkv_replay *r = &job->s->replay;
    const double prefill = (double)job->fed / job->times.prefill_seconds,
                 decode = (double)job->drawn / job->times.decode_seconds;
    if (!r->options.quiet && job->fed)
        fprintf(stderr,
                "prefill %" PRId64 " tokens, %.1f tokens/s; generated %" PRId64
                " tokens, %.1f tokens/s\n",
                job->fed, prefill, job->drawn, decode);
    if (!r->out) return FKV_OK;
    if (!r->options.json) {
        printf("%s: %zu prompts continued, %" PRId64 " tokens\n", r->out,
               job->lines->prompts->count, job->tokens);
        return FKV_OK;
    }
    return fkv_json_print(
        json_pack("{s:o, s:I, s:I, s:I, s:I, s:o, s:o}", "out", fkv_json_string(r->out), "prompts",
                  (json_int_t)job->lines->prompts->count, "prompts_there", (json_int_t)job->found,
                  "prompt_tokens", (json_int_t)job->prompt_tokens, "tokens",
                  (json_int_t)job->tokens, "prefill_tokens_per_s", fkv_json_number(prefill),
                  "decode_tokens_per_s", fkv_json_number(decode)),
        err);
}

/* ---- running ---- */

/* Prompts [first, first + count) side by side, from a clean start. */
static int run_group(struct job *job, struct fkv_session *session,
                     const struct fkv_generation_options *how, struct fkv_error *err) {
    struct fkv_generation *group = calloc(job->count, sizeof *group);
    if (!group) return fkv_fail(err, "out of memory for %zu prompts", job->count);
    for (size_t i = 0; i < job->count; i++) {
        const struct fkv_prompt *prompt = &job->lines->prompts->all[job->first + i];
        group[i] = (struct fkv_generation){.prompt = prompt->tokens,
                                           .prompt_count = (int64_t)prompt->count,
                                           .number = (int64_t)(job->first + i) + 1,
                                           .most = fkv_prompt_most(prompt, job->s->tokens),
                                           .stops = &prompt->stops};
    }
    job->group = group;
    job->next = job->first;
    int status = fkv_generate(session, group, (int64_t)job->count, how, &job->times, err);
    for (size_t i = 0; i < job->count; i++) fkv_generation_free(&group[i]);
    free(group);
    return status;
}

static size_t group_size(int32_t lanes) { return lanes == 1 ? 1 : (size_t)lanes * PER_LANE; }

/* The first prompt of the first group that is not done. */
static size_t first_left(const struct job *job, int32_t lanes) {
    if (job->found == job->lines->prompts->count) return job->found;
    return job->found / group_size(lanes) * group_size(lanes);
}

static int run_prompts(struct job *job, struct fkv_session *session,
                       const struct fkv_session_options *options, struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_prompts *p = job->lines->prompts;
    const size_t size = group_size(options->sequences);
    const struct fkv_generation_options how = {.tokens = s->tokens,
                                               .tokenizer = job->lines->tokenizer,
                                               .temperature = s->temperature,
                                               .seed = (uint64_t)s->seed,
                                               .lanes = options->sequences,
                                               .block = options->block,
                                               .watch = watch,
                                               .context = job};
    job->live = !s->replay.out && !s->replay.options.json;
    if (job->live && fkv_stopped_text_open(&job->text, job->lines->tokenizer, p->all[0].tokens,
                                           p->all[0].count, &p->all[0].stops, err))
        return FKV_FAILED;
    int status = FKV_OK;
    fkv_progress_start(&job->progress, "prompts", (int64_t)p->count,
                       s->replay.options.quiet || job->live);
    fkv_progress_weigh(&job->progress, job->seconds);
    for (job->first = first_left(job, options->sequences); job->first < p->count && !status;
         job->first += size) {
        job->count = p->count - job->first < size ? p->count - job->first : size;
        status = run_group(job, session, &how, err);
    }
    fkv_progress_finish(&job->progress);
    fkv_stopped_text_close(&job->text);
    if (job->live) putchar('\n');
    return status;
}

/* What is left to do of the prompts, from `first` on. */
static int check_needs(const struct settings *s, const struct fkv_prompts *p, size_t first,
                       const struct fkv_session_options *options, struct fkv_needs *needs,
                       struct fkv_error *err) {
    const struct fkv_model *model = s->replay.engine.model;
    const int64_t count = (int64_t)(p->count - first),
                  line = 512; /* bytes of a line without its tokens */
    *needs = (struct fkv_needs){.documents = count,
                                .weights = model->weight_bytes,
                                .host = options->sequences * (int64_t)sizeof(float) *
                                        model->config.vocab,
                                .output = s->replay.out};
    int64_t drawn = 0;
    for (size_t i = first; i < p->count; i++) {
        needs->tokens += (int64_t)p->all[i].count;
        drawn += fkv_prompt_most(&p->all[i], s->tokens);
    }
    needs->fed = needs->tokens + drawn - count; /* the last one is not fed */
    if (s->replay.out) needs->disk = count * line + 16 * drawn + 8 * needs->tokens;
    if (fkv_session_add_needs(model, &s->replay.policy, options, &needs->sessions, err))
        return FKV_FAILED;
    FILE *to = fkv_replay_announce(&s->replay);
    if (to)
        fprintf(to,
                "%" PRId64 " prompt%s%s, %" PRId64 " tokens; at most %" PRId64
                " tokens to generate\n",
                count, count == 1 ? "" : "s", first ? " left" : "", needs->tokens, drawn);
    return fkv_needs_check(needs, &s->replay.engine, to, err);
}

/* Prompts go in blocks, one after the other; what is generated goes one by one, side by side. */
static int estimate_time(struct job *job, struct fkv_session *session,
                         const struct fkv_session_options *options, struct fkv_needs *needs,
                         struct fkv_error *err) {
    const struct settings *s = job->s;
    const struct fkv_policy_setup *setup = job->lines->setup;
    const int64_t longest = (int64_t)job->lines->prompts->longest,
                  whole = fkv_prompts_reach(job->lines->prompts, s->tokens);
    struct fkv_cost prompt, decode;
    if (!fkv_replay_tells_time(&s->replay)) return FKV_OK;
    if (fkv_session_rehearse(session, 1, options->block, longest, FKV_NOT_SCORED, &prompt, err) ||
        fkv_session_rehearse(session, options->sequences, 1, whole, FKV_SCORED, &decode, err))
        return FKV_FAILED;
    const double before = fkv_policy_slots(setup, longest), after = fkv_policy_slots(setup, whole);
    job->prompt_seconds = fkv_cost_seconds(&prompt, 1, before / (double)longest);
    job->token_seconds = fkv_cost_seconds(&decode, 1, (after - before) / (double)(whole - longest));
    const double drawn = (double)(needs->fed - needs->tokens + needs->documents);
    needs->seconds = (double)needs->tokens * job->prompt_seconds + drawn * job->token_seconds;
    return fkv_replay_tell_time(&s->replay, needs, err);
}

/* After a failure: what is in the file, and how to go on. */
static void say_what_is_there(const struct job *job, struct fkv_error *err) {
    const struct fkv_error why = *err;
    fkv_fail(err, "%.800s (%zu lines are whole; the same command with --resume goes on)",
             why.message, job->next > job->found ? job->next : job->found);
}

static int with_session(struct job *job, const struct fkv_session_options *options,
                        const json_t *identity, const struct fkv_continued *found,
                        struct fkv_error *err) {
    const struct fkv_replay *r = &job->s->replay;
    const struct fkv_policy_setup *setup = job->lines->setup;
    const struct fkv_config *config = &r->engine.model->config;
    struct fkv_session *session;
    struct fkv_needs needs;
    const size_t first = first_left(job, options->sequences);
    if (check_needs(job->s, job->lines->prompts, first, options, &needs, err) ||
        fkv_replay_session(r, &r->policy, options, &session, err))
        return FKV_FAILED;
    const int64_t reach = setup->policy->takes_window ? setup->window : options->max_tokens;
    FILE *notes = r->options.quiet ? NULL : stderr;
    if (notes && reach > config->trained_context)
        fprintf(notes, "warning: positions may pass the trained context of %d\n",
                config->trained_context);
    fkv_policy_note_unused(&r->policy, notes);
    fkv_policy_note_left_alone(setup, config, notes);
    if (notes && setup->policy->takes_window && options->max_tokens <= setup->window)
        fprintf(
            notes,
            "note: no prompt grows longer than the window of %d slots: policy %s will do nothing\n",
            setup->window, setup->policy->name);
    int status = estimate_time(job, session, options, &needs, err);
    job->seconds = needs.seconds;
    if (!status && !r->dry_run) {
        if (r->out)
            status = fkv_lines_open(r->out, identity, found->file.bytes, found->file.torn,
                                    &job->file, err);
        if (!status) status = run_prompts(job, session, options, err);
        if (status && r->out && job->next) say_what_is_there(job, err);
        fkv_lines_close(job->file);
    }
    fkv_session_close(session);
    return status;
}

/* What an earlier run left of the lines, and what identifies them. */
static int look_up(struct job *job, const struct fkv_session_options *options, json_t **identity,
                   struct fkv_continued *found, struct fkv_error *err) {
    const struct fkv_replay *r = &job->s->replay;
    const struct fkv_continuing *lines = job->lines;
    if (!r->out || (r->dry_run && !job->s->resume)) return FKV_OK;
    const int64_t positions =
        fkv_identity_rope_positions(&r->engine.model->config, lines->setup, options->max_tokens);
    *identity = fkv_continuing_identity(lines, r, options->sequences, positions, err);
    if (!*identity) return FKV_FAILED;
    if (job->s->resume && fkv_continuations_find(r->out, lines, *identity, found, err))
        return FKV_FAILED;
    job->found = (size_t)found->file.lines;
    job->prompt_tokens = found->prompt_tokens;
    job->tokens = found->tokens;
    if (!r->options.quiet && job->s->resume)
        fprintf(stderr, "%s: %zu of %zu prompts are done%s\n", r->out, job->found,
                lines->prompts->count,
                found->file.torn ? "; a line that is not whole is dropped" : "");
    return FKV_OK;
}

static int run(const struct settings *s, const struct fkv_prompts *p, struct fkv_error *err) {
    const struct fkv_replay *r = &s->replay;
    const int32_t batch = r->options.batch;
    const int32_t lanes = (int64_t)p->count < batch ? (int32_t)p->count : batch;
    const int64_t reach = fkv_prompts_reach(p, s->tokens);
    struct fkv_session_options options;
    struct fkv_policy_setup setup;
    if (fkv_replay_session_options(r, &r->policy, lanes, reach, &options, err) ||
        fkv_policy_setup(&r->policy, &r->engine.model->config, reach, &setup, err))
        return FKV_FAILED;
    const struct fkv_continuing lines = {.prompts = p,
                                         .tokenizer = r->engine.tokenizer,
                                         .setup = &setup,
                                         .tokens = s->tokens,
                                         .seed = s->seed,
                                         .temperature = s->temperature};
    struct job job = {.s = s, .lines = &lines};
    struct fkv_continued found = {0};
    json_t *identity = NULL;
    int status = look_up(&job, &options, &identity, &found, err);
    bool left = job.found < p->count || r->dry_run;
    if (!status && left) status = with_session(&job, &options, identity, &found, err);
    if (!status && !r->dry_run) status = print_summary(&job, err);
    json_decref(identity);
    fkv_policy_setup_free(&setup);
    return status;
}

/* Refused at once and not after hours: an output that another run made or that cannot be
 * written. */
static int check_output(const struct settings *s, struct fkv_error *err) {
    const char *out = s->replay.out;
    if (!out || (s->resume && access(out, F_OK) == 0)) return FKV_OK;
    char *description = fkv_lines_identity_path(out);
    int status =
        description ? fkv_check_new_file(out, err) : fkv_fail(err, "%s: out of memory", out);
    if (!status && !s->resume) status = fkv_check_new_file(description, err);
    if (status && description && access(description, F_OK) == 0)
        fkv_error_prefix(err, "an earlier run, which --resume goes on with");
    free(description);
    return status;
}

static int add_prompt(struct settings *s, struct fkv_prompts *p, struct fkv_error *err) {
    json_t *row = json_pack("{s:s}", "prompt", s->prompt);
    const int status = row ? fkv_prompts_add(p, &s->reader, row, "--prompt", err)
                           : fkv_fail(err, "--prompt: expected text in UTF-8, found other bytes");
    json_decref(row);
    return status;
}

static int read_prompts(struct settings *s, struct fkv_prompts *p, struct fkv_error *err) {
    s->reader.tokenizer = s->replay.engine.tokenizer;
    s->reader.vocab = s->replay.engine.model->config.vocab;
    s->reader.model = s->replay.options.model;
    return s->prompt
               ? add_prompt(s, p, err)
               : fkv_prompts_read(p, &s->reader, s->prompts, s->replay.options.max_documents, err);
}

int fkv_command_generate(int argc, char **argv) {
    static struct settings s = {.tokens = 128}; /* thousands of paths: too much for a stack */
    struct fkv_error err = {0};
    struct fkv_prompts p = {0};
    fkv_replay_default(&s.replay, argc, argv);
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &s);
    int status = check_output(&s, &err);
    s.replay.options.decodes = !s.replay.dry_run;
    if (!status) status = fkv_replay_open(&s.replay, &err);
    if (!status) status = read_prompts(&s, &p, &err);
    if (!status) status = run(&s, &p, &err);
    fkv_prompts_free(&p);
    fkv_prompt_reader_close(&s.reader);
    return fkv_replay_close(&s.replay, "freqkv-replay generate", status, &err);
}
