// The load: one process that holds N WebSocket clients and P keep-alive HTTP connections, and takes the time of what
// arrives. Prints one line of JSON. Built by the benchmark itself: cc -O2 -o load load.c
//
// Use: load PORT [name=value …], in this order of events, each left out if its number is 0:
//   frozen=0      clients that never read, with the smallest receive buffer; then burst=0 requests, to 5 notes, of burst_size=100000
//   clients=0     clients that read; at_once=64 of them connect at the same time; path=/ws
//   hello=        text frame that each sends first; until= text in a frame that says it is in (else: the upgrade)
//   settle=0.5    seconds of rest
//   seconds=0     for so long (and at most `most` of them) it sends requests: method=PUT to http=/notes/%d/ (1..ids=100
//                 in turn) at `target` (PORT) over writers=1 connections; rate=0 a second, 0 is as fast as the answers
//                 come; flight=0: with at most so many of them not yet at every client
//   grace=5       seconds to wait for what is still on its way; patience=0: it stays so many seconds from the burst on
//   hold=0        1: prints the line, then stays until its standard input ends
// A request's body is a note whose content is "TS=<µs of CLOCK_MONOTONIC when it was due>;" padded to size=300 bytes.
// A delivery is a frame that contains TS=; its latency is from that moment to the return of the read that brought it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 << 10)  // bytes of one read
#define LONGEST (2 << 20)  // bytes of the longest frame or answer
#define BUCKETS 2048       // of a histogram: 32 for each power of two, so that a figure is right to 3 %

enum { CONNECTING, OPEN, FROZEN, CLOSED };
typedef struct { int fd, writer, state, len; char *rest; double due; int busy; } Peer;
typedef struct { long count[BUCKETS], total, most; } Times;

static int argument_count; static char **arguments;
static int ep, port, target, ids, size;
static const char *path, *hello, *until, *method, *http;
static char scratch[LONGEST + CHUNK + 1];
static Times deliveries, answers;
static int opened, caught_up, closed, errors, answered;
static double now_, last_delivery, last_answer;

static double clock_now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
static const char *text(const char *name, const char *otherwise) {
  size_t n = strlen(name);
  for (int i = 2; i < argument_count; i++)
    if (!strncmp(arguments[i], name, n) && arguments[i][n] == '=') return arguments[i] + n + 1;
  return otherwise;
}
static double number(const char *name, double otherwise) { const char *t = text(name, NULL); return t ? atof(t) : otherwise; }
static void fail(const char *what) { fprintf(stderr, "load: %s: %s\n", what, strerror(errno)); exit(1); }

static void took(Times *t, double seconds) {
  long v = seconds > 0 ? (long)(seconds * 1e6) : 0;
  int power = v < 64 ? 0 : 63 - __builtin_clzl(v) - 5, bucket = v < 64 ? (int)v : 32 + power * 32 + (int)((v >> power) & 31);
  t->count[bucket < BUCKETS ? bucket : BUCKETS - 1]++; t->total++;
  if (v > t->most) t->most = v;
}
static double quantile(const Times *t, double share) {  // milliseconds
  long left = (long)(t->total * share);
  for (int b = 0; b < BUCKETS; b++) {
    if ((left -= t->count[b]) >= 0) continue;
    int power = b < 64 ? 0 : (b - 32) / 32; long v = b < 64 ? b : (32L + (b - 32) % 32) << power;
    return (v + (1L << power) / 2.0) / 1e3;
  }
  return t->most / 1e3;
}

static int dial(int to, int receive) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1; struct linger reset = {1, 0};
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0) fail("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);  // no port stays taken for the runs to come
  if (receive) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive);
  if (connect(fd, (void *)&a, sizeof a)) fail("connect");
  return fd;
}
static void put(int fd, const void *p, long n) {
  for (long done = 0; done < n;) {
    long k = write(fd, (const char *)p + done, n - done);
    if (k > 0) { done += k; continue; }
    if (errno != EAGAIN) return;  // the read tells that the other side has gone
    struct pollfd wait = {fd, POLLOUT, 0}; if (poll(&wait, 1, 2000) < 1) return;
  }
}
static void say(int fd, int op, const char *s) {  // at most 125 bytes, masked with zeros
  unsigned char h[6 + 125] = {0x80 | op}; int n = strlen(s);
  h[1] = 0x80 | n; memcpy(h + 6, s, n); put(fd, h, 6 + n);
}
static void watch(Peer *p, int how, int events) {
  struct epoll_event e = {.events = events, .data.ptr = p}; epoll_ctl(ep, how, p->fd, &e);
}
static void start_client(Peer *p, int frozen) {
  char request[1024];
  p->fd = dial(port, frozen ? 2048 : 0); p->state = CONNECTING; p->busy = frozen;
  put(p->fd, request, snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Origin: http://127.0.0.1:%d\r\n\r\n", path, port, port));
  fcntl(p->fd, F_SETFL, O_NONBLOCK); watch(p, EPOLL_CTL_ADD, EPOLLIN);
}
static void start_writer(Peer *p) {
  p->fd = dial(target, 0); p->writer = 1; p->state = OPEN;
  fcntl(p->fd, F_SETFL, O_NONBLOCK); watch(p, EPOLL_CTL_ADD, EPOLLIN);
}
static void in(Peer *p) {
  opened++; p->state = p->busy ? FROZEN : OPEN;
  if (p->busy) watch(p, EPOLL_CTL_MOD, EPOLLRDHUP);
}
static void arrived(Peer *p, int op, char *frame, long n) {
  if (op == 9) say(p->fd, 10, "");
  else if (op == 1 && n == 1 && *frame == '2') say(p->fd, 1, "3");  // the ping of Engine.IO
  else if (p->state == CONNECTING) { if (memmem(frame, n, until, strlen(until))) in(p); else caught_up++; }
  else {
    char *stamp = memmem(frame, n, "TS=", 3); long at = 0;
    if (!stamp) return;
    for (stamp += 3; stamp < frame + n && *stamp >= '0' && *stamp <= '9'; stamp++) at = at * 10 + *stamp - '0';
    took(&deliveries, now_ - at / 1e6); last_delivery = now_;
  }
}
static long frames(Peer *p, char *data, long end) {  // takes whole frames apart, tells how many bytes they were
  long at = 0;
  for (;;) {
    unsigned char *b = (unsigned char *)data + at; long have = end - at, head = 2, n;
    if (have < 2) return at;
    n = b[1] & 127;
    if (n == 126) { if (have < 4) return at; n = b[2] << 8 | b[3]; head = 4; }
    else if (n == 127) { if (have < 10) return at; n = 0; for (int i = 2; i < 10; i++) n = n << 8 | b[i]; head = 10; }
    if (n > LONGEST - 16) { fprintf(stderr, "load: a frame of %ld bytes\n", n); exit(1); }
    if (have < head + n) return at;
    arrived(p, b[0] & 15, data + at + head, n); at += head + n;
  }
}
static long upgrade(Peer *p, char *data, long end) {
  char *head = memmem(data, end, "\r\n\r\n", 4);
  if (!head) return 0;
  if (memcmp(data, "HTTP/1.1 101", 12)) { fprintf(stderr, "load: no upgrade: %.300s\n", data); exit(1); }
  p->due = 1;  // upgraded
  if (*hello) say(p->fd, 1, hello);
  if (!*until) in(p);
  return head + 4 - data;
}
static long answer(Peer *p, char *data, long end) {
  char *head = memmem(data, end, "\r\n\r\n", 4), *length; data[end] = 0;
  if (!head) return 0;
  head += 4; length = strcasestr(data, "\r\ncontent-length:");
  if (length && length < head ? end < head - data + atol(length + 17) : end < 5 || memcmp(data + end - 5, "0\r\n\r\n", 5)) return 0;
  if (memcmp(data, "HTTP/1.1 2", 10) && !errors++) fprintf(stderr, "load: %.300s\n", data);
  p->busy = 0; answered++; last_answer = now_; took(&answers, now_ - p->due);
  return end;
}
static void gone(Peer *p) {
  if (p->writer && p->busy) { fprintf(stderr, "load: the server closed a connection\n"); exit(1); }
  if (p->writer) { close(p->fd); start_writer(p); return; }  // some close what rests
  if (p->state == CONNECTING) { fprintf(stderr, "load: closed before it was in\n"); exit(1); }
  if (p->state != FROZEN) closed++;
  p->state = CLOSED; close(p->fd);
}
static void readable(Peer *p) {
  long used = 0, end; if (p->len) memcpy(scratch, p->rest, p->len);
  long got = read(p->fd, scratch + p->len, CHUNK);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) { gone(p); return; }
  now_ = clock_now(); end = p->len + got;
  if (p->writer) used = answer(p, scratch, end);
  else {
    if (!p->due) used = upgrade(p, scratch, end);
    if (p->due && p->state != FROZEN) used += frames(p, scratch + used, end - used);
  }
  p->len = end - used;
  if (p->len > LONGEST) { fprintf(stderr, "load: an answer is too long\n"); exit(1); }
  if (p->len) { p->rest = realloc(p->rest, p->len); memcpy(p->rest, scratch + used, p->len); }
}
static int turn(double seconds) {  // false once standard input has ended
  struct epoll_event events[512]; int more = 1;
  int k = epoll_wait(ep, events, 512, seconds <= 0 ? 0 : seconds < 0.001 ? 1 : (int)(seconds * 1e3));
  for (int i = 0; i < k; i++) {
    Peer *p = events[i].data.ptr; char byte;
    if (!p) { if (read(0, &byte, 1) <= 0) more = 0; }
    else if (p->state == CLOSED) continue;
    else if (p->state == FROZEN) gone(p);
    else readable(p);
  }
  return more;
}
static double connect_all(Peer *peers, int many, int frozen, int at_once, double limit) {
  double start = clock_now(); int before = opened;
  for (int next = 0; opened - before < many;) {
    while (next < many && next - (opened - before) < at_once) start_client(peers + next++, frozen);
    turn(0.1);
    if (clock_now() - start > limit) { errno = ETIMEDOUT; fail("not all clients are in"); }
  }
  return clock_now() - start;
}
static void request(Peer *w, int turn_, double due, int bytes) {
  static char content[LONGEST / 2], body[LONGEST / 2 + 100], head[1024]; static int filled;
  const char *mark = strstr(http, "%d"); char where[300]; int n = 0, k;
  if (bytes > filled) { memset(content, 'x', bytes); filled = bytes; }
  k = snprintf(content, 64, "TS=%.0f;", due * 1e6); content[k] = 'x';
  if (*method != 'G') n = snprintf(body, sizeof body, "{\"title\":\"hello\",\"description\":\"world\",\"content\":\"%.*s\"}", bytes, content);
  if (mark) snprintf(where, sizeof where, "%.*s%d%s", (int)(mark - http), http, turn_ % ids + 1, mark + 2);
  else snprintf(where, sizeof where, "%s", http);
  k = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, where, port, n);
  w->busy = 1; w->due = due; memmove(body + k, body, n); memcpy(body, head, k); put(w->fd, body, k + n);
}

int main(int argc, char **argv) {
  argument_count = argc; arguments = argv; signal(SIGPIPE, SIG_IGN);
  if (argc < 2) { fprintf(stderr, "see the head of load.c\n"); return 2; }
  port = atoi(argv[1]); path = text("path", "/ws"); hello = text("hello", ""); until = text("until", "");
  method = text("method", "PUT"); http = text("http", "/notes/%d/"); target = number("target", port); ids = number("ids", 100); size = number("size", 300);
  int frozen = number("frozen", 0), clients = number("clients", 0), at_once = number("at_once", 64), writers = number("writers", 1);
  int flight = number("flight", 0), burst = number("burst", 0);
  double seconds = number("seconds", 0), rate = number("rate", 0), grace = number("grace", 5), patience = number("patience", 0);
  double limit = number("limit", 60), burst_at = 0; long most = number("most", 1e9), sent = 0, want;
  struct rlimit files; getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files);
  Peer *peers = calloc(frozen + clients + writers, sizeof *peers), *first = peers + frozen + clients; ep = epoll_create1(0);

  if (frozen) connect_all(peers, frozen, 1, at_once, limit);
  for (int i = 0; seconds > 0 && i < writers; i++) start_writer(first + i);
  for (int i = 0; i < burst; i++) {
    request(first, i % 5, clock_now(), number("burst_size", 100000));
    for (double t = clock_now(); first->busy && clock_now() < t + 10;) turn(0.1);
  }
  burst_at = clock_now();
  double connecting = clients ? connect_all(peers + frozen, clients, 0, at_once, limit) : 0;
  for (double t = clock_now(), rest = number("settle", 0.5); clock_now() < t + rest;) turn(0.05);

  memset(&deliveries, 0, sizeof deliveries); memset(&answers, 0, sizeof answers); answered = errors = 0;
  double start = clock_now(), stop = start + seconds; last_delivery = last_answer = start;
  while (seconds > 0 && sent < most) {
    double t = clock_now(), due = rate > 0 ? start + sent / rate : t, wait = stop - t;
    if (t >= stop || (rate > 0 && due >= stop)) break;
    if (rate > 0 && due > t) wait = due - t;
    else if (!flight || deliveries.total >= clients * (sent - flight + 1))
      for (int i = 0; i < writers; i++) if (!first[i].busy) { request(first + i, sent++, due, size); wait = 0; break; }
    turn(wait);
  }
  want = (long)clients * sent;
  for (double t = clock_now(); seconds > 0 && clock_now() < t + grace && (answered < sent || deliveries.total < want);) turn(0.05);
  while (patience > 0 && clock_now() < burst_at + patience) turn(0.05);  // no FIN comes past what is unread

  double delivering = last_delivery - start, writing = last_answer - start;
  printf("{\"clients\": %d, \"connects\": %.1f, \"closed\": %d, \"requests\": %d, \"sent\": %ld, \"errors\": %d, \"requests_per_second\": %.1f, "
    "\"request_p50\": %.3f, \"request_p99\": %.3f, \"delivered\": %ld, \"expected\": %ld, \"deliveries\": %.1f, \"p50\": %.3f, \"p99\": %.3f, "
    "\"caught_up\": %d, \"burst_at\": %.3f}\n",
    clients, connecting > 0 ? clients / connecting : 0, closed, answered, sent, errors, writing > 0 ? answered / writing : 0,
    quantile(&answers, 0.5), quantile(&answers, 0.99), deliveries.total, want, delivering > 0 ? deliveries.total / delivering : 0,
    quantile(&deliveries, 0.5), quantile(&deliveries, 0.99), caught_up, burst_at);
  fflush(stdout);
  struct epoll_event input = {.events = EPOLLIN};
  for (int open = number("hold", 0) && !epoll_ctl(ep, EPOLL_CTL_ADD, 0, &input); open;) open = turn(1);
  return 0;
}
