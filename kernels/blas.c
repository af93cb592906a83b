/* See blas.h. OpenBLAS chooses its kernels from a table of processors, and for one that is newer
 * than itself it takes those of a Pentium 4 (Prescott): a fifth of the speed. */
#include "kernels/blas.h"

#ifndef FKV_PLAIN
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernels/isa.h"

char *openblas_get_corename(void); /* of OpenBLAS: "SkylakeX" */

const char *fkv_blas_name(void) {
    static char name[64];
    snprintf(name, sizeof name, "OpenBLAS (%s)", openblas_get_corename());
    return name;
}

/* The instruction set of a core's kernels. A core that is not named here is of another kind of
 * processor, or older than AVX2. */
static enum fkv_isa isa_of(const char *core) {
    static const struct {
        const char *name;
        enum fkv_isa isa;
    } cores[] = {{"Haswell", FKV_ISA_AVX2},      {"Zen", FKV_ISA_AVX2},
                 {"Excavator", FKV_ISA_AVX2},    {"SkylakeX", FKV_ISA_AVX512},
                 {"Cooperlake", FKV_ISA_AVX512}, {"SapphireRapids", FKV_ISA_AVX512}};
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++)
        if (!strcasecmp(core, cores[i].name)) return cores[i].isa;
    return FKV_ISA_PLAIN;
}

const char *fkv_blas_note(void) {
    static char note[192];
    const enum fkv_isa most = fkv_isa() < FKV_ISA_AVX512 ? fkv_isa() : FKV_ISA_AVX512;
    if (isa_of(openblas_get_corename()) >= most) return NULL;
    snprintf(note, sizeof note,
             "OpenBLAS runs its %s kernels on a processor with %s: for full speed set "
             "OPENBLAS_CORETYPE=%s",
             openblas_get_corename(), fkv_isa_name(most),
             most == FKV_ISA_AVX512 ? "SkylakeX" : "Haswell");
    return note;
}
#else
typedef int fkv_blas_is_not_built;
#endif
