/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A prototype for every x_<exec>() that a row names. Handler files include this. */
#pragma once

#include "cpu/exec/exec.h"

#define ROW(mnem, exec, map, op, pfx, mod, reg, vex, ops, r, w, u, attr) exec_fn x_##exec;
#include "cpu/decode/rows.h"
#undef ROW
