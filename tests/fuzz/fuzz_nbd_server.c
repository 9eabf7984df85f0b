/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a hostile client sends to our NBD server: the first byte says how far a good handshake goes
 * before it. Whatever comes, the server hangs up in the end, serves the next one, and the exported
 * node holds as many bytes as before.
 */
#include "base/fd.h"
#include "base/sock.h"
#include "image/dirty.h"
#include "image/memory.h"
#include "image/nbd/proto.h"
#include "image/nbd/server.h"
#include "image/testbed.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISK_BYTES (1 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct bed *bed;
    struct node *node;
    struct nbd_server *server;
    char *path;
    const uint8_t *data;
    size_t size;
} f;

static int open_disk(void *opaque)
{
    f.node = node_open_name(f.bed->graph, "memory://nbd", "raw", NULL, NODE_RW, NULL);
    if (!f.node || !dirty_new(f.node, 0, "b", 65536, NULL))
        abort();
    return 0;
}

static void start(void)
{
    f.bed = bed_new();
    memory_file_new("nbd", DISK_BYTES);
    context_run(f.bed->ctx, open_disk, NULL);
    f.path = g_strdup_printf("@ruche-fuzz-nbd-%d", getpid());
    struct nbd_server_config config = NBD_SERVER_CONFIG_INIT;
    config.unix_path = f.path;
    f.server = nbd_server_new(f.bed->ctx, &config, NULL);
    const char *bitmaps[] = { "b", NULL };
    struct nbd_export_config e = {
        .name = "x", .node = f.node, .writable = true, .bitmaps = bitmaps, .allocation_depth = true
    };
    if (!f.server || !nbd_server_add(f.server, &e, NULL))
        abort();
}

/* Greeting, structured replies, meta contexts, GO: the beginning of a good client's words. */
static void say_handshake(int fd, unsigned steps)
{
    static const uint8_t words[] =
        "\0\0\0\3"
        "IHAVEOPT\0\0\0\10\0\0\0\0"
        "IHAVEOPT\0\0\0\12\0\0\0\65\0\0\0\1x\0\0\0\2\0\0\0\17base:allocation"
        "\0\0\0\23qemu:dirty-bitmap:b"
        "IHAVEOPT\0\0\0\7\0\0\0\7\0\0\0\1x\0\0";
    static const size_t ends[] = { 0, 4, 20, 20 + 16 + 51, sizeof(words) - 1 };
    if (send(fd, words, ends[steps], MSG_NOSIGNAL) < 0)
        return;
}

static int converse(void *opaque)
{
    autofd fd = sock_connect_unix(f.path, true, NULL);
    if (fd < 0)
        abort();
    say_handshake(fd, f.size ? f.data[0] % 5 : 0);
    if (f.size > 1 && send(fd, f.data + 1, f.size - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
        errno != EPIPE && errno != EAGAIN)
        abort();
    shutdown(fd, SHUT_WR);
    static uint8_t answers[65536];
    for (;;) {
        ssize_t n = recv(fd, answers, sizeof(answers), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return 0;
        if (n < 0)
            context_wait_fd(f.bed->ctx, fd, POLLIN);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!f.server)
        start();
    f.data = data;
    f.size = size;
    context_run(f.bed->ctx, converse, NULL);
    if (nbd_server_client_count(f.server) || node_size(f.node) != DISK_BYTES)
        abort();
    return 0;
}
