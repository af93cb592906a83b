/* What the writer, the reader and the merger of captures agree on: names, root attributes, chunk
 * shapes. Inside the store only. */
#ifndef FKV_STORE_SCHEMA_H
#define FKV_STORE_SCHEMA_H

#include "capture/store/capture.h"
#include "capture/store/capture_reader.h"
#include "capture/store/hdf.h"

#define FKV_CAPTURE_LINKS "capture.h5"
#define FKV_CAPTURE_DOCUMENTS "documents"
#define FKV_CAPTURE_GRAM "output_gram" /* the file, without .h5, and the dataset in it */
#define FKV_CAPTURE_FORMAT "freqkv-capture"

/* Names of the arrays of /document/spectra/STATE, in the order of struct fkv_spectra_sums. */
enum { FKV_SUMS_ARRAYS = 5 };
struct fkv_sums_array {
    const char *name;
    int rank;
    hsize_t dims[3];
    double *data;
};
void fkv_sums_arrays(const struct fkv_spectra_sums *sums,
                     struct fkv_sums_array arrays[FKV_SUMS_ARRAYS]);

/* schema_rotation.c: the attributes that say how keys and queries turn. Reading needs the sizes and
 * layer_index. */
int fkv_schema_write_rotation(hid_t file, const struct fkv_capture_info *info,
                              struct fkv_error *err);
int fkv_schema_read_rotation(hid_t file, struct fkv_capture_info *info, struct fkv_error *err);
int fkv_schema_compare_rotation(const struct fkv_capture_info *expected,
                                const struct fkv_capture_info *found, struct fkv_error *err);
/* schema_scores.c: the attributes that say what scores go through. Reading needs the sizes and the
 * layers of `info`. */
int fkv_schema_write_scores(hid_t file, const struct fkv_capture_info *info, struct fkv_error *err);
int fkv_schema_read_scores(hid_t file, struct fkv_capture_info *info, struct fkv_error *err);
int fkv_schema_compare_scores(const struct fkv_capture_info *expected,
                              const struct fkv_capture_info *found, struct fkv_error *err);
int fkv_schema_write_info(hid_t file, const struct fkv_capture_info *info, struct fkv_error *err);
/* Fills info but for states and spectra_only. A file of ours must be of a version we know; a user's
 * own needs n_layers, n_kv_heads, head_dim. */
int fkv_schema_read_info(hid_t file, struct fkv_capture_info *info, struct fkv_error *err);

bool fkv_schema_names_bf16(const char *text); /* "bf16", "bfloat16" */

/* n_heads from the query heads on axis 1 of an array, where no attribute said it. */
void fkv_schema_infer_heads(struct fkv_capture_info *info, hsize_t query_heads);

/* Tokens and heads per chunk of a state of T tokens. */
void fkv_schema_chunk(const struct fkv_capture_info *info, enum fkv_state state, int64_t n_tokens,
                      int64_t *tokens, int32_t *heads);

/* The Gram matrices of the output projection in an open file (output_gram.c): of a known type, and
 * shaped as `info` says (or as says n_heads, where nothing else did). *found false when there are
 * none. */
int fkv_output_gram_check(hid_t file, struct fkv_capture_info *info, bool *found,
                          struct fkv_error *err);
/* Checks that FOLDER/output_gram.h5, where it exists (*found), was made with `info` and holds them.
 */
int fkv_output_gram_check_folder(const char *folder, const struct fkv_capture_info *info,
                                 bool *found, struct fkv_error *err);
/* FKV_OK when both captures have the same but for rounding. */
int fkv_output_gram_compare(struct fkv_capture *a, struct fkv_capture *b, struct fkv_error *err);

/* "NNNNNN.h5" -> its number, or -1. */
int64_t fkv_schema_document_number(const char *file_name);

/* The file of a recording that has one for itself, made by us; else NULL. */
const char *fkv_capture_own_file(const struct fkv_capture *c, int32_t index);

#endif
