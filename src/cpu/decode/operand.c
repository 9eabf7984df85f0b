/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of operand kinds. */
#include "cpu/decode/operand.h"

#define RM(n) { AT_RM, n }
#define REG(n) { AT_REG, n }
#define VREG(n) { AT_VEC_REG, n }
#define VRM(n) { AT_VEC_RM, n }
#define VV(n) { AT_VEC_VVVV, n }

const struct operand_info operand_infos[N_OPERANDS] = {
    [NONE] = { AT_NOWHERE, SIZE_NONE },
    [Eb] = RM(1), [Ew] = RM(2), [Ed] = RM(4), [Eq] = RM(8), [Ev] = RM(SIZE_V), [Ey] = RM(SIZE_Y),
    [Ez] = RM(SIZE_Z),
    [Gb] = REG(1), [Gw] = REG(2), [Gd] = REG(4), [Gq] = REG(8), [Gv] = REG(SIZE_V), [Gy] = REG(SIZE_Y),
    [Gz] = REG(SIZE_Z),
    [Mb] = RM(1), [Mw] = RM(2), [Md] = RM(4), [Mq] = RM(8), [Mv] = RM(SIZE_V), [My] = RM(SIZE_Y),
    [Mz] = RM(SIZE_Z), [M_] = RM(SIZE_NONE), [Mp] = RM(SIZE_NONE), [Ms] = RM(SIZE_NONE),
    [Mdq] = RM(16), [Mqq] = RM(32), [Mx] = RM(SIZE_X), [Mt] = RM(10), [Ma] = RM(SIZE_NONE),
    [Mvs] = RM(SIZE_NONE),
    [Rd] = RM(4), [Rq] = RM(8), [Ry] = RM(SIZE_Y), [Rv] = RM(SIZE_V),
    [Zb] = { AT_OPCODE, 1 }, [Zv] = { AT_OPCODE, SIZE_V },
    [Ib] = { AT_IMM, 1 }, [Iw] = { AT_IMM, 2 }, [Id] = { AT_IMM, 4 }, [Iz] = { AT_IMM, SIZE_Z },
    [Iv] = { AT_IMM, SIZE_V }, [Ibs] = { AT_IMM, 1 },
    [Jb] = { AT_IMM_REL, 1 }, [Jz] = { AT_IMM_REL, SIZE_Z }, [Ap] = { AT_IMM_FAR, SIZE_Z },
    [Ob] = { AT_MOFFS, 1 }, [Ov] = { AT_MOFFS, SIZE_V },
    [Xb] = { AT_STR_SRC, 1 }, [Xv] = { AT_STR_SRC, SIZE_V }, [Yb] = { AT_STR_DST, 1 },
    [Yv] = { AT_STR_DST, SIZE_V },
    [Sw] = { AT_SREG, 2 }, [Cy] = { AT_CREG, SIZE_NONE }, [Dy] = { AT_DREG, SIZE_NONE },
    [rAL] = { AT_FIXED, 1 }, [rCL] = { AT_FIXED, SIZE_NONE }, [rDX] = { AT_FIXED, SIZE_NONE },
    [rAXv] = { AT_FIXED, SIZE_V }, [c1] = { AT_FIXED, SIZE_NONE },
    [sES] = { AT_FIXED, SIZE_NONE }, [sCS] = { AT_FIXED, SIZE_NONE }, [sSS] = { AT_FIXED, SIZE_NONE },
    [sDS] = { AT_FIXED, SIZE_NONE }, [sFS] = { AT_FIXED, SIZE_NONE }, [sGS] = { AT_FIXED, SIZE_NONE },
    [Pq] = { AT_MMX_REG, 8 }, [Qq] = { AT_MMX_RM, 8 }, [Qd] = { AT_MMX_RM, 4 }, [Nq] = { AT_MMX_RM, 8 },
    [Vx] = VREG(SIZE_X), [Vdq] = VREG(16), [Vqq] = VREG(32), [Vq] = VREG(8), [Vd] = VREG(4),
    [Vss] = VREG(4), [Vsd] = VREG(8), [Vps] = VREG(SIZE_X), [Vpd] = VREG(SIZE_X),
    [Wx] = VRM(SIZE_X), [Wdq] = VRM(16), [Wqq] = VRM(32), [Wq] = VRM(8), [Wd] = VRM(4), [Ww] = VRM(2),
    [Wb] = VRM(1), [Wss] = VRM(4), [Wsd] = VRM(8), [Wps] = VRM(SIZE_X), [Wpd] = VRM(SIZE_X),
    [Ux] = VRM(SIZE_X), [Udq] = VRM(16), [Uq] = VRM(8), [Ups] = VRM(SIZE_X), [Upd] = VRM(SIZE_X),
    [Hx] = VV(SIZE_X), [Hdq] = VV(16), [Hqq] = VV(32), [Hq] = VV(8), [Hd] = VV(4), [Hss] = VV(4),
    [Hsd] = VV(8), [Hps] = VV(SIZE_X), [Hpd] = VV(SIZE_X),
    [Lx] = { AT_VEC_IMM, SIZE_X },
    [By] = { AT_VVVV, SIZE_Y },
    [XMM0r] = { AT_FIXED, SIZE_NONE },
    [ST0] = { AT_ST0, SIZE_NONE }, [STi] = { AT_STI, SIZE_NONE },
    [Fv] = { AT_FIXED, SIZE_V },
};
