/* SPDX-License-Identifier: MIT
 *
 * state_lab.h: a small state file to damage.
 */
#ifndef STATE_LAB_H
#define STATE_LAB_H

#include <stdint.h>

#include "kiln/model.h"
#include "state/state.h"

/* A tied model of 2 layers; its head_size is 8. */
struct kiln_table *lab_table(size_t dim, bool tied);
/* A state file of that model at test_path(name): numbered weights, phase UPDATE of step 3; `clean`
 * or as a killed process leaves it. Returns the path. */
const char *lab_state(const char *name, const struct kiln_table *table, bool clean);
/* The same with snapshots of that precision: bytes that count up, other ones in slot 1. */
const char *lab_snapshots(const char *name, const struct kiln_table *table,
                          enum kiln_precision snapshots, bool clean);
/* Byte i of a snapshot there. */
unsigned char lab_snapshot_byte(size_t slot, size_t i);
/* Open the file and close it: the status; the message in *err and the notice. Header and slots
 * must be the same afterwards. */
enum kiln_status lab_open(const char *path, const struct kiln_table *table, char notice[160],
                          struct kiln_err *err);
uint32_t lab_hash(const char *path);
/* XOR a byte of a file. */
void lab_flip(const char *path, long at, int bits);

#endif
