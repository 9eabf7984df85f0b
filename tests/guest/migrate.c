/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that goes on writing while it is saved, sent and put back, and knows what its memory must hold.
 *
 * Step n looks whether a page holds what was written there last, in all of it, and writes n there. "pages=N" pages
 * take turns. With "disk" each step is also written to a disk, and one read back. Each "step N" on the console comes after
 * "every=N" steps; one that does not fit ends the guest with "broken".
 */
#include "lib/virtio.h"

#define BLK_IN  0
#define BLK_OUT 1
#define SECTOR  512
#define SECTORS 4096
#define STRIDE  2654435761u

static uint64_t *memory;
static uint64_t *last; /* by page */
static struct virtio disk;
static struct vq queue;
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static uint8_t status;
static uint64_t *sector_data;
static uint64_t *last_on_disk;

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

static void request(uint32_t type, uint64_t sector)
{
    header.type = type;
    header.sector = sector;
    status = 0xff;
    struct vbuf parts[] = { { &header, 16 }, { sector_data, SECTOR }, { &status, 1 } };
    vq_add(&queue, parts, type == BLK_OUT ? 2 : 1, type == BLK_OUT ? 1 : 2);
    vq_kick(&queue);
    while (vq_get(&queue, NULL) < 0)
        __asm__ volatile("pause");
    if (*(volatile uint8_t *)&status) {
        print("request %u of sector %lu ends with status %u\n", type, sector, *(volatile uint8_t *)&status);
        fatal("broken");
    }
}

static void touch_disk(uint64_t step)
{
    uint64_t to = step * STRIDE % SECTORS, from = (step * STRIDE + 7) % SECTORS;
    for (unsigned i = 0; i < SECTOR / 8; i++)
        sector_data[i] = step;
    request(BLK_OUT, to);
    last_on_disk[to] = step;
    request(BLK_IN, from);
    for (unsigned i = 0; i < SECTOR / 8; i++) {
        if (((volatile uint64_t *)sector_data)[i] != last_on_disk[from]) {
            print("step %lu: sector %lu has %lu, not %lu\n", step, from, sector_data[i], last_on_disk[from]);
            fatal("broken");
        }
    }
}

void test_main(void)
{
    uint64_t pages = cmdline_number("pages", 1024), every = cmdline_number("every", 20000);
    bool has_disk = cmdline_number("disk", 0);
    memory = (uint64_t *)(16ul << 20);
    last = memory + pages * (PAGE / 8);
    sector_data = alloc_aligned(SECTOR, SECTOR);
    last_on_disk = last + pages;
    if (has_disk) {
        if (!check(virtio_find(VIRTIO_ID_BLK, 0, &disk), "the disk is there") ||
            !check(virtio_begin(&disk, 0), "the disk agrees") || !check(vq_init(&queue, &disk, 0, 8), "it has its queue"))
            finish();
        virtio_ready(&disk);
    }
    for (uint64_t step = 1;; step++) {
        touch(step * STRIDE % pages, step);
        if (has_disk && !(step % 64))
            touch_disk(step / 64);
        if (!(step % every))
            print("step %lu\n", step);
    }
}
