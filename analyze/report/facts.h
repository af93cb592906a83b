/* What a report reads of results.h5: where the findings came from, and the shares of energy that
 * its sentences and its first table are about. */
#ifndef FKV_ANALYZE_REPORT_FACTS_H
#define FKV_ANALYZE_REPORT_FACTS_H

#include "analyze/report/text_list.h"
#include "capture/store/capture.h"
#include "capture/store/h5.h"

/* How the energy of one state is shared out over frequency, per head; n tokens to a segment. "Low
 * half": coefficients below L = floor(n/2), what gamma 0.5 keeps. */
struct fkv_report_shares {
    enum fkv_state state;
    int32_t layers;
    int32_t heads;
    int32_t n;
    int32_t *layer_index; /* [layers]: numbers in the model; owned */
    int32_t *head_index;  /* [heads]: numbers in the layer; owned */
    double *dc;           /* [layers, heads]: DC's share of all energy; owned, with those below */
    double *half_dc;      /* [layers, heads]: the low half's share of all energy */
    double *half;         /* [layers, heads]: the same with DC left out of both */
    double *half_null;    /* [layers, heads]: `half` of the permuted null; NULL without one */
    double *layer_half;   /* [layers]: `half` pooled over the layer's heads */
};

struct fkv_report_facts {
    char model[256]; /* "" where the file does not say, as below */
    char capture_sha256[128];
    char version[64];
    double segment_length; /* tokens; NaN where the file does not say, as below */
    double skip_sinks;     /* tokens */
    double documents;
    double segments;
    double tokens_left_out;
    struct fkv_report_shares shares[FKV_STATES]; /* [states] are filled, in the order of states */
    int states;
};
int fkv_report_facts_read(struct fkv_h5_reader *results, struct fkv_report_facts *out,
                          struct fkv_error *err);
/* Harmless on a zeroed struct and a second time. */
void fkv_report_facts_free(struct fkv_report_facts *f);

/* Appends the command lines that wrote the groups of results.h5. */
int fkv_report_commands_read(struct fkv_h5_reader *results, struct fkv_text_list *commands,
                             struct fkv_error *err);

#endif
