/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory as instructions see it: linear address in, value or fault out.
 *
 * Spec      Intel SDM volume 3, chapters 4 (paging) and 5 (protection); PCID 4.10.
 * Thread    The vCPU's own.
 * Errors    0, or X_FAULT with cpu->fault filled (#PF, #AC); nothing was written then, not even in part: an
 *           access across two pages checks both before it writes.
 * Rule      RAM is read once per access; the value is the guest's at that instant. Aligned accesses of up to
 *           8 bytes are single host loads and stores (x86's own atomicity); 16-byte aligned vector accesses
 *           too.
 */
#pragma once

#include "cpu/state.h"

enum mmu_access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC };

/* Slow paths: TLB miss, page crossing, MMIO, ROM, code pages, watchpoints. */
int mmu_read_slow(struct cpu *c, uint64_t lin, unsigned size, void *buf);
int mmu_write_slow(struct cpu *c, uint64_t lin, unsigned size, const void *buf);

/* As supervisor whatever the CPL (descriptor tables, TSS, IDT); SMAP does not apply. */
int mmu_read_sys(struct cpu *c, uint64_t lin, unsigned size, void *buf);
int mmu_write_sys(struct cpu *c, uint64_t lin, unsigned size, const void *buf);

/* Fault checks for [lin, lin + size) without access, both pages; for instructions that must know first. */
int mmu_probe(struct cpu *c, uint64_t lin, unsigned size, enum mmu_access access);

/* Host pointer to `size` bytes inside one page for the access, after all checks; A/D bits are set, code pages
 * are told. 0 with *ret_host = NULL when the memory is not plain RAM (MMIO, ROM, across pages): use
 * read/write. The pointer is good until the instruction ends. */
int mmu_host(struct cpu *c, uint64_t lin, unsigned size, enum mmu_access access, uint8_t **ret_host);

/* For locked operations that mmu_host() could not serve: between begin and end, no other vCPU is inside such
 * a section; MMIO and page-crossing read-modify-writes go through read and write. */
void mmu_lock_begin(struct cpu *c);
void mmu_lock_end(struct cpu *c);

/* Instruction fetch: the physical page of rip's page, executable for the CPL, and its host address (NULL when
 * code runs from MMIO: then use mmu_fetch_bytes). 0 or X_FAULT. */
int mmu_fetch_page(struct cpu *c, uint64_t lin, uint64_t *ret_gpa, const uint8_t **ret_host);
/* Copies up to `len` bytes at `lin` as instruction fetch; *ret_got < len when the next page faults (and
 * got > 0). */
int mmu_fetch_bytes(struct cpu *c, uint64_t lin, uint8_t *buf, unsigned len, unsigned *ret_got);

/* Marks / asks whether the page at gpa holds decoded code of any vCPU; marked pages make writes slow, and
 * the write slow path calls exec_invalidate(). All vCPUs' write entries for the page are dropped first. */
void mmu_mark_code(struct cpu *c, uint64_t gpa);

void mmu_flush_all(struct cpu *c);      /* including global entries */
void mmu_flush_nonglobal(struct cpu *c); /* mov cr3 without PCID */
void mmu_flush_page(struct cpu *c, uint64_t lin);
void mmu_set_cr3(struct cpu *c, uint64_t cr3, bool keep); /* PCID aware */
int mmu_init(struct cpu *c); /* 0 or -ENOMEM */
void mmu_done(struct cpu *c);

static inline struct tlb_entry *tlb_at(struct cpu *c, uint64_t lin)
{
    unsigned priv = (c->mode & MODE_USER) ? TLB_USER : TLB_SUPER;
    return &c->tlb[priv][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
}

/* One access of 1, 2, 4 or 8 bytes within a page: true when the fast path holds. The compare folds the check
 * for crossing: the address of the last byte must be on the tagged page. */
#define MMU_DEFINE_ACCESS(bits)                                                                    \
    static inline int mmu_read_u##bits(struct cpu *c, uint64_t lin, uint##bits##_t *ret)            \
    {                                                                                              \
        struct tlb_entry *e = tlb_at(c, lin);                                                      \
        if (likely(e->read == (lin & PAGE_MASK) && (lin & 0xfff) <= PAGE_SIZE - bits / 8 &&        \
                   !(c->mode & MODE_AC))) {                                                        \
            memcpy(ret, (const void *)(lin + e->addend), bits / 8);                                \
            return 0;                                                                              \
        }                                                                                          \
        return mmu_read_slow(c, lin, bits / 8, ret);                                               \
    }                                                                                              \
    static inline int mmu_write_u##bits(struct cpu *c, uint64_t lin, uint##bits##_t val)            \
    {                                                                                              \
        struct tlb_entry *e = tlb_at(c, lin);                                                      \
        if (likely(e->write == (lin & PAGE_MASK) && (lin & 0xfff) <= PAGE_SIZE - bits / 8 &&       \
                   !(c->mode & MODE_AC))) {                                                        \
            memcpy((void *)(lin + e->addend), &val, bits / 8);                                     \
            return 0;                                                                              \
        }                                                                                          \
        return mmu_write_slow(c, lin, bits / 8, &val);                                             \
    }
MMU_DEFINE_ACCESS(8)
MMU_DEFINE_ACCESS(16)
MMU_DEFINE_ACCESS(32)
MMU_DEFINE_ACCESS(64)
