/* Which of its kernels OpenBLAS runs on this processor. Not in a plain build. */
#ifndef FKV_KERNELS_BLAS_H
#define FKV_KERNELS_BLAS_H

/* "OpenBLAS (SkylakeX)". Static text, written at each call. */
const char *fkv_blas_name(void);
/* NULL, or one line that says that OpenBLAS runs below this processor's instruction set, and what
 * to do. Static text. */
const char *fkv_blas_note(void);

#endif
