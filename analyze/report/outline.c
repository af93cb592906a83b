/* Owns the memory of an outline. */
#include "analyze/report/outline.h"

#include <stdlib.h>

void fkv_report_outline_free(struct fkv_report_outline *o) {
    free(o->path);
    fkv_text_list_free(&o->sections);
    fkv_text_list_free(&o->summary);
    fkv_text_list_free(&o->left_out);
    *o = (struct fkv_report_outline){0};
}
