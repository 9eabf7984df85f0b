/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the loader's 32-bit protected mode to 64-bit C, for the first vCPU; from real mode for the others. */
    .text
    .code32
    .global start32
start32:
    cli
    cld
    mov %eax, boot_magic
    mov %ebx, boot_info
    /* Identity map of 4 GiB by 2 MiB pages. */
    movl $(boot_pdpt + 7), boot_pml4
    mov $4, %ecx
    mov $boot_pdpt, %edi
    mov $(boot_pd + 7), %eax
1:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 1b
    mov $2048, %ecx
    mov $boot_pd, %edi
    mov $0x83, %eax
2:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 2b
    mov $cpu_stacks + 16384, %esp
    xor %ebx, %ebx
enter_long:                       /* EBX: index of this vCPU, ESP: its stack */
    mov $0x620, %eax              /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x901, %eax               /* LME, NXE, SCE */
    wrmsr
    mov $0x80010033, %eax         /* PG WP NE ET MP PE */
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $3f
    .code64
3:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov %ebx, %edi
    xor %ebp, %ebp
    call start_c
4:  cli
    hlt
    jmp 4b

    .align 16
    .global boot_gdt, boot_gdt_pointer
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
boot_gdt_pointer:
    .word 31
    .long boot_gdt
    .long 0

/* Copied to the page that the start-up IPI names. */
    .code16
    .global ap_start, ap_end
ap_start:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    lgdtl (ap_gdt_pointer - ap_start)
    mov $0x11, %eax
    mov %eax, %cr0
    ljmpl $0x18, $ap32
    .align 4
ap_gdt_pointer:
    .word 31
    .long boot_gdt
ap_end:
    .code32
ap32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %ebx
    lock xadd %ebx, ap_next       /* an index of its own */
    mov %ebx, %eax
    inc %eax
    shl $14, %eax
    lea cpu_stacks(%eax), %esp
    jmp enter_long

    .data
    .global ap_next, boot_magic, boot_info
    .align 4
ap_next: .long 1
boot_magic: .long 0
boot_info: .long 0

    .bss
    .align 4096
    .global boot_pml4, boot_pdpt, boot_pd, cpu_stacks
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
cpu_stacks: .skip 64 * 16384
