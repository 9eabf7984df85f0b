/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GDT, IDT, TSS and traps of 32-bit payloads. */
#include "guest32.h"

uint64_t gdt32[S_COUNT] __attribute__((aligned(8))) = {
    [S_CODE / 8] = 0x00cf9b000000ffff,   [S_DATA / 8] = 0x00cf93000000ffff,
    [S_UCODE / 8] = 0x00cffb000000ffff,  [S_UDATA / 8] = 0x00cff3000000ffff,
    [S_CODE16 / 8] = 0x00009b000000ffff, [S_DATA16 / 8] = 0x000093000000ffff,
    [S_CODE64 / 8] = 0x00af9b000000ffff,
};
struct gate32 idt32[256] __attribute__((aligned(8)));
struct tss32 tss_main;
struct frame32 caught;
uint32_t caught_cr2;
static uint32_t catch_esp;
static uint8_t ring0_stack[8192] __attribute__((aligned(16)));

extern uint8_t trap32_stubs[256][16];
int catch32_call(void (*fn)(void *), void *arg, uint32_t *ret_esp);
__attribute__((noreturn)) void catch32_resume(uint32_t esp);
__attribute__((noreturn)) void enter_outer(const struct frame32 *f);
void traps32_init(void);
void trap32_dispatch(struct frame32 *f);

uint64_t segment32(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(flags & 15) << 52 |
           (uint64_t)(base >> 24) << 56;
}

void traps32_init(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) i = { sizeof(idt32) - 1, (uint32_t)idt32 };
    for (unsigned v = 0; v < 256; v++) {
        uint32_t at = (uint32_t)trap32_stubs[v];
        idt32[v] = (struct gate32){ (uint16_t)at, S_CODE, 0, v >= 0x80 && v < 0x90 ? 0xee : 0x8e,
                                    (uint16_t)(at >> 16) };
    }
    tss_main.ss0 = S_DATA;
    tss_main.esp0 = (uint32_t)ring0_stack + sizeof(ring0_stack);
    tss_main.iomap = sizeof(tss_main);
    gdt32[S_TSS / 8] = segment32((uint32_t)&tss_main, sizeof(tss_main) - 1, 0x89, 0);
    __asm__ volatile("lidt %0; ltr %w1" ::"m"(i), "r"(S_TSS));
}

void trap32_dispatch(struct frame32 *f)
{
    if (!catch_esp) {
        print("FAILED unexpected vector %u error 0x%x at 0x%x cs 0x%x flags 0x%x cr2 0x%lx\n",
              f->vector, f->error, f->eip, f->cs, f->eflags, read_cr2());
        exit_machine(1);
    }
    caught = *f;
    caught_cr2 = read_cr2();
    uint32_t esp = catch_esp;
    catch_esp = 0;
    catch32_resume(esp);
}

int catch32(void (*fn)(void *arg), void *arg)
{
    if (catch32_call(fn, arg, &catch_esp))
        return (int)caught.vector;
    catch_esp = 0;
    return -1;
}

static void go_outer(void *arg)
{
    enter_outer(arg);
}

int catch_outer(const struct frame32 *f)
{
    return catch32(go_outer, (void *)f);
}
