/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files domain_migrate*.c share. Thread: the loop thread. */
#pragma once

#include "manager/domain/domain_migrate.h"
#include "manager/domain/domain_priv.h"

/* Where a migration is; the words are the status file's. */
enum migrate_phase {
    PHASE_BEGUN,     /* out: locked, nothing else */
    PHASE_PREPARED,  /* in: a process waits for the state, or reads it */
    PHASE_PERFORM,   /* out: the state goes away; nobody may run there yet */
    PHASE_PERFORMED, /* out: it is there; whoever drives it tells how it went on */
    PHASE_FAILED,    /* out: it did not get there */
    PHASE_FINISH,    /* out: we have told the peer to go on; in: it was told so */
    PHASE_CONFIRM,   /* out: it runs there; here all is to go */
    MIGRATE_PHASES
};

struct domain_migration {
    bool incoming;
    enum migrate_phase phase;
    unsigned flags;
    bool ran;                   /* the guest ran before */
    bool busy;                  /* a call is at it */
    bool abandoned;             /* its caller ended while it was busy */
    const struct caller *who;   /* whose end ends it; compared, never followed; NULL: nobody's */
    char *peer;                 /* out, peer to peer: its URI */
    char *other_name;           /* what it is called on the other side; NULL: the same */
    struct migrate_peer *link;  /* out, peer to peer: while we talk to it; borrowed */
    struct domain_def *offline; /* in: what is only to be defined */
    /* in */
    int listener; /* -1: none */
    guint listen_source;
    char *socket_path;          /* of a Unix socket, to be removed */
    int stream;                 /* the accepted connection, until the machine has it; -1 */
    struct task_event *arrival; /* who waits for it */
};

/* Parameters of any phase, checked; texts are the list's. */
struct migrate_params {
    const char *uri, *dest_name, *dest_xml, *persist_xml, *listen;
    uint64_t bandwidth_mib;
};
bool migrate_params_read(const struct param_list *l, struct migrate_params *ret, GError **error);
void migrate_params_write(const struct migrate_params *p, struct param_list *ret);
/* Flags that can be done; others are refused by name. */
bool migrate_flags_check(unsigned flags, GError **error);

/* domain_migrate.c */
struct domain_migration *migrate_new(struct domain *d, bool incoming, enum migrate_phase phase,
                                     const struct migrate_call *c);
/* Forgets it and gives the lock back. */
void migrate_over(struct domain *d);
/* Parameters' and machine's reasons against it; the lock is held. */
bool migrate_may_leave(struct domain *d, unsigned flags, GError **error);
char *migrate_source_xml(struct domain *d, const struct migrate_params *p, unsigned flags,
                         GError **error);
/* What the other side is to store: what was given, else what is stored here. *ret is NULL where nothing is; a reference. */
bool migrate_persistent(const struct domain *d, const struct migrate_params *p, unsigned flags,
                        struct domain_def **ret, GError **error);
/* The state goes to `uri`; then the guest stands here. The machine's job goes on until
 * migrate_stay() or migrate_leave(). */
bool migrate_send(struct domain *d, const struct migrate_params *p, const char *uri,
                  struct job *shown, GError **error);
/* The guest goes on here if it did before. `why` is what failed. Gives the lock back. */
void migrate_stay(struct domain *d, GError *const *why);
/* It is over there: all of it goes here. Gives the lock back. */
void migrate_leave(struct domain *d);
/* Nobody knows where it is: it stands here. Gives the lock back. */
void migrate_unknown(struct domain *d);
void migrate_write(struct domain *d, enum migrate_phase phase);

/* domain_migrate_in.c: with the lock, which it gives back */
void migrate_in_drop(struct domain *d);

/* domain_migrate_peer.c */
bool migrate_by_peer(const struct migrate_call *c, struct domain *d, const char *peer,
                     struct job *shown, GError **error);
/* After a finish without an answer, with the lock: asks until it knows, which *ret_moved tells. */
bool migrate_ask_peer(struct domain *d, const char *peer, bool *ret_moved, GError **error);

/* domain_migrate_cookie.c */
struct migrate_cookie {
    char *persistent; /* the stored description; NULL: none */
};
void migrate_cookie_done(struct migrate_cookie *c);
char *migrate_cookie_write(const char *name, const uint8_t uuid[16], struct domain_def *persistent);
/* Checks that it is this domain's, from another host, and asks for nothing that is not known. None
 * at all is fine. */
bool migrate_cookie_read(const struct migrate_cookie_in *in, const char *name,
                         const uint8_t uuid[16], struct migrate_cookie *ret, GError **error);

/* domain_migrate_safe.c: may the disks be written by two caches? */
bool migrate_is_safe(struct domain_def *def, GError **error);
