/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The LPC bridge as ACPI and a kernel's drivers see it. */
#include "devices/misc/ich9.h"
#include "devices/pci/pci.h"
#include "devices/testing.h"

#define PM (ICH9_PMBASE)
#define TCO (PM + 0x60)
#define LPC_DEVFN 0xf8

struct fixture {
    struct test_machine *t;
    struct pci_bus *bus;
    struct device *lpc;
};

static unsigned no_map(unsigned slot, unsigned pin)
{
    return 0;
}

static void no_line(void *opaque, unsigned line, int level)
{
}

static struct fixture setup(void)
{
    struct fixture f = { .t = test_machine_new(1) };
    const struct pci_bus_irq irq = { .map = no_map, .set = no_line };
    f.bus = f.t->m.pci = pci_bus_new(&f.t->m, "pcie.0", &irq);
    f.lpc = test_device(f.t, "ich9-lpc", "addr", "1f.0", "multifunction", "on", NULL);
    ich9_setup(f.lpc);
    return f;
}

static void done(struct fixture *f)
{
    device_free(f->lpc);
    pci_bus_free(f->bus);
    test_machine_free(f->t);
}

static uint32_t config(struct fixture *f, unsigned off, unsigned len)
{
    return pci_bus_config_read(f->bus, 0, LPC_DEVFN, off, len);
}

static void set_config(struct fixture *f, unsigned off, unsigned len, uint32_t val)
{
    pci_bus_config_write(f->bus, 0, LPC_DEVFN, off, len, val);
}

static void test_config(void)
{
    struct fixture f = setup();
    g_assert_cmphex(config(&f, 0, 4), ==, 0x29188086);
    g_assert_cmphex(config(&f, 8, 4) >> 8, ==, 0x060100);
    g_assert_cmphex(config(&f, 0x0e, 1), ==, 0x80);
    g_assert_cmphex(config(&f, 0x40, 4), ==, PM | 1);
    /* The PM block follows its base, and goes when ACPI is disabled. */
    g_assert_cmphex(test_in(f.t, PM + ICH9_SMI_EN, 4), ==, 0x20);
    set_config(&f, 0x40, 4, 0xb000);
    g_assert_cmphex(test_in(f.t, PM + ICH9_SMI_EN, 4), ==, UINT32_MAX);
    g_assert_cmphex(test_in(f.t, 0xb000 + ICH9_SMI_EN, 4), ==, 0x20);
    set_config(&f, 0x44, 1, 0);
    g_assert_cmphex(test_in(f.t, 0xb000 + ICH9_SMI_EN, 4), ==, UINT32_MAX);
    test_out(f.t, ICH9_GPIOBASE + 0x0c, 0x12345678, 4);
    g_assert_cmphex(test_in(f.t, ICH9_GPIOBASE + 0x0e, 2), ==, 0x1234);
    g_assert_cmphex(test_read32(f.t, ICH9_RCBA + 0x3410), ==, 0x20);
    test_write32(f.t, ICH9_RCBA + 0x3410, 0);
    g_assert_cmphex(test_read32(f.t, ICH9_RCBA + 0x3410), ==, 0);
    set_config(&f, 0xf0, 4, 0);
    g_assert_cmphex(test_read32(f.t, ICH9_RCBA + 0x3410), ==, UINT32_MAX);
    done(&f);
}

static void test_pirqs(void)
{
    struct fixture f = setup();
    g_assert_cmpint(ich9_pirq_irq(f.lpc, 2), ==, 11);
    ich9_pci_set_irq(f.lpc, 0, 1);
    g_assert_cmpint(f.t->gsi_level[16], ==, 1);
    g_assert_cmpint(f.t->gsi_level[10], ==, 1);
    ich9_pci_set_irq(f.lpc, 1, 1); /* shares IRQ 10 */
    ich9_pci_set_irq(f.lpc, 0, 0);
    g_assert_cmpint(f.t->gsi_level[16], ==, 0);
    g_assert_cmpint(f.t->gsi_level[10], ==, 1);
    set_config(&f, 0x61, 1, 0x80); /* unrouted while up */
    g_assert_cmpint(f.t->gsi_level[10], ==, 0);
    g_assert_cmpint(f.t->gsi_level[17], ==, 1);
    g_assert_cmpint(ich9_pirq_irq(f.lpc, 1), ==, 0);
    set_config(&f, 0x61, 1, 5);
    g_assert_cmpint(f.t->gsi_level[5], ==, 1);
    set_config(&f, 0x61, 1, 0); /* not to the timer's */
    g_assert_cmpint(f.t->gsi_level[5], ==, 0);
    g_assert_cmpint(f.t->gsi_level[0], ==, 0);
    ich9_pci_set_irq(f.lpc, 7, 1);
    g_assert_cmpint(f.t->gsi_level[23], ==, 1);
    done(&f);
}

static void test_power_button(void)
{
    struct fixture f = setup();
    irq_pulse(&f.t->m.power_button);
    g_assert_cmpint(f.t->gsi_level[9], ==, 0); /* nobody asked for it */
    test_out(f.t, PM + 2, 0x0120, 2);
    g_assert_cmpint(f.t->gsi_level[9], ==, 0);
    test_outb(f.t, ICH9_APM_CNT, ICH9_ACPI_ENABLE);
    g_assert_cmphex(test_in(f.t, PM + ICH9_PM1_CNT, 2), ==, 1);
    g_assert_cmpint(f.t->gsi_level[9], ==, 1);
    g_assert_cmphex(test_in(f.t, PM, 2), ==, 0x100);
    test_out(f.t, PM, 0x100, 2);
    g_assert_cmphex(test_in(f.t, PM, 4), ==, 0x01200000);
    g_assert_cmpint(f.t->gsi_level[9], ==, 0);
    done(&f);
}

static void test_pm_timer(void)
{
    struct fixture f = setup();
    test_advance_ns(f.t, NS_PER_SEC);
    g_assert_cmpint(test_in(f.t, PM + ICH9_PM_TMR, 4), ==, 3579545);
    g_assert_cmphex(test_in(f.t, PM, 2), ==, 0);
    test_outb(f.t, ICH9_APM_CNT, ICH9_ACPI_ENABLE);
    test_out(f.t, PM + 2, 1, 2);
    test_advance_ns(f.t, 2 * NS_PER_SEC); /* bit 23 changes after 2.34 s */
    g_assert_cmphex(test_in(f.t, PM, 2), ==, 1);
    g_assert_cmpint(f.t->gsi_level[9], ==, 1);
    test_out(f.t, PM, 1, 2);
    g_assert_cmpint(f.t->gsi_level[9], ==, 0);
    test_advance_ns(f.t, 2 * NS_PER_SEC);
    g_assert_cmpint(test_in(f.t, PM + ICH9_PM_TMR, 4), ==, 5 * 3579545 % (1 << 24));
    g_assert_cmphex(test_in(f.t, PM, 2), ==, 1);
    done(&f);
}

static void test_sleep_and_reset(void)
{
    struct fixture f = setup();
    test_out(f.t, PM + ICH9_PM1_CNT, 0x2401, 2); /* S3 is not there */
    g_assert_cmpint(f.t->requests, ==, 0);
    g_assert_cmphex(test_in(f.t, PM, 2), ==, 0x8000);
    test_out(f.t, PM + ICH9_PM1_CNT, 0x2001, 2);
    g_assert_cmpint(f.t->request, ==, MACHINE_REQ_POWEROFF);
    test_outb(f.t, ICH9_RST_CNT, 0x02);
    g_assert_cmpint(f.t->requests, ==, 1);
    test_outb(f.t, ICH9_RST_CNT, 0x06);
    g_assert_cmpint(f.t->request, ==, MACHINE_REQ_RESET);
    done(&f);
}

static void test_watchdog(void)
{
    struct fixture f = setup();
    test_out(f.t, TCO + 0x12, 10, 2);
    test_out(f.t, TCO + 8, 0, 2); /* go */
    test_outb(f.t, TCO, 1);
    test_advance_ns(f.t, 3 * NS_PER_SEC);
    g_assert_cmpint(test_in(f.t, TCO, 2), ==, 5);
    test_outb(f.t, TCO, 1); /* kicked */
    test_advance_ns(f.t, 5 * NS_PER_SEC);
    g_assert_cmphex(test_in(f.t, TCO + 4, 2), ==, 0);
    test_advance_ns(f.t, 2 * NS_PER_SEC);
    g_assert_cmphex(test_in(f.t, TCO + 4, 2), ==, 8);
    test_advance_ns(f.t, 6 * NS_PER_SEC);
    g_assert_cmphex(test_in(f.t, TCO + 6, 2), ==, 6);
    g_assert_cmpint(f.t->requests, ==, 0); /* NO_REBOOT is still set */
    test_write32(f.t, ICH9_RCBA + 0x3410, 0);
    test_advance_ns(f.t, 12 * NS_PER_SEC);
    g_assert_cmpint(f.t->request, ==, MACHINE_REQ_RESET);
    test_out(f.t, TCO + 8, 0x800, 2);
    unsigned requests = f.t->requests;
    test_advance_ns(f.t, 100 * NS_PER_SEC);
    g_assert_cmpint(f.t->requests, ==, requests);
    done(&f);
}

static void test_hostile(void)
{
    struct fixture f = setup();
    uint32_t x = 777;
    for (unsigned n = 0; n < 100000; n++) {
        x = x * 1664525 + 1013904223;
        uint32_t val = x ^ x >> 11;
        unsigned size = 1u << (x >> 5) % 3;
        if (x >> 31) {
            test_out(f.t, PM + (x >> 8 & 0x7f), val, size);
        } else if (x >> 30) {
            set_config(&f, x >> 8 & 0xfc, 4, val);
            test_advance_ns(f.t, x & 0xffffff);
        } else {
            test_in(f.t, PM + (x >> 8 & 0x7f), size);
            ich9_pci_set_irq(f.lpc, x & 15, x >> 4 & 1);
        }
    }
    done(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ich9/config", test_config);
    g_test_add_func("/ich9/pirqs", test_pirqs);
    g_test_add_func("/ich9/power-button", test_power_button);
    g_test_add_func("/ich9/pm-timer", test_pm_timer);
    g_test_add_func("/ich9/sleep-and-reset", test_sleep_and_reset);
    g_test_add_func("/ich9/watchdog", test_watchdog);
    g_test_add_func("/ich9/hostile", test_hostile);
    return g_test_run();
}
