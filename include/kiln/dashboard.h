/* SPDX-License-Identifier: MIT
 *
 * dashboard.h: runs as live pages, for a browser on this machine.
 *
 *   const char *where[] = {"runs"};
 *   const struct kiln_dashboard_options options = {.runs = where, .n_runs = 1, .port = -1};
 *   struct kiln_dashboard *dashboard;   kiln_dashboard_open(&options, &dashboard, &err);
 *   puts(kiln_dashboard_address(dashboard));
 *   while (!stop) {                     kiln_dashboard_serve(dashboard, 0.2, &err);  }
 *   kiln_dashboard_close(dashboard);
 *
 * One thread, the caller's: no other is started. Nothing of a run is changed but by control.json
 * (src/train/control.h), and that only for who has the token.
 *
 *   GET  /                 the page; /style.css, /charts.js, ... are its parts
 *   GET  /api/runs         all runs: name, status, step, loss
 *   GET  /api/run          ?name=N&from=&to=&points=&parts=: one run (kiln/view.h)
 *   GET  /events           server-sent events: steps as they come
 *   GET  /metrics          the text format 0.0.4 of Prometheus
 *   POST /api/stop         {"run": N}: as Ctrl-C; the run is saved and can be resumed
 *   POST /api/rate         {"run": N, "lr": 1e-4}: the peak learning rate from the next step on
 *
 * Who is listened to. The socket is bound to 127.0.0.1, so nobody from another machine. A web page
 * from elsewhere, open in the same browser, is kept out by Host (127.0.0.1 or localhost with our
 * port, so that no name of its own can be pointed here) and Origin (absent or ours), with 403. POST
 * needs Origin, Content-Type: application/json and the token in X-Kiln-Token, so that neither a
 * page nor another user of the machine can stop a run. Others of this machine may look.
 *
 * How much it takes. At most 128 connections, 64 of them listeners to events; 30 kB a listener: who
 * reads too slowly misses steps, is told so, and asks for them again, thinned out. Views of runs
 * that nobody looks at are closed.
 */
#ifndef KILN_DASHBOARD_H
#define KILN_DASHBOARD_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KILN_DASHBOARD_PORT = 7860, KILN_DASHBOARD_PORTS = 10 };

struct kiln_dashboard_options {
    const char *const *runs; /* run folders, and folders of such; new ones appear as they come */
    size_t n_runs;
    bool may_be_absent; /* a folder that is not there is waited for */
    int port;           /* 1 to 65535; 0: any that is free; -1: 7860, or the next free one of ten */
};

struct kiln_dashboard;

/* KILN_EINPUT: a folder is absent, or no folder; KILN_EBUSY: the port is taken; KILN_EIO,
 * KILN_ENOMEM, KILN_EUSAGE. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_dashboard_open(
    const struct kiln_dashboard_options *options, struct kiln_dashboard **out,
    struct kiln_err *err);
/* NULL is fine. */
KILN_API void kiln_dashboard_close(struct kiln_dashboard *dashboard);

/* "http://127.0.0.1:7860/#token=...": the token is 128 random bits, of this dashboard alone, and
 * stands nowhere else. */
KILN_API const char *kiln_dashboard_address(const struct kiln_dashboard *dashboard);
KILN_API int kiln_dashboard_port(const struct kiln_dashboard *dashboard);

/* Answer who asks, and look at the runs now and then, for about so many seconds; a signal ends it
 * early. What cannot be read of a run is left out. KILN_EIO: the server can go on no more. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_dashboard_serve(struct kiln_dashboard *dashboard,
                                                               double seconds,
                                                               struct kiln_err *err);
/* Look at the runs once more, and give listeners a second to read it. */
KILN_API void kiln_dashboard_finish(struct kiln_dashboard *dashboard);

/* Could a dashboard have that port (-1: one of the ten)? KILN_EBUSY says who else might. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_dashboard_try(int port, struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
