/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What 32-bit payloads have besides print.c and start.c: segments, traps, tasks. Paging is off at
 * the start.
 */
#pragma once

#include "guest.h"

/* Selectors of gdt32. */
enum {
    S_CODE = 0x08,
    S_DATA = 0x10,
    S_UCODE = 0x1b,
    S_UDATA = 0x23,
    S_CODE16 = 0x28,
    S_DATA16 = 0x30,
    S_CODE64 = 0x38,
    S_TSS = 0x40,
    S_TSS2 = 0x48,
    S_GATE = 0x50,
    S_SMALL = 0x58,
    S_DOWN = 0x60,
    S_CONFORMING = 0x68,
    S_COUNT = 16,
};
extern uint64_t gdt32[S_COUNT];

struct frame32 {
    uint32_t es, ds, edi, esi, ebp, esp_here, ebx, edx, ecx, eax;
    uint32_t vector, error, eip, cs, eflags;
    uint32_t esp, ss;                    /* from an outer level */
    uint32_t vm_es, vm_ds, vm_fs, vm_gs; /* from virtual-8086 mode */
};

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, iomap;
};
extern struct tss32 tss_main;

extern struct frame32 caught;
extern uint32_t caught_cr2;
/* As for 64 bits: the vector that ended fn, or -1. */
int catch32(void (*fn)(void *arg), void *arg);
/* Enters ring 3 or virtual-8086 mode with what `f` says from eip on; ends only by a trap. */
int catch_outer(const struct frame32 *f);

struct gate32 {
    uint16_t off0, sel;
    uint8_t zero, type;
    uint16_t off1;
};
extern struct gate32 idt32[256];
uint64_t segment32(uint32_t base, uint32_t limit, uint8_t access,
                   uint8_t flags); /* limit in units of flags' G */
