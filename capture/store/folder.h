/* The folder of a capture: its files' names, what may lie in it, its face. Inside the store only.
 */
#ifndef FKV_STORE_FOLDER_H
#define FKV_STORE_FOLDER_H

#include "capture/store/capture.h"

/* FOLDER/documents/NNNNNN.h5, or its name while it is written; malloc'd, NULL without memory. */
char *fkv_folder_document(const char *folder, int64_t number, bool temporary);

/* FOLDER/output_gram.h5, likewise. */
char *fkv_folder_output_gram(const char *folder, bool temporary);

/* The numbers of the recordings in FOLDER/documents, ascending (malloc'd). No such folder: none. */
int fkv_folder_list(const char *folder, int64_t **numbers, int64_t *count, struct fkv_error *err);

/* Makes FOLDER and FOLDER/documents and locks the latter (*lock, a file descriptor, or -1 where
 * locks do not exist). Without `resume`, anything that is there already is refused; with it, what
 * is no part of a capture is, and temporaries of a killed run are removed. *end: one more than the
 * largest number of a recording there; -1 when that was not reached. */
int fkv_folder_prepare(const char *folder, bool resume, int64_t *end, int *lock,
                       struct fkv_error *err);

/* Every recording there opens and was made with `info`. */
int fkv_folder_check(const char *folder, const struct fkv_capture_info *info,
                     struct fkv_error *err);

/* FOLDER/capture.h5 over the recordings that are there. */
int fkv_folder_write_face(const char *folder, const struct fkv_capture_info *info,
                          struct fkv_error *err);

void fkv_folder_remove_if_empty(const char *folder);

#endif
