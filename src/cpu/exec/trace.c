/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Debug log of the interpreter. */
#include "cpu/exec/trace.h"

#include <inttypes.h>

static void log_insn(const struct cpu *c, const struct insn *i, uint64_t rip)
{
    char text[128];

    log_debug("%u: %016" PRIx64 ": %s", c->index, rip, insn_disassemble(i, rip, text, sizeof(text)));
}

void trace_decoded(const struct cpu *c, const struct exec_block *b)
{
    uint64_t rip = c->rip;

    log_debug("%u: block at %" PRIx64 ", physical %" PRIx64 ", mode %x", c->index, rip, b->gpa, b->mode);
    for (unsigned k = 0; k < b->count; k++) {
        log_insn(c, &c->blocks->decoded[k], rip);
        rip += c->blocks->decoded[k].len;
    }
}

static void log_registers(const struct cpu *c)
{
    for (unsigned k = 0; k < 16; k += 4)
        log_debug("r%-2u %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "", k, c->gpr[k],
                  c->gpr[k + 1], c->gpr[k + 2], c->gpr[k + 3]);
    log_debug("rflags %08x cs %04x ss %04x cr0 %" PRIx64 " cr2 %" PRIx64 " cr3 %" PRIx64 " cr4 %" PRIx64 "",
              cpu_flags(c), c->seg[SEG_CS].selector, c->seg[SEG_SS].selector, c->cr0, c->cr2, c->cr3,
              c->cr4);
}

void trace_single(const struct cpu *c, const struct insn *i)
{
    if (log_on(LOG_CPU))
        log_registers(c);
    log_insn(c, i, c->rip);
}

void trace_fault(const struct cpu *c)
{
    const struct cpu_fault *f = &c->fault;

    log_debug("%u: exception %u error %x at %04x:%016" PRIx64 " cpl %u sp %016" PRIx64 " cr2 %016" PRIx64 "",
              c->index, f->vector, f->has_error ? f->error : 0, c->seg[SEG_CS].selector, c->rip, c->cpl,
              c->gpr[4], f->vector == EXC_PF ? f->cr2 : 0);
}

void trace_interrupt(const struct cpu *c, unsigned vector)
{
    log_debug("%u: interrupt %u at %04x:%016" PRIx64 " cpl %u", c->index, vector,
              c->seg[SEG_CS].selector, c->rip, c->cpl);
}
