/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-net over vhost-user, from the driver's side and from the back end's: a thread of the test plays that, also one
 * that does not keep to the protocol. The whole way is real: socket, chardev, netdev, device.
 *
 * The back end works on addresses as they are: it has the process's memory.
 */
#include "base/fd.h"
#include "base/scratch.h"
#include "base/sock.h"
#include "chardev/chardev.h"
#include "devices/virtio/driver_testing.h"
#include "machine/backends.h"
#include "netdev/netdev.h"

#include <glib/gstdio.h>
#include <linux/memfd.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define HDR     12
#define TX_DATA (DRIVER_DATA + 0x40000)
#define WAIT_NS (60 * NS_PER_SEC)
#define F_ALL                                                                                      \
    (VIRTIO_F(VIRTIO_F_VERSION_1) | VIRTIO_F(VIRTIO_F_EVENT_IDX) | VIRTIO_F(VIRTIO_NET_F_CSUM) |   \
     1ULL << 30)

enum lie {
    HONEST,
    OLD_VIRTIO,
    LONG_REPLY,
    OTHER_REPLY,
    UNASKED,
    WITH_FD,
    BAD_RING,
    FAR_PLACE,
    REFUSES,
    ENDS_AT_ONCE,
    FEW_QUEUES,
    HALF_REPLY,
    FEWER_FEATURES,
    N_LIES
};

struct ring {
    uint64_t desc, used, avail;
    uint32_t size, place;
    int kick, call;
    bool enabled, ours;
};

struct back_end {
    int fd;
    enum lie lie;
    pthread_t thread;
    struct ring ring[8];
    _Atomic unsigned regions, starts, stops, mtu, frames;
    _Atomic bool ended;
};

struct fixture {
    struct driver *d;
    struct device *dev;
    struct netdev *n;
    struct chardev *c;
    char *folder, *path;
    struct back_end b;
};

/* --- the back end --- */

static void answer(struct back_end *b, uint32_t request, const void *payload, uint32_t len)
{
    uint32_t message[3 + 8] = {request, 5, len};
    struct iovec iov = {message, sizeof(uint32_t) * 3 + len};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    memcpy(message + 3, payload, len);
    if (b->lie == LONG_REPLY)
        message[2] = 0x7fffffff;
    if (b->lie == OTHER_REPLY)
        message[0]++;
    if (b->lie == HALF_REPLY)
        iov.iov_len = 7;
    if (b->lie == WITH_FD) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(c), &b->fd, sizeof(int));
    }
    if (sendmsg(b->fd, &msg, MSG_NOSIGNAL) < 0 || b->lie == HALF_REPLY)
        shutdown(b->fd, SHUT_RDWR);
}

/* Gives back what the driver has sent. */
static void serve(struct back_end *b, struct ring *r)
{
    uint16_t *avail = (uint16_t *)(uintptr_t)r->avail, *used = (uint16_t *)(uintptr_t)r->used;
    bool any = false;
    eventfd_drain(r->kick);
    while (r->ours && r->enabled && (uint16_t)r->place != guest_load_acquire(&avail[1])) {
        uint32_t *entry = (uint32_t *)((uint8_t *)used + 4 + 8 * (r->place % r->size));
        guest_store(&entry[0], (uint32_t)guest_load(&avail[2 + r->place % r->size]));
        guest_store(&entry[1], 0);
        r->place++;
        guest_store_release(&used[1], (uint16_t)r->place);
        b->frames++;
        any = true;
        guest_store((uint16_t *)((uint8_t *)used + 4 + 8 * r->size),
                    (uint16_t)r->place); /* notify us of the next */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    if (any)
        eventfd_signal(r->call);
}

static void keep_fd(int *to, int fd)
{
    fd_close_keep_errno(*to);
    *to = fd;
}

static void obey(struct back_end *b, uint32_t request, bool need_reply, const uint64_t *p, int fd)
{
    uint32_t index = (uint32_t)p[0], value = (uint32_t)(p[0] >> 32);
    struct ring *r = &b->ring[index % 8];
    uint64_t features = b->lie == OLD_VIRTIO       ? 1
                        : b->lie == FEWER_FEATURES ? F_ALL & ~1ULL
                                                   : F_ALL,
             protocol = 1 | 8 | 16, queues = b->lie == FEW_QUEUES ? 0 : 4, zero = 0,
             refusal = b->lie == REFUSES;
    switch (request) {
    case 1:
        answer(b, request, &features, 8);
        break;
    case 15:
        answer(b, request, &protocol, 8);
        break;
    case 17:
        answer(b, request, &queues, 8);
        break;
    case 5:
        b->regions = index;
        break;
    case 8:
        r->size = value;
        break;
    case 9:
        r->desc = p[1], r->used = p[2], r->avail = p[3];
        break;
    case 10:
        r->place = value;
        break;
    case 12:
        keep_fd(&b->ring[p[0] & 7].kick, fd), b->ring[p[0] & 7].ours = true;
        return;
    case 13:
        keep_fd(&b->ring[p[0] & 7].call, fd);
        return;
    case 18:
        r->enabled = value;
        b->starts += value && index == 1;
        if (value)
            serve(b, r);
        break;
    case 20:
        b->mtu = (unsigned)p[0];
        break;
    case 11: {
        const uint32_t state[2] = {b->lie == BAD_RING ? 63 : index,
                                   b->lie == FAR_PLACE ? r->place + 9999 : r->place};
        r->ours = false;
        b->stops++;
        answer(b, request, state, 8);
        break;
    }
    default:
        break;
    }
    if (need_reply)
        answer(b, request, refusal ? &refusal : &zero, 8);
    fd_close_keep_errno(fd);
}

static void one_fd(void *opaque, int fd)
{
    keep_fd(opaque, fd);
}

static bool read_whole(struct back_end *b, void *to, size_t len, int *ret_fd)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = sock_receive(b->fd, (uint8_t *)to + done, len - done, one_fd, ret_fd);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool one_message(struct back_end *b)
{
    uint32_t head[3];
    uint64_t payload[64] = {0};
    int fd = -1;
    if (!read_whole(b, head, sizeof(head), &fd))
        return false;
    g_assert_cmpuint(head[2], <=, sizeof(payload));
    g_assert_cmphex(head[1] & ~8u, ==, 1);
    if (!read_whole(b, payload, head[2], &fd))
        return false;
    obey(b, head[0], head[1] & 8, payload, fd);
    return true;
}

static void *play(void *opaque)
{
    struct back_end *b = opaque;
    uint64_t stray[2] = {5ULL << 32 | 1, 8};
    if (b->lie == UNASKED && write(b->fd, stray, sizeof(stray)) < 0)
        shutdown(b->fd, SHUT_RDWR);
    for (bool more = b->lie != ENDS_AT_ONCE; more;) {
        struct pollfd p[9] = {{.fd = b->fd, .events = POLLIN}};
        for (int i = 0; i < 8; i++)
            p[i + 1] =
                (struct pollfd){.fd = b->ring[i].ours ? b->ring[i].kick : -1, .events = POLLIN};
        poll(p, 9, -1);
        for (int i = 0; i < 8; i++)
            if (p[i + 1].revents & POLLIN)
                serve(b, &b->ring[i]);
        more = !p[0].revents || one_message(b);
    }
    shutdown(b->fd, SHUT_RDWR);
    b->ended = true;
    return NULL;
}

static void come(struct fixture *f, enum lie lie)
{
    f->b = (struct back_end){.fd = sock_connect_unix(f->path, false, NULL), .lie = lie};
    for (int i = 0; i < 8; i++)
        f->b.ring[i].kick = f->b.ring[i].call = -1;
    g_assert_cmpint(f->b.fd, >=, 0);
    g_assert_cmpint(pthread_create(&f->b.thread, NULL, play, &f->b), ==, 0);
}

static void go(struct fixture *f)
{
    shutdown(f->b.fd, SHUT_RDWR);
    pthread_join(f->b.thread, NULL);
    close(f->b.fd);
    for (int i = 0; i < 8; i++) {
        fd_close_keep_errno(f->b.ring[i].kick);
        fd_close_keep_errno(f->b.ring[i].call);
    }
}

/* --- the machine --- */

#define wait_for(f, condition)                                                                     \
    do {                                                                                           \
        int64_t end_ = loop_now_ns() + WAIT_NS;                                                    \
        while (!(condition)) {                                                                     \
            loop_once((f)->d->t->m.main_loop, 5);                                                  \
            g_assert_cmpint(loop_now_ns(), <, end_);                                               \
        }                                                                                          \
    } while (0)

static bool link_up(struct fixture *f)
{
    return driver_config(f->d, 6, 2) & VIRTIO_NET_S_LINK_UP;
}

static void setup(struct fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    f->folder = g_dir_make_tmp("ruche-vhost-XXXXXX", NULL);
    f->path = g_build_filename(f->folder, "s", NULL);
    f->d = driver_new();
    const struct chardev_option options[] = {{"path", f->path}, {"server", "on"}, {"wait", "off"}};
    f->c = chardev_new("socket", "c0", &(struct chardev_config){options, 3}, f->d->t->m.main_loop,
                       &error);
    g_assert_no_error(error);
    f->n = netdev_new("vhost-user", "net0", &(struct netdev_config){.chardev = f->c}, &error);
    g_assert_no_error(error);
    g_assert_true(backend_add(&f->d->t->m, BACKEND_NETDEV, "net0", f->n));
    f->dev = test_device(f->d->t, "virtio-net-pci", "netdev", "net0", "host_mtu", "1400", NULL);
    driver_bring_up(f->d, f->dev);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    driver_free_devices(f->d);
    netdev_free(f->n);
    chardev_free(f->c);
    driver_free(f->d);
    g_rmdir(f->folder);
    g_free(f->folder);
    g_free(f->path);
}

static void send_one(struct fixture *f)
{
    uint16_t head;
    driver_offer(f->d, 1, &(struct driver_buf){TX_DATA, HDR + 60, false}, 1);
    driver_kick(f->d, 1);
    wait_for(f, driver_poll(f->d, 1, &head, NULL));
}

static void test_life(struct fixture *f, gconstpointer data)
{
    g_assert_false(link_up(f));
    come(f, HONEST);
    wait_for(f, link_up(f));
    /* what both have: no segmentation, which the back end does not know */
    uint64_t features = driver_features(f->d);
    g_assert_true(features & VIRTIO_F(VIRTIO_NET_F_CSUM));
    g_assert_false(features & VIRTIO_F(VIRTIO_NET_F_HOST_TSO4));
    g_assert_true(features & VIRTIO_F(VIRTIO_NET_F_STATUS));
    driver_start(f->d, VIRTIO_F(VIRTIO_NET_F_CSUM), 2);
    wait_for(f, f->b.starts == 1);
    for (unsigned i = 0; i < 100; i++)
        send_one(f);
    g_assert_cmpuint(f->b.frames, ==, 100);
    /* stopped, the ring is the device's, at its place */
    device_stopped(f->dev, true);
    g_assert_cmpuint(f->b.stops, ==, 2);
    g_assert_cmpuint(f->d->v->queue[1].next_avail, ==, 100);
    g_assert_cmpuint(f->d->v->queue[1].next_used, ==, 100);
    device_stopped(f->dev, false);
    send_one(f);
    /* a reset by the driver ends when the rings are back */
    driver_set(f->d, 0x14, 0, 1);
    g_assert_cmpuint(driver_status(f->d), !=, 0);
    wait_for(f, driver_status(f->d) == 0);
    g_assert_cmpuint(f->b.stops, ==, 4);
    go(f);
    wait_for(f, !link_up(f));
}

static void test_comes_again(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 2);
    come(f, HONEST);
    for (unsigned i = 0; i < 20; i++)
        send_one(f);
    go(f);
    wait_for(f, !link_up(f));
    driver_offer(f->d, 1, &(struct driver_buf){TX_DATA, HDR + 60, false}, 1);
    driver_kick(f->d, 1);
    come(f, HONEST);
    wait_for(f, driver_poll(f->d, 1, NULL, NULL));
    g_assert_cmpuint(f->b.frames, ==, 1);
    send_one(f);
    g_assert_false(f->dev->broken);
    go(f);
}

static void test_memory(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 2);
    come(f, HONEST);
    send_one(f);
    g_assert_cmpuint(f->b.regions, ==, 0); /* the test's RAM is no memfd */
    autofd fd = memfd_create("more", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(fd, 0x10000), ==, 0);
    void *p = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct mem_region more;
    mem_region_init_ram(&more, "more", MEM_RAM, p, 0x10000, fd, 0);
    g_assert_cmpint(mem_region_add(f->d->t->m.memory, &more, 0x100000000, 0), ==, 0);
    wait_for(f, f->b.regions == 1);
    send_one(f);
    mem_region_remove(&more);
    wait_for(f, f->b.regions == 0);
    send_one(f);
    munmap(p, 0x10000);
    go(f);
}

/* The machine lives, its card has no link or is broken, and an honest one that comes next serves it. */
static void test_lies(struct fixture *f, gconstpointer data)
{
    for (enum lie lie = OLD_VIRTIO; lie < FEWER_FEATURES; lie++) {
        driver_set(f->d, 0x14, 0, 1);
        wait_for(f, driver_status(f->d) == 0);
        driver_start(f->d, 0, 2);
        come(f, lie);
        if (lie == BAD_RING || lie == FAR_PLACE) { /* it is found out at the end */
            send_one(f);
            device_stopped(f->dev, true);
            device_stopped(f->dev, false);
            g_assert_cmpint(f->dev->broken, ==, lie == FAR_PLACE);
            driver_set(f->d, 0x14, 0, 1);
            wait_for(f, driver_status(f->d) == 0);
        } else {
            wait_for(f, f->b.ended);
        }
        go(f);
        wait_for(f, !link_up(f));
        driver_set(f->d, 0x14, 0, 1);
        wait_for(f, driver_status(f->d) == 0);
        driver_start(f->d, 0, 2);
        come(f, HONEST);
        send_one(f);
        g_assert_false(f->dev->broken);
        go(f);
        wait_for(f, !link_up(f));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-vhost");
    g_test_add("/vhost/life", struct fixture, NULL, setup, test_life, teardown);
    g_test_add("/vhost/comes-again", struct fixture, NULL, setup, test_comes_again, teardown);
    g_test_add("/vhost/memory", struct fixture, NULL, setup, test_memory, teardown);
    g_test_add("/vhost/lies", struct fixture, NULL, setup, test_lies, teardown);
    return g_test_run();
}
