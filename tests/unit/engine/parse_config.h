/* A config.json that stands in memory. */
#ifndef FKV_TESTS_PARSE_CONFIG_H
#define FKV_TESTS_PARSE_CONFIG_H

#include "engine/checkpoint/config.h"

/* fkv_config_read of a text. */
static inline int parse_config(const char *text, size_t bytes, const char *where,
                               int32_t trained_context, struct fkv_config *config,
                               struct fkv_error *err) {
    json_t *root = fkv_json_parse(text, bytes, where, err);
    if (!root) return FKV_FAILED;
    const int status = fkv_config_read(root, where, trained_context, config, err);
    json_decref(root);
    return status;
}

#endif
