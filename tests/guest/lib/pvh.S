/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ELF note XEN_ELFNOTE_PHYS32_ENTRY: where a PVH loader enters. */
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long start32
