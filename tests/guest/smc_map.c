/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code by its mapping: one page at several addresses, several pages at one address, pages that go
 * away under hot code, address spaces, code written by devices, and one page in two modes.
 *
 * Spec      Intel SDM volume 3, 4.10 (caching of translations), 12.6.
 */
#include "lib/probe.h"
#include "lib/virtio.h"

#define VIEWS 5
static const uint64_t views[VIEWS] = { 0x5000000000, 0x5000003000, 0x5100000000, 0x7ffffffff000,
                                       0xffffff7000001000 };

typedef uint64_t fn0(void);
typedef uint64_t fn1(uint64_t arg);

static void show_at(uint64_t at, const void *page)
{
    map_page(0, at, (uint64_t)page, PTE_P | PTE_W | PTE_U, 1);
}

static uint8_t *page_of(const struct piece *code)
{
    uint8_t *page = alloc_pages(1);
    memcpy(page, code->code, code->len);
    return page;
}

/* --- one page at several addresses: each must see its own --- */

__asm__(PIECES_BEGIN(rip_codes)
PIECE("lea 0(%rip), %rax; sub $7, %rax; ret")
PIECE("call 1f; 1: pop %rax; sub $5, %rax; ret")
PIECE("call 1f; jmp 2f; 1: mov (%rsp), %rax; sub $5, %rax; ret; 2: ret")
PIECE("mov $40, %ecx; 1: lea 1b-5(%rip), %rax; dec %ecx; jnz 1b; ret")
PIECE("mov $40, %ecx; 1: call 2f; dec %ecx; jnz 1b; ret; 2: mov (%rsp), %rax; sub $10, %rax; ret")
PIECE("lea 1f(%rip), %rdx; lea -9(%rdx), %rax; jmp *%rdx; 1: sub $4, %rax; ret")
PIECE("sub $8, %rsp; lea 1f(%rip), %rax; mov %rax, (%rsp); ret; 1: sub $16, %rax; ret")
PIECE("pushf; popf; lea 1f(%rip), %rax; jmp 1f; .skip 100, 0xcc; 1: sub $(1b - 11b), %rax; ret")
PIECES_END(rip_codes));

static void test_views(void)
{
    extern const struct piece rip_codes[], rip_codes_end[];
    for (const struct piece *code = rip_codes; code < rip_codes_end; code++) {
        uint8_t *page = page_of(code);
        for (unsigned i = 0; i < VIEWS; i++)
            show_at(views[i], page);
        uint64_t base = 0;
        for (unsigned turn = 0; turn < 200; turn++) {
            unsigned view = turn < 100 ? turn / 20 : turn % VIEWS;
            uint64_t got = ((fn0 *)views[view])() - views[view];
            if (!turn)
                base = got;
            if (got != base) {
                check(false, "turn %u at 0x%lx is off by %ld: %s", turn, views[view],
                      (long)(got - base), code->text);
                break;
            }
        }
        check(base < 32, "the first address is off by %lu: %s", base, code->text);
    }
}

/* A fault tells the address by which the code ran. */
static void read_null_page(void *arg)
{
    ((fn1 *)arg)(HOLE32);
}

static void test_fault_views(void)
{
    extern uint64_t boot_pd[];
    static const uint8_t text[] = { 0x90, 0x83, 0xc0, 0x01, 0x8b, 0x07, 0xc3 }; /* mov (%rdi), %eax */
    boot_pd[HOLE32 >> 21] = 0;
    flush_tlb();
    uint8_t *page = alloc_pages(1);
    memcpy(page, text, sizeof(text));
    for (unsigned i = 0; i < VIEWS; i++)
        show_at(views[i], page);
    for (unsigned turn = 0; turn < 100; turn++) {
        uint64_t at = views[turn % VIEWS];
        ((fn1 *)views[(turn + 1) % VIEWS])((uint64_t)page);
        check_eq(catch_trap(read_null_page, (void *)at), 14, "a fault in shared code");
        check_eq(this_cpu()->caught.rip, at + 4, "its RIP");
    }
}

/* RIP-relative data differ though the code is the same: the next page is each view's own. */
static void test_view_data(void)
{
    static const uint8_t text[] = { 0x8b, 0x05, 0xfa, 0x0f, 0, 0, 0xc3 }; /* mov 0xffa(%rip), %eax */
    uint8_t *page = alloc_pages(1);
    memcpy(page, text, sizeof(text));
    for (unsigned i = 0; i < 3; i++) {
        uint64_t *data = alloc_pages(1);
        *data = 1000 + i;
        show_at(views[0] + i * 0x10000, page);
        show_at(views[0] + i * 0x10000 + PAGE, data);
    }
    for (unsigned turn = 0; turn < 300; turn++) {
        unsigned i = turn < 150 ? turn / 50 : turn % 3;
        check_eq((uint32_t)((fn0 *)(views[0] + i * 0x10000))(), 1000 + i, "RIP-relative data of view %u",
                 i);
    }
}

/* --- several pages at one address --- */

/* A hot loop calls by direct CALL and by pointer into a page that changes under it. */
static void test_remap_under_calls(void)
{
    __asm__(PIECES_BEGIN(callers)
            PIECE("xor %eax, %eax; mov $50, %ecx; 1: call 11b+0x1000; dec %ecx; jnz 1b; ret")
            PIECE("xor %eax, %eax; mov $50, %ecx; 1: lea 11b+0x1000(%rip), %rdx; call *%rdx; dec %ecx; jnz 1b; ret")
            PIECE("xor %eax, %eax; mov $50, %ecx; 1: lea 2f(%rip), %rdx; push %rdx; jmp 11b+0x1000; 2: dec %ecx; jnz 1b; ret")
            PIECE("xor %eax, %eax; mov $50, %ecx; 1: lea 2f(%rip), %rdx; push %rdx; cmp %eax, %eax; je 11b+0x1000; 2: dec %ecx; jnz 1b; ret")
            PIECES_END(callers));
    __asm__(PIECES_BEGIN(callees)
            PIECE("add $1, %eax; ret") PIECE("add $3, %eax; ret") PIECE("nop; nop; add $7, %eax; ret")
            PIECES_END(callees));
    extern const struct piece callers[], callers_end[], callees[];
    uint8_t *pages[3];
    static const uint32_t adds[] = { 50, 150, 350 };
    for (unsigned i = 0; i < 3; i++)
        pages[i] = page_of(&callees[i]);
    for (const struct piece *caller = callers; caller < callers_end; caller++) {
        show_at(views[0], page_of(caller));
        for (unsigned turn = 0; turn < 90; turn++) {
            unsigned i = turn < 30 ? turn / 10 : turn % 3;
            show_at(views[0] + PAGE, pages[i]);
            check_eq((uint32_t)((fn0 *)views[0])(), adds[i], "turn %u with page %u: %s", turn, i,
                     caller->text);
        }
    }
}

/* An instruction across pages of which the second page is exchanged; blocks that run over the page
 * end into it, too. */
static void test_remap_second_half(void)
{
    static const uint8_t text[] = { 0xb8, 1, 0, 0, 0, 0x05, 2, 0, 0, 0, 0xc3 }; /* mov, add, ret */
    for (unsigned cut = 1; cut < sizeof(text); cut++) {
        uint8_t *first = alloc_pages(1), *second[2];
        memcpy(first + PAGE - cut, text, cut);
        for (unsigned i = 0; i < 2; i++) {
            uint8_t image[sizeof(text)];
            memcpy(image, text, sizeof(text));
            second[i] = alloc_pages(1);
            image[4] = (uint8_t)(i * 0x10);
            image[9] = (uint8_t)(i * 0x20);
            memcpy(second[i], image + cut, sizeof(text) - cut);
        }
        show_at(views[0], first);
        for (unsigned turn = 0; turn < 60; turn++) {
            unsigned i = turn < 20 ? turn / 10 : turn & 1;
            show_at(views[0] + PAGE, second[i]);
            uint32_t want = 3 + (i && cut <= 4 ? 0x10000000 : 0) + (i && cut <= 9 ? 0x20000000 : 0);
            check_eq((uint32_t)((fn0 *)(views[0] + PAGE - cut))(), want, "page %u behind a cut at %u",
                     i, cut);
        }
    }
}

/* --- pages that lose the right to execute, or go, under hot callers --- */

static void call_it(void *arg)
{
    ((fn0 *)arg)();
}

static void test_rights_lost(void)
{
    extern const struct piece callers[], callers_end[], callees[];
    static const uint64_t lost[] = { PTE_P | PTE_NX, 0 };
    uint8_t *callee = page_of(callees);
    for (const struct piece *caller = callers; caller < callers_end; caller++) {
        show_at(views[0], page_of(caller));
        for (unsigned turn = 0; turn < 20; turn++) {
            show_at(views[0] + PAGE, callee);
            check_eq((uint32_t)((fn0 *)views[0])(), 50, "it runs: %s", caller->text);
            uint64_t bits = lost[turn & 1];
            map_page(0, views[0] + PAGE, (uint64_t)callee, bits, 1);
            check_eq(catch_trap(call_it, (void *)views[0]), 14, "the fetch faults: %s", caller->text);
            check_eq(this_cpu()->caught.rip, views[0] + PAGE, "RIP: %s", caller->text);
            check_eq(this_cpu()->caught_cr2, views[0] + PAGE, "CR2: %s", caller->text);
            check_eq(this_cpu()->caught.error, 0x10 | (bits & 1), "error code: %s", caller->text);
            check_eq(this_cpu()->caught.rcx, 50, "RCX: %s", caller->text);
        }
    }
}

/* The same linear address in address spaces of their own, switched in a hot loop. */
static void test_address_spaces(void)
{
    extern const struct piece callers[], callees[];
    static const uint32_t adds[] = { 50, 150, 350 };
    uint64_t home = read_cr3(), roots[3];
    uint8_t *caller = page_of(&callers[0]);
    for (unsigned i = 0; i < 3; i++) {
        roots[i] = new_address_space();
        map_page(roots[i], views[0], (uint64_t)caller, PTE_P | PTE_W, 1);
        map_page(roots[i], views[0] + PAGE, (uint64_t)page_of(&callees[i]), PTE_P | PTE_W, 1);
    }
    for (unsigned turn = 0; turn < 200; turn++) {
        unsigned i = turn * 7 / 3 % 3;
        write_cr3(roots[i]);
        uint32_t got = (uint32_t)((fn0 *)views[0])();
        write_cr3(home);
        check_eq(got, adds[i], "the code of address space %u", i);
    }
}

/* The code that switches: the instruction behind MOV CR3 comes from the new space. */
static void test_switch_under_code(void)
{
    __asm__(PIECES_BEGIN(switchers)
            PIECE("xor %eax, %eax; mov %cr3, %rdx; mov %rdi, %cr3; mov $1, %eax; mov %rdx, %cr3; ret")
            PIECE("xor %eax, %eax; mov %cr3, %rdx; mov %rdi, %cr3; mov $2, %eax; mov %rdx, %cr3; ret")
            PIECES_END(switchers));
    extern const struct piece switchers[];
    uint64_t other = new_address_space();
    map_page(0, views[2], (uint64_t)page_of(&switchers[0]), PTE_P | PTE_W, 1);
    map_page(other, views[2], (uint64_t)page_of(&switchers[1]), PTE_P | PTE_W, 1);
    for (unsigned turn = 0; turn < 100; turn++) {
        check_eq(((fn1 *)views[2])(other), 2, "behind MOV CR3 to another page");
        check_eq(((fn1 *)views[2])(read_cr3()), 1, "behind MOV CR3 to the same");
    }
}

/* --- code written by devices --- */

static void put_return(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static void test_disk_read(void)
{
    static struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    static volatile uint8_t status;
    struct virtio d;
    struct vq q;
    if (!virtio_find(VIRTIO_ID_BLK, 0, &d)) {
        skip("code read from a disk", "there is no virtio disk");
        return;
    }
    if (!check(virtio_begin(&d, 0) && vq_init(&q, &d, 0, 8), "the disk begins"))
        return;
    virtio_ready(&d);
    uint8_t *page = alloc_pages(1), *image = alloc_pages(1);
    for (unsigned turn = 0; turn < 60; turn++) {
        uint32_t len;
        put_return(image + 64, turn + 1000);
        for (unsigned write = 1; write < 2; write--) { /* 1: out, 0: back in */
            header.type = write;
            header.sector = turn % 8;
            struct vbuf bufs[] = { { &header, 16 },
                                   { write ? image : page, 512 },
                                   { (void *)&status, 1 } };
            status = 0xff;
            vq_add(&q, bufs, write ? 2 : 1, write ? 1 : 2);
            vq_kick(&q);
            if (!check(vq_wait(&q, &len, 5000) >= 0 && status == 0, "a request to the disk"))
                return;
        }
        for (unsigned i = 0; i < 20; i++)
            check_eq(((fn0 *)(page + 64))(), turn + 1000, "code read from the disk");
    }
    virtio_reset(&d);
}

static void test_fw_cfg_dma(void)
{
    static struct {
        uint32_t control, length;
        uint64_t address;
    } request;
    uint32_t features;
    if (!fw_cfg_present())
        return;
    fw_cfg_read(1, &features, 4);
    if (!(features & 2)) {
        skip("code by fw_cfg's DMA", "the interface is not there");
        return;
    }
    uint8_t *page = alloc_pages(1);
    for (unsigned turn = 0; turn < 40; turn++) {
        put_return(page, turn + 1);
        for (unsigned i = 0; i < 10; i++)
            check_eq(((fn0 *)page)(), turn + 1, "code before DMA");
        request.control = __builtin_bswap32(0 << 16 | 8 | 2); /* select the signature, read */
        request.length = __builtin_bswap32(2);
        request.address = __builtin_bswap64((uint64_t)page + 1 + turn % 2);
        uint64_t at = (uint64_t)&request;
        out32(0x514, __builtin_bswap32((uint32_t)(at >> 32)));
        out32(0x518, __builtin_bswap32((uint32_t)at));
        for (unsigned i = 0; i < 1000 && *(volatile uint32_t *)&request.control; i++)
            pause();
        uint32_t want = turn + 1, mask = turn % 2 ? 0xffff00 : 0xffff;
        want = (want & ~mask) | (0x4551u << turn % 2 * 8); /* "QE" */
        check_eq((uint32_t)((fn0 *)page)(), want, "code behind DMA");
    }
}

/* --- one page, hot in two privilege levels and two modes, then changed --- */

static uint32_t user_result;
static void user_done(struct frame *f)
{
    user_result = (uint32_t)f->rax;
    f->rip = (uint64_t)f->rbx; /* no return: the catch takes it from here */
    trap_set(0x85, NULL);
    trap_dispatch(f);
}

static uint32_t run_user(uint64_t at, uint16_t cs)
{
    trap_set(0x85, user_done);
    catch_user_at(at, views[1] + PAGE - 64, cs, 2, 0);
    return user_result;
}

static void test_levels_and_modes(void)
{
    /* 48 is REX.W in one mode and DEC EAX in the other. */
    static const uint8_t text[] = { 0xb8, 0, 0, 0, 0, 0x48, 0x83, 0xc0, 0x10, 0xcd, 0x85, 0xc3 };
    uint8_t *page = alloc_pages(1);
    show_at(views[1], alloc_pages(1));
    user_pages(true);
    trap_set(0x85, NULL);
    memcpy(page, text, sizeof(text));
    for (uint32_t turn = 0; turn < 200; turn++) {
        memcpy(page + 1, &turn, 4);
        check_eq(run_user((uint64_t)page, SEL_USER64), turn + 0x10, "user code, turn %u", turn);
        check_eq(run_user((uint64_t)page, SEL_USER32), turn + 0xf, "32-bit user code, turn %u", turn);
        page[9] = 0x90, page[10] = 0x90;
        check_eq(((fn0 *)page)(), turn + 0x10, "kernel code, turn %u", turn);
        page[9] = 0xcd, page[10] = 0x85;
    }
    user_pages(false);
}

void test_main(void)
{
    test_views();
    test_fault_views();
    test_view_data();
    test_remap_under_calls();
    test_remap_second_half();
    test_rights_lost();
    test_address_spaces();
    test_switch_under_code();
    test_disk_read();
    test_fw_cfg_dma();
    test_levels_and_modes();
}
