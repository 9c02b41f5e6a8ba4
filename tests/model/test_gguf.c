/* SPDX-License-Identifier: MIT
 *
 * The GGUF container: what is written is read, and no damaged header does more than give an error.
 */
#include "model/gguf.h"

#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "kiln_test.h"

static struct kiln_gguf *open_gguf(const char *path) {
    struct kiln_gguf *gguf;
    struct kiln_err err;
    CHECK_OK(kiln_gguf_open(path, &gguf, &err), &err);
    return gguf;
}

static void check_refused(const char *path, const char *why) {
    struct kiln_gguf *gguf;
    struct kiln_err err;
    CHECK_FAILS(kiln_gguf_open(path, &gguf, &err), KILN_EINPUT, &err);
    CHECK(gguf == NULL);
    CHECK_CONTAINS(err.message, path);
    CHECK_CONTAINS(err.message, why);
}

static struct kiln_gguf_string text(const char *s) {
    return (struct kiln_gguf_string){.data = s, .size = strlen(s)};
}

/* Two tensors, one of them of blocks, and a key of each kind. */
static const char *write_small(void) {
    struct kiln_gguf_pairs pairs = {0}, more = {0};
    struct kiln_err err;
    const struct kiln_gguf_string words[] = {text("<unk>"), {"a\0b", 3}, text("")};
    const int32_t kinds[] = {2, -3, 1};
    CHECK_OK(kiln_gguf_put_text(&pairs, "general.architecture", "llama", &err), &err);
    CHECK_OK(kiln_gguf_put_u32(&pairs, "llama.block_count", 5, &err), &err);
    CHECK_OK(kiln_gguf_put_f32(&pairs, "llama.eps", 0.25f, &err), &err);
    CHECK_OK(kiln_gguf_put_bool(&pairs, "tokenizer.ggml.add_bos_token", true, &err), &err);
    CHECK_OK(kiln_gguf_put_strings(&more, "tokenizer.ggml.tokens", words, 3, &err), &err);
    CHECK_OK(
        kiln_gguf_put_numbers(&more, "tokenizer.ggml.token_type", KILN_GGUF_I32, kinds, 3, &err),
        &err);
    struct kiln_gguf_tensor tensors[] = {
        {.name = text("norm"), .type = KILN_GGML_F32, .rank = 1, .shape = {3, 1, 1, 1}},
        {.name = text("matrix"), .type = KILN_GGML_Q8_0, .rank = 2, .shape = {64, 2, 1, 1}},
    };
    const struct kiln_gguf_pairs *lists[] = {&pairs, &more};
    const float norm[] = {1, 2, 3};
    char blocks[136];
    memset(blocks, 7, sizeof blocks);
    struct kiln_durable file;
    struct kiln_gguf_writer writer;
    const char *path = test_path("small.gguf");
    CHECK_OK(kiln_durable_open(&file, path, &err), &err);
    CHECK_OK(kiln_gguf_begin(&writer, &file, lists, 2, tensors, 2, &err), &err);
    CHECK_OK(kiln_gguf_write(&writer, norm, sizeof norm, &err), &err);
    CHECK_OK(kiln_gguf_write(&writer, blocks, 100, &err), &err);
    CHECK_OK(kiln_gguf_write(&writer, blocks + 100, 36, &err), &err);
    CHECK_OK(kiln_gguf_end(&writer, &err), &err);
    CHECK_OK(kiln_durable_commit(&file, &err), &err);
    kiln_gguf_pairs_free(&pairs);
    kiln_gguf_pairs_free(&more);
    return path;
}

TEST(a_gguf_file_gives_back_what_was_written) {
    struct kiln_gguf *gguf = open_gguf(write_small());
    struct kiln_err err;
    struct kiln_gguf_string name;
    const struct kiln_gguf_pair *words, *kinds;
    int64_t integer;
    double real;
    bool flag;
    CHECK_EQ(gguf->n_pairs, 6);
    CHECK_OK(kiln_gguf_text(gguf, "general.architecture", &name, &err), &err);
    CHECK(name.size == 5 && memcmp(name.data, "llama", 5) == 0);
    CHECK_OK(kiln_gguf_integer(gguf, "llama.block_count", &integer, &err), &err);
    CHECK_EQ(integer, 5);
    CHECK_OK(kiln_gguf_real(gguf, "llama.eps", &real, &err), &err);
    CHECK_CLOSE(real, 0.25, 0);
    CHECK_OK(kiln_gguf_flag(gguf, "tokenizer.ggml.add_bos_token", &flag, &err), &err);
    CHECK(flag);
    CHECK_OK(kiln_gguf_strings(gguf, "tokenizer.ggml.tokens", &words, &err), &err);
    CHECK(words->n == 3 && words->strings[1].size == 3 && words->strings[2].size == 0);
    CHECK_BYTES(words->strings[1].data, "a\0b", 3);
    CHECK_OK(kiln_gguf_numbers(gguf, "tokenizer.ggml.token_type", &kinds, &err), &err);
    CHECK(kiln_gguf_integer_at(kinds, 1, &integer));
    CHECK_EQ(integer, -3);
    CHECK_FAILS(kiln_gguf_integer(gguf, "llama.eps", &integer, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "llama.eps is f32, expected an integer");
    CHECK_FAILS(kiln_gguf_text(gguf, "none", &name, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "key none is missing");
    const struct kiln_gguf_tensor *matrix = kiln_gguf_find_tensor(gguf, "matrix");
    CHECK_EQ(matrix->bytes, 136);
    CHECK_EQ(matrix->offset, 32);
    CHECK_EQ(kiln_gguf_data(gguf, matrix)[135], 7);
    kiln_gguf_close(gguf);
}

TEST(a_published_gguf_file_opens) {
    struct kiln_gguf *gguf = open_gguf(test_data("stories260K.gguf"));
    const struct kiln_gguf_pair *tokens;
    struct kiln_err err;
    CHECK_EQ(gguf->n_tensors, 48);
    CHECK_EQ(gguf->n_pairs, 19);
    CHECK_OK(kiln_gguf_strings(gguf, "tokenizer.ggml.tokens", &tokens, &err), &err);
    CHECK_EQ(tokens->n, 512);
    kiln_gguf_close(gguf);
}

struct bytes {
    char *data;
    size_t size;
};

static struct bytes read_bytes(const char *path) {
    struct bytes bytes;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(path, &bytes.data, &bytes.size, &err), &err);
    return bytes;
}

TEST(a_gguf_file_cut_short_anywhere_is_refused) {
    struct bytes file = read_bytes(write_small());
    for (size_t size = 0; size + 24 < file.size; size++) { /* the last 24 bytes are padding */
        check_refused(test_file("cut.gguf", file.data, size), "");
    }
    kiln_free(file.data);
}

/* `size` bytes at `at` replaced. */
static void check_patched(const char *why, size_t at, const void *patch, size_t size) {
    struct bytes file = read_bytes(write_small());
    memcpy(file.data + at, patch, size);
    check_refused(test_file("bad.gguf", file.data, file.size), why);
    kiln_free(file.data);
}

/* Where these bytes first lie in the small file. */
static size_t find(const char *what) {
    struct bytes file = read_bytes(write_small());
    const char *at = memmem(file.data, file.size, what, strlen(what));
    CHECK(at != NULL);
    const size_t found = (size_t)(at - file.data);
    kiln_free(file.data);
    return found;
}

TEST(what_is_wrong_with_a_gguf_header_is_named) {
    const uint64_t huge = (uint64_t)1 << 63, all = ~(uint64_t)0, three = 3;
    const uint32_t big_endian = 0x03000000, version = 1, type = 77, rank = 9;
    check_patched("does not begin", 0, "GGML", 4);
    check_patched("big-endian", 4, &big_endian, 4);
    check_patched("version 1", 4, &version, 4);
    check_patched("9223372036854775808 tensors", 8, &huge, 8);
    check_patched("key/values", 16, &all, 8);
    check_patched("bytes of a key", 24, &huge, 8);
    check_patched("has type 77", find("llama.block_count") + 17, &type, 4);
    check_patched("elements of an array", find("tokenizer.ggml.tokens") + 21 + 8, &huge, 8);
    const size_t matrix = find("matrix") + 6;
    check_patched("9 extents", matrix, &rank, 4);
    check_patched("extent 1 of its shape", matrix + 12, &huge, 8);
    check_patched("no blocks of type Q8_0", matrix + 4, &three, 8);
    check_patched("type 77, which kiln does not know", matrix + 20, &type, 4);
    check_patched("expected 32", matrix + 24, &three, 8);
}

TEST(random_damage_of_a_gguf_header_never_crashes) {
    struct bytes file = read_bytes(write_small());
    for (uint64_t i = 0; i < 500; i++) {
        struct bytes bad = {.data = kiln_alloc(file.size, 1), .size = file.size};
        memcpy(bad.data, file.data, file.size);
        for (uint64_t j = 0; j < 3; j++) {
            const uint64_t bits = kiln_random_bits(1, KILN_STREAM_TEST, 3 * i + j);
            bad.data[bits % (file.size - 170)] = (char)(bits >> 40);
        }
        struct kiln_gguf *gguf;
        const char *path = test_file("random.gguf", bad.data, bad.size);
        if (kiln_gguf_open(path, &gguf, NULL) == KILN_OK) {
            kiln_gguf_close(gguf);
        }
        kiln_free(bad.data);
    }
    kiln_free(file.data);
}

TEST(a_key_twice_is_refused_in_both_directions) {
    struct kiln_gguf_pairs pairs = {0};
    struct kiln_err err;
    CHECK_OK(kiln_gguf_put_u32(&pairs, "a.b", 5, &err), &err);
    CHECK_OK(kiln_gguf_put_u32(&pairs, "a.c", 6, &err), &err);
    const struct kiln_gguf_pairs *lists[] = {&pairs, &pairs};
    struct kiln_durable file;
    struct kiln_gguf_writer writer;
    const char *path = test_path("keys.gguf");
    CHECK_OK(kiln_durable_open(&file, path, &err), &err);
    CHECK_FAILS(kiln_gguf_begin(&writer, &file, lists, 2, NULL, 0, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "key a.b");
    kiln_durable_abort(&file);
    CHECK_OK(kiln_durable_open(&file, path, &err), &err);
    CHECK_OK(kiln_gguf_begin(&writer, &file, lists, 1, NULL, 0, &err), &err);
    CHECK_OK(kiln_gguf_end(&writer, &err), &err);
    CHECK_OK(kiln_durable_commit(&file, &err), &err);
    struct bytes written = read_bytes(path);
    ((char *)memmem(written.data, written.size, "a.c", 3))[2] = 'b';
    check_refused(test_file("twice.gguf", written.data, written.size), "key a.b is there twice");
    kiln_free(written.data);
    kiln_gguf_pairs_free(&pairs);
}
