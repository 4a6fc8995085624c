// The floor: what a message to every client costs at the least with one write(2) each, and nothing else. An epoll
// server: GET upgrades, the body of any other request goes to every client as one text frame. No database, no Redis.
// Built by the benchmark itself: cc -O2 -o floor floor.c     Use: floor PORT
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SAY(fd, text) (write(fd, text, sizeof text - 1) < 0 ? perror("write") : (void)0)
static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char fine[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
static int clients[100000], many;
static char received[200000];
static unsigned char frame[sizeof received + 10];

static void to_all(const char *body, int size) {
  int head = 2;
  frame[0] = 0x81; frame[1] = size;
  if (size >= 65536) { frame[1] = 127; memset(frame + 2, 0, 5); frame[7] = size >> 16; frame[8] = size >> 8; frame[9] = size; head = 10; }
  else if (size >= 126) { frame[1] = 126; frame[2] = size >> 8; frame[3] = size; head = 4; }
  memcpy(frame + head, body, size);
  for (int i = 0; i < many; i++) if (write(clients[i], frame, head + size) < 0) continue;  // its read tells why
}

static void forget(int fd) {
  for (int i = 0; i < many; i++) if (clients[i] == fd) { clients[i] = clients[--many]; break; }
  close(fd);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, ep = epoll_create1(0);
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
  struct rlimit files; getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&here, sizeof here) || listen(listener, 4096)) { perror("listen"); return 1; }
  epoll_ctl(ep, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int due = epoll_wait(ep, events, 256, -1);
    for (int i = 0; i < due; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        fd = accept(listener, 0, 0); event.data.fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
        continue;
      }
      int got = read(fd, received, sizeof received - 1);
      if (got <= 0) { forget(fd); continue; }
      received[got] = 0;
      char *body = strstr(received, "\r\n\r\n");
      if (!strncmp(received, "GET ", 4)) { SAY(fd, upgrade); clients[many++] = fd; }
      else if (body) { body += 4; to_all(body, received + got - body); SAY(fd, fine); }
    }
  }
}
