/* A chat template in a GGUF file, its special tokens and its variables; what is no template. Those
 * of folders: unit/replay/test_prompts.c. */
#include "engine/text/chat_template.h"
#include "tests/unit/engine/gguf_file.h"

static struct gguf_file file;

/* A file of three tokens; `template` NULL: it has none. */
static const char *write_gguf(const char *folder, const char *template, uint32_t eos) {
    const char *path = test_path(folder, "m.gguf");
    const uint32_t strings = 8;
    size_t bytes;
    gguf_begin(&file);
    gguf_key(&file, "tokenizer.ggml.tokens", 9, &strings, 4);
    gguf_put_u64(&file.keys, 3);
    gguf_put_string(&file.keys, "<unk>");
    gguf_put_string(&file.keys, "<s>");
    gguf_put_string(&file.keys, "</s>");
    gguf_key_u32(&file, "tokenizer.ggml.bos_token_id", 1);
    gguf_key_u32(&file, "tokenizer.ggml.eos_token_id", eos);
    if (template) gguf_key_string(&file, "tokenizer.chat_template", template);
    unsigned char *memory = gguf_assemble(&file, &bytes);
    test_write_file(path, memory, bytes);
    free(memory);
    return path;
}

static char *render(const char *model, const char *more, struct fkv_error *err) {
    struct fkv_chat_template *c;
    char *text;
    size_t bytes;
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi"),
           *variables = more ? json_loads(more, 0, NULL) : NULL;
    int status = fkv_chat_template_open(model, &c, err);
    if (!status)
        status = fkv_chat_template_render(c, messages, variables, NULL, &text, &bytes, err);
    if (!status) assert_int_equal(strlen(text), bytes);
    fkv_chat_template_close(c);
    json_decref(messages);
    json_decref(variables);
    return status ? NULL : text;
}

TEST_IN_FOLDER(a_gguf_file_has_its_template_and_tokens) {
    static const char template[] =
        "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token is defined }}"
        "{{ tools is none }}{{ add_generation_prompt }}{{ thinking | default('?') }}";
    char *text;
    const char *path = write_gguf(folder, template, 2);
    assert_non_null(text = render(path, NULL, &err));
    assert_string_equal(text, "<s>hi</s>FalseTrueTrue?");
    free(text);
    assert_non_null(
        text = render(path, "{\"thinking\": false, \"add_generation_prompt\": false}", &err));
    assert_string_equal(text, "<s>hi</s>FalseTrueFalseFalse");
    free(text);
}

static void assert_opening_says(const char *model, const char *part) {
    struct fkv_chat_template *c;
    assert_refused(fkv_chat_template_open(model, &c, &err), part);
    assert_null(c);
    fkv_chat_template_close(c);
}

TEST_IN_FOLDER(a_model_without_a_template_is_refused) {
    assert_opening_says(folder, "no chat_template.jinja");
    assert_opening_says(write_gguf(folder, NULL, 2), "tokenizer.chat_template");
    assert_opening_says(write_gguf(folder, "{% import 'x' as y %}", 2),
                        "m.gguf: key tokenizer.chat_template:1: expected if, for");
    assert_opening_says(write_gguf(folder, "a", 3), "tokenizer.ggml.eos_token_id");
    static const char others[] = "{\"chat_template\": [{\"name\": \"tool\", \"template\": \"a\"}]}";
    test_write_file(test_path(folder, "tokenizer_config.json"), others, sizeof others - 1);
    assert_opening_says(folder, "expected one named default, found others");
    test_write_file(test_path(folder, "tokenizer_config.json"), "{", 1);
    assert_opening_says(folder, "tokenizer_config.json: not valid JSON");
}
