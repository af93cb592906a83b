/* Chat templates: the part of Jinja that the templates of language models are written in, rendered
 * as Hugging Face transformers does (trim_blocks, lstrip_blocks, no escaping).
 *
 * Statements   if, elif, else; for (several targets, a filter by `if`, else, the variable `loop`,
 *              break, continue); set (a name, an attribute of a namespace, a block); macro;
 *              generation, whose body is rendered as it is
 * Expressions  literals, names, attributes, items, slices, calls; not, and, or, comparisons, in, +,
 *              -, *, /, //, %, ~, `a if b else c`; filters (filters.c), tests (tests.c), methods
 * and functions (calls.c), all in template/
 *
 * What is outside is refused with its line: syntax when a template is parsed; a filter, a test, a
 * method or a function that is not known when a rendering comes to it, because templates have
 * branches for tools that most texts never take. Numbers that are not whole, lists and mappings are
 * not printed; `tojson` writes the latter two. */
#ifndef FKV_ENGINE_TEXT_TEMPLATE_H
#define FKV_ENGINE_TEXT_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>

#include "kernels/base/error.h"

struct fkv_template; /* immutable */

/* Parses source [bytes]; `where` names it in messages and is copied. */
int fkv_template_parse(const char *source, size_t bytes, const char *where,
                       struct fkv_template **out, struct fkv_error *err);
void fkv_template_close(struct fkv_template *t); /* NULL is fine */

/* What a rendering may cost, in bytes that it makes and FKV_TEMPLATE_STEP for every expression and
 * statement; a template that costs more is refused. */
enum { FKV_TEMPLATE_EFFORT = 1 << 27, FKV_TEMPLATE_STEP = 64 };

/* Renders with the fields of the object `variables`. `date`, "YYYY-MM-DD", is what the function
 * strftime_now formats, at midnight; NULL: the template finds no such function. *text [*bytes] is
 * malloc'd, the caller's, with a NUL behind it. */
int fkv_template_render(const struct fkv_template *t, const json_t *variables, const char *date,
                        char **text, size_t *bytes, struct fkv_error *err);

#endif
