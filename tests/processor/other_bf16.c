/* For programs that are to take the other way to bfloat16 than this processor does: one whose
 * products of it are slow counts as fast, and the other way round. Linked with
 * --wrap=fkv_isa_slow_bf16. */
#include "kernels/isa.h"

bool __real_fkv_isa_slow_bf16(void);
bool __wrap_fkv_isa_slow_bf16(void);

bool __wrap_fkv_isa_slow_bf16(void) { return !__real_fkv_isa_slow_bf16(); }
