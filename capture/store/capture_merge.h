/* Several captures made into one. */
#ifndef FKV_CAPTURE_STORE_CAPTURE_MERGE_H
#define FKV_CAPTURE_STORE_CAPTURE_MERGE_H

#include "capture/store/capture.h"

/* Merges captures with equal info (shards, machines) into a new folder: recordings are copied
 * whole, in the order given, renumbered; a text and offset that occurs twice is refused. The first
 * output_gram.h5 is copied, too; one that differs from it is refused. */
int fkv_capture_merge(const char *const *paths, int count, const char *folder,
                      struct fkv_error *err);

#endif
