/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Multiboot 1 header: ELF, memory information wanted. */
    .section .boot_header, "a"
    .align 4
    .long 0x1badb002, 2, -(0x1badb002 + 2)
