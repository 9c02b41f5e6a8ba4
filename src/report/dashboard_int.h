/* SPDX-License-Identifier: MIT
 *
 * dashboard_int.h: the dashboard, for its files.
 *
 *   dashboard.c          opens, serves, closes
 *   dashboard_runs.c     which runs there are, how they stand, what is new
 *   dashboard_events.c   events, and who listens to them
 *   dashboard_http.c     requests and answers
 *   dashboard_guard.c    who is answered
 *   dashboard_places.c   who holds the places for connections
 *   dashboard_api.c      /api/...
 *   dashboard_metrics.c  /metrics
 *
 * One thread does it all, so nothing is locked. No path comes from a request: runs are looked up by
 * their names in a list, pages lie in the program.
 */
#ifndef KILN_REPORT_DASHBOARD_INT_H
#define KILN_REPORT_DASHBOARD_INT_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "kiln/dashboard.h"
#include "kiln/view.h"
#include "report/json_text.h"

enum {
    KILN_DASH_RUNS = 1000,       /* the newest of more */
    KILN_DASH_VIEWS = 8,         /* open beside those of runs that are trained */
    KILN_DASH_CONNECTIONS = 128, /* at once */
    KILN_DASH_LISTENERS = 64,    /* of them, to events */
    KILN_DASH_SPARE = 16,        /* of them, kept free for who comes next */
    KILN_DASH_ASK_S = 5,         /* seconds in which a request has to be whole */
    KILN_DASH_IDLE_S = 30,       /* seconds between two of them */
    KILN_DASH_EVENTS = 4096,     /* kept for who was away or is slow */
    KILN_DASH_EVENT = 1000,      /* bytes of one */
    KILN_DASH_BODY = 1024,       /* bytes of a request's body */
    KILN_DASH_TOKEN = 32,        /* hexadecimal digits */
};

/* ---- runs -------------------------------------------------------------------------------------
 */

enum kiln_dash_status {
    KILN_DASH_WAITING,  /* not looked at yet */
    KILN_DASH_RUNNING,  /* a process holds its state */
    KILN_DASH_STALE,    /* the same, and no step has come for long */
    KILN_DASH_STOPPED,  /* steps are left, and nobody trains it */
    KILN_DASH_FINISHED, /* no steps are left */
    KILN_DASH_FAILED,   /* nobody trains it: an incident stopped it */
};

enum { KILN_DASH_COUNTERS = 6 };
/* A counter of /metrics: a rollback takes steps back, which were taken all the same. */
struct kiln_dash_count {
    double last, undone;
};

struct kiln_dash_run {
    char *folder;
    char *name;  /* UTF-8, unlike all others */
    unsigned id; /* of no other run of this dashboard */
    bool found;  /* in the last look at the folders */
    enum kiln_dash_status status;
    struct kiln_view *view; /* NULL: closed */
    bool read;              /* summary and last are of the metrics that `seen` are */
    bool dirty;             /* not of the view's newest steps: kiln_dash_refresh */
    struct kiln_view_summary summary;
    struct kiln_step_record last;
    char failed[96]; /* why it stopped, where an incident did that */
    struct kiln_dash_count counts[KILN_DASH_COUNTERS];
    struct timespec seen; /* of metrics.jsonl */
    off_t size;
    double wanted; /* when somebody asked for it, monotonic seconds */
};

/* ---- places -----------------------------------------------------------------------------------
 */

/* What a connection does; who is let go first has the smallest. */
enum kiln_dash_does {
    KILN_DASH_ASKS,     /* its first request is not whole yet */
    KILN_DASH_RESTS,    /* was answered; the next request is not whole yet */
    KILN_DASH_ANSWERED, /* is being sent an answer */
    KILN_DASH_LISTENS,  /* to events, without end */
};

struct kiln_dash_place {
    bool used, gone; /* gone: let go, and not closed by the server yet */
    enum kiln_dash_does does;
    int fd;
    double since; /* monotonic seconds */
};

/* ---- events -----------------------------------------------------------------------------------
 */

struct kiln_listener;

struct kiln_dashboard {
    struct MHD_Daemon *daemon;
    int socket, port;
    char token[KILN_DASH_TOKEN + 1], boot[17]; /* boot: which dashboard an event's id is of */
    char address[64 + KILN_DASH_TOKEN];
    char **where; /* as given */
    size_t n_where;
    bool may_be_absent;
    struct kiln_dash_run *runs;
    size_t n_runs, left_out;
    unsigned ids;
    double next_look, next_scan;
    char *events[KILN_DASH_EVENTS]; /* event s is at s % KILN_DASH_EVENTS */
    uint64_t newest;                /* number of the next one; the first is 1 */
    struct kiln_listener *listeners;
    size_t n_listeners;
    bool closing;
    struct kiln_dash_place places[KILN_DASH_CONNECTIONS];
    struct kiln_text scratch;
};

/* dashboard_runs.c. Names in, runs out. */
KILN_MUST_CHECK enum kiln_status kiln_dash_runs_open(struct kiln_dashboard *d,
                                                     const struct kiln_dashboard_options *options,
                                                     struct kiln_err *err);
void kiln_dash_runs_close(struct kiln_dashboard *d);
/* Runs that came or went; then what is new of each. */
void kiln_dash_scan(struct kiln_dashboard *d);
void kiln_dash_look(struct kiln_dashboard *d);
/* NULL: none has that name of n bytes. */
struct kiln_dash_run *kiln_dash_find(struct kiln_dashboard *d, const char *name, size_t n);
/* Open its view, for somebody who asks. KILN_EIO, KILN_EINPUT, KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_dash_want(struct kiln_dashboard *d, struct kiln_dash_run *run,
                                                struct kiln_err *err);
/* Make summary and last those of the view's newest steps. */
void kiln_dash_refresh(struct kiln_dash_run *run);
const char *kiln_dash_status_name(enum kiln_dash_status status);

/* dashboard_events.c */
/* Tell all listeners; data is one line, cut beyond KILN_DASH_EVENT. */
void kiln_dash_tell(struct kiln_dashboard *d, const char *event, const char *data);
/* Those who wait and have something to read. */
void kiln_dash_wake(struct kiln_dashboard *d);
enum MHD_Result kiln_dash_listen(struct kiln_dashboard *d, struct MHD_Connection *connection);
void kiln_dash_events_close(struct kiln_dashboard *d);

/* dashboard_guard.c */
/* Is that a host of ours: "127.0.0.1:PORT", "localhost:PORT"? */
bool kiln_dash_host_is_ours(const char *host, size_t n, int port);
/* "http://" and such a host. */
bool kiln_dash_origin_is_ours(const char *origin, size_t n, int port);
/* In a time that does not depend on where they differ. */
bool kiln_dash_token_is(const char *token, const char *given, size_t n);
/* May this request be answered? 0, or the HTTP status of the refusal and why. */
unsigned kiln_dash_refuse(const struct kiln_dashboard *d, struct MHD_Connection *connection,
                          bool post, const char **why);

/* dashboard_places.c. A connection has begun; its place until used is false again. NULL: none is
 * free. */
struct kiln_dash_place *kiln_dash_place_take(struct kiln_dashboard *d, int fd);
void kiln_dash_place_does(struct kiln_dash_place *place, enum kiln_dash_does does);
/* Let go who takes too long to ask. */
void kiln_dash_places_check(struct kiln_dashboard *d);

/* dashboard_http.c */
enum MHD_Result kiln_dash_answer(void *context, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_size, void **request);
void kiln_dash_completed(void *context, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode why);
/* Bytes that are copied. */
enum MHD_Result kiln_dash_reply(struct MHD_Connection *connection, unsigned status,
                                const char *type, const char *bytes, size_t n);
/* {"error": "..."} */
enum MHD_Result kiln_dash_fail(struct MHD_Connection *connection, unsigned status, const char *why);
/* What every answer says of itself. */
void kiln_dash_secure(struct MHD_Response *response);

/* dashboard_api.c */
enum MHD_Result kiln_dash_runs(struct kiln_dashboard *d, struct MHD_Connection *connection);
enum MHD_Result kiln_dash_one(struct kiln_dashboard *d, struct MHD_Connection *connection);
/* stop, or another learning rate. */
enum MHD_Result kiln_dash_control(struct kiln_dashboard *d, struct MHD_Connection *connection,
                                  bool stop, const char *body, size_t n);

/* dashboard_metrics.c. The summary is new: what its counters lost is kept. */
void kiln_dash_count(struct kiln_dash_run *run);
enum MHD_Result kiln_dash_metrics(struct kiln_dashboard *d, struct MHD_Connection *connection);

#endif
