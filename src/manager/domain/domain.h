/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: a host's virtual machines, defined or running, and all that is done to them.
 *
 * Spec      libvirt's domain API at 9.0.0; flags are its numbers, and a flag that is not known here is
 *           MANAGER_ERR_ARGUMENT.
 * Thread    The loop thread. Functions marked (waits) need a task.
 * Owner     The table of domains owns them; domain_find_*() return references.
 * Lock      Operations that change a domain take its job lock, in order of arrival, and give up after
 *           30 s (MANAGER_ERR_LOCK_TIMEOUT) with the name of the operation that holds it. Queries take none.
 * Stored    config_dir/domains/NAME.xml, config_dir/autostart/NAME.xml (a link); while it runs
 *           runtime_dir/domains/NAME.xml: live definition, state, process, monitor. Descriptions are written and synced
 *           before the operation says that it was done; the state of what runs is written, which is enough to
 *           outlive us: it does not outlive the host.
 */
#pragma once

#include "manager/domain/def.h"
#include "manager/manager.h"

/* virDomainState */
enum domain_state {
    DOMAIN_NOSTATE, DOMAIN_RUNNING, DOMAIN_BLOCKED, DOMAIN_PAUSED, DOMAIN_SHUTDOWN, DOMAIN_SHUTOFF,
    DOMAIN_CRASHED, DOMAIN_PMSUSPENDED, DOMAIN_STATES
};
#define DOMAIN_NAME_MAX 200

struct vm; /* its process: vm.h */
struct vm_use;
struct domain_waiter;
struct domain_job; /* domain_job.c */
struct job;        /* manager/job.h */
struct domain_migration; /* domain_migrate.c */

struct domain {
    unsigned refs;
    char *name;                /* what the tables know it by: the same in `def` and `live` */
    uint8_t uuid[16];
    int id;                    /* while it runs, else -1; grows, never used twice by one daemon's state */
    enum domain_state state;
    int reason;                /* virDomain*Reason of the state */
    bool autostart, persistent;
    bool removed;              /* no longer in the table */
    bool unborn;               /* its first definition is being stored: nobody finds it yet */
    struct domain_def *def;    /* what stands in config_dir; of a transient one NULL */
    struct domain_def *live;   /* what runs; NULL unless it does */
    struct vm *vm;             /* NULL unless it runs */
    struct vm_use *use;        /* private: who is in a call of `vm` */
    const char *job_holder;    /* operation that holds the lock; NULL: free */
    struct domain_waiter *job_queue;
    int64_t job_since_us;
    /* of the running machine */
    int pause_reason;          /* why we stop it now: virDomainPausedReason; 0: we do not */
    unsigned resumes;          /* how often it told that it went on */
    bool fake_reboot;          /* the next power-off is the first half of a reboot */
    bool agent;                /* the guest agent is connected */
    int agent_timeout;         /* what it has where a call does not say: as domain_agent_command()'s */
    int64_t reboot_told_us;    /* when the last REBOOT event went out */
    const struct caller *autodestroy; /* its end is the machine's: compared, never followed */
    struct domain_job *job, *ended_job; /* saved, restored, dumped, migrated: now, and last */
    struct domain_migration *migration; /* while it goes to or comes from another manager */
    uint64_t max_speed_mib;    /* of its streams, a second; 0: as fast as they go */
    bool managed_save;         /* its state is in state_dir/save: the next start goes on from there */
};
/* The name and UUID, of what runs or is defined. */
const struct domain_summary *domain_summary(const struct domain *d);
static inline bool domain_is_active(const struct domain *d)
{
    return d->id != -1;
}
struct domain *domain_ref(struct domain *d);
void domain_unref(struct domain *d); /* NULL is fine */

/* Finding. NULL with MANAGER_ERR_NO_DOMAIN. */
struct domain *domain_find_name(const char *name, GError **error);
struct domain *domain_find_uuid(const uint8_t *uuid, GError **error);
struct domain *domain_find_id(int id, GError **error);
/* All that pass virConnectListAllDomainsFlags (0: all), sorted by name; references in an array that
 * frees them. */
GPtrArray *domain_list(const struct caller *who, unsigned list_flags);
unsigned domain_count(bool active);

/* Life. `start_flags` are virDomainCreateFlags, and so on. */
struct domain *domain_define(const struct caller *who, const char *xml, unsigned define_flags, GError **error); /* (waits) */
struct domain *domain_create_xml(const struct caller *who, const char *xml, unsigned start_flags, GError **error); /* (waits) */
bool domain_undefine(const struct caller *who, struct domain *d, unsigned undefine_flags, GError **error); /* (waits) */
bool domain_start(const struct caller *who, struct domain *d, unsigned start_flags, GError **error);   /* (waits) */
bool domain_suspend(const struct caller *who, struct domain *d, GError **error);                       /* (waits) */
bool domain_resume(const struct caller *who, struct domain *d, GError **error);                        /* (waits) */
bool domain_shutdown(const struct caller *who, struct domain *d, unsigned shutdown_flags, GError **error); /* (waits) */
bool domain_reboot(const struct caller *who, struct domain *d, unsigned reboot_flags, GError **error); /* (waits) */
bool domain_reset(const struct caller *who, struct domain *d, GError **error);                         /* (waits) */
bool domain_destroy(const struct caller *who, struct domain *d, unsigned destroy_flags, GError **error); /* (waits) */
bool domain_rename(const struct caller *who, struct domain *d, const char *name, GError **error);      /* (waits) */
bool domain_set_autostart(const struct caller *who, struct domain *d, bool on, GError **error);        /* (waits) */
/* By the numbers of virDomainLifecycle and virDomainLifecycleAction. */
bool domain_set_lifecycle_action(const struct caller *who, struct domain *d, unsigned type, unsigned action,
                                 unsigned affect, GError **error); /* (waits) */
/* The guest is asked, by its agent, to sleep (virNodeSuspendTarget); or woken. */
bool domain_pm_suspend(const struct caller *who, struct domain *d, unsigned target, uint64_t duration_s, GError **error); /* (waits) */
bool domain_pm_wakeup(const struct caller *who, struct domain *d, GError **error); /* (waits) */
/* A picture of a screen (portable pixmap): a descriptor, the caller's; -1 with *error. */
int domain_screenshot(const struct caller *who, struct domain *d, unsigned screen, GError **error); /* (waits) */
/* Keys pressed together, for hold_ms (0: as long as the emulator thinks fit). `set` is virKeycodeSet. */
#define DOMAIN_KEYS_MAX 16
enum domain_keys {
    DOMAIN_KEYS_LINUX, DOMAIN_KEYS_XT, DOMAIN_KEYS_SET1, DOMAIN_KEYS_SET2, DOMAIN_KEYS_SET3, DOMAIN_KEYS_MAC,
    DOMAIN_KEYS_XT_KBD, DOMAIN_KEYS_USB, DOMAIN_KEYS_WIN32, DOMAIN_KEYS_NUMBER /* QEMU's */
};
bool domain_send_key(const struct caller *who, struct domain *d, unsigned set, unsigned hold_ms, const uint32_t *keys,
                     unsigned count, GError **error); /* (waits) */
/* A viewer's connection to the graphics of that number; trusted: without its password. The first lends the descriptor,
 * the second makes the connection and returns the viewer's end. */
bool domain_open_graphics(const struct caller *who, struct domain *d, unsigned number, int fd, bool trusted, GError **error); /* (waits) */
int domain_view_graphics(const struct caller *who, struct domain *d, unsigned number, bool trusted, GError **error); /* (waits) */
bool domain_inject_nmi(const struct caller *who, struct domain *d, GError **error);                    /* (waits) */

/* Saved states. `save_flags` are virDomainSaveRestoreFlags; `xml` (may be NULL) takes the description's place if its guest
 * is the same (def.h: domain_def_same_guest()). A saved machine is off; when saving fails it goes on as it was. `shown`
 * (may be NULL) is a job that follows it, and whose cancelling ends it. */
enum domain_save_flags { SAVE_BYPASS_CACHE = 1, SAVE_AS_RUNNING = 2, SAVE_AS_PAUSED = 4, SAVE_RESET_NVRAM = 8 };
bool domain_save(const struct caller *who, struct domain *d, const char *path, const char *xml, unsigned save_flags,
                 struct job *shown, GError **error); /* (waits) */
/* The domain that runs then, as a transient one if it is not defined; the file stays. A reference. */
struct domain *domain_restore(const struct caller *who, const char *path, const char *xml, unsigned save_flags,
                              struct job *shown, GError **error); /* (waits) */
char *domain_save_xml(const struct caller *who, const char *path, unsigned format_flags, GError **error); /* (waits) */
bool domain_save_define(const struct caller *who, const char *path, const char *xml, unsigned save_flags, GError **error); /* (waits) */
/* The same in a place of ours, state_dir/save/NAME.save: the next start goes on from it and takes it away. */
bool domain_managed_save(const struct caller *who, struct domain *d, unsigned save_flags, struct job *shown, GError **error); /* (waits) */
bool domain_managed_save_remove(const struct caller *who, struct domain *d, GError **error); /* (waits) */
char *domain_managed_save_xml(const struct caller *who, struct domain *d, unsigned format_flags, GError **error); /* (waits) */
bool domain_managed_save_define(const struct caller *who, struct domain *d, const char *xml, unsigned save_flags, GError **error); /* (waits) */

/* Its memory (DUMP_MEMORY_ONLY: as a core file of virDomainCoreDumpFormat; else all of its state, as the emulator
 * writes it) to a file; `dump_flags` are virDomainCoreDumpFlags. */
enum domain_dump_flags { DUMP_CRASH = 1, DUMP_LIVE = 2, DUMP_BYPASS_CACHE = 4, DUMP_RESET = 8, DUMP_MEMORY_ONLY = 16 };
bool domain_dump(const struct caller *who, struct domain *d, const char *path, unsigned format, unsigned dump_flags,
                 struct job *shown, GError **error); /* (waits) */
/* Pieces, of at most DOMAIN_PEEK_MAX bytes: of memory (virDomainMemoryFlags), of a raw disk's file. */
#define DOMAIN_PEEK_MAX (4u << 20)
enum domain_peek_flags { PEEK_VIRTUAL = 1, PEEK_PHYSICAL = 2 };
bool domain_memory_peek(const struct caller *who, struct domain *d, uint64_t from, uint8_t *ret, size_t len, unsigned peek_flags,
                        GError **error); /* (waits) */
bool domain_block_peek(const struct caller *who, struct domain *d, const char *disk, uint64_t from, uint8_t *ret, size_t len,
                       GError **error); /* (waits) */

/* What takes long on a machine: virDomainJobOperation and virDomainJobType. */
enum domain_job_operation { DOMAIN_JOB_SAVE = 2, DOMAIN_JOB_RESTORE = 3, DOMAIN_JOB_MIGRATION_IN = 4, DOMAIN_JOB_MIGRATION_OUT = 5, DOMAIN_JOB_DUMP = 8 };
enum domain_job_type {
    DOMAIN_JOB_NONE, DOMAIN_JOB_BOUNDED, DOMAIN_JOB_UNBOUNDED, DOMAIN_JOB_COMPLETED, DOMAIN_JOB_FAILED, DOMAIN_JOB_CANCELLED
};
struct domain_job_info {
    enum domain_job_type type; /* NONE: all others are 0 */
    enum domain_job_operation operation;
    uint64_t elapsed_ms, remaining_ms;          /* remaining 0: not known */
    uint64_t total, done, remaining;            /* bytes */
    uint64_t constant, normal, page_bytes, bytes_s, setup_ms;
    char why[256];                              /* of a failed one; else "" */
};
/* ended: the last one that is over, which is forgotten then, unless `keep`. None of these waits. */
bool domain_job_info(const struct caller *who, struct domain *d, bool ended, bool keep, struct domain_job_info *ret, GError **error);
void domain_job_params(const struct domain_job_info *i, struct param_list *ret); /* libvirt's names */
bool domain_abort_job(const struct caller *who, struct domain *d, GError **error);
bool domain_set_max_speed(const struct caller *who, struct domain *d, uint64_t mib_s, GError **error); /* (waits) */

/* Jobs on a running machine's disks (by target or source): virDomainBlockJobType. They go on beside everything else,
 * and are found again by the next daemon. Speeds are bytes a second, 0: no limit. Images are named by path or "vda[3]". */
enum domain_block_job_kind { BLOCK_JOB_NONE, BLOCK_JOB_PULL, BLOCK_JOB_COPY, BLOCK_JOB_COMMIT, BLOCK_JOB_ACTIVE };
struct domain_block_job_info {
    enum domain_block_job_kind kind; /* NONE: there is none */
    uint64_t done, total, bytes_s;
    bool ready;
};
struct domain_block_copy {
    const char *path, *format; /* format NULL: the disk's own, or found by whoever made the file */
    bool device;               /* a block device */
    bool shallow, reuse, write_blocking;
    uint64_t bytes_s, granularity, buf_size;
};
enum domain_block_commit_flags { COMMIT_SHALLOW = 1, COMMIT_DELETE = 2, COMMIT_ACTIVE = 4, COMMIT_RELATIVE = 8 };
enum domain_block_abort_flags { ABORT_ASYNC = 1, ABORT_PIVOT = 2 };
bool domain_block_pull(const struct caller *who, struct domain *d, const char *disk, const char *base, uint64_t bytes_s, GError **error); /* (waits) */
bool domain_block_commit(const struct caller *who, struct domain *d, const char *disk, const char *base, const char *top,
                         unsigned commit_flags, uint64_t bytes_s, GError **error); /* (waits) */
bool domain_block_copy(const struct caller *who, struct domain *d, const char *disk, const struct domain_block_copy *c, GError **error); /* (waits) */
bool domain_block_job_abort(const struct caller *who, struct domain *d, const char *disk, unsigned abort_flags, GError **error); /* (waits) */
bool domain_block_job_speed(const struct caller *who, struct domain *d, const char *disk, uint64_t bytes_s, GError **error); /* (waits) */
bool domain_block_job_info(const struct caller *who, struct domain *d, const char *disk, struct domain_block_job_info *ret, GError **error); /* (waits) */

/* The connection of `who` has ended: so do the machines that were started with START_AUTODESTROY by it. */
void domain_autodestroy(const struct caller *who);

/* Description. `affect` is virDomainModificationImpact: 0 current, 1 live, 2 config. */
/* The command line that a description would be run by; format: "qemu-argv". */
char *domain_native(const struct caller *who, const char *format, const char *xml, GError **error); /* (waits) */
char *domain_xml(const struct caller *who, struct domain *d, unsigned format_flags, GError **error);
bool domain_set_metadata(const struct caller *who, struct domain *d, int type, const char *text, const char *prefix,
                         const char *uri, unsigned affect, GError **error); /* (waits) */
char *domain_get_metadata(const struct caller *who, struct domain *d, int type, const char *uri, unsigned affect,
                          GError **error);
bool domain_device(const struct caller *who, struct domain *d, enum def_device_action action, const char *xml,
                   unsigned affect, GError **error); /* (waits) */
/* A device by its alias: the guest is asked, and an event tells when it has left. */
bool domain_detach_alias(const struct caller *who, struct domain *d, const char *alias, unsigned affect,
                         GError **error); /* (waits) */
/* A change of the definition by its tree: fn changes a copy, which is then checked, stored, and takes the old
 * one's place. For what has no own operation above. */
bool domain_change_config(const struct caller *who, struct domain *d, const char *operation,
                          bool (*fn)(struct xml_node *domain, void *opaque, GError **error), void *opaque, GError **error); /* (waits) */

/* Changes of resources. */
bool domain_set_memory(const struct caller *who, struct domain *d, uint64_t kib, unsigned memory_flags, GError **error); /* (waits) */
/* Seconds between the balloon's reports of the guest's memory; 0: none. */
bool domain_set_stats_period(const struct caller *who, struct domain *d, int seconds, unsigned affect, GError **error); /* (waits) */
bool domain_set_vcpus(const struct caller *who, struct domain *d, unsigned count, unsigned vcpu_flags, GError **error);  /* (waits) */
/* vCPUs by number, "0-3,^2": in or out. (waits) */
bool domain_set_vcpu(const struct caller *who, struct domain *d, const char *cpus, bool on, unsigned affect, GError **error);
int domain_get_vcpus(const struct caller *who, struct domain *d, unsigned vcpu_flags, GError **error); /* -1: error */
/* Which: "scheduler", "memory", "blkio", "numa", "interface:DEV", "blockio:DEV" (iotune), as libvirt's calls. */
bool domain_set_params(const struct caller *who, struct domain *d, const char *which, const struct param_list *l,
                       unsigned affect, GError **error); /* (waits) */
bool domain_get_params(const struct caller *who, struct domain *d, const char *which, unsigned affect,
                       struct param_list *ret, GError **error); /* (waits) */
/* cpumap: bits of host CPUs, cpumap_len bytes. vcpu -1: the emulator. */
bool domain_pin_vcpu(const struct caller *who, struct domain *d, int vcpu, const uint8_t *cpumap, unsigned len,
                     unsigned affect, GError **error); /* (waits) */
bool domain_pin_iothread(const struct caller *who, struct domain *d, unsigned id, const uint8_t *cpumap, unsigned len,
                         unsigned affect, GError **error); /* (waits) */
/* I/O threads, by numbers from 1; `params` are virDomainSetIOThreadParams()'. */
bool domain_add_iothread(const struct caller *who, struct domain *d, unsigned id, unsigned affect, GError **error); /* (waits) */
bool domain_del_iothread(const struct caller *who, struct domain *d, unsigned id, unsigned affect, GError **error); /* (waits) */
bool domain_set_iothread(const struct caller *who, struct domain *d, unsigned id, const struct param_list *params,
                         unsigned affect, GError **error); /* (waits) */
/* Their numbers (unsigned), and as many maps of `len` bytes: the caller's. */
bool domain_get_iothreads(const struct caller *who, struct domain *d, unsigned affect, unsigned len, GArray **ret_ids,
                          uint8_t **ret_maps, GError **error);
/* maps: count rows of len bytes; vcpu pins, or (emulator) one row. Returns rows, -1: error. */
int domain_get_pins(const struct caller *who, struct domain *d, bool emulator, unsigned affect, uint8_t *maps,
                    unsigned count, unsigned len, GError **error);

/* Queries from memory, /proc and cgroups: none of these waits. */
struct domain_info {
    enum domain_state state;
    uint64_t max_memory_kib, memory_kib, cpu_time_ns;
    unsigned vcpus;
};
bool domain_info(const struct caller *who, struct domain *d, struct domain_info *ret, GError **error);
struct domain_vcpu {
    unsigned number;
    int state, cpu; /* virVcpuState; host CPU, -1: not running */
    uint64_t cpu_time_ns;
};
int domain_vcpus(const struct caller *who, struct domain *d, struct domain_vcpu *ret, unsigned room, GError **error);

/* Queries that may ask the machine. */
/* virDomainStatsTypes; 0: all that there are. Adds rows as virConnectGetAllDomainStats names them. */
bool domain_stats(const struct caller *who, struct domain *d, unsigned stats, unsigned flags, struct param_list *ret,
                  GError **error); /* (waits, unless all it needs was asked for less than a second ago) */
struct domain_block_stats {
    int64_t rd_req, rd_bytes, rd_ns, wr_req, wr_bytes, wr_ns, flush_req, flush_ns, errs; /* -1: not known */
};
bool domain_block_stats(const struct caller *who, struct domain *d, const char *disk, struct domain_block_stats *ret,
                        GError **error); /* (waits) */
struct domain_block_info { uint64_t capacity, allocation, physical; };
bool domain_block_info(const struct caller *who, struct domain *d, const char *disk, struct domain_block_info *ret,
                       GError **error); /* (waits) */
/* An event tells when the guest writes behind it, once; 0: none. */
bool domain_block_threshold(const struct caller *who, struct domain *d, const char *disk, uint64_t bytes, GError **error); /* (waits) */
bool domain_block_resize(const struct caller *who, struct domain *d, const char *disk, uint64_t bytes, GError **error); /* (waits) */
struct domain_interface_stats { int64_t rx_bytes, rx_packets, rx_errs, rx_drop, tx_bytes, tx_packets, tx_errs, tx_drop; };
bool domain_interface_stats(const struct caller *who, struct domain *d, const char *device,
                            struct domain_interface_stats *ret, GError **error); /* (waits) */
struct domain_memory_stat { int tag; uint64_t value; }; /* virDomainMemoryStatTags */
int domain_memory_stats(const struct caller *who, struct domain *d, struct domain_memory_stat *ret, unsigned room,
                        GError **error); /* (waits) */
/* cpu -1: one list for the sum ("cpu_time", "user_time", "system_time"); else of host CPU `cpu`. */
bool domain_cpu_stats(const struct caller *who, struct domain *d, int cpu, struct param_list *ret, GError **error);

/* A console, serial port or channel by alias (NULL: the first console): a connected descriptor, the caller's.
 * force ends another's session. (waits) */
int domain_open_console(const struct caller *who, struct domain *d, const char *alias, bool force, bool channel,
                        GError **error);
/* The guest agent: a JSON text to it, its answer. timeout_s is virDomainQemuAgentCommandTimeoutValues, or seconds. (waits) */
enum { AGENT_BLOCK = -2, AGENT_DEFAULT = -1, AGENT_NO_WAIT = 0 };
char *domain_agent_command(const struct caller *who, struct domain *d, const char *json, int timeout_s, GError **error);
/* One command to the machine's monitor, JSON (or HMP text with hmp): for tools that must. (waits) */
char *domain_monitor_command(const struct caller *who, struct domain *d, const char *text, bool hmp, GError **error);
/* With a descriptor, which the monitor gets too. (waits) */
char *domain_monitor_command_fd(const struct caller *who, struct domain *d, const char *text, int fd, GError **error);
/* Where the guest finds a disk: the PCI function of it or of its controller, and its place there. */
struct guest_disk_place {
    uint64_t domain, bus, slot, function; /* PCI */
    uint64_t channel, target, unit;       /* on the controller */
};
/* That disk's target name in the running machine: "vda". NULL: it has none there. g_free(). */
char *domain_disk_at(struct domain *d, const struct guest_disk_place *at);
/* How long the agent has from now on. */
bool domain_set_agent_timeout(const struct caller *who, struct domain *d, int seconds, GError **error);
/* The last lines that the guest kernel wrote to its first console, from the log. */
char *domain_dmesg(const struct caller *who, struct domain *d, GError **error);
/* The last lines that its process wrote, and how it was started. */
char *domain_log(const struct caller *who, struct domain *d, GError **error);

/* manager_start() calls these: reads what is stored and finds what runs; then starts what wants it. */
bool domains_load(GError **error);
void domains_autostart(void); /* (waits) */
void domains_stop(void);
