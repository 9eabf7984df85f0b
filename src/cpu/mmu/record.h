/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A record of what an interpreted run reads and writes, so that it can be undone and compared.
 *
 * While cpu->record is set, and cpu->tlb_cur is the empty bank, every access comes by the slow paths of access.c, which
 * note it here before it happens. What cannot be undone (MMIO, ports, a write to decoded code) or does not fit
 * ends the run instead: longjmp() to `out`.
 *
 * Owner     The caller. Thread: the vCPU's own.
 */
#pragma once

#include "cpu/state.h"

#include <setjmp.h>

#define RECORD_ACCESSES 1024
#define RECORD_BYTES (32 * KIB)

struct mmu_record {
    jmp_buf out;
    unsigned count;
    uint32_t used; /* of bytes */
    struct mmu_recorded {
        uint8_t *host;
        uint32_t at;   /* in bytes: what was there before; a write's new contents follow, once undone */
        uint16_t size;
        bool write;
    } access[RECORD_ACCESSES];
    uint8_t bytes[RECORD_BYTES];
};

void mmu_record_access(struct cpu *c, uint8_t *host, unsigned size, bool write);
/* The run in hand cannot be recorded. Does not return. */
void mmu_record_refuse(struct cpu *c) __attribute__((noreturn));
/* Puts memory back as it was; keeps what had been written for mmu_record_differs(). */
void mmu_record_undo(struct mmu_record *r);
/* The host address of a byte that was written and now differs from what was written; NULL: none. */
const uint8_t *mmu_record_differs(const struct mmu_record *r);
/* Whether something that was only read has changed since: by a device or another vCPU. */
bool mmu_record_stale(const struct mmu_record *r);
