/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines from one manager to another: libvirt's phases begin, prepare, perform, finish, confirm.
 *
 * Spec      libvirt's migration protocol, version 3, at 9.0.0: flags (virDomainMigrateFlags), names
 * of parameters and cookies are its.
 * Order     begin (here), prepare (there: a process that waits for the state), perform (here: the
 * state goes there; the guest stands), finish (there: it goes on, or all is taken away), confirm
 * (here: the process ends, or the guest goes on). With MIGRATE_PEER2PEER perform is all of it: we
 * talk to the other manager by the migration peer.
 * Lock      The domain's job lock is held on both sides from the first phase to the last; whose
 * connection ends meanwhile ends his part: before finish the other side's process goes, and the
 * guest stays here.
 * One side  A guest goes on there only by finish, and here only after the other side has said (or
 * can no longer be made to say otherwise) that it does not. When that cannot be known it stands
 * here, paused for migration, and a person decides.
 * Killed    The status file names the phase: domain_migrate_recover() goes on from it.
 * Thread    The loop thread; all but domain_migrate_forget() waits.
 */
#pragma once

#include "manager/domain/domain.h"
#include "manager/param.h"

enum migrate_flags {
    MIGRATE_LIVE = 1 << 0,
    MIGRATE_PEER2PEER = 1 << 1,
    MIGRATE_TUNNELLED = 1 << 2,
    MIGRATE_PERSIST_DEST = 1 << 3,
    MIGRATE_UNDEFINE_SOURCE = 1 << 4,
    MIGRATE_PAUSED = 1 << 5,
    MIGRATE_NON_SHARED_DISK = 1 << 6,
    MIGRATE_NON_SHARED_INC = 1 << 7,
    MIGRATE_CHANGE_PROTECTION = 1 << 8,
    MIGRATE_UNSAFE = 1 << 9,
    MIGRATE_OFFLINE = 1 << 10,
    MIGRATE_COMPRESSED = 1 << 11,
    MIGRATE_ABORT_ON_ERROR = 1 << 12,
    MIGRATE_AUTO_CONVERGE = 1 << 13,
};

#define MIGRATE_COOKIE_MAX (4u << 20)

/* A cookie as it comes: bytes of the other side, perhaps with a zero at the end. */
struct migrate_cookie_in {
    const char *data;
    size_t len;
};

/* One call's parameters as a caller has them; cookies that are returned are texts, the caller's. */
struct migrate_call {
    const struct caller *who;
    const struct param_list *params;
    unsigned flags;
    struct migrate_cookie_in cookie;
};

bool domain_migrate_begin(const struct migrate_call *c, struct domain *d, char **ret_cookie,
                          char **ret_xml, GError **error);
bool domain_migrate_prepare(const struct migrate_call *c, char **ret_cookie, char **ret_uri,
                            GError **error);
/* `peer` (peer to peer only): the other manager's URI. `shown` (may be NULL) follows it. */
bool domain_migrate_perform(const struct migrate_call *c, struct domain *d, const char *peer,
                            struct job *shown, char **ret_cookie, GError **error);
/* The domain that runs here now, a reference. With `cancelled` all is taken away, which is an error
 * too. */
struct domain *domain_migrate_finish(const struct migrate_call *c, bool cancelled,
                                     char **ret_cookie, GError **error);
bool domain_migrate_confirm(const struct migrate_call *c, struct domain *d, bool cancelled,
                            GError **error);

/* Milliseconds that a guest may stand; bytes of the compression cache. They ask the machine. */
bool domain_migrate_set_downtime(const struct caller *who, struct domain *d, uint64_t ms,
                                 GError **error);
bool domain_migrate_get_downtime(const struct caller *who, struct domain *d, uint64_t *ret,
                                 GError **error);
bool domain_migrate_set_cache(const struct caller *who, struct domain *d, uint64_t bytes,
                              GError **error);
bool domain_migrate_get_cache(const struct caller *who, struct domain *d, uint64_t *ret,
                              GError **error);

/* ---- the other manager, for peer to peer: a front door knows how to talk to it ---- */

enum migrate_answer {
    MIGRATE_YES,
    MIGRATE_NO,   /* it said why not */
    MIGRATE_LOST, /* it may have done what was asked, or not */
};
struct migrate_peer;
struct migrate_peer_ops {
    struct migrate_peer *(*open)(const char *uri, GError **error);
    void (*close)(struct migrate_peer *p);
    /* Does not wait. */
    bool (*is_alive)(const struct migrate_peer *p);
    enum migrate_answer (*prepare)(struct migrate_peer *p, const struct param_list *params,
                                   const char *cookie, unsigned flags, char **ret_cookie,
                                   char **ret_uri, GError **error);
    enum migrate_answer (*finish)(struct migrate_peer *p, const struct param_list *params,
                                  const char *cookie, unsigned flags, bool cancelled,
                                  GError **error);
    /* Does the domain run there? NO: there is none, or it is off. */
    enum migrate_answer (*is_active)(struct migrate_peer *p, const uint8_t uuid[16],
                                     GError **error);
};
/* Before the manager starts; without one, peer to peer is refused. */
void domain_migrate_set_peer(const struct migrate_peer_ops *ops);
