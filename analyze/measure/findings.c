/* Owns the end of findings. */
#include "analyze/measure/findings.h"

void fkv_spectrum_free(struct fkv_spectrum *s) {
    fkv_memory_free(&s->memory);
    *s = (struct fkv_spectrum){0};
}

void fkv_error_curves_free(struct fkv_error_curves *e) {
    fkv_memory_free(&e->memory);
    *e = (struct fkv_error_curves){0};
}
