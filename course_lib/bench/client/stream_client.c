/* A closed loop of streaming HTTP/1.1 clients in one thread: when does the first text come, when the last?
 *
 * stream_client PORT PATH BODIES FIRST MARKER CLIENTS WARM_UP SECONDS
 *
 * BODIES holds a request body a line, used in turn from number FIRST on. A text has begun once MARKER, followed by
 * anything but a closing quote, was received. Requests that end during WARM_UP seconds are not counted, nor are those
 * that are under way at the end. Prints one line of JSON. wrk can't do this: its hook sees whole responses only.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS: SIGPIPE is ignored below */
#endif
#define LARGEST_ANSWER (1 << 20)

typedef struct {
    int fd;                 /* -1: not connected */
    char *request;          /* the whole request, head and body */
    size_t to_send, sent;
    char *answer;
    size_t have, searched;
    double started, first;  /* seconds; first is 0 until the first text */
} client;

static char **bodies;
static size_t body_count, next_body;
static const char *path, *marker;
static struct sockaddr_in server;
static double *first_ms, *whole_ms;
static size_t counted, room;
static long failed;
static char said[301];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "stream_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_bodies(const char *file) {
    FILE *in = fopen(file, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    if (!in) die(file);
    while ((length = getline(&line, &size, in)) > 0) {
        if (line[length - 1] == '\n') line[length - 1] = 0;
        bodies = realloc(bodies, (body_count + 1) * sizeof *bodies);
        if (!bodies || !(bodies[body_count++] = strdup(line))) die("memory");
    }
    free(line);
    fclose(in);
    if (!body_count) {
        fprintf(stderr, "stream_client: %s is empty\n", file);
        exit(1);
    }
}

static void hang_up(client *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static void ask(client *c) {
    const char *body = bodies[next_body++ % body_count];
    size_t size = strlen(body) + strlen(path) + 200;
    int on = 1;
    c->request = realloc(c->request, size);
    if (!c->request) die("memory");
    c->to_send = (size_t)snprintf(c->request, size,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        path, strlen(body), body);
    c->sent = c->have = c->searched = 0;
    c->first = 0;
    c->started = now();
    if (c->fd >= 0) return;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) die("connect");
}

/* The value of a head line, or NULL; the head is a string of its own by now. */
static const char *head_line(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, length) && line[length] == ':') {
            line += length + 1;
            while (*line == ' ') line++;
            return line;
        }
    }
    return NULL;
}

static void note(client *c, double at) {
    if (counted == room) {
        room = room ? room * 2 : 4096;
        first_ms = realloc(first_ms, room * sizeof *first_ms);
        whole_ms = realloc(whole_ms, room * sizeof *whole_ms);
        if (!first_ms || !whole_ms) die("memory");
    }
    first_ms[counted] = (c->first - c->started) * 1e3;
    whole_ms[counted++] = (at - c->started) * 1e3;
}

/* 1 when the answer is whole. */
static int look(client *c, int closed, int *keep) {
    char *end, *found;
    const char *value;
    size_t head, length;
    c->answer[c->have] = 0;
    end = strstr(c->answer, "\r\n\r\n");
    *keep = 0;
    if (!end) return closed;
    head = (size_t)(end - c->answer) + 4;
    if (!c->first) {
        size_t from = c->searched > head ? c->searched : head;
        while ((found = strstr(c->answer + from, marker))) {
            char after = found[strlen(marker)];
            if (after && after != '"') { c->first = now(); break; }
            if (!after) break;
            from = (size_t)(found - c->answer) + strlen(marker);
        }
        length = strlen(marker);
        c->searched = c->have > head + length ? c->have - length : head;
    }
    if (closed) return 1;
    *end = 0;
    *keep = !(value = head_line(c->answer, "connection")) || strncasecmp(value, "close", 5);
    if ((value = head_line(c->answer, "content-length"))) {
        *end = '\r';
        return c->have - head >= strtoul(value, NULL, 10);
    }
    value = head_line(c->answer, "transfer-encoding");
    *end = '\r';
    if (!value) return 0; /* it ends when the server closes */
    return c->have - head >= 7 && !memcmp(c->answer + c->have - 7, "\r\n0\r\n\r\n", 7);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between order statistics. */
static double quantile(const double *sorted, size_t count, double q) {
    double place;
    size_t below;
    if (!count) return 0;
    place = q * (double)(count - 1);
    below = (size_t)place;
    return below + 1 < count ? sorted[below] + (place - (double)below) * (sorted[below + 1] - sorted[below]) : sorted[below];
}

int main(int argc, char **argv) {
    int clients;
    double begin, end;
    client *all;
    struct pollfd *polls;
    if (argc != 9) {
        fprintf(stderr, "stream_client PORT PATH BODIES FIRST MARKER CLIENTS WARM_UP SECONDS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    server.sin_family = AF_INET;
    server.sin_port = htons((unsigned short)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    path = argv[2];
    read_bodies(argv[3]);
    next_body = strtoul(argv[4], NULL, 10);
    marker = argv[5];
    clients = atoi(argv[6]);
    all = calloc((size_t)clients, sizeof *all);
    polls = calloc((size_t)clients, sizeof *polls);
    if (clients < 1 || !all || !polls) die("clients");
    begin = now() + atof(argv[7]);
    end = begin + atof(argv[8]);
    for (int i = 0; i < clients; i++) {
        all[i].fd = -1;
        if (!(all[i].answer = malloc(LARGEST_ANSWER + 1))) die("memory");
        ask(&all[i]);
    }
    while (now() < end) {
        for (int i = 0; i < clients; i++) {
            polls[i].fd = all[i].fd;
            polls[i].events = all[i].sent < all[i].to_send ? POLLOUT : POLLIN;
        }
        if (poll(polls, (nfds_t)clients, 100) < 0 && errno != EINTR) die("poll");
        for (int i = 0; i < clients; i++) {
            client *c = &all[i];
            int closed = 0, keep = 0;
            ssize_t size;
            if (!polls[i].revents) continue;
            if (c->sent < c->to_send) {
                size = send(c->fd, c->request + c->sent, c->to_send - c->sent, MSG_NOSIGNAL);
                if (size > 0) c->sent += (size_t)size;
                else if (errno != EAGAIN) closed = 1;
            } else {
                size = recv(c->fd, c->answer + c->have, LARGEST_ANSWER - c->have, 0);
                if (size > 0) c->have += (size_t)size;
                else if (size == 0 || errno != EAGAIN) closed = 1;
                if (c->have == LARGEST_ANSWER) closed = 1;
            }
            if (closed && !c->have && now() - c->started < 0.01) { /* a kept connection that the server has just closed */
                hang_up(c);
                next_body--;
                ask(c);
                continue;
            }
            if (!look(c, closed, &keep)) continue;
            {
                double at = now();
                int good = c->have > 12 && !memcmp(c->answer + 8, " 200", 4) && c->first;
                if (!good) {
                    failed++;
                    snprintf(said, sizeof said, "%s", c->have ? c->answer : "the connection was closed");
                } else if (at >= begin && at < end) note(c, at);
                if (closed || !keep) hang_up(c);
                ask(c);
            }
        }
    }
    qsort(first_ms, counted, sizeof *first_ms, by_size);
    qsort(whole_ms, counted, sizeof *whole_ms, by_size);
    printf("RESULT {\"seconds\": %s, \"requests\": %zu, \"failed\": %ld, \"ttft_p50_ms\": %.3f, \"ttft_p99_ms\": %.3f, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", argv[8], counted, failed,
           quantile(first_ms, counted, 0.5), quantile(first_ms, counted, 0.99),
           quantile(whole_ms, counted, 0.5), quantile(whole_ms, counted, 0.99));
    for (char *at = said; *at; at++) if (*at == '\r' || *at == '\n') *at = ' ';
    if (*said) printf("SAID %s\n", said);
    return 0;
}
