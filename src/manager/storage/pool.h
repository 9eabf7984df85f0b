/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Storage pools and their volumes. What a type of pool does differently is its backend: backend.h.
 *
 * Spec      libvirt's storage API at 9.0.0; flags are its numbers.
 * Thread    The loop thread; what touches the file system waits on a worker.
 * Lock      A pool's own, like a domain's job lock.
 * Stored    config_dir/storage/NAME.xml, config_dir/storage/autostart/NAME.xml; which run:
 *           runtime_dir/storage/NAME.xml; thresholds and the like: config_dir/storage/settings/NAME.
 * Trust     Images are hostile: here only first bytes are read, through a bounded cursor; all else
 *           is ruche-img's, another process. Names of volumes have no '/'; links that leave the
 *           pool are not followed. What programs say (lvs, sfdisk, iscsiadm) is checked as it is read.
 * Faults    A server or device that does not answer costs an operation its time-out and the pool its
 *           state (POOL_INACCESSIBLE until a refresh succeeds); never the loop thread.
 */
#pragma once

#include "base/linkset.h"
#include "manager/job.h"
#include "manager/manager.h"
#include "base/xml.h"

#include <time.h>

/* Mode and owners of a folder or file; -1: as the system does it. */
struct file_perms {
    int mode;
    int64_t owner, group;
};
enum volume_type { VOLUME_FILE, VOLUME_BLOCK, VOLUME_DIR, VOLUME_NETWORK, VOLUME_NETDIR }; /* virStorageVolType */
/* Where a partition lies on its disk, by the table when it was looked at; all zeroes: the volume is none. */
struct volume_extent {
    uint64_t start, bytes;
    bool container; /* an extended one: others lie in it */
};
struct volume {
    char *name, *path, *format, *backing, *backing_format;
    char *key;                      /* NULL: the path */
    char *compat;                   /* "1.1" of qcow2, else NULL */
    char *secret;                   /* UUID of the secret that it was encrypted by, where we did it; else NULL */
    char *source;                   /* what stands in its <source>: devices and extents, escaped; may be NULL */
    enum volume_type type;
    struct volume_extent extent;
    uint64_t capacity, allocation, physical, cluster_size;
    struct file_perms perms;
    struct timespec atime, mtime, ctime;
    uint64_t device, inode;         /* with mtime, ctime and physical: has the file changed since it was looked at? */
    int64_t looked_s;               /* when it was looked at, by the system's clock */
    bool encrypted, lazy_refcounts, extended_l2;
    unsigned in_use;                /* uploads, downloads, jobs */
    bool building;
};
enum pool_state { POOL_INACTIVE, POOL_BUILDING, POOL_RUNNING, POOL_DEGRADED, POOL_INACCESSIBLE };
struct pool_backend;
struct pool_def;
struct pool_figures {
    uint64_t capacity, allocation, available;
    struct file_perms perms;
};
struct pool {
    unsigned refs;
    uint8_t uuid[16];
    char *name;
    const struct pool_backend *backend; /* constant; its type is the pool's */
    struct pool_def *def;           /* the description that it has, or runs by */
    struct pool_def *stored;        /* the one that it gets back when it stops; NULL: the same */
    struct file_perms real_perms;   /* what the folder of a running one has */
    enum pool_state state;
    bool persistent, autostart, removed;
    uint64_t capacity, allocation, available;
    unsigned warn_percent;          /* 0: no warning; see pool_set_warning() */
    bool warned;                    /* allocation is over the threshold */
    GHashTable *volumes;            /* name to struct volume */
    unsigned hung, hung_before;     /* works without an answer (backend.c); of those, from before it was started or stopped */
    unsigned starts;                /* how often it was that */
    GHashTable *waited_for;         /* units of SCSI that no driver took in time (scsi_luns.c); NULL: none */
    struct fiber_mutex lock;
};
static inline bool pool_runs(const struct pool *p)
{
    return p->state >= POOL_RUNNING;
}
struct pool *pool_ref(struct pool *p);
void pool_unref(struct pool *p);

struct pool *pool_find_name(const char *name, GError **error);
struct pool *pool_find_uuid(const uint8_t *uuid, GError **error);
struct pool *pool_find_target(const char *path, GError **error);
GPtrArray *pool_list(const struct caller *who, unsigned list_flags);
/* All below (waits). */
struct pool *pool_define(const struct caller *who, const char *xml, unsigned flags, GError **error);
struct pool *pool_create_xml(const struct caller *who, const char *xml, unsigned flags, GError **error);
bool pool_build(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_start(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_refresh(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_destroy(const struct caller *who, struct pool *p, GError **error);
bool pool_delete(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_undefine(const struct caller *who, struct pool *p, GError **error);
bool pool_set_autostart(const struct caller *who, struct pool *p, bool on, GError **error);
char *pool_xml(const struct caller *who, struct pool *p, unsigned flags, GError **error);
char *pool_capabilities(const struct caller *who, GError **error);
/* <sources> that a pool of this type could have; `spec` (may be NULL) is a <source> that says where to look. */
char *pool_find_sources(const struct caller *who, const char *type, const char *spec, unsigned flags, GError **error);
const char *pool_type(const struct pool *p);
bool pool_of_files(const struct pool *p); /* whose volumes are files of its folder */
const char *pool_target(const struct pool *p); /* NULL: its volumes are not on this host */
/* What all volumes may grow to; more than the capacity is over-commitment. */
uint64_t pool_promised(const struct pool *p);
/* Kept with the pool. When allocation goes over the threshold: an event (EVENT_POOL, id POOL_EVENT_FULL) and a line of
 * the log, once until it is below again. 0 to 100; 0: never. */
bool pool_set_warning(const struct caller *who, struct pool *p, unsigned percent, GError **error);
enum pool_event_id { POOL_EVENT_LIFECYCLE, POOL_EVENT_REFRESH, POOL_EVENT_FULL /* ours; event: 1 over, 0 below again */ };

/* Volumes: found by pool and name; by key and path (most often the same) in all pools that run. Borrowed until the next
 * wait. Figures are those of the last look: volume_update() looks again where the file has changed (waits). */
struct volume *volume_find(struct pool *p, const char *name, GError **error);
struct volume *volume_find_path(const char *path, struct pool **ret_pool, GError **error);
struct volume *volume_update(struct pool *p, const char *name, GError **error);
bool volume_create_xml(const struct caller *who, struct pool *p, const char *xml, const char *clone_of_path, unsigned flags,
                       char **ret_name, GError **error);
/* The same as a job that can be watched and cancelled; its result is the volume's name. */
struct job *volume_create_job(const struct caller *who, struct pool *p, const char *xml, const char *clone_of_path,
                              unsigned flags, GError **error);
/* Who would miss what is in a volume: texts, such as "machine 'web'", sorted; the caller's. Does not wait. */
enum volume_user_kind {
    VOLUME_USER_ABOVE = 1,   /* volumes of running pools that stand on it */
    VOLUME_USER_MACHINE = 2, /* machines that run or are defined with it */
    VOLUME_USER_ANY = 3
};
GPtrArray *volume_users(const struct pool *p, const struct volume *v, unsigned kinds);
/* Those that this library does not know: a row adds its texts. */
struct volume_user_finder {
    void (*find)(const char *pool, const struct volume *v, GPtrArray *users);
};
LINKSET_DECLARE(volume_user_finders);
#define VOLUME_USERS(fn)                                                                       \
    static const struct volume_user_finder volume_users_##fn = { .find = fn };                 \
    LINKSET_ENTRY(volume_user_finders, volume_users_##fn)
/* What takes contents away: with `spare_used`, RUCHE_ERR_BUSY where somebody would miss them; without it as with libvirt,
 * which asks nobody. */
struct job *volume_wipe_job(const struct caller *who, struct pool *p, const char *name, unsigned algorithm, bool spare_used,
                            GError **error);
bool volume_delete(const struct caller *who, struct pool *p, const char *name, unsigned flags, bool spare_used, GError **error);
bool volume_resize(const struct caller *who, struct pool *p, const char *name, uint64_t bytes, unsigned flags, bool spare_used,
                   GError **error);
bool volume_wipe(const struct caller *who, struct pool *p, const char *name, unsigned algorithm, GError **error);
char *volume_xml(const struct caller *who, struct pool *p, const char *name, GError **error);
/* A descriptor for a stream to or from the volume, positioned; *ret_length: how much may pass (0: to its end).
 * VOLUME_WRITE_UNUSED: not where another volume stands on it. */
enum volume_access { VOLUME_READ, VOLUME_WRITE, VOLUME_WRITE_UNUSED };
int volume_open(const struct caller *who, struct pool *p, const char *name, enum volume_access access, uint64_t offset,
                uint64_t length, uint64_t *ret_length, GError **error);
/* In a task: returns when the volume is no longer in use. Else that comes later. What was written goes to the disk in the
 * kernel's time. */
void volume_close(struct pool *p, const char *name, int fd, bool written);

/* A disk's <source pool='' volume=''> gets what the volume is: @file, @dev, or @protocol, @name, <host>, <initiator> and
 * <auth>. What it had of these goes. Does not wait. */
bool volume_describe(struct xml_node *source, GError **error);

/* Begins tasks for those that run: they know their volumes when these have ended. */
bool pools_load(GError **error);
void pools_autostart(void);
void pools_stop(void);
