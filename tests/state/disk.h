/* SPDX-License-Identifier: MIT
 *
 * disk.h: the disks that a power cut may leave, from the reports of src/base/io_hook.h.
 *
 * A model of what is on the disk for certain: of a file the bytes at its last sync, of a folder the
 * names at its last sync. A cut leaves that, plus any part of what came later, in any order: each
 * page of a file old, new or half of each, its length old or new, each later name there or not.
 */
#ifndef TEST_DISK_H
#define TEST_DISK_H

#include <stdbool.h>
#include <stdint.h>

/* Report what is done below `folder`, that exists and is empty, to the model from now on. */
void disk_watch(const char *folder);
/* Reports so far, and passes of kill points. */
long disk_events(void);
/* At that report or point: call `cut`, with everything locked. */
void disk_cut_at(long event, void (*cut)(void));
/* Build the disk as a cut now may leave it in folder `to`. Chance: 0 keeps nothing that was not
 * synced, 1 all of it, others some. */
void disk_build(const char *to, uint64_t chance);
/* Has the folder at `path`, from there, certainly an entry whose name begins with `prefix` and has
 * no dot? */
bool disk_has(const char *path, const char *prefix);

#endif
