/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Slots of root ports as guests use them: devices that come and go.
 *
 * Spec      PCI Express Base 3.0, 6.7 and 7.8.
 */
#include "devices/pci/pci_testing.h"

#define SLOT_CONTROL 24 /* offsets in the express capability */
#define SLOT_STATUS  26
#define POWER_ON     0x0100 /* indicator on, controller on */
#define POWER_OFF    0x0700 /* both off */
#define BLINK        0x0200
#define ENABLE       0x0039 /* interrupts of button, presence and command */

struct slot {
    struct pci_bed *f;
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
    s->f = pci_bed_new();
    m = &s->f->t->m;
    m->observer = (struct machine_observer){.unplugged = on_unplugged, .opaque = s};
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
    pci_bed_free(s->f);
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
    g_assert_cmphex(slot_read(s, SLOT_STATUS), ==,
                    0x40); /* presence is not the guest's to change */
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
        static const unsigned sizes[] = {1, 2, 4};
        unsigned size = sizes[g_rand_int_range(rand, 0, 3)];
        if (!behind->dev[0] && g_rand_int_range(rand, 0, 4) == 0)
            hot_add(s, "0.0");
        else if (behind->dev[0] && g_rand_int_range(rand, 0, 8) == 0)
            pci_request_unplug(behind->dev[0], NULL);
        mem_io_write(m->memory, cfg(0, 6, s->cap + g_rand_int_range(rand, 16, 28)),
                     g_rand_int(rand), size);
        mem_io_write(m->memory, cfg(1, 0, g_rand_int_range(rand, 0, 0x100)), g_rand_int(rand),
                     size);
        if (g_rand_int_range(rand, 0, 16) == 0)
            loop_once(m->main_loop, 0);
    }
    g_assert_cmpuint(s->unplugged, >, 100);
    slot_done(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pci/slot/life", test_slot_life);
    g_test_add_func("/pci/slot/power", test_slot_power);
    g_test_add_func("/pci/slot/refused", test_slot_refused);
    g_test_add_func("/pci/slot/requests", test_slot_requests);
    g_test_add_func("/pci/slot/functions", test_slot_functions);
    g_test_add_func("/pci/slot/random", test_slot_random);
    return g_test_run();
}
