/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The processor as boot protocols want to find it: flat segments, in 32-bit protected or in long mode.
 *
 * Spec      Linux boot.rst, "32-bit" and "64-bit boot protocol"; Multiboot 3.2; PVH ABI.
 */
#include "machine/boot/boot.h"

#define CR0_PE 0x00000001u
#define CR0_ET 0x00000010u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define PTE_TABLE 0x003u /* present, writable */
#define PTE_2M 0x083u
#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS 0x20
#define TYPE_CODE 0xb /* execute, read, accessed */
#define TYPE_DATA 0x3 /* read, write, accessed */
#define TYPE_TSS_BUSY 0xb
#define TSS_LIMIT 0x67

static uint64_t descriptor(const struct cpu_segment *s)
{
    uint64_t limit = s->g ? s->limit >> 12 : s->limit;
    return (limit & 0xffff) | (s->base & 0xffffff) << 16 | (uint64_t)s->type << 40 | (uint64_t)s->s << 44 |
           (uint64_t)s->dpl << 45 | (uint64_t)s->present << 47 | (limit >> 16 & 0xf) << 48 | (uint64_t)s->l << 53 |
           (uint64_t)s->db << 54 | (uint64_t)s->g << 55 | (s->base >> 24 & 0xff) << 56;
}

/* 4 GiB one to one in 2 MiB pages: what the 64-bit entry asks for, and more. */
static bool make_page_tables(struct machine *m, GError **error)
{
    uint64_t table[512] = { BOOT_PAGE_TABLES + 0x1000 + PTE_TABLE };
    if (!boot_poke(m, BOOT_PAGE_TABLES, table, sizeof(table), error))
        return false;
    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < 4; i++)
        table[i] = BOOT_PAGE_TABLES + 0x2000 + i * 0x1000 + PTE_TABLE;
    if (!boot_poke(m, BOOT_PAGE_TABLES + 0x1000, table, sizeof(table), error))
        return false;
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < 512; k++)
            table[k] = ((uint64_t)i * 512 + k) * 2 * MIB + PTE_2M;
        if (!boot_poke(m, BOOT_PAGE_TABLES + 0x2000 + i * 0x1000, table, sizeof(table), error))
            return false;
    }
    return true;
}

bool boot_set_entry(struct machine *m, const struct boot_image *b, GError **error)
{
    const struct accel_ops *ops = m->accel->ops;
    bool is_64 = b->mode == BOOT_ENTRY_64;
    struct cpu_arch_state s;
    if (!ops->vcpu_get_state(m->vcpus[0], &s))
        return ruche_error(error, RUCHE_ERR_INTERNAL, "vCPU 0: its state cannot be read");
    struct cpu_segment code = { .limit = UINT32_MAX, .selector = SEL_CODE, .type = TYPE_CODE, .s = true,
                                .present = true, .l = is_64, .db = !is_64, .g = true };
    struct cpu_segment data = { .limit = UINT32_MAX, .selector = SEL_DATA, .type = TYPE_DATA, .s = true,
                                .present = true, .db = true, .g = true };
    struct cpu_segment tss = { .limit = TSS_LIMIT, .selector = SEL_TSS, .type = TYPE_TSS_BUSY, .present = true };
    uint64_t gdt[6] = { [SEL_CODE / 8] = descriptor(&code), [SEL_DATA / 8] = descriptor(&data),
                        [SEL_TSS / 8] = descriptor(&tss) };
    for (unsigned i = 0; i < ARRAY_COUNT(s.seg); i++)
        s.seg[i] = data;
    s.seg[1] = code; /* CS */
    s.tr = tss;
    s.gdtr = (struct cpu_dtable){ .base = BOOT_GDT, .limit = sizeof(gdt) - 1 };
    s.idtr = (struct cpu_dtable){ 0 };
    s.cr0 = CR0_PE | CR0_ET | (is_64 ? CR0_PG : 0);
    s.cr3 = is_64 ? BOOT_PAGE_TABLES : 0;
    s.cr4 = is_64 ? CR4_PAE : 0;
    s.efer = is_64 ? EFER_LME | EFER_LMA : 0;
    s.rip = b->entry;
    s.rflags = 2;
    memcpy(s.gpr, b->gpr, sizeof(s.gpr));
    if (!boot_poke(m, BOOT_GDT, gdt, sizeof(gdt), error) || (is_64 && !make_page_tables(m, error)))
        return false;
    return ops->vcpu_set_state(m->vcpus[0], &s) ||
           ruche_error(error, RUCHE_ERR_INTERNAL, "vCPU 0: its entry state cannot be set");
}
