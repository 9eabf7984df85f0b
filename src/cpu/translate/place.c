/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bytes and parts of registers. RAX and RDX live in registers that have a second byte; RCX and RBX
 * do not, so AH to BH are always reached in a scratch register, which is AX or CX.
 */
#include "cpu/translate/place.h"

/* ModRM number of the second byte of AX, CX, DX, BX. */
#define SECOND(reg) ((reg) + 4)

unsigned emit_byte(struct tr *t, const struct insn *i, unsigned n, unsigned scratch)
{
    struct as_op movzx = { .map = 1, .opcode = 0xb6, .size = 4 };

    if (!is_high(i, n, 1))
        return emit_reg(t, n, scratch);
    unsigned host = host_of[n - 4];
    if (host > R_BX) {
        as_mov32(&t->as, scratch, host);
        host = scratch;
    }
    as_op_rr(&t->as, movzx, scratch, SECOND(host));
    return scratch;
}

struct dest dest_begin(struct tr *t, const struct insn *i, unsigned n, unsigned size,
                       unsigned scratch)
{
    if (is_high(i, n, size)) {
        as_mov(&t->as, scratch, host_of[n - 4]);
        return (struct dest){ .n = (uint8_t)(n - 4),
                              .reg = (uint8_t)SECOND(scratch),
                              .scratch = (uint8_t)scratch,
                              .high = true };
    }
    return (struct dest){ .n = (uint8_t)n,
                          .reg = (uint8_t)emit_reg(t, n, scratch),
                          .scratch = (uint8_t)scratch };
}

void dest_end(struct tr *t, struct dest d)
{
    if (d.high)
        as_mov(&t->as, host_of[d.n], d.scratch);
    else
        emit_reg_done(t, d.n, d.reg);
}

void emit_put(struct tr *t, const struct insn *i, unsigned n, unsigned size, unsigned src,
              unsigned scratch)
{
    struct as_op mov = { .opcode = size == 1 ? 0x88 : 0x89,
                         .size = (uint8_t)size,
                         .byte_reg = size == 1,
                         .byte_rm = size == 1 };

    if (is_high(i, n, size)) {
        struct dest d = dest_begin(t, i, n, size, scratch);
        as_op_rr(&t->as, op_dest(mov, d), src, d.reg);
        dest_end(t, d);
    } else if (host_of[n] != R_NONE) {
        as_op_rr(&t->as, mov, src, host_of[n]);
    } else if (size == 4) {
        as_mov32(&t->as, scratch, src);
        as_store(&t->as, 8, gpr_mem(n), scratch);
    } else {
        as_store(&t->as, size, gpr_mem(n), src);
    }
}
