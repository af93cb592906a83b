/* The letters of options, once for all tools: an option has the same letter in every command, and a
 * letter means one option. Options that one command alone takes have none. */
#ifndef FKV_BASE_LETTERS_H
#define FKV_BASE_LETTERS_H

enum fkv_letter {
    FKV_LETTER_BACKEND = 'b',
    FKV_LETTER_BATCH = 'B',
    FKV_LETTER_DEVICE = 'd',
    FKV_LETTER_GAMMA = 'g',
    FKV_LETTER_TOKEN_IDS = 'i',
    FKV_LETTER_JSON = 'j',
    FKV_LETTER_LENGTH = 'l',
    FKV_LETTER_MODEL = 'm',
    FKV_LETTER_DRY_RUN = 'n',
    FKV_LETTER_OUT = 'o',
    FKV_LETTER_POLICY = 'p',
    FKV_LETTER_QUIET = 'q',
    FKV_LETTER_RESUME = 'r',
    FKV_LETTER_SKIP_SINKS = 's',
    FKV_LETTER_SINKS = 'S',
    FKV_LETTER_THREADS = 't',
    FKV_LETTER_TEXT = 'T',
    FKV_LETTER_WINDOW = 'w'
};

/* Keys of options without a letter start here, one range per parser. argp tells options of several
 * parsers apart by their keys alone where a letter is given, so letters stay below. */
enum { FKV_NO_LETTER = 0x100 };

#endif
