/* What findings rest on, by name and hash: a CSV of kind (model, tokenizer, text), name, sha256
 * beside them, so that a folder that was copied still says it. FOLDER/sources.csv is of the
 * capture, runs_sources.csv of the runs that were drawn, NAME_sources.csv of a probe. */
#ifndef FKV_ANALYZE_TABLES_SOURCES_H
#define FKV_ANALYZE_TABLES_SOURCES_H

#include <stdbool.h>

#include "capture/store/capture.h"
#include "capture/store/capture_reader.h"
#include "capture/store/probe.h"
#include "capture/store/run.h"

/* Each writes its file into the folder, every source once, in the order it came; one that has
 * neither name nor hash is left out, and with none at all there is no file. A file of that name
 * that is none of ours is refused. */
int fkv_sources_of_capture(const struct fkv_capture *capture, const char *folder,
                           struct fkv_error *err);
int fkv_sources_of_runs(const struct fkv_run *runs, int32_t count, const char *folder,
                        struct fkv_error *err);
int fkv_sources_of_probe(const struct fkv_probe *probe, const char *stem, const char *folder,
                         struct fkv_error *err);

extern const char fkv_sources_header[]; /* the first line, without its end */
/* Is this the name of such a file? */
bool fkv_sources_named(const char *name);

#endif
