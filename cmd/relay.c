/* SPDX-License-Identifier: MIT */
#include "relay.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const words[RELAY_WORDS] = {"STEP", "START", "READY", "FAILED", "ALONE", "GO"};

void relay_say(int socket, enum relay_word word, const char *text) {
    char line[RELAY_LINE];
    int n = snprintf(line, sizeof line - 1, "%s %s", words[word], text);
    n = n < (int)sizeof line - 2 ? n : (int)sizeof line - 2;
    for (int i = 0; i < n; i++) {
        line[i] = line[i] == '\n' ? ' ' : line[i];
    }
    line[n++] = '\n';
    for (int sent = 0; sent < n;) {
        const ssize_t put = write(socket, line + sent, (size_t)(n - sent));
        if (put < 0 && errno != EINTR) {
            return;
        }
        sent += put > 0 ? (int)put : 0;
    }
}

static void parse(const char *line, struct relay_message *message) {
    const size_t length = strcspn(line, " ");
    message->word = RELAY_WORDS;
    for (int i = 0; i < RELAY_WORDS; i++) {
        if (strlen(words[i]) == length && strncmp(words[i], line, length) == 0) {
            message->word = (enum relay_word)i;
        }
    }
    snprintf(message->text, sizeof message->text, "%s",
             line[length] == ' ' ? line + length + 1 : "");
}

enum relay_heard relay_hear(struct relay_reader *reader, struct relay_message *message) {
    for (;;) {
        char *end = memchr(reader->line, '\n', reader->n);
        if (end != NULL) {
            *end = '\0';
            parse(reader->line, message);
            reader->n -= (size_t)(end + 1 - reader->line);
            memmove(reader->line, end + 1, reader->n);
            return RELAY_HEARD;
        }
        if (reader->n == sizeof reader->line) {
            return RELAY_END; /* no line of ours is so long */
        }
        const ssize_t got =
            read(reader->socket, reader->line + reader->n, sizeof reader->line - reader->n);
        if (got > 0) {
            reader->n += (size_t)got;
        } else if (got == 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) {
            return RELAY_END;
        } else if (errno != EINTR) {
            return RELAY_NOTHING;
        }
    }
}

void (*relay_role_hook)(const char *role);
void (*relay_point_hook)(const char *where);

void relay_role(const char *role) {
    if (relay_role_hook != NULL) {
        relay_role_hook(role);
    }
}

void relay_point(const char *where) {
    if (relay_point_hook != NULL) {
        relay_point_hook(where);
    }
}
