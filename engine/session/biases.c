/* Biases of slots: what attention adds to each slot's score, the log of how many tokens the slot
 * stands for. A slot of its own token has 0. When n slots become L by a map, new slot j covers the
 * stretch [j n/L, (j+1) n/L) of the old ones and takes their masses by overlap, so the total stays;
 * moved slots take theirs along. All of it follows from the schedule, so the host keeps the biases
 * and the device gets a head's row when it changed.
 *
 * Free slots have bias 0, so appending writes nothing. Rows are written late, when the next tokens
 * come or an action is done: reset and restore then cannot fail, and a row that changes twice is
 * written once. */
#include <math.h>
#include <string.h>

#include "engine/session/session_internal.h"

static double *row_of(struct fkv_session *s, int32_t head) {
    return s->bias + (size_t)head * (size_t)s->setup.capacity;
}

/* masses [n] -> spread [retained]: integrals of the old density over the new slots' stretches. */
static void spread_masses(const double *masses, int32_t n, int32_t retained, double *spread) {
    double width = (double)n / retained;
    for (int32_t j = 0; j < retained; j++) {
        double from = j * width, to = j + 1 < retained ? (j + 1) * width : n;
        spread[j] = 0;
        for (int32_t i = (int32_t)from; i < n && i < to; i++) {
            double low = i > from ? i : from, high = i + 1 < to ? i + 1 : to;
            spread[j] += masses[i] * (high - low);
        }
    }
}

void session_move_biases(struct fkv_session *s, const struct fkv_head *head,
                         const struct fkv_action *a) {
    int32_t index = (int32_t)(head - s->heads), n = a->map_n, kept = a->map_retained;
    double *bias = row_of(s, index), *masses = s->bias_scratch,
           *spread = masses + s->setup.capacity;
    if (n) {
        for (int32_t i = 0; i < n; i++) masses[i] = exp(bias[a->map_slot + i]);
        spread_masses(masses, n, kept, spread);
        for (int32_t j = 0; j < kept; j++) bias[a->map_slot + j] = log(spread[j]);
    }
    for (int32_t j = 0; j < a->gather_count; j++)
        bias[a->gather_slot + j] = bias[a->gather_from[j]];
    for (int32_t i = a->slots; i < s->setup.capacity; i++) bias[i] = 0;
    s->bias_stale[index] = true;
}

void session_clear_biases(struct fkv_session *s, int32_t head) {
    memset(row_of(s, head), 0, (size_t)s->setup.capacity * sizeof *s->bias);
    s->bias_stale[head] = true;
}

int session_write_biases(struct fkv_session *s, struct fkv_error *err) {
    size_t capacity = (size_t)s->setup.capacity, bytes = capacity * sizeof *s->bias_row;
    if (!s->bias) return FKV_OK;
    for (int32_t h = 0; h < session_head_count(s); h++) {
        if (!s->bias_stale[h]) continue;
        for (size_t i = 0; i < capacity; i++) s->bias_row[i] = (float)row_of(s, h)[i];
        if (s->ops->write(s->backend, s->biases, (size_t)h * bytes, s->bias_row, bytes, err))
            return FKV_FAILED;
        s->bias_stale[h] = false;
    }
    return FKV_OK;
}
