/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control groups of machines: limits on what their processes take, and counts of what they took.
 *
 * Spec      Linux Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. Of each controller the
 *           hierarchy where it is mounted is used, so that version 1, 2 and both at once work.
 *           Where nothing can be written to, machines run all the same, and what needs a
 *           controller says which one is missing.
 * Thread    The loop thread; files of these file systems do not block.
 * Files     CGROUP_MOUNTS of the environment names a table in the form of /proc/mounts: for tests.
 */
#pragma once

#include "manager/error.h"

#include <stdint.h>
#include <sys/types.h>

enum cgroup_controller {
    CGROUP_CPU,
    CGROUP_CPUACCT,
    CGROUP_CPUSET,
    CGROUP_MEMORY,
    CGROUP_BLKIO,
    CGROUP_CONTROLLERS
};

/* What can be set; by version it is a file of its own, or a part of one. */
enum cgroup_key {
    CGROUP_CPU_SHARES, /* the weight among others, in the version's own scale, as libvirt has it */
    CGROUP_CPU_PERIOD_US,
    CGROUP_CPU_QUOTA_US, /* -1: none */
    CGROUP_MEMORY_HARD,  /* bytes; UINT64_MAX: none */
    CGROUP_MEMORY_SOFT,
    CGROUP_MEMORY_SWAP, /* memory and swap together, in bytes */
    CGROUP_BLKIO_WEIGHT,
    CGROUP_CPUSET_CPUS, /* texts: "0-3,8" */
    CGROUP_CPUSET_MEMS,
    CGROUP_KEYS
};

struct cgroup;

/* Makes the group `name` wherever that is possible. Never NULL. */
struct cgroup *cgroup_new(const char *name);
/* The same, without making anything. */
struct cgroup *cgroup_find(const char *name);
void cgroup_free(struct cgroup *c);   /* the groups stay; NULL is fine */
void cgroup_remove(struct cgroup *c); /* of the host; processes must be gone */
const char *cgroup_name(const struct cgroup *c);
bool cgroup_has(const struct cgroup *c, enum cgroup_controller k);

/* Descriptors of the files where a process enters by writing "0"; the caller's. */
unsigned cgroup_open_procs(const struct cgroup *c, int *ret, unsigned room);

/* `part` NULL: the machine as a whole; "vcpu0", "emulator", "iothread1": some of its threads, a
 * group that is made when something is set, with `tids` in it. */
bool cgroup_set(struct cgroup *c, const char *part, const pid_t *tids, unsigned tid_count,
                enum cgroup_key key, int64_t value, GError **error);
bool cgroup_set_text(struct cgroup *c, enum cgroup_key key, const char *text, GError **error);
/* What holds now; false: the controller is not there. */
bool cgroup_get(const struct cgroup *c, const char *part, enum cgroup_key key, int64_t *ret,
                GError **error);
char *cgroup_get_text(const struct cgroup *c, enum cgroup_key key);
/* Limits of one block device: which is "weight", "rbps", "wbps", "riops" or "wiops"; value 0: none.
 */
bool cgroup_set_device(struct cgroup *c, unsigned major, unsigned minor, const char *which,
                       uint64_t value, GError **error);

/* Processor time; false: not counted. */
bool cgroup_cpu_ns(const struct cgroup *c, uint64_t *ret_total, uint64_t *ret_user,
                   uint64_t *ret_system);
bool cgroup_percpu_ns(const struct cgroup *c, unsigned cpu, uint64_t *ret,
                      GError **error); /* version 1 alone */
/* Is the version 2 hierarchy used for this controller? */
bool cgroup_is_unified(const struct cgroup *c, enum cgroup_controller k);
