/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that means harm: broken rings, DMA to registers and to nowhere, rings rewritten while
 * they are read, all registers written at random. The machine must go on, and so must its devices
 * after a reset.
 *
 * what=     0 broken rings, 1 DMA, 2 garbage rings, 3 rewriting (two vCPUs), 4 registers and
 * configuration space, 5 ports and the board's own registers. seed=     Of the random numbers. ms=
 * how long the random ones go on.
 * The end   It says "hostile done" and halts: who runs it looks at the process from outside, and
 *           quits it.
 */
#include "lib/virtio.h"

#define BLK_IN 0
#define SPARE_RAM                                                                                  \
    0x2000000ul /* from here to the end of 64 MiB, and as much behind it, devices may scribble */
#define SECTOR 512

static struct virtio devices[8];
static unsigned device_count;
static uint64_t seed;
static uint64_t end_tsc;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static bool time_left(void)
{
    return rdtsc() < end_tsc;
}

static void set_time(uint64_t ms)
{
    end_tsc = rdtsc() + ms * tsc_khz();
}

static void find_devices(void)
{
    static const unsigned ids[] = { VIRTIO_ID_BLK, VIRTIO_ID_NET, VIRTIO_ID_CONSOLE,
                                    VIRTIO_ID_RNG };
    for (size_t i = 0; i < ARRAY_COUNT(ids); i++) {
        if (virtio_find(ids[i], 0, &devices[device_count]))
            device_count++;
    }
    check(device_count > 0, "there are devices to torment");
}

/* --- the device is well: the last word of each torment --- */

static bool blk_works(struct virtio *d)
{
    static struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    static volatile uint8_t status;
    static uint8_t data[SECTOR];
    static struct vq q;
    header.type = BLK_IN;
    header.sector = 7;
    status = 0xff;
    pci_enable(&d->pci, true);
    if (!virtio_begin(d, 0) || !vq_init(&q, d, 0, 16))
        return false;
    virtio_ready(d);
    struct vbuf bufs[] = { { &header, 16 }, { data, SECTOR }, { (void *)&status, 1 } };
    vq_add(&q, bufs, 1, 2);
    vq_kick(&q);
    return vq_wait(&q, NULL, 10000) >= 0 && status == 0;
}

static void check_alive(struct virtio *d, const char *after)
{
    virtio_reset(d);
    check_eq(vc_read(d, VC_STATUS, 1), 0, "status after a reset, after %s", after);
    if (d->id == VIRTIO_ID_BLK)
        check(blk_works(d), "the block device reads again after %s", after);
    virtio_reset(d);
}

/* --- broken rings --- */

static struct vq q, others[4];
static uint8_t *page;

static void broken_begin(struct virtio *d)
{
    virtio_begin(d, F_INDIRECT | F_EVENT_IDX);
    uint16_t target = d->id == VIRTIO_ID_CONSOLE || d->id == VIRTIO_ID_NET; /* the one that sends */
    for (uint16_t i = 0; i < 4; i++)
        vq_init(i == target ? &q : &others[i], d, i, 16);
    virtio_ready(d);
}

static void publish(uint16_t head, uint16_t idx)
{
    q.avail[2] = head;
    q.avail[1] = idx;
    vq_kick(&q);
}

static void self_loop(void)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 16, VD_NEXT, 0 };
    publish(0, 1);
}

static void long_loop(void)
{
    for (uint16_t i = 0; i < 16; i++)
        q.desc[i] = (struct vdesc){ (uint64_t)page, 16, VD_NEXT, (uint16_t)((i + 1) % 16) };
    publish(0, 1);
}

static void head_outside(void)
{
    publish(0xffff, 1);
}

static void next_outside(void)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 16, VD_NEXT, 4000 };
    publish(0, 1);
}

static void index_jump(void)
{
    publish(0, 30000);
}

static void indirect_in_indirect(void)
{
    struct vdesc *table = (struct vdesc *)page;
    table[0] = (struct vdesc){ (uint64_t)page, 64, VD_INDIRECT, 0 };
    q.desc[0] = (struct vdesc){ (uint64_t)page, 64, VD_INDIRECT, 0 };
    publish(0, 1);
}

static void indirect_odd_length(void)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 17, VD_INDIRECT, 0 };
    publish(0, 1);
}

static void indirect_huge(void)
{
    struct vdesc *table = (struct vdesc *)page;
    for (uint16_t i = 0; i < 256; i++)
        table[i] = (struct vdesc){ (uint64_t)page, 16, VD_NEXT, (uint16_t)((i + 1) % 256) };
    q.desc[0] = (struct vdesc){ (uint64_t)page, 0xfffffff0, VD_INDIRECT, 0 };
    publish(0, 1);
}

static void indirect_empty(void)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 0, VD_INDIRECT, 0 };
    publish(0, 1);
}

static void indirect_and_next(void)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 64, VD_INDIRECT | VD_NEXT, 1 };
    publish(0, 1);
}

static void empty_buffers(void)
{
    for (uint16_t i = 0; i < 16; i++)
        q.desc[i] = (struct vdesc){ 0, 0, i < 15 ? VD_NEXT : 0, (uint16_t)(i + 1) };
    publish(0, 1);
}

static void writable_first(void)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 16, VD_NEXT | VD_WRITE, 1 };
    q.desc[1] = (struct vdesc){ (uint64_t)page, 16, 0, 0 };
    publish(0, 1);
}

static void huge_buffer(void)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 16, VD_NEXT, 1 };
    q.desc[1] = (struct vdesc){ (uint64_t)page, 0xffffffff, VD_NEXT | VD_WRITE, 2 };
    q.desc[2] = (struct vdesc){ (uint64_t)page, 1, VD_WRITE, 0 };
    publish(0, 1);
}

/* The same 4 GiB again and again: what a device would have to hold grows without bound. */
static void huge_total(void)
{
    struct vdesc *table = (struct vdesc *)page;
    for (uint16_t i = 0; i < 255; i++)
        table[i] = (struct vdesc){ 0, 0x3000000, VD_NEXT | (i ? VD_WRITE : 0), (uint16_t)(i + 1) };
    table[255] = (struct vdesc){ (uint64_t)page, 1, VD_WRITE, 0 };
    q.desc[0] = (struct vdesc){ (uint64_t)page, 4096, VD_INDIRECT, 0 };
    publish(0, 1);
}

static void odd_queue(void)
{
    vc_write(q.dev, VC_QUEUE_ENABLE, 2, 1);
    *q.notify = 0xffff;
    *q.notify = 1000;
}

static const struct {
    const char *name;
    void (*fn)(void);
} broken[] = {
    { "a descriptor that names itself", self_loop },
    { "a loop of all descriptors", long_loop },
    { "a head outside the ring", head_outside },
    { "a next outside the ring", next_outside },
    { "an index that jumps", index_jump },
    { "an indirect table in an indirect table", indirect_in_indirect },
    { "an indirect table of an odd length", indirect_odd_length },
    { "an indirect table of 4 GiB", indirect_huge },
    { "an empty indirect table", indirect_empty },
    { "an indirect descriptor with a next", indirect_and_next },
    { "empty buffers", empty_buffers },
    { "a readable buffer behind a writable one", writable_first },
    { "a buffer of 4 GiB", huge_buffer },
    { "12 GiB in one chain", huge_total },
    { "notifications of queues that are not", odd_queue },
};

static void torment_broken(void)
{
    for (unsigned n = 0; n < device_count; n++) {
        for (size_t i = 0; i < ARRAY_COUNT(broken); i++) {
            broken_begin(&devices[n]);
            memset(page, 0, 4096);
            broken[i].fn();
            delay_us(2000);
            vq_kick(&q); /* once more: a broken device stays quiet */
            delay_us(500);
            check_alive(&devices[n], broken[i].name);
        }
    }
}

/* --- DMA --- */

static const uint64_t bad_addresses[] = {
    0xfee00000,   0xfec00000, 0xfed00000, 0xb0000000, 0xe0000000, 0xfffffff0,
    0x100000000,  0x3fffff0,  0x4000000,  1ull << 40, 1ull << 51, ~0ull,
    ~0ull - 4095, 0xa0000,    0xf0000,    0xfebff000,
};

static void bad_buffer(uint64_t at)
{
    q.desc[0] = (struct vdesc){ (uint64_t)page, 16, VD_NEXT, 1 };
    q.desc[1] = (struct vdesc){ at, 4096, VD_NEXT | VD_WRITE, 2 };
    q.desc[2] = (struct vdesc){ (uint64_t)page + 64, 1, VD_WRITE, 0 };
    publish(0, 1);
}

static void bad_header(uint64_t at)
{
    q.desc[0] = (struct vdesc){ at, 16, VD_NEXT, 1 };
    q.desc[1] = (struct vdesc){ (uint64_t)page, 4096, VD_NEXT | VD_WRITE, 2 };
    q.desc[2] = (struct vdesc){ at, 1, VD_WRITE, 0 };
    publish(0, 1);
}

static void bad_table(uint64_t at)
{
    q.desc[0] = (struct vdesc){ at, 64, VD_INDIRECT, 0 };
    publish(0, 1);
}

static void bad_ring(struct virtio *d, uint64_t at, unsigned which)
{
    virtio_begin(d, 0);
    vq_init(&q, d, 0, 16);
    vc_write(d, VC_QUEUE_ENABLE, 2, 0);
    vc_write(d, VC_QUEUE_DESC + 8 * which, 8, at);
    vc_write(d, VC_QUEUE_ENABLE, 2, 1);
    virtio_ready(d);
    publish(0, 1);
}

static void torment_dma(void)
{
    static void (*const ways[])(uint64_t) = { bad_buffer, bad_header, bad_table };
    for (unsigned n = 0; n < device_count; n++) {
        struct virtio *d = &devices[n];
        for (size_t i = 0; i < ARRAY_COUNT(bad_addresses); i++) {
            for (size_t w = 0; w < ARRAY_COUNT(ways); w++) {
                broken_begin(d);
                ways[w](bad_addresses[i]);
                delay_us(300);
                virtio_reset(d);
            }
            for (unsigned which = 0; which < 3; which++) {
                bad_ring(d, bad_addresses[i], which);
                delay_us(300);
                virtio_reset(d);
            }
            /* Its own registers as its buffer. */
            broken_begin(d);
            bad_buffer((uint64_t)d->common);
            delay_us(300);
            virtio_reset(d);
        }
        check_alive(d, "DMA to where none can be");
    }
}

/* --- garbage --- */

static void fill_random(void *p, size_t len)
{
    uint64_t *to = p;
    for (size_t i = 0; i < len / 8; i++)
        to[i] = rnd();
}

/* Random, but likely: addresses in RAM or near its end, small lengths, known flags, indexes in
 * range. */
static struct vdesc likely_desc(void)
{
    uint64_t r = rnd();
    return (struct vdesc){
        .addr = r & 1   ? (uint64_t)page + (rnd() & 0xfff)
                : r & 2 ? SPARE_RAM + (rnd() & 0x3ffffff)
                        : rnd(),
        .len = (uint32_t)(r & 4   ? rnd() & 0x1fff
                          : r & 8 ? rnd() & 15
                                  : rnd()),
        .flags = (uint16_t)(rnd() & (r & 16 ? 0xffff : 7)),
        .next = (uint16_t)(rnd() & (r & 32 ? 0xffff : 15)),
    };
}

static void scribble_ring(struct vq *v)
{
    for (unsigned i = 0; i < v->size; i++) {
        if (rnd() & 3)
            v->desc[i] = likely_desc();
    }
    for (unsigned i = 0; i < v->size; i++)
        v->avail[2 + i] = (uint16_t)(rnd() & (rnd() & 7 ? 15 : 0xffff));
    v->avail[0] = (uint16_t)rnd();
    v->avail[1] = (uint16_t)(v->avail[1] + (rnd() & (rnd() & 7 ? 15 : 0xffff)));
}

static void torment_garbage(uint64_t ms)
{
    for (unsigned n = 0; n < device_count; n++) {
        struct virtio *d = &devices[n];
        set_time(ms / device_count);
        while (time_left()) {
            virtio_begin(d, rnd() & ~(1ul << 33));
            for (uint16_t i = 0; i < 2; i++)
                vq_init(&others[i], d, i, 16);
            virtio_ready(d);
            for (int i = 0; i < 8; i++) {
                fill_random(page, 4096);
                struct vq *v = &others[rnd() & (others[1].dev ? 1 : 0)];
                scribble_ring(v);
                vq_kick(v);
                delay_us(rnd() & 63);
            }
        }
        check_alive(d, "garbage in its rings");
    }
}

/* --- rewriting by another vCPU --- */

static volatile bool rewriting;

static void rewrite(void *arg)
{
    uint64_t mine = 88172645463325252ull;
    while (rewriting) {
        struct vq *v = arg;
        mine ^= mine << 13;
        mine ^= mine >> 7;
        mine ^= mine << 17;
        volatile struct vdesc *e = &v->desc[mine & 15];
        switch (mine >> 8 & 7) {
        case 0:
            e->addr = mine;
            break;
        case 1:
            e->addr = (uint64_t)page;
            break;
        case 2:
            e->len = (uint32_t)(mine >> 16);
            break;
        case 3:
            e->len = 512;
            break;
        case 4:
            e->flags = (uint16_t)(mine >> 16);
            break;
        case 5:
            e->next = (uint16_t)(mine >> 16 & 31);
            break;
        case 6:
            v->avail[2 + (mine >> 16 & 15)] = (uint16_t)(mine >> 32);
            break;
        default:
            v->avail[1] = (uint16_t)(v->avail[1] + 1);
            break;
        }
    }
}

static void torment_rewriting(uint64_t ms)
{
    if (!check(smp_start() > 1, "a second vCPU"))
        return;
    for (unsigned n = 0; n < device_count; n++) {
        struct virtio *d = &devices[n];
        set_time(ms / device_count);
        while (time_left()) {
            broken_begin(d);
            for (uint16_t i = 0; i < 16; i++)
                q.desc[i] =
                    (struct vdesc){ (uint64_t)page, 512, (uint16_t)(i % 3 < 2 ? VD_NEXT : VD_WRITE),
                                    (uint16_t)((i + 1) % 16) };
            rewriting = true;
            smp_call(1, rewrite, &q);
            for (int i = 0; i < 200 && time_left(); i++)
                vq_kick(&q);
            rewriting = false;
            smp_wait(1);
        }
        check_alive(d, "a ring rewritten while it was read");
    }
}

/* --- registers --- */

static void write_random_register(volatile uint8_t *base, uint64_t size)
{
    uint64_t off = rnd() % size;
    switch (rnd() & 7) {
    case 0:
    case 1:
        base[off] = (uint8_t)rnd();
        break;
    case 2:
        *(volatile uint16_t *)(base + (off & ~1ul)) = (uint16_t)rnd();
        break;
    case 3:
        *(volatile uint32_t *)(base + (off & ~3ul)) = (uint32_t)rnd();
        break;
    case 4:
        *(volatile uint32_t *)(base + (off & ~3ul)) = (uint32_t)rnd() & 0x3f;
        break;
    case 5:
        *(volatile uint64_t *)(base + (off & ~7ul)) = rnd();
        break;
    case 6:
        (void)*(volatile uint32_t *)(base + (off & ~3ul));
        break;
    default:
        (void)*(volatile uint64_t *)(base + (off & ~7ul));
        break;
    }
}

static void torment_registers(uint64_t ms)
{
    for (unsigned n = 0; n < device_count; n++) {
        struct virtio *d = &devices[n];
        set_time(ms / 2 / device_count);
        while (time_left()) {
            if ((rnd() & 63) == 0)
                broken_begin(d);
            unsigned bar = rnd() % 6;
            if (d->pci.bar[bar] && !d->pci.bar_io[bar])
                write_random_register(pci_map_bar(&d->pci, bar), d->pci.bar_size[bar]);
            else
                write_random_register(d->common, 64);
        }
        check_alive(d, "random writes of its registers");
    }
}

static uint32_t saved_config[PCI_MAX][64];

/* The command register last: nothing decodes while BARs move. */
static void restore_config(const struct pci *p, const uint32_t *saved)
{
    pci_write16(p, 4, 0);
    for (unsigned off = 8; off < 256; off += 4)
        pci_write32(p, off, saved[off / 4]);
    pci_write16(p, 4, (uint16_t)saved[1]);
}

/* All of configuration space, then put right again; but not what the chipset itself is made of. */
static void torment_config_space(uint64_t ms)
{
    static struct pci all[PCI_MAX];
    unsigned count = pci_scan(all, PCI_MAX);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned off = 0; off < 256; off += 4)
            saved_config[i][off / 4] = pci_read32(&all[i], off);
    }
    set_time(ms / 2);
    while (time_left()) {
        struct pci *p = &all[rnd() % count];
        unsigned off = rnd() & 0xff;
        if (p->class_code == 6 && off >= 0x40)
            continue; /* ECAM, PAM, PM base: they could take the RAM or the exits from under us */
        switch (rnd() & 3) {
        case 0:
            pci_write8(p, off, (uint8_t)rnd());
            break;
        case 1:
            pci_write16(p, off & ~1u, (uint16_t)rnd());
            break;
        case 2:
            pci_write32(p, off & ~3u, (uint32_t)rnd());
            break;
        default:
            (void)pci_read32(p, off & ~3u);
            break;
        }
    }
    for (unsigned i = 0; i < count; i++)
        restore_config(&all[i], saved_config[i]);
    for (unsigned n = 0; n < device_count; n++)
        check_alive(&devices[n], "random configuration");
}

/* Ports whose business it is to end the machine, or to hang this payload in it. */
static bool spared(unsigned port)
{
    return (port >= 0xf0 && port <= 0xff) || port == 0x64 || port == 0x92 ||
           (port >= 0xcf8 && port <= 0xcff) || (port >= 0x600 && port < 0x700) ||
           (port >= 0x3f8 && port <= 0x3ff) || port == 0xb2 || port == 0xb3 || port == 0x505 ||
           port == 0xae || port == 0x402 || (port >= 0x510 && port <= 0x51b);
}

static void ignore(struct frame *f)
{
}

static void torment_ports(uint64_t ms)
{
    trap_set(2, ignore);
    set_time(ms / 2);
    while (time_left()) {
        uint16_t port = (uint16_t)(rnd() & (rnd() & 1 ? 0xffff : 0x7ff));
        if (spared(port) || spared(port + 1) || spared(port + 2) || spared(port + 3))
            continue;
        switch (rnd() % 6) {
        case 0:
            out8(port, (uint8_t)rnd());
            break;
        case 1:
            out16(port, (uint16_t)rnd());
            break;
        case 2:
            out32(port, (uint32_t)rnd());
            break;
        case 3:
            in8(port);
            break;
        case 4:
            in16(port);
            break;
        default:
            in32(port);
            break;
        }
    }
    set_time(ms / 2);
    while (time_left()) {
        write_random_register((volatile uint8_t *)0xfed00000, rnd() & 1 ? 0x140 : 0x400); /* HPET */
        ioapic_write((unsigned)rnd() & 0xff,
                     (uint32_t)rnd() & ~0x700u); /* fixed delivery: an INIT would end us */
        (void)ioapic_read((unsigned)rnd() & 0xff);
    }
}

void test_main(void)
{
    uint64_t what = cmdline_number("what", 0), ms = cmdline_number("ms", 2000);
    seed = cmdline_number("seed", 1) * 0x9e3779b97f4a7c15ull | 1;
    page = alloc_pages(16);
    print("hostile begins: what=%lu\n", what);
    if (what < 5)
        find_devices();
    switch (what) {
    case 0:
        torment_broken();
        break;
    case 1:
        torment_dma();
        break;
    case 2:
        torment_garbage(ms);
        break;
    case 3:
        torment_rewriting(ms);
        break;
    case 4:
        torment_registers(ms);
        torment_config_space(ms);
        break;
    default:
        torment_ports(ms);
        break;
    }
    print("hostile done\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}
