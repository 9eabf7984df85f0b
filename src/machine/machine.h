/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct machine: one virtual machine, built by a board from a configuration, run by an accelerator.
 *
 * Life      machine_new() -> devices are added -> machine_power_on() -> run/stop/reset ... -> machine_free().
 * Thread    The main thread, but where noted. Requests from vCPUs and devices (reset, power-off, panic) are
 *           posted and handled on the main thread.
 */
#pragma once

#include "accel/accel.h"
#include "machine/device.h"

struct board_type;
struct fw_cfg;

/* What the command line asked for. Strings are borrowed for the machine's life. */
struct machine_config {
    const char *name;           /* -name; NULL */
    uint8_t uuid[16];
    bool has_uuid;
    uint64_t ram_bytes;
    struct cpu_topology topology;
    unsigned cpu_count, max_cpus;
    struct accel_config accel;
    const char *cpu_model;      /* -cpu text; NULL: the board's default ("max") */
    const char *kernel, *initrd, *append;
    const char *firmware;       /* -bios; NULL */
    bool acpi, smbios, hpet, graphics; /* machine options, on by default */
    bool pit, pic, rtc;         /* microvm can leave these out */
    bool isa_serial;            /* -serial makes isa-serial ports; microvm can do without */
    int64_t rtc_offset_s;       /* -rtc base=: guest wall clock minus host's */
    bool rtc_local;
    bool ram_prealloc, ram_hugepages, ram_shared;
    const struct global_prop *globals; /* -global, linked list */
    const struct smbios_field *smbios_fields; /* -smbios, linked list */
};

/* A text for a structure of the SMBIOS tables; the field's name is -smbios's. */
struct smbios_field {
    uint8_t type;
    const char *key, *value;
    struct smbios_field *next;
};

struct global_prop {
    const char *driver, *prop, *value;
    bool used;
    struct global_prop *next;
};

enum run_state { RUN_PRELAUNCH, RUN_RUNNING, RUN_PAUSED, RUN_SHUTDOWN, RUN_GUEST_PANICKED, RUN_IO_ERROR,
                 RUN_INTERNAL_ERROR, RUN_INMIGRATE, RUN_FINISH_MIGRATE, RUN_POSTMIGRATE };

/* What guests and devices ask of whoever owns the machine; delivered on the main thread. */
enum machine_request { MACHINE_REQ_RESET, MACHINE_REQ_POWEROFF, MACHINE_REQ_PANIC, MACHINE_REQ_DEBUG_EXIT,
                       MACHINE_REQ_INTERNAL_ERROR, MACHINE_REQ_IO_ERROR, MACHINE_REQ_CRASH_LOADED };

/* Callbacks to the vmm (main thread). */
struct machine_observer {
    /* Reset/power-off/panic/debug-exit: `code` is isa-debug-exit's exit status or the panic's reason. */
    void (*request)(void *opaque, enum machine_request what, int code);
    /* Something of a device that QMP reports as an event: name, and JSON-free details as text pairs
     * (key, value, ... NULL). */
    void (*event)(void *opaque, const char *name, const char *const *pairs);
    /* The guest has let go of a device, which nothing reaches any more: to be freed. */
    void (*unplugged)(void *opaque, struct device *d);
    /* The guest has let go of a vCPU; what it reports of plugging (_OST). */
    void (*cpu_ejected)(void *opaque, unsigned index);
    void (*cpu_reported)(void *opaque, unsigned index, uint32_t event, uint32_t status);
    void *opaque;
};

struct machine {
    struct machine_config config;
    const struct board_type *board;
    struct accel *accel;
    struct mem_space *memory, *io;
    struct clock clock;
    struct loop *main_loop;       /* attached to the default GMainContext by the vmm */
    struct device *devices;       /* all, in creation order */
    struct device **devices_tail;
    struct vcpu **vcpus;          /* all that can be; those that are `present` have threads */
    unsigned vcpu_count;
    uint8_t *ram;                 /* all RAM, contiguous in the host: low part first */
    int ram_fd;
    uint64_t ram_below_4g, ram_above_4g;
    struct mem_region ram_low, ram_high;
    /* Interrupt wiring of the board: GSI 0-23 (0-15 are ISA IRQs). */
    struct irq_line gsi[24];
    struct fw_cfg *fw_cfg;        /* NULL on boards without */
    struct pci_bus *pci;          /* root bus; NULL on boards without */
    void (*pci_setup)(struct machine *m); /* what firmware would do: assign BARs, enable; set by the host bridge */
    struct irq_line power_button; /* ACPI power button: pulse it */
    struct irq_line cpu_event;    /* a vCPU has come, or is to go: pulse it */
    struct machine_observer observer;
    GHashTable *backends[4];      /* machine/backends.h: id to backend, borrowed */
    const struct backend_state *backend_state[4]; /* by kind; NULL: these have no state */
    enum run_state state;
    bool powered_on;                   /* devices that come from now on are plugged in at run time */
    void *board_data;
    struct machine_run *run;           /* vcpu.c: threads and the pause protocol */
    struct machine_dirty *dirty;       /* machine/dirty.h; NULL: nobody has asked yet */
    struct machine_requests *requests; /* requests.c: what guests asked for, not yet delivered */
    struct mem_listener memory_listener, io_listener;
    struct accel_host accel_host;
    struct cpu_model *cpu_model;
};

/* A board: one row in a linker set (machine/q35.c, machine/microvm.c). */
struct board_type {
    const char *name;
    const char *const *aliases;
    const char *summary;
    const struct prop *props; /* -machine name,prop=value: fields of struct machine_config */
    unsigned max_cpus;
    /* Bytes of RAM below the hole: all when there is no more than ram_low_max, else ram_low_split. */
    uint64_t ram_low_max, ram_low_split;
    /* Makes the board's devices, address map and firmware tables. */
    bool (*build)(struct machine *m, GError **error);
    /* After all -device devices exist, at every power-on and reset: loads kernel, writes tables, sets vCPU 0. */
    bool (*boot)(struct machine *m, GError **error);
    void (*destroy)(struct machine *m); /* may be NULL */
};
LINKSET_DECLARE(board_types);
#define BOARD_TYPE(t) LINKSET_ENTRY(board_types, t)
const struct board_type *board_type_find(const char *name); /* NULL: unknown */
const struct board_type *const *board_type_list(void);      /* sorted, NULL-ended */

/* Fills defaults (1 vCPU, 128 MiB, acpi on...). */
void machine_config_init(struct machine_config *c);
/* RAM, accelerator, vCPUs, the board's devices. `accel_names` is -accel's list ("kvm:soft", NULL: default);
 * `*ret_accel_note` gets the g_malloc'd sentence that says which one was taken and why. */
struct machine *machine_new(const struct board_type *board, const struct machine_config *config,
                            const char *accel_names, struct loop *main_loop, char **ret_accel_note,
                            GError **error);
void machine_free(struct machine *m);
struct device *machine_find_device(struct machine *m, const char *id); /* NULL */

/* First boot: reset of everything, boot loader. The machine is stopped afterwards. */
bool machine_power_on(struct machine *m, GError **error);
bool machine_reset(struct machine *m, GError **error); /* stopped or running; keeps that */
/* A vCPU comes, and waits for the guest to start it; it goes. The machine may run. */
bool machine_vcpu_plug(struct machine *m, unsigned index, GError **error);
void machine_vcpu_unplug(struct machine *m, unsigned index);
static inline unsigned machine_present_vcpus(const struct machine *m)
{
    unsigned count = 0;
    for (unsigned i = 0; i < m->vcpu_count; i++)
        count += m->vcpus[i]->present;
    return count;
}
void machine_run(struct machine *m);  /* clock and vCPUs go */
void machine_stop(struct machine *m); /* returns when no vCPU executes and the clock stands */
bool machine_is_running(const struct machine *m);

/* Any thread. */
void machine_request(struct machine *m, enum machine_request what, int code);
void machine_event(struct machine *m, const char *name, const char *const *pairs);

/* Sends a message-signalled interrupt (any thread). */
static inline void machine_msi(struct machine *m, uint64_t addr, uint32_t data)
{
    accel_msi(m->accel, addr, data);
}
