/* The embedded model (data/litbank-1m) on a backend of its own, in float32. */
#ifndef FKV_TESTS_EMBEDDED_MODEL_H
#define FKV_TESTS_EMBEDDED_MODEL_H

#include "engine/checkpoint/model.h"
#include "tests/unit/support.h"

/* The backend that FKV_TEST_BACKEND names, else the CPU's. */
static inline const struct fkv_backend_ops *tested_backend(void) {
    const char *name = getenv("FKV_TEST_BACKEND");
    const struct fkv_backend_ops *ops;
    assert_ok(fkv_backend_find(name ? name : "cpu", &ops, NULL, &err));
    return ops;
}

/* With 16-bit products, rows that are multiplied in other company would round otherwise. */
static inline struct fkv_model *open_embedded_model(const struct fkv_backend_ops *ops) {
    struct fkv_backend *backend;
    struct fkv_model *model;
    assert_ok(ops->open(&(struct fkv_backend_options){.compute = FKV_COMPUTE_F32}, &backend, &err));
    assert_ok(fkv_model_open("data/litbank-1m", ops, backend,
                             &(struct fkv_model_options){.check_values = true}, &model, &err));
    return model;
}

static inline void close_embedded_model(struct fkv_model *model) {
    const struct fkv_backend_ops *ops = model->ops;
    struct fkv_backend *backend = model->backend;
    fkv_model_close(model);
    ops->close(backend);
}

#endif
