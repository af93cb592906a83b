/* What recording will take, worked out before it starts: texts are read until SAMPLE_BYTES have
 * gone by (often all of them), a block is timed, and what cannot fit is refused at once and not
 * hours later. Weights are loaded by then, or mapped from disk and shared with other programs: they
 * are named but not counted as memory. */
#include <stdio.h>

#include "capture/recorder.h"
#include "capture/store/capture_writer.h"
#include "capture/store/folder.h"
#include "kernels/base/host.h"
#include "kernels/base/progress.h"

/* RING_BYTES: some blocks of a 1B model's keys and values, so that a sync and the blocks computed
 * meanwhile overlap. */
enum { SAMPLE_BYTES = 2 << 20, RING_BYTES = 64 << 20, RING_PIECE = 4 << 10 };

/* Counts one document's recordings. */
static void count_document(const struct fkv_recorder *r, const struct fkv_document *document,
                           struct fkv_recorder_needs *needs) {
    needs->documents++;
    for (int64_t left = (int64_t)document->count; left >= 2; left -= r->options.max_tokens) {
        int64_t n = left < r->options.max_tokens ? left : r->options.max_tokens;
        needs->recordings++;
        needs->tokens += n;
        needs->slots += (double)n * (double)(n + 1) / 2;
        needs->disk_bytes += fkv_capture_bytes(&r->info, n, r->options.length);
        if (n <= needs->longest) continue;
        needs->longest = n;
        snprintf(needs->longest_name, sizeof needs->longest_name, "%s", document->name);
    }
}

static int sample_texts(const struct fkv_recorder *r, struct fkv_recorder_needs *needs,
                        struct fkv_error *err) {
    struct fkv_documents *documents;
    const double started = fkv_seconds();
    if (fkv_engine_documents(r->engine_options, r->engine->tokenizer,
                             r->engine->model->config.vocab, true, &documents, err))
        return FKV_FAILED;
    int status = FKV_OK;
    bool more = true;
    int64_t seen = 0;
    while (status == FKV_OK && more && fkv_documents_bytes_read(documents) < SAMPLE_BYTES) {
        struct fkv_document document;
        status = fkv_documents_next(documents, &document, &more, err);
        if (status || !more) break;
        if (seen++ % r->options.shards == r->options.shard) count_document(r, &document, needs);
        fkv_document_free(&document);
    }
    needs->exact = !more;
    double rest = 1, bytes = (double)fkv_documents_bytes_read(documents);
    if (more && bytes > 0) rest = (double)fkv_documents_bytes(documents) / bytes;
    const int64_t most = r->engine_options->max_documents;
    if (more && most > 0 && seen > 0 && rest > (double)most / (double)seen)
        rest = (double)most / (double)seen;
    needs->documents = (int64_t)((double)needs->documents * rest);
    needs->recordings = (int64_t)((double)needs->recordings * rest);
    needs->tokens = (int64_t)((double)needs->tokens * rest);
    needs->slots *= rest;
    needs->reading = (fkv_seconds() - started) * rest;
    needs->disk_bytes = (int64_t)((double)needs->disk_bytes * rest);
    if (more) needs->longest = r->options.max_tokens;
    char note[FKV_DOCUMENTS_NOTE];
    fkv_documents_note(documents, note);
    if (!status && *note && !r->engine_options->quiet)
        fprintf(stderr, "note: %s%s\n", note, more ? ", so far" : "");
    fkv_documents_close(documents);
    return status;
}

/* Of output_gram.h5, which is written before the recordings: what its array takes in memory then,
 * and of the disk. */
static void count_output_gram(const struct fkv_recorder *r, struct fkv_recorder_needs *needs) {
    const int64_t bytes = fkv_capture_output_gram_bytes(&r->info);
    if (!bytes || (r->options.resume && fkv_folder_has_output_gram(r->options.out))) return;
    needs->disk_bytes += bytes;
    if (needs->memory_bytes < bytes) needs->memory_bytes = bytes;
}

/* Recordings that exist already need no space and no time. */
static void skip_existing(const struct fkv_recorder *r, struct fkv_recorder_needs *needs) {
    for (int64_t i = 0; r->options.resume && i < needs->recordings; i++)
        needs->recordings_there += fkv_folder_has_document(r->options.out, i);
    if (needs->recordings == 0) return;
    double left = (double)(needs->recordings - needs->recordings_there) / (double)needs->recordings;
    needs->disk_bytes = (int64_t)((double)needs->disk_bytes * left);
    needs->seconds = needs->reading + (needs->seconds - needs->reading) * left;
}

static int time_a_block(const struct fkv_recorder *r, struct fkv_recorder_needs *needs,
                        struct fkv_error *err) {
    struct fkv_session *session;
    const struct fkv_session_options options = fkv_recorder_session_options(r, 1, needs->longest);
    if (fkv_session_open(r->engine->model, &fkv_full_attention, &options, &session, err))
        return FKV_FAILED;
    int status = fkv_session_rehearse(session, 1, r->options.block, needs->longest, FKV_SCORED,
                                      &needs->cost, err);
    needs->seconds =
        needs->reading + fkv_cost_seconds(&needs->cost, (double)needs->tokens, needs->slots);
    fkv_session_close(session);
    return status;
}

/* ---- sizes ---- */

int32_t fkv_recorder_lanes(const struct fkv_recorder *r, const struct fkv_recorder_needs *needs) {
    const int32_t batch = r->engine_options->batch;
    return needs->exact && needs->recordings < batch ? (int32_t)needs->recordings : batch;
}

struct fkv_collector_options fkv_recorder_collector_options(const struct fkv_recorder *r,
                                                            int32_t sequences) {
    return (struct fkv_collector_options){sequences, r->options.length, r->options.skip_sinks,
                                          r->options.block};
}

/* No more than two recordings per lane; but two of the largest pieces at least, or nothing would
 * overlap. */
size_t fkv_recorder_ring(const struct fkv_recorder *r, int32_t lanes, int64_t longest) {
    const int64_t all = 2 * lanes * fkv_collector_all_rows(&r->info, longest);
    const int64_t least = 2 * fkv_collector_largest_rows(&r->info, r->options.block);
    const int64_t bytes = all < RING_BYTES ? all : RING_BYTES;
    return (size_t)((least > bytes ? least : bytes) + RING_PIECE);
}

/* The same rows of every recording that is open. */
static int choose_block(struct fkv_recorder *r, const struct fkv_recorder_needs *needs,
                        struct fkv_error *err) {
    const int32_t lanes = fkv_recorder_lanes(r, needs);
    struct fkv_session_options session = fkv_recorder_session_options(r, lanes, needs->longest);
    const struct fkv_collector_options collector = fkv_recorder_collector_options(r, lanes);
    if (r->options.block) return FKV_OK;
    if (fkv_engine_block(r->engine, &fkv_full_attention, false, lanes,
                         fkv_collector_bytes(&r->info, &collector), &session, err))
        return FKV_FAILED;
    r->options.block = session.block / lanes;
    return FKV_OK;
}

static int count_memory(const struct fkv_recorder *r, struct fkv_recorder_needs *needs,
                        struct fkv_error *err) {
    const struct fkv_model *model = r->engine->model;
    const int32_t lanes = fkv_recorder_lanes(r, needs);
    const struct fkv_session_options session =
        fkv_recorder_session_options(r, lanes, needs->longest);
    const struct fkv_collector_options collector = fkv_recorder_collector_options(r, lanes);
    struct fkv_device_info device;
    struct fkv_session_needs engine = {0};
    const struct fkv_demand demand = fkv_collector_demand(&r->info, &collector);
    if (fkv_session_add_needs(model, &fkv_full_attention, &session, &engine, err) ||
        model->ops->add_needs(model->backend, &demand, &engine.own, err) ||
        model->ops->info(model->backend, &device, err))
        return FKV_FAILED;
    const int64_t computing =
        fkv_session_needs_bytes(&engine) + fkv_collector_bytes(&r->info, &collector);
    const int64_t per_token =
        3 * (sizeof(int32_t) + sizeof(float)) + 2; /* a lane's, and those being written */
    needs->ring_bytes = (int64_t)fkv_recorder_ring(r, lanes, needs->longest);
    needs->memory_bytes = needs->ring_bytes + fkv_collector_host_bytes(&r->info, &collector) +
                          lanes * (fkv_capture_staging(&r->info, needs->longest, r->options.block) +
                                   per_token * needs->longest);
    needs->memory_available = fkv_host_memory_available();
    if (device.space == FKV_HOST) {
        needs->memory_bytes += computing;
    } else {
        needs->device_bytes = computing;
        needs->device_free = device.memory_free;
    }
    return FKV_OK;
}

static bool fits(const struct fkv_recorder_needs *needs) {
    return (needs->memory_available < 0 || needs->memory_bytes <= needs->memory_available) &&
           needs->device_bytes <= needs->device_free;
}

int fkv_recorder_survey(struct fkv_recorder *r, struct fkv_recorder_needs *needs,
                        struct fkv_error *err) {
    *needs = (struct fkv_recorder_needs){.weight_bytes = r->engine->model->weight_bytes};
    if (sample_texts(r, needs, err) || fkv_host_disk_free(r->options.out, &needs->disk_free, err))
        return FKV_FAILED;
    if (needs->recordings == 0) return FKV_OK;
    if (choose_block(r, needs, err) || count_memory(r, needs, err)) return FKV_FAILED;
    if (!fits(needs)) return FKV_OK;
    if (time_a_block(r, needs, err)) return FKV_FAILED;
    skip_existing(r, needs);
    count_output_gram(r, needs);
    return FKV_OK;
}

int fkv_recorder_check(const struct fkv_recorder *r, const struct fkv_recorder_needs *needs,
                       struct fkv_error *err) {
    const struct fkv_recorder_options *o = &r->options;
    char need[16], have[16];
    if (needs->recordings == 0) {
        if (o->shards > 1)
            return fkv_fail(err, "--shard %d/%d: expected documents, found none", o->shard,
                            o->shards);
        return fkv_fail(err, "expected documents, found none");
    }
    if (o->spectra_only && needs->exact && needs->longest < (int64_t)o->skip_sinks + o->length)
        return fkv_fail(err,
                        "no segment: --length %d after the first %d tokens, but the longest "
                        "recording, \"%s\", has %lld "
                        "tokens",
                        o->length, o->skip_sinks, needs->longest_name, (long long)needs->longest);
    if (needs->disk_bytes > needs->disk_free) {
        fkv_format_bytes(need, needs->disk_bytes);
        fkv_format_bytes(have, needs->disk_free);
        return fkv_fail(err, "%s: the capture needs %s on disk, %s are free%s", o->out, need, have,
                        o->spectra_only
                            ? ""
                            : ": fewer --layers, --heads or --max-documents, or --spectra-only");
    }
    if (fits(needs)) return FKV_OK;
    const bool device = needs->device_bytes > needs->device_free;
    fkv_format_bytes(need, device ? needs->device_bytes : needs->memory_bytes);
    fkv_format_bytes(have, device ? needs->device_free : needs->memory_available);
    return fkv_fail(err,
                    "the run needs %s of memory%s, %s are available: a smaller --max-tokens%s, or "
                    "--cache-dtype f16",
                    need, device ? " on the device" : "", have,
                    r->engine_options->batch > 1 ? " or --batch" : "");
}
