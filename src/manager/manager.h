/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The manager: one host's objects, and where they are kept. The core of `ruched`; no wire format here.
 *
 * Spec      docs/manager.md.
 * Thread    The loop thread (default GMainContext) owns everything; see task.h.
 * Owner     One per process: manager_start() makes it, manager_stop() lets go of it. Machines live on.
 *
 * Operations (domain/domain.h, storage/pool.h, node/node.h) take the caller, check his right, and end in
 * true or false with *error. Those that may wait say so: they run in a task. Objects that they return are
 * referenced for the caller of the function.
 */
#pragma once

#include "manager/access.h"
#include "manager/event.h"
#include "manager/task.h"

/* virConnectGetLibVersion() and GetVersion(): what clients gate their calls by. */
#define MANAGER_LIBVIRT_VERSION 9000000u /* 9.0.0 */

struct manager_config {
    bool session;        /* a person's own, without root; else the system's */
    char *config_dir;    /* what must outlive a reboot: descriptions. /etc/ruche, ~/.config/ruche */
    char *state_dir;     /* images, saved machines: /var/lib/ruche, ~/.local/share/ruche */
    char *runtime_dir;   /* what ends with a reboot: sockets, state of machines. /run/ruche, $XDG_RUNTIME_DIR/ruche */
    char *log_dir;       /* /var/log/ruche, under state_dir */
    char *cache_dir;     /* what can be made again: /var/cache/ruche, ~/.cache/ruche */
    char *vmm;           /* path of ruche-vmm */
    char *tls_dir;       /* certificates by which machines reach disks of servers; NULL: /etc/pki/qemu */
    char *tls_secret;    /* of their key: the name or UUID of a secret for TLS; NULL: it is not locked */
    char *img;           /* path of ruche-img */
    char *recipes;       /* folder of programs that build images: launch/launch.h */
    char *user, *group;  /* whom machines run as; NULL: ourselves */
    char *ovsdb_key, *ovsdb_certificate, *ovsdb_ca; /* PEM files, for ssl:IP:PORT */
    char *ovsdb;         /* where Open vSwitch's database listens, "unix:/run/openvswitch/db.sock"; NULL: the usual place */
    unsigned start_parallel; /* how many machines autostart starts at a time */
    char *uri;           /* what ConnectGetURI answers: "qemu:///system", "qemu:///session" */
    uint8_t host_uuid[16];
    char *migration_address, *migration_host; /* where machines from other hosts come in, and by which name these
                                                 reach it; NULL: every address, the host's name */
};
extern struct manager_config manager; /* set before manager_start(), constant after */

/* Fills `manager` with the defaults of system or session mode; every string is then the caller's to
 * replace (g_free, g_strdup). */
void manager_config_init(bool session);
void manager_config_done(void);
/* Rights of the folders above: a person's own are for nobody else, unless machines run as another user. */
unsigned manager_dir_mode(void);
/* Makes folders, reads what is stored, finds machines that run, starts those with autostart (once per
 * boot of the host). Runs tasks of its own; returns when stored objects are known. */
bool manager_start(GError **error);
/* Waits for operations under way, up to timeout_ms, and forgets everything. Machines go on. */
void manager_stop(int timeout_ms);
