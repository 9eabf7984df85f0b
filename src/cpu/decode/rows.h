/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every row file in order; the includer defines ROW(...) first. Row numbers follow this order. */
#include "cpu/decode/int.def"
#include "cpu/decode/bmi.def"
#include "cpu/decode/system.def"
#include "cpu/decode/x87.def"
#include "cpu/decode/sse.def"
#include "cpu/decode/vex.def"
