/* SPDX-License-Identifier: MIT
 *
 * gguf_prove.c: does the tokenizer of a GGUF file give the ids of the one it was written from?
 */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "text/gguf_tokenizer.h"
#include "text/normalizer.h"
#include "text/text_int.h"
#include "text/tokenizer_files.h"

/* Where tokenizers differ: blanks, newlines, digits, short forms, letters that NFC joins, scripts
 * without blanks, bytes that are no text. */
static const char sample[] =
    " Once upon  a time,\n\n  there were 1234567 kilns.\r\n\tIt's HE'S we'll; don't_stop!!! "
    "nai\xCC\x88ve na\xC3\xAFve \xEF\xAC\x81n \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x99\x82\xF0\x9F"
    "\x99\x82 \xC2\xA0x \xFF\xFE a\x00z   ";

struct proof {
    const struct kiln_tokenizer *meant, *has;
    const char *path;
    struct kiln_bytes text;
    struct kiln_err *err;
};

/* `tokenizers` looks for such a mark behind the normalizer as the normalizer writes it, with the
 * blank that is put before a text: "a<s>" is then no mark to it, and " <s>" is one id. In GGUF a
 * mark is found wherever it stands. */
static bool is_written_otherwise(const struct kiln_parts *p, const struct kiln_added *added) {
    return added->normalized && (p->n_rewrites > 0 || p->prefix != KILN_PREFIX_NONE);
}

static bool has_such(const struct kiln_parts *p, const char *piece, size_t size) {
    bool has = false;
    for (size_t i = 0; i < p->n_added; i++) {
        size_t n;
        const char *mark = kiln_piece(&p->v, p->added[i].id, &n);
        has |= is_written_otherwise(p, &p->added[i]) && memmem(piece, size, mark, n) != NULL;
    }
    return has;
}

/* Every piece, and every mark in the middle of a text and between blanks. */
static bool write_text(struct proof *p) {
    const struct kiln_parts *parts = &p->meant->parts;
    bool ok = kiln_bytes_put(&p->text, sample, sizeof sample - 1);
    for (uint32_t id = 0; ok && id < parts->v.n; id++) {
        size_t size;
        const char *piece = kiln_piece(&parts->v, id, &size);
        ok = p->has->parts.v.kind[id] != KILN_KIND_TEXT || has_such(parts, piece, size) ||
             (kiln_bytes_put(&p->text, piece, size) &&
              kiln_bytes_put(&p->text, id % 2 ? "\n" : " ", 1));
    }
    for (size_t i = 0; ok && i < parts->n_added; i++) {
        if (is_written_otherwise(parts, &parts->added[i])) {
            continue;
        }
        size_t size;
        const char *mark = kiln_piece(&parts->v, parts->added[i].id, &size);
        ok = kiln_bytes_put(&p->text, "a", 1) && kiln_bytes_put(&p->text, mark, size) &&
             kiln_bytes_put(&p->text, "b  ", 3) && kiln_bytes_put(&p->text, mark, size) &&
             kiln_bytes_put(&p->text, "  c", 3);
    }
    return ok;
}

/* The first id that differs is told with its piece. */
static enum kiln_status compare(const struct proof *p, const struct kiln_ids *a,
                                const struct kiln_ids *b) {
    size_t same = 0;
    while (same < a->n && same < b->n && a->id[same] == b->id[same]) {
        same++;
    }
    if (same == a->n && same == b->n) {
        return KILN_OK;
    }
    size_t size = 0;
    const uint32_t id = same < a->n ? a->id[same] : 0;
    const char *piece = kiln_piece(&p->meant->parts.v, id, &size);
    return KILN_FAIL(p->err, KILN_EUNSUPPORTED,
                     "%s: the tokenizer reads back as another than %s: of %zu ids of a text the "
                     "first that differs is %zu, %" PRIu32
                     " (\"%.*s\"); GGUF has no place for "
                     "what makes the difference. Leave the tokenizer out, or write a folder",
                     p->path, p->meant->name, a->n, same, id, (int)kiln_least(size, 60), piece);
}

static enum kiln_status compare_ids(const struct proof *p) {
    struct kiln_ids a = {0}, b = {0};
    enum kiln_status status =
        kiln_tokenizer_encode(p->meant, p->text.data, p->text.n, true, &a, p->err);
    if (status == KILN_OK) {
        status = kiln_tokenizer_encode(p->has, p->text.data, p->text.n, true, &b, p->err);
    }
    if (status == KILN_OK) {
        status = compare(p, &a, &b);
    }
    kiln_ids_free(&a);
    kiln_ids_free(&b);
    return status;
}

/* The text of each, in the middle of a text. llama2.c's marks have one where others have none. */
static enum kiln_status compare_pieces(const struct proof *p) {
    const struct kiln_vocabulary *v = &p->meant->parts.v;
    for (uint32_t id = 0; id < v->n; id++) {
        size_t n, m;
        const char *a = kiln_tokenizer_decode(p->meant, id, id, &n);
        const char *b = kiln_tokenizer_decode(p->has, id, id, &m);
        const bool same = n == m && memcmp(a, b, n) == 0;
        KILN_REQUIRE(same || p->has->parts.v.kind[id] != KILN_KIND_TEXT, p->err, KILN_EUNSUPPORTED,
                     "%s: id %" PRIu32 " of the tokenizer reads back as \"%.*s\", it was \"%.*s\"",
                     p->path, id, (int)kiln_least(m, 60), b, (int)kiln_least(n, 60), a);
    }
    return KILN_OK;
}

static enum kiln_status compare_all(struct proof *p) {
    KILN_REQUIRE(kiln_tokenizer_vocab(p->has) >= kiln_tokenizer_vocab(p->meant) &&
                     kiln_tokenizer_bos(p->has) == kiln_tokenizer_bos(p->meant) &&
                     kiln_tokenizer_eos(p->has) == kiln_tokenizer_eos(p->meant) &&
                     kiln_tokenizer_begin(p->has) == kiln_tokenizer_begin(p->meant),
                 p->err, KILN_EUNSUPPORTED,
                 "%s: the tokenizer reads back with another size, or other ids that begin or end "
                 "a text, than %s has",
                 p->path, p->meant->name);
    KILN_REQUIRE(write_text(p), p->err, KILN_ENOMEM, "tokenizer of %s: out of memory", p->path);
    KILN_TRY(compare_ids(p));
    return compare_pieces(p);
}

enum kiln_status kiln_gguf_tokenizer_prove(const struct kiln_tokenizer *tok, const char *path,
                                           struct kiln_err *err) {
    struct kiln_tokenizer *has;
    KILN_TRY(kiln_gguf_tokenizer_open(path, &has, err));
    struct proof p = {.meant = tok, .has = has, .path = path, .err = err};
    const enum kiln_status status = compare_all(&p);
    kiln_bytes_free(&p.text);
    kiln_tokenizer_destroy(has);
    return status;
}
