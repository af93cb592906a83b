/* freqkv-replay ppl: reads the command line, works out plan and needs, runs, reports. Everything that can be refused is refused before the
 * first token is fed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ratios.h"
#include "kernels/base/parse.h"
#include "replay/commands.h"
#include "replay/experiment.h"
#include "replay/needs.h"

enum { OPT_TOKENS = 0x1000, OPT_PROTOCOL, OPT_SCORE_FROM, OPT_BASELINE, OPT_OUT, OPT_DRY_RUN };

struct settings {
    struct fkv_engine_options engine;
    struct fkv_policy_options policy;
    struct fkv_plan plan;
    int64_t tokens, score_from;
    bool baseline, dry_run;
    const char *out;
    char command[4096];
};

static const char doc[] = "Perplexity of texts under a cache policy."
                          "\v"
                          "Protocols. A pass starts from an empty cache; targets count within it.\n"
                          "  whole     one pass per document, at most T of its tokens\n"
                          "  stride:s  windows of T tokens (default: the trained context) every s\n"
                          "            tokens of the joined texts, no BOS; every target of every\n"
                          "            window is scored (LongLoRA's and FreqKV's eval.py)\n"
                          "  chunks:c  disjoint chunks of c tokens per document, BOS over the first\n"
                          "            token if the tokenizer adds one; targets c/2+1 .. c-1 are\n"
                          "            scored (llama.cpp)\n"
                          "  rolling   disjoint windows of the trained context with one token of\n"
                          "            context, the first from BOS (else EOS), the last right-aligned\n"
                          "            (lm-eval)\n"
                          "  blocks:b  as whole, and the policy may act after every b tokens\n"
                          "\n"
                          "Standard errors: bootstrap over documents, or over blocks of 256 scored\n"
                          "tokens when documents are fewer than 20 and windows do not overlap; 1,000\n"
                          "resamples, seed 0. Differences to the baseline are paired per token; past\n"
                          "the trained context full attention is broken and no reference, and the\n"
                          "output says so.\n"
                          "\n"
                          "Example, where full attention is a reference:\n"
                          "  freqkv-replay ppl --model data/litbank-1m --text data/the_tide_mill.txt \\\n"
                          "      --policy freqkv --window 512 --gamma 0.5 --tokens 1024 --baseline full\n"
                          "\n"
                          "--json prints one object; what does not exist is null:\n"
                          "  policy, window, sinks, gamma (mean), protocol, documents (how many),\n"
                          "  tokens (of the documents), tokens_scored, mean_nll (nats), perplexity,\n"
                          "  perplexity_se, compressions (mean per head and pass), cache_bytes_peak,\n"
                          "  cache_slots_mean (slots a query could attend to), prefill_tokens_per_s,\n"
                          "  compression_share (of the time), per_document [{name, tokens, mean_nll,\n"
                          "  perplexity}], and with a baseline: baseline {policy, valid, mean_nll,\n"
                          "  perplexity, delta_nll, delta_nll_se, kl (nats), top1_agreement}";

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Evaluation:", 5},
    {"protocol", OPT_PROTOCOL, "NAME", 0, "whole (default), stride:s, chunks:c, rolling or blocks:b", 5},
    {"tokens", OPT_TOKENS, "T", 0, "at most T tokens of each document, BOS included (default: all); stride: the window",
     5},
    {"score-from", OPT_SCORE_FROM, "t", 0, "score only targets at place t of their pass or later", 5},
    {"baseline", OPT_BASELINE, "full", 0, "run full attention beside it: paired differences, KL, agreement", 5},
    {"out", OPT_OUT, "RUN.h5", 0, "write per-token results and every compression; must not exist", 5},
    {"dry-run", OPT_DRY_RUN, 0, 0, "print what the run would need, and stop", 5},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    struct fkv_error err = {0};
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->engine;
        state->child_inputs[1] = &s->policy;
        return 0;
    case OPT_TOKENS:
        if (fkv_parse_int(arg, "--tokens", 2, 1 << 30, &s->tokens, &err)) argp_error(state, "%s", err.message);
        return 0;
    case OPT_SCORE_FROM:
        if (fkv_parse_int(arg, "--score-from", 0, 1 << 30, &s->score_from, &err)) argp_error(state, "%s", err.message);
        return 0;
    case OPT_PROTOCOL:
        if (fkv_protocol_parse(arg, &s->plan, &err)) argp_error(state, "%s", err.message);
        return 0;
    case OPT_BASELINE:
        if (strcmp(arg, "full")) argp_error(state, "--baseline: expected full, found \"%s\"", arg);
        s->baseline = true;
        return 0;
    case OPT_OUT: s->out = arg; return 0;
    case OPT_DRY_RUN: s->dry_run = true; return 0;
    case ARGP_KEY_END:
        if (!s->engine.text_count && !s->engine.token_ids_count) argp_error(state, "--text or --token-ids is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&fkv_engine_argp, 0, NULL, 0}, {&fkv_policy_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
static const struct argp parser = {options, parse, NULL, doc, children, NULL, NULL};

/* The command line as one string, for the run file. */
static void join_arguments(int argc, char **argv, char *out, size_t room) {
    size_t at = 0;
    for (int i = 0; i < argc && at < room; i++)
        at += (size_t)snprintf(out + at, room - at, "%s%s", i ? " " : "", argv[i]);
}

static void warn_about_chosen_texts(const struct settings *s, const struct fkv_model *model,
                                    const struct fkv_corpus *corpus) {
    struct fkv_ratios ratios;
    if (!s->policy.gamma || s->policy.gamma[0] != '@') return;
    if (fkv_ratios_read(s->policy.gamma, model->config.layers, model->config.kv_heads, &ratios, NULL)) return;
    for (int64_t d = 0; d < corpus->document_count; d++)
        for (int32_t i = 0; i < ratios.text_count; i++)
            if (!strcmp(corpus->documents[d].text_sha256, ratios.texts[i]))
                fprintf(stderr, "warning: %s was chosen on %s: its perplexity there says little about other texts\n",
                        s->policy.gamma + 1, corpus->documents[d].name);
    fkv_ratios_free(&ratios);
}

static int make_plan(struct settings *s, const struct fkv_engine *engine, struct fkv_corpus *corpus,
                     struct fkv_error *err) {
    const struct fkv_protocol *protocol = s->plan.protocol;
    const struct fkv_config *config = &engine->model->config;
    struct fkv_protocol_setting setting = {.tokens = s->tokens,
                                           .score_from = s->score_from,
                                           .trained_context = config->trained_context,
                                           .tokenizer_bos = -1,
                                           .bos = config->bos,
                                           .eos = config->eos};
    if (engine->tokenizer && fkv_tokenizer_adds_bos(engine->tokenizer))
        setting.tokenizer_bos = fkv_tokenizer_bos(engine->tokenizer);
    if (fkv_corpus_read(&s->engine, engine, protocol->special, protocol->joined ? 0 : s->tokens, corpus, err))
        return FKV_FAILED;
    return fkv_protocol_plan(corpus, &setting, &s->plan, err);
}

/* Compressions that all heads together will make: ceil((T - N) / C) per head and pass longer than N. */
static int64_t expected_compressions(const struct fkv_policy_setup *setup, const struct fkv_plan *plan) {
    int64_t count = 0;
    if (!setup->policy->has_gamma) return 0;
    for (int64_t i = 0; i < plan->count; i++)
        for (int32_t h = 0; h < setup->layers * setup->kv_heads; h++) {
            int32_t chunk = setup->compressible - setup->retained[h], beyond = plan->passes[i].rows - setup->window;
            if (beyond > 0) count += (beyond + chunk - 1) / chunk;
        }
    return count;
}

static int check_needs(const struct settings *s, const struct fkv_engine *engine, const struct fkv_corpus *corpus,
                       const struct fkv_session_options *options, struct fkv_error *err) {
    const struct fkv_policy_options full = {.name = "full", .sinks = -1, .rescale = true};
    struct fkv_needs needs = {.weights = engine->model->weight_bytes, .output = s->out};
    needs.host = corpus->token_count * (int64_t)sizeof(int32_t) + s->plan.count * (int64_t)sizeof(struct fkv_pass);
    struct fkv_policy_setup setup;
    if (fkv_policy_setup(&s->policy, &engine->model->config, options->block, options->max_tokens, &setup, err))
        return FKV_FAILED;
    if (s->out) {
        int64_t columns = fkv_recorded_bytes(corpus, &s->plan, s->baseline);
        int64_t compressions = expected_compressions(&setup, &s->plan);
        needs.host += columns + compressions * (int64_t)(sizeof(struct fkv_compression) + 2 * 33);
        needs.disk = columns + corpus->token_count * (int64_t)sizeof(int32_t) + compressions * 2 * 33 + (1 << 16);
    }
    fkv_policy_setup_free(&setup);
    if (fkv_needs_session(&needs, engine, &s->policy, options, err) ||
        (s->baseline && fkv_needs_session(&needs, engine, &full, options, err)))
        return FKV_FAILED;
    bool print = s->dry_run || !s->engine.quiet;
    if (print)
        fprintf(stderr,
                "%" PRId64 " documents, %" PRId64 " tokens; %" PRId64 " passes feed %" PRId64 " and score %" PRId64
                "\n",
                corpus->document_count, corpus->token_count, s->plan.count, s->plan.rows, s->plan.scored);
    return fkv_needs_check(&needs, engine, print, err);
}

/* Times the first tokens of the first document, once they have warmed everything up, and says what all of them will take. */
static int estimate_time(const struct settings *s, const struct fkv_corpus *corpus, struct fkv_session *session,
                         struct fkv_error *err) {
    struct fkv_session_statistics warm, spent;
    int32_t count = s->plan.longest < 64 ? s->plan.longest : 64;
    if (count > corpus->token_count) count = (int32_t)corpus->token_count;
    if (fkv_session_feed(session, corpus->tokens, count, err)) return FKV_FAILED;
    fkv_session_statistics(session, &warm);
    fkv_session_reset(session, 0);
    if (fkv_session_feed(session, corpus->tokens, count, err)) return FKV_FAILED;
    fkv_session_statistics(session, &spent);
    double seconds = (spent.seconds - warm.seconds) / count * (double)s->plan.rows * (s->baseline ? 2 : 1);
    fprintf(stderr, "time: about %.*f s\n", seconds < 10, seconds);
    return FKV_OK;
}

static int report(const struct settings *s, const struct fkv_experiment *experiment, struct fkv_error *err) {
    if (s->out && fkv_run_file_write(s->out, experiment, err)) return FKV_FAILED;
    if (s->engine.json) return fkv_json_print(fkv_experiment_json(experiment), err);
    fkv_experiment_print(experiment);
    return FKV_OK;
}

static int run(struct settings *s, const struct fkv_engine *engine, struct fkv_corpus *corpus, struct fkv_error *err) {
    const struct fkv_policy_options full = {.name = "full", .sinks = -1, .rescale = true};
    struct fkv_session *session = NULL, *baseline = NULL;
    struct fkv_recorded recorded = {0};
    struct fkv_perplexity result = {0};
    int status = FKV_FAILED;
    if (make_plan(s, engine, corpus, err)) return FKV_FAILED;
    struct fkv_session_options options = {.max_tokens = s->plan.longest,
                                          .cache_dtype = fkv_engine_cache_dtype(&s->engine, engine),
                                          .measure_energy = s->out != NULL};
    if (check_needs(s, engine, corpus, &options, err)) return FKV_FAILED;
    if (fkv_session_open(engine->model, &s->policy, &options, &session, err)) goto done;
    if ((s->dry_run || !s->engine.quiet) && estimate_time(s, corpus, session, err)) goto done;
    status = FKV_OK;
    if (s->dry_run) goto done;
    warn_about_chosen_texts(s, engine->model, corpus);
    options.measure_energy = false;
    if (s->baseline) status = fkv_session_open(engine->model, &full, &options, &baseline, err);
    if (!status && s->out) status = fkv_recorded_open(corpus, &s->plan, s->baseline, &recorded, err);
    if (!status)
        status = fkv_perplexity_run(corpus, &s->plan, session, baseline, s->out ? &recorded : NULL, s->engine.quiet,
                                    &result, err);
    const struct fkv_experiment experiment = {.model = engine->model,
                                              .setup = fkv_session_setup(session),
                                              .corpus = corpus,
                                              .plan = &s->plan,
                                              .result = &result,
                                              .recorded = s->out ? &recorded : NULL,
                                              .baseline = s->baseline,
                                              .tokens = s->tokens,
                                              .score_from = s->score_from,
                                              .backend = engine->ops->name,
                                              .command = s->command,
                                              .cache_dtype = fkv_engine_cache_dtype(&s->engine, engine)};
    if (!status) status = report(s, &experiment, err);
done:
    fkv_perplexity_free(&result);
    fkv_recorded_free(&recorded);
    fkv_session_close(baseline);
    fkv_session_close(session);
    return status;
}

int fkv_command_ppl(int argc, char **argv) {
    static struct settings s; /* thousands of paths: too much for a stack */
    struct fkv_error err = {0};
    struct fkv_engine engine = {0};
    struct fkv_corpus corpus = {0};
    fkv_engine_options_default(&s.engine);
    join_arguments(argc, argv, s.command, sizeof s.command);
    if (fkv_protocol_parse("whole", &s.plan, &err)) return fkv_tool_failed("freqkv-replay ppl", &err);
    argp_parse(&parser, argc, argv, 0, NULL, &s);
    int status = s.out ? fkv_check_new_file(s.out, &err) : FKV_OK;
    if (!status) status = fkv_engine_open(&s.engine, &engine, &err);
    if (!status) status = run(&s, &engine, &corpus, &err);
    fkv_plan_free(&s.plan);
    fkv_corpus_free(&corpus);
    fkv_engine_close(&engine);
    return status ? fkv_tool_failed("freqkv-replay ppl", &err) : 0;
}
