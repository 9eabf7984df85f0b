/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest for devices that come and go: it plays the driver of PCI Express slots, and uses what is
 * put in at once.
 *
 * A pressed button of an empty slot that something is in now: power on, "slot N on: WHAT" once the
 * device has worked. A pressed button of a slot with power: the device is reset, power off, "slot N
 * off". A console's ports are taken and given back as they come and go.
 * tests/system/hotplug_payload.py plugs.
 *
 * refuse= A vCPU is not given back, "cpu N stays: STATUS": each time another status that says so.
 * slow=   Milliseconds between a pressed button and power off; the power indicator blinks
 * meanwhile. wild=   The seed of a guest that means harm: slots' registers, and those of what is in
 * them, are written at random.
 *
 * Spec      PCI Express Base 3.0, 6.7 and 7.8; VIRTIO 1.2, 5.1, 5.2, 5.3.
 */
#include "lib/console.h"

#define MAX_SLOTS    8
#define WINDOW_BASE  0xd0000000u /* a window of 1 MiB a slot, in the board's range */
#define WINDOW_BYTES 0x100000u

#define SLOT_CONTROL 24
#define SLOT_STATUS  26
#define BUTTON       0x0001
#define EVENTS       0x011f
#define PRESENT      0x0040
#define CONTROL_ON   0x01c0 /* power, its indicator on */
#define CONTROL_BUSY 0x02c0 /* the indicator blinks */
#define CONTROL_OFF  0x07c0

#define SECTOR       512
#define F_NET_STATUS (1ul << 16)

static struct slot {
    struct pci port;
    struct virtio dev;
    struct vq queue[2];
    unsigned exp;
    bool on;
    uint16_t link; /* of a card, as it was told */
} slots[MAX_SLOTS];
static unsigned slot_count;
static uint8_t *data;

/* --- what comes is used --- */

static bool use_disk(struct slot *s)
{
    static struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    static volatile uint8_t status;
    for (uint32_t type = 0; type < 2; type++) { /* read, write */
        struct vbuf parts[] = {{&header, 16}, {data, SECTOR}, {(void *)&status, 1}};
        header.type = type;
        header.sector = 1;
        status = 0xff;
        vq_add(&s->queue[0], parts, type ? 2 : 1, type ? 1 : 2);
        vq_kick(&s->queue[0]);
        if (vq_wait(&s->queue[0], NULL, 20000) < 0 || status)
            return false;
    }
    return true;
}

/* A broadcast that nobody answers, behind an empty header of virtio's. */
static bool use_card(struct slot *s)
{
    struct vbuf frame = {data, 12 + 60};
    memset(data, 0, 12 + 60);
    memset(data + 12, 0xff, 6);
    data[12 + 6] = 0x52;
    vq_add(&s->queue[1], &frame, 1, 0);
    vq_kick(&s->queue[1]);
    return vq_wait(&s->queue[1], NULL, 20000) >= 0;
}

static uint16_t link_of(struct slot *s)
{
    return *(volatile uint16_t *)(s->dev.config + 6);
}

static bool use_rng(struct slot *s)
{
    struct vbuf buf = {data, 64};
    vq_add(&s->queue[0], &buf, 0, 1);
    vq_kick(&s->queue[0]);
    return vq_wait(&s->queue[0], NULL, 20000) >= 0;
}

static const struct kind {
    unsigned id, queues;
    uint64_t features;
    const char *name;
    bool (*use)(struct slot *s);
} kinds[] = {
    {VIRTIO_ID_BLK, 1, 0, "disk", use_disk},
    {VIRTIO_ID_NET, 2, F_NET_STATUS, "card", use_card},
    {VIRTIO_ID_RNG, 1, 0, "rng", use_rng},
};

static const struct kind *kind_of(const struct pci *p)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        if (p->vendor == VIRTIO_VENDOR && p->device == 0x1040 + kinds[i].id)
            return &kinds[i];
    }
    return NULL;
}

static void place_bars(struct pci *p, uint32_t at)
{
    for (unsigned i = 0; i < 6; i++) {
        if (!p->bar_size[i] || p->bar_io[i])
            continue;
        at = (at + (uint32_t)p->bar_size[i] - 1) & -(uint32_t)p->bar_size[i];
        p->bar[i] = at;
        bool wide = (pci_read32(p, 0x10 + 4 * i) & 6) == 4;
        pci_write32(p, 0x10 + 4 * i, at);
        if (wide)
            pci_write32(p, 0x14 + 4 * i, 0);
        at += (uint32_t)p->bar_size[i];
    }
}

/* "disk", or what went wrong. */
static const char *begin(struct slot *s, unsigned n)
{
    uint8_t bus = pci_read8(&s->port, 0x19);
    uint64_t start = rdtsc();
    s->dev = (struct virtio){0};
    while (!pci_probe(bus, 0, 0, &s->dev.pci)) {
        if (rdtsc() - start > 20000 * tsc_khz())
            return "nothing answers";
    }
    const struct kind *k = kind_of(&s->dev.pci);
    place_bars(&s->dev.pci, WINDOW_BASE + n * WINDOW_BYTES);
    if (!k)
        return "unknown"; /* the console, which is found by itself */
    s->dev.id = k->id;
    if (!virtio_open(&s->dev) || !virtio_begin(&s->dev, k->features))
        return "no agreement";
    for (uint16_t q = 0; q < k->queues; q++) {
        if (!vq_init(&s->queue[q], &s->dev, q, 8))
            return "no queue";
    }
    virtio_ready(&s->dev);
    s->link = k->id == VIRTIO_ID_NET ? link_of(s) : 0;
    return k->use(s) ? k->name : "no answer";
}

/* --- slots --- */

static uint64_t slow_ms;

static void set_control(struct slot *s, uint16_t control)
{
    pci_write16(&s->port, s->exp + SLOT_CONTROL, control);
}

static void let_go(struct slot *s, unsigned n)
{
    if (slow_ms) {
        set_control(s, CONTROL_BUSY);
        delay_us(slow_ms * 1000);
    }
    if (s->dev.common)
        virtio_reset(&s->dev);
    pci_write16(&s->dev.pci, 4, 0);
    s->on = false;
    set_control(s, CONTROL_OFF);
    print("slot %u off\n", n);
}

static void look(struct slot *s, unsigned n)
{
    uint16_t status = pci_read16(&s->port, s->exp + SLOT_STATUS);
    if (s->on && s->dev.id == VIRTIO_ID_NET && s->link != link_of(s)) {
        s->link = link_of(s);
        print("slot %u link %u\n", n, s->link);
    }
    if (!(status & EVENTS))
        return;
    pci_write16(&s->port, s->exp + SLOT_STATUS, status & EVENTS);
    if (!(status & BUTTON))
        return;
    if (s->on) {
        let_go(s, n);
    } else if (status & PRESENT) {
        s->on = true;
        set_control(s, CONTROL_ON);
        print("slot %u on: %s\n", n, begin(s, n));
    }
}

/* Its window, and nothing in the others. */
static void open_window(struct slot *s, unsigned n)
{
    uint32_t base = (WINDOW_BASE + n * WINDOW_BYTES) >> 16;
    pci_write32(&s->port, 0x20, base << 16 | base);
    pci_write32(&s->port, 0x24, 0x0000fff0);
    pci_enable(&s->port, true);
}

static void find_slot(uint8_t dev, uint8_t function)
{
    struct pci p;
    if (slot_count == MAX_SLOTS || !pci_probe(0, dev, function, &p) || (p.header & 0x7f) != 1)
        return;
    struct slot *s = &slots[slot_count];
    s->port = p;
    s->exp = pci_capability(&p, 0x10, 0);
    s->on = pci_read16(&p, s->exp + SLOT_STATUS) & PRESENT;
    open_window(s, slot_count);
    if (s->on)
        print("slot %u on: %s\n", slot_count, begin(s, slot_count));
    slot_count++;
}

static void find_slots(void)
{
    for (unsigned i = 0; i < 32 * 8; i++)
        find_slot((uint8_t)(i / 8), (uint8_t)(i % 8));
    map_mmio(WINDOW_BASE, MAX_SLOTS * WINDOW_BYTES);
}

/* --- ports of a console --- */

static struct console console;
static bool has_console;

static void look_at_console(void)
{
    uint32_t id;
    uint16_t event;
    if (!has_console || !console_look(&console, &id, &event))
        return;
    if (event == PORT_ADD) {
        console_tell(&console, id, PORT_READY, 1);
        print("port %u on\n", id);
    } else if (event == PORT_REMOVE) {
        print("port %u off\n", id);
    }
}

/* --- vCPUs: QEMU's registers for ACPI --- */

#define CPU_SELECTOR 0xcd8
#define CPU_FLAGS    0xcdc
#define CPU_COMMAND  0xcdd
#define CPU_DATA     0xce0
#define CPU_INSERT   2
#define CPU_REMOVE   4
#define CPU_EJECT    8
#define EJECT_IN_PROGRESS 0x84 /* ACPI 6.4, 6.3.5: status of _OST */
enum { NEXT_EVENT, OST_EVENT, OST_STATUS };

/* ACPI 6.4, 6.3.5: failure; not supported, in use, busy, something that depends on it is. */
static const uint8_t refusals[] = {1, 0x80, 0x81, 0x82, 0x83};
static unsigned refused;
static bool refuses;

static void report(uint32_t event, uint32_t status)
{
    out8(CPU_COMMAND, OST_EVENT);
    out32(CPU_DATA, event);
    out8(CPU_COMMAND, OST_STATUS);
    out32(CPU_DATA, status);
}

static void look_at_cpus(void)
{
    out32(CPU_SELECTOR, 0);
    out8(CPU_COMMAND, NEXT_EVENT);
    uint8_t flags = in8(CPU_FLAGS);
    uint32_t n = in32(CPU_DATA);
    if (flags == 0xff || !(flags & (CPU_INSERT | CPU_REMOVE)))
        return;
    out8(CPU_FLAGS, flags & (CPU_INSERT | CPU_REMOVE));
    if (flags & CPU_REMOVE) { /* as Linux: it says that it has begun */
        report(3, EJECT_IN_PROGRESS);
        delay_us(100000);
    }
    if (flags & CPU_INSERT) {
        report(1, 0);
        print("cpu %u on\n", n);
    } else if (refuses) {
        uint8_t status = refusals[refused++ % ARRAY_COUNT(refusals)];
        report(3, status);
        print("cpu %u stays: %u\n", n, status);
    } else {
        out8(CPU_FLAGS, CPU_EJECT);
        print("cpu %u off\n", n);
    }
}

/* --- harm --- */

static uint64_t seed;

static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

static void harm(struct slot *s, unsigned n)
{
    struct pci behind = {.bus = pci_read8(&s->port, 0x19)};
    switch (rnd() % 12) {
    case 0:
        pci_write32(&s->port, 4 + rnd() % 252, rnd());
        break;
    case 1:
        pci_write16(&s->port, s->exp + SLOT_STATUS, (uint16_t)rnd());
        break;
    case 2:
        pci_write32(&behind, rnd() % 256, rnd());
        break;
    case 3: /* a device that works, and may be taken away while it does */
        set_control(s, CONTROL_ON);
        open_window(s, n);
        if (pci_probe(behind.bus, 0, 0, &s->dev.pci)) {
            place_bars(&s->dev.pci, WINDOW_BASE + n * WINDOW_BYTES);
            pci_enable(&s->dev.pci, true);
        }
        break;
    case 4:
    case 5:
        *(volatile uint32_t *)(uintptr_t)(WINDOW_BASE + n * WINDOW_BYTES + (rnd() & 0x7ffc)) =
            rnd();
        break;
    case 6:
        set_control(s, CONTROL_OFF);
        break;
    case 7: /* bus numbers as they were */
        pci_write32(&s->port, 0x18, (n + 1) << 16 | (n + 1) << 8);
        break;
    default:
        set_control(s, (uint16_t)rnd());
    }
}

void test_main(void)
{
    seed = cmdline_number("wild", 0); /* before pages are taken: the loader's words may be in one */
    slow_ms = cmdline_number("slow", 0);
    refuses = cmdline_number("refuse", 0);
    data = alloc_pages(1);
    find_slots();
    has_console = console_find(&console);
    if (has_console)
        console_begin(&console);
    look_at_cpus(); /* QEMU shows its registers from here on */
    print("%u slots%s\n", slot_count, has_console ? ", a console" : "");
    for (uint64_t i = 0; seed && slot_count; i++) {
        unsigned n = rnd() % slot_count;
        harm(&slots[n], n);
        if (i % 5000 == 0)
            print("harm %lu\n", i);
    }
    for (;;) {
        for (unsigned n = 0; n < slot_count; n++)
            look(&slots[n], n);
        look_at_console();
        look_at_cpus();
        pause();
    }
}
