/* The kernel contract: what a processor does for this project.
 *
 * A backend is one const table of operations (struct fkv_backend_ops). Three answer to it and pass
 * the same tests: `reference` (double arithmetic, the equations written down, no speed), `cpu`, and
 * `cuda` (a module found at run time). The operations are the fused steps of a transformer layer,
 * not scalar arithmetic, because that is the size at which two processors can both be fast.
 *
 * Conventions
 *  - Arrays are row-major, slowest index first; a shape stands in brackets: x [rows, dim]. W (out,
 *  in): y = W x.
 *  - Buffers are opaque and belong to the backend that made them; offsets are in bytes. Activations
 *  are float32.
 *  - Operations enqueue on the backend's one stream, in order; `read`, `score`, `compare`,
 *  `power`, `fetch_wait`, `synchronize`, `time_read`, and `compress` and
 *    `gather` where energies are asked for, wait. The CPU runs at once.
 *  - Inputs and outputs do not overlap unless an operation says "in place". Nothing is scaled
 *  unless an operation says so.
 *  - Item arrays (struct fkv_*_item) live on the host and may be reused as soon as the call
 *  returns. Items of one call touch disjoint
 *    rows and slots, so they run in any order.
 *  - No operation allocates: `reserve` is called once, before the first step, with the largest
 *  sizes that will occur.
 *  - Every call returns FKV_OK, or FKV_FAILED with a message.
 *
 * backend.h has life, memory and time; layer.h the steps of a layer; cache.h appending, attending
 * and compressing; spectra.h power. Each operation's signature stands there once, as a function
 * type: a backend declares its own by it. */
#ifndef FKV_KERNELS_KERNELS_H
#define FKV_KERNELS_KERNELS_H

#include "kernels/backend.h"
#include "kernels/cache.h"
#include "kernels/layer.h"
#include "kernels/spectra.h"

enum { FKV_BACKEND_ABI = 11 };

struct fkv_backend_ops {
    uint32_t abi; /* FKV_BACKEND_ABI */
    const char *name;

    /* backend.h */
    fkv_op_probe *probe;
    fkv_op_open *open;
    fkv_op_close *close;
    fkv_op_info *info;
    fkv_op_reserve *reserve;
    fkv_op_add_needs *add_needs;
    fkv_op_synchronize *synchronize;
    fkv_op_time_begin *time_begin;
    fkv_op_time_end *time_end;
    fkv_op_time_read *time_read;
    fkv_op_buffer_create *buffer_create;
    fkv_op_buffer_adopt *buffer_adopt;
    fkv_op_buffer_release *buffer_release;
    fkv_op_write *write;
    fkv_op_read *read;
    fkv_op_copy *copy;
    fkv_op_copy_rows *copy_rows;
    fkv_op_address *address;
    fkv_op_host_create *host_create;
    fkv_op_host_release *host_release;
    fkv_op_fetch *fetch;
    fkv_op_fetch_wait *fetch_wait;
    fkv_op_step_create *step_create;
    fkv_op_step_release *step_release;
    fkv_op_step_begin *step_begin;
    fkv_op_step_end *step_end;

    /* layer.h */
    fkv_op_embed *embed;
    fkv_op_norm_qkv *norm_qkv;
    fkv_op_rotate *rotate;
    fkv_op_project_residual *project_residual;
    fkv_op_norm_gate_up *norm_gate_up;
    fkv_op_norm_logits *norm_logits;
    fkv_op_score *score;
    fkv_op_compare *compare;

    /* cache.h */
    fkv_op_append *append;
    fkv_op_attend *attend;
    fkv_op_attention_paid *attention_paid;
    fkv_op_map_dct *map_dct;
    fkv_op_map_matrix *map_matrix;
    fkv_op_map_release *map_release;
    fkv_op_compress *compress;
    fkv_op_gather *gather;

    /* spectra.h */
    fkv_op_power *power;
    fkv_op_spectra_add *spectra_add;
};

/* One row per backend, in the order of --help: ROW(name, note, where). `note` stands behind the
 * name in --help. `where` the table is: LINKED, the program has it as fkv_NAME_backend; MODULE, in
 * a module that is loaded (find_backend.c). */
#define FKV_BACKEND_ROWS(ROW)                                                                      \
    ROW(cpu, "", LINKED)                                                                           \
    ROW(cuda, "", MODULE)                                                                          \
    ROW(reference, " (slow)", LINKED)

#define FKV_DECLARE_LINKED(name) extern const struct fkv_backend_ops fkv_##name##_backend;
#define FKV_DECLARE_MODULE(name)
#define FKV_DECLARE_BACKEND(name, note, where) FKV_DECLARE_##where(name)
FKV_BACKEND_ROWS(FKV_DECLARE_BACKEND)

/* What fkv_backend_find takes, for messages: "auto, cpu, ..." */
#define FKV_BACKEND_AFTER_COMMA(name, note, where) ", " #name
#define FKV_BACKEND_NAMES "auto" FKV_BACKEND_ROWS(FKV_BACKEND_AFTER_COMMA)

/* The backend of a row's name, or "auto": an accelerator if there is one, else the CPU. The CUDA
 * backend is a module, freqkv-cuda.so, loaded when it is asked for: from the folder of the running
 * program, or from where FKV_CUDA_MODULE points. It exports one table, `fkv_cuda_backend`. Where
 * "auto" takes the CPU although there is an NVIDIA driver, or although FKV_CUDA_MODULE points
 * somewhere, `why` says what is missing; else it is "". It may be NULL. */
int fkv_backend_find(const char *name, const struct fkv_backend_ops **ops, struct fkv_error *why,
                     struct fkv_error *err);

#endif
