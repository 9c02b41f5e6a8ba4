/* SPDX-License-Identifier: MIT
 *
 * parts.c: what a tokenizer is made of, filled in piece by piece by whoever reads or learns one.
 */
#include <string.h>

#include "base/mem.h"
#include "text/text_int.h"

const char kiln_pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char kiln_pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char kiln_pattern_qwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

void kiln_parts_init(struct kiln_parts *parts) {
    *parts = (struct kiln_parts){
        .unknown = KILN_NO_ID, .bos = KILN_NO_ID, .eos = KILN_NO_ID, .pad = KILN_NO_ID};
}

void kiln_parts_fini(struct kiln_parts *parts) {
    for (size_t i = 0; i < parts->n_rewrites; i++) {
        kiln_free(parts->rewrite[i].pattern);
        kiln_free(parts->rewrite[i].content);
    }
    for (size_t i = 0; i < parts->n_splits; i++) {
        kiln_free(parts->split[i].pattern);
    }
    kiln_vocabulary_fini(&parts->v);
    kiln_free(parts->merge);
    kiln_free(parts->added);
    kiln_free(parts->rewrite);
    kiln_free(parts->split);
    kiln_free(parts->config);
    kiln_parts_init(parts);
}

bool kiln_parts_add_merge(struct kiln_parts *parts, uint32_t left, uint32_t right, uint32_t id) {
    if (parts->n_merges == parts->merge_room) {
        size_t room = parts->merge_room > 0 ? parts->merge_room * 2 : 1024;
        struct kiln_merge *merge =
            kiln_realloc(parts->merge, parts->merge_room, room, sizeof *merge);
        if (merge == NULL) {
            return false;
        }
        parts->merge = merge;
        parts->merge_room = room;
    }
    parts->merge[parts->n_merges++] = (struct kiln_merge){left, right, id};
    return true;
}

/* There are few of the others; each addition moves them. */
bool kiln_parts_add_added(struct kiln_parts *parts, struct kiln_added added) {
    size_t n = parts->n_added;
    if ((n & (n - 1)) == 0) { /* full: the room is the next power of two */
        struct kiln_added *grown = kiln_realloc(parts->added, n, n > 0 ? 2 * n : 1, sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        parts->added = grown;
    }
    parts->added[parts->n_added++] = added;
    return true;
}

bool kiln_parts_add_rewrite(struct kiln_parts *parts, enum kiln_rewrite_kind kind,
                            const char *pattern, bool literal, const char *content) {
    struct kiln_rewrite step = {.kind = kind, .literal = literal};
    step.pattern = pattern != NULL ? kiln_strdup(pattern) : NULL;
    step.content = content != NULL ? kiln_strdup(content) : NULL;
    struct kiln_rewrite *grown =
        kiln_realloc(parts->rewrite, parts->n_rewrites, parts->n_rewrites + 1, sizeof *grown);
    parts->rewrite = grown != NULL ? grown : parts->rewrite;
    if (grown == NULL || (pattern != NULL && step.pattern == NULL) ||
        (content != NULL && step.content == NULL)) {
        kiln_free(step.pattern);
        kiln_free(step.content);
        return false;
    }
    parts->rewrite[parts->n_rewrites++] = step;
    return true;
}

bool kiln_parts_add_split(struct kiln_parts *parts, const char *pattern, bool literal,
                          enum kiln_behaviour behaviour, bool invert) {
    struct kiln_cut step = {.behaviour = behaviour, .literal = literal, .invert = invert};
    step.pattern = kiln_strdup(pattern);
    struct kiln_cut *grown =
        kiln_realloc(parts->split, parts->n_splits, parts->n_splits + 1, sizeof *grown);
    parts->split = grown != NULL ? grown : parts->split;
    if (grown == NULL || step.pattern == NULL) {
        kiln_free(step.pattern);
        return false;
    }
    parts->split[parts->n_splits++] = step;
    return true;
}
