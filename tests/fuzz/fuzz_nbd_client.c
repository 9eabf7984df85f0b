/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a hostile server sends to our NBD client: from its greeting on, or (an odd first byte) in
 * answer to requests after a good handshake. Every request ends, and no byte outside of what it
 * asked for is touched.
 */
#include "base/fd.h"
#include "image/nbd/link.h"
#include "image/testbed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { CALLS = 4, ASKED = 4096, GUARD = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct bed *bed;
    const uint8_t *data;
    size_t size;
    struct nbd_link *link;
    int server; /* its end of the connection */
    bool said;
    unsigned running;
    struct fiber_queue ended;
    uint8_t buf[CALLS][GUARD + ASKED + GUARD];
} f;

static void call_fiber(void *opaque)
{
    static const uint16_t commands[CALLS] = { NBD_CMD_READ, NBD_CMD_READ, NBD_CMD_BLOCK_STATUS,
                                              NBD_CMD_WRITE };
    uint8_t *buf = opaque;
    unsigned i = (unsigned)(buf - f.buf[0]) / (unsigned)sizeof(f.buf[0]);
    struct iovec iov;
    struct nbd_call c = { .command = commands[i], .offset = i * ASKED, .len = ASKED };
    if (commands[i] != NBD_CMD_BLOCK_STATUS)
        c.data = vec_flat(&iov, buf + GUARD, ASKED);
    int rc = nbd_link_call(f.link, &c);
    if (rc == 0 && commands[i] == NBD_CMD_BLOCK_STATUS && (!c.extent_len || c.extent_len > ASKED))
        abort();
    f.running--;
    fiber_queue_wake_all(&f.ended);
}

static void say(void)
{
    if (f.size > 1 && send(f.server, f.data + 1, f.size - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
        errno != EAGAIN)
        abort();
    shutdown(f.server, SHUT_WR);
    f.said = true;
}

static void ask(void)
{
    memset(f.buf, 0x5a, sizeof(f.buf));
    for (unsigned i = 0; i < CALLS; i++) {
        f.running++;
        fiber_start(call_fiber, f.buf[i]);
    }
    if (!f.said)
        say(); /* now every request is there to be answered */
    while (f.running)
        fiber_queue_wait(&f.ended);
    for (unsigned i = 0; i < CALLS; i++) {
        for (unsigned k = 0; k < GUARD; k++) {
            if (f.buf[i][k] != 0x5a || f.buf[i][GUARD + ASKED + k] != 0x5a)
                abort();
        }
    }
}

static bool shake_hands(struct nbd_link *l, bool skipped)
{
    const struct nbd_ask wanted = { .where = "fuzz", .export = "x", .context = NBD_CONTEXT_BASE };
    g_autoptr(GError) error = NULL;
    if (skipped) {
        l->offer = (struct nbd_offer){ .size_bytes = CALLS * ASKED,
                                       .flags = NBD_FLAG_HAS_FLAGS,
                                       .structured = f.data[0] & 2,
                                       .has_context = true,
                                       .context_id = 1,
                                       .min_block = 1,
                                       .max_payload = NBD_PAYLOAD_MAX };
        return true;
    }
    bool good = nbd_negotiate(&l->ch, &wanted, &l->offer, &error);
    if (!good && !error)
        abort(); /* a refusal says why */
    if (good && (l->offer.size_bytes > IMAGE_SIZE_MAX || !is_power_of_2(l->offer.min_block) ||
                 !l->offer.max_payload))
        abort();
    return good;
}

static int meet(void *opaque)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    f.server = ends[1];
    f.said = false;
    f.link = nbd_link_new("fuzz");
    channel_init(&f.link->ch, f.bed->ctx, ends[0]);
    bool skipped = f.size && (f.data[0] & 1);
    if (!skipped)
        say();
    if (shake_hands(f.link, skipped))
        ask();
    nbd_link_goodbye(f.link);
    fd_close_keep_errno(fd_steal(&f.server));
    nbd_link_unref(f.link);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!f.bed)
        f.bed = bed_new();
    f.data = data;
    f.size = size;
    context_run(f.bed->ctx, meet, NULL);
    return 0;
}
