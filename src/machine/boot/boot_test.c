/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct boot: the memory map, good images of every kind, and what hostile ones get. */
#include "machine/acpi/acpi.h"
#include "machine/boot/boot.h"
#include "machine/testing.h"

#define BZ_SIZE 0x3000
#define ELF_SIZE 0x2000

static const struct boot_reserved reserved[] = { { 0xb0000000u, 256 * MIB }, { 0 } };

/* --- memory map --- */

static void check_map(const struct e820_map *map, uint64_t ram)
{
    uint64_t sum = 0, end = 0;
    for (unsigned i = 0; i < map->count; i++) {
        g_assert_cmphex(map->entry[i].base, >=, end);
        g_assert_cmpuint(map->entry[i].size, >, 0);
        end = map->entry[i].base + map->entry[i].size;
        if (map->entry[i].type == E820_RAM)
            sum += map->entry[i].size;
    }
    g_assert_cmpuint(sum, ==, ram);
}

static void test_e820(void)
{
    static const struct {
        uint64_t low, high;
    } rows[] = { { 64 * MIB, 0 }, { 2 * GIB, 0 }, { 2816 * MIB, 0 }, { 2 * GIB, 2 * GIB }, { 2 * GIB, 62 * GIB } };
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        struct e820_map map = { 0 };
        e820_add(&map, 0, rows[i].low, E820_RAM);
        if (rows[i].high)
            e820_add(&map, 4 * GIB, rows[i].high, E820_RAM);
        e820_add(&map, 0x9fc00, MIB - 0x9fc00, E820_RESERVED);
        e820_add(&map, 0xb0000000, 256 * MIB, E820_RESERVED);
        check_map(&map, rows[i].low + rows[i].high - (MIB - 0x9fc00));
        g_assert_true(e820_is_ram(&map, 0, 0x9fc00));
        g_assert_false(e820_is_ram(&map, 0x9f000, 0x1000));
        g_assert_true(e820_is_ram(&map, MIB, rows[i].low - MIB));
        g_assert_false(e820_is_ram(&map, rows[i].low - 1, 2));
        g_assert_cmpint(e820_is_ram(&map, 4 * GIB, 4096), ==, rows[i].high > 0);
    }
}

static void test_e820_cuts(void)
{
    struct e820_map map = { 0 };
    e820_add(&map, 0, 0x10000, E820_RAM);
    e820_add(&map, 0x4000, 0x1000, E820_RESERVED);
    e820_add(&map, 0x0, 0x1000, E820_RESERVED);
    e820_add(&map, 0xf000, 0x1000, E820_ACPI);
    check_map(&map, 0x10000 - 0x3000);
    e820_add(&map, 0, 0x20000, E820_RESERVED);
    g_assert_cmpuint(map.count, ==, 1);
    for (unsigned i = 0; i < 100; i++)
        e820_add(&map, 0x100000 + i * 0x2000, 0x1000, E820_RAM);
    g_assert_cmpuint(map.count, <=, E820_MAX);
}

/* --- images --- */

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

static void make_bzimage(uint8_t *f)
{
    memset(f, 0x90, BZ_SIZE);
    memset(f, 0, 0x400);
    f[0x1f1] = 1; /* setup sectors */
    put16(f + 0x1fe, 0xaa55);
    f[0x201] = 0x66;
    put32(f + 0x202, 0x53726448);
    put16(f + 0x206, 0x020f);
    f[0x211] = 1;
    put32(f + 0x22c, 0x7fffffff);
    put16(f + 0x236, 1); /* 64-bit entry */
    put32(f + 0x238, 100);
    put64(f + 0x258, 0x1000000);
    put32(f + 0x260, 0x1000000);
}

static bool boot_with(struct machine *m, const char *kernel, const char *initrd, const char *append,
                      struct boot_image *b, char **ret_message)
{
    g_autoptr(GError) error = NULL;
    *b = (struct boot_image){ .append = append, .initrd = initrd, .rsdp_gpa = 0xe0000 };
    e820_add(&b->map, 0, m->ram_below_4g, E820_RAM);
    e820_add(&b->map, 0x9fc00, MIB - 0x9fc00, E820_RESERVED);
    bool ok = boot_file_open(&b->kernel, "-kernel", kernel, &error);
    if (ok) {
        ok = boot_image_load(m, b, &error) && boot_set_entry(m, b, &error);
        boot_file_close(&b->kernel);
    }
    *ret_message = error ? g_strdup(error->message) : NULL;
    g_assert_cmpint(ok, ==, !error);
    return ok;
}

static uint64_t peek(struct machine *m, uint64_t gpa, unsigned size)
{
    uint64_t v = 0;
    g_assert_cmpint(mem_read(m->memory, gpa, &v, size), ==, 0);
    return v;
}

static void assert_text(struct machine *m, uint64_t gpa, const char *text)
{
    char buf[256];
    g_assert_cmpint(mem_read(m->memory, gpa, buf, strlen(text) + 1), ==, 0);
    g_assert_cmpstr(buf, ==, text);
}

static void test_bzimage(void)
{
    uint8_t f[BZ_SIZE], initrd[5000];
    make_bzimage(f);
    memset(initrd, 0x5a, sizeof(initrd));
    struct machine *m = test_machine(64 * MIB, 1);
    struct boot_image b;
    g_autofree char *message = NULL;
    g_assert_true(boot_with(m, test_file(0, f, sizeof(f)), test_file(1, initrd, sizeof(initrd)), "quiet", &b,
                            &message));
    const struct cpu_arch_state *s = test_vcpu_state(m->vcpus[0]);
    g_assert_cmphex(s->rip, ==, 0x100200);
    g_assert_cmphex(s->efer, ==, 0x500);
    g_assert_cmphex(s->cr0 & 0x80000001, ==, 0x80000001);
    g_assert_true(s->seg[1].l);
    uint64_t zp = s->gpr[6];
    g_assert_cmphex(peek(m, zp + 0x202, 4), ==, 0x53726448);
    g_assert_cmphex(peek(m, zp + 0x070, 8), ==, 0xe0000);
    g_assert_cmpuint(peek(m, zp + 0x1e8, 1), ==, b.map.count);
    assert_text(m, peek(m, zp + 0x228, 4), "quiet");
    uint64_t image = peek(m, zp + 0x218, 4), size = peek(m, zp + 0x21c, 4);
    g_assert_cmpuint(size, ==, sizeof(initrd));
    g_assert_cmphex(image % 4096, ==, 0);
    g_assert_cmphex(image + size, <=, 64 * MIB);
    g_assert_cmphex(peek(m, image + size - 1, 1), ==, 0x5a);
    g_assert_cmphex(peek(m, 0x100000, 1), ==, 0x90);
    g_assert_cmpuint(peek(m, peek(m, zp + 0x250, 8) + 8, 4), ==, 9); /* setup data: RNG seed */
    /* The page tables map what the kernel needs, one to one. */
    uint64_t pml4e = peek(m, s->cr3, 8), pdpte = peek(m, pml4e & ~0xfffULL, 8);
    g_assert_cmphex(peek(m, (pdpte & ~0xfffULL) + 8, 8), ==, 0x200083);
    test_machine_free(m);
}

static void test_bzimage_32(void)
{
    uint8_t f[BZ_SIZE];
    make_bzimage(f);
    put16(f + 0x236, 0);
    struct machine *m = test_machine(64 * MIB, 1);
    struct boot_image b;
    g_autofree char *message = NULL;
    g_assert_true(boot_with(m, test_file(0, f, sizeof(f)), NULL, "", &b, &message));
    const struct cpu_arch_state *s = test_vcpu_state(m->vcpus[0]);
    g_assert_cmphex(s->rip, ==, 0x100000);
    g_assert_cmphex(s->efer, ==, 0);
    g_assert_cmphex(s->cr0 & 0x80000001, ==, 1);
    test_machine_free(m);
}

struct bad_bzimage {
    unsigned off, size;
    uint64_t val;
    const char *word; /* in the message; NULL: it boots all the same */
};

static void test_bzimage_hostile(void)
{
    static const struct bad_bzimage rows[] = {
        { 0x1f1, 1, 0xff, "truncated" },         { 0x206, 2, 0x0201, "protocol" },
        { 0x211, 1, 0, "protocol" },             { 0x201, 1, 0, "setup header" },
        { 0x260, 4, 0xffffffff, "unpacks" },     { 0x258, 8, UINT64_MAX, "unpacks" },
        { 0x238, 4, 3, "command line" },         { 0x238, 4, 0xffffffff, NULL },
        { 0x22c, 4, 0, "initrd" },               { 0x22c, 4, 0x100000, "initrd" },
        { 0x22c, 4, 0xffffffff, NULL },          { 0x201, 1, 0xff, NULL },
        { 0x1fe, 2, 0, "not a kernel" },         { 0x202, 4, 0, "not a kernel" },
    };
    struct machine *m = test_machine(64 * MIB, 1);
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        uint8_t f[BZ_SIZE];
        struct boot_image b;
        g_autofree char *message = NULL;
        make_bzimage(f);
        memcpy(f + rows[i].off, &rows[i].val, rows[i].size);
        bool ok = boot_with(m, test_file(0, f, sizeof(f)), test_file(1, "initrd", 6), "quiet", &b, &message);
        g_assert_cmpint(ok, ==, !rows[i].word);
        if (rows[i].word)
            g_assert_nonnull(strstr(message, rows[i].word));
    }
    test_machine_free(m);
}

static void test_bad_files(void)
{
    struct machine *m = test_machine(64 * MIB, 1);
    struct boot_image b;
    uint8_t f[BZ_SIZE];
    char *message;
    make_bzimage(f);
    g_assert_false(boot_with(m, "/nonexistent/vmlinuz", NULL, "", &b, &message));
    g_assert_nonnull(strstr(message, "/nonexistent/vmlinuz"));
    g_free(message);
    g_assert_false(boot_with(m, "/", NULL, "", &b, &message));
    g_assert_nonnull(strstr(message, "not a regular file"));
    g_free(message);
    g_assert_false(boot_with(m, test_file(0, "", 0), NULL, "", &b, &message));
    g_assert_nonnull(strstr(message, "empty"));
    g_free(message);
    g_assert_false(boot_with(m, test_file(0, "#!/bin/sh\n", 10), NULL, "", &b, &message));
    g_assert_nonnull(strstr(message, "not a kernel"));
    g_free(message);
    g_assert_false(boot_with(m, test_file(0, f, sizeof(f)), "/nonexistent/initrd", "", &b, &message));
    g_assert_nonnull(strstr(message, "-initrd"));
    g_free(message);
    for (size_t len = 1; len < sizeof(f); len = len * 3 / 2 + 1) {
        bool ok = boot_with(m, test_file(0, f, len), NULL, "", &b, &message);
        g_assert_cmpint(ok, ==, len > 0x400 + 0x200);
        g_free(message);
    }
    test_machine_free(m);
}

/* An ELF file with one segment at 2 MiB and a note segment. */
static void make_elf(uint8_t *f, bool is_64)
{
    memset(f, 0, ELF_SIZE);
    memcpy(f, "\177ELF", 4);
    f[4] = is_64 ? 2 : 1;
    f[5] = f[6] = 1;
    put16(f + 16, 2);
    put16(f + 18, is_64 ? 62 : 3);
    put32(f + 20, 1);
    unsigned head = is_64 ? 64 : 52, row = is_64 ? 56 : 32;
    put32(f + 24, 0x200010); /* entry */
    put32(f + (is_64 ? 32 : 28), head);
    put16(f + (is_64 ? 54 : 42), (uint16_t)row);
    put16(f + (is_64 ? 56 : 44), 2);
    uint8_t *ph = f + head;
    static const uint32_t values[2][6] = {
        { 1, 0x1000, 0x200000, 0x200000, 0x800, 0x3000 }, /* load: off, vaddr, paddr, in file, in memory */
        { 4, 0x400, 0, 0, 20, 20 },                       /* note */
    };
    for (unsigned i = 0; i < 2; i++, ph += row) {
        put32(ph, values[i][0]);
        for (unsigned k = 1; k < 6; k++)
            put32(ph + (is_64 ? 8 * k : 4 * k), values[i][k]);
    }
    put32(f + 0x400, 4);
    put32(f + 0x404, 4);
    put32(f + 0x408, 18);
    memcpy(f + 0x40c, "Xen", 4);
    put32(f + 0x410, 0x200020);
    memset(f + 0x1000, 0xcc, 0x1000);
}

static void test_pvh(void)
{
    uint8_t f[ELF_SIZE];
    make_elf(f, true);
    struct machine *m = test_machine(64 * MIB, 1);
    struct boot_image b;
    g_autofree char *message = NULL;
    mem_store_le64(m->memory, 0x200800, UINT64_MAX);
    g_assert_true(boot_with(m, test_file(0, f, sizeof(f)), test_file(1, "initrd", 6), "quiet", &b, &message));
    const struct cpu_arch_state *s = test_vcpu_state(m->vcpus[0]);
    g_assert_cmphex(s->rip, ==, 0x200020);
    g_assert_cmphex(s->cr0 & 0x80000001, ==, 1);
    uint64_t info = s->gpr[3];
    g_assert_cmphex(peek(m, info, 4), ==, 0x336ec578);
    g_assert_cmpuint(peek(m, info + 12, 4), ==, 1);
    uint64_t module = peek(m, info + 16, 8);
    assert_text(m, peek(m, info + 24, 8), "quiet");
    g_assert_cmphex(peek(m, info + 32, 8), ==, 0xe0000);
    g_assert_cmpuint(peek(m, info + 48, 4), ==, b.map.count);
    g_assert_cmphex(peek(m, peek(m, module, 8), 4), ==, 0x74696e69); /* "init" */
    g_assert_cmpuint(peek(m, module + 8, 8), ==, 6);
    g_assert_cmphex(peek(m, 0x2007ff, 1), ==, 0xcc);
    g_assert_cmphex(peek(m, 0x200800, 8), ==, 0); /* zeroed behind the file's part */
    test_machine_free(m);
}

static void test_elf_hostile(void)
{
    static const struct bad_bzimage rows[] = {
        { 4, 1, 3, "neither 32 nor 64" },           { 5, 1, 2, "little-endian" },
        { 16, 2, 1, "program headers" },            { 54, 2, 55, "program headers" },
        { 56, 2, 0, "segments" },                   { 56, 2, 0xffff, "segments" },
        { 32, 8, UINT64_MAX, "truncated" },         { 32, 8, ELF_SIZE - 8, "truncated" },
        { 64 + 8, 8, UINT64_MAX, "truncated" },     { 64 + 24, 8, UINT64_MAX, "wraps" },
        { 64 + 24, 8, 0x1000, "0x1000" },           { 64 + 24, 8, 0xf0000000, "does not fit" },
        { 64 + 32, 8, UINT64_MAX, "larger" },       { 64 + 32, 8, 0x2000, "truncated" },
        { 64 + 40, 8, 1ULL << 40, "does not fit" }, { 64, 4, 2, "nothing to load" },
        { 0x400, 4, UINT32_MAX, "PVH" },            { 0x404, 4, UINT32_MAX, "PVH" },
        { 0x408, 4, 17, "PVH" },                    { 64 + 56 + 32, 8, UINT64_MAX, "PVH" },
    };
    struct machine *m = test_machine(64 * MIB, 1);
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        uint8_t f[ELF_SIZE];
        struct boot_image b;
        g_autofree char *message = NULL;
        make_elf(f, true);
        memcpy(f + rows[i].off, &rows[i].val, rows[i].size);
        g_assert_false(boot_with(m, test_file(0, f, sizeof(f)), NULL, "", &b, &message));
        g_assert_nonnull(strstr(message, rows[i].word));
    }
    test_machine_free(m);
}

/* A note segment of `size` bytes at 0x400, in rows of 4 bytes; the entry of a good one is 0x200020. */
struct note_case {
    uint32_t size, align, words[10];
    const char *word; /* in the message; NULL: it boots */
};

#define XEN 0x006e6558 /* "Xen" */

static void test_elf_notes(void)
{
    static const struct note_case rows[] = {
        { 20, 4, { 4, 4, 18, XEN, 0x200020 }, NULL },
        { 40, 4, { 1, 1, 18, 0, 0, 4, 4, 18, XEN, 0x200020 }, NULL }, /* the second of two */
        { 39, 4, { 1, 1, 18, 0, 0, 4, 4, 18, XEN, 0x200020 }, "longer" },
        { 24, 8, { 4, 8, 18, XEN, 0x200020 }, NULL }, /* offsets are padded, not lengths */
        { 40, 8, { 4, 4, 17, XEN, 0, 0, 4, 4, 18, XEN }, "longer" },
        { 19, 4, { 4, 4, 18, XEN, 0x200020 }, "longer" },
        { 17, 4, { 4, 4, 18, XEN, 0x200020 }, "longer" },
        { 16, 4, { 4, 4, 18, XEN }, "longer" },
        { 19, 4, { 4, 3, 18, XEN, 0x200020 }, "neither" }, /* an entry of 3 bytes */
        { 20, 4, { 0, UINT32_MAX, 18, 0, 0 }, "longer" },
        { 20, 4, { UINT32_MAX, 0, 18, 0, 0 }, "longer" },
        { 12, 4, { 0, 0, 18 }, "neither" },
        { 11, 4, { 4, 4, 18 }, "neither" },
        { 0, 4, { 4, 4, 18, XEN, 0x200020 }, "neither" },
    };
    struct machine *m = test_machine(64 * MIB, 1);
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        uint8_t f[ELF_SIZE];
        struct boot_image b;
        g_autofree char *message = NULL;
        make_elf(f, true);
        memcpy(f + 0x400, rows[i].words, sizeof(rows[i].words));
        put64(f + 64 + 56 + 32, rows[i].size);
        put64(f + 64 + 56 + 48, rows[i].align);
        bool ok = boot_with(m, test_file(0, f, sizeof(f)), NULL, "", &b, &message);
        g_assert_cmpint(ok, ==, !rows[i].word);
        if (rows[i].word)
            g_assert_nonnull(strstr(message, rows[i].word));
        else
            g_assert_cmphex(b.entry, ==, 0x200020);
    }
    test_machine_free(m);
}

static void put_multiboot(uint8_t *f, unsigned at, uint32_t flags)
{
    put32(f + at, 0x1badb002);
    put32(f + at + 4, flags);
    put32(f + at + 8, -(0x1badb002 + flags));
}

static void test_multiboot_elf(void)
{
    uint8_t f[ELF_SIZE];
    make_elf(f, false);
    put_multiboot(f, 0x800, 3);
    struct machine *m = test_machine(128 * MIB, 1);
    struct boot_image b;
    g_autofree char *message = NULL;
    const char *kernel = test_file(0, f, sizeof(f)), *env = test_file(1, "A=1\n", 4), *two = test_file(2, "two", 3);
    g_autofree char *initrd = g_strdup_printf("%s, %s x y", env, two);
    g_autofree char *cmdline = g_strdup_printf("%s smp 4", kernel);
    g_autofree char *second = g_strdup_printf("%s x y", two);
    g_assert_true(boot_with(m, kernel, initrd, "smp 4", &b, &message));
    const struct cpu_arch_state *s = test_vcpu_state(m->vcpus[0]);
    g_assert_cmphex(s->rip, ==, 0x200010);
    g_assert_cmphex(s->gpr[0], ==, 0x2badb002);
    g_assert_true(s->seg[1].db);
    uint64_t info = s->gpr[3];
    g_assert_cmphex(peek(m, info, 4) & 0x24d, ==, 0x24d);
    g_assert_cmpuint(peek(m, info + 8, 4), ==, 127 * 1024);
    assert_text(m, peek(m, info + 16, 4), cmdline);
    g_assert_cmpuint(peek(m, info + 20, 4), ==, 2);
    uint64_t mods = peek(m, info + 24, 4);
    uint64_t start = peek(m, mods, 4);
    g_assert_cmphex(start % 4096, ==, 0);
    g_assert_cmphex(start, >=, 0x203000);
    g_assert_cmpuint(peek(m, mods + 4, 4) - start, ==, 4);
    g_assert_cmphex(peek(m, start, 4), ==, 0x0a313d41);
    assert_text(m, peek(m, mods + 8, 4), env);
    assert_text(m, peek(m, mods + 24, 4), second);
    g_assert_cmpuint(peek(m, info + 44, 4), ==, b.map.count * 24);
    g_assert_cmpuint(peek(m, peek(m, info + 48, 4), 4), ==, 20);
    test_machine_free(m);
}

static void test_multiboot_addresses(void)
{
    uint8_t f[ELF_SIZE] = { 0 };
    struct machine *m = test_machine(64 * MIB, 1);
    struct boot_image b;
    char *message;
    put_multiboot(f, 0x20, 0x10000);
    static const uint32_t good[5] = { 0x300020, 0x300010, 0x301000, 0x304000, 0x300100 };
    memcpy(f + 0x20 + 12, good, sizeof(good));
    f[0x10] = 0xaa;
    g_assert_true(boot_with(m, test_file(0, f, sizeof(f)), NULL, "", &b, &message));
    g_assert_cmphex(test_vcpu_state(m->vcpus[0])->rip, ==, 0x300100);
    g_assert_cmphex(peek(m, 0x300010, 1), ==, 0xaa);
    static const struct {
        uint32_t field, val;
        const char *word;
    } rows[] = {
        { 0, 0x300000, "contradict" }, { 0, 0x300040, "contradict" }, { 1, 0xfffffff0, "contradict" },
        { 2, 0x300000, "contradict" }, { 3, 0x300020, "contradict" }, { 2, 0x400000, "truncated" },
        { 3, 0xfffffff0, "does not fit" },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        memcpy(f + 0x20 + 12, good, sizeof(good));
        put32(f + 0x20 + 12 + 4 * rows[i].field, rows[i].val);
        if (rows[i].field == 2 && rows[i].val == 0x400000)
            put32(f + 0x20 + 24, 0);
        g_assert_false(boot_with(m, test_file(0, f, sizeof(f)), NULL, "", &b, &message));
        g_assert_nonnull(strstr(message, rows[i].word));
        g_free(message);
    }
    test_machine_free(m);
}

static void test_multiboot_refused(void)
{
    uint8_t f[ELF_SIZE];
    struct machine *m = test_machine(64 * MIB, 1);
    struct boot_image b;
    char *message;
    make_elf(f, true);
    put_multiboot(f, 0x800, 3);
    g_assert_false(boot_with(m, test_file(0, f, sizeof(f)), NULL, "", &b, &message));
    g_assert_nonnull(strstr(message, "32-bit"));
    g_free(message);
    make_elf(f, false);
    put_multiboot(f, 0x800, 0x8003);
    g_assert_false(boot_with(m, test_file(0, f, sizeof(f)), NULL, "", &b, &message));
    g_assert_nonnull(strstr(message, "0x8000"));
    g_free(message);
    test_machine_free(m);
}

/* The loaders and tables together, as a board calls them, without a kernel: vCPU 0 is left alone. */
static void test_no_kernel(void)
{
    struct machine *m = test_machine(64 * MIB, 1);
    m->config.acpi = false;
    static const struct acpi_board acpi = { .mem_base = 0 };
    const struct boot_board board = { .reserved = reserved, .acpi = &acpi };
    g_assert_true(boot_machine(m, &board, NULL));
    g_assert_cmphex(test_vcpu_state(m->vcpus[0])->rip, ==, 0);
    g_assert_cmphex(peek(m, 0x40e, 2), ==, 0x9fc0);
    g_assert_cmphex(peek(m, BOOT_SMBIOS_BASE, 4), ==, 0x334d535f);
    g_assert_cmphex(peek(m, BOOT_MPTABLE_BASE, 4), ==, 0x5f504d5f);
    test_machine_free(m);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/boot/e820", test_e820);
    g_test_add_func("/boot/e820-cuts", test_e820_cuts);
    g_test_add_func("/boot/bzimage", test_bzimage);
    g_test_add_func("/boot/bzimage-32", test_bzimage_32);
    g_test_add_func("/boot/bzimage-hostile", test_bzimage_hostile);
    g_test_add_func("/boot/bad-files", test_bad_files);
    g_test_add_func("/boot/pvh", test_pvh);
    g_test_add_func("/boot/elf-hostile", test_elf_hostile);
    g_test_add_func("/boot/elf-notes", test_elf_notes);
    g_test_add_func("/boot/multiboot-elf", test_multiboot_elf);
    g_test_add_func("/boot/multiboot-addresses", test_multiboot_addresses);
    g_test_add_func("/boot/multiboot-refused", test_multiboot_refused);
    g_test_add_func("/boot/no-kernel", test_no_kernel);
    return g_test_run();
}
