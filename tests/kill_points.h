/* SPDX-License-Identifier: MIT
 *
 * kill_points.h: the points of src/base/kill_point.h counted by kind, and a death at the n-th.
 *
 * Linked into the tests and into build/MODE/kiln-test, the program for shell tests, which reads
 *
 *   KILN_KILL_AT=n, KILN_KILL_AT=kind:n   SIGKILL at the n-th point, or at the n-th of that kind
 *   KILN_KILL_COUNT=file                  write how many of each kind were passed, at exit
 *   KILN_KILL_ROLE=role                   only of an owner, a successor or a supervisor
 *                                         (cmd/relay.h), from when it becomes one
 *   KILN_KILL_ONCE=file                   only where there is no such file, which is made then: of
 *                                         many processes one dies
 *   KILN_PLANT=weight:NAME@STEP           the first element of that tensor of the table, wq.3, is
 *                                         infinity from that step on (2 at least); one that is
 *                                         trained; not any more behind a rollback
 *   KILN_PLANT=batch@STEP                 the window that a run without rollbacks reads in that
 *                                         step has one token as all its targets
 */
#ifndef KILL_POINTS_H
#define KILL_POINTS_H

/* Count from now on, in memory that forked children share; die at the n-th (0: never) of that kind,
 * NULL: of all. A parent that forks disarms itself afterwards, or it dies too. */
void kill_points_arm(const char *kind, long n);
void kill_points_disarm(void);
/* Points of a kind passed since the last arming, NULL: of all. */
long kill_points_passed(const char *kind);
/* The same of one of the points where a process hands over, "hand-over: committed"; and deaths
 * there so far. */
long kill_points_passed_at(const char *where);
long kill_points_deaths_at(const char *where);
/* "commit 28, chunk 64, ..." of deaths so far, or of points passed. */
const char *kill_points_deaths(void);
const char *kill_points_text(void);

/* This process has that role from now on, for KILN_KILL_ROLE. */
void kill_points_role(const char *role);

#endif
