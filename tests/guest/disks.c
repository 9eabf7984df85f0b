/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that writes to two disks for ever, so that any image of both taken at one moment can be
 * judged.
 *
 * Step n fills a sector of the first disk with n, waits for it, and then the same sector of the
 * second; sector 0 of a disk holds its last finished step. At every moment the first disk is at the
 * step of the second, or one ahead; and each sector holds the last step that was its own.
 * tests/system/disk_jobs.py judges.
 *
 * Spec      VIRTIO 1.2, 5.2.
 */
#include "lib/virtio.h"

#define BLK_OUT   1
#define BLK_FLUSH 4
#define SECTOR    512
#define SECTORS   8191 /* that take turns, from sector 1 on */
#define STRIDE    2654435761u

struct disk {
    struct virtio dev;
    struct vq queue;
    uint64_t capacity;
};
static struct disk disks[2];
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static uint8_t status;
static uint32_t *data;

static void request(struct disk *d, uint32_t type, uint64_t sector, uint32_t len)
{
    header.type = type;
    header.sector = sector;
    status = 0xff;
    struct vbuf with_data[] = { { &header, 16 }, { data, len }, { &status, 1 } };
    struct vbuf without[] = { { &header, 16 }, { &status, 1 } };
    vq_add(&d->queue, len ? with_data : without, len ? 2 : 1, 1);
    vq_kick(&d->queue);
    while (vq_get(&d->queue, NULL) < 0)
        __asm__ volatile("pause");
    if (*(volatile uint8_t *)&status)
        check(false, "request %u of sector %lu ends with status %u", type, sector,
              *(volatile uint8_t *)&status);
}

static void write_step(struct disk *d, uint64_t sector, uint32_t step)
{
    for (unsigned i = 0; i < SECTOR / 4; i++)
        data[i] = step;
    request(d, BLK_OUT, sector, SECTOR);
}

static void tell_capacity(struct disk *d, unsigned n)
{
    uint64_t now = *(volatile uint32_t *)d->dev.config |
                   (uint64_t) * (volatile uint32_t *)(d->dev.config + 4) << 32;
    if (now != d->capacity)
        print("disk %u has %lu sectors\n", n, now);
    d->capacity = now;
}

static bool begin(unsigned n)
{
    struct disk *d = &disks[n];
    if (!check(virtio_find(VIRTIO_ID_BLK, n, &d->dev), "disk %u is there", n) ||
        !check(virtio_begin(&d->dev, 1ul << 9), "disk %u agrees", n) ||
        !check(vq_init(&d->queue, &d->dev, 0, 8), "disk %u has its queue", n))
        return false;
    virtio_ready(&d->dev);
    return true;
}

void test_main(void)
{
    data = alloc_aligned(SECTOR, SECTOR);
    if (!begin(0) || !begin(1))
        finish();
    for (uint32_t step = 1;; step++) {
        uint64_t sector = 1 + (uint64_t)step * STRIDE % SECTORS;
        for (unsigned n = 0; n < 2; n++) {
            write_step(&disks[n], sector, step);
            write_step(&disks[n], 0, step);
            if (step % 64 == 0)
                request(&disks[n], BLK_FLUSH, 0, 0);
            tell_capacity(&disks[n], n);
        }
        if (step % 1024 == 0)
            print("step %u\n", step);
    }
}
