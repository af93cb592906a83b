/* Owns the table of figures (figures.h). */
#include "analyze/plots/figures.h"

#include <fnmatch.h>

#define FIGURE(names, data, draw, text) {.files = names, .reading = text, .data = draw},
const struct fkv_figure_row fkv_figures[] = {FKV_FIGURE_ROWS(FIGURE)};
const int fkv_figure_count = sizeof fkv_figures / sizeof *fkv_figures;

const char *fkv_figure_reading(const char *file) {
    int i = 0;
    while (fnmatch(fkv_figures[i].files, file, 0)) i++; /* the last row fits every name */
    return fkv_figures[i].reading;
}
