/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The small library under the bare-metal payloads: console, exit, traps, paging, interrupt
 * controllers, other vCPUs, PCI. Freestanding; one address space, identity mapped; interrupts are
 * off unless a test turns them on.
 *
 * A payload defines test_main(). It calls check() for each thing it wants true; the exit status of
 * the machine is 1 (isa-debug-exit code 0) when all were, and 3 (code 1) otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PAGE 4096ul
#define MAX_CPUS 64
#define STACK_BYTES 16384

/* --- console and results: print.c --- */

void put_char(char c);
void print(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* %d %u %x %lx %lu %s %c %% */
/* Counts and, when it is false, says so. Returns ok. */
bool check_at(bool ok, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define check(ok, ...) check_at(ok, __FILE__, __LINE__, __VA_ARGS__)
/* got == want; prints both when not. */
bool check_eq_at(uint64_t got, uint64_t want, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
#define check_eq(got, want, ...)                                                                   \
    check_eq_at((uint64_t)(got), (uint64_t)(want), __FILE__, __LINE__, __VA_ARGS__)
void skip(const char *what, const char *why);
__attribute__((noreturn)) void finish(void);           /* summary, then exit by the counts */
__attribute__((noreturn)) void exit_machine(int code); /* isa-debug-exit */
__attribute__((noreturn)) void fatal(const char *what);

void test_main(void);

/* --- what the loader said: start.c --- */

const char *cmdline(void);
/* The number behind "name=" in the command line. */
uint64_t cmdline_number(const char *name, uint64_t def);

/* --- strings: print.c --- */

void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

/* --- instructions --- */

static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline void out32(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint8_t in8(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint16_t in16(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t in32(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
    return (uint64_t)hi << 32 | lo;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}
static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return (uint64_t)hi << 32 | lo;
}
static inline void cli(void) { __asm__ volatile("cli" ::: "memory"); }
static inline void sti(void) { __asm__ volatile("sti; nop" ::: "memory"); }
static inline void sti_hlt_cli(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }
static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }

#define DEFINE_REG(name)                                                                           \
    static inline unsigned long read_##name(void)                                                  \
    {                                                                                              \
        unsigned long v;                                                                           \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(v)::"memory");                               \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_##name(unsigned long v)                                               \
    {                                                                                              \
        __asm__ volatile("mov %0, %%" #name ::"r"(v) : "memory");                                  \
    }
DEFINE_REG(cr0)
DEFINE_REG(cr2)
DEFINE_REG(cr3)
DEFINE_REG(cr4)
DEFINE_REG(dr0)
DEFINE_REG(dr1)
DEFINE_REG(dr2)
DEFINE_REG(dr3)
DEFINE_REG(dr6)
DEFINE_REG(dr7)
#ifdef __x86_64__
DEFINE_REG(cr8)
#endif

static inline void invlpg(void *p) { __asm__ volatile("invlpg (%0)" ::"r"(p) : "memory"); }
static inline unsigned long read_flags(void)
{
    unsigned long v;
    __asm__ volatile("pushf; pop %0" : "=r"(v)::"memory");
    return v;
}

#define CR0_WP (1ul << 16)
#define CR4_DE (1ul << 3)
#define CR4_PAE (1ul << 5)
#define CR4_PGE (1ul << 7)
#define CR4_OSFXSR (1ul << 9)
#define CR4_OSXMMEXCPT (1ul << 10)
#define CR4_FSGSBASE (1ul << 16)
#define CR4_PCIDE (1ul << 17)
#define CR4_OSXSAVE (1ul << 18)
#define CR4_SMEP (1ul << 20)
#define CR4_SMAP (1ul << 21)
#define FLAG_TF (1ul << 8)
#define FLAG_IF (1ul << 9)
#define FLAG_RF (1ul << 16)
#define FLAG_AC (1ul << 18)
#define MSR_APIC_BASE 0x1b
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102

/* --- segments and traps: traps.S, traps.c (traps32 for the 32-bit library) --- */

#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_USER32 0x1b /* with RPL 3; SYSRET's order: 32-bit code, data, 64-bit code */
#define SEL_USER_DATA 0x23
#define SEL_USER64 0x2b
#define SEL_CODE32 0x30
#define SEL_CODE16 0x38
#define SEL_DATA16 0x40
#define SEL_SPARE 0x48 /* a descriptor that tests may write, and the next */
#define SEL_TSS 0x60   /* 16 bytes a vCPU */

#ifdef __x86_64__
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error, rip, cs, flags, rsp, ss;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3, iomap;
    uint8_t io_bits[8193];
} __attribute__((packed));

/* What one vCPU is. */
struct this_cpu {
    unsigned index;
    uint32_t apic_id;
    volatile bool up;
    uint64_t catch_rsp, catch_flags;
    struct frame caught;
    uint64_t caught_cr2;
    void (*volatile work)(void *arg);
    void *work_arg;
    volatile uint64_t counter; /* for tests */
    struct tss tss;
};
extern struct this_cpu cpus[MAX_CPUS];
extern uint64_t gdt[];
struct this_cpu *this_cpu(void); /* by the task register */

/* Vector of the exception that ended fn(arg), or -1 when it returned. The frame and CR2 are in
 * this_cpu(). */
int catch_trap(void (*fn)(void *arg), void *arg);
/* The same at CPL 3 in 64-bit (or 32-bit) code on a stack of its own; USER_DONE when fn returned.
 * Needs user_pages(true). */
#define USER_DONE 0x100
int catch_user(void (*fn)(void *arg), void *arg);
int catch_user_at(uint64_t rip, uint64_t rsp, uint16_t cs, uint64_t flags, uint64_t rdi);

/* A handler for a vector; NULL: the default (catch, or say and die). */
typedef void trap_fn(struct frame *f);
void trap_set(unsigned vector, trap_fn *fn);
void trap_dispatch(struct frame *f); /* what the entry stubs call */
struct gate {
    uint16_t off0, sel;
    uint8_t ist, type;
    uint16_t off1;
    uint32_t off2, reserved;
} __attribute__((packed));
extern struct gate idt[256];
void gate_set(unsigned vector, uint64_t target, unsigned dpl, unsigned ist);
void cpu_tables_init(unsigned index); /* GDT, IDT, TSS of this vCPU */

/* --- paging.c --- */

#define PTE_P 1ul
#define PTE_W 2ul
#define PTE_U 4ul
#define PTE_A 0x20ul
#define PTE_D 0x40ul
#define PTE_PS 0x80ul
#define PTE_G 0x100ul
#define PTE_NX (1ul << 63)
void *alloc_pages(size_t count); /* zeroed, page aligned; never freed */
void *alloc_aligned(size_t bytes, size_t align);
/* Maps one page of 4 KiB (level 1), 2 MiB (2) or 1 GiB (3) in the address space at `root` (0:
 * CR3's). */
void map_page(uint64_t root, uint64_t linear, uint64_t physical, uint64_t bits, int level);
volatile uint64_t *find_pte(uint64_t root, uint64_t linear, int *ret_level);
uint64_t new_address_space(void); /* a copy of the first one, tables not shared: its root */
void *map_mmio(uint64_t physical, uint64_t bytes); /* identity */
void user_pages(bool on);                          /* the U bit of all identity pages */
void flush_tlb(void);

/* --- smp.c --- */

unsigned cpu_count(void); /* that the machine has */
unsigned smp_start(void); /* starts the others; how many run now, with the first */
void smp_call(unsigned index, void (*fn)(void *arg),
              void *arg); /* begins; smp_wait() for its end */
void smp_wait(unsigned index);
void smp_call_all(void (*fn)(void *arg), void *arg); /* on every vCPU, this one too; waits */
void smp_ipi(unsigned index, uint8_t vector);
#endif

/* --- apic.c, time.c --- */

uint32_t apic_read(unsigned reg);
void apic_write(unsigned reg, uint32_t v);
void apic_enable(void);    /* xAPIC, spurious vector 0xff */
void apic_x2_enable(void); /* x2APIC; the accessors follow */
bool apic_is_x2(void);
uint32_t apic_id(void);
void apic_icr(uint32_t dest, uint32_t low);
void apic_eoi(void);
bool apic_is_set(unsigned bank, uint8_t vector); /* bank: APIC_ISR, APIC_IRR, APIC_TMR */
#define APIC_ID 0x20
#define APIC_VERSION 0x30
#define APIC_TPR 0x80
#define APIC_PPR 0xa0
#define APIC_EOI 0xb0
#define APIC_LDR 0xd0
#define APIC_DFR 0xe0
#define APIC_SVR 0xf0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_ESR 0x280
#define APIC_ICR 0x300
#define APIC_ICR2 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_LVT_ERROR 0x370
#define APIC_TIMER_INIT 0x380
#define APIC_TIMER_NOW 0x390
#define APIC_TIMER_DIV 0x3e0
uint32_t ioapic_read(unsigned reg);
void ioapic_write(unsigned reg, uint32_t v);
void ioapic_route(unsigned pin, uint64_t entry);
#define IOAPIC_MASKED (1u << 16)
#define IOAPIC_LEVEL (1u << 15)
#define IOAPIC_LOW (1u << 13)
void pic_init(uint8_t base0, uint8_t base1, uint16_t mask);
uint64_t tsc_khz(void);
void delay_us(uint64_t us);
/* Waits until *what is at least `value`, interrupts on; false after ms. */
bool wait_for(volatile uint64_t *what, uint64_t value, unsigned ms);

/* --- fwcfg.c --- */

bool fw_cfg_present(void);
void fw_cfg_read(uint16_t key, void *buf, uint32_t len);
bool fw_cfg_find(const char *name, uint16_t *ret_key, uint32_t *ret_len);

/* --- acpi.c --- */

const void *acpi_find(const char sig[4]); /* NULL: no such table, or no ACPI */
void acpi_off(void);                      /* S5; says so first */

/* --- pci.c --- */

struct pci {
    uint8_t bus, dev, fn;
    uint16_t vendor, device;
    uint8_t class_code, subclass, header;
    uint64_t bar[6], bar_size[6]; /* address; 0: none */
    bool bar_io[6];
    uint8_t irq_line, irq_pin;
};
#define PCI_MAX 64
/* What answers there, with its BARs. False: nothing. */
bool pci_probe(uint8_t bus, uint8_t dev, uint8_t fn, struct pci *ret);
unsigned pci_scan(struct pci *ret, unsigned max);
bool pci_find(uint16_t vendor, uint16_t device, unsigned nth, struct pci *ret);
uint32_t pci_read32(const struct pci *p, unsigned off);
void pci_write32(const struct pci *p, unsigned off, uint32_t v);
uint16_t pci_read16(const struct pci *p, unsigned off);
void pci_write16(const struct pci *p, unsigned off, uint16_t v);
uint8_t pci_read8(const struct pci *p, unsigned off);
void pci_write8(const struct pci *p, unsigned off, uint8_t v);
uint8_t pci_capability(const struct pci *p, uint8_t id, uint8_t after); /* offset, or 0 */
volatile void *pci_map_bar(struct pci *p, unsigned bar);
void pci_enable(const struct pci *p, bool master);
bool pci_msix_set(struct pci *p, unsigned entry, uint32_t dest_apic,
                  uint8_t vector); /* and enables MSI-X */
