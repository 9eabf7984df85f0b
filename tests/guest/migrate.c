/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that goes on writing while it is saved, sent and put back, and knows what its memory must hold.
 *
 * Step n looks whether a page holds what was written there last, in all of it, and writes n there. "pages=N" pages
 * take turns. With "disk=N" sectors of a disk are written and read back with each 64th step, up to N requests at a time:
 * each must end once, and what is read must be what was written last. Each "step N" on the console comes after "every=N"
 * steps; one that does not fit ends the guest with "broken". With "resets=1" the guest resets the machine after each.
 */
#include "lib/virtio.h"

#define BLK_IN  0
#define BLK_OUT 1
#define SECTOR  512
#define SECTORS 4096
#define DEPTH   32
#define STRIDE  2654435761u

static uint64_t *memory;
static uint64_t *last; /* by page */
static struct virtio disk;
static struct vq queue;
static struct slot {
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    uint8_t status;
    bool busy;
    uint64_t step, *data;
} slots[DEPTH];
static struct slot *by_head[VQ_MAX];
static uint64_t *last_on_disk; /* by sector */
static unsigned depth;

static void touch(uint64_t page, uint64_t step)
{
    volatile uint64_t *p = memory + page * (PAGE / 8);
    for (unsigned i = 0; i < PAGE / 8; i += 8) {
        if (p[i] != last[page]) {
            print("step %lu: page %lu has %lu at %u, not %lu\n", step, page, p[i], i, last[page]);
            fatal("broken");
        }
        p[i] = step;
    }
    last[page] = step;
}

/* A request has ended: what it wrote is there from now on, what it read was there when it began. */
static void judge(struct slot *s)
{
    uint64_t sector = s->header.sector;
    if (*(volatile uint8_t *)&s->status) {
        print("request %u of sector %lu ends with status %u\n", s->header.type, sector, *(volatile uint8_t *)&s->status);
        fatal("broken");
    }
    for (unsigned i = 0; i < SECTOR / 8 && s->header.type == BLK_IN; i++) {
        if (((volatile uint64_t *)s->data)[i] != last_on_disk[sector]) {
            print("sector %lu has %lu, not %lu\n", sector, s->data[i], last_on_disk[sector]);
            fatal("broken");
        }
    }
    if (s->header.type == BLK_OUT)
        last_on_disk[sector] = s->step;
}

static void reap(void)
{
    int head = vq_get(&queue, NULL);
    if (head < 0) {
        pause();
        return;
    }
    struct slot *s = by_head[head % VQ_MAX];
    if (!s || !s->busy)
        fatal("a request that is not there has ended: broken");
    by_head[head % VQ_MAX] = NULL;
    s->busy = false;
    judge(s);
}

/* Is anything under way there, or is there no room? */
static bool must_wait(uint64_t sector, struct slot **ret_free)
{
    bool taken = false;
    *ret_free = NULL;
    for (unsigned i = 0; i < depth; i++) {
        taken |= slots[i].busy && slots[i].header.sector == sector;
        if (!slots[i].busy)
            *ret_free = &slots[i];
    }
    return taken || !*ret_free;
}

static void request(uint32_t type, uint64_t sector, uint64_t step)
{
    struct slot *s;
    while (must_wait(sector, &s))
        reap();
    s->header.type = type;
    s->header.sector = sector;
    s->status = 0xff;
    s->busy = true;
    s->step = step;
    for (unsigned i = 0; i < SECTOR / 8; i++)
        s->data[i] = type == BLK_OUT ? step : ~0ul;
    struct vbuf parts[] = { { &s->header, 16 }, { s->data, SECTOR }, { &s->status, 1 } };
    int head = vq_add(&queue, parts, type == BLK_OUT ? 2 : 1, type == BLK_OUT ? 1 : 2);
    if (head < 0 || by_head[head % VQ_MAX])
        fatal("the queue has a wrong place: broken");
    by_head[head % VQ_MAX] = s;
    vq_kick(&queue);
}

static void touch_disk(uint64_t step)
{
    request(BLK_OUT, step * STRIDE % SECTORS, step);
    request(BLK_IN, (step * STRIDE + 7) % SECTORS, step);
    request(BLK_IN, (step - step % 5) * STRIDE % SECTORS, step); /* one of those written just now */
}

static bool begin_disk(void)
{
    depth = depth < DEPTH ? depth : DEPTH;
    for (unsigned i = 0; i < depth; i++)
        slots[i].data = alloc_aligned(SECTOR, SECTOR);
    if (!check(virtio_find(VIRTIO_ID_BLK, 0, &disk), "the disk is there") ||
        !check(virtio_begin(&disk, 0), "the disk agrees") ||
        !check(vq_init(&queue, &disk, 0, 128), "it has its queue"))
        return false;
    virtio_ready(&disk);
    return true;
}

void test_main(void)
{
    uint64_t pages = cmdline_number("pages", 1024), every = cmdline_number("every", 20000);
    bool resets = cmdline_number("resets", 0);
    memory = (uint64_t *)(16ul << 20);
    last = memory + pages * (PAGE / 8);
    last_on_disk = last + pages;
    depth = (unsigned)cmdline_number("disk", 0);
    if (depth && !begin_disk())
        finish();
    for (uint64_t step = 1;; step++) {
        touch(step * STRIDE % pages, step);
        if (depth && !(step % 64))
            touch_disk(step / 64);
        if (step % every)
            continue;
        print("step %lu\n", step);
        if (resets) {
            out8(0xcf9, 6);
            fatal("there is life after a reset: broken");
        }
    }
}
