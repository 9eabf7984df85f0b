/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the migrate*.c share. */
#pragma once

#include "vmm/migrate.h"
#include "vmm/migrate_channel.h"
#include "vmm/migrate_stream.h"
#include "vmm/migrate_worker.h"

struct incoming;

/* Of struct vmm. */
struct migrate {
    struct migrate_parameters parameters;     /* of the next one, and of the one under way */
    struct migrate_capabilities capabilities;
    struct migration *out;      /* the last one; NULL: none yet */
    struct incoming *in;
    GPtrArray *disks;           /* struct given_disk, while they are given up */
};

/* One that goes out. */
struct migration {
    struct migrate_worker worker; /* its lock guards the next group */
    struct migrate_stats stats;
    struct migrate_parameters parameters;
    bool cancelled, committed, may_continue;

    struct vmm *vmm;
    struct machine *machine;
    struct migrate_capabilities capabilities;
    struct migrate_head head;
    enum run_state before;      /* the switch-over */
    bool stopped, logging;
    GByteArray *state;
    const char *run_state;      /* that goes with it */
    int64_t begun_ns, stopped_ns;

    /* the thread's, and the main thread's while it answers */
    struct migrate_channel channel;
    struct migrate_writer writer;
    struct migrate_reader answers;
    struct migrate_ram ram;
    uint64_t *todo;             /* a bit for each page that is to be sent */
    uint64_t todo_words, todo_pages;
    bool first, live;           /* of rounds; the machine runs, so that the bandwidth counts */
    int64_t window_ns, round_ns, rate_ns;
    uint64_t window_bytes, round_bytes, rate_bytes;
    uint64_t bandwidth;         /* bytes a second that the last round had */
    GError *error;              /* why it failed; NULL: it did not */
};

/* migrate.c: the machine of this program in the stream's terms. */
void migrate_describe(struct vmm *v, struct migrate_head *ret);
void migrate_ram_of(struct vmm *v, struct migrate_ram *ret);
void migrate_event(struct vmm *v, enum migrate_status status);

/* migrate_ram.c, the migration's thread: what the first round sends; a round; whether what is left may be sent with
 * the machine stopped. */
void migrate_ram_begin(struct migration *g);
bool migrate_ram_round(struct migration *g, GError **error);
bool migrate_ram_fits(struct migration *g);

/* migrate_in.c */
void migrate_incoming_done(struct vmm *v);
enum migrate_status migrate_incoming_status(const struct incoming *in);
/* migrate_block.c */
void migrate_disks_forget(struct vmm *v);
