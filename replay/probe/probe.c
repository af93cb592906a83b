/* Running a probe, window by window. The prefix goes through full attention once; a snapshot of its
 * cache is what every change starts from, so that none sees what another did, and their order does
 * not matter. Logits of the untouched run stay on the backend, because every change is compared
 * with them.
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

int fkv_probe_find_windows(const struct fkv_corpus *corpus, int32_t prefix, int32_t score,
                           int32_t blocks, struct fkv_probe_start **starts, int64_t *count,
                           struct fkv_error *err) {
    const int64_t length = (int64_t)prefix + score + 1;
    const struct fkv_corpus_document *longest = &corpus->documents[0];
    *count = 0;
    if (!(*starts = malloc((size_t)(corpus->token_count / length + 1) * sizeof **starts)))
        return fkv_fail(err, "probe: out of memory");
    for (int64_t d = 0; d < corpus->document_count; d++) {
        const struct fkv_corpus_document *document = &corpus->documents[d];
        if (document->count > longest->count) longest = document;
        for (int64_t b = 0; b < blocks && (b + 1) * length <= document->count; b++)
            (*starts)[(*count)++] = (struct fkv_probe_start){(int32_t)d, b * length};
    }
    if (*count) return FKV_OK;
    free(*starts);
    *starts = NULL;
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

struct probing {
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
static int feed(struct probing *x, const struct fkv_probe_window *window, int32_t from, int32_t to,
                int32_t block, bool keep, struct fkv_error *err) {
    struct fkv_session *s = x->prober->session;
    const int32_t prefix = x->probe->prefix;
    for (int32_t at = from, count; at < to; at += count) {
        count = to - at < block ? to - at : block;
        if (fkv_session_feed(s, window->tokens + at, count, err)) return FKV_FAILED;
        int32_t row = at < prefix ? prefix - at : 0, rows = count - row, target = at + row - prefix;
        if (rows > 0) {
            const int32_t *targets = window->tokens + at + row + 1;
            const struct fkv_row_scores scores = {x->nll + target, NULL};
            if (keep ? fkv_session_score(s, row, rows, targets, x->nll + target, NULL, err) ||
                           fkv_session_keep_logits(s, row, rows, x->kept, target, err)
                     : fkv_session_compare_kept(s, row, rows, targets, x->kept, target, &scores,
                                                NULL, x->kl + target, err))
                return FKV_FAILED;
        }
        x->done += count;
        x->expected += fkv_cost_seconds(&x->prober->cost, count, count * (at + (count + 1) / 2.0));
        fkv_progress_update_work(&x->progress, x->done,
                                 x->prober->cost.token > 0 ? x->expected : (double)x->done,
                                 window->name);
    }
    return FKV_OK;
}

static int store(const struct probing *x, const char *label, float *nll, float *kl,
                 struct fkv_error *err) {
    for (int32_t i = 0; i < x->probe->score; i++) {
        if (!isfinite(x->nll[i]) || (kl && !isfinite(x->kl[i])))
            return fkv_fail(err, "%s: token %d: nll is %g: the model's logits are not finite there",
                            label, x->probe->prefix + 1 + i, x->nll[i]);
        nll[i] = (float)x->nll[i];
        if (kl) kl[i] = (float)x->kl[i];
    }
    return FKV_OK;
}

/* ---- one window ---- */

static int run_changes(struct probing *x, struct fkv_probe_window *window, int64_t number,
                       const struct fkv_snapshot *prefix, struct fkv_error *err) {
    const int32_t p = x->probe->prefix, m = x->probe->score,
                  block = fkv_session_block(x->prober->session);
    for (int32_t c = 0; c < x->probe->change_count; c++) {
        const struct fkv_probe_change *change = &x->probe->changes[c];
        size_t at = (size_t)c * (size_t)m;
        if (fkv_session_restore(x->prober->session, prefix, err) ||
            fkv_editor_apply(x->editor, x->prober->session, change, number,
                             window->lost_energy + 2 * c, err) ||
            feed(x, window, p, p + m, block, false, err) ||
            store(x, change->label, window->nll + at, window->kl + at, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int run_window(struct probing *x, struct fkv_probe_window *window, int64_t number,
                      struct fkv_error *err) {
    const int32_t p = x->probe->prefix, m = x->probe->score,
                  block = fkv_session_block(x->prober->session);
    int32_t other = p + m < 3 * REPEAT_BLOCK ? (p + m) / 3 + 1 : REPEAT_BLOCK;
    struct fkv_snapshot *prefix = NULL;
    fkv_session_reset(x->prober->session, 0);
    int status = feed(x, window, 0, p, block, true, err) ||
                 fkv_session_snapshot(x->prober->session, &prefix, err) ||
                 feed(x, window, p, p + m, block, true, err) ||
                 store(x, "untouched", window->untouched_nll, NULL, err) ||
                 run_changes(x, window, number, prefix, err);
    fkv_snapshot_free(prefix);
    if (status) return FKV_FAILED;
    fkv_session_reset(x->prober->session, 0);
    return feed(x, window, 0, p + m, other, false, err) ||
                   store(x, "repeated", window->repeat_nll, window->repeat_kl, err)
               ? FKV_FAILED
               : FKV_OK;
}

static int fill_window(const struct probing *x, int64_t number, struct fkv_probe_window *window,
                       struct fkv_error *err) {
    const struct fkv_prober *prober = x->prober;
    const struct fkv_probe_start *start = &prober->starts[number];
    const struct fkv_corpus_document *document = &prober->corpus->documents[start->document];
    const int64_t first = document->offset + start->offset;
    size_t count = (size_t)x->probe->prefix + (size_t)x->probe->score + 1;
    if (fkv_probe_window_create(x->probe, window, err)) return FKV_FAILED;
    snprintf(window->name, sizeof window->name, "%s", document->name);
    memcpy(window->text_sha256, document->text_sha256, sizeof window->text_sha256);
    window->document = start->document;
    window->offset = start->offset;
    memcpy(window->tokens, prober->corpus->tokens + first, count * sizeof *window->tokens);
    if (start->offset && prober->bos >= 0) window->tokens[0] = prober->bos;
    if (!prober->token_class) return FKV_OK;
    if (!(window->token_class = malloc(count))) return fkv_fail(err, "probe: out of memory");
    memcpy(window->token_class, prober->token_class + first, count);
    return FKV_OK;
}

/* ---- parts ---- */

static int part_path(const struct probing *x, int64_t number, char path[FKV_PATH],
                     struct fkv_error *err) {
    return fkv_path_print(path, err, "%s/%06lld.h5", x->prober->parts, (long long)number);
}

/* Reads a finished window from its part, if there is one. */
static int take_part(const struct probing *x, int64_t number, struct fkv_probe_window *window,
                     bool *taken, struct fkv_error *err) {
    struct fkv_probe part;
    char path[FKV_PATH];
    *taken = false;
    if (part_path(x, number, path, err)) return FKV_FAILED;
    if (access(path, F_OK)) return FKV_OK;
    if (fkv_probe_read(path, &part, err)) return FKV_FAILED;
    struct fkv_probe_window *found = &part.windows[0];
    size_t bytes =
        ((size_t)x->probe->prefix + (size_t)x->probe->score + 1) * sizeof *window->tokens;
    int status = fkv_probe_check_same(x->probe, &part, path, err);
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

static int run_or_take(struct probing *x, int64_t number, struct fkv_error *err) {
    struct fkv_probe_window *window = &x->probe->windows[number];
    bool taken = false;
    char path[FKV_PATH];
    x->probe->window_count = number + 1;
    if (fill_window(x, number, window, err)) return FKV_FAILED;
    if (x->prober->parts && take_part(x, number, window, &taken, err)) return FKV_FAILED;
    if (taken) {
        const int64_t fed = fkv_probe_fed(x->probe);
        const double seconds = fkv_probe_seconds(x->probe, &x->prober->cost);
        x->done += fed;
        x->expected += seconds;
        fkv_progress_skip(&x->progress, fed, seconds > 0 ? seconds : (double)fed);
        return FKV_OK;
    }
    if (run_window(x, window, number, err)) return fkv_error_prefix(err, "%s", window->name);
    if (!x->prober->parts) return FKV_OK;
    if (part_path(x, number, path, err)) return FKV_FAILED;
    return fkv_probe_write(path, x->probe, window, 1, err);
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
    struct probing x = {.prober = prober, .probe = probe};
    const size_t m = (size_t)probe->score;
    probe->windows = calloc((size_t)prober->window_count, sizeof *probe->windows);
    x.nll = calloc(2 * m, sizeof *x.nll);
    x.kl = x.nll ? x.nll + m : NULL;
    int status = probe->windows && x.nll ? FKV_OK : fkv_fail(err, "probe: out of memory");
    if (!status && prober->parts) status = fkv_make_directories(prober->parts, err);
    if (!status) status = fkv_kept_logits_open(prober->session, probe->score, &x.kept, err);
    if (!status)
        status = fkv_editor_open(fkv_session_model(prober->session), probe->prefix, probe->sinks,
                                 probe->seed, &x.editor, err);
    fkv_progress_start(&x.progress, "tokens", fkv_probe_fed(probe) * prober->window_count,
                       prober->quiet);
    fkv_progress_weigh(&x.progress,
                       fkv_probe_seconds(probe, &prober->cost) * (double)prober->window_count);
    for (int64_t i = 0; i < prober->window_count && !status; i++) status = run_or_take(&x, i, err);
    fkv_progress_finish(&x.progress);
    if (!status) measure_noise(probe);
    fkv_editor_close(x.editor);
    fkv_kept_logits_free(x.kept);
    free(x.nll);
    return status;
}
