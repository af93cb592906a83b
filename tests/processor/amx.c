/* For programs whose tiles are the stand-in's (tiles.h): a processor with AVX512-BF16 counts as one
 * with AMX. Linked with --wrap=fkv_isa. */
#include "kernels/isa.h"

enum fkv_isa __real_fkv_isa(void);
enum fkv_isa __wrap_fkv_isa(void);

enum fkv_isa __wrap_fkv_isa(void) {
    const enum fkv_isa isa = __real_fkv_isa();
    return isa == FKV_ISA_AVX512_BF16 ? FKV_ISA_AMX : isa;
}
