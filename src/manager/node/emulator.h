/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Emulators in more detail than node.h shows: what the two capability documents are made from.
 *
 * Owner     The table in emulator.c. An emulator whose file has changed is asked again; the old
 *           answer stays where it is, as somebody may hold it.
 */
#pragma once

#include "manager/node/node.h"

#include <json-glib/json-glib.h>

struct emulator_machine {
    char *name;  /* canonical: "pc-q35-7.2" */
    char *alias; /* "q35"; NULL: none */
    unsigned cpu_max;
    bool is_default, deprecated;
};
struct emulator_cpu {
    char *name;
    bool usable, usable_kvm, deprecated;
};
struct emulator_full {
    struct emulator e; /* first: node_emulator() lends it */
    struct emulator_machine *machine_rows;
    struct emulator_cpu *cpus;
    unsigned machine_count, cpu_count;
    uint64_t mtime_ns, size; /* of the file that was asked */
    GPtrArray *names;        /* what e.machines points to */
};

/* (waits) All that there are, ours first; of each arch the one that is its default before others.
 * Borrowed. */
GPtrArray *emulator_all(void);
const struct emulator_full *emulator_full(const char *path, const char *arch,
                                          GError **error); /* (waits) */
/* By name or alias; NULL name: the default. NULL: it has no such machine. */
const struct emulator_machine *emulator_machine(const struct emulator_full *f, const char *name);
/* Can KVM be used by this process, and does it rest on the processor's virtualization? Asked anew each
 * time. */
bool node_kvm_usable(void);
/* KVM's own limit of vCPUs; 0: no KVM. */
unsigned node_kvm_max_vcpus(void);

/* Fills e->words by the rows of emulator_words.c: `types` is the set of device types it has. */
GHashTable *emulator_words(bool ours, GHashTable *types);
/* Every word of a set that the emulator has, in the order of the rows; ends with NULL. g_free() the
 * array only. */
const char **emulator_set(const struct emulator *e, const char *set);

/* What an emulator answered, from its lines of QMP; and the same from and to the cache's form.
 * NULL: *error. */
JsonObject *emulator_answer_parse(const char *lines, GError **error);
struct emulator_full *emulator_from_answer(const char *path, JsonObject *answer, GError **error);
void emulator_full_free(struct emulator_full *f);
