/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtio devices driven as a kernel would: rings of both kinds, indirect tables, interrupts by INTx
 * and MSI-X.
 *
 * Spec      VIRTIO 1.2, 5.1 (net), 5.2 (block), 5.3 (console), 5.4 (entropy).
 */
#include "lib/virtio.h"

#define V_MSIX 0x90
#define V_LINE 0x91

#define BLK_IN 0
#define BLK_OUT 1
#define BLK_FLUSH 4
#define BLK_GET_ID 8
#define BLK_DISCARD 11
#define BLK_WRITE_ZEROES 13
#define F_BLK_FLUSH (1ul << 9)
#define F_BLK_DISCARD (1ul << 13)
#define F_BLK_WRITE_ZEROES (1ul << 14)
#define SECTOR 512

static struct virtio blk;
static struct vq bq;
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static uint8_t status;
static uint8_t *data;

/* One request, polled. The status byte; 0xff when nothing came. */
static unsigned request(uint32_t type, uint64_t sector, uint32_t len, bool indirect,
                        uint32_t *ret_len)
{
    static struct vdesc table[3] __attribute__((aligned(16)));
    bool from_device = type == BLK_IN || type == BLK_GET_ID;
    header.type = type;
    header.sector = sector;
    status = 0xff;
    struct vbuf with_data[] = { { &header, 16 }, { data, len }, { &status, 1 } };
    struct vbuf without[] = { { &header, 16 }, { &status, 1 } };
    const struct vbuf *bufs = len ? with_data : without;
    unsigned out = len && !from_device ? 2 : 1, in = len && from_device ? 2 : 1;
    int head = indirect ? vq_add_indirect(&bq, table, bufs, out, in) : vq_add(&bq, bufs, out, in);
    vq_kick(&bq);
    int got = vq_wait(&bq, ret_len, 5000);
    if (!check(head >= 0 && got == head, "request %u of sector %lu comes back (%d, %d)", type,
               sector, head, got))
        return 0xff;
    return *(volatile uint8_t *)&status;
}

static bool is_pattern(const uint8_t *p, uint32_t sector)
{
    for (unsigned i = 0; i < SECTOR / 4; i++) {
        if (((const uint32_t *)p)[i] != sector)
            return false;
    }
    return true;
}

static void blk_reads_and_writes(bool indirect)
{
    uint32_t len = 0;
    for (uint32_t s = 0; s < 5; s++) {
        memset(data, 0xee, 4 * SECTOR);
        check_eq(request(BLK_IN, s * 100, 2 * SECTOR, indirect, &len), 0, "the status of a read");
        check_eq(len, 2 * SECTOR + 1, "bytes written by a read");
        check(is_pattern(data, s * 100) && is_pattern(data + SECTOR, s * 100 + 1),
              "sector %u's contents", s * 100);
    }
    memset(data, 0x77, SECTOR);
    check_eq(request(BLK_OUT, 1000, SECTOR, indirect, &len), 0, "the status of a write");
    check_eq(len, 1, "bytes written by a write");
    check_eq(request(BLK_FLUSH, 0, 0, indirect, &len), 0, "the status of a flush");
    memset(data, 0, SECTOR);
    check_eq(request(BLK_IN, 1000, SECTOR, indirect, &len), 0, "the status of reading it back");
    check(data[0] == 0x77 && data[SECTOR - 1] == 0x77, "what was written comes back");
    for (unsigned i = 0; i < SECTOR / 4; i++)
        ((uint32_t *)data)[i] = 1000;
    request(BLK_OUT, 1000, SECTOR, indirect, &len);
}

static void blk_errors(void)
{
    uint64_t capacity = *(volatile uint32_t *)blk.config;
    check_eq(capacity, 2048, "the capacity in sectors");
    check_eq(request(BLK_IN, capacity, SECTOR, false, NULL), 1, "a read behind the end");
    check_eq(request(BLK_OUT, capacity - 1, 2 * SECTOR, false, NULL), 1, "a write over the end");
    check_eq(request(BLK_IN, ~0ull - 1, SECTOR, false, NULL), 1,
             "a read of the last sector there can be");
    check_eq(request(0x1234, 0, SECTOR, false, NULL), 2, "an unknown request");
    check_eq(request(BLK_IN, 0, SECTOR, false, NULL), 0, "and the device goes on");
    memset(data, 0, 64);
    check_eq(request(BLK_GET_ID, 0, 20, false, NULL), 0, "the status of GET_ID");
}

static void blk_zeroes(void)
{
    struct {
        uint64_t sector;
        uint32_t count, flags;
    } seg = { 1500, 4, 0 };
    if (blk.features & F_BLK_WRITE_ZEROES) {
        memcpy(data, &seg, 16);
        check_eq(request(BLK_WRITE_ZEROES, 0, 16, false, NULL), 0, "the status of WRITE_ZEROES");
        check_eq(request(BLK_IN, 1500, SECTOR, false, NULL), 0, "the read after it");
        check(is_pattern(data, 0), "zeroes");
        check_eq(request(BLK_IN, 1504, SECTOR, false, NULL), 0, "the read behind it");
        check(is_pattern(data, 1504), "the sector behind is whole");
    } else {
        skip("WRITE_ZEROES", "not offered");
    }
    if (blk.features & F_BLK_DISCARD) {
        seg.sector = 1600;
        memcpy(data, &seg, 16);
        check_eq(request(BLK_DISCARD, 0, 16, false, NULL), 0, "the status of DISCARD");
        seg.sector = 1u << 30;
        memcpy(data, &seg, 16);
        check(request(BLK_DISCARD, 0, 16, false, NULL) == 1, "DISCARD behind the end");
    } else {
        skip("DISCARD", "not offered");
    }
}

/* Many requests at once, kicked once. */
static void blk_batch(void)
{
    enum { N = 16 };
    static struct {
        uint32_t type, reserved;
        uint64_t sector;
    } headers[N];
    static uint8_t done[N];
    uint8_t *bufs = alloc_aligned(N * SECTOR, SECTOR);
    unsigned n = 0;
    for (; n < N; n++) {
        headers[n].type = BLK_IN;
        headers[n].sector = n * 3;
        done[n] = 0xff;
        struct vbuf b[] = { { &headers[n], 16 }, { bufs + n * SECTOR, SECTOR }, { &done[n], 1 } };
        if (vq_add(&bq, b, 1, 2) < 0)
            break;
    }
    vq_kick(&bq);
    for (unsigned i = 0; i < n; i++)
        check(vq_wait(&bq, NULL, 5000) >= 0, "request %u of a batch of %u", i, n);
    bool ok = true;
    for (unsigned i = 0; i < n; i++)
        ok &= ((volatile uint8_t *)done)[i] == 0 && is_pattern(bufs + i * SECTOR, i * 3);
    check(ok, "what the batch read");
}

static bool blk_begin(uint64_t wanted)
{
    if (!check(virtio_begin(&blk, wanted), "the block device agrees on 0x%lx", wanted))
        return false;
    bool ok = check(vq_init(&bq, &blk, 0, 64), "queue 0 of the block device");
    virtio_ready(&blk);
    return ok;
}

static const struct {
    const char *name;
    uint64_t features;
} ring_kinds[] = {
    { "split", 0 },
    { "split with event index", F_EVENT_IDX },
    { "split with indirect tables", F_INDIRECT },
    { "packed", F_PACKED },
    { "packed with indirect tables", F_PACKED | F_INDIRECT },
    { "packed with event index", F_PACKED | F_EVENT_IDX },
};

static void test_blk(void)
{
    uint64_t offered = virtio_offered(&blk);
    for (size_t i = 0; i < ARRAY_COUNT(ring_kinds); i++) {
        if (ring_kinds[i].features & ~offered) {
            skip(ring_kinds[i].name, "not offered");
            continue;
        }
        print("block: %s\n", ring_kinds[i].name);
        if (!blk_begin(ring_kinds[i].features | F_BLK_FLUSH | F_BLK_DISCARD | F_BLK_WRITE_ZEROES))
            continue;
        blk_reads_and_writes(ring_kinds[i].features & F_INDIRECT);
        blk_batch();
        for (unsigned n = 0; n < 100; n++) /* around the ring */
            request(BLK_IN, n, SECTOR, false, NULL);
    }
    blk_errors();
    if (blk_begin(F_BLK_DISCARD | F_BLK_WRITE_ZEROES))
        blk_zeroes();
}

/* --- interrupts --- */

static volatile uint64_t msix_hits, line_hits;

static void on_msix(struct frame *f)
{
    msix_hits++;
    apic_eoi();
}

static void on_line(struct frame *f)
{
    if (*blk.isr & 1) /* reading lowers the line */
        line_hits++;
    apic_eoi();
}

static void queue_read(void)
{
    header.type = BLK_IN;
    header.sector = 1;
    struct vbuf bufs[] = { { &header, 16 }, { data, SECTOR }, { &status, 1 } };
    vq_add(&bq, bufs, 1, 2);
    vq_kick(&bq);
}

static void test_msix(void)
{
    trap_set(V_MSIX, on_msix);
    if (!check(virtio_begin(&blk, 0), "the block device begins again"))
        return;
    if (!check(pci_msix_set(&blk.pci, 1, apic_id(), V_MSIX), "MSI-X entry 1"))
        return;
    vq_init(&bq, &blk, 0, 64);
    vc_write(&blk, VC_QUEUE_SELECT, 2, 0);
    vc_write(&blk, VC_QUEUE_MSIX, 2, 1);
    check_eq(vc_read(&blk, VC_QUEUE_MSIX, 2), 1, "the queue's vector reads back");
    virtio_ready(&blk);
    for (uint64_t n = 1; n <= 10; n++) {
        queue_read();
        check(wait_for(&msix_hits, n, 5000), "MSI-X interrupt %lu", n);
        check(vq_wait(&bq, NULL, 1000) >= 0, "its request is done");
    }
    bq.avail[0] = 1; /* no interrupts, please */
    queue_read();
    check(vq_wait(&bq, NULL, 5000) >= 0, "a request without an interrupt");
    sti();
    delay_us(2000);
    cli();
    check_eq(msix_hits, 10, "interrupts while the driver wants none");
    uint8_t cap = pci_capability(&blk.pci, 0x11, 0);
    pci_write16(&blk.pci, cap + 2u, pci_read16(&blk.pci, cap + 2u) & 0x7fff);
    virtio_reset(&blk);
}

/* The IOAPIC pin of the device's INTx is not told without AML: all PCI pins are tried. */
static void test_intx(void)
{
    trap_set(V_LINE, on_line);
    for (unsigned pin = 16; pin < 24; pin++)
        ioapic_route(pin, (uint64_t)apic_id() << 56 | IOAPIC_LEVEL | IOAPIC_LOW | V_LINE);
    if (!blk_begin(0))
        return;
    pci_write16(&blk.pci, 4, pci_read16(&blk.pci, 4) & ~(1u << 10));
    for (uint64_t n = 1; n <= 10; n++) {
        queue_read();
        check(wait_for(&line_hits, n, 5000), "INTx interrupt %lu", n);
        check(vq_wait(&bq, NULL, 1000) >= 0, "its request is done");
    }
    pci_write16(&blk.pci, 4, (uint16_t)(pci_read16(&blk.pci, 4) | 1u << 10));
    sti(); /* what is still under way */
    delay_us(3000);
    cli();
    queue_read();
    check(vq_wait(&bq, NULL, 5000) >= 0, "a request with INTx disabled");
    sti();
    delay_us(2000);
    cli();
    check_eq(line_hits, 10, "interrupts while the command register disables them");
    for (unsigned pin = 16; pin < 24; pin++)
        ioapic_route(pin, IOAPIC_MASKED);
    virtio_reset(&blk);
}

/* --- the others --- */

static void test_rng(void)
{
    struct virtio d;
    static struct vq q;
    if (!check(virtio_find(VIRTIO_ID_RNG, 0, &d), "an entropy device"))
        return;
    check(virtio_begin(&d, 0) && vq_init(&q, &d, 0, 8), "the entropy device begins");
    virtio_ready(&d);
    uint8_t *buf = alloc_pages(1);
    uint64_t sum = 0;
    struct vbuf b = { buf, 256 };
    uint32_t len = 0;
    vq_add(&q, &b, 0, 1);
    vq_kick(&q);
    check(vq_wait(&q, &len, 5000) >= 0 && len > 0 && len <= 256, "%u random bytes", len);
    for (uint32_t i = 0; i < len; i++)
        sum += buf[i];
    check(sum > 0 && buf[256] == 0, "they are not all zero, and no more than were asked for");
    virtio_reset(&d);
}

static void test_console(void)
{
    struct virtio d;
    static struct vq rx, tx;
    if (!check(virtio_find(VIRTIO_ID_CONSOLE, 0, &d), "a console"))
        return;
    check(virtio_begin(&d, 0) && vq_init(&rx, &d, 0, 8) && vq_init(&tx, &d, 1, 8),
          "the console begins");
    virtio_ready(&d);
    static char text[] = "through the virtio console\n";
    struct vbuf b[] = { { text, 12 }, { text + 12, sizeof(text) - 13 } };
    vq_add(&tx, b, 2, 0);
    vq_kick(&tx);
    check(vq_wait(&tx, NULL, 5000) >= 0, "the console took the text");
    virtio_reset(&d);
}

#define NET_HEADER 12

/* An ARP request for the gateway of the user network, 10.0.2.2. */
static void fill_arp(uint8_t *p, const volatile uint8_t *mac)
{
    static const uint8_t head[] = { 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1 };
    memset(p, 0, NET_HEADER + 60);
    p += NET_HEADER;
    memset(p, 0xff, 6);
    for (int i = 0; i < 6; i++)
        p[6 + i] = p[22 + i] = mac[i];
    memcpy(p + 12, head, sizeof(head));
    memcpy(p + 28, "\x0a\x00\x02\x0f", 4);
    memcpy(p + 38, "\x0a\x00\x02\x02", 4);
}

static void test_net(void)
{
    struct virtio d;
    static struct vq rx, tx;
    if (!check(virtio_find(VIRTIO_ID_NET, 0, &d), "a network device"))
        return;
    check(virtio_begin(&d, 1ul << 5) && vq_init(&rx, &d, 0, 16) && vq_init(&tx, &d, 1, 16),
          "the network device begins");
    virtio_ready(&d);
    uint8_t *in = alloc_pages(1), *out = alloc_pages(1);
    fill_arp(out, d.config);
    struct vbuf b = { in, 2048 };
    vq_add(&rx, &b, 0, 1);
    vq_kick(&rx);
    b = (struct vbuf){ out, NET_HEADER + 60 };
    vq_add(&tx, &b, 1, 0);
    vq_kick(&tx);
    check(vq_wait(&tx, NULL, 5000) >= 0, "the request is sent");
    uint32_t len = 0;
    check(vq_wait(&rx, &len, 5000) >= 0, "an answer arrives");
    check(len >= NET_HEADER + 42, "its length is %u", len);
    check(in[NET_HEADER + 12] == 8 && in[NET_HEADER + 13] == 6 && in[NET_HEADER + 21] == 2,
          "it is an ARP reply");
    check_eq(memcmp(in + NET_HEADER + 28, "\x0a\x00\x02\x02", 4), 0, "from 10.0.2.2");
    check_eq(memcmp(in + NET_HEADER, (void *)d.config, 6), 0, "to our address");
    virtio_reset(&d);
}

void test_main(void)
{
    apic_enable();
    data = alloc_pages(2);
    if (check(virtio_find(VIRTIO_ID_BLK, 0, &blk), "a block device")) {
        test_blk();
        test_msix();
        test_intx();
    }
    test_rng();
    test_console();
    test_net();
}
