/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine that fuzz targets run code on: one processor, 1 MiB, a plausible guest in any mode.
 *
 * Input     A byte: mode preset. A byte: number of patches to the state (offset 2, value 8 bytes
 *           each), in its low bits. A byte: number of patches to memory (address 4, value 8). A
 *           byte: interrupt vector, or 0. Then code.
 */
#pragma once

#include "cpu/cpu.h"
#include "cpu/sys/internal.h"

#define RAM_SIZE 0x100000u

extern uint8_t *fuzz_ram;
extern struct cpu_shared *fuzz_shared;
extern struct cpu *fuzz_cpu;
extern uint32_t fuzz_noise; /* what devices answer comes from it */
extern int fuzz_irq;        /* vector to deliver, or -1 */

struct fuzz_guest {
    struct cpu_arch_state state;
    unsigned state_patches; /* the byte of the input */
    unsigned vector;
};

/* Aborts: the fuzzer has found something. */
void fuzz_require(bool ok);
/* Once. */
void fuzz_machine_init(enum cpu_translate how);
/* Lays the input's guest out in memory; its state is the caller's to set. */
void fuzz_guest_make(const uint8_t *data, size_t size, struct fuzz_guest *ret);
