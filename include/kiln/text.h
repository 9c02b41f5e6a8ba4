/* SPDX-License-Identifier: MIT
 *
 * text.h: text to token ids and back, token files, and the order in which a run reads them.
 *
 *   text file --tokenizer--> token file (mapped, never loaded) --data order--> micro-batches
 */
#ifndef KILN_TEXT_H
#define KILN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* No such id. */
#define KILN_NO_ID UINT32_MAX

/* ---- tokenizers -------------------------------------------------------------------------- */

/* Text <-> token ids. Immutable once made, so any number of threads may use one. */
struct kiln_tokenizer;

/* Read a tokenizer, told by what the file begins with:
 *
 *   tokenizer.json   Hugging Face's, of BPE: byte-level, or SentencePiece-like (U+2581 for blanks);
 *                    BOS and EOS also from tokenizer_config.json, special_tokens_map.json and
 *                    generation_config.json beside it
 *   .model           SentencePiece's, of BPE
 *   .gguf            the tokenizer inside a model of llama.cpp
 *   tokenizer.bin    llama2.c's: int32 longest token, then per token float score, int32 length,
 *                    bytes
 *   a folder         the tokenizer.json, tokenizer.model or tokenizer.bin in it
 *
 * Every length is checked against the file. KILN_EINPUT says what is wrong and where; it names a
 * model type, normalizer, pre-tokenizer, decoder or pattern that kiln does not know. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_tokenizer_open(const char *path,
                                                              struct kiln_tokenizer **out,
                                                              struct kiln_err *err);
/* The tokenizer that needs no file: 0 unknown, 1 begin, 2 end, 3+b for byte b; 259 ids. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_tokenizer_bytes(struct kiln_tokenizer **out,
                                                               struct kiln_err *err);
/* ---- learning a vocabulary ---- */

/* Byte-pair encoding (Sennrich et al. 2016), of two kinds. Deterministic, for any number of
 * threads; docs/formats.md has the rules. */
enum kiln_learn_kind {
    /* For tokenizer.json: id 0 is <|endoftext|>, ids 1 to 256 are the bytes in the order of GPT-2's
     * letters for them, then come merges of the most frequent neighbours inside a word; words are
     * cut as Qwen2's. The ids that the BpeTrainer of the `tokenizers` package learns. */
    KILN_LEARN_BYTES,
    /* For llama2.c's tokenizer.bin: ids 0 to 258 as for bytes, then the characters of the text (the
     * most frequent, at most half of what is left), then the most frequent neighbours inside a
     * word, the first in byte order of equals. A word is a run of letters, or of other characters,
     * with the one blank before it; a blank never stands inside. */
    KILN_LEARN_CHARACTERS,
};
enum { KILN_LEARN_LEAST_BYTES = 258 };

struct kiln_learn {
    enum kiln_learn_kind kind;
    size_t vocab;          /* ids in all; at least 258 (bytes) or 260 (characters) */
    size_t threads;        /* that count words; 0: as many as processors */
    const char *separator; /* splits documents and is never part of a token; NULL: none */
    bool blank_lines;      /* an empty line does, too */
};
/* What was read. */
struct kiln_learned {
    uint64_t bytes;       /* in documents */
    uint64_t words;       /* in them */
    uint64_t different;   /* that many were told apart, */
    uint64_t left_out;    /* for after 128 MiB of different ones new words are not counted */
    uint64_t not_utf8;    /* bytes of no character, by bytes: each is a word, so is never merged */
    uint64_t tokens;      /* that the documents become, about */
    const char *encoding; /* of some text, as in kiln_tokenize_report */
};

/* Texts are added one after another, then what they teach becomes a tokenizer. Not the texts are
 * kept but their different words. A learner belongs to one thread, and finishes once. */
struct kiln_learner;
KILN_API KILN_MUST_CHECK enum kiln_status kiln_learner_create(const struct kiln_learn *how,
                                                              struct kiln_learner **out,
                                                              struct kiln_err *err);
KILN_API void kiln_learner_destroy(struct kiln_learner *learner);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_learner_add(struct kiln_learner *learner,
                                                           const char *text, size_t size,
                                                           struct kiln_err *err);
/* The file is mapped, and may be larger than the memory. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_learner_add_file(struct kiln_learner *learner,
                                                                const char *path,
                                                                struct kiln_err *err);
/* KILN_EINPUT when the texts teach fewer ids than were asked for, with their number. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_learner_finish(struct kiln_learner *learner,
                                                              struct kiln_tokenizer **out,
                                                              struct kiln_err *err);
/* After kiln_learner_finish. */
KILN_API const struct kiln_learned *kiln_learner_facts(const struct kiln_learner *learner);

/* The same for one text in memory, characters, and one thread. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_tokenizer_train(const char *text, size_t size,
                                                               const char *separator, size_t vocab,
                                                               struct kiln_tokenizer **out,
                                                               struct kiln_err *err);

/* Write durably: named .json as tokenizer.json (and when that is its whole name, with a
 * tokenizer_config.json beside it), else as llama2.c's tokenizer.bin. KILN_EUNSUPPORTED when that
 * form cannot hold it; tokenizer.json can hold all but pieces that are no UTF-8. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_tokenizer_save(const struct kiln_tokenizer *tok,
                                                              const char *path,
                                                              struct kiln_err *err);
KILN_API void kiln_tokenizer_destroy(struct kiln_tokenizer *tok);

KILN_API size_t kiln_tokenizer_vocab(const struct kiln_tokenizer *tok);
/* The ids of its marks; KILN_NO_ID where it has none. */
KILN_API uint32_t kiln_tokenizer_bos(const struct kiln_tokenizer *tok);
KILN_API uint32_t kiln_tokenizer_eos(const struct kiln_tokenizer *tok);
/* The id that begins a document: BOS where the tokenizer puts one, else EOS (the <|endoftext|> of
 * GPT-2 and Qwen stands between documents); KILN_NO_ID when it has neither. */
KILN_API uint32_t kiln_tokenizer_begin(const struct kiln_tokenizer *tok);
/* "tokenizer.bin" or "tokenizer.json": the name by which a folder keeps it in its own form. */
KILN_API const char *kiln_tokenizer_file_name(const struct kiln_tokenizer *tok);
/* The path of the tokenizer that a folder holds (tokenizer.json, tokenizer.model or tokenizer.bin,
 * the first of these); false when it holds none, or `size` is too small. */
KILN_API bool kiln_tokenizer_in(const char *folder, char *path, size_t size);
/* Of a file that kiln_tokenizer_open opens: "tokenizer.json", "SentencePiece .model", "GGUF",
 * "llama2.c tokenizer.bin", or "unknown" where it cannot be read. */
KILN_API const char *kiln_tokenizer_form(const char *path);
/* "bytes", or the path it was read from: for messages and run.json. */
KILN_API const char *kiln_tokenizer_name(const struct kiln_tokenizer *tok);
/* Does it fit a model with that vocabulary? KILN_EINPUT with both sizes when not. Fits: equal
 * sizes, and a larger vocabulary of the model, as some are padded; but of a tokenizer.bin only
 * equal ones, because nothing else tells a whole file from one that was cut short. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_tokenizer_fits(const struct kiln_tokenizer *tok,
                                                              size_t vocab, struct kiln_err *err);

/* A growing list of ids. Zero it to begin; kiln_ids_free it. */
struct kiln_ids {
    uint32_t *id;
    size_t n, room;
};
KILN_API void kiln_ids_free(struct kiln_ids *ids);

/* Append the ids of `text`, with the id that begins a document in front when `bos`. No EOS. The ids
 * are those of the program that the file is from: `tokenizers` (added tokens in the text are found
 * as there), sentencepiece, or llama2.c's encode. Any bytes may be in it: one that is not UTF-8
 * becomes the id of the byte, or the unknown id. Memory: the ids, and a copy of a stretch that the
 * normalizer changes. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_tokenizer_encode(const struct kiln_tokenizer *tok,
                                                                const char *text, size_t size,
                                                                bool bos, struct kiln_ids *out,
                                                                struct kiln_err *err);
/* The bytes that `id` stands for after `previous` (the blank that the tokenizer put first is
 * dropped behind the id that begins a document; <0x0A> is one byte); *size gets their number. They
 * may be parts of a character. Valid as long as the tokenizer. Marks (BOS, EOS, special tokens) and
 * ids beyond the vocabulary give no bytes. */
KILN_API const char *kiln_tokenizer_decode(const struct kiln_tokenizer *tok, uint32_t previous,
                                           uint32_t id, size_t *size);

/* ---- chat templates ---------------------------------------------------------------------- */

/* How a model wants a conversation written: the template of its tokenizer_config.json, or of its
 * GGUF. Immutable, so any number of threads may use one. The language and its limits: docs/data.md.
 */
struct kiln_chat;

/* `path`: a folder with chat_template.jinja or with a tokenizer_config.json that has a
 * chat_template, one of these files, a .gguf with the key tokenizer.chat_template, or any other
 * file that holds a template. KILN_EINPUT names what is wrong or not supported, and the line. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_chat_open(const char *path, struct kiln_chat **out,
                                                         struct kiln_err *err);
KILN_API void kiln_chat_close(struct kiln_chat *chat);
/* Does a folder, or a .gguf, hold one? */
KILN_API bool kiln_chat_is_there(const char *folder);
/* Where the template of a tokenizer or model lies: the folder or .gguf that `path` is, or else the
 * folder that it lies in. False: there is none, or `size` is too small. */
KILN_API bool kiln_chat_find(const char *path, char *out, size_t size);
/* The template that a model is talked to with, for every command: the one that is `named`, with the
 * special tokens of what lies beside it, of the tokenizer or of the model; or that
 * of the model, a run's folder, a model's folder or file; or that of the tokenizer. NULL: not
 * given. *out NULL: there is none. One that was found, and not named, is no error where it cannot
 * be used: kiln_chat_prompt and a conversation to be written tell what is wrong with it. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_chat_choose(const char *named, const char *model,
                                                           const char *tokenizer,
                                                           struct kiln_chat **out,
                                                           struct kiln_err *err);
/* As chat_template.jinja and tokenizer_config.json, which has the special tokens' texts; one that
 * is there keeps what it says. Nothing is written of one that could not be read. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_chat_save(const struct kiln_chat *chat,
                                                         const char *folder, struct kiln_err *err);
/* The same of the template that kiln_chat_open would take; kiln need not understand it. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_chat_copy(const char *path, const char *folder,
                                                         struct kiln_err *err);
/* The text after which the model answers `user`; system NULL: none. *out is for kiln_chat_free. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_chat_prompt(const struct kiln_chat *chat,
                                                           const char *system, const char *user,
                                                           char **out, size_t *size,
                                                           struct kiln_err *err);
/* The text that the template writes behind an answer, blanks at its ends left out: where it comes,
 * the answer is over. "" where the template writes none. *out is for kiln_chat_free. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_chat_end(const struct kiln_chat *chat,
                                                        const char *system, char **out,
                                                        struct kiln_err *err);
/* Append the ids of a text that a template wrote, or of a part of one, which `begins` it or goes
 * on: no BOS but where it wrote one. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_chat_encode(const struct kiln_chat *chat,
                                                           const struct kiln_tokenizer *tok,
                                                           const char *text, size_t size,
                                                           bool begins, struct kiln_ids *out,
                                                           struct kiln_err *err);
KILN_API void kiln_chat_free(char *text);

/* ---- token files ------------------------------------------------------------------------- */

/* Token files of kiln, all little-endian:
 *
 *   0   8  magic "KILNTOK1"
 *   8   4  bytes an id: 2 or 4            12  4  vocabulary: every id is smaller
 *   16  8  number of ids                  24  4  id that begins a document
 *   28  4  CRC-32C of bytes 0..27 and 32..63
 *   32  8  size of the source text        40  4  CRC-32C of the source text
 *          (of what was tokenized of it)             (0 where that is only its beginning)
 *   44  4  CRC-32C of the tokenizer (0 for bytes)
 *   48  4  flags: 1 empty lines separated documents, 2 the bitmaps are there
 *   52  4  CRC-32C of the bitmaps               56  8  zero
 *   64     ids; with flag 2 zeros up to a multiple of 8, and two bitmaps of 64-bit words, an id a
 *          bit, the lowest first: ids that count as targets, ids that begin a document
 *
 * Without bitmaps every id counts, and a document begins with the id that the header names. Files
 * of before the bitmaps are such files; a kiln of then refuses one with bitmaps.
 *
 * A file without the magic is read as raw uint16 ids (llama2.c, the published trainers), whose
 * documents begin with id 1.
 */
struct kiln_token_file;

/* Map a token file and check every id once against `vocab` (0: against the header only).
 * KILN_EINPUT names the first bad id and its byte offset. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_token_file_open(const char *path, size_t vocab,
                                                               struct kiln_token_file **out,
                                                               struct kiln_err *err);
KILN_API void kiln_token_file_close(struct kiln_token_file *file);
KILN_API size_t kiln_token_file_count(const struct kiln_token_file *file);
KILN_API uint32_t kiln_token_file_id(const struct kiln_token_file *file, size_t at);
KILN_API size_t kiln_token_file_documents(const struct kiln_token_file *file);
/* Vocabulary in the header; 0 for a raw file. */
KILN_API size_t kiln_token_file_vocab(const struct kiln_token_file *file);
/* Bytes of text the ids came from, of JSONL those of its documents; 0 when unknown (raw file). */
KILN_API uint64_t kiln_token_file_text_bytes(const struct kiln_token_file *file);

/* Is this a token file (magic, or named *.bin / *.u16 / *.tok)? Otherwise it is text. */
KILN_API bool kiln_token_file_is(const char *path);

/* Is it JSONL, by its name: *.jsonl, *.jsonl.gz, *.jsonl.zst? */
KILN_API bool kiln_text_is_jsonl(const char *path);

/* What there is to say about a text that was tokenized. */
struct kiln_tokenize_report {
    uint64_t documents;
    const char *encoding; /* "UTF-8 with a byte order mark", "UTF-16, little end first", ...: what
                             was made plain UTF-8; NULL: nothing needed to be */
    uint64_t not_utf8;    /* of no UTF-8 character: taken byte by byte */
    uint64_t bad_lines;   /* of JSONL, left out */
    char first_bad[400];  /* what was wrong with the first of them: file, line, reason */
    uint64_t answers;     /* tokens of chat that count as targets */
    uint64_t prompts;     /* and those that do not */
    uint64_t unanswered;  /* conversations, among the documents, without an answer */
};
struct kiln_tokenize_options {
    bool blank_lines;             /* an empty line separates documents, beside <|endoftext|> */
    bool skip_bad;                /* JSONL: leave lines out that cannot be used, and count them */
    const struct kiln_chat *chat; /* how conversations are written; NULL: none may come */
    uint64_t most; /* stop behind the document that makes so many ids, or 64 KB further inside one;
                      0: never */
    struct kiln_tokenize_report *report; /* NULL, or where to report */
};
/* Tokenize a text file into a token file, durably. A document becomes BOS + its ids; the next BOS
 * ends it, as in llama2.c's data, so the models of both learn the same end. `<|endoftext|>` (and
 * the blanks around it) separates documents. Ids are uint16 when the vocabulary is at most 65536.
 *
 * The text may be compressed by gzip or zstd. A file named *.jsonl, *.jsonl.gz or *.jsonl.zst has a
 * JSON object a line: with `text`, a document, or with `messages`, a conversation, of which only
 * what the model says counts. Memory does not grow with the file. A byte order mark is dropped;
 * UTF-16 and UTF-32, told by their mark or by the zeros of Latin text, are read as the UTF-8 they
 * stand for.
 *
 * KILN_EINPUT: no text in it, nothing but conversations without an answer, compressed data that is
 * damaged or ends in the middle, half a character of UTF-16, a line of JSONL that cannot be used
 * (file, line, reason). */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_tokenize_file(
    const struct kiln_tokenizer *tok, const char *text_path, const char *token_path,
    const struct kiln_tokenize_options *options, struct kiln_err *err);

/* Documents of a text's beginning, a newline between two, about `room` bytes of them; *text is for
 * kiln_text_free. *bytes: of the whole text, of compressed files and JSONL by the share of the file
 * that was read. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_text_sample(
    const char *path, const struct kiln_tokenize_options *options, size_t room, char **text,
    size_t *size, double *bytes, struct kiln_err *err);
KILN_API void kiln_text_free(char *text);

/* Are the ids of a file with a header those of this tokenizer's vocabulary? */
KILN_API bool kiln_token_file_of(const struct kiln_token_file *file,
                                 const struct kiln_tokenizer *tok);

/* Does the id at a place count as a target, and does it begin a document? */
KILN_API bool kiln_token_file_counts(const struct kiln_token_file *file, size_t at);
KILN_API bool kiln_token_file_begins(const struct kiln_token_file *file, size_t at);

/* A target that counts nowhere: no loss, no gradient. Losses are averaged over the others. */
#define KILN_NO_TARGET UINT32_MAX

/* ---- data order --------------------------------------------------------------------------- */

enum kiln_split { KILN_TRAIN, KILN_VALIDATION };

/* Windows of seq+1 consecutive ids, `seq` apart, of one token file or several. The last documents
 * of each, about `validation` of all ids (0 to 0.5), are kept from training; where no document
 * begins near that place (within half of the share), the one that lies there is cut. Which window a
 * sample reads is a pure function of (files, weights, seed, sample number): a permutation of a
 * file's windows per epoch of that file. */
struct kiln_data;

/* Takes `file` over on success (closed with the data). KILN_EINPUT when a split that is asked for
 * holds less than one window, with the numbers. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_data_create(struct kiln_token_file *file, size_t seq,
                                                           uint64_t seed, double validation,
                                                           struct kiln_data **out,
                                                           struct kiln_err *err);
/* The same of n files. Samples come from them as their weights are to each other, whatever the
 * files' sizes; weights [n], three decimals, up to KILN_WEIGHT_MOST. NULL: as their windows are, so
 * that an epoch is one of every file. */
enum { KILN_WEIGHT_MOST = 1000000 };
KILN_API KILN_MUST_CHECK enum kiln_status kiln_data_mix(struct kiln_token_file *const *files,
                                                        const double *weights, size_t n, size_t seq,
                                                        uint64_t seed, double validation,
                                                        struct kiln_data **out,
                                                        struct kiln_err *err);
KILN_API void kiln_data_destroy(struct kiln_data *data);
KILN_API size_t kiln_data_files(const struct kiln_data *data);
KILN_API const struct kiln_token_file *kiln_data_file(const struct kiln_data *data, size_t i);
/* Windows in a split: one epoch. */
KILN_API size_t kiln_data_windows(const struct kiln_data *data, enum kiln_split split);
/* Training sample number `sample` (0, 1, 2, ... over all epochs): seq inputs, and the seq targets
 * that follow them by one. Any thread. */
KILN_API void kiln_data_train(const struct kiln_data *data, uint64_t sample, uint32_t *inputs,
                              uint32_t *targets);
/* Window `window` of a split: of one file in its order; of several mixed, so that the first of them
 * are of all, as many as they are large. */
KILN_API void kiln_data_window(const struct kiln_data *data, enum kiln_split split, size_t window,
                               uint32_t *inputs, uint32_t *targets);
/* The file that this window is of. */
KILN_API const struct kiln_token_file *kiln_data_window_file(const struct kiln_data *data,
                                                             enum kiln_split split, size_t window);
/* The document mask of the same two: per input the place in its window where its document begins;
 * 0 where it began before the window. starts [seq]. */
KILN_API void kiln_data_train_starts(const struct kiln_data *data, uint64_t sample,
                                     uint32_t *starts);
KILN_API void kiln_data_window_starts(const struct kiln_data *data, enum kiln_split split,
                                      size_t window, uint32_t *starts);
/* Where sample number `sample` lies: the number of its file, and in *at the token of that file that
 * its inputs begin with. */
KILN_API size_t kiln_data_train_place(const struct kiln_data *data, uint64_t sample, size_t *at);
/* How many of the same two's targets count. */
KILN_API size_t kiln_data_train_targets(const struct kiln_data *data, uint64_t sample);
KILN_API size_t kiln_data_window_targets(const struct kiln_data *data, enum kiln_split split,
                                         size_t window);

#ifdef __cplusplus
}
#endif

#endif
