/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Load for bench/manager: speaks libvirt's protocol itself, so that the client costs next to nothing.
 *
 *   rpc_load SOCKET info NAME CONNECTIONS SECONDS CALLS
 *                                                   GetInfo, so many calls in flight on each connection; prints calls a second
 *   rpc_load - floor SECONDS [near]                 the same bytes, one call in flight, with a server that does nothing but answer:
 *                                                   anywhere, or on the client's processor; prints calls a second
 *   rpc_load SOCKET define FILE COUNT               defines COUNT machines of a template; prints seconds
 *   rpc_load SOCKET list COUNT | stats COUNT        ListAllDomains, GetAllDomainStats; prints seconds a call
 *   rpc_load SOCKET undefine FILE COUNT             by name; prints seconds
 *   rpc_load SOCKET create FILE                     CreateXML, then Destroy; prints seconds of the former
 *   rpc_load SOCKET ready SECONDS                   waits until the server opens a connection and lists
 *
 * In a template every "@N@" is the machine's number, six digits. Spec: libvirt's RPC at 9.0.0.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    OPEN = 1, CREATE_XML = 10, DEFINE_XML = 11, DESTROY = 12, GET_INFO = 16, LOOKUP_BY_NAME = 23, AUTH_LIST = 66,
    UNDEFINE_FLAGS = 231, LIST_ALL = 273, ALL_STATS = 344,
};

struct link {
    int fd;
    uint32_t serial;
    uint8_t *in;
    size_t in_len, in_room, used; /* used: of the last reply, at the begin */
    uint8_t out[1 << 16];
    size_t out_len;
};

static void fail(const char *what)
{
    fprintf(stderr, "rpc_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put32(struct link *l, uint32_t v)
{
    v = htonl(v);
    memcpy(l->out + l->out_len, &v, 4);
    l->out_len += 4;
}

static void put_bytes(struct link *l, const void *data, size_t len)
{
    memcpy(l->out + l->out_len, data, len);
    memset(l->out + l->out_len + len, 0, 3);
    l->out_len += (len + 3) & ~(size_t)3;
}

static void put_string(struct link *l, const char *text)
{
    put32(l, (uint32_t)strlen(text));
    put_bytes(l, text, strlen(text));
}

static void begin(struct link *l, uint32_t procedure)
{
    l->out_len = 0;
    put32(l, 0);
    put32(l, 0x20008086);
    put32(l, 1);
    put32(l, procedure);
    put32(l, 0);
    put32(l, ++l->serial);
    put32(l, 0);
}

static void send_call(struct link *l)
{
    uint32_t len = htonl((uint32_t)l->out_len);
    memcpy(l->out, &len, 4);
    for (size_t done = 0; done < l->out_len;) {
        ssize_t n = write(l->fd, l->out + done, l->out_len - done);
        if (n <= 0)
            fail("write");
        done += (size_t)n;
    }
}

static uint32_t word(const struct link *l, size_t at)
{
    uint32_t v;
    memcpy(&v, l->in + at, 4);
    return ntohl(v);
}

static void read_some(struct link *l, size_t want)
{
    while (l->in_len < want) {
        if (l->in_room < want) {
            l->in_room = want > 65536 ? want : 65536;
            l->in = realloc(l->in, l->in_room);
        }
        ssize_t n = read(l->fd, l->in + l->in_len, l->in_room - l->in_len);
        if (n <= 0)
            fail("the server closed the connection");
        l->in_len += (size_t)n;
    }
}

/* Is there a whole reply behind the last one? */
static bool has_more(const struct link *l)
{
    return l->in_len - l->used >= 4 && l->in_len - l->used >= word(l, l->used);
}

/* Reads one reply: true if it is good. What stands behind the header begins at byte 28 of l->in. */
static bool reply(struct link *l)
{
    l->in_len -= l->used;
    if (l->in_len)
        memmove(l->in, l->in + l->used, l->in_len);
    l->used = 0;
    read_some(l, 4);
    read_some(l, word(l, 0));
    l->used = word(l, 0);
    return word(l, 24) == 0;
}

static void must(struct link *l, const char *what)
{
    send_call(l);
    if (!reply(l)) {
        uint32_t len = l->in_len > 44 ? word(l, 40) : 0; /* code, domain, there is a message, its length */
        fprintf(stderr, "rpc_load: %s: error %u: %.*s\n", what, word(l, 28), (int)(len < 300 ? len : 300), (char *)l->in + 44);
        exit(1);
    }
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void open_link(struct link *l, int fd)
{
    *l = (struct link){ .fd = fd };
    begin(l, AUTH_LIST);
    must(l, "AuthList");
    begin(l, OPEN);
    put32(l, 1);
    put_string(l, "qemu:///system");
    put32(l, 0);
    must(l, "Open");
}

static void link_to(struct link *l, const char *path)
{
    int fd = connect_to(path);
    if (fd < 0)
        fail(path);
    open_link(l, fd);
}

/* The domain that the last reply names, as it will be sent. */
struct domain {
    uint8_t bytes[512];
    size_t len;
};

static void take_domain(const struct link *l, struct domain *d)
{
    d->len = 4 + ((word(l, 28) + 3) & ~3u) + 16 + 4;
    if (d->len > sizeof(d->bytes))
        fail("a domain's name is too long");
    memcpy(d->bytes, l->in + 28, d->len);
}

static void look_up(struct link *l, const char *name, struct domain *d)
{
    begin(l, LOOKUP_BY_NAME);
    put_string(l, name);
    must(l, "LookupByName");
    take_domain(l, d);
}

static long take_replies(struct link *l)
{
    long calls = 0;
    do {
        if (!reply(l))
            fail("GetInfo");
        calls++;
        send_call(l); /* the same bytes again */
    } while (has_more(l));
    return calls;
}

static int run_info(const char *path, const char *name, int count, double seconds, int in_flight)
{
    struct link *links = calloc((size_t)count, sizeof(*links));
    struct pollfd *fds = calloc((size_t)count, sizeof(*fds));
    struct domain d;
    long calls = 0;
    for (int i = 0; i < count; i++) {
        link_to(&links[i], path);
        fds[i] = (struct pollfd){ .fd = links[i].fd, .events = POLLIN };
    }
    look_up(&links[0], name, &d);
    double start = now();
    for (int i = 0; i < count; i++) {
        begin(&links[i], GET_INFO);
        put_bytes(&links[i], d.bytes, d.len);
        for (int k = 0; k < in_flight; k++)
            send_call(&links[i]);
    }
    for (; now() < start + seconds;) {
        if (poll(fds, (nfds_t)count, 1000) <= 0)
            fail("no answer");
        for (int i = 0; i < count; i++)
            if (fds[i].revents)
                calls += take_replies(&links[i]);
    }
    printf("%.0f\n", (double)calls / (now() - start));
    return 0;
}

/* Blocks, as a server would that has nothing else to do. */
static void serve_floor(int fd)
{
    char call[256];
    static const uint8_t answer[48] = {0, 0, 0, sizeof(answer)};
    while (read(fd, call, sizeof(call)) > 0)
        if (write(fd, answer, sizeof(answer)) < 0)
            break;
    exit(0);
}

static int run_floor(double seconds, bool near)
{
    int fds[2];
    long calls = 0;
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    if (near && sched_setaffinity(0, sizeof(here), &here))
        fail("affinity");
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
        fail("socketpair");
    if (!fork()) {
        close(fds[0]);
        serve_floor(fds[1]);
    }
    close(fds[1]);
    struct link l = {.fd = fds[0]};
    struct pollfd ready = {.fd = fds[0], .events = POLLIN};
    double start = now();
    begin(&l, GET_INFO);
    put_bytes(&l, (uint8_t[40]){0}, 40); /* as long as a domain */
    for (send_call(&l); now() < start + seconds; calls++) {
        if (poll(&ready, 1, 1000) <= 0 || !reply(&l))
            fail("no answer");
        send_call(&l);
    }
    printf("%.0f\n", (double)calls / (now() - start));
    return 0;
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    static char text[60000];
    if (!f)
        fail(path);
    text[fread(text, 1, sizeof(text) - 1, f)] = 0;
    fclose(f);
    return text;
}

static char *numbered(const char *template, int number)
{
    static char text[60000];
    char digits[16];
    snprintf(digits, sizeof(digits), "%06d", number);
    strcpy(text, template);
    for (char *at = text; (at = strstr(at, "@N@"));) {
        memmove(at + 6, at + 3, strlen(at + 3) + 1);
        memcpy(at, digits, 6);
    }
    return text;
}

static int run_define(const char *path, const char *file, int count)
{
    struct link l;
    const char *template = read_file(file);
    link_to(&l, path);
    double start = now();
    for (int i = 0; i < count; i++) {
        begin(&l, DEFINE_XML);
        put_string(&l, numbered(template, i));
        must(&l, "DefineXML");
    }
    printf("%.4f\n", now() - start);
    return 0;
}

/* The name in the template: what stands in <name>. */
static int run_undefine(const char *path, const char *file, int count)
{
    struct link l;
    struct domain d;
    char template[128] = "", *text = read_file(file), *name = strstr(text, "<name>");
    if (!name || sscanf(name, "<name>%127[^<]", template) != 1)
        fail("the template has no name");
    link_to(&l, path);
    double start = now();
    for (int i = 0; i < count; i++) {
        look_up(&l, numbered(template, i), &d);
        begin(&l, UNDEFINE_FLAGS);
        put_bytes(&l, d.bytes, d.len);
        put32(&l, 0);
        must(&l, "UndefineFlags");
    }
    printf("%.4f\n", now() - start);
    return 0;
}

static int run_query(const char *path, uint32_t procedure, int count)
{
    struct link l;
    link_to(&l, path);
    double start = now();
    for (int i = 0; i < count; i++) {
        begin(&l, procedure);
        put32(&l, procedure == LIST_ALL); /* results are wanted; or: no domains named, all */
        put32(&l, 0);
        if (procedure == ALL_STATS)
            put32(&l, 0);
        must(&l, "a query");
    }
    printf("%.6f\n", (now() - start) / count);
    return 0;
}

static int run_create(const char *path, const char *file)
{
    struct link l;
    struct domain d;
    link_to(&l, path);
    const char *xml = numbered(read_file(file), 999999);
    double start = now();
    begin(&l, CREATE_XML);
    put_string(&l, xml);
    put32(&l, 0);
    must(&l, "CreateXML");
    double took = now() - start;
    take_domain(&l, &d);
    begin(&l, DESTROY);
    put_bytes(&l, d.bytes, d.len);
    must(&l, "Destroy");
    printf("%.4f\n", took);
    return 0;
}

static int run_ready(const char *path, double seconds)
{
    for (double start = now(); now() < start + seconds; usleep(1000)) {
        int fd = connect_to(path);
        if (fd < 0)
            continue;
        struct link l;
        open_link(&l, fd);
        begin(&l, LIST_ALL);
        put32(&l, 1);
        put32(&l, 0);
        must(&l, "ListAllDomains");
        return 0;
    }
    fprintf(stderr, "rpc_load: %s: nobody answers\n", path);
    return 1;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 3 ? argv[2] : "";
    if (!strcmp(mode, "info") && argc == 7)
        return run_info(argv[1], argv[3], atoi(argv[4]), atof(argv[5]), atoi(argv[6]));
    if (!strcmp(mode, "floor"))
        return run_floor(atof(argv[3]), argc == 5);
    if (!strcmp(mode, "define") && argc == 5)
        return run_define(argv[1], argv[3], atoi(argv[4]));
    if (!strcmp(mode, "undefine") && argc == 5)
        return run_undefine(argv[1], argv[3], atoi(argv[4]));
    if (!strcmp(mode, "list"))
        return run_query(argv[1], LIST_ALL, atoi(argv[3]));
    if (!strcmp(mode, "stats"))
        return run_query(argv[1], ALL_STATS, atoi(argv[3]));
    if (!strcmp(mode, "create"))
        return run_create(argv[1], argv[3]);
    if (!strcmp(mode, "ready"))
        return run_ready(argv[1], atof(argv[3]));
    fputs("usage: rpc_load SOCKET info|floor|define|undefine|list|stats|create|ready ARGUMENTS; see its first lines\n", stderr);
    return 2;
}
