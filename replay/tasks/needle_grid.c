/* See needle_grid.h. */
#include "replay/tasks/needle_grid.h"

#include <inttypes.h>
#include <stdlib.h>

#include "kernels/base/progress.h"

int fkv_needle_grid_open(struct fkv_needle_grid *g, struct fkv_error *err) {
    g->count = g->length_count * g->repeats * g->depth_count;
    g->cells = calloc((size_t)g->count, sizeof *g->cells);
    g->results = calloc((size_t)g->count, sizeof *g->results);
    if (!g->cells || !g->results)
        return fkv_fail(err, "out of memory for %" PRId64 " prompts", g->count);
    for (int64_t i = 0; i < g->count; i++) {
        struct fkv_needle_cell *cell = &g->cells[i];
        cell->depth = g->depths[i % g->depth_count];
        cell->repeat = i / g->depth_count % g->repeats;
        cell->length = (int64_t)g->lengths[i / g->depth_count / g->repeats];
        if (fkv_needle_build(g->task, cell, NULL, err)) return FKV_FAILED;
        const int64_t fed = cell->length + (g->task->kind == FKV_RECALL ? 0 : cell->answer);
        if (fed > g->longest) g->longest = fed;
    }
    return FKV_OK;
}

void fkv_needle_grid_close(struct fkv_needle_grid *g) {
    for (int64_t i = 0; i < g->count && g->results; i++) fkv_needle_result_free(&g->results[i]);
    free(g->results);
    free(g->cells);
    g->results = NULL;
    g->cells = NULL;
}

struct fkv_needle_sheet fkv_needle_grid_sheet(const struct fkv_needle_grid *g) {
    return (struct fkv_needle_sheet){g->task->kind, g->setup, g->cells, g->count, g->results};
}

/* ---- what makes the rows ---- */

static json_t *numbers_json(const double *values, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(list, fkv_json_number(values[i]));
    return list;
}

json_t *fkv_needle_grid_identity(const struct fkv_needle_grid *g, const struct fkv_replay *replay,
                                 const struct fkv_corpus *corpus, struct fkv_error *err) {
    const struct fkv_needle_task *t = g->task;
    const struct fkv_identity maker = {.format = "freqkv-needle",
                                       .replay = replay,
                                       .setup = g->setup,
                                       .batch = 1,
                                       .rope_positions = fkv_identity_rope_positions(
                                           &replay->engine.model->config, g->setup, g->longest)};
    fkv_sha256_hex hash;
    if (fkv_corpus_sha256(corpus, hash, err)) return NULL;
    json_t *o = fkv_identity_json(&maker, err);
    if (!o) return NULL;
    json_object_set_new(o, "corpus_sha256", json_string(hash));
    json_object_set_new(o, "task", json_string(fkv_needle_kinds[t->kind]));
    json_object_set_new(o, "lengths", numbers_json(g->lengths, g->length_count));
    json_object_set_new(o, "depths", numbers_json(g->depths, g->depth_count));
    json_object_set_new(o, "repeats", json_integer(g->repeats));
    json_object_set_new(o, "seed", json_integer(t->seed));
    json_object_set_new(o, "digits", json_integer(t->digits));
    if (t->block) json_object_set_new(o, "block", json_integer(t->block));
    if (t->kind == FKV_RECALL) {
        json_object_set_new(o, "passage", json_integer(t->passage));
        return o;
    }
    json_object_set_new(o, "needle", fkv_json_string(t->needle));
    json_object_set_new(o, "question", fkv_json_string(t->question));
    json_object_set_new(o, "answer", fkv_json_string(t->answer));
    return o;
}

int fkv_needle_grid_look_up(struct fkv_needle_grid *g, const char *path, const json_t *identity,
                            bool quiet, struct fkv_error *err) {
    const struct fkv_needle_sheet sheet = fkv_needle_grid_sheet(g);
    FILE *f;
    if (fkv_lines_find(path, identity, &f, err)) return FKV_FAILED;
    if (!f) return FKV_OK;
    int status = fkv_needle_rows_read(f, path, &sheet, &g->found, err);
    fclose(f);
    g->first = g->found.lines ? g->found.lines - 1 : 0;
    if (!status && !quiet && g->found.bytes)
        fprintf(stderr, "%s: %" PRId64 " of %" PRId64 " prompts are done%s\n", path, g->first,
                g->count, g->found.torn ? "; a row that is not whole is dropped" : "");
    return status;
}

/* ---- running ---- */

static double seconds_of(const struct fkv_needle_grid *g, const struct fkv_cost *cost, int64_t i) {
    return fkv_cost_seconds(cost, (double)g->cells[i].length,
                            fkv_policy_slots(g->setup, g->cells[i].length));
}

double fkv_needle_grid_seconds(const struct fkv_needle_grid *g, const struct fkv_cost *cost) {
    double seconds = 0;
    for (int64_t i = g->first; i < g->count; i++) seconds += seconds_of(g, cost, i);
    return seconds;
}

static int run_cell(struct fkv_needle_grid *g, struct fkv_session *session, int64_t i,
                    struct fkv_error *err) {
    struct fkv_needle_cell *cell = &g->cells[i];
    int32_t *tokens;
    if (fkv_needle_build(g->task, cell, &tokens, err)) return FKV_FAILED;
    int status = fkv_needle_score(session, g->task, cell, tokens, &g->results[i], err);
    free(tokens);
    return status ? fkv_error_prefix(err, "length %" PRId64 ", depth %g, repeat %" PRId64,
                                     cell->length, cell->depth, cell->repeat)
                  : FKV_OK;
}

static int run_cells(struct fkv_needle_grid *g, struct fkv_session *session,
                     struct fkv_lines_file *file, const struct fkv_cost *cost, bool quiet,
                     struct fkv_error *err) {
    const struct fkv_needle_sheet sheet = fkv_needle_grid_sheet(g);
    struct fkv_progress progress;
    double done = 0;
    int status = FKV_OK;
    if (file && !g->found.lines)
        status = fkv_lines_append_printed(file, fkv_needle_print_line, &sheet, -1, err);
    fkv_progress_start(&progress, "prompts", g->count - g->first, quiet);
    fkv_progress_weigh(&progress, fkv_needle_grid_seconds(g, cost));
    for (int64_t i = g->first; i < g->count && !status; i++) {
        status = run_cell(g, session, i, err);
        if (!status && file)
            status = fkv_lines_append_printed(file, fkv_needle_print_line, &sheet, i, err);
        done += seconds_of(g, cost, i);
        fkv_progress_update_work(&progress, i + 1 - g->first, done, "");
    }
    fkv_progress_finish(&progress);
    return status;
}

int fkv_needle_grid_run(struct fkv_needle_grid *g, struct fkv_session *session, const char *path,
                        const json_t *identity, const struct fkv_cost *cost, bool quiet,
                        struct fkv_error *err) {
    struct fkv_lines_file *file = NULL;
    int status =
        path ? fkv_lines_open(path, identity, g->found.bytes, g->found.torn, &file, err) : FKV_OK;
    if (!status) status = run_cells(g, session, file, cost, quiet, err);
    fkv_lines_close(file);
    return status;
}
