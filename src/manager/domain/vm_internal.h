/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside vm*.c: the parts of a machine's process; see vm.h.
 *
 * Owner     Reference counted: a call that waits for the monitor holds one, so that vm_free() may
 * come from anywhere meanwhile. After it, `d` and `qmp` are NULL.
 */
#pragma once

#include "manager/cgroup.h"
#include "manager/domain/vm.h"
#include "manager/domain/vm_args.h"
#include "manager/uuid.h"
#include "qmp/client.h"

#include <net/if.h>

#define VM_CALL_MS   30000 /* an answer of the monitor */
#define VM_OPEN_MS   120000 /* when it opens an image, whose key may take a busy processor its time */
#define VM_KEY_MS    20000 /* for each key at the start, beside VM_START_MS */
#define VM_START_MS  60000 /* from the start of the process to its first answer */
#define VM_MAX_VCPUS 4096

/* A thread of the machine's process, as the monitor named it. */
struct vm_thread {
    unsigned number; /* vCPU or I/O thread */
    pid_t tid;
};

/* Answers that are good for a while: bulk statistics ask each machine at most once a second. */
struct vm_answer {
    JsonNode *node;
    GError *error;
    int64_t at_us;
};
enum vm_question {
    VM_ASK_BLOCKSTATS,
    VM_ASK_NODES,
    VM_ASK_NETDEVS,
    VM_ASK_BALLOON_STATS,
    VM_ASK_IOTHREADS,
    VM_QUESTIONS
};

/* What vm_state_poll() is to look at. */
enum vm_stream { VM_STREAM_OUT, VM_STREAM_IN, VM_STREAM_DUMP };

struct vm {
    unsigned refs;
    struct domain *d; /* borrowed: it has us; NULL after vm_free() */
    char *name;       /* for sentences */
    bool ours;        /* ruche-vmm, else QEMU */
    pid_t pid;
    uint64_t start_ticks; /* of /proc/PID/stat: the process is the one that we mean */
    int pidfd;
    guint pid_source, log_source;
    bool reporting;          /* events go to the domain: vm_start() is over, vm_kill() not begun */
    bool ended, guest_ended; /* the process is gone; after it had said so */
    struct qmp_client *qmp;  /* NULL: not connected */
    char uuid[UUID_TEXT_BYTES];
    char *dir;       /* runtime_dir/machines/UUID: sockets, and what vm_clean() looks for */
    char *run_state; /* QMP's word, as it was last said */
    char *lost_why;  /* why there is no monitor */
    struct cgroup *cgroup;
    GArray *vcpus, *iothreads; /* struct vm_thread */
    char *balloon;             /* its path in QOM; NULL: none */
    unsigned plugged;     /* numbers the devices that are added; begins at the time, so that no two
                             daemons say the same */
    GHashTable *leaving;  /* alias to struct vm_leaving: devices that somebody waits to see leave */
    uint64_t balloon_kib; /* 0: as defined */
    struct vm_answer answers[VM_QUESTIONS];
    struct fiber_mutex asking, agent_lock;
    int told_fd; /* the agent, of whom no answer is wanted but what the guest does; -1: none */
    GHashTable *consoles;    /* alias to struct console (vm_console.c): sessions */
    int64_t silent_until_us; /* it did not answer: statistics do not ask before */
    bool incoming;           /* it starts with another's state */
    enum vm_stream stream;
    int64_t log_from; /* where the log ended when the stream began */
};

/* Remembers which of the live definition's devices is the balloon: when it starts and when it is
 * found. */
void vm_know_balloon(struct vm *v, const struct xml_node *domain);
struct vm *vm_ref(struct vm *v);
void vm_unref(struct vm *v);
static inline void vm_auto_unref(struct vm **v)
{
    vm_unref(*v);
}
/* auto_vm *keep = vm_ref(v); */
#define auto_vm __attribute__((cleanup(vm_auto_unref))) struct vm

/* vm_agent.c: the guest has done it. */
void vm_agent_done(struct vm *v);
/* vm_monitor.c */
/* Makes an object: key, type ('s' string, 'i' int64_t, 'b' bool, 'o' JsonObject *, taken; 'a'
 * JsonArray *, taken), value, ..., NULL. Strings that are NULL are left out. */
JsonObject *vm_json(const char *key, ...) G_GNUC_NULL_TERMINATED;
/* One command. The value, or NULL with a sentence that names the machine. `args` is taken. */
JsonNode *vm_call(struct vm *v, const char *command, JsonObject *args, GError **error);
/* For commands whose value nobody reads. */
bool vm_do(struct vm *v, const char *command, JsonObject *args, GError **error);
/* With a descriptor, by SCM_RIGHTS. */
JsonNode *vm_call_fd(struct vm *v, const char *command, JsonObject *args, int fd, GError **error);
bool vm_do_fd(struct vm *v, const char *command, JsonObject *args, int fd, GError **error);
/* What a question was answered with, at most a second ago; borrowed until the next wait. */
JsonNode *vm_ask(struct vm *v, enum vm_question q, GError **error);
bool vm_connect_monitor(struct vm *v, int timeout_ms, GError **error);
/* Values in answers: what is missing or of another type is NULL, 0, false. */
JsonObject *vm_json_object(JsonNode *n);
JsonArray *vm_json_array(JsonNode *n);
JsonObject *vm_json_at(JsonArray *a, guint i); /* NULL: no object there */
JsonObject *vm_json_sub(JsonObject *o, const char *name);
JsonArray *vm_json_list(JsonObject *o, const char *name);
const char *vm_json_string(JsonObject *o, const char *name);
int64_t vm_json_int(JsonObject *o, const char *name, int64_t otherwise);
bool vm_json_bool(JsonObject *o, const char *name);

/* vm_events.c */
extern const struct qmp_client_ops vm_monitor_ops; /* opaque: the vm */
void vm_report(struct vm *v, enum vm_event event, int detail, const char *const text[4],
               uint64_t number);

/* vm_life.c */
struct vm *vm_new(struct domain *d);
/* The process of v->pid is watched; its end becomes VM_EV_GONE. */
bool vm_watch(struct vm *v, GError **error);
uint64_t vm_process_start(pid_t pid); /* 0: no such process */
bool vm_read_threads(struct vm *v, GError **error);
/* Takes away what the machine had of the host: cgroup, links, sockets. */
void vm_clean_up(struct vm *v);
/* A link of the host to be deleted at the end, whoever is there then. */
void vm_note_link(const struct vm *v, const char *ifname);
void vm_forget_link(const struct vm *v, const char *ifname); /* it has gone, and another's can be called so */
const char *vm_cgroup_name(const struct vm *v); /* static buffer */
bool vm_read_state(struct vm *v, GError **error);

/* vm_volume.c: writes what the volumes of pools are into the <source> of disks that name them; of one disk. */
bool vm_find_volumes(struct xml_node *domain, GError **error);
bool vm_find_volume(struct xml_node *disk, GError **error);

/* vm_chain.c: writes the backing chain of each disk into its <backingStore>. (waits) */
bool vm_find_chains(struct xml_node *domain, GError **error);

/* vm_query.c, vm_block.c: rows of bulk statistics. */
void vm_cpu_total_stats(struct vm *v, struct param_list *ret);
void vm_vcpu_stats(struct vm *v, struct param_list *ret);
void vm_balloon_stats(struct vm *v, struct param_list *ret);
void vm_disk_stats(struct vm *v, struct param_list *ret);
/* By target, source or alias. Borrowed until the next wait. */
const struct def_disk *vm_find_disk(const struct vm *v, const char *name, GError **error);

/* vm_console.c */
void vm_console_free(gpointer console);

/* vm_device.c */
/* The link state of an <interface>. */
bool vm_set_link(struct vm *v, const struct xml_node *interface, GError **error);
/* One device as the command line's builder says it. {0}, vm_build_device(), vm_build_done(). */
struct vm_build {
    struct xml_node *doc; /* a copy of the live tree that has only this device */
    struct xml_node *own; /* it, with what the host chose */
    struct vm_args a;
    struct vm_args_ops ops;
};
bool vm_build_device(struct vm *v, const struct xml_node *device, struct vm_build *b, GError **error);
void vm_build_done(struct vm_build *b);
/* All of it into the machine, or nothing; without `device` what it stands on only. */
bool vm_add_built(struct vm *v, struct vm_build *b, bool device, GError **error);
/* What a disk's image stands on was found out in `own`. */
void vm_take_chain(struct xml_node *disk, const struct xml_node *own);
bool vm_no_hot_plug(const struct vm *v, const struct xml_node *device, const char *verb, GError **error);

/* vm_update.c */
bool vm_update(struct vm *v, struct vm_change *c, GError **error);
/* Displays' passwords, which no command line shows. */
bool vm_start_passwords(struct vm *v, const struct xml_node *domain, GError **error);

/* vm_unplug.c */
/* The machine says so: what the device stood on goes too, so that its name is free again. */
void vm_device_deleted(struct vm *v, const char *alias);
/* An image's nodes and the file that was passed for it; `nodes` is what query-named-block-nodes said. False: it is in use. */
bool vm_delete_image(struct vm *v, JsonArray *nodes, const char *name);
/* Those of a disk ("disk-vda") that nothing uses. */
void vm_delete_nodes(struct vm *v, const char *disk);
void vm_unplug_refused(struct vm *v, const char *alias); /* the guest keeps it */
/* Asks the guest for it; with `wait`, gives it some time. *ret_gone: it has left. */
bool vm_unplug(struct vm *v, const char *alias, bool wait, bool *ret_gone, GError **error);
char *vm_alias_of(const struct vm *v, const struct xml_node *device); /* NULL: it has none; the caller's */

/* vm_tune.c: what <cputune>, <memtune>, <blkiotune>, <numatune>, <iotune>, link states say. (waits)
 */
bool vm_tune_at_start(struct vm *v, struct xml_node *domain, GError **error);
/* The process has ended and its monitor has said all: tells the domain, once. */
void vm_report_gone(struct vm *v);

/* For vm_start() and vm_attach(): from here on events go to the domain. */
void vm_begin_reports(struct vm *v);

/* vm_tap.c, vm_link.c */
/* An <interface> of a type that the host carries: its network is plugged, its tap is made; what was
 * chosen is written into the element. */
bool vm_tap_make(const struct vm *v, struct xml_node *interface, unsigned queues, int *ret, char **ret_name,
                 GError **error);
/* An interface that is there becomes as `after` says: bridge or network (`elsewhere`), isolation, filter, rates, VLANs
 * of Open vSwitch; what was chosen is written into it. Undone when it fails. (waits) */
bool vm_tap_change(const struct vm *v, const struct xml_node *before, struct xml_node *after, bool elsewhere, GError **error);
/* A port of Open vSwitch; what `after` leaves to the network becomes as the network chose it. */
bool vm_tap_is_ovs(const struct xml_node *before, struct xml_node *after);
/* Its rates; NULL: none. */
bool vm_tap_rates(const struct vm *v, const struct xml_node *interface, const struct xml_node *bandwidth, GError **error);
bool vm_tap_stats(const char *ifname,
                  struct domain_interface_stats *ret); /* false: no such interface */
int vm_link_up(const char *name); /* 0 or an errno */
/* vm_macvtap.c: `name`: wanted, or a pattern; the one that it got. */
struct network_plug;
bool vm_macvtap(const struct vm *v, const struct xml_node *interface, const struct network_plug *p, unsigned queues, int *ret,
                char name[IFNAMSIZ], GError **error);
int vm_macvtap_make(const char *name, unsigned lower, const char *mode,
                    const char *mac); /* 0 or an errno */
void vm_link_delete(const char *name);

/* vm_paths.c */
char *vm_socket_path(const struct vm *v, const char *name);
/* Unix sockets by paths of any length. -1 with *error. */
int vm_listen(const char *path, GError **error);
int vm_connect(const char *path, GError **error);
/* Truncates a log that has become large. */
void vm_log_bound(const char *name);
/* Opens a machine's log for appending, the old one put aside when it is large. */
int vm_log_open(const char *name, GError **error);
/* The last lines of the log behind `from`, as one sentence's end; NULL: nothing there. */
char *vm_log_tail(const char *name, off_t from);
