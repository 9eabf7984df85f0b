/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit payloads: entry, trap stubs, catching, the way to ring 3 and virtual-8086 mode. */
    .text
    .code32
    .global start32
start32:
    cli
    cld
    mov %eax, boot_magic
    mov %ebx, boot_info
    lgdt gdt32_pointer
    ljmp $0x08, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack + 32768, %esp
    call traps32_init
    push $0
    call start_c
    hlt

    .macro stub32 vector
    .align 16
    .if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17)
    .else
    push $0
    .endif
    push $\vector
    jmp trap32_common
    .endm
    .align 16
    .global trap32_stubs
trap32_stubs:
    .set v, 0
    .rept 256
    .altmacro
    stub32 %v
    .noaltmacro
    .set v, v + 1
    .endr

trap32_common:
    pusha
    push %ds
    push %es
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    push %esp
    call trap32_dispatch
    add $4, %esp
    pop %es
    pop %ds
    popa
    add $8, %esp
    iret

/* int catch32_call(fn, arg, uint32_t *ret_esp) */
    .global catch32_call, catch32_resume
catch32_call:
    push %ebx
    push %esi
    push %edi
    push %ebp
    mov 28(%esp), %eax
    mov %esp, (%eax)
    mov 20(%esp), %eax
    push 24(%esp)
    call *%eax
    add $4, %esp
    xor %eax, %eax
    jmp 1f
/* void catch32_resume(uint32_t esp): from a trap's handler, which is in ring 0 whatever was before. */
catch32_resume:
    mov 4(%esp), %esp
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    push $2
    popf
    mov $1, %eax
1:  pop %ebp
    pop %edi
    pop %esi
    pop %ebx
    ret

/* void enter_outer(const struct frame32 *) */
    .global enter_outer
enter_outer:
    mov 4(%esp), %esi
    sub $36, %esp
    mov %esp, %edi
    add $48, %esi                 /* from eip to vm_gs: nine words */
    mov $9, %ecx
    cld
    rep movsl
    sub $84, %esi
    push 36(%esi)                 /* eax */
    push 32(%esi)
    push 28(%esi)
    push 24(%esi)
    push 8(%esi)
    push 12(%esi)
    mov $0x23, %eax
    mov %eax, %ds
    mov %eax, %es
    pop %esi
    pop %edi
    pop %ebx
    pop %edx
    pop %ecx
    pop %eax
    iret

    .data
    .align 8
gdt32_pointer:
    .word 16 * 8 - 1
    .long gdt32
    .global boot_magic, boot_info, ap_next
    .align 4
boot_magic: .long 0
boot_info: .long 0
ap_next: .long 0
    .bss
    .align 16
boot_stack: .skip 32768
