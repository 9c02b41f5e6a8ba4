/* SPDX-License-Identifier: MIT
 *
 * test_sample.c: what a choice for --minutes knows of its texts, and how much of them a run takes.
 */
#include <stdio.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"
#include "base/random.h"
#include "kiln_test.h"
#include "train/data_source.h"
#include "train/sample.h"

/* Lines of one letter, which says of which file they are. */
static char *lines_of(char letter, size_t n) {
    char *text = kiln_alloc(n + 1, 1);
    for (size_t i = 0; i < n; i++) {
        text[i] = letter;
        if (i % 50 == 49) {
            text[i] = '\n';
        } else if (i % 5 == 4) {
            text[i] = (char)('a' + kiln_random_below(1, KILN_STREAM_TEST, i, 26));
        }
    }
    return text;
}

static const char *plain(const char *name, char letter, size_t n) {
    char *text = lines_of(letter, n);
    const char *path = test_file(name, text, n);
    kiln_free(text);
    return path;
}

static const char *zstandard(const char *name, char letter, size_t n) {
    char *text = lines_of(letter, n), *packed = kiln_alloc(ZSTD_compressBound(n), 1);
    const size_t size = ZSTD_compress(packed, ZSTD_compressBound(n), text, n, 3);
    CHECK(!ZSTD_isError(size));
    const char *path = test_file(name, packed, size);
    kiln_free(text);
    kiln_free(packed);
    return path;
}

/* A document of 100 bytes a line; `n` lines. */
static const char *jsonl(const char *name, char letter, size_t n) {
    char *all = kiln_alloc(n * 120, 1), *text = lines_of(letter, n * 100);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < 100; j++) {
            text[100 * i + j] = text[100 * i + j] == '\n' ? ' ' : text[100 * i + j];
        }
        text[100 * i] = text[100 * i + 99] = letter;
        used += (size_t)sprintf(all + used, "{\"text\": \"%.100s\"}\n", text + 100 * i);
    }
    const char *path = test_file(name, all, used);
    kiln_free(all);
    kiln_free(text);
    return path;
}

static void sample_of(const char *data, struct kiln_sample *out) {
    struct kiln_settings s;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    CHECK_OK(kiln_settings_set(&s, KILN_SETTING_data, data, KILN_FROM_FLAG, &err), &err);
    CHECK_OK(kiln_sample_read(&s, out, &err), &err);
    kiln_settings_free(&s);
}

TEST(a_sample_tells_the_length_of_texts_of_every_form) {
    struct kiln_sample sample;
    sample_of(plain("a.txt", 'A', 20 << 20), &sample);
    CHECK_CLOSE(kiln_sample_bytes(&sample), 20 << 20, 1e5);
    CHECK(sample.part[0].size <= 16 << 20);
    CHECK(sample.part[0].size > 15 << 20);
    kiln_sample_free(&sample);
    sample_of(zstandard("b.zst", 'B', 20 << 20), &sample);
    CHECK_CLOSE(kiln_sample_bytes(&sample), 20 << 20, 1 << 20);
    CHECK_EQ(sample.part[0].text[0], 'B'); /* text, not what was packed */
    kiln_sample_free(&sample);
    sample_of(jsonl("c.jsonl", 'C', 200000), &sample);
    CHECK_CLOSE(kiln_sample_bytes(&sample), 200000 * 101.0, 1e5);
    CHECK(memchr(sample.part[0].text, '{', sample.part[0].size) == NULL);
    kiln_sample_free(&sample);
}

/* Letters in what a sample becomes. */
static void count_letters(const struct kiln_sample *sample, double *a, double *b) {
    struct kiln_tokenizer *tok;
    struct kiln_ids ids = {0};
    struct kiln_err err;
    double bytes;
    CHECK_OK(kiln_tokenizer_bytes(&tok, &err), &err);
    CHECK_OK(kiln_sample_encode(sample, tok, &ids, &bytes, &err), &err);
    *a = *b = 0;
    for (size_t i = 0; i < ids.n; i++) {
        *a += ids.id[i] == 3 + 'A';
        *b += ids.id[i] == 3 + 'B';
    }
    /* by turns: both are in the first and in the last tenth */
    bool first[2] = {false, false}, last[2] = {false, false};
    for (size_t i = 0; i < ids.n / 10; i++) {
        first[ids.id[i] == 3 + 'B'] |= ids.id[i] == 3 + 'A' || ids.id[i] == 3 + 'B';
        const uint32_t id = ids.id[ids.n - 1 - i];
        last[id == 3 + 'B'] |= id == 3 + 'A' || id == 3 + 'B';
    }
    CHECK(first[0] && first[1] && last[0] && last[1]);
    kiln_ids_free(&ids);
    kiln_tokenizer_destroy(tok);
}

TEST(files_are_sampled_as_their_weights_or_sizes_are) {
    struct kiln_sample sample;
    char list[9000];
    double a, b;
    const char *large = zstandard("a.zst", 'A', 4 << 20);
    char names[2][4400];
    snprintf(names[0], sizeof names[0], "%s", large);
    snprintf(names[1], sizeof names[1], "%s", jsonl("b.jsonl", 'B', 10000));
    snprintf(list, sizeof list, "%s:1,%s:2", names[0], names[1]);
    sample_of(list, &sample);
    count_letters(&sample, &a, &b);
    CHECK_CLOSE(b / a, 2, 0.1);
    CHECK_CLOSE(sample.part[1].share, 2.0 / 3, 1e-9);
    /* a third is read of 4 MB, the others of 1: the mean byte is of a text of 2 */
    const double all = kiln_sample_bytes(&sample);
    CHECK(kiln_sample_unique(&sample) < all / 2);
    kiln_sample_free(&sample);
    snprintf(list, sizeof list, "%s,%s", names[0], names[1]);
    sample_of(list, &sample);
    count_letters(&sample, &a, &b);
    CHECK_CLOSE(a / b, 4.15, 0.6);
    CHECK_CLOSE(kiln_sample_unique(&sample), kiln_sample_bytes(&sample), 1);
    CHECK_CLOSE(kiln_sample_taken(&sample, 1e6), 1e6, 10);
    CHECK_CLOSE(kiln_sample_taken(&sample, 1e9), kiln_sample_bytes(&sample), 1);
    kiln_sample_free(&sample);
}

/* Ids of either file where so many tokens are asked for. */
static void check_division(const char *list, uint64_t tokens, double first, double second) {
    struct kiln_tokenizer *tok;
    struct kiln_data *data;
    struct kiln_err err;
    char notice[300] = "", folder[4400];
    bool too_short;
    CHECK_OK(kiln_tokenizer_bytes(&tok, &err), &err);
    snprintf(folder, sizeof folder, "%s", test_path(""));
    const struct kiln_data_wish wish = {.data = list,
                                        .folder = folder,
                                        .name = "data",
                                        .tokenizer = tok,
                                        .seq = 64,
                                        .seed = 1,
                                        .validation = 0.05,
                                        .tokens = tokens};
    CHECK_OK(kiln_open_data(&wish, &data, notice, sizeof notice, &too_short, &err), &err);
    CHECK(!too_short);
    CHECK_CLOSE((double)kiln_token_file_count(kiln_data_file(data, 0)), first, 1e5);
    CHECK_CLOSE((double)kiln_token_file_count(kiln_data_file(data, 1)), second, 1e5);
    kiln_data_destroy(data);
    kiln_tokenizer_destroy(tok);
}

TEST(so_many_tokens_are_divided_among_texts) {
    char list[9000], names[2][4400];
    snprintf(names[0], sizeof names[0], "%s", plain("a.txt", 'A', 6 << 20));
    snprintf(names[1], sizeof names[1], "%s", zstandard("b.zst", 'B', 2 << 20));
    snprintf(list, sizeof list, "%s:1,%s:1", names[0], names[1]);
    check_division(list, 2000000, 1e6, 1e6);
    check_division(list, 0, 6 << 20, 2 << 20);
    check_division(list, 8000000, 4e6, 2 << 20); /* no more than there is */
    snprintf(list, sizeof list, "%s,%s", names[0], names[1]);
    check_division(list, 4000000, 3e6, 1e6);
    snprintf(list, sizeof list, "%s:1000,%s:0.001", names[0], names[1]);
    check_division(list, 1000000, 1e6, 65536); /* what is held out is a window at least */
}

TEST(shares_are_kept_as_weights) {
    struct kiln_settings s;
    struct kiln_sample sample;
    struct kiln_data_list list;
    struct kiln_err err;
    char names[2][4400], data[9000];
    snprintf(names[0], sizeof names[0], "%s", plain("a.txt", 'A', 3 << 20));
    snprintf(names[1], sizeof names[1], "%s", plain("b.txt", 'B', 300000));
    snprintf(data, sizeof data, "%s,%s", names[0], names[1]);
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    CHECK_OK(kiln_settings_set(&s, KILN_SETTING_data, data, KILN_FROM_FLAG, &err), &err);
    CHECK_OK(kiln_sample_read(&s, &sample, &err), &err);
    CHECK_OK(kiln_sample_keep_shares(&sample, &s, &err), &err);
    CHECK_OK(kiln_data_list_parse(s.data, &list, &err), &err);
    CHECK(list.weighted);
    CHECK_CLOSE(list.weight[0] / list.weight[1], (3 << 20) / 300000.0, 0.1);
    kiln_data_list_free(&list);
    kiln_sample_free(&sample);
    kiln_settings_free(&s);
}
