/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine goes somewhere else: into a file, a descriptor, a command or another process, and comes from there.
 *
 * Spec      QMP as QEMU 7.2 has it: migrate, migrate-incoming, query-migrate, ... (qmp_migrate.c). The stream is our
 *           own: migrate_stream.h.
 * Live      While the machine runs its RAM is sent in rounds, each what was written since the one before
 *           (machine/dirty.h), until the rest fits `downtime-limit`; then it stops, the rest and the state
 *           (machine/state.h) follow. A stopped machine is sent in one round. The state of a machine that was running
 *           when it was sent, or not, is part of the stream.
 * Disks     Given up at the switch-over: flushed, read-only, their locks free (migrate_disks_give()), taken again by
 *           `cont` here, or by the other side before it loads the state. Until then it has opened those that it could
 *           not have only to look at them, without locks (NODE_INACTIVE).
 * Failure   Here: the machine is as it was, and runs if it ran; query-migrate's error-desc says why. There: the program
 *           ends with status 1 and a sentence: a machine that got half of another's state never runs.
 * Answers   Over unix: and tcp:, and with the capability return-path over sockets that fd: names, the other side
 *           says that it takes the machine, and then that it has it, or why not: only then is the migration
 *           complete. Everywhere else it is when all is written.
 * Thread    The main thread, but for one thread per migration that only reads RAM and moves bytes, and asks the
 *           main thread for the rest.
 */
#pragma once

#include "vmm/build.h"

struct migration;

/* As query-migrate's "status" says them. */
enum migrate_status {
    MIGRATE_NONE,
    MIGRATE_SETUP,
    MIGRATE_CANCELLING,
    MIGRATE_CANCELLED,
    MIGRATE_ACTIVE,
    MIGRATE_COMPLETED,
    MIGRATE_FAILED,
    MIGRATE_PRE_SWITCHOVER,
    MIGRATE_DEVICE,
    N_MIGRATE_STATUS
};
extern const char *const migrate_status_names[N_MIGRATE_STATUS];

/* What migrate-set-parameters and migrate-set-capabilities set. */
struct migrate_parameters {
    uint64_t max_bandwidth_bytes; /* a second; 0: no limit */
    uint64_t downtime_limit_ms;
};
struct migrate_capabilities {
    bool events, pause_before_switchover, return_path;
};

/* What query-migrate shows. Times in milliseconds. */
struct migrate_stats {
    enum migrate_status status;
    char *error;                /* of a failed one */
    uint64_t transferred_bytes, remaining_bytes, total_bytes;
    uint64_t zero_pages, normal_pages;
    uint64_t dirty_rate_pages;  /* written by the guest in a second, during the last round */
    uint64_t rounds;
    uint64_t precopy_bytes, downtime_bytes; /* sent while the machine ran, and after it stopped */
    double mbps;
    uint64_t pages_per_second;
    uint64_t total_ms, downtime_ms, expected_downtime_ms, setup_ms;
};

/* ---- out ---- */

/* Begins; the rest shows in query-migrate. False at once when `uri` is none, one is under way, or the machine cannot. */
bool migrate_start(struct vmm *v, const char *uri, GError **error);
void migrate_cancel(struct vmm *v);
bool migrate_is_under_way(struct vmm *v);
/* Parameters hold at once, also for the one that is under way. */
void migrate_apply_parameters(struct vmm *v);
/* From pre-switchover on. */
bool migrate_continue(struct vmm *v, GError **error);

/* ---- in ---- */

/* `-incoming` and migrate-incoming: waits for a peer or reads at once; "defer": only later. */
bool migrate_incoming(struct vmm *v, const char *uri, GError **error);

/* ---- both ---- */

/* The last one, either way; NULL: there was none. error is borrowed. */
bool migrate_get_stats(struct vmm *v, struct migrate_stats *ret);
void migrate_init(struct vmm *v); /* parameters and capabilities at their defaults */
void migrate_done(struct vmm *v); /* ends what is under way; nothing of it runs after */

/* migrate_block.c. Both all or nothing, with the node's name in the sentence. */
bool migrate_disks_give(struct vmm *v, GError **error);
/* Opens inactive disks anew, with their locks, for writing. False: some are closed, and the machine is to end. */
bool migrate_disks_activate(struct vmm *v, GError **error);
/* Does nothing when they are here. run.c calls it before the machine runs. */
bool migrate_disks_take(struct vmm *v, GError **error);
