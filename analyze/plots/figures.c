/* Owns the table of figures (figures.h). */
#include "analyze/plots/figures.h"

#include <fnmatch.h>
#include <stddef.h>

#define FIGURE(names, data, draw, text) {.files = names, .reading = text, .data = draw},
const struct fkv_figure_row fkv_figures[] = {FKV_FIGURE_ROWS(FIGURE){.files = NULL}};

const char *fkv_figure_reading(const char *file) {
    int i = 0;
    while (fnmatch(fkv_figures[i].files, file, 0)) i++; /* row "*" fits every name */
    return fkv_figures[i].reading;
}
