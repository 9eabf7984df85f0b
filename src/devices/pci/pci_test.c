/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PCI core as guests use it: configuration by both ways, BARs, interrupts, bridges, what
 * hostile writes do. */
#include "devices/pci/pci_testing.h"

static void test_config_access(void)
{
    struct pci_bed *f = pci_bed_new();
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
    pci_bed_free(f);
}

static void test_bars(void)
{
    struct pci_bed *f = pci_bed_new();
    struct test_fn *a = add_fn(f, "3");
    write_cfg(f, 3, 0x10, 0xffffffff);
    g_assert_cmphex(read_cfg(f, 3, 0x10), ==, (uint32_t) ~(BAR_SIZE - 1));
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
    pci_bed_free(f);
}

static void test_wide_bar(void)
{
    struct pci_bed *f = pci_bed_new();
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
    pci_bed_free(f);
}

static void test_assign(void)
{
    struct pci_bed *f = pci_bed_new();
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
    pci_bed_free(f);
}

static void test_intx(void)
{
    struct pci_bed *f = pci_bed_new();
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
    pci_bed_free(f);
}

static void test_msi(void)
{
    struct pci_bed *f = pci_bed_new();
    struct test_fn *a =
        (struct test_fn *)test_device(f->t, "test-fn", "addr", "3", "msi", "on", NULL);
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
    pci_bed_free(f);
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
    struct pci_bed *f = pci_bed_new();
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
    pci_bed_free(f);
}

static void test_bridge(void)
{
    struct pci_bed *f = pci_bed_new();
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
    write_cfg(f, 6, 0x18,
              0x00ff0501); /* a guest may number as it likes, but not the root bus anew */
    g_assert_cmphex(test_read32(f->t, cfg(5, 0, 0)), ==, 0x56781234);
    g_assert_cmphex(test_read32(f->t, cfg(6, 0, 0)), ==, 0xffffffff);
    pci_bed_free(f);
}

static void expect_error(struct pci_bed *f, const char *addr, const char *bus, const char *word)
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
    struct pci_bed *f = pci_bed_new();
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
    pci_bed_free(f);
}

/* Whatever is written where, configuration space keeps its shape and nothing is mapped over RAM. */
static void test_random_writes(void)
{
    struct pci_bed *f = pci_bed_new();
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    add_fn(f, "3");
    struct device *port = device_new(&f->t->m, "pcie-root-port", NULL);
    port->id = g_strdup("rp1");
    g_assert_true(device_realize(port, NULL));
    struct device *d = device_new(&f->t->m, "test-fn", NULL);
    d->bus_name = g_strdup("rp1");
    g_assert_true(device_realize(d, NULL));
    for (unsigned i = 0; i < 20000; i++) {
        static const unsigned sizes[] = {1, 2, 4};
        uint64_t addr = cfg(g_rand_int_range(rand, 0, 3), g_rand_int_range(rand, 0, 5), 0);
        addr += g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 0, 0x100)
                                             : g_rand_int_range(rand, 0, 0x1000);
        mem_io_write(f->t->m.memory, addr, g_rand_int(rand), sizes[g_rand_int_range(rand, 0, 3)]);
    }
    g_assert_cmphex(read_cfg(f, 3, 0), ==, 0x56781234);
    g_assert_false(mapped(f, 0x4000));
    uint64_t val;
    g_assert_cmpint(mem_store_le64(f->t->m.memory, 0x8000, 42), ==, 0);
    g_assert_cmpint(mem_load_le64(f->t->m.memory, 0x8000, &val), ==, 0);
    g_assert_cmpuint(val, ==, 42);
    pci_bed_free(f);
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
    return g_test_run();
}
