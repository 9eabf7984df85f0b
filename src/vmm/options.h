/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line: one table of options, and what it asked for.
 *
 * Spec      QEMU's qemu-system-x86_64 manual, for the syntax.
 * Owner     vm_options_free() frees everything; strings in it are its own.
 * Errors    One sentence that begins with the option: "-m: ...".
 */
#pragma once

#include "accel/accel.h"
#include "vmm/keyval.h"

enum option_group {
    GROUP_MACHINE,
    GROUP_BOOT,
    GROUP_STORAGE,
    GROUP_NETWORK,
    GROUP_DEVICE,
    GROUP_CONSOLE,
    GROUP_RUN,
    GROUP_DEBUG,
    GROUP_OTHER,
    N_OPTION_GROUPS
};

struct vm_options;

struct option_row {
    const char *name;  /* without dashes */
    const char *arg;   /* shown in the help; NULL: takes none */
    const char *help;  /* one or two lines, split by '\n'; NULL: not shown (an accepted no-op) */
    enum option_group group;
    bool (*take)(struct vm_options *o, const char *arg, GError **error);
};
/* Rows of opt_*.c; each array ends with a row without a name. */
extern const struct option_row machine_option_rows[], backend_option_rows[], run_option_rows[];

enum action_reboot { REBOOT_RESET, REBOOT_SHUTDOWN };
enum action_shutdown { SHUTDOWN_POWEROFF, SHUTDOWN_PAUSE };
enum action_panic { PANIC_SHUTDOWN, PANIC_PAUSE, PANIC_EXIT_FAILURE, PANIC_NONE };

struct fw_cfg_text {
    char *name, *text; /* text NULL: `file` */
    char *file;
};

struct monitor_text {
    char *spec;     /* short form, or "chardev:ID" */
    bool qmp;
};

struct vm_options {
    bool exit_now;              /* help was printed: leave with status 0 */

    struct kv_list *machine;    /* all -machine, merged; "type" is the board */
    char *accel;                /* "kvm:soft"; NULL: default */
    struct accel_config accel_config;
    char *cpu;
    struct cpu_topology topology;
    unsigned cpu_count, max_cpus;
    uint64_t ram_bytes;
    char *kernel, *initrd, *append, *bios;
    char *name, *process_name;
    uint8_t uuid[16];
    bool has_uuid;
    int64_t rtc_offset_s;
    bool rtc_local;
    bool no_hpet, no_acpi;

    /* struct kv_list each, in the order of the command line */
    GPtrArray *drives, *devices, *globals, *netdevs, *nics, *nets, *chardevs, *objects, *mons, *smbios;
    GPtrArray *blockdevs;       /* JsonObject */
    GPtrArray *serials;         /* char * */
    GPtrArray *monitors;        /* struct monitor_text */
    GPtrArray *fw_cfg;          /* struct fw_cfg_text */
    bool no_monitor;            /* -monitor none */
    bool snapshot;

    bool nographic, nodefaults, no_serial, display_named;
    bool start_paused, daemonize;
    char *pidfile;
    char *incoming;             /* where a machine comes from; NULL: power on */
    enum action_reboot on_reboot;
    enum action_shutdown on_shutdown;
    enum action_panic on_panic;
};

void vm_options_init(struct vm_options *o);
void vm_options_done(struct vm_options *o);
/* argv[0] is skipped. */
bool vm_options_parse(struct vm_options *o, int argc, char **argv, GError **error);

/* Every row, sorted by group and place, for help and query-command-line-options; ends with NULL. */
const struct option_row *const *option_rows(void);

/* Helpers for rows. */
bool option_add_kv(GPtrArray *list, const char *arg, const char *implied, GError **error);
bool option_set_string(char **field, const char *arg);
/* Adds the pairs of `arg` to a list that may be there already. */
bool option_merge_kv(struct kv_list **list, const char *arg, const char *implied, GError **error);

/* -action's words, also while the machine runs. */
bool options_set_action(struct vm_options *o, const char *arg, GError **error);

/* help.c: the texts that "help" arguments print, on standard output. */
void help_options(void);
void help_version(void);
void help_machines(void);
bool help_machine_properties(const char *type, GError **error);
void help_accelerators(void);
void help_cpus(void);
void help_devices(void);
bool help_device(const char *type, GError **error);
void help_netdevs(void);
bool help_netdev(const char *type, GError **error);
void help_chardevs(void);
bool help_chardev(const char *backend, GError **error);
void help_objects(void);
void help_log_items(void);
