/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The head of a core: ELF header, program headers, notes; see dump.h. */
#include "vmm/dump.h"

#include <elf.h>
#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 }; /* cpu_arch_state.gpr */
enum { ES, CS, SS, DS, FS, GS };

/* struct elf_prstatus of Linux on x86-64. */
struct prstatus {
    int32_t signal[3];
    uint16_t cursig, pad0;
    uint64_t pending, held;
    int32_t pid, ppid, pgrp, sid;
    uint64_t times[8];
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, rflags, rsp, ss,
        fs_base, gs_base, ds, es, fs, gs;
    uint32_t fp_valid, pad1;
};
_Static_assert(sizeof(struct prstatus) == 336, "as Linux has it");

/* QEMU's note: what debuggers of kernels need beyond the general registers. */
struct note_segment {
    uint32_t selector, limit, flags, pad;
    uint64_t base;
};
struct cpu_note {
    uint32_t version, size;
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r[8], rip, rflags;
    struct note_segment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
    uint64_t cr[5], kernel_gs_base;
};
_Static_assert(sizeof(struct cpu_note) == 440, "as QEMU has it");

#define NOTE_BYTES(type) (sizeof(Elf64_Nhdr) + 8 + sizeof(type)) /* names of up to 8 bytes */
#define VCPU_NOTES (NOTE_BYTES(struct prstatus) + NOTE_BYTES(struct cpu_note))

static void add_note(GByteArray *out, const char *name, uint32_t type, const void *data, uint32_t len)
{
    char padded[8] = { 0 };
    Elf64_Nhdr h = { .n_namesz = (uint32_t)strlen(name) + 1, .n_descsz = len, .n_type = type };
    memcpy(padded, name, strlen(name));
    g_byte_array_append(out, (const uint8_t *)&h, sizeof(h));
    g_byte_array_append(out, (const uint8_t *)padded, sizeof(padded));
    g_byte_array_append(out, data, len);
}

static struct prstatus prstatus_of(const struct cpu_arch_state *s, unsigned index)
{
    const uint64_t *g = s->gpr;
    return (struct prstatus){
        .pid = (int32_t)index + 1,
        .r15 = g[R15], .r14 = g[R14], .r13 = g[R13], .r12 = g[R12], .rbp = g[RBP], .rbx = g[RBX], .r11 = g[R11],
        .r10 = g[R10], .r9 = g[R9], .r8 = g[R8], .rax = g[RAX], .rcx = g[RCX], .rdx = g[RDX], .rsi = g[RSI],
        .rdi = g[RDI], .rip = s->rip, .rflags = s->rflags, .rsp = g[RSP],
        .cs = s->seg[CS].selector, .ss = s->seg[SS].selector, .ds = s->seg[DS].selector, .es = s->seg[ES].selector,
        .fs = s->seg[FS].selector, .gs = s->seg[GS].selector, .fs_base = s->seg[FS].base, .gs_base = s->seg[GS].base,
    };
}

/* Flags as the descriptor's upper half has them. */
static struct note_segment segment_of(const struct cpu_segment *s)
{
    uint32_t flags = (uint32_t)(s->type & 15) << 8 | (uint32_t)s->s << 12 | (uint32_t)(s->dpl & 3) << 13 |
                     (uint32_t)s->present << 15 | (uint32_t)s->avl << 20 | (uint32_t)s->l << 21 | (uint32_t)s->db << 22 |
                     (uint32_t)s->g << 23;
    return (struct note_segment){ .selector = s->selector, .limit = s->limit, .flags = flags, .base = s->base };
}

static struct cpu_note cpu_note_of(const struct cpu_arch_state *s)
{
    const uint64_t *g = s->gpr;
    struct cpu_note n = {
        .version = 1, .size = sizeof(n),
        .rax = g[RAX], .rbx = g[RBX], .rcx = g[RCX], .rdx = g[RDX], .rsi = g[RSI], .rdi = g[RDI], .rsp = g[RSP],
        .rbp = g[RBP], .rip = s->rip, .rflags = s->rflags,
        .cs = segment_of(&s->seg[CS]), .ds = segment_of(&s->seg[DS]), .es = segment_of(&s->seg[ES]),
        .fs = segment_of(&s->seg[FS]), .gs = segment_of(&s->seg[GS]), .ss = segment_of(&s->seg[SS]),
        .ldt = segment_of(&s->ldtr), .tr = segment_of(&s->tr),
        .gdt = { .limit = s->gdtr.limit, .base = s->gdtr.base }, .idt = { .limit = s->idtr.limit, .base = s->idtr.base },
        .cr = { s->cr0, 0, s->cr2, s->cr3, s->cr4 }, .kernel_gs_base = s->kernel_gs_base,
    };
    memcpy(n.r, g + R8, sizeof(n.r));
    return n;
}

static bool add_notes(struct machine *m, GByteArray *out, GError **error)
{
    struct cpu_arch_state *s = g_aligned_alloc0(1, sizeof(*s), 64);
    bool ok = true;
    for (unsigned i = 0; i < m->vcpu_count && ok; i++) {
        ok = m->accel->ops->vcpu_get_state(m->vcpus[i], s) ||
             ruche_error(error, RUCHE_ERR_INTERNAL, "the state of vCPU %u cannot be read", i);
        struct prstatus p = prstatus_of(s, i);
        add_note(out, "CORE", NT_PRSTATUS, &p, sizeof(p));
    }
    for (unsigned i = 0; i < m->vcpu_count && ok; i++) {
        ok = m->accel->ops->vcpu_get_state(m->vcpus[i], s) ||
             ruche_error(error, RUCHE_ERR_INTERNAL, "the state of vCPU %u cannot be read", i);
        struct cpu_note n = cpu_note_of(s);
        add_note(out, "QEMU", 0, &n, sizeof(n));
    }
    g_aligned_free(s);
    return ok;
}

GByteArray *dump_head(struct machine *m, const struct dump_part *parts, unsigned count, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    Elf64_Ehdr e = {
        .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
        .e_type = ET_CORE, .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_phoff = sizeof(e),
        .e_ehsize = sizeof(e), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = (uint16_t)(count + 1),
    };
    uint64_t notes_at = sizeof(e) + (count + 1) * sizeof(Elf64_Phdr), notes = m->vcpu_count * VCPU_NOTES;
    Elf64_Phdr note = { .p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = notes, .p_memsz = notes };
    uint64_t at = align_up(notes_at + notes, MIGRATE_PAGE);
    g_byte_array_append(out, (const uint8_t *)&e, sizeof(e));
    g_byte_array_append(out, (const uint8_t *)&note, sizeof(note));
    for (unsigned i = 0; i < count; i++) {
        Elf64_Phdr p = { .p_type = PT_LOAD, .p_offset = at, .p_paddr = parts[i].gpa, .p_filesz = parts[i].size_bytes,
                         .p_memsz = parts[i].size_bytes };
        g_byte_array_append(out, (const uint8_t *)&p, sizeof(p));
        at += parts[i].size_bytes;
    }
    if (!add_notes(m, out, error))
        return NULL;
    guint len = out->len;
    g_byte_array_set_size(out, (guint)align_up(len, MIGRATE_PAGE));
    memset(out->data + len, 0, out->len - len);
    return g_steal_pointer(&out);
}
