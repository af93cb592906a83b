/* The header of one safetensors file, checked as a whole: size cap, JSON without duplicates, known
 * dtypes, shape x dtype = bytes, offsets inside the file, no overlaps, no holes. */
#ifndef FKV_ENGINE_CHECKPOINT_SAFETENSORS_HEADER_H
#define FKV_ENGINE_CHECKPOINT_SAFETENSORS_HEADER_H

#include "engine/checkpoint/tensor.h"

/* Adds the tensors of the file [bytes] in memory to `table`, those of the file sorted by offset;
 * `path` is theirs and names the file in messages. On failure the table holds what was read so far.
 */
int fkv_tensor_table_read(const void *file, size_t bytes, const char *path,
                          struct fkv_tensor_table *table, struct fkv_error *err);

#endif
