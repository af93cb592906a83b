/* Modules that stand in for freqkv-cuda.so (test_module): TABLE is the name of their table, VERSION
 * is added to the contract's, UNFIT machines are refused. */
#include <string.h>

#include "kernels/kernels.h"

static int probe(struct fkv_error *err) {
    if (UNFIT && err) strcpy(err->message, "no device of this kind");
    return UNFIT ? FKV_FAILED : FKV_OK;
}

extern const struct fkv_backend_ops TABLE;
const struct fkv_backend_ops TABLE = {
    .abi = FKV_BACKEND_ABI + VERSION, .name = "cuda", .probe = probe};
