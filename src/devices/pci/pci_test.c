/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PCI core as guests use it: configuration by both ways, BARs, interrupts, bridges, what hostile writes do. */
#include "devices/pci/pci_internal.h"
#include "devices/testing.h"
#include "machine/chipset.h"

#define ECAM MICROVM_ECAM_BASE
#define BAR_SIZE 0x4000
#define VECTORS 70
#define MSI_ADDR 0xfee00000u

struct test_fn {
    struct pci_device pci;
    struct mem_region mem, io, big;
    uint64_t wide_bar; /* property: size of a prefetchable 64-bit BAR */
    bool msi;
    uint32_t reads;
};

struct msi_log {
    unsigned count;
    uint64_t addr;
    uint32_t data;
};

static uint64_t fn_read(void *opaque, uint64_t off, unsigned size)
{
    ((struct test_fn *)opaque)->reads++;
    return 0x12345678;
}

static void fn_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
}

static const struct mem_ops fn_ops = { .read = fn_read, .write = fn_write };

static bool fn_realize(struct device *d, GError **error)
{
    struct test_fn *f = (struct test_fn *)d;
    static const struct pci_ids ids = { .vendor = 0x1234, .device = 0x5678, .class_code = 0xff };
    if (!pci_device_init(&f->pci, &ids, error))
        return false;
    mem_region_init_io(&f->mem, "test-mem", &fn_ops, f, BAR_SIZE, NULL);
    mem_region_init_io(&f->io, "test-io", &fn_ops, f, 0x20, NULL);
    pci_bar_register(&f->pci, 0, PCI_BAR_MEM32, &f->mem);
    pci_bar_register(&f->pci, 1, PCI_BAR_IO, &f->io);
    if (f->wide_bar) {
        mem_region_init_io(&f->big, "test-big", &fn_ops, f, f->wide_bar, NULL);
        pci_bar_register(&f->pci, 2, PCI_BAR_MEM64_PREFETCH, &f->big);
    }
    pci_set_intx_pin(&f->pci, 1);
    g_assert_cmpint(pci_add_express(&f->pci), ==, 0);
    if (f->msi)
        g_assert_cmpint(pci_add_msi(&f->pci, 4), ==, 0);
    return !pci_add_msix(&f->pci, 4, VECTORS);
}

static void fn_reset(struct device *d)
{
    pci_device_reset((struct pci_device *)d);
}

static void fn_unrealize(struct device *d)
{
    pci_device_done((struct pci_device *)d);
}

static const struct prop fn_props[] = {
    PCI_PROPS(struct test_fn),
    PROP_SIZE("wide", struct test_fn, wide_bar),
    PROP_BOOL("msi", struct test_fn, msi),
    { 0 },
};

static const struct device_type fn_type = {
    .name = "test-fn", .summary = "test", .bus = BUS_PCI, .size = sizeof(struct test_fn), .props = fn_props,
    .realize = fn_realize, .reset = fn_reset, .unrealize = fn_unrealize,
};
DEVICE_TYPE(fn_type);

static void log_msi(void *opaque, uint64_t addr, uint32_t data)
{
    struct msi_log *l = opaque;
    l->count++;
    l->addr = addr;
    l->data = data;
}

struct fixture {
    struct test_machine *t;
    struct msi_log msi;
    struct accel_apic apic;
    struct device *host;
};

static struct fixture *setup(void)
{
    struct fixture *f = g_new0(struct fixture, 1);
    f->t = test_machine_new(1);
    f->apic = (struct accel_apic){ .opaque = &f->msi, .msi = log_msi };
    f->t->accel.apic = &f->apic;
    f->host = test_device(f->t, "pcie-ecam-host", NULL);
    return f;
}

static void done(struct fixture *f)
{
    while (f->t->m.devices) {
        struct device *last = f->t->m.devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
    test_machine_free(f->t);
    g_free(f);
}

static uint64_t cfg(unsigned bus, unsigned slot, unsigned off)
{
    return ECAM + (bus << 20 | slot << 15 | off);
}

static uint32_t read_cfg(struct fixture *f, unsigned slot, unsigned off)
{
    return test_read32(f->t, cfg(0, slot, off));
}

static void write_cfg(struct fixture *f, unsigned slot, unsigned off, uint32_t val)
{
    test_write32(f->t, cfg(0, slot, off), val);
}

static struct test_fn *add_fn(struct fixture *f, const char *addr)
{
    return (struct test_fn *)test_device(f->t, "test-fn", "addr", addr, NULL);
}

static void test_config_access(void)
{
    struct fixture *f = setup();
    add_fn(f, "3");
    g_assert_cmphex(read_cfg(f, 0, 0), ==, 0x00081b36);
    g_assert_cmphex(read_cfg(f, 3, 0), ==, 0x56781234);
    g_assert_cmphex(read_cfg(f, 4, 0), ==, 0xffffffff);
    g_assert_cmphex(test_read32(f->t, cfg(5, 3, 0)), ==, 0xffffffff);
    /* The same by ports, in every width. */
    test_out(f->t, 0xcf8, 0x80001800, 4);
    g_assert_cmphex(test_in(f->t, 0xcfc, 4), ==, 0x56781234);
    g_assert_cmphex(test_in(f->t, 0xcfe, 2), ==, 0x5678);
    g_assert_cmphex(test_in(f->t, 0xcfd, 1), ==, 0x12);
    test_out(f->t, 0xcf8, 0x00001800, 4);
    g_assert_cmphex(test_in(f->t, 0xcfc, 4), ==, 0xffffffff);
    /* Identification is not the guest's to change; the interrupt line is. */
    write_cfg(f, 3, 0, 0);
    g_assert_cmphex(read_cfg(f, 3, 0), ==, 0x56781234);
    write_cfg(f, 3, 0x3c, 0xffffffff);
    g_assert_cmphex(read_cfg(f, 3, 0x3c), ==, 0x000001ff);
    done(f);
}

static bool mapped(struct fixture *f, uint64_t addr)
{
    return test_read32(f->t, addr) == 0x12345678;
}

static void test_bars(void)
{
    struct fixture *f = setup();
    struct test_fn *a = add_fn(f, "3");
    write_cfg(f, 3, 0x10, 0xffffffff);
    g_assert_cmphex(read_cfg(f, 3, 0x10), ==, (uint32_t)~(BAR_SIZE - 1));
    write_cfg(f, 3, 0x14, 0xffffffff);
    g_assert_cmphex(read_cfg(f, 3, 0x14), ==, 0xffffffe1);
    g_assert_cmphex(read_cfg(f, 3, 0x18), ==, 0);
    write_cfg(f, 3, 0x10, 0xc0000000);
    g_assert_false(mapped(f, 0xc0000000)); /* decoding is off */
    write_cfg(f, 3, 4, 2);
    g_assert_true(mapped(f, 0xc0000000));
    g_assert_true(mapped(f, 0xc0000000 + BAR_SIZE - 4));
    g_assert_false(mapped(f, 0xc0000000 + BAR_SIZE));
    write_cfg(f, 3, 0x10, 0xc1230000);
    g_assert_false(mapped(f, 0xc0000000));
    g_assert_true(mapped(f, 0xc1230000));
    write_cfg(f, 3, 0x10, 0xffffffff); /* sizing with decoding on: nowhere */
    g_assert_false(mapped(f, 0xc1230000));
    write_cfg(f, 3, 0x10, 0); /* over RAM: RAM wins */
    write_cfg(f, 3, 0x10, 0x4000);
    g_assert_false(mapped(f, 0x4000));
    write_cfg(f, 3, 0x14, 0xc100);
    g_assert_cmphex(test_in(f->t, 0xc100, 4), ==, 0xffffffff);
    write_cfg(f, 3, 4, 1);
    g_assert_cmphex(test_in(f->t, 0xc100, 4), ==, 0x12345678);
    device_reset(&a->pci.dev);
    g_assert_cmphex(read_cfg(f, 3, 4) & 0xffff, ==, 0);
    g_assert_cmphex(read_cfg(f, 3, 0x10), ==, 0);
    g_assert_cmphex(test_in(f->t, 0xc100, 4), ==, 0xffffffff);
    done(f);
}

static void test_wide_bar(void)
{
    struct fixture *f = setup();
    test_device(f->t, "test-fn", "addr", "3", "wide", "8G", NULL);
    write_cfg(f, 3, 0x18, 0xffffffff);
    write_cfg(f, 3, 0x1c, 0xffffffff);
    g_assert_cmphex(read_cfg(f, 3, 0x18), ==, 0xc);
    g_assert_cmphex(read_cfg(f, 3, 0x1c), ==, 0xfffffffe);
    write_cfg(f, 3, 4, 2);
    g_assert_false(mapped(f, 0xfffffffe00000000));
    write_cfg(f, 3, 0x18, 0);
    write_cfg(f, 3, 0x1c, 0x10);
    g_assert_true(mapped(f, 0x1000000000));
    g_assert_true(mapped(f, 0x1000000000 + 8 * GIB - 4));
    done(f);
}

static void test_assign(void)
{
    struct fixture *f = setup();
    add_fn(f, "3");
    add_fn(f, "4");
    test_device(f->t, "test-fn", "addr", "5", "wide", "8G", NULL);
    f->t->m.pci_setup(&f->t->m);
    uint64_t seen[8];
    unsigned n = 0;
    for (unsigned slot = 3; slot <= 5; slot++) {
        uint32_t mem = read_cfg(f, slot, 0x10), msix = read_cfg(f, slot, 0x20);
        g_assert_cmphex(mem, >=, MICROVM_MEM_WINDOW_BASE);
        g_assert_cmphex(mem, <, MICROVM_MEM_WINDOW_END);
        g_assert_true(mapped(f, mem));
        seen[n++] = mem;
        seen[n++] = msix;
        g_assert_cmphex(read_cfg(f, slot, 4) & 7, ==, 7);
        g_assert_cmpuint(read_cfg(f, slot, 0x3c) & 0xff, ==, PCI_GSI_BASE + slot % 4);
        uint32_t io = read_cfg(f, slot, 0x14) & ~3u;
        g_assert_cmphex(test_in(f->t, (uint16_t)io, 4), ==, 0x12345678);
    }
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < i; k++)
            g_assert_true(seen[i] != seen[k]);
    uint64_t wide = (read_cfg(f, 5, 0x18) & ~0xfu) | (uint64_t)read_cfg(f, 5, 0x1c) << 32;
    g_assert_cmphex(wide, >=, 4 * GIB);
    g_assert_true(mapped(f, wide));
    done(f);
}

static void test_intx(void)
{
    struct fixture *f = setup();
    struct test_fn *a = add_fn(f, "3"), *b = add_fn(f, "7");
    unsigned gsi = PCI_GSI_BASE + 3;
    pci_irq_set(&a->pci, 1);
    g_assert_cmpint(f->t->gsi_level[gsi], ==, 1);
    g_assert_cmphex(read_cfg(f, 3, 4) & 0x80000, ==, 0x80000);
    pci_irq_set(&b->pci, 1); /* slot 7 shares the line of slot 3 */
    pci_irq_set(&a->pci, 0);
    g_assert_cmpint(f->t->gsi_level[gsi], ==, 1);
    write_cfg(f, 7, 4, 0x400);
    g_assert_cmpint(f->t->gsi_level[gsi], ==, 0);
    g_assert_cmphex(read_cfg(f, 7, 4) & 0x80000, ==, 0x80000);
    write_cfg(f, 7, 4, 0);
    g_assert_cmpint(f->t->gsi_level[gsi], ==, 1);
    device_free(&b->pci.dev);
    g_assert_cmpint(f->t->gsi_level[gsi], ==, 0);
    done(f);
}

static unsigned find_cap(struct fixture *f, unsigned slot, uint8_t id)
{
    unsigned at = read_cfg(f, slot, 0x34) & 0xff;
    for (unsigned i = 0; at && i < 48; i++) {
        uint32_t head = read_cfg(f, slot, at);
        if ((head & 0xff) == id)
            return at;
        at = head >> 8 & 0xff;
    }
    return 0;
}

static void test_msi(void)
{
    struct fixture *f = setup();
    struct test_fn *a = (struct test_fn *)test_device(f->t, "test-fn", "addr", "3", "msi", "on", NULL);
    unsigned cap = find_cap(f, 3, PCI_CAP_MSI);
    g_assert_cmpuint(cap, !=, 0);
    g_assert_cmphex(read_cfg(f, 3, cap) >> 16, ==, 0x84);
    write_cfg(f, 3, cap + 4, MSI_ADDR | 3);
    write_cfg(f, 3, cap + 12, 0x41);
    pci_msi_notify(&a->pci, 0);
    g_assert_cmpuint(f->msi.count, ==, 0);
    write_cfg(f, 3, 4, 4);
    write_cfg(f, 3, cap, 0x00210000); /* enabled, 4 vectors */
    pci_msi_notify(&a->pci, 3);
    g_assert_cmpuint(f->msi.count, ==, 1);
    g_assert_cmphex(f->msi.addr, ==, MSI_ADDR);
    g_assert_cmphex(f->msi.data, ==, 0x43);
    write_cfg(f, 3, cap, 0x00710000); /* more vectors than there are */
    pci_msi_notify(&a->pci, 7);
    g_assert_cmphex(f->msi.data, ==, 0x43);
    done(f);
}

static unsigned changes, last_vector;
static bool last_live;
static void on_change(struct pci_device *p, unsigned vector, bool live)
{
    changes++;
    last_vector = vector;
    last_live = live;
}

static void test_msix(void)
{
    struct fixture *f = setup();
    struct test_fn *a = add_fn(f, "3");
    pci_msix_on_change(&a->pci, on_change);
    unsigned cap = find_cap(f, 3, PCI_CAP_MSIX);
    uint64_t table = 0xc0100000;
    g_assert_cmphex(read_cfg(f, 3, cap) >> 16, ==, VECTORS - 1);
    g_assert_cmphex(read_cfg(f, 3, cap + 4), ==, 4);
    g_assert_cmphex(read_cfg(f, 3, cap + 8), ==, 0x1004);
    write_cfg(f, 3, 0x20, (uint32_t)table);
    write_cfg(f, 3, 4, 6);
    g_assert_cmphex(test_read32(f->t, table + 65 * 16 + 12), ==, 1);
    test_write32(f->t, table + 65 * 16, MSI_ADDR);
    test_write32(f->t, table + 65 * 16 + 8, 0x55);
    pci_msix_notify(&a->pci, 65); /* not enabled: lost, not pending */
    g_assert_cmphex(test_read32(f->t, table + 0x1000 + 8), ==, 0);
    changes = 0;
    write_cfg(f, 3, cap, 0x80000000);
    g_assert_cmpuint(changes, ==, 0);
    pci_msix_notify(&a->pci, 65);
    g_assert_cmpuint(f->msi.count, ==, 0);
    g_assert_cmphex(test_read32(f->t, table + 0x1000 + 8), ==, 2);
    test_write32(f->t, table + 65 * 16 + 12, 0); /* unmasking delivers what was pending */
    g_assert_cmpuint(f->msi.count, ==, 1);
    g_assert_cmphex(f->msi.data, ==, 0x55);
    g_assert_cmphex(test_read32(f->t, table + 0x1000 + 8), ==, 0);
    g_assert_true(changes == 1 && last_vector == 65 && last_live);
    write_cfg(f, 3, cap, 0xc0000000); /* the function's mask */
    g_assert_true(changes == 2 && !last_live);
    pci_msix_notify(&a->pci, 65);
    g_assert_cmpuint(f->msi.count, ==, 1);
    write_cfg(f, 3, cap, 0x80000000);
    g_assert_cmpuint(f->msi.count, ==, 2);
    test_write32(f->t, table + 65 * 16 + 8, 0x66); /* a new message tells the owner */
    g_assert_cmpuint(changes, ==, 4);
    uint64_t addr;
    uint32_t data;
    pci_msix_message(&a->pci, 65, &addr, &data);
    g_assert_true(addr == MSI_ADDR && data == 0x66);
    pci_msix_notify(&a->pci, VECTORS); /* no such vector */
    g_assert_cmpuint(f->msi.count, ==, 2);
    device_reset(&a->pci.dev);
    g_assert_false(pci_msix_enabled(&a->pci));
    done(f);
}

static void test_bridge(void)
{
    struct fixture *f = setup();
    struct device *port = device_new(&f->t->m, "pcie-root-port", NULL);
    port->id = g_strdup("rp1");
    g_assert_true(device_set(port, "addr", "6", NULL));
    g_assert_true(device_realize(port, NULL));
    struct device *d = device_new(&f->t->m, "test-fn", NULL);
    d->bus_name = g_strdup("rp1");
    g_assert_true(device_realize(d, NULL));
    struct test_fn *a = (struct test_fn *)d;
    g_assert_cmphex(test_read32(f->t, cfg(1, 0, 0)), ==, 0xffffffff); /* no bus number yet */
    f->t->m.pci_setup(&f->t->m);
    g_assert_cmphex(read_cfg(f, 6, 0x18) & 0xffffff, ==, 0x010100);
    g_assert_cmphex(test_read32(f->t, cfg(1, 0, 0)), ==, 0x56781234);
    uint32_t mem = test_read32(f->t, cfg(1, 0, 0x10));
    g_assert_true(mapped(f, mem));
    pci_irq_set(&a->pci, 1);
    g_assert_cmpint(f->t->gsi_level[PCI_GSI_BASE + 2], ==, 1); /* slot 0's INTA through slot 6 */
    uint32_t windows = read_cfg(f, 6, 0x20);
    write_cfg(f, 6, 0x20, 0x0000fff0); /* base above limit: shut */
    g_assert_false(mapped(f, mem));
    write_cfg(f, 6, 0x20, windows);
    g_assert_true(mapped(f, mem));
    write_cfg(f, 6, 4, 0);
    g_assert_false(mapped(f, mem));
    write_cfg(f, 6, 0x18, 0x00ff0501); /* a guest may number as it likes, but not the root bus anew */
    g_assert_cmphex(test_read32(f->t, cfg(5, 0, 0)), ==, 0x56781234);
    g_assert_cmphex(test_read32(f->t, cfg(6, 0, 0)), ==, 0xffffffff);
    done(f);
}

static void expect_error(struct fixture *f, const char *addr, const char *bus, const char *word)
{
    g_autoptr(GError) error = NULL;
    struct device *d = device_new(&f->t->m, "test-fn", NULL);
    d->bus_name = g_strdup(bus);
    g_assert_true(!addr || device_set(d, "addr", addr, NULL));
    g_assert_false(device_realize(d, &error));
    g_assert_nonnull(strstr(error->message, word));
}

static void test_bad_places(void)
{
    struct fixture *f = setup();
    add_fn(f, "3");
    expect_error(f, "3", NULL, "taken");
    expect_error(f, "3.1", NULL, "multifunction");
    expect_error(f, "20", NULL, "'20'");
    expect_error(f, "4.8", NULL, "'4.8'");
    expect_error(f, "x", NULL, "'x'");
    expect_error(f, "", NULL, "''");
    expect_error(f, NULL, "nobus", "nobus");
    for (unsigned slot = 0; slot < 32; slot++)
        if (slot && slot != 3)
            test_device(f->t, "test-fn", NULL);
    expect_error(f, NULL, NULL, "no free slot");
    done(f);
}

/* --- hot plug --- */

#define SLOT_CONTROL 24 /* offsets in the express capability */
#define SLOT_STATUS 26
#define POWER_ON 0x0100  /* indicator on, controller on */
#define POWER_OFF 0x0700 /* both off */
#define BLINK 0x0200
#define ENABLE 0x0039 /* interrupts of button, presence and command */

struct slot {
    struct fixture *f;
    unsigned cap;
    unsigned unplugged;
};

static void on_unplugged(void *opaque, struct device *d)
{
    ((struct slot *)opaque)->unplugged++;
    device_free(d);
}

static struct slot *slot_setup(bool hotplug)
{
    struct slot *s = g_new0(struct slot, 1);
    struct machine *m;
    s->f = setup();
    m = &s->f->t->m;
    m->observer = (struct machine_observer){ .unplugged = on_unplugged, .opaque = s };
    struct device *port = device_new(m, "pcie-root-port", NULL);
    port->id = g_strdup("rp1");
    g_assert_true(device_set(port, "addr", "6", NULL) && device_set(port, "slot", "9", NULL));
    g_assert_true(device_set(port, "hotplug", hotplug ? "on" : "off", NULL));
    g_assert_true(device_realize(port, NULL));
    device_reset(port);
    m->pci_setup(m);
    m->powered_on = true;
    s->cap = find_cap(s->f, 6, PCI_CAP_EXPRESS);
    return s;
}

static void slot_done(struct slot *s)
{
    done(s->f);
    g_free(s);
}

static uint16_t slot_read(struct slot *s, unsigned reg)
{
    return (uint16_t)mem_io_read(s->f->t->m.memory, cfg(0, 6, s->cap + reg), 2);
}

static void slot_write(struct slot *s, unsigned reg, uint16_t val)
{
    mem_io_write(s->f->t->m.memory, cfg(0, 6, s->cap + reg), val, 2);
}

static struct device *hot_add(struct slot *s, const char *addr)
{
    struct device *d = device_new(&s->f->t->m, "test-fn", NULL);
    d->bus_name = g_strdup("rp1");
    d->id = g_strdup("hot");
    g_assert_true(pci_check_hotplug(&s->f->t->m, "rp1", NULL));
    g_assert_true(device_set(d, "addr", addr, NULL) && device_set(d, "multifunction", "on", NULL));
    g_assert_true(device_realize(d, NULL));
    device_reset(d);
    pci_plug((struct pci_device *)d);
    return d;
}

static int slot_line(struct slot *s)
{
    return s->f->t->gsi_level[PCI_GSI_BASE + 2];
}

static void test_slot_life(void)
{
    struct slot *s = slot_setup(true);
    uint64_t head = cfg(1, 0, 0);
    g_assert_cmphex(test_read32(s->f->t, cfg(0, 6, s->cap + 20)), ==, 9u << 19 | 0x5b);
    g_assert_cmphex(slot_read(s, SLOT_STATUS), ==, 0);
    g_assert_cmphex(slot_read(s, SLOT_CONTROL) & 0x0700, ==, POWER_OFF);
    slot_write(s, SLOT_CONTROL, POWER_OFF | ENABLE);
    g_assert_cmphex(slot_read(s, SLOT_STATUS), ==, 0x10); /* the command is completed */
    g_assert_cmpint(slot_line(s), ==, 1);
    slot_write(s, SLOT_STATUS, 0x10);
    g_assert_cmpint(slot_line(s), ==, 0);
    /* Plugged in: presence, the button, the link; but no power. */
    struct device *d = hot_add(s, "0.0");
    g_assert_cmphex(slot_read(s, SLOT_STATUS), ==, 0x49);
    g_assert_cmphex(slot_read(s, 18) & 0x2000, ==, 0x2000);
    g_assert_cmpint(slot_line(s), ==, 1);
    g_assert_cmphex(test_read32(s->f->t, head), ==, 0xffffffff);
    slot_write(s, SLOT_STATUS, 0x49);
    g_assert_cmphex(slot_read(s, SLOT_STATUS), ==, 0x40); /* presence is not the guest's to change */
    slot_write(s, SLOT_CONTROL, POWER_ON | ENABLE);
    g_assert_cmphex(test_read32(s->f->t, head), ==, 0x56781234);
    test_write32(s->f->t, head + 0x10, 0xc0100000);
    test_write32(s->f->t, head + 4, 2);
    mem_io_write(s->f->t->m.memory, cfg(0, 6, 0x20), 0xc010c010, 4);
    g_assert_true(mapped(s->f, 0xc0100000));
    /* Asked back, and given. */
    slot_write(s, SLOT_STATUS, 0x1f);
    g_assert_true(pci_request_unplug((struct pci_device *)d, NULL));
    g_assert_cmphex(slot_read(s, SLOT_STATUS), ==, 0x41);
    g_autoptr(GError) error = NULL;
    g_assert_false(pci_request_unplug((struct pci_device *)d, &error));
    g_assert_nonnull(strstr(error->message, "already in the process of unplug"));
    slot_write(s, SLOT_CONTROL, POWER_ON | 0x0400 | ENABLE); /* power goes first, the light later */
    g_assert_false(mapped(s->f, 0xc0100000));
    g_assert_cmphex(test_read32(s->f->t, head), ==, 0xffffffff);
    loop_once(s->f->t->m.main_loop, 0);
    g_assert_cmpuint(s->unplugged, ==, 0);
    slot_write(s, SLOT_CONTROL, POWER_OFF | ENABLE);
    loop_once(s->f->t->m.main_loop, 0);
    g_assert_cmpuint(s->unplugged, ==, 1);
    g_assert_cmphex(slot_read(s, SLOT_STATUS) & 0x48, ==, 0x08);
    g_assert_cmphex(slot_read(s, 18) & 0x2000, ==, 0);
    hot_add(s, "0.0"); /* and again */
    slot_write(s, SLOT_CONTROL, POWER_ON | ENABLE);
    g_assert_cmphex(test_read32(s->f->t, head), ==, 0x56781234);
    slot_done(s);
}

/* Power that goes and comes back without the light: the device is there again, reset. */
static void test_slot_power(void)
{
    struct slot *s = slot_setup(true);
    uint64_t head = cfg(1, 0, 0);
    hot_add(s, "0.0");
    slot_write(s, SLOT_CONTROL, POWER_ON);
    test_write32(s->f->t, head + 4, 6);
    slot_write(s, SLOT_CONTROL, POWER_ON | 0x0400);
    slot_write(s, SLOT_CONTROL, POWER_ON);
    g_assert_cmphex(test_read32(s->f->t, head), ==, 0xffffffff); /* not before it was reset */
    loop_once(s->f->t->m.main_loop, 0);
    g_assert_cmphex(test_read32(s->f->t, head), ==, 0x56781234);
    g_assert_cmphex(test_read32(s->f->t, head + 4) & 0xffff, ==, 0);
    g_assert_cmpuint(s->unplugged, ==, 0);
    slot_done(s);
}

static void test_slot_refused(void)
{
    struct slot *s = slot_setup(false);
    g_autoptr(GError) error = NULL;
    g_assert_false(pci_check_hotplug(&s->f->t->m, NULL, &error));
    g_assert_cmpstr(error->message, ==, "Bus 'pcie.0' does not support hotplugging");
    g_clear_error(&error);
    g_assert_false(pci_check_hotplug(&s->f->t->m, "rp1", &error));
    g_assert_cmpstr(error->message, ==, "Bus 'rp1' does not support hotplugging");
    g_assert_cmphex(test_read32(s->f->t, cfg(0, 6, s->cap + 20)), ==, 9u << 19);
    slot_done(s);
}

/* The guest that is at it is not disturbed; one that never answers may be asked again; a slot without power is emptied
 * at once; a reset takes what was asked for. */
static void test_slot_requests(void)
{
    struct slot *s = slot_setup(true);
    struct device *d = hot_add(s, "0.0");
    g_autoptr(GError) error = NULL;
    slot_write(s, SLOT_CONTROL, BLINK);
    g_assert_false(pci_request_unplug((struct pci_device *)d, &error));
    g_assert_nonnull(strstr(error->message, "busy"));
    slot_write(s, SLOT_CONTROL, POWER_ON);
    g_assert_true(pci_request_unplug((struct pci_device *)d, NULL));
    d->unplug_asked_ms -= 6000;
    slot_write(s, SLOT_STATUS, 0x1f);
    g_assert_true(pci_request_unplug((struct pci_device *)d, NULL));
    g_assert_cmphex(slot_read(s, SLOT_STATUS) & 1, ==, 1);
    device_reset(&s->f->t->m.pci->dev[0x30]->dev);
    g_assert_cmphex(slot_read(s, SLOT_STATUS), ==, 0);
    g_assert_cmphex(test_read32(s->f->t, cfg(1, 0, 0)), ==, 0xffffffff);
    loop_once(s->f->t->m.main_loop, 0);
    g_assert_cmpuint(s->unplugged, ==, 1);
    d = hot_add(s, "0.0"); /* nobody gave it power */
    g_assert_true(pci_request_unplug((struct pci_device *)d, NULL));
    loop_once(s->f->t->m.main_loop, 0);
    g_assert_cmpuint(s->unplugged, ==, 2);
    slot_done(s);
}

/* Other functions wait for function 0; all go together. */
static void test_slot_functions(void)
{
    struct slot *s = slot_setup(true);
    slot_write(s, SLOT_CONTROL, POWER_ON);
    struct device *second = hot_add(s, "0.1");
    g_assert_cmphex(slot_read(s, SLOT_STATUS) & 0x48, ==, 0);
    hot_add(s, "0.0");
    g_free(second->id);
    second->id = g_strdup("second");
    s->f->t->m.pci_setup(&s->f->t->m);
    g_assert_cmphex(slot_read(s, SLOT_STATUS) & 0x48, ==, 0x48);
    g_assert_cmphex(test_read32(s->f->t, cfg(1, 0, 0x1000)), ==, 0x56781234);
    slot_write(s, SLOT_CONTROL, POWER_OFF);
    loop_once(s->f->t->m.main_loop, 0);
    g_assert_cmpuint(s->unplugged, ==, 2);
    slot_done(s);
}

/* Devices come and go under a guest that writes slot registers at random. */
static void test_slot_random(void)
{
    struct slot *s = slot_setup(true);
    struct machine *m = &s->f->t->m;
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);
    struct pci_bus *behind = m->pci->dev[0x30]->secondary;
    for (unsigned i = 0; i < 20000; i++) {
        static const unsigned sizes[] = { 1, 2, 4 };
        unsigned size = sizes[g_rand_int_range(rand, 0, 3)];
        if (!behind->dev[0] && g_rand_int_range(rand, 0, 4) == 0)
            hot_add(s, "0.0");
        else if (behind->dev[0] && g_rand_int_range(rand, 0, 8) == 0)
            pci_request_unplug(behind->dev[0], NULL);
        mem_io_write(m->memory, cfg(0, 6, s->cap + g_rand_int_range(rand, 16, 28)), g_rand_int(rand), size);
        mem_io_write(m->memory, cfg(1, 0, g_rand_int_range(rand, 0, 0x100)), g_rand_int(rand), size);
        if (g_rand_int_range(rand, 0, 16) == 0)
            loop_once(m->main_loop, 0);
    }
    g_assert_cmpuint(s->unplugged, >, 100);
    slot_done(s);
}

/* Whatever is written where, configuration space keeps its shape and nothing is mapped over RAM. */
static void test_random_writes(void)
{
    struct fixture *f = setup();
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    add_fn(f, "3");
    struct device *port = device_new(&f->t->m, "pcie-root-port", NULL);
    port->id = g_strdup("rp1");
    g_assert_true(device_realize(port, NULL));
    struct device *d = device_new(&f->t->m, "test-fn", NULL);
    d->bus_name = g_strdup("rp1");
    g_assert_true(device_realize(d, NULL));
    for (unsigned i = 0; i < 20000; i++) {
        static const unsigned sizes[] = { 1, 2, 4 };
        uint64_t addr = cfg(g_rand_int_range(rand, 0, 3), g_rand_int_range(rand, 0, 5), 0);
        addr += g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 0, 0x100) : g_rand_int_range(rand, 0, 0x1000);
        mem_io_write(f->t->m.memory, addr, g_rand_int(rand), sizes[g_rand_int_range(rand, 0, 3)]);
    }
    g_assert_cmphex(read_cfg(f, 3, 0), ==, 0x56781234);
    g_assert_false(mapped(f, 0x4000));
    uint64_t val;
    g_assert_cmpint(mem_store_le64(f->t->m.memory, 0x8000, 42), ==, 0);
    g_assert_cmpint(mem_load_le64(f->t->m.memory, 0x8000, &val), ==, 0);
    g_assert_cmpuint(val, ==, 42);
    done(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pci/config-access", test_config_access);
    g_test_add_func("/pci/bars", test_bars);
    g_test_add_func("/pci/wide-bar", test_wide_bar);
    g_test_add_func("/pci/assign", test_assign);
    g_test_add_func("/pci/intx", test_intx);
    g_test_add_func("/pci/msi", test_msi);
    g_test_add_func("/pci/msix", test_msix);
    g_test_add_func("/pci/bridge", test_bridge);
    g_test_add_func("/pci/bad-places", test_bad_places);
    g_test_add_func("/pci/random-writes", test_random_writes);
    g_test_add_func("/pci/slot/life", test_slot_life);
    g_test_add_func("/pci/slot/power", test_slot_power);
    g_test_add_func("/pci/slot/refused", test_slot_refused);
    g_test_add_func("/pci/slot/requests", test_slot_requests);
    g_test_add_func("/pci/slot/functions", test_slot_functions);
    g_test_add_func("/pci/slot/random", test_slot_random);
    return g_test_run();
}
