/* The table of changes of PROBE.h5 (layout: probe.h), for probe.c alone. */
#ifndef FKV_STORE_PROBE_CHANGES_H
#define FKV_STORE_PROBE_CHANGES_H

#include "capture/store/h5.h"
#include "capture/store/probe.h"

/* Writes /changes of p. */
int fkv_probe_changes_put(struct fkv_h5_writer *w, const struct fkv_probe *p,
                          struct fkv_error *err);
/* Reads /changes into p->changes (p's to free), whose sizes are known. A field out of range is
 * refused; the message names it. */
int fkv_probe_changes_get(struct fkv_h5_reader *r, struct fkv_probe *p, const char *path,
                          struct fkv_error *err);
/* Do both have the same changes in the same order, but for labels? If not, the message names the
 * change and the field. */
int fkv_probe_changes_check_same(const struct fkv_probe *expected, const struct fkv_probe *found,
                                 const char *where, struct fkv_error *err);

#endif
