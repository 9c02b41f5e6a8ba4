/* SPDX-License-Identifier: MIT
 *
 * dashboard_places.c: who holds the places for connections.
 *
 * All clients have one address, so no client can be told from another by it. What can be told is
 * who has asked for something: whoever has not sent a whole request in KILN_DASH_ASK_S seconds,
 * however busy, is let go; and before the last places are taken the one that has held its place
 * longest without a request goes, so that who comes next is answered.
 *
 * A connection is let go by a shutdown of its socket: the server sees its end and closes it.
 */
#include <sys/socket.h>

#include "base/machine.h"
#include "report/dashboard_int.h"

static void let_go(struct kiln_dash_place *place) {
    place->gone = true;
    (void)shutdown(place->fd, SHUT_RDWR);
}

/* Who has asked for nothing yet, before who is being answered; the longest there. Listeners stay:
 * they are fewer than the places. */
static struct kiln_dash_place *least_of_all(struct kiln_dashboard *d) {
    struct kiln_dash_place *least = NULL;
    for (size_t i = 0; i < KILN_DASH_CONNECTIONS; i++) {
        struct kiln_dash_place *p = &d->places[i];
        if (!p->used || p->gone || p->does == KILN_DASH_LISTENS) {
            continue;
        }
        if (least == NULL || p->does < least->does ||
            (p->does == least->does && p->since < least->since)) {
            least = p;
        }
    }
    return least;
}

struct kiln_dash_place *kiln_dash_place_take(struct kiln_dashboard *d, int fd) {
    struct kiln_dash_place *free_one = NULL;
    size_t held = 0;
    for (size_t i = 0; i < KILN_DASH_CONNECTIONS; i++) {
        struct kiln_dash_place *p = &d->places[i];
        held += p->used && !p->gone;
        free_one = free_one == NULL && !p->used ? p : free_one;
    }
    if (held >= KILN_DASH_CONNECTIONS - KILN_DASH_SPARE) {
        struct kiln_dash_place *least = least_of_all(d);
        if (least != NULL) {
            let_go(least);
        }
    }
    if (free_one != NULL) {
        *free_one = (struct kiln_dash_place){.used = true, .fd = fd, .since = kiln_now_s()};
    }
    return free_one;
}

void kiln_dash_place_does(struct kiln_dash_place *place, enum kiln_dash_does does) {
    if (place != NULL) {
        place->does = does;
        place->since = kiln_now_s();
    }
}

void kiln_dash_places_check(struct kiln_dashboard *d) {
    const double now = kiln_now_s();
    for (size_t i = 0; i < KILN_DASH_CONNECTIONS; i++) {
        struct kiln_dash_place *p = &d->places[i];
        const double may = p->does == KILN_DASH_ASKS ? KILN_DASH_ASK_S : KILN_DASH_IDLE_S;
        if (p->used && !p->gone && p->does <= KILN_DASH_RESTS && now - p->since > may) {
            let_go(p);
        }
    }
}
