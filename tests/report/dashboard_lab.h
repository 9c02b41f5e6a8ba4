/* SPDX-License-Identifier: MIT
 *
 * dashboard_lab.h: a dashboard and its clients in one process: a client sends bytes over a real
 * socket, and the dashboard serves while it waits.
 */
#ifndef DASHBOARD_LAB_H
#define DASHBOARD_LAB_H

#include "report/dashboard_int.h"

/* A dashboard of test_path("runs"), which is made, at a port that is free. */
struct kiln_dashboard *dash_dashboard(void);

/* A run of test_path("runs") with `steps` lines; more lines behind those; its folder. */
const char *dash_run(const char *name, uint64_t steps);
void dash_steps(const char *name, uint64_t from, uint64_t to);
/* Hold its state as a process that trains does, until the test ends. */
void dash_hold(const char *name);

/* Connect and send n bytes; the socket. */
int dash_send(const struct kiln_dashboard *d, const char *bytes, size_t n);
/* What comes until the dashboard closes the connection, or `want` is in it (NULL: nothing ends it
 * early); at most a second without a byte. Heap, with a zero behind it. */
char *dash_read(struct kiln_dashboard *d, int socket, const char *want);
/* "GET path", with a good Host and Connection: close; headers: "A: b\r\n" more. The whole answer.
 */
char *dash_get(struct kiln_dashboard *d, const char *path, const char *headers);
/* A POST that is good but for what `headers` says instead: origin, type and token NULL are good,
 * "" are left out. */
struct dash_post {
    const char *host, *origin, *type, *token, *body;
};
char *dash_post(struct kiln_dashboard *d, const char *path, const struct dash_post *post);
/* "HTTP/1.1 200 ...": 200; 0: no answer. */
int dash_status(const char *answer);
const char *dash_body(const char *answer);
/* Look at the runs and wake who waits, now. */
void dash_look(struct kiln_dashboard *d);

#endif
