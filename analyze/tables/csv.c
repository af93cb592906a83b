/* Owns how a cell is written (csv.h). */
#include "analyze/tables/csv.h"

#include <math.h>
#include <string.h>

#include "kernels/base/path.h"

int fkv_csv_open(struct fkv_atomic_file *f, const char *folder, const char *name,
                 const char *header, struct fkv_error *err) {
    char path[FKV_PATH];
    if (fkv_path_print(path, err, "%s/%s", folder, name) || fkv_atomic_open(f, path, err))
        return FKV_FAILED;
    if (header) fprintf(f->stream, "%s\n", header);
    return FKV_OK;
}

void fkv_csv_number(FILE *f, double x) {
    if (isfinite(x))
        fprintf(f, ",%.9g", x);
    else
        fputc(',', f);
}

void fkv_csv_interval(FILE *f, struct fkv_interval x) {
    fkv_csv_number(f, x.estimate);
    fkv_csv_number(f, x.low);
    fkv_csv_number(f, x.high);
}

void fkv_csv_first(FILE *f, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, f);
        return;
    }
    fputc('"', f);
    for (const char *c = text; *c; c++) {
        if (*c == '"') fputc('"', f);
        fputc(*c, f);
    }
    fputc('"', f);
}

void fkv_csv_text(FILE *f, const char *text) {
    fputc(',', f);
    fkv_csv_first(f, text);
}
