/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/fd.h"
#include "machine/clock.h"
#include "machine/fw_cfg.h"
#include "machine/memory.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

struct regs {
    struct mem_region region;
    uint8_t byte[16];
    unsigned reads, writes;
    uint64_t last_off;
    unsigned last_size;
};

static uint64_t regs_read(void *opaque, uint64_t off, unsigned size)
{
    struct regs *r = opaque;
    uint64_t v = 0;
    r->reads++;
    r->last_off = off;
    r->last_size = size;
    memcpy(&v, r->byte + off, size);
    return v;
}

static void regs_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct regs *r = opaque;
    r->writes++;
    r->last_off = off;
    r->last_size = size;
    memcpy(r->byte + off, &val, size);
}

static const struct mem_ops any_size = { .read = regs_read, .write = regs_write };
static const struct mem_ops only_4 = { .read = regs_read, .write = regs_write, .min_size = 4, .max_size = 4 };
static const struct mem_ops only_1 = { .read = regs_read, .write = regs_write, .min_size = 1, .max_size = 1 };

/* A byte in the middle of a register belongs to somebody else; the register is still whole. */
static void test_register_under_register(void)
{
    struct mem_space *s = mem_space_new("test", 1 << 16);
    struct regs dword = { 0 }, byte = { 0 };
    mem_region_init_io(&dword.region, "dword", &any_size, &dword, 4, NULL);
    mem_region_init_io(&byte.region, "byte", &only_1, &byte, 1, NULL);
    g_assert_cmpint(mem_region_add(s, &dword.region, 0xcf8, 0), ==, 0);
    g_assert_cmpint(mem_region_add(s, &byte.region, 0xcf9, 1), ==, 0);
    mem_io_write(s, 0xcf8, 0x80001234, 4);
    g_assert_cmpuint(dword.last_size, ==, 4);
    g_assert_cmpuint(byte.writes, ==, 0);
    g_assert_cmphex(mem_io_read(s, 0xcf8, 4), ==, 0x80001234);
    mem_io_write(s, 0xcf9, 6, 1);
    g_assert_cmpuint(dword.writes, ==, 1);
    g_assert_cmpuint(byte.byte[0], ==, 6);
    mem_region_remove(&dword.region);
    mem_region_remove(&byte.region);
    mem_space_free(s);
}

static void test_priorities(void)
{
    struct mem_space *s = mem_space_new("test", 1ULL << 40);
    struct mem_region ram, rom;
    struct regs dev = { 0 };
    g_autofree uint8_t *a = g_malloc0(0x10000), *b = g_malloc0(0x1000);
    b[0] = 0x5a;
    a[0x4000] = 0xa5;
    mem_region_init_ram(&ram, "ram", MEM_RAM, a, 0x10000, -1, 0);
    mem_region_init_ram(&rom, "rom", MEM_ROM, b, 0x1000, -1, 0);
    mem_region_init_io(&dev.region, "dev", &any_size, &dev, 16, NULL);
    g_assert_cmpint(mem_region_add(s, &ram, 0, 0), ==, 0);
    g_assert_cmpint(mem_region_add(s, &rom, 0x4000, 1), ==, 0);
    g_assert_cmpint(mem_region_add(s, &dev.region, 0x4ff8, 2), ==, 0);
    g_assert_cmpuint(mem_io_read(s, 0x4000, 1), ==, 0x5a);
    mem_io_write(s, 0x4000, 0xff, 1); /* ROM stays */
    g_assert_cmpuint(b[0], ==, 0x5a);
    mem_io_write(s, 0x4ff8, 0x1122334455667788, 8);
    g_assert_cmpuint(dev.writes, ==, 1);
    /* Behind the device RAM shows again, at the right offset. */
    a[0x5008] = 0x77;
    g_assert_cmpuint(mem_io_read(s, 0x5008, 1), ==, 0x77);
    uint64_t len;
    g_assert_true(mem_ram(s, 0x3ff0, 0x100, true, &len) == a + 0x3ff0);
    g_assert_cmpuint(len, ==, 0x10);
    g_assert_null(mem_ram(s, 0x4000, 1, true, &len));
    g_assert_nonnull(mem_ram(s, 0x4000, 1, false, &len));
    mem_region_remove(&rom);
    g_assert_cmpuint(mem_io_read(s, 0x4000, 1), ==, 0xa5);
    mem_region_hide(&dev.region);
    g_assert_cmpuint(mem_io_read(s, 0x4ff8, 4), ==, 0);
    g_assert_cmpint(mem_region_move(&dev.region, 0x20000), ==, 0);
    g_assert_cmpuint(mem_io_read(s, 0x20000, 4), ==, 0x55667788);
    g_assert_cmpint(mem_region_move(&dev.region, (1ULL << 40) - 8), ==, -ERANGE);
    mem_region_remove(&dev.region);
    mem_region_remove(&dev.region);
    mem_region_remove(&ram);
    g_assert_cmpuint(mem_io_read(s, 0, 4), ==, 0xffffffff);
    mem_space_free(s);
}

static void test_widths(void)
{
    struct mem_space *s = mem_space_new("test", 1 << 16);
    struct regs wide = { .byte = { 1, 2, 3, 4, 5, 6, 7, 8 } }, narrow = { .byte = { 9, 8, 7, 6 } };
    mem_region_init_io(&wide.region, "wide", &only_4, &wide, 16, NULL);
    mem_region_init_io(&narrow.region, "narrow", &only_1, &narrow, 16, NULL);
    mem_region_add(s, &wide.region, 0x100, 0);
    mem_region_add(s, &narrow.region, 0x110, 0);
    g_assert_cmpuint(mem_io_read(s, 0x101, 1), ==, 2);
    g_assert_cmpuint(wide.last_off, ==, 0);
    g_assert_cmpuint(wide.last_size, ==, 4);
    g_assert_cmpuint(mem_io_read(s, 0x100, 8), ==, 0x0807060504030201);
    g_assert_cmpuint(wide.reads, ==, 3);
    g_assert_cmpuint(mem_io_read(s, 0x110, 4), ==, 0x06070809);
    g_assert_cmpuint(narrow.reads, ==, 4);
    /* Half in one region, half in the next. */
    wide.byte[14] = 0xee;
    wide.byte[15] = 0xff;
    g_assert_cmpuint(mem_io_read(s, 0x10e, 4), ==, 0x0809ffee);
    /* The end of everything: the missing half reads as ones. */
    g_assert_cmpuint(mem_io_read(s, 0x11e, 4), ==, 0xffff0000);
    mem_io_write(s, 0x11e, 0xaabbccdd, 4);
    g_assert_cmpuint(narrow.byte[14], ==, 0xdd);
    g_assert_cmpuint(narrow.byte[15], ==, 0xcc);
    mem_region_remove(&wide.region);
    mem_region_remove(&narrow.region);
    mem_space_free(s);
}

static void count_written(void *opaque, uint64_t addr, uint64_t len)
{
    *(uint64_t *)opaque += len;
    g_assert_cmpuint(addr, <, 0x3000);
}

static void ignore_commit(void *opaque, const struct mem_range *ranges, size_t count)
{
}

static void test_dma(void)
{
    struct mem_space *s = mem_space_new("test", 1ULL << 40);
    struct mem_region low, high;
    struct regs dev = { 0 };
    uint64_t written = 0;
    g_autofree uint8_t *mem = g_malloc0(0x2000);
    struct mem_listener l = { .commit = ignore_commit, .written = count_written, .opaque = &written };
    mem_region_init_ram(&low, "low", MEM_RAM, mem, 0x1000, -1, 0);
    mem_region_init_ram(&high, "high", MEM_RAM, mem + 0x1000, 0x1000, -1, 0);
    mem_region_init_io(&dev.region, "dev", &any_size, &dev, 16, NULL);
    mem_region_add(s, &low, 0x1000, 0);
    mem_region_add(s, &high, 0x2000, 0);
    mem_region_add(s, &dev.region, 0x3000, 0);
    mem_space_listen(s, &l);
    char text[] = "across two regions", back[sizeof(text)];
    g_assert_cmpint(mem_write(s, 0x1ff8, text, sizeof(text)), ==, 0);
    g_assert_cmpuint(written, ==, sizeof(text));
    g_assert_cmpint(mem_read(s, 0x1ff8, back, sizeof(back)), ==, 0);
    g_assert_cmpstr(back, ==, text);
    /* Into a device, past the end, around the end of the space: nothing is written, not even the good part. */
    memset(mem, 0, 0x2000);
    g_assert_cmpint(mem_write(s, 0x2ff8, text, sizeof(text)), ==, -EFAULT);
    g_assert_cmpint(mem_write(s, UINT64_MAX - 4, text, sizeof(text)), ==, -EFAULT);
    g_assert_cmpuint(mem[0x1ff8], ==, 0);
    g_assert_cmpuint(dev.writes, ==, 0);
    mem_space_unlisten(s, &l);
    mem_region_remove(&low);
    mem_region_remove(&high);
    mem_region_remove(&dev.region);
    mem_space_free(s);
}

static void test_eventfds(void)
{
    struct mem_space *s = mem_space_new("test", 1 << 16);
    struct regs dev = { 0 };
    autofd fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    mem_region_init_io(&dev.region, "dev", &any_size, &dev, 16, NULL);
    mem_region_add(s, &dev.region, 0x100, 0);
    g_assert_cmpint(mem_eventfd_add(&dev.region, 4, 2, true, 7, fd), ==, 0);
    g_assert_cmpint(mem_eventfd_add(&dev.region, 4, 2, true, 7, fd), ==, -EEXIST);
    mem_io_write(s, 0x104, 7, 2);
    g_assert_cmpuint(eventfd_drain(fd), ==, 1);
    g_assert_cmpuint(dev.writes, ==, 0);
    mem_io_write(s, 0x104, 8, 2);
    mem_io_write(s, 0x104, 7, 4);
    g_assert_cmpuint(dev.writes, ==, 2);
    mem_eventfd_remove(&dev.region, 4, 2, true, 7, fd);
    mem_io_write(s, 0x104, 7, 2);
    g_assert_cmpuint(dev.writes, ==, 3);
    mem_region_remove(&dev.region);
    mem_space_free(s);
}

static void count_up(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void test_clock_stops(void)
{
    struct loop *l = loop_new("test");
    struct clock c;
    struct clock_timer t;
    unsigned fired = 0;
    clock_init(&c);
    clock_timer_init(&c, l, &t, count_up, &fired);
    clock_timer_arm(&t, 2 * NS_PER_MS);
    loop_once(l, 10);
    g_assert_cmpuint(fired, ==, 0); /* a stopped clock fires nothing */
    g_assert_cmpint(clock_now_ns(&c), ==, 0);
    clock_start(&c);
    while (!fired)
        loop_once(l, 1000);
    g_assert_cmpint(clock_now_ns(&c), >=, 2 * NS_PER_MS);
    clock_timer_arm(&t, clock_now_ns(&c) + NS_PER_MS);
    clock_stop(&c);
    int64_t at = clock_now_ns(&c);
    loop_once(l, 5);
    g_assert_cmpuint(fired, ==, 1);
    g_assert_cmpint(clock_now_ns(&c), ==, at);
    clock_start(&c);
    g_assert_cmpint(clock_now_ns(&c), <, at + 4 * NS_PER_MS + NS_PER_SEC);
    while (fired < 2)
        loop_once(l, 1000);
    clock_timer_done(&t);
    clock_done(&c);
    loop_free(l);
}

static void test_fw_cfg_directory(void)
{
    struct fw_cfg *f = fw_cfg_new();
    g_assert_cmpint(fw_cfg_set_file(f, "opt/zebra", "zz", 2), ==, 0);
    g_assert_cmpint(fw_cfg_set_file(f, "etc/apple", "a", 1), ==, 0);
    g_assert_cmpint(fw_cfg_set_file(f, "opt/zebra", "zzz", 3), ==, 0);
    struct fw_cfg_item dir = fw_cfg_get(f, FW_CFG_FILE_DIR);
    g_assert_cmpuint(dir.len, ==, 4 + 2 * 64);
    g_assert_cmpuint(dir.data[3], ==, 2);
    g_assert_cmpstr((const char *)dir.data + 4 + 8, ==, "etc/apple");
    g_assert_cmpuint(fw_cfg_get(f, 0x21).len, ==, 3);
    g_assert_cmpmem(fw_cfg_get(f, FW_CFG_SIGNATURE).data, 4, "QEMU", 4);
    g_assert_cmpuint(fw_cfg_get(f, 0x22).len, ==, 0);
    g_assert_cmpuint(fw_cfg_get(f, 0xffff).len, ==, 0);
    char name[FW_CFG_MAX_NAME + 1];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    g_assert_cmpint(fw_cfg_set_file(f, name, "", 0), ==, -ENAMETOOLONG);
    for (unsigned i = 0; i < FW_CFG_MAX_FILES - 2; i++) {
        g_snprintf(name, sizeof(name), "opt/file%u", i);
        g_assert_cmpint(fw_cfg_set_file(f, name, &i, 4), ==, 0);
    }
    g_assert_cmpint(fw_cfg_set_file(f, "one/more", "", 0), ==, -ENOSPC);
    fw_cfg_free(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memory/priorities", test_priorities);
    g_test_add_func("/memory/register-under-register", test_register_under_register);
    g_test_add_func("/memory/widths", test_widths);
    g_test_add_func("/memory/dma", test_dma);
    g_test_add_func("/memory/eventfds", test_eventfds);
    g_test_add_func("/clock/stops", test_clock_stops);
    g_test_add_func("/fw_cfg/directory", test_fw_cfg_directory);
    return g_test_run();
}
