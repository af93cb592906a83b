/* The folder of a capture: the names of its files, what may be in it, and capture.h5, which links
 * to its recordings. Inside the store only. */
#ifndef FKV_STORE_FOLDER_H
#define FKV_STORE_FOLDER_H

#include "capture/store/capture.h"

/* FOLDER/documents/NNNNNN.h5, or its name while it is written. */
int fkv_folder_document(char path[FKV_PATH], const char *folder, int64_t number, bool temporary,
                        struct fkv_error *err);

/* FOLDER/output_gram.h5, likewise. */
int fkv_folder_output_gram(char path[FKV_PATH], const char *folder, bool temporary,
                           struct fkv_error *err);

/* Do they exist? */
bool fkv_folder_has_document(const char *folder, int64_t number);
bool fkv_folder_has_output_gram(const char *folder);

/* The numbers of the recordings in FOLDER/documents, ascending (malloc'd). No such folder: none. */
int fkv_folder_list(const char *folder, int64_t **numbers, int64_t *count, struct fkv_error *err);

/* Makes FOLDER and FOLDER/documents and locks the latter (*lock, a file descriptor, or -1 where
 * locks do not exist). Without `resume`, a folder that is not empty is refused; with it, what is no
 * part of a capture is refused, and temporaries of a killed process are removed. *end: one more
 * than the largest number of a recording; -1 when that was not reached. */
int fkv_folder_prepare(const char *folder, bool resume, int64_t *end, int *lock,
                       struct fkv_error *err);

/* Checks that every recording of the folder opens and was made with `info`. */
int fkv_folder_check(const char *folder, const struct fkv_capture_info *info,
                     struct fkv_error *err);

/* Checks that what FOLDER/capture.h5 names is there: a copy may have been cut short. Without a
 * capture.h5 that can be read there is nothing to check. */
int fkv_folder_check_links(const char *folder, struct fkv_error *err);

/* Writes FOLDER/capture.h5 with a link to every recording of the folder. */
int fkv_folder_write_links(const char *folder, const struct fkv_capture_info *info,
                           struct fkv_error *err);

/* Removes FOLDER and FOLDER/documents where nothing is in them. */
void fkv_folder_remove_if_empty(const char *folder);

#endif
