/* Renders chat templates for check_templates.py: a line of JSON on standard input,
 *   {"template": TEXT, "variables": {...}, "date": "YYYY-MM-DD"}    date may be left out
 * a line on standard output, {"text": TEXT} or {"error": MESSAGE}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template.h"
#include "kernels/base/json.h"

static json_t *render(const json_t *task, struct fkv_error *err) {
    const json_t *source = json_object_get(task, "template");
    struct fkv_template *t;
    char *text;
    size_t bytes;
    if (fkv_template_parse(json_string_value(source), json_string_length(source), "template", &t,
                           err))
        return NULL;
    const int status =
        fkv_template_render(t, json_object_get(task, "variables"),
                            json_string_value(json_object_get(task, "date")), &text, &bytes, err);
    fkv_template_close(t);
    json_t *result = status ? NULL : json_pack("{s:s%}", "text", text, bytes);
    free(text);
    return result;
}

int main(void) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t bytes;
    while ((bytes = getline(&line, &capacity, stdin)) > 0) {
        struct fkv_error err = {0};
        json_t *task = fkv_json_parse(line, (size_t)bytes, "standard input", &err);
        json_t *result = task ? render(task, &err) : NULL;
        if (!result) result = json_pack("{s:o}", "error", fkv_json_string(err.message));
        if (fkv_json_print(result, &err)) return EXIT_FAILURE;
        json_decref(task);
    }
    free(line);
    return EXIT_SUCCESS;
}
