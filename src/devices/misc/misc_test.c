/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fw_cfg with friendly and hostile descriptors, and the small devices. */
#include "devices/misc/cpu_hotplug.h"
#include "devices/misc/acpi_sleep.h"
#include "devices/testing.h"
#include "machine/chipset.h"

#include <endian.h>
#include <string.h>

#define DESCRIPTOR 0x1000u
#define BUFFER 0x2000u

static struct test_machine *fw_cfg_machine(void)
{
    struct test_machine *t = test_machine_new(1);
    fw_cfg_set_file(t->m.fw_cfg, "opt/greeting", "hello, guest", 12);
    fw_cfg_set_u16(t->m.fw_cfg, FW_CFG_NB_CPUS, 3);
    test_device(t, "fw_cfg", NULL);
    memset(t->ram, 0xcc, MIB);
    return t;
}

static void write_descriptor(struct test_machine *t, uint32_t control, uint32_t len, uint64_t addr)
{
    uint32_t head[2] = { htobe32(control), htobe32(len) };
    uint64_t tail = htobe64(addr);
    memcpy(t->ram + DESCRIPTOR, head, 8);
    memcpy(t->ram + DESCRIPTOR + 8, &tail, 8);
}

static void start_dma(struct test_machine *t, uint64_t descriptor)
{
    test_out(t, 0x514, htobe32(descriptor >> 32), 4);
    test_out(t, 0x518, htobe32((uint32_t)descriptor), 4);
}

static uint32_t dma(struct test_machine *t, uint32_t control, uint32_t len, uint64_t addr)
{
    uint32_t result;
    write_descriptor(t, control, len, addr);
    start_dma(t, DESCRIPTOR);
    memcpy(&result, t->ram + DESCRIPTOR, 4);
    return be32toh(result);
}

static void test_ports(void)
{
    struct test_machine *t = fw_cfg_machine();
    const char *want = "QEMU";
    for (int i = 0; i < 4; i++)
        g_assert_cmpint(test_inb(t, 0x511), ==, want[i]);
    g_assert_cmphex(test_inb(t, 0x511), ==, 0);
    test_out(t, 0x510, FW_CFG_NB_CPUS, 2);
    g_assert_cmphex(test_inb(t, 0x511), ==, 3);
    test_out(t, 0x510, FW_CFG_ID, 2);
    g_assert_cmphex(test_inb(t, 0x511), ==, 3); /* DMA is there */
    g_assert_cmphex(be32toh((uint32_t)test_in(t, 0x514, 4)), ==, 0x51454d55);
    g_assert_cmphex(be32toh((uint32_t)test_in(t, 0x518, 4)), ==, 0x20434647);
    test_out(t, 0x510, 0x3fff, 2);
    g_assert_cmphex(test_inb(t, 0x511), ==, 0);
    test_machine_free(t);
}

static void test_dma(void)
{
    struct test_machine *t = fw_cfg_machine();
    g_assert_cmphex(dma(t, 0x20 << 16 | 8 | 2, 5, BUFFER), ==, 0);
    g_assert_cmpmem(t->ram + BUFFER, 6, "hello\xcc", 6);
    g_assert_cmphex(dma(t, 4, 2, 0), ==, 0); /* skip */
    g_assert_cmphex(dma(t, 2, 5, BUFFER), ==, 0);
    g_assert_cmpmem(t->ram + BUFFER, 5, "guest", 5);
    g_assert_cmphex(dma(t, 2, 4, BUFFER), ==, 0); /* past the end: zeros */
    g_assert_cmpmem(t->ram + BUFFER, 5, "\0\0\0\0t", 5);
    test_machine_free(t);
}

static void test_hostile_dma(void)
{
    struct test_machine *t = fw_cfg_machine();
    const uint32_t select = 0x20 << 16 | 8;
    /* Targets that are no RAM, end behind it, or wrap around. */
    g_assert_cmphex(dma(t, select | 2, 5, 0xfee00000), ==, 1);
    g_assert_cmphex(dma(t, select | 2, 12, MIB - 4), ==, 1);
    g_assert_cmphex(t->ram[MIB - 1], ==, 0xcc);
    g_assert_cmphex(dma(t, select | 2, 12, UINT64_MAX - 3), ==, 1);
    g_assert_cmphex(dma(t, select | 2, UINT32_MAX, BUFFER), ==, 1);
    g_assert_cmphex(dma(t, select | 2, 256 * KIB, BUFFER), ==, 1);
    /* Nothing can be written, skipping far is no overflow, and doing nothing is fine. */
    g_assert_cmphex(dma(t, select | 16, 5, BUFFER), ==, 1);
    g_assert_cmphex(dma(t, select | 4, UINT32_MAX, 0), ==, 0);
    g_assert_cmphex(dma(t, 4, UINT32_MAX, 0), ==, 0);
    g_assert_cmphex(dma(t, 2, 4, BUFFER), ==, 0);
    g_assert_cmpmem(t->ram + BUFFER, 4, "\0\0\0\0", 4);
    g_assert_cmphex(dma(t, 0, UINT32_MAX, BUFFER), ==, 0);
    /* The descriptor itself lies nowhere, or is overwritten by what it fetches. */
    start_dma(t, UINT64_MAX - 7);
    start_dma(t, MIB - 8);
    start_dma(t, 0xfed00000);
    g_assert_cmphex(dma(t, select | 2, 12, DESCRIPTOR), ==, 0);
    g_assert_cmpmem(t->ram + DESCRIPTOR + 4, 8, "o, guest", 8);
    test_machine_free(t);
}

static void test_exits(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "isa-debug-exit", NULL);
    test_device(t, "isa-debug-exit", "iobase", "0xf4", "iosize", "4", NULL);
    test_device(t, "pvpanic", NULL);
    test_device(t, "port92", NULL);
    test_outb(t, 0x501, 0x10);
    g_assert_cmpint(t->request, ==, MACHINE_REQ_DEBUG_EXIT);
    g_assert_cmpint(t->request_code, ==, 0x21);
    test_out(t, 0xf4, 0, 4);
    g_assert_cmpint(t->request_code, ==, 1);
    g_assert_cmphex(test_inb(t, 0x505), ==, 3);
    test_outb(t, 0x505, 1);
    g_assert_cmpint(t->request, ==, MACHINE_REQ_PANIC);
    test_outb(t, 0x505, 2);
    g_assert_cmpint(t->request, ==, MACHINE_REQ_CRASH_LOADED);
    unsigned requests = t->requests;
    test_outb(t, 0x505, 4);
    test_outb(t, 0x92, 0);
    g_assert_cmpint(t->requests, ==, requests);
    test_outb(t, 0x92, 1);
    g_assert_cmpint(t->request, ==, MACHINE_REQ_RESET);
    test_machine_free(t);
}

static void test_testdev(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "pc-testdev", NULL);
    test_out(t, 0xe0, 0x11223344, 4);
    g_assert_cmphex(test_inb(t, 0xe1), ==, 0x33);
    test_out(t, 0xe2, 0xaabb, 2);
    g_assert_cmphex(test_in(t, 0xe0, 4), ==, 0xaabb3344);
    test_outb(t, 0x2000 + 17, 1);
    g_assert_cmpint(t->gsi_level[17], ==, 1);
    test_outb(t, 0x2000 + 17, 0);
    g_assert_cmpint(t->gsi_level[17], ==, 0);
    test_write32(t, 0xff00fffc, 0x12345678);
    g_assert_cmphex(test_read32(t, 0xff00fffc), ==, 0x12345678);
    test_machine_free(t);
}

static void test_acpi_sleep(void)
{
    struct test_machine *t = test_machine_new(1);
    const uint16_t base = ACPI_SLEEP_IOBASE;
    test_device(t, "acpi-sleep", NULL);
    irq_pulse(&t->m.power_button);
    g_assert_cmpint(t->gsi_level[9], ==, 1);
    g_assert_cmphex(test_inb(t, base + ACPI_SLEEP_EVT), ==, 1);
    g_assert_cmpint(t->gsi_level[9], ==, 0);
    g_assert_cmphex(test_inb(t, base + ACPI_SLEEP_EVT), ==, 0);
    test_outb(t, base + ACPI_SLEEP_CTL, 3 << 2 | 0x20);
    g_assert_cmphex(test_inb(t, base + ACPI_SLEEP_STS), ==, 0x80);
    test_outb(t, base + ACPI_SLEEP_CTL, 5 << 2);
    test_outb(t, base + ACPI_SLEEP_RESET, 1);
    g_assert_cmpint(t->requests, ==, 0);
    test_outb(t, base + ACPI_SLEEP_CTL, 5 << 2 | 0x20);
    g_assert_cmpint(t->request, ==, MACHINE_REQ_POWEROFF);
    test_outb(t, base + ACPI_SLEEP_RESET, 0x42);
    g_assert_cmpint(t->request, ==, MACHINE_REQ_RESET);
    test_machine_free(t);
}

/* --- CPU hot plug --- */

#define CPHP CPU_HOTPLUG_BASE

struct cpu_log {
    unsigned ejected, reported, index;
    unsigned reported_before; /* the ejection */
    uint32_t event, status;
};

static void on_ejected(void *opaque, unsigned index)
{
    struct cpu_log *l = opaque;
    l->ejected++;
    l->index = index;
    l->reported_before = l->reported;
}

static void on_reported(void *opaque, unsigned index, uint32_t event, uint32_t status)
{
    struct cpu_log *l = opaque;
    l->reported++;
    l->index = index;
    l->event = event;
    l->status = status;
}

static void count_pulse(void *opaque, int n, int level)
{
    *(unsigned *)opaque += level;
}

static void test_cpu_hotplug(void)
{
    struct test_machine *t = test_machine_new(4);
    struct cpu_log log = { 0 };
    unsigned pulses = 0;
    t->m.observer = (struct machine_observer){ .cpu_ejected = on_ejected, .cpu_reported = on_reported, .opaque = &log };
    t->m.vcpus[2]->present = t->m.vcpus[3]->present = false;
    t->m.vcpus[2]->apic_id = 0x55;
    test_device(t, CPU_HOTPLUG_TYPE, NULL);
    t->m.cpu_event = (struct irq_line){ .set = count_pulse, .opaque = &pulses };
    static const uint8_t present[] = { 1, 1, 0, 0, 0 };
    for (unsigned i = 0; i < 5; i++) {
        test_out(t, CPHP, i, 4);
        g_assert_cmphex(test_inb(t, CPHP + 4), ==, present[i]);
    }
    /* One comes: the event is found by the command, and cleared. */
    t->m.vcpus[2]->present = true;
    cpu_hotplug_inserted(&t->m, 2);
    g_assert_cmpuint(pulses, ==, 1);
    test_out(t, CPHP, 0, 4);
    test_outb(t, CPHP + 5, 0);
    g_assert_cmpuint(test_in(t, CPHP + 8, 4), ==, 2);
    g_assert_cmphex(test_inb(t, CPHP + 4), ==, 3);
    test_outb(t, CPHP + 4, 2);
    g_assert_cmphex(test_inb(t, CPHP + 4), ==, 1);
    test_outb(t, CPHP + 5, 3);
    g_assert_cmphex(test_in(t, CPHP + 8, 4), ==, 0x55);
    /* It is asked back, reported on, ejected; the first vCPU never is. */
    cpu_hotplug_request(&t->m, 2);
    g_assert_cmphex(test_inb(t, CPHP + 4), ==, 5);
    test_outb(t, CPHP + 5, 1);
    test_out(t, CPHP + 8, 3, 4);
    test_outb(t, CPHP + 5, 2);
    test_out(t, CPHP + 8, 0x84, 4);
    test_outb(t, CPHP + 4, 4 | 8);
    test_out(t, CPHP, 0, 4);
    test_outb(t, CPHP + 4, 8);
    loop_once(t->m.main_loop, 0);
    g_assert_cmpuint(log.ejected, ==, 1);
    g_assert_cmpuint(log.reported, ==, 1);
    g_assert_cmpuint(log.reported_before, ==, 1);
    g_assert_true(log.index == 2 && log.event == 3 && log.status == 0x84);
    test_machine_free(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fw_cfg/ports", test_ports);
    g_test_add_func("/fw_cfg/dma", test_dma);
    g_test_add_func("/fw_cfg/hostile", test_hostile_dma);
    g_test_add_func("/misc/exits", test_exits);
    g_test_add_func("/misc/testdev", test_testdev);
    g_test_add_func("/misc/acpi-sleep", test_acpi_sleep);
    g_test_add_func("/misc/cpu-hotplug", test_cpu_hotplug);
    return g_test_run();
}
