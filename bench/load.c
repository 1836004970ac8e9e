/* The load generator: opens WebSocket clients, publishes, takes frames apart, counts, and measures
 * delays.
 *
 * It has to be much faster than the servers it measures, so it is C, one thread, epoll, and looks
 * no further into a frame than how it begins and two numbers: one that must grow by 1 from each
 * message of a client to its next, or the run fails, and "t" (when it was published, in ns of
 * CLOCK_MONOTONIC). A frame that is not what is expected there ends its client, which is then lost.
 *
 * load PORT SETUP, with commands on standard input, one answer line each:
 *   open WINDOW SMALL  connect all, at most WINDOW at a time, the last SMALL of them with a tiny
 *                      receive buffer                         -> "open SECONDS OPENED LOST"
 *   reset              forget counts and delays               -> "reset"
 *   publish N RATE     publish N times in turn over the publishers, at fixed instants RATE times a
 *                      second, or as fast as the server reads (0); goes on behind other commands
 *                                                             -> "publish"
 *   stop               publish no more                        -> "stop PUBLISHED" since reset
 *   wait FRAMES MS     until so many frames came and all that was published is acknowledged, or so
 *                      long           -> "wait FRAMES BYTES GAPS LOST UNACKNOWLEDGED"
 *   echo N             each client sends its ping N times, one after the answer to the other
 *                                                             -> "echo SECONDS"
 *   delays             -> "delays COUNT P50 P99 P999 MAX" in microseconds, of what came since reset: from
 *                      the instant of each to the read of the socket that brought it
 *   stall N            the last N clients stop reading        -> "stall"
 *   close              reset all connections                  -> "close"
 * SETUP has numbers, u32, and texts, u32 n and n bytes. Numbers: clients, how many of them (the first
 * ones) are publishers. Texts: ping, how its answer begins, what stands before the number that must
 * grow by 1, the message that publishes (a byte 1 is where its number goes, 2 where the instant),
 * how its acknowledgement begins (empty: there is none), what stands before the list of messages that
 * an answer brings a client which comes back (empty: they come one by one). Per client: the last number that it knows
 * (0: any), text handshake, number of steps, and per step: frames to await, text that they begin
 * with, text to send then. A client is open after its last step.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { CLOSED, UPGRADING, STEPPING, OPEN };
enum { BUFFER = 1 << 20, EVENTS = 512, BUCKETS = 64 * 32, PUBLICATION = 1 << 16, AT_ONCE = 64 };
enum { FROM_ONE_ADDRESS = 10000 }; /* a third of the ports that there are for one, between two ends */

struct text {
    uint32_t size;
    const uint8_t *at;
};

struct client {
    int fd, state;
    uint32_t seen, steps, step, awaited, echoes;
    struct text handshake;
    const uint8_t *next_step; /* where in the set-up */
    uint8_t *rest;            /* the part of a frame that came */
    uint32_t rest_size, rest_room;
    uint8_t *unsent; /* a publication, or the part of it that did not fit the socket */
    uint32_t unsent_size, full;
    int64_t seq;
};

static struct client *clients;
static uint32_t count, publishers;
static struct text ping, pong, growing, publication, acknowledgement, recovered;
static int queue, port, timer;
static uint32_t opened, in_flight, next, window, small;
static uint64_t frames, bytes, gaps, lost, echoing, strange;
static uint64_t published, to_publish, acknowledged, publication_number;
static int64_t publishing_since, timer_at;
static int64_t read_at; /* when what is being taken apart came, all of one `recv` */
static double rate;
static uint64_t delays[BUCKETS], slowest;
static uint8_t buffer[BUFFER];

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint32_t take_number(const uint8_t **at)
{
    uint32_t value;
    memcpy(&value, *at, 4);
    *at += 4;
    return value;
}

static struct text take_text(const uint8_t **at)
{
    struct text text = {.size = take_number(at), .at = *at};
    *at += text.size;
    return text;
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* 16 buckets per power of two, so within 6 %: the idea of HdrHistogram. */
static void note_delay(int64_t ns)
{
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    int power = us < 32 ? 0 : 63 - __builtin_clzll(us) - 4;
    uint64_t bucket = (uint64_t)power * 32 + (us >> power);
    delays[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    if (us > slowest)
        slowest = us;
}

static double percentile(double part, uint64_t total)
{
    uint64_t want = (uint64_t)(part * total), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += delays[i]) > want) {
            uint64_t edge = (uint64_t)(i % 32 + 1) << (i / 32);
            return edge < slowest ? edge : slowest; /* the upper edge: never less than it was */
        }
    return slowest;
}

static void transmit(struct client *c, const void *data, uint32_t size)
{
    /* Requests are small and the socket is empty: a short write is a broken peer. */
    if (send(c->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        lost++;
}

static void gone(struct client *c)
{
    if (c->state == CLOSED)
        return;
    if (c->state != OPEN)
        in_flight--;
    c->state = CLOSED;
    close(c->fd);
    lost++;
    if (c->echoes) {
        c->echoes = 0;
        echoing--;
    }
}

static int begins(const uint8_t *data, uint32_t size, struct text with)
{
    return size >= with.size && !memcmp(data, with.at, with.size);
}

static void refuse(struct client *c, const uint8_t *data, uint32_t size)
{
    if (strange++ < 3)
        fprintf(stderr, "load: not expected: %.*s\n", size < 200 ? (int)size : 200, data);
    gone(c);
}

/* Sends what is due after the frames so far; marks the client as open at the end. */
static void advance(struct client *c)
{
    while (c->step < c->steps) {
        const uint8_t *at = c->next_step;
        uint32_t await = take_number(&at);
        if (c->awaited < await)
            return;
        take_text(&at);
        struct text text = take_text(&at);
        c->awaited = 0;
        c->step++;
        c->next_step = at;
        if (text.size)
            transmit(c, text.at, text.size);
    }
    c->state = OPEN;
    opened++;
    in_flight--;
}

/* Returns what stands behind a name. `hint` is where it was in the message before: most are alike, and
 * to search each through took a quarter of the load's time. */
static const char *find(const uint8_t *data, uint32_t size, struct text name, uint32_t *hint)
{
    const uint8_t *found = data + *hint;
    if (size < name.size || *hint > size - name.size || memcmp(found, name.at, name.size)) {
        found = memmem(data, size, name.at, name.size);
        if (!found)
            return NULL;
        *hint = found - data;
    }
    return (const char *)found + name.size;
}

static void take_publication(struct client *c, const uint8_t *data, uint32_t size)
{
    static const struct text instant = {4, (const uint8_t *)"\"t\":"};
    static uint32_t growing_hint, instant_hint;
    const char *at = find(data, size, growing, &growing_hint);
    if (!at) {
        refuse(c, data, size);
        return;
    }
    frames++;
    int64_t seq = strtoll(at, NULL, 10);
    if (c->seq && seq != c->seq + 1)
        gaps++;
    c->seq = seq;
    if ((at = find(data, size, instant, &instant_hint)))
        note_delay(read_at - strtoll(at, NULL, 10));
}

/* Takes the objects of the list that an answer has, one by one: each is a message. */
static void take_recovered(struct client *c, const uint8_t *data, uint32_t size)
{
    const uint8_t *end = data + size, *began = NULL;
    static uint32_t hint;
    const char *list = find(data, size, recovered, &hint);
    int depth = 0, quoted = 0;
    for (const uint8_t *at = (const uint8_t *)list; at && at < end; at++) {
        if (quoted) {
            if (*at == '\\')
                at++;
            else if (*at == '"')
                quoted = 0;
        } else if (*at == '"')
            quoted = 1;
        else if (*at == '{' || *at == '[') {
            if (!depth++)
                began = at;
        } else if (*at == '}' || *at == ']') {
            if (!depth--)
                return;
            if (!depth)
                take_publication(c, began, at + 1 - began);
        }
    }
}

static void take_message(struct client *c, const uint8_t *data, uint32_t size)
{
    if (size == 1 && *data == '2') { /* Engine.IO asks for a sign of life */
        uint8_t alive[7] = {0x81, 0x81, 0, 0, 0, 0, '3'};
        transmit(c, alive, sizeof alive);
        return;
    }
    if (size == 2 && !memcmp(data, "{}", 2)) { /* and Centrifugo does, which wants the same */
        uint8_t alive[8] = {0x81, 0x82, 0, 0, 0, 0, '{', '}'};
        transmit(c, alive, sizeof alive);
        return;
    }
    if (c->state != OPEN) {
        const uint8_t *step = c->next_step;
        take_number(&step);
        if (!begins(data, size, take_text(&step))) {
            refuse(c, data, size);
            return;
        }
        c->awaited++;
        advance(c);
        if (recovered.size)
            take_recovered(c, data, size);
        return;
    }
    if (c < clients + publishers) {
        if (acknowledgement.size && begins(data, size, acknowledgement))
            acknowledged++;
        else
            refuse(c, data, size);
        return;
    }
    if (c->echoes) {
        if (!begins(data, size, pong)) {
            refuse(c, data, size);
            return;
        }
        frames++;
        if (--c->echoes)
            transmit(c, ping.at, ping.size);
        else
            echoing--;
        return;
    }
    take_publication(c, data, size);
}

/* Writes a publication as a frame. */
static void write_publication(struct client *c, uint64_t seq, int64_t instant)
{
    uint8_t *at = c->unsent + 8;
    for (uint32_t i = 0; i < publication.size; i++) {
        uint8_t byte = publication.at[i];
        if (byte == 1)
            at += sprintf((char *)at, "%lu", seq);
        else if (byte == 2)
            at += sprintf((char *)at, "%ld", instant);
        else
            *at++ = byte;
    }
    uint32_t size = at - c->unsent - 8;
    uint8_t header[8] = {0x81, 0x80 | 126, size >> 8, size}; /* text, masked; the mask is 0 */
    memcpy(c->unsent, header, sizeof header);
    c->unsent_size = size + sizeof header;
}

static void send_unsent(struct client *c)
{
    ssize_t sent = send(c->fd, c->unsent, c->unsent_size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        gone(c);
        return;
    }
    if (sent > 0) {
        c->unsent_size -= sent;
        memmove(c->unsent, c->unsent + sent, c->unsent_size);
    }
    uint32_t full = c->unsent_size > 0;
    if (full != c->full) {
        struct epoll_event event = {.events = EPOLLIN | (full ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(queue, EPOLL_CTL_MOD, c->fd, &event);
        c->full = full;
    }
}

/* Publishes what is due; returns whether more is. What is due while its socket is full leaves later
 * with the instant at which it should have left: else a server that holds up the publisher would
 * hide its delays (Tene's coordinated omission). */
static int publish_due(void)
{
    for (int i = 0; i < AT_ONCE; i++) {
        if (published == to_publish)
            return 0;
        int64_t instant = now();
        if (rate) {
            int64_t due = publishing_since + (int64_t)(published * 1e9 / rate);
            if (due > instant) {
                struct itimerspec at = {.it_value = {due / 1000000000, due % 1000000000}};
                if (due != timer_at)
                    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
                timer_at = due;
                return 0;
            }
            instant = due;
        }
        struct client *c = clients + published % publishers;
        if (c->full || c->state != OPEN)
            return 0;
        published++;
        write_publication(c, ++publication_number, instant);
        send_unsent(c);
    }
    return 1;
}

/* Takes a frame's messages: Centrifugo puts several into one, each in a line of its own, and no JSON
 * of any peer has another newline. */
static void take_lines(struct client *c, const uint8_t *data, uint32_t size)
{
    const uint8_t *end = data + size;
    while (c->state != CLOSED && data < end) {
        const uint8_t *newline = memchr(data, '\n', end - data);
        const uint8_t *stop = newline ? newline : end;
        take_message(c, data, stop - data);
        data = stop + 1;
    }
}

/* Takes the frames at `data`; returns how many bytes they had. */
static uint32_t take_frames(struct client *c, const uint8_t *data, uint32_t size)
{
    uint32_t at = 0;
    while (c->state != CLOSED && size - at >= 2) {
        uint64_t length = data[at + 1] & 127;
        uint32_t head = 2;
        if (length == 126)
            head = 4;
        else if (length == 127)
            head = 10;
        if (size - at < head)
            break;
        if (head > 2) {
            length = 0;
            for (uint32_t i = 2; i < head; i++)
                length = length << 8 | data[at + i];
        }
        if (size - at < head + length)
            break;
        int opcode = data[at] & 15;
        if (opcode == 1 || opcode == 2)
            take_lines(c, data + at + head, length);
        else if (opcode == 9) {
            uint8_t pong[6] = {0x8a, 0x80, 0, 0, 0, 0};
            transmit(c, pong, 6);
        } else if (opcode == 8) {
            gone(c);
            return size;
        }
        at += head + length;
    }
    return at;
}

static void keep(struct client *c, const uint8_t *data, uint32_t size)
{
    if (size > c->rest_room) {
        c->rest = realloc(c->rest, size);
        if (!c->rest)
            fail("memory");
        c->rest_room = size;
    }
    memmove(c->rest, data, size);
    c->rest_size = size;
}

static void readable(struct client *c)
{
    uint32_t size = c->rest_size;
    memcpy(buffer, c->rest, size);
    ssize_t got = recv(c->fd, buffer + size, BUFFER - size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        gone(c);
        return;
    }
    read_at = now();
    bytes += got;
    size += got;
    uint32_t at = 0;
    if (c->state == UPGRADING) {
        const uint8_t *end = memmem(buffer, size, "\r\n\r\n", 4);
        if (end) {
            if (memcmp(buffer, "HTTP/1.1 101", 12)) {
                fprintf(stderr, "load: refused: %.*s\n", 60, buffer);
                gone(c);
                return;
            }
            at = end + 4 - buffer;
            c->state = STEPPING;
            advance(c);
        } else {
            keep(c, buffer, size);
            return;
        }
    }
    at += take_frames(c, buffer + at, size - at);
    if (c->state != CLOSED)
        keep(c, buffer + at, size - at);
}

static void start(struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("socket");
    struct linger reset = {1, 0};
    int on = 1;
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (c >= clients + count - small) {
        int size = 4096;
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
    uint32_t address = (c - clients) / FROM_ONE_ADDRESS;
    if (address) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + address);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from))
            fail("bind");
    }
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        fail("connect");
    c->state = UPGRADING;
    c->rest_size = c->step = c->awaited = c->echoes = c->full = 0;
    c->next_step = c->handshake.at + c->handshake.size + 4;
    c->seq = c->seen;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(queue, EPOLL_CTL_ADD, c->fd, &event))
        fail("epoll_ctl");
    in_flight++;
}

static void writable(struct client *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        gone(c);
        return;
    }
    transmit(c, c->handshake.at, c->handshake.size);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(queue, EPOLL_CTL_MOD, c->fd, &event);
}

/* Handles what happens for at most `ms`; returns whether a command waits. */
static int turn(int ms)
{
    struct epoll_event events[EVENTS];
    int commands = 0, more = publish_due(), n = epoll_wait(queue, events, EVENTS, more ? 0 : ms);
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        if (c == NULL)
            commands = 1;
        else if (c == (struct client *)&timer) {
            uint64_t times;
            if (read(timer, &times, sizeof times) < 0 && errno != EAGAIN)
                fail("timer");
        } else if (c->state == CLOSED)
            continue;
        else if (c->state == UPGRADING && events[i].events & EPOLLOUT)
            writable(c);
        else {
            if (events[i].events & EPOLLOUT)
                send_unsent(c);
            if (events[i].events & ~EPOLLOUT && c->state != CLOSED)
                readable(c);
        }
        publish_due(); /* hundreds of sockets may be readable: it should not wait for all */
    }
    return commands;
}

static void open_all(void)
{
    int64_t began = now();
    opened = in_flight = next = 0;
    while (opened + lost < count) {
        while (in_flight < window && next < count)
            start(&clients[next++]);
        turn(100);
        if (now() - began > 180000000000LL)
            break;
    }
    printf("open %.6f %u %lu\n", (now() - began) / 1e9, opened, lost);
}

static uint64_t unacknowledged(void)
{
    return acknowledgement.size ? to_publish - acknowledged : to_publish - published;
}

static void command(char *line)
{
    unsigned long a = 0, b = 0;
    if (sscanf(line, "open %lu %lu", &a, &b) == 2) {
        window = a;
        small = b;
        open_all();
    } else if (!strncmp(line, "reset", 5)) {
        frames = bytes = gaps = lost = slowest = published = to_publish = acknowledged = 0;
        memset(delays, 0, sizeof delays);
        for (uint32_t i = 0; i < count; i++)
            clients[i].seq = 0;
        puts("reset");
    } else if (sscanf(line, "wait %lu %lu", &a, &b) == 2) {
        int64_t end = now() + (int64_t)b * 1000000;
        while ((frames < a || unacknowledged()) && !lost && now() < end)
            turn(20);
        printf("wait %lu %lu %lu %lu %lu\n", frames, bytes, gaps, lost, unacknowledged());
    } else if (sscanf(line, "publish %lu %lf", &a, &rate) == 2) {
        to_publish = published + a;
        publishing_since = now() - (rate ? (int64_t)(published * 1e9 / rate) : 0);
        puts("publish");
    } else if (!strncmp(line, "stop", 4)) {
        to_publish = published;
        printf("stop %lu\n", published);
    } else if (sscanf(line, "echo %lu", &a) == 1) {
        int64_t began = now();
        for (uint32_t i = 0; i < count; i++)
            if (clients[i].state == OPEN) {
                clients[i].echoes = a;
                echoing++;
                transmit(&clients[i], ping.at, ping.size);
            }
        while (echoing && now() - began < 120000000000LL)
            turn(100);
        printf("echo %.6f\n", (now() - began) / 1e9);
    } else if (!strncmp(line, "delays", 6)) {
        uint64_t total = 0;
        for (int i = 0; i < BUCKETS; i++)
            total += delays[i];
        printf("delays %lu %.0f %.0f %.0f %lu\n", total, percentile(.5, total),
               percentile(.99, total), percentile(.999, total), slowest);
    } else if (sscanf(line, "stall %lu", &a) == 1) {
        for (uint32_t i = count - a; i < count; i++)
            epoll_ctl(queue, EPOLL_CTL_DEL, clients[i].fd, NULL);
        puts("stall");
    } else if (!strncmp(line, "close", 5)) {
        for (uint32_t i = 0; i < count; i++)
            if (clients[i].state != CLOSED) {
                close(clients[i].fd);
                clients[i].state = CLOSED;
            }
        lost = 0;
        puts("close");
    } else {
        printf("unknown command %s", line);
        exit(1);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: load PORT SETUP\n", stderr);
        return 2;
    }
    port = atoi(argv[1]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int file = open(argv[2], O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status))
        fail(argv[2]);
    uint8_t *setup = malloc(status.st_size);
    for (off_t at = 0; at < status.st_size;) {
        ssize_t got = read(file, setup + at, status.st_size - at);
        if (got <= 0)
            fail("read");
        at += got;
    }
    close(file);
    const uint8_t *at = setup;
    count = take_number(&at);
    publishers = take_number(&at);
    ping = take_text(&at);
    pong = take_text(&at);
    growing = take_text(&at);
    publication = take_text(&at);
    acknowledgement = take_text(&at);
    recovered = take_text(&at);
    if (publishers && (publication.size < 126 || publication.size > PUBLICATION / 2))
        fail("publication");
    clients = calloc(count, sizeof *clients);
    for (uint32_t i = 0; i < count; i++) {
        struct client *c = clients + i;
        c->seen = take_number(&at);
        c->handshake = take_text(&at);
        c->steps = take_number(&at);
        for (uint32_t step = 0; step < c->steps; step++) {
            take_number(&at);
            take_text(&at);
            take_text(&at);
        }
        if (i < publishers && !(c->unsent = malloc(PUBLICATION)))
            fail("memory");
    }
    queue = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(queue, EPOLL_CTL_ADD, 0, &event);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    event.data.ptr = &timer;
    epoll_ctl(queue, EPOLL_CTL_ADD, timer, &event);
    static char line[256];
    uint32_t size = 0;
    for (;;) {
        if (!turn(1000))
            continue;
        ssize_t got = read(0, line + size, sizeof line - 1 - size);
        if (got <= 0)
            return 0;
        line[size += got] = 0;
        if (line[size - 1] == '\n') {
            size = 0;
            command(line);
        }
    }
}
