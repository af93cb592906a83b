/* tokenizer.model: sentencepiece's ModelProto, a message of Protocol Buffers, with a BPE model.
 *
 * A message is a list of fields: a number (of the field, times 8, plus how its value is coded), the
 * value. Values are integers of variable length, 8 or 4 bytes, or a length and so many bytes; a
 * message within a message is of the last kind. Unknown fields are passed over. Read here:
 *
 *   1 pieces           1 text, 2 score, 3 type
 *   2 trainer_spec     3 model_type, 24 treat_whitespace_as_suffix, 35 byte_fallback, 41 bos_id,
 *                      42 eos_id
 *   3 normalizer_spec  1 name, 2 precompiled_charsmap, 3 add_dummy_prefix,
 *                      4 remove_extra_whitespaces, 5 escape_whitespaces
 *
 * Refused: other models than BPE, a table of characters (nmt_nfkc and its like), spaces behind
 * words, spaces as they are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"

struct message {
    const uint8_t *at, *end;
};

struct field {
    uint64_t number, value; /* value: of an integer */
    struct message bytes;   /* of the others */
};

static bool read_integer(struct message *m, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        uint8_t byte = *m->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* False where the message is cut short or coded in a way that is none. */
static bool read_field(struct message *m, struct field *f) {
    uint64_t key, bytes;
    if (!read_integer(m, &key)) return false;
    *f = (struct field){.number = key >> 3};
    switch (key & 7) {
    case 0: return read_integer(m, &f->value);
    case 1: bytes = 8; break;
    case 2:
        if (!read_integer(m, &bytes)) return false;
        break;
    case 5: bytes = 4; break;
    default: return false;
    }
    if (bytes > (uint64_t)(m->end - m->at)) return false;
    f->bytes = (struct message){m->at, m->at + bytes};
    m->at += bytes;
    return true;
}

struct model {
    struct fkv_tok_pieces pieces;
    size_t capacity;
    uint64_t type; /* 1 unigram, 2 BPE, 3 word, 4 char */
    bool suffix, escape;
    struct message charsmap, rule_name;
};

static bool read_piece(struct message m, struct fkv_tok_piece *piece) {
    *piece = (struct fkv_tok_piece){.type = FKV_TOK_NORMAL};
    for (struct field f; m.at < m.end;) {
        if (!read_field(&m, &f)) return false;
        size_t bytes = (size_t)(f.bytes.end - f.bytes.at);
        if (f.number == 1) piece->text = (struct fkv_tok_text){(const char *)f.bytes.at, bytes};
        if (f.number == 3) piece->type = f.value > 255 ? 255 : (uint8_t)f.value;
        if (f.number != 2) continue;
        if (bytes != 4) return false;
        uint32_t bits = f.bytes.at[0] | (uint32_t)f.bytes.at[1] << 8 |
                        (uint32_t)f.bytes.at[2] << 16 | (uint32_t)f.bytes.at[3] << 24;
        memcpy(&piece->score, &bits, sizeof bits);
    }
    return true;
}

static bool read_trainer(struct message m, struct model *model) {
    for (struct field f; m.at < m.end;) {
        if (!read_field(&m, &f)) return false;
        if (f.number == 3) model->type = f.value;
        if (f.number == 24) model->suffix = f.value;
        if (f.number == 35) model->pieces.byte_fallback = f.value;
        if (f.number == 41) model->pieces.bos = (int32_t)(uint32_t)f.value;
        if (f.number == 42) model->pieces.eos = (int32_t)(uint32_t)f.value;
    }
    return true;
}

static bool read_normalizer(struct message m, struct model *model) {
    for (struct field f; m.at < m.end;) {
        if (!read_field(&m, &f)) return false;
        if (f.number == 1) model->rule_name = f.bytes;
        if (f.number == 2) model->charsmap = f.bytes;
        if (f.number == 3) model->pieces.space_before = f.value;
        if (f.number == 4) model->pieces.squeeze_spaces = f.value;
        if (f.number == 5) model->escape = f.value;
    }
    return true;
}

static int add_piece(struct model *model, struct message m, const char *where,
                     struct fkv_error *err) {
    struct fkv_tok_pieces *p = &model->pieces;
    struct fkv_tok_piece *grown =
        fkv_grow(p->at, &model->capacity, (size_t)p->count + 1, sizeof *grown);
    if (!grown || p->count == FKV_TOK_MAX_IDS)
        return fkv_fail(err, "%s: %d pieces are too many", where, (int)p->count);
    p->at = grown;
    struct fkv_tok_piece *piece = &p->at[p->count++];
    if (!read_piece(m, piece) || isnan(piece->score))
        return fkv_fail(err, "%s: piece %d: not a piece of a sentencepiece model", where,
                        (int)p->count - 1);
    return FKV_OK;
}

static int read_model(struct message m, struct model *model, const char *where,
                      struct fkv_error *err) {
    const uint8_t *start = m.at;
    for (struct field f; m.at < m.end;) {
        size_t at = (size_t)(m.at - start);
        bool good = read_field(&m, &f);
        if (good && f.number == 1 && add_piece(model, f.bytes, where, err)) return FKV_FAILED;
        if (good && f.number == 2) good = read_trainer(f.bytes, model);
        if (good && f.number == 3) good = read_normalizer(f.bytes, model);
        if (!good)
            return fkv_fail(err, "%s: not a sentencepiece model, or cut short: byte %zu", where,
                            at);
    }
    return FKV_OK;
}

static int check(const struct model *model, const char *where, struct fkv_error *err) {
    static const char *const types[] = {"?", "unigram", "BPE", "word", "char"};
    if (model->type != 2)
        return fkv_fail(err, "%s: trainer_spec.model_type: expected BPE, found %s", where,
                        types[model->type > 4 ? 0 : model->type]);
    if (model->charsmap.at < model->charsmap.end)
        return fkv_fail(err, "%s: normalizer_spec.name: expected identity, found %.*s", where,
                        (int)(model->rule_name.end - model->rule_name.at) % 80,
                        (const char *)model->rule_name.at);
    if (model->suffix)
        return fkv_fail(err, "%s: trainer_spec.treat_whitespace_as_suffix: expected false", where);
    return model->escape
               ? FKV_OK
               : fkv_fail(err, "%s: normalizer_spec.escape_whitespaces: expected true", where);
}

int fkv_tok_read_sentencepiece(struct fkv_tokenizer *t, const void *data, size_t bytes,
                               const json_t *settings, const char *where, struct fkv_error *err) {
    struct model model = {
        .pieces = {.bos = 1, .eos = 2, .space_before = true, .squeeze_spaces = true},
        .type = 1,
        .escape = true,
    };
    struct message whole = {data, (const uint8_t *)data + bytes};
    int status = read_model(whole, &model, where, err);
    if (!status) status = check(&model, where, err);
    if (json_is_false(json_object_get(settings, "add_bos_token"))) model.pieces.bos = -1;
    if (!json_is_true(json_object_get(settings, "add_eos_token"))) model.pieces.eos = -1;
    if (!status) status = fkv_tok_build_pieces(t, &model.pieces, where, err);
    free(model.pieces.at);
    return status;
}
