/* Running a probe, window by window. The prefix goes through full attention once; a snapshot of its
 * cache is what every change starts from, so that none sees what another did, and their order is no
 * matter. Logits of the untouched run stay on the backend, because every change is compared with
 * them.
 *
 * The untouched run is repeated from the first token on with another block size: the differences
 * are nothing but rounding, and what a change does below them means nothing. A window that is done
 * goes to a file of its own in the folder of parts; a run that was interrupted reads those and goes
 * on, and refuses them where they come from other options. */
#include "replay/probe/probe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/session/kept_logits.h"
#include "kernels/base/host.h"
#include "kernels/base/path.h"
#include "kernels/base/progress.h"
#include "replay/probe/edit.h"

enum { REPEAT_BLOCK = 61 };

int fkv_probe_places(const struct fkv_corpus *corpus, int32_t prefix, int32_t score, int32_t blocks,
                     struct fkv_probe_place **places, int64_t *count, struct fkv_error *err) {
    const int64_t length = (int64_t)prefix + score + 1;
    const struct fkv_corpus_document *longest = &corpus->documents[0];
    *count = 0;
    if (!(*places = malloc((size_t)(corpus->token_count / length + 1) * sizeof **places)))
        return fkv_fail(err, "probe: out of memory");
    for (int64_t d = 0; d < corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &corpus->documents[d];
        if (document->count > longest->count) longest = document;
        for (int64_t b = 0; b < blocks && (b + 1) * length <= document->count; b++)
            (*places)[(*count)++] = (struct fkv_probe_place){(int32_t)d, b * length};
    }
    if (*count) return FKV_OK;
    free(*places);
    *places = NULL;
    return fkv_fail(
        err, "--prefix %d and --score %d need texts of %lld tokens: the longest, %s, has %lld",
        prefix, score, (long long)length, longest->name, (long long)longest->count);
}

int64_t fkv_probe_fed(const struct fkv_probe *probe) {
    return 2 * ((int64_t)probe->prefix + probe->score) +
           (int64_t)probe->change_count * probe->score;
}

double fkv_probe_seconds(const struct fkv_probe *probe, const struct fkv_cost *cost) {
    const double p = probe->prefix, m = probe->score, after = m * (p + (m + 1) / 2);
    return fkv_cost_seconds(cost, (double)fkv_probe_fed(probe),
                            2 * (p * (p + 1) / 2 + after) + probe->change_count * after);
}

struct run {
    const struct fkv_prober *prober;
    struct fkv_probe *probe;
    struct fkv_editor *editor;
    struct fkv_kept_logits *kept; /* of the untouched run [M] */
    double *nll, *kl;             /* [M] */
    struct fkv_progress progress;
    int64_t done;    /* tokens */
    double expected; /* seconds that they were to take */
};

/* ---- one timeline ---- */

/* Feeds the window's tokens [from, to) in blocks of `block`. Rows from P on are scored into nll,
 * and kept or compared with what is kept. */
static int feed(struct run *run, const struct fkv_probe_window *window, int32_t from, int32_t to,
                int32_t block, bool keep, struct fkv_error *err) {
    struct fkv_session *s = run->prober->session;
    const int32_t prefix = run->probe->prefix;
    for (int32_t at = from, count; at < to; at += count) {
        count = to - at < block ? to - at : block;
        if (fkv_session_feed(s, window->tokens + at, count, err)) return FKV_FAILED;
        int32_t row = at < prefix ? prefix - at : 0, rows = count - row, target = at + row - prefix;
        if (rows > 0) {
            if (fkv_session_score(s, NULL, row, rows, window->tokens + at + row + 1,
                                  run->nll + target, NULL, NULL, err) ||
                (keep ? fkv_session_keep_logits(s, row, rows, run->kept, target, err)
                      : fkv_session_divergence(s, row, rows, run->kept, target, run->kl + target,
                                               err)))
                return FKV_FAILED;
        }
        run->done += count;
        run->expected +=
            fkv_cost_seconds(&run->prober->cost, count, count * (at + (count + 1) / 2.0));
        fkv_progress_update_work(&run->progress, run->done,
                                 run->prober->cost.token > 0 ? run->expected : (double)run->done,
                                 window->name);
    }
    return FKV_OK;
}

static int store(const struct run *run, const char *label, float *nll, float *kl,
                 struct fkv_error *err) {
    for (int32_t i = 0; i < run->probe->score; i++) {
        if (!isfinite(run->nll[i]) || (kl && !isfinite(run->kl[i])))
            return fkv_fail(err, "%s: token %d: nll is %g: the model's logits are not finite there",
                            label, run->probe->prefix + 1 + i, run->nll[i]);
        nll[i] = (float)run->nll[i];
        if (kl) kl[i] = (float)run->kl[i];
    }
    return FKV_OK;
}

/* ---- one window ---- */

static int run_changes(struct run *run, struct fkv_probe_window *window, int64_t number,
                       const struct fkv_snapshot *prefix, struct fkv_error *err) {
    const int32_t p = run->probe->prefix, m = run->probe->score,
                  block = fkv_session_block(run->prober->session);
    for (int32_t c = 0; c < run->probe->change_count; c++) {
        const struct fkv_edit *edit = &run->prober->edits[c];
        size_t at = (size_t)c * (size_t)m;
        if (fkv_session_restore(run->prober->session, prefix, err) ||
            fkv_editor_apply(run->editor, run->prober->session, edit, number,
                             window->lost_energy + 2 * c, err) ||
            feed(run, window, p, p + m, block, false, err) ||
            store(run, edit->row.label, window->nll + at, window->kl + at, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int run_window(struct run *run, struct fkv_probe_window *window, int64_t number,
                      struct fkv_error *err) {
    const int32_t p = run->probe->prefix, m = run->probe->score,
                  block = fkv_session_block(run->prober->session);
    int32_t other = p + m < 3 * REPEAT_BLOCK ? (p + m) / 3 + 1 : REPEAT_BLOCK;
    struct fkv_snapshot *prefix = NULL;
    fkv_session_reset(run->prober->session, 0);
    int status = feed(run, window, 0, p, block, true, err) ||
                 fkv_session_snapshot(run->prober->session, &prefix, err) ||
                 feed(run, window, p, p + m, block, true, err) ||
                 store(run, "untouched", window->untouched_nll, NULL, err) ||
                 run_changes(run, window, number, prefix, err);
    fkv_snapshot_free(prefix);
    if (status) return FKV_FAILED;
    fkv_session_reset(run->prober->session, 0);
    return feed(run, window, 0, p + m, other, false, err) ||
                   store(run, "repeated", window->repeat_nll, window->repeat_kl, err)
               ? FKV_FAILED
               : FKV_OK;
}

static int fill_window(const struct run *run, int64_t number, struct fkv_probe_window *window,
                       struct fkv_error *err) {
    const struct fkv_prober *prober = run->prober;
    const struct fkv_probe_place *place = &prober->places[number];
    const struct fkv_corpus_document *document = &prober->corpus->documents[place->document];
    const int64_t first = document->offset + place->offset;
    size_t count = (size_t)run->probe->prefix + (size_t)run->probe->score + 1;
    if (fkv_probe_window_create(run->probe, window, err)) return FKV_FAILED;
    snprintf(window->name, sizeof window->name, "%s", document->name);
    memcpy(window->text_sha256, document->text_sha256, sizeof window->text_sha256);
    window->document = place->document;
    window->offset = place->offset;
    memcpy(window->tokens, prober->corpus->tokens + first, count * sizeof *window->tokens);
    if (place->offset && prober->bos >= 0) window->tokens[0] = prober->bos;
    if (!prober->token_class) return FKV_OK;
    if (!(window->token_class = malloc(count))) return fkv_fail(err, "probe: out of memory");
    memcpy(window->token_class, prober->token_class + first, count);
    return FKV_OK;
}

/* ---- parts ---- */

static int part_path(const struct run *run, int64_t number, char path[FKV_PATH],
                     struct fkv_error *err) {
    return fkv_path_print(path, err, "%s/%06lld.h5", run->prober->parts, (long long)number);
}

/* Takes the finished window over from its part, if there is one. */
static int take_part(const struct run *run, int64_t number, struct fkv_probe_window *window,
                     bool *taken, struct fkv_error *err) {
    struct fkv_probe part;
    char path[FKV_PATH];
    *taken = false;
    if (part_path(run, number, path, err)) return FKV_FAILED;
    if (access(path, F_OK)) return FKV_OK;
    if (fkv_probe_read(path, &part, err)) return FKV_FAILED;
    struct fkv_probe_window *found = &part.windows[0];
    size_t bytes =
        ((size_t)run->probe->prefix + (size_t)run->probe->score + 1) * sizeof *window->tokens;
    int status = fkv_probe_check_same(run->probe, &part, path, err);
    if (!status && (strcmp(found->text_sha256, window->text_sha256) ||
                    memcmp(found->tokens, window->tokens, bytes)))
        status = fkv_fail(err, "%s: expected tokens of %s, found others", path, window->name);
    if (status) {
        fkv_probe_free(&part);
        return fkv_error_prefix(
            err, "an unfinished run with other options left its parts (remove them, or finish it)");
    }
    *taken = true;
    uint8_t *token_class = window->token_class;
    window->token_class = NULL;
    fkv_probe_window_free(window);
    free(found->token_class);
    *window = *found;
    window->token_class = token_class;
    *found = (struct fkv_probe_window){0};
    fkv_probe_free(&part);
    return FKV_OK;
}

static int run_or_take(struct run *run, int64_t number, struct fkv_error *err) {
    struct fkv_probe_window *window = &run->probe->windows[number];
    bool taken = false;
    char path[FKV_PATH];
    run->probe->window_count = number + 1;
    if (fill_window(run, number, window, err)) return FKV_FAILED;
    if (run->prober->parts && take_part(run, number, window, &taken, err)) return FKV_FAILED;
    if (taken) {
        const int64_t fed = fkv_probe_fed(run->probe);
        const double seconds = fkv_probe_seconds(run->probe, &run->prober->cost);
        run->done += fed;
        run->expected += seconds;
        fkv_progress_skip(&run->progress, fed, seconds > 0 ? seconds : (double)fed);
        return FKV_OK;
    }
    if (run_window(run, window, number, err)) return fkv_error_prefix(err, "%s", window->name);
    if (!run->prober->parts) return FKV_OK;
    if (part_path(run, number, path, err)) return FKV_FAILED;
    return fkv_probe_write(path, run->probe, window, 1, err);
}

static void measure_noise(struct fkv_probe *probe) {
    double nll = 0, kl = 0;
    for (int64_t w = 0; w < probe->window_count; w++)
        for (int32_t i = 0; i < probe->score; i++) {
            const struct fkv_probe_window *window = &probe->windows[w];
            nll += fabs((double)window->repeat_nll[i] - window->untouched_nll[i]);
            kl += fabs((double)window->repeat_kl[i]);
        }
    probe->noise_floor_nll = nll / ((double)probe->window_count * probe->score);
    probe->noise_floor_kl = kl / ((double)probe->window_count * probe->score);
}

int fkv_probe_run(const struct fkv_prober *prober, struct fkv_probe *probe, struct fkv_error *err) {
    struct run run = {.prober = prober, .probe = probe};
    const size_t m = (size_t)probe->score;
    probe->windows = calloc((size_t)prober->place_count, sizeof *probe->windows);
    run.nll = calloc(2 * m, sizeof *run.nll);
    run.kl = run.nll ? run.nll + m : NULL;
    int status = probe->windows && run.nll ? FKV_OK : fkv_fail(err, "probe: out of memory");
    if (!status && prober->parts) status = fkv_make_directories(prober->parts, err);
    if (!status) status = fkv_kept_logits_open(prober->session, probe->score, &run.kept, err);
    if (!status)
        status = fkv_editor_open(fkv_session_model(prober->session), probe->prefix, probe->sinks,
                                 probe->seed, &run.editor, err);
    fkv_progress_start(&run.progress, "tokens", fkv_probe_fed(probe) * prober->place_count,
                       prober->quiet);
    fkv_progress_weigh(&run.progress,
                       fkv_probe_seconds(probe, &prober->cost) * (double)prober->place_count);
    for (int64_t i = 0; i < prober->place_count && !status; i++) status = run_or_take(&run, i, err);
    fkv_progress_finish(&run.progress);
    if (!status) measure_noise(probe);
    fkv_editor_close(run.editor);
    fkv_kept_logits_free(run.kept);
    free(run.nll);
    return status;
}
