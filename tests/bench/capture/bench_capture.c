/* What recording costs: the same tokens prefilled, prefilled and scored, captured (states written,
 * synced), and captured as spectra, in turns in one process, so that all meet the same machine, and
 * started as the tools are. Medians over the rounds; the rival is plain prefill.
 *
 *   bench_capture MODEL [RECORDINGS [ROUNDS [THREADS [TOKENS [BACKEND]]]]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/recorder.h"
#include "kernels/base/progress.h"
#include "kernels/base/start.h"

enum { PREFILL, SCORED, CAPTURED, SPECTRA, WAYS, MOST_ROUNDS = 100, BLOCK = 512 };
static const char *const names[WAYS] = {"prefill", "prefill + nll", "capture",
                                        "capture --spectra-only"};

static void check(int status, const struct fkv_error *err) {
    if (status == FKV_OK) return;
    fprintf(stderr, "bench_capture: %s\n", err->message);
    exit(1);
}

static void write_ids(const char *path, int64_t count, int32_t vocab) {
    FILE *f = fopen(path, "wb");
    if (!f) exit(fprintf(stderr, "bench_capture: cannot write %s\n", path));
    uint32_t random = 1;
    for (int64_t i = 0; i < count; i++) {
        random = random * 1664525u + 1013904223u;
        uint32_t id = (random >> 8) % (uint32_t)vocab;
        fwrite(&id, sizeof id, 1, f);
    }
    fclose(f);
}

/* Every recording of the one document, as the recorder cuts it. */
static double prefill(struct fkv_session *session, const struct fkv_document *d, int64_t length,
                      bool score) {
    struct fkv_error err;
    const int32_t block = fkv_session_block(session);
    double *nll = calloc((size_t)block, sizeof *nll);
    if (!nll) exit(1);
    double started = fkv_seconds();
    for (int64_t offset = 0; offset < (int64_t)d->count; offset += length) {
        fkv_session_reset(session, 0);
        for (int64_t t = 0; t < length; t += block) {
            int32_t rows = length - t < block ? (int32_t)(length - t) : block;
            int32_t scored = t + rows < length ? rows : rows - 1;
            const int32_t *tokens = d->tokens + offset + t;
            check(fkv_session_feed(session, tokens, rows, &err), &err);
            if (score)
                check(fkv_session_score(session, 0, scored, tokens + 1, nll, NULL, &err), &err);
        }
    }
    const struct fkv_model *model = fkv_session_model(session);
    check(model->ops->synchronize(model->backend, &err), &err);
    free(nll);
    return fkv_seconds() - started;
}

static double capture(const struct fkv_engine *engine,
                      const struct fkv_engine_options *engine_options, const char *folder,
                      int64_t length, bool spectra) {
    struct fkv_error err;
    struct fkv_recorder *r;
    char out[400], command[500];
    struct fkv_recorder_summary summary;
    const struct fkv_recorder_needs needs = {.longest = length};
    snprintf(out, sizeof out, "%s/capture", folder);
    const struct fkv_recorder_options o = {.out = out,
                                           .states = 3,
                                           .dtype = FKV_F16,
                                           .max_tokens = length,
                                           .spectra_only = spectra,
                                           .length = (int32_t)length - 4,
                                           .skip_sinks = 4,
                                           .shards = 1,
                                           .block = BLOCK};
    check(fkv_recorder_open(engine, engine_options, &o, &r, &err), &err);
    check(fkv_recorder_run(r, &needs, &summary, &err), &err);
    fkv_recorder_close(r);
    snprintf(command, sizeof command, "rm -rf '%s'", out);
    if (system(command)) exit(1);
    return summary.seconds;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of a [rounds], or of a over b round by round: neighbours meet the same machine. */
static double median(const double *a, const double *b, int rounds) {
    double sorted[MOST_ROUNDS];
    for (int i = 0; i < rounds; i++) sorted[i] = b ? a[i] / b[i] : a[i];
    qsort(sorted, (size_t)rounds, sizeof *sorted, ascending);
    return sorted[rounds / 2];
}

int main(int argc, char **argv) {
    if (argc < 2)
        exit(fprintf(
            stderr,
            "usage: bench_capture MODEL [RECORDINGS [ROUNDS [THREADS [TOKENS [BACKEND]]]]]\n"));
    fkv_start(argv);
    const int recordings = argc > 2 ? atoi(argv[2]) : 16, rounds = argc > 3 ? atoi(argv[3]) : 7;
    struct fkv_engine_options o;
    struct fkv_engine engine;
    struct fkv_error err;
    char folder[256], ids[300];
    if (recordings < 1 || rounds < 1 || rounds > MOST_ROUNDS) exit(1);
    snprintf(folder, sizeof folder, "%s/fkv-bench-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) exit(1);
    snprintf(ids, sizeof ids, "%s/ids.bin", folder);
    fkv_engine_options_default(&o);
    o.model = argv[1], o.backend = argc > 6 ? argv[6] : "cpu",
    o.threads = argc > 4 ? atoi(argv[4]) : 0, o.quiet = true;
    o.token_ids[0] = ids, o.token_ids_count = 1, o.token_dtype = "uint32";
    check(fkv_engine_open(&o, &engine, &err), &err);
    const int64_t length = argc > 5 ? atoll(argv[5]) : engine.model->config.trained_context;
    write_ids(ids, recordings * length, engine.model->config.vocab);

    struct fkv_documents *documents;
    struct fkv_document document;
    bool more;
    check(fkv_engine_documents(&o, engine.tokenizer, engine.model->config.vocab, true, &documents,
                               &err),
          &err);
    check(fkv_documents_next(documents, &document, &more, &err), &err);
    struct fkv_session *session;
    struct fkv_session_options options = {.max_tokens = length,
                                          .cache_dtype = fkv_engine_cache_dtype(&o, &engine)};
    check(fkv_engine_block(&engine, &fkv_full_attention, false, 1, 0, &options, &err), &err);
    check(fkv_session_open(engine.model, &fkv_full_attention, &options, &session, &err), &err);
    prefill(session, &document, length, true);

    double seconds[WAYS][MOST_ROUNDS];
    for (int i = 0; i < rounds; i++) {
        seconds[PREFILL][i] = prefill(session, &document, length, false);
        seconds[SCORED][i] = prefill(session, &document, length, true);
        seconds[CAPTURED][i] = capture(&engine, &o, folder, length, false);
        seconds[SPECTRA][i] = capture(&engine, &o, folder, length, true);
    }
    printf("%s: %d recordings of %lld tokens, median of %d rounds\n", engine.model->name,
           recordings, (long long)length, rounds);
    printf("%-24s %10s %12s %12s %14s\n", "", "seconds", "tokens/s", "/ prefill", "/ prefill+nll");
    for (int way = 0; way < WAYS; way++)
        printf("%-24s %10.3f %12.0f %12.3f %14.3f\n", names[way],
               median(seconds[way], NULL, rounds),
               (double)(recordings * length) / median(seconds[way], NULL, rounds),
               median(seconds[way], seconds[PREFILL], rounds),
               median(seconds[way], seconds[SCORED], rounds));
    fkv_session_close(session);
    fkv_document_free(&document);
    fkv_documents_close(documents);
    fkv_engine_close(&engine);
    unlink(ids);
    rmdir(folder);
    return 0;
}
