/* SPDX-License-Identifier: MIT
 *
 * story_grammar.h: the tables that stories are made of.
 *
 * The whole grammar is one array of lists. An entry of a list is text in which {name} stands for
 * an entry of the list `name`, chosen with equal chances, and {Name} for the same with a capital
 * letter. Three kinds of list:
 *
 *   CAST      one entry is chosen for the whole story (the hero, the thing, the mishap ...), so
 *             it comes back wherever it is mentioned. Every story mentions every member of its
 *             cast, or the text would not tell who was cast.
 *   WORD      an entry is chosen anew at each mention.
 *   SENTENCE  like WORD, but each entry is one whole sentence: it ends in . ! or ? outside quotes
 *             and has no other such mark there.
 *
 * An entry may have several forms, set apart by '|', and the list then names them: with the forms
 * "name he him his boy", {hero} is the name and {hero.him} the object pronoun. No two choices may
 * lead to the same story; the tests would find it. The first list is where a story begins.
 */
#ifndef KILN_TEXT_STORY_GRAMMAR_H
#define KILN_TEXT_STORY_GRAMMAR_H

#include <stddef.h>

enum kiln_story_kind { KILN_STORY_CAST, KILN_STORY_WORD, KILN_STORY_SENTENCE };

struct kiln_story_list {
    const char *name;
    enum kiln_story_kind kind;
    const char *forms; /* names of the forms, set apart by blanks; NULL: one form */
    const char *const *entries;
    size_t n_entries;
};

#define KILN_STORY_MAX_LISTS 96

extern const struct kiln_story_list kiln_story_lists[];
extern const size_t kiln_story_n_lists;

#endif
